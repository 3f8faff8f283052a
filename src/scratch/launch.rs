//! The parent's side of the sandbox: starts the helper, holds its lifeline, and stops it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio_util::sync::CancellationToken;

use super::error::ScratchError;
use super::place::ProcessId;
use super::sandbox::spec::{Answer, Specification};

/// The helper needs milliseconds; a machine that pages may need more.
const HELPER_DEADLINE: Duration = Duration::from_secs(30);

/// Once told to kill everything, how long that may take.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// How often an ending process is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A program that runs in the sandbox. Dropping it kills everything inside: its lifeline is closed.
pub(super) struct Sandboxed {
    child: Child,
    lifeline: Option<ChildStdin>,
    pub(super) answer: Answer,
    name: String,
}

impl Sandboxed {
    /// Starts a program in the sandbox and waits until it is executed.
    pub(super) async fn start(
        specification: &Specification,
        own_binary: Option<&Path>,
        output: &Path,
        cancel: &CancellationToken,
    ) -> Result<Self, ScratchError> {
        let name = specification
            .program
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let failed = |source| ScratchError::Launch {
            program: name.clone(),
            source,
        };
        let output = open_output(output)?;
        let mut child = Command::new(helper_path(own_binary))
            .arg(super::sandbox::SANDBOX)
            // Nothing of ours: it may hold secrets.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            .spawn()
            .map_err(failed)?;
        let mut lifeline = child.stdin.take();
        let mut line = serde_json::to_vec(specification).map_err(|error| failed(error.into()))?;
        line.push(b'\n');
        let exchange = async {
            if let Some(stdin) = &mut lifeline {
                stdin.write_all(&line).await?;
            }
            let mut text = String::new();
            if let Some(stdout) = &mut child.stdout {
                stdout.read_to_string(&mut text).await?;
            }
            std::io::Result::Ok(text)
        };
        let text = tokio::select! {
            result = tokio::time::timeout(HELPER_DEADLINE, exchange) => result,
            () = cancel.cancelled() => return Err(ScratchError::Cancelled),
        };
        let why = match text {
            Ok(Ok(text)) => match read_answer(&text) {
                Ok(answer) => {
                    return Ok(Self {
                        child,
                        lifeline,
                        answer,
                        name,
                    });
                }
                Err(why) => why,
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} s", HELPER_DEADLINE.as_secs()),
        };
        Err(ScratchError::Sandbox { program: name, why })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn process(&self) -> Option<ProcessId> {
        self.child.id().map(|number| ProcessId::of(number as i32))
    }

    /// The exit status, once the program has ended.
    pub(super) fn exited(&mut self) -> Option<i32> {
        self.child
            .try_wait()
            .ok()
            .flatten()
            .map(|status| status.code().unwrap_or(-1))
    }

    /// Passed on to the program by the helper.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(number) = self.child.id() {
            kill(Pid::from_raw(number as i32), signal).ok();
        }
    }

    /// Waits for the end of the program, but no longer than that.
    pub(super) async fn wait(&mut self, deadline: Duration) -> Option<i32> {
        let until = Instant::now() + deadline;
        loop {
            match self.exited() {
                Some(status) => return Some(status),
                None if Instant::now() > until => return None,
                None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    /// Kills everything inside and waits for it, without a runtime: also for `Drop`.
    pub(super) fn kill_now(&mut self) {
        drop(self.lifeline.take());
        let until = Instant::now() + KILL_DEADLINE;
        while self.exited().is_none() && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        if self.exited().is_none() {
            // The helper itself hangs; its death signal kills what is inside.
            self.signal(Signal::SIGKILL);
        }
    }
}

impl Drop for Sandboxed {
    fn drop(&mut self) {
        if self.exited().is_none() {
            self.kill_now();
        }
    }
}

/// By the magic link rather than by name: the file may have been replaced by a newer version meanwhile.
pub(super) fn helper_path(own_binary: Option<&Path>) -> PathBuf {
    own_binary.map_or_else(|| PathBuf::from("/proc/self/exe"), Path::to_path_buf)
}

fn open_output(path: &Path) -> Result<File, ScratchError> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(ScratchError::directory("write", path))
}

/// Each process of the helper may have said something; a failure counts more than anything else.
fn read_answer(text: &str) -> Result<Answer, String> {
    let answers: Vec<Answer> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())?;
    if let Some(error) = answers.iter().find_map(|answer| answer.error.clone()) {
        return Err(error);
    }
    answers
        .into_iter()
        .next_back()
        .ok_or_else(|| "the helper ended without an answer".to_owned())
}
