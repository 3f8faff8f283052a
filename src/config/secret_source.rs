//! Where a secret comes from. It is fetched when it is used, so that `status` needs no database password.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::environment::Environment;
use crate::model::secret::Secret;

/// A password manager that asks a person something would otherwise hold up every backup.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

const COMMAND_POLL: Duration = Duration::from_millis(10);

/// No secret is longer; a file or command that is was named by mistake.
const MAX_SECRET_BYTES: u64 = 1 << 20;

/// What is quoted of a command's complaint.
const MAX_QUOTED_CHARACTERS: usize = 500;

#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    Text(Secret),
    Env(String),
    File(PathBuf),
    /// A file in `$CREDENTIALS_DIRECTORY`, as systemd's `LoadCredential=` makes it.
    Credential(String),
    Command(Vec<String>),
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(
        "environment variable {0} is not set or empty: set it, or name another source in the configuration"
    )]
    VariableNotSet(String),
    #[error("cannot read the secret from {path}: check that the file exists and that this user may read it")]
    File { path: PathBuf, source: std::io::Error },
    #[error(
        "{0} holds no secret: it is empty, or is not text, or is longer than 1 MiB; correct the file or name another"
    )]
    Unusable(String),
    #[error(
        "credential {0:?} is not available: $CREDENTIALS_DIRECTORY is not set; add `LoadCredential={0}:PATH` to the systemd unit"
    )]
    NoCredentials(String),
    #[error("cannot run {program} for a secret: check that it is installed and on the PATH")]
    CommandNotRun { program: String, source: std::io::Error },
    #[error("{program} gave no secret ({outcome}): run it by hand as this user{stderr}")]
    CommandFailed {
        program: String,
        outcome: String,
        stderr: String,
    },
}

impl SecretSource {
    /// Files are relative to the configuration's directory, wherever the program was started.
    pub(super) fn relative_to(self, base: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(base.join(path)),
            other => other,
        }
    }

    /// Fetches the secret. May take as long as its command does, at most half a minute.
    pub fn resolve(&self, environment: &Environment) -> Result<Secret, SecretError> {
        match self {
            Self::Text(secret) => Ok(secret.clone()),
            Self::Env(name) => environment
                .variable(name)
                .map(Secret::new)
                .ok_or_else(|| SecretError::VariableNotSet(name.clone())),
            Self::File(path) => read_file(path.clone()),
            Self::Credential(name) => {
                let directory = environment.variable("CREDENTIALS_DIRECTORY");
                let directory = directory.ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
                read_file(PathBuf::from(directory).join(name))
            }
            Self::Command(words) => out_of_the_way(|| run_command(words, environment, COMMAND_TIMEOUT)),
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => formatter.write_str("text ***"),
            Self::Env(name) => write!(formatter, "env {name}"),
            Self::File(path) => write!(formatter, "file {}", path.display()),
            Self::Credential(name) => write!(formatter, "credential {name}"),
            // Arguments may hold a token.
            Self::Command(words) => write!(formatter, "command {}", words.first().map_or("", String::as_str)),
        }
    }
}

/// Waits where the other tasks of this process do not wait as well.
fn out_of_the_way<T>(work: impl FnOnce() -> T) -> T {
    let shares_its_thread = tokio::runtime::Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread);
    if shares_its_thread {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

fn read_file(path: PathBuf) -> Result<Secret, SecretError> {
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(&path)?
            .take(MAX_SECRET_BYTES + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| SecretError::File {
        path: path.clone(),
        source,
    })?;
    secret_of(bytes).ok_or_else(|| SecretError::Unusable(path.display().to_string()))
}

/// Editors and `echo` end a file with a newline that is no part of the secret: one is dropped, no more.
fn secret_of(bytes: Vec<u8>) -> Option<Secret> {
    if bytes.len() as u64 > MAX_SECRET_BYTES {
        return None;
    }
    let text = String::from_utf8(bytes).ok()?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    (!text.is_empty()).then(|| Secret::new(text))
}

/// On a timeout the command is killed; what it started itself may go on.
fn run_command(
    words: &[String],
    environment: &Environment,
    timeout: Duration,
) -> Result<Secret, SecretError> {
    let program = words.first().cloned().unwrap_or_default();
    let not_run = |source| SecretError::CommandNotRun {
        program: program.clone(),
        source,
    };
    let mut child = Command::new(&program)
        .args(words.iter().skip(1))
        .env_clear()
        .envs(&environment.variables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(not_run)?;
    // Both pipes are drained aside, else a talkative command would block for ever on a full one.
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let deadline = Instant::now() + timeout;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(not_run)? {
            break status;
        }
        if Instant::now() >= deadline {
            // Killing fails only if it has just ended; either way it is over.
            let _ = child.kill();
            let _ = child.wait();
            let outcome = format!("still running after {} s", timeout.as_secs());
            return Err(SecretError::CommandFailed {
                program,
                outcome,
                stderr: String::new(),
            });
        }
        std::thread::sleep(COMMAND_POLL);
    };
    let remaining = || {
        deadline
            .saturating_duration_since(Instant::now())
            .max(COMMAND_POLL)
    };
    let output = stdout.recv_timeout(remaining()).unwrap_or_default();
    let complaint = stderr.recv_timeout(remaining()).unwrap_or_default();
    let failed = |outcome: String| SecretError::CommandFailed {
        program,
        outcome,
        stderr: quoted(&complaint),
    };
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    secret_of(output).ok_or_else(|| failed("its output is empty, not text, or longer than 1 MiB".to_owned()))
}

fn drain<R: Read + Send + 'static>(pipe: Option<R>) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth having.
            let _ = pipe.by_ref().take(MAX_SECRET_BYTES + 1).read_to_end(&mut bytes);
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        // Nobody listens any more after a timeout.
        let _ = sender.send(bytes);
    });
    receiver
}

