//! The sandbox: a hidden subcommand of our own binary that runs one program with next to no rights.
//!
//! A process of its own rather than code between fork and exec: the parent has many threads, and a process
//! namespace needs a second fork. Three processes: the supervisor (outside, holds the lifeline), the first
//! process inside (adopts and reaps what the server's children leave behind, which PostgreSQL itself would
//! mistake for a crash), and the program.
//!
//! Nothing in here may start a thread, and nothing may weaken what the answer says is in force.

mod filter;
mod probe;
mod raw;
mod root;
mod rules;
pub(crate) mod spec;
mod supervisor;

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{ForkResult, Gid, Uid};

pub(crate) use probe::{ProbeRequest, SEPARATOR, encode};
use spec::{Answer, IsolationWanted, Specification, layer};

/// What the helper ends with when it could not do its own work; no PostgreSQL program uses it.
const HELPER_FAILED: i32 = 125;

/// The hidden subcommands: the sandbox itself, the probe run inside of it, and the process that the probe
/// tries to reach.
pub(crate) const SANDBOX: &str = "__sandbox";
pub(crate) const PROBE: &str = "__probe";
pub(crate) const CANARY: &str = "__canary";

/// Runs a hidden subcommand when the arguments (without the program's name) name one.
pub fn sandbox_main(arguments: &[OsString]) -> Option<i32> {
    let name = arguments.first().map(OsString::as_os_str)?;
    if name == OsStr::new(SANDBOX) {
        Some(sandbox())
    } else if name == OsStr::new(PROBE) {
        Some(probe::probe_main(arguments.get(1)))
    } else if name == OsStr::new(CANARY) {
        Some(probe::canary_main(&arguments[1..]))
    } else {
        None
    }
}

fn sandbox() -> i32 {
    run().unwrap_or_else(|error| {
        let answer = Answer {
            error: Some(error.to_string()),
            ..Answer::default()
        };
        // The parent may be gone; there is nobody else to tell.
        let _ = send(&mut io::stdout(), &answer);
        HELPER_FAILED
    })
}

fn run() -> io::Result<i32> {
    raw::close_inherited_files()?;
    // A session of its own: Ctrl-C in a terminal must reach the parent only, which stops the server in order.
    nix::unistd::setsid().ok();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    // A dump of memory would hold restored rows.
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let specification: Specification = serde_json::from_str(&line)?;

    let mut answer = Answer {
        probe: specification.own_binary.clone(),
        ..Answer::default()
    };
    drop_privileges(&specification, &mut answer)?;
    let namespaces = match specification.isolation {
        IsolationWanted::None => CloneFlags::empty(),
        IsolationWanted::Required | IsolationWanted::BestEffort => enter_namespaces(&mut answer)?,
    };
    supervisor::block_signals()?;
    // Whoever is forked sees by this pipe that its parent died before the death signal was asked for.
    let (alive, held) = nix::unistd::pipe()?;
    match raw::fork()? {
        ForkResult::Child => {
            drop(held);
            let code = first_process(&specification, namespaces, answer, &alive);
            std::process::exit(code);
        }
        ForkResult::Parent { child } => {
            drop(alive);
            // The parent reads answers until nobody can write any: that must not wait for the supervisor.
            silence_stdout()?;
            let code = supervisor::supervise(child, namespaces.contains(CloneFlags::CLONE_NEWPID));
            drop(held);
            code
        }
    }
}

fn drop_privileges(specification: &Specification, answer: &mut Answer) -> io::Result<()> {
    if let Some(identity) = &specification.identity {
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
        nix::unistd::setgroups(&[gid])?;
        nix::unistd::setresgid(gid, gid, gid)?;
        nix::unistd::setresuid(uid, uid, uid)?;
        // After a change of user the files in /proc/self belong to root, and the maps could not be written.
        prctl::set_dumpable(true)?;
        answer.add(layer::UNPRIVILEGED);
    }
    if Uid::effective().is_root() {
        return Err(io::Error::other("the sandbox never runs a server as root"));
    }
    Ok(prctl::set_no_new_privs()?)
}

