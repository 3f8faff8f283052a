//! What is asked of the sandbox and what it answers: one line of JSON each way.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How much isolation a scratch must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IsolationWanted {
    /// Nothing may be open, proven by the probe; otherwise there is no scratch.
    Required,
    /// As many layers as the system allows; what stayed open is recorded.
    BestEffort,
    /// No layers: the server runs as an ordinary process (of the unprivileged user, when started by root).
    None,
}

/// The user that a helper started by root turns into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// One program to run in the sandbox. Written to the helper's stdin, which then stays open as its lifeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Specification {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) isolation: IsolationWanted,
    /// Absent when the parent is unprivileged already.
    pub(crate) identity: Option<Identity>,
    /// The one directory that is written to, seen at its own path.
    pub(crate) writable: PathBuf,
    /// Further files and directories that are seen, read-only.
    pub(crate) readable: Vec<PathBuf>,
    /// An empty directory to build the new root on.
    pub(crate) new_root: PathBuf,
    /// This binary as the parent knows it: the probe's path where there is no new root.
    pub(crate) own_binary: PathBuf,
    /// Servers before 15 talk to their statistics collector by UDP on the loopback interface: it is switched
    /// on in the private network, and connect() is not filtered.
    pub(crate) statistics_collector: bool,
}

/// A layer that could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingLayer {
    pub layer: String,
    pub why: String,
}

/// What the helper did before it started the program. Written to its stdout.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) layers: Vec<String>,
    pub(crate) missing: Vec<MissingLayer>,
    /// Where the probe is found by the program.
    pub(crate) probe: PathBuf,
    /// Whether /dev/shm is its own.
    pub(crate) private_shared_memory: bool,
    /// Set when the program could not be started at all.
    pub(crate) error: Option<String>,
}

impl Answer {
    pub(super) fn add(&mut self, layer: &str) {
        self.layers.push(layer.to_owned());
    }

    pub(super) fn lacks(&mut self, layer: &str, why: impl ToString) {
        self.missing.push(MissingLayer {
            layer: layer.to_owned(),
            why: why.to_string(),
        });
    }
}

/// The names of the layers, as records show them.
pub(crate) mod layer {
    pub(crate) const USER: &str = "user namespace";
    pub(crate) const MOUNT: &str = "mount namespace";
    pub(crate) const NETWORK: &str = "network namespace";
    pub(crate) const PROCESS: &str = "process namespace";
    pub(crate) const IPC: &str = "ipc namespace";
    pub(crate) const LANDLOCK: &str = "landlock";
    pub(crate) const SECCOMP: &str = "seccomp";
    pub(crate) const UNPRIVILEGED: &str = "unprivileged user";
}
