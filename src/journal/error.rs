//! What can go wrong with the journal, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::repository;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} {}: check that `state_dir` is on a disk with space and belongs to this user", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is no valid journal file: {reason}; move it away, and keep it for inspection", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("write a record as JSON: this is a fault of ernstfall, please report it")]
    Encode(#[source] serde_json::Error),
    #[error("ask the operating system for random bytes")]
    Random(#[source] io::Error),
    #[error(
        "record {sequence} of chain {chain} is in the repository with other bytes: `state_dir` was copied or set back; move the file {} away, and a new chain begins",
        chain_file.display()
    )]
    ChainForked {
        chain: String,
        sequence: u64,
        chain_file: PathBuf,
    },
    #[error("deliver records to the repository: they are kept here, and delivered with the next run")]
    Deliver(#[source] repository::Error),
    #[error("read the records in the repository")]
    Repository(#[source] repository::Error),
}

impl Error {
    /// Makes an io error one of ours.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
