//! The raw system calls of the sandbox.
//!
//! Each function is the smallest safe shell around one call for which neither `std` nor `nix` has a safe
//! form. They are called from the hidden subcommand only, a process with one thread.

#![allow(unsafe_code)] // fork, mount_setattr, close_range, prctl and ioctl have no safe form.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::unistd::ForkResult;

/// Forks. Only for a process with one thread: the child may then run ordinary code.
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the hidden subcommand starts no thread, so no lock can be held by a thread that is lost.
    unsafe { nix::unistd::fork() }
}

/// Closes every inherited file descriptor but stdin, stdout and stderr.
pub(super) fn close_inherited_files() -> io::Result<()> {
    // SAFETY: takes integers only, and runs before this process has opened anything that it owns.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) })
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Makes a mount and all mounts below it read-only, by mount_setattr: a remount is refused where the
/// original has locked flags.
pub(super) fn make_read_only(path: &Path) -> io::Result<()> {
    const READ_ONLY: u64 = 0x1;
    const NO_SET_USER_ID: u64 = 0x2;
    let attributes = MountAttributes {
        set: READ_ONLY | NO_SET_USER_ID,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    let path = CString::new(path.as_os_str().as_bytes())?;
    const RECURSIVE: libc::c_int = 0x8000;
    // SAFETY: the path ends with NUL, the structure has the layout and the size the kernel expects (version 0),
    // and both outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })
}

/// Installs a seccomp filter, by prctl: units that allow `@system-service` refuse the seccomp call.
pub(super) fn install_filter(program: &[seccompiler::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog {
        len: length,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel only reads the program, which outlives the call; both `sock_filter` are the kernel's
    // layout.
    check(i64::from(unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    }))
}

/// Switches the loopback interface of this network namespace on.
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::from(nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?);
    // SAFETY: all zeroes is a valid `ifreq`: plain integers and arrays.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is open and the request outlives the call.
    check(i64::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request)
    }))
}

/// Whether a vsock socket can be made: nobody answers on it in a test, but whoever can make one can talk to
/// the hypervisor.
pub(super) fn vsock_can_be_made() -> io::Result<()> {
    // SAFETY: takes integers only.
    let descriptor = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    check(i64::from(descriptor))?;
    // SAFETY: the descriptor was made above and belongs to nobody else.
    check(i64::from(unsafe { libc::close(descriptor) }))
}

fn check(result: libc::c_long) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
