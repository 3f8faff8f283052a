//! Why there is no scratch. None of it says anything about the backup: every error is the environment's.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::sandbox::spec::layer;

/// What a caller has to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The test could not run, and nothing is known about the backup.
    Environment,
    /// The caller asked to stop.
    Cancelled,
}

#[derive(Debug, Error)]
pub enum ScratchError {
    #[error("{action} {}; check that the directory exists, is writable and has space", path.display())]
    Directory {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "the scratch socket {} would be {length} bytes long, the system allows 107; set a shorter `state_dir`",
        path.display()
    )]
    SocketPath { path: PathBuf, length: usize },
    #[error(
        "the scratch directory {} is not ours alone ({why}); remove it or give it to this user",
        path.display()
    )]
    ForeignDirectory { path: PathBuf, why: &'static str },
    #[error(
        "PostgreSQL does not run as root, and there is no user `{user}` for scratch servers; create it with \
         `useradd --system --no-create-home --shell /usr/sbin/nologin {user}`"
    )]
    NoUser { user: String },
    #[error(
        "scratch servers must not run as `{user}`: the copy would have the rights of the real server or of \
         root; name a user of its own, for example `ernstfall`"
    )]
    ForbiddenUser { user: String },
    #[error(
        "initdb cannot make a superuser named `{name}`, as the source's is: it refuses quotes, $, \\ and the \
         prefix pg_; use scratch of kind \"server\" for this target"
    )]
    SuperuserName { name: String },
    #[error("start the sandbox for {program}; check that this program's own file can be executed")]
    Launch { program: String, source: io::Error },
    #[error(
        "the sandbox could not start {program}: {why}; check the permissions of the program and its directory"
    )]
    Sandbox { program: String, why: String },
    #[error("{program} ended with status {status}: {log}; {advice}")]
    Ended {
        program: String,
        status: i32,
        log: String,
        advice: String,
    },
    #[error("{program} did not finish within {seconds} s: {log}; {advice}")]
    TooSlow {
        program: String,
        seconds: u64,
        log: String,
        advice: String,
    },
    #[error("{action} in the scratch server; look at its log in {}", log.display())]
    Query {
        action: &'static str,
        log: PathBuf,
        source: tokio_postgres::Error,
    },
    #[error("isolation = \"required\", but the layer {layer} is missing: {why}; {remedy}")]
    MissingLayer {
        layer: String,
        why: String,
        remedy: String,
    },
    #[error("isolation = \"required\", but from inside the scratch these were open: {open}; {remedy}")]
    Open { open: String, remedy: String },
    #[error("on the scratch server: {0}")]
    Given(Box<crate::postgres::Error>),
    #[error(
        "the scratch server is the source ({why}), and nothing is ever restored there; set scratch.url to another \
         server, or use kind = \"embedded\""
    )]
    IsSource { why: String },
    #[error(
        "it is not proven that the scratch server is another one than the source: {why}; make the source reachable, or \
         use a scratch server whose role may run pg_control_system(), or kind = \"embedded\""
    )]
    PerhapsSource { why: String },
    #[error("stopped on request")]
    Cancelled,
}

impl ScratchError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::Environment,
        }
    }

    pub(super) fn directory(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Directory {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

/// What to do about a server that ended, judged by the last lines that it wrote.
pub(super) fn advice(log: &str, directory: &Path) -> String {
    let directory = directory.display();
    if log.contains("No space left on device") {
        return format!("the disk is full: free space in {directory}, or put `state_dir` on a larger disk");
    }
    if log.contains("Cannot allocate memory") || log.contains("could not map anonymous shared memory") {
        return "the machine has too little free memory for a scratch server".into();
    }
    if log.contains("could not access file") {
        return "a library that the source preloads is not installed here: install its package".into();
    }
    format!("try it again, and look at the free disk and memory of this machine ({directory})")
}

/// What would bring the missing layers of isolation.
pub(super) fn remedy(missing: &[&str]) -> String {
    let mut remedies = Vec::new();
    if missing.contains(&layer::LANDLOCK) {
        remedies.push("use a kernel with Landlock (5.13 or newer) and `landlock` in its lsm= list");
    }
    if missing.contains(&layer::SECCOMP) {
        remedies.push("use a kernel with seccomp filters");
    }
    if missing.iter().any(|name| name.ends_with("namespace")) {
        remedies.push(
            "allow unprivileged user namespaces: `sysctl kernel.unprivileged_userns_clone=1` (Debian), the AppArmor \
             profile of the package or `sysctl kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu), \
             `RestrictNamespaces=user net mnt pid ipc` and `SystemCallFilter=@system-service @mount` (systemd)",
        );
    }
    remedies.push("or set isolation = \"best-effort\" and accept that the copy can reach out");
    remedies.join("; ")
}