fn quoted(stderr: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(stderr)
        .trim()
        .chars()
        .take(MAX_QUOTED_CHARACTERS)
        .collect();
    if text.is_empty() {
        text
    } else {
        format!("; it said: {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(source: &SecretSource) -> Result<Secret, SecretError> {
        let mut environment = Environment::of_this_process();
        environment
            .variables
            .insert("A_SECRET".to_owned(), "from env".to_owned());
        environment.variables.remove("CREDENTIALS_DIRECTORY");
        source.resolve(&environment)
    }

    fn shell(script: &str) -> SecretSource {
        SecretSource::Command(["sh", "-c", script].map(str::to_owned).to_vec())
    }

    #[test]
    fn a_secret_comes_from_each_kind_of_source() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "from file\n").unwrap();
        let text = |source: &SecretSource| resolve(source).unwrap().expose().to_owned();
        assert_eq!(text(&SecretSource::Text(Secret::new("plain"))), "plain");
        assert_eq!(text(&SecretSource::Env("A_SECRET".to_owned())), "from env");
        assert_eq!(text(&SecretSource::File(path)), "from file");
        assert_eq!(text(&shell("echo from command")), "from command");
        let credentials = directory.path().display().to_string();
        let environment = Environment {
            variables: [("CREDENTIALS_DIRECTORY".to_owned(), credentials)].into(),
            ..Environment::default()
        };
        let credential = SecretSource::Credential("password".to_owned());
        assert_eq!(credential.resolve(&environment).unwrap().expose(), "from file");
    }

    #[test]
    fn only_one_newline_is_dropped() {
        assert_eq!(secret_of(b"a\n\n".to_vec()).unwrap().expose(), "a\n");
        assert_eq!(secret_of(b"\n".to_vec()), None);
    }

    #[test]
    fn a_failed_command_quotes_its_complaint_and_never_its_output() {
        let message = resolve(&shell("echo hunter2; echo locked >&2; exit 3"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("locked") && message.contains('3'), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }

    #[test]
    fn a_command_that_hangs_is_cut_off() {
        let SecretSource::Command(words) = shell("exec sleep 60") else {
            unreachable!()
        };
        let error =
            run_command(&words, &Environment::of_this_process(), Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("still running"), "{error}");
    }

    #[test]
    fn each_missing_secret_says_what_to_do() {
        for (source, advice) in [
            (SecretSource::Env("NO_SUCH".to_owned()), "set it"),
            (
                SecretSource::File(PathBuf::from("/no/such")),
                "check that the file exists",
            ),
            (SecretSource::Credential("db".to_owned()), "LoadCredential=db"),
            (
                SecretSource::Command(vec!["/no/such/program".to_owned()]),
                "check that it is installed",
            ),
        ] {
            let message = resolve(&source).unwrap_err().to_string();
            assert!(message.contains(advice), "{message}");
        }
    }

    #[test]
    fn debug_output_shows_no_secret() {
        assert_eq!(
            format!("{:?}", SecretSource::Text(Secret::new("hunter2"))),
            "text ***"
        );
        let command = SecretSource::Command(vec!["vault".to_owned(), "--token=hunter2".to_owned()]);
        assert_eq!(format!("{command:?}"), "command vault");
    }
}
