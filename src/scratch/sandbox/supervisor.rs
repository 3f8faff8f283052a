//! The two processes that stand between the parent and the program: they pass signals in and the exit status
//! out, and make sure that nothing outlives the parent.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long processes get to end by themselves after the parent died, where no process namespace ends them.
const GRACE: Duration = Duration::from_secs(5);

/// Signals of the parent, passed on to the program: PostgreSQL's three ways to shut down.
const PASSED_ON: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGQUIT];

/// From the supervisor to the first process: kill everything.
const END_ALL: Signal = Signal::SIGUSR1;

fn watched() -> SigSet {
    let mut signals = SigSet::empty();
    PASSED_ON
        .into_iter()
        .chain([Signal::SIGCHLD, END_ALL])
        .for_each(|signal| signals.add(signal));
    signals
}

/// From here on signals are read one by one, never handled in between.
pub(super) fn block_signals() -> io::Result<()> {
    Ok(watched().thread_block()?)
}

/// Ends this process when the writing end of the pipe is closed already.
pub(super) fn end_if_parent_is_gone(alive: &OwnedFd) {
    let mut descriptors = [PollFd::new(alive.as_fd(), PollFlags::empty())];
    if poll(&mut descriptors, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        std::process::exit(1);
    }
}

/// The supervisor: waits for the first process, signals and the end of the lifeline (stdin). Not the
/// parent-death signal: that comes when the *thread* that forked ends, and the parent's threads come and go.
pub(super) fn supervise(first: Pid, own_processes: bool) -> io::Result<i32> {
    let signals = SignalFd::with_flags(&watched(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let stdin = io::stdin();
    let mut dying_since: Option<Instant> = None;
    loop {
        let lifeline = if dying_since.is_some() {
            PollFlags::empty()
        } else {
            PollFlags::POLLIN
        };
        let mut descriptors = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(stdin.as_fd(), lifeline),
        ];
        // Once the lifeline is gone its descriptor is always ready: it is left out then, and time is watched.
        let watched_descriptors = if dying_since.is_some() {
            &mut descriptors[..1]
        } else {
            &mut descriptors[..]
        };
        match poll(watched_descriptors, PollTimeout::from(200u16)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let lost = dying_since.is_none() && descriptors[1].any().unwrap_or(false);
        if let Some(code) = ended(waitpid(first, Some(WaitPidFlag::WNOHANG))) {
            return Ok(code);
        }
        while let Ok(Some(information)) = signals.read_signal() {
            let signal = Signal::try_from(information.ssi_signo as i32).ok();
            if let Some(signal) = signal.filter(|signal| PASSED_ON.contains(signal)) {
                kill(first, signal).ok();
            }
        }
        if lost {
            // With a process namespace the death of its first process is the death of all.
            kill(first, if own_processes { Signal::SIGKILL } else { END_ALL }).ok();
            dying_since = Some(Instant::now());
        }
        if dying_since.is_some_and(|since| since.elapsed() > GRACE) {
            kill(first, Signal::SIGKILL).ok();
        }
    }
}

/// The first process inside: reaps whatever ends, until the program does.
pub(super) fn reap(program: Pid, own_processes: bool) -> io::Result<i32> {
    let signals = watched();
    let mut code = None;
    while code.is_none() {
        match signals.wait()? {
            Signal::SIGCHLD => code = reap_ended(program),
            END_ALL => {
                kill(program, Signal::SIGKILL).ok();
            }
            signal => {
                kill(program, signal).ok();
            }
        }
    }
    if !own_processes {
        kill_orphans();
    }
    Ok(code.unwrap_or_default())
}

fn reap_ended(program: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        let status = waitpid(None, Some(WaitPidFlag::WNOHANG));
        match status {
            Ok(WaitStatus::StillAlive) | Err(_) => return code,
            Ok(status) if status.pid() == Some(program) => code = code.or(ended(Ok(status))),
            Ok(_) => {}
        }
    }
}

/// Kills what the program left behind: as subreaper this process has adopted it.
fn kill_orphans() {
    let until = Instant::now() + GRACE;
    let children = format!("/proc/self/task/{}/children", nix::unistd::gettid());
    while Instant::now() < until {
        let list = fs::read_to_string(&children).unwrap_or_default();
        for process in list.split_whitespace().filter_map(|text| text.parse().ok()) {
            kill(Pid::from_raw(process), Signal::SIGKILL).ok();
        }
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return,
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(5)),
            _ => {}
        }
    }
}

/// The exit status as a shell would say it: 128 and the signal's number for a death by signal.
fn ended(status: nix::Result<WaitStatus>) -> Option<i32> {
    match status {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as i32),
        Err(Errno::ECHILD) => Some(1),
        _ => None,
    }
}
