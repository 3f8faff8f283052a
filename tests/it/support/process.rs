//! Children that cannot outlive the test that started them, and what they print.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often a state that sends no event is looked at again.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// The kernel sends the signal to the child when the thread that starts it ends, however that happens.
// There is no safe form: between fork and exec only calls that are safe in signal handlers are allowed, and
// the two here are.
#[allow(unsafe_code)]
pub(crate) fn die_with_us(command: &mut Command, signal: Signal) -> &mut Command {
    let parent = nix::unistd::getpid();
    // SAFETY: prctl and getppid are async-signal-safe, and the closure touches no memory but its own copies.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(signal)?;
            if nix::unistd::getppid() != parent {
                return Err(std::io::Error::from_raw_os_error(nix::libc::ESRCH));
            }
            Ok(())
        })
    }
}

pub(crate) fn send(child: &Child, signal: Signal) {
    let _ = kill(pid(child), signal);
}

/// Kills a child that leads its own process group, with all that it started and that stayed in the group.
pub(crate) fn kill_group(child: &mut Child) {
    let _ = kill(Pid::from_raw(-pid(child).as_raw()), Signal::SIGKILL);
    let _ = child.wait();
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// The child's status, or nothing when it still runs at the deadline.
pub(crate) fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().expect("wait for a child") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(POLL);
    }
}

/// Runs a helper program to its end; panics with its output when it fails.
pub(crate) fn run_or_panic(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    ended: bool,
}

/// One output of a child, read by a thread of its own so that the child never waits for us.
pub(crate) struct Captured {
    shared: Arc<(Mutex<Heard>, Condvar)>,
}

impl Captured {
    pub(crate) fn new(mut from: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(Heard::default()), Condvar::new()));
        let writer = Arc::clone(&shared);
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let count = from.read(&mut buffer).unwrap_or(0);
                let mut read = writer.0.lock().unwrap();
                read.bytes.extend_from_slice(&buffer[..count]);
                read.ended = count == 0;
                writer.1.notify_all();
                if read.ended {
                    return;
                }
            }
        });
        Self { shared }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.shared.0.lock().unwrap().bytes).into_owned()
    }

    /// Whether the pattern came before the output ended and before the deadline.
    pub(crate) fn wait_for(&self, pattern: &str, deadline: Instant) -> bool {
        self.wait(deadline, |read| {
            String::from_utf8_lossy(&read.bytes).contains(pattern)
        });
        self.text().contains(pattern)
    }

    /// Whether everyone who could write has closed the output before the deadline.
    pub(crate) fn wait_for_end(&self, deadline: Instant) -> bool {
        self.wait(deadline, |_| false);
        self.shared.0.lock().unwrap().ended
    }

    fn wait(&self, deadline: Instant, enough: impl Fn(&Heard) -> bool) {
        let left = deadline.saturating_duration_since(Instant::now());
        let guard = self.shared.0.lock().unwrap();
        drop(
            self.shared
                .1
                .wait_timeout_while(guard, left, |read| !read.ended && !enough(read))
                .unwrap(),
        );
    }
}
