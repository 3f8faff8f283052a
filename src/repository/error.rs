//! What can go wrong with a repository, and what to do about it.

use crate::model::backup_id::BackupId;
use crate::model::target_name::TargetName;
use crate::repository::targets::TargetIdentity;
use crate::store;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("no repository at {location}: take a first backup, which makes one, or correct `repository.url`")]
    NoRepository { location: String },
    #[error(
        "{location} is no repository of ours: {reason}; choose an empty place for `repository.url`, or restore `ernstfall.json` there"
    )]
    Foreign { location: String, reason: String },
    #[error("{what} has format {found}, and this version reads up to {known}: update ernstfall")]
    NewerFormat { what: String, found: u64, known: u32 },
    #[error(
        "target `{target}` holds backups of {known}, but the source now is {found}: if that is meant, run `ernstfall backup {target} --adopt`; if not, correct the target's `url`"
    )]
    OtherIdentity {
        target: TargetName,
        known: Box<TargetIdentity>,
        found: Box<TargetIdentity>,
    },
    #[error("target `{target}` has no backup {id}: `ernstfall list backups {target}` shows those there are")]
    NoBackup { target: TargetName, id: BackupId },
    #[error(
        "`{key}` in {location} cannot be used: {reason}; keep the file for inspection, and restore from another backup"
    )]
    Unreadable {
        key: String,
        location: String,
        reason: String,
    },
    #[error(
        "`{key}` exists already in {location} with other bytes, and stored objects are never changed: see who else writes there"
    )]
    Conflict { key: String, location: String },
    #[error(
        "`{key}` was stored in {location} by this backup, and is there no longer: something removed it meanwhile; see whether the clocks of all machines that prune are right, and whether the state directory was copied"
    )]
    ObjectGone { key: String, location: String },
    #[error("backup {id} of target `{target}` is complete, so its objects stay")]
    BackupExists { target: TargetName, id: BackupId },
    #[error(transparent)]
    InvalidKey(#[from] store::InvalidKey),
    #[error("write `{what}` as JSON: this is a fault of ernstfall, please report it")]
    Encode { what: String, source: serde_json::Error },
    #[error("ask the operating system for random bytes")]
    Random(#[source] std::io::Error),
}

/// Why a stored object could not be read: the backup's fault, or the environment's.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("object `{key}` is missing from {location}: the backup is bad; use another one")]
    Missing { key: String, location: String },
    #[error(
        "object `{key}` in {location} is damaged: expected {expected}, found {found}; the backup is bad, use another one"
    )]
    Damaged {
        key: String,
        location: String,
        expected: String,
        found: String,
    },
    /// Nothing is known of the backup.
    #[error(transparent)]
    Unreachable(#[from] store::Error),
}

impl ReadError {
    /// Whether the object itself is at fault, and not the way to it.
    pub fn means_bad_backup(&self) -> bool {
        !matches!(self, Self::Unreachable(_))
    }
}