/// Enters as many namespaces as are allowed: units and containers refuse some of them, or all.
fn enter_namespaces(answer: &mut Answer) -> io::Result<CloneFlags> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let named = [
        (CloneFlags::CLONE_NEWUSER, layer::USER),
        (CloneFlags::CLONE_NEWNET, layer::NETWORK),
        (CloneFlags::CLONE_NEWPID, layer::PROCESS),
        (CloneFlags::CLONE_NEWIPC, layer::IPC),
        (CloneFlags::CLONE_NEWNS, layer::MOUNT),
    ];
    let all = named
        .iter()
        .fold(CloneFlags::CLONE_NEWUTS, |flags, (flag, _)| flags | *flag);
    let without_mount = all - CloneFlags::CLONE_NEWNS;
    let least = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
    let mut entered = CloneFlags::empty();
    let mut refusal = None;
    for flags in [all, without_mount, least] {
        match unshare(flags) {
            Ok(()) => {
                entered = flags;
                break;
            }
            Err(error) => refusal = Some(error),
        }
    }
    for (flag, name) in named {
        match refusal {
            Some(why) if !entered.contains(flag) => answer.lacks(name, why),
            // Whether there is a new root turns out when it has been built.
            _ if flag == CloneFlags::CLONE_NEWNS => {}
            _ => answer.add(name),
        }
    }
    if !entered.is_empty() {
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    Ok(entered)
}

/// The first process inside: builds the root, starts the program, reaps until the program ends.
fn first_process(
    specification: &Specification,
    namespaces: CloneFlags,
    mut answer: Answer,
    alive: &OwnedFd,
) -> i32 {
    let outcome = (|| -> io::Result<i32> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        supervisor::end_if_parent_is_gone(alive);
        let own_processes = namespaces.contains(CloneFlags::CLONE_NEWPID);
        if !own_processes {
            prctl::set_child_subreaper(true)?;
        }
        let mut has_new_root = false;
        if namespaces.contains(CloneFlags::CLONE_NEWNS) {
            match root::enter(specification) {
                Ok(()) => {
                    has_new_root = true;
                    answer.add(layer::MOUNT);
                    answer.probe = root::PROBE.into();
                    answer.private_shared_memory = true;
                }
                Err(error) => answer.lacks(layer::MOUNT, error),
            }
        }
        if specification.statistics_collector && namespaces.contains(CloneFlags::CLONE_NEWNET) {
            raw::loopback_up()?;
        }
        let own_id = nix::unistd::getpid();
        match raw::fork()? {
            ForkResult::Child => {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                if nix::unistd::getppid() != own_id {
                    return Ok(HELPER_FAILED);
                }
                Err(execute(specification, has_new_root, answer.clone()))
            }
            ForkResult::Parent { child } => {
                silence_stdout()?;
                supervisor::reap(child, own_processes)
            }
        }
    })();
    outcome.unwrap_or_else(|error| {
        answer.error = Some(error.to_string());
        let _ = send(&mut io::stdout(), &answer);
        HELPER_FAILED
    })
}

/// Puts the last layers on and becomes the program. Returns only when that did not work.
fn execute(specification: &Specification, has_new_root: bool, mut answer: Answer) -> io::Error {
    let prepared = (|| -> io::Result<(std::fs::File, OwnedFd)> {
        let answers = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
        std::env::set_current_dir(&specification.writable)?;
        Ok((answers, io::stderr().as_fd().try_clone_to_owned()?))
    })();
    let (mut answers, output) = match prepared {
        Ok(files) => files,
        Err(error) => return error,
    };
    let bin = specification
        .program
        .parent()
        .map(|path| path.display().to_string())
        .unwrap_or_default();
    let mut command = Command::new(&specification.program);
    command
        .args(&specification.arguments)
        .env_clear()
        .env("PATH", format!("{bin}:/usr/bin:/bin"))
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .stdout(output);
    if specification.isolation != IsolationWanted::None {
        rules::restrict(specification, has_new_root, &mut answer);
        match install_filters(specification.statistics_collector) {
            Ok(()) => answer.add(layer::SECCOMP),
            Err(error) => answer.lacks(layer::SECCOMP, error),
        }
    }
    let _ = send(&mut answers, &answer);
    // Resets the signal mask, and the handling of SIGPIPE that Rust changed.
    command.exec()
}

fn install_filters(collector: bool) -> io::Result<()> {
    for program in filter::filters(collector).map_err(io::Error::other)? {
        raw::install_filter(&program)?;
    }
    Ok(())
}

fn silence_stdout() -> io::Result<()> {
    Ok(nix::unistd::dup2_stdout(io::stderr())?)
}

fn send(to: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}
