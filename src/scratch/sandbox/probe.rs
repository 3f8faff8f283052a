//! The probe: what a program inside the sandbox can reach of the world outside. It is run by the server itself
//! (COPY … FROM PROGRAM), so that it has exactly the rights that code in the restored copy would have.
//!
//! It only tries. What counts is also watched from outside, where the copy cannot lie.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::raw;

/// Between the fields of a line of the probe's output; occurs in no error text.
pub(crate) const SEPARATOR: char = '\u{1f}';

/// A local attempt needs far less; a firewall that drops packets must not hold the test up.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Ignored by every process that did not ask for it: the probe may hit a process it does not mean.
const HARMLESS: Signal = Signal::SIGWINCH;

/// What to try. The canaries are made by the parent for the purpose.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProbeRequest {
    pub(crate) tcp_ipv4: Option<SocketAddr>,
    pub(crate) tcp_ipv6: Option<SocketAddr>,
    pub(crate) udp: Option<SocketAddr>,
    pub(crate) unix_socket: PathBuf,
    pub(crate) abstract_socket: String,
    pub(crate) secret_file: PathBuf,
    /// The content of the file and of the other process's environment.
    pub(crate) secret: String,
    pub(crate) writable_file: PathBuf,
    pub(crate) process: i32,
}

/// Prints a line per attempt: name, open or closed, detail. The request comes as JSON in hexadecimal digits,
/// which need no quoting on their way through SQL and a shell.
pub(super) fn probe_main(argument: Option<&OsString>) -> i32 {
    let request = argument.and_then(|text| decode(text.to_str()?));
    let Some(request) = request else { return 2 };
    let mut lines = String::new();
    for (name, result) in attempts(&request) {
        let (state, detail) = match result {
            Ok(()) => ("open", String::new()),
            Err(error) => ("closed", error.to_string().replace(['\n', '\r'], " ")),
        };
        lines.push_str(&format!("{name}{SEPARATOR}{state}{SEPARATOR}{detail}\n"));
    }
    match io::stdout().write_all(lines.as_bytes()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

pub(crate) fn encode(request: &ProbeRequest) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_vec(request)?
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn decode(text: &str) -> Option<ProbeRequest> {
    let bytes: Option<Vec<u8>> = (0..text.len() / 2)
        .map(|index| u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok())
        .collect();
    serde_json::from_slice(&bytes?).ok()
}

fn attempts(request: &ProbeRequest) -> Vec<(&'static str, io::Result<()>)> {
    vec![
        ("tcp_ipv4", connect(request.tcp_ipv4)),
        ("tcp_ipv6", connect(request.tcp_ipv6)),
        ("udp", send(request.udp)),
        ("route", route()),
        ("vsock", raw::vsock_can_be_made()),
        ("unix_socket", UnixStream::connect(&request.unix_socket).map(drop)),
        ("abstract_socket", connect_abstract(&request.abstract_socket)),
        ("file_read", read(request)),
        (
            "file_write",
            std::fs::write(&request.writable_file, "written by the probe"),
        ),
        ("process_environment", environment(request)),
        (
            "signal",
            kill(Pid::from_raw(request.process), HARMLESS).map_err(io::Error::from),
        ),
    ]
}

fn connect(address: Option<SocketAddr>) -> io::Result<()> {
    let address = address.ok_or_else(|| io::Error::other("not tried: the machine has no such address"))?;
    TcpStream::connect_timeout(&address, ATTEMPT).map(drop)
}

fn send(address: Option<SocketAddr>) -> io::Result<()> {
    let address = address.ok_or_else(|| io::Error::other("not tried: the machine has no such address"))?;
    UdpSocket::bind("127.0.0.1:0")?
        .send_to(b"probe", address)
        .map(drop)
}

/// Whether there is any way out. Connecting by UDP sends nothing; the address is reserved for documents.
fn route() -> io::Result<()> {
    UdpSocket::bind("0.0.0.0:0")?.connect("192.0.2.1:9")
}

fn connect_abstract(name: &str) -> io::Result<()> {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    UnixStream::connect_addr(&address).map(drop)
}

fn read(request: &ProbeRequest) -> io::Result<()> {
    found(std::fs::read(&request.secret_file)?, &request.secret)
}

fn environment(request: &ProbeRequest) -> io::Result<()> {
    // With the secret in it: the same number may belong to another process inside.
    found(
        std::fs::read(format!("/proc/{}/environ", request.process))?,
        &request.secret,
    )
}

fn found(bytes: Vec<u8>, secret: &str) -> io::Result<()> {
    match bytes
        .windows(secret.len())
        .any(|window| window == secret.as_bytes())
    {
        true => Ok(()),
        false => Err(io::Error::other("read, but it is not what was looked for")),
    }
}

/// The process that the probe tries to reach: says `ready`, then `signal` for each signal that arrived. Ends
/// with its stdin. Turns into the server's user first, so that only the sandbox stands between the two.
pub(crate) fn canary_main(arguments: &[OsString]) -> i32 {
    let numbers: Vec<u32> = arguments
        .iter()
        .filter_map(|text| text.to_str()?.parse().ok())
        .collect();
    if let [uid, gid] = numbers[..] {
        let (uid, gid) = (nix::unistd::Uid::from_raw(uid), nix::unistd::Gid::from_raw(gid));
        let turned = nix::unistd::setgroups(&[gid])
            .and_then(|()| nix::unistd::setresgid(gid, gid, gid))
            .and_then(|()| nix::unistd::setresuid(uid, uid, uid))
            // Or else its files in /proc would belong to root, and prove nothing.
            .and_then(|()| nix::sys::prctl::set_dumpable(true));
        if turned.is_err() {
            return 1;
        }
    }
    let mut signals = SigSet::empty();
    signals.add(HARMLESS);
    if signals.thread_block().is_err() || io::stdout().write_all(b"ready\n").is_err() {
        return 1;
    }
    let mut end = Vec::new();
    // The signal stays pending while blocked, so it is enough to look when the parent is done.
    io::stdin().read_to_end(&mut end).ok();
    let flags = nix::sys::signalfd::SfdFlags::SFD_NONBLOCK;
    let arrived = nix::sys::signalfd::SignalFd::with_flags(&signals, flags)
        .and_then(|descriptor| descriptor.read_signal())
        .is_ok_and(|signal| signal.is_some());
    if arrived {
        io::stdout().write_all(b"signal\n").ok();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_way_through_sql_and_shell() {
        let request = ProbeRequest {
            tcp_ipv4: Some(([127, 0, 0, 1], 5).into()),
            tcp_ipv6: None,
            udp: None,
            unix_socket: "/a 'b'".into(),
            abstract_socket: "name".into(),
            secret_file: "/ä".into(),
            secret: "s".into(),
            writable_file: "/w".into(),
            process: 7,
        };
        let text = encode(&request).unwrap();
        assert!(text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(decode(&text).unwrap().unix_socket, request.unix_socket);
        assert!(decode("zz").is_none());
    }
}
