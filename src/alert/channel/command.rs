//! A program of the operator's, which is started for each message.

use std::io::ErrorKind;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};

use super::{Channel, Failure, Receipt};
use crate::alert::facts::Facts;
use crate::alert::message::Message;
use crate::alert::redaction::Redaction;

/// What the program says is kept up to here; the rest is read and dropped, so that it is not stopped by a full pipe.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// Of what it said before it failed, the last lines are shown.
const LAST_LINES: usize = 3;

/// What it started may hold its output open for ever: once it has ended itself, nobody waits longer for more.
const OUTPUT_TIME: Duration = Duration::from_millis(500);

/// A program and its arguments.
pub struct Command {
    words: Vec<String>,
}

impl Command {
    pub fn new(words: Vec<String>) -> Self {
        Self { words }
    }

    fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    fn start(&self, message: &Message) -> std::io::Result<Child> {
        let mut command = tokio::process::Command::new(self.program());
        command
            .args(self.words.iter().skip(1))
            .env("ERNSTFALL_ALERT", plain(message.alert()))
            .env("ERNSTFALL_STATUS", message.state.as_str())
            .env("ERNSTFALL_SEVERITY", plain(message.severity()))
            .env(
                "ERNSTFALL_TARGET",
                plain(message.labels.get("target").map_or("", String::as_str)),
            )
            .env("ERNSTFALL_SUMMARY", plain(&message.summary))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own: what it starts has to end with it.
            .process_group(0)
            .kill_on_drop(true);
        command.spawn()
    }
}

#[async_trait]
impl Channel for Command {
    async fn deliver(&self, message: &Message, _now: DateTime<Utc>) -> Result<Receipt, Failure> {
        let mut child = self.start(message).map_err(|error| Failure {
            // Else the machine has too much to do.
            lasting: matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied),
            ..Failure::may_pass(format!(
                "start {}: {error}; check that it is installed, and that this user may run it",
                self.program()
            ))
        })?;
        let mut group = Group(child.id());
        let ended = communicate(&mut child, Facts::of(message).to_json()).await;
        let (status, output, complaint) =
            ended.map_err(|error| Failure::may_pass(format!("wait for {}: {error}", self.program())))?;
        group.0 = None;
        let redaction = Redaction::default();
        if status.success() {
            let said = String::from_utf8_lossy(&output);
            let first = said.lines().find(|line| !line.trim().is_empty());
            return Ok(Receipt(
                first.map_or_else(|| status.to_string(), |line| redaction.quote(line)),
            ));
        }
        let complaint = redaction.quote(&last_lines(&complaint));
        let said = match complaint.is_empty() {
            true => "nothing".to_owned(),
            false => format!("\"{complaint}\""),
        };
        Err(Failure::may_pass(format!(
            "{} ended with {status}, and it said {said}; run it by hand as this user, with an alert as JSON on its standard input",
            self.program()
        )))
    }
}

/// A process group that is killed when this is dropped, unless its leader has ended by itself.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended just now.
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}

/// Hands the text over, and waits for the end: how it ended, what it said on standard output, and on standard error.
async fn communicate(child: &mut Child, text: String) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (input, output, complaint) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let mut talk = Box::pin(async {
        tokio::join!(
            write(input, text),
            read(output, &mut said),
            read(complaint, &mut complained)
        )
    });
    let status = tokio::select! {
        status = child.wait() => {
            // What has come by then is enough.
            let _ = tokio::time::timeout(OUTPUT_TIME, &mut talk).await;
            status?
        }
        _ = &mut talk => child.wait().await?,
    };
    drop(talk);
    Ok((status, said, complained))
}

async fn write(input: Option<ChildStdin>, text: String) {
    if let Some(mut input) = input {
        // A program that needs only the variables closes its input unread.
        let _ = input.write_all(text.as_bytes()).await;
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut piece = [0; 4096];
    // What came before a fault of the pipe is still worth having.
    while let Ok(length @ 1..) = pipe.read(&mut piece).await {
        kept.extend_from_slice(&piece[..length]);
        let excess = kept.len().saturating_sub(MAX_OUTPUT_BYTES);
        kept.drain(..excess);
    }
}

/// A variable ends at a zero byte.
fn plain(text: &str) -> String {
    text.replace('\0', "")
}

fn last_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("; ")
}
