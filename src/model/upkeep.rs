//! The records of what is done with stored backups: read back, pruned, and losses of content acknowledged.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::backup_id::BackupId;
use crate::model::record::{Entry, Outcome, Record, Trigger, Verdict};
use crate::model::target_name::TargetName;

/// The subject of a backup's finding that much is gone since the backup before.
pub const CONTENT_SHRANK: &str = "content shrank";

/// Every object of some backups was read back and compared with its manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScrubRecord {
    pub format: u32,
    pub id: String,
    pub target: TargetName,
    pub trigger: Trigger,
    /// `failed` where a backup is bad, else `could-not-run` where one could not be read.
    pub verdict: Verdict,
    /// Why it is not `passed`; `null` when it is.
    pub reason: Option<String>,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub backups: Vec<ScrubbedBackup>,
}

/// What reading one backup back found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubbedBackup {
    pub backup: BackupId,
    pub verdict: Verdict,
    /// Objects read.
    pub objects: u64,
    pub bytes: u64,
    /// One line for each object that is missing or damaged, or could not be read.
    pub faults: Vec<String>,
}

/// Backups were removed because the target's retention keeps them no longer, and objects that belong to none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PruneRecord {
    pub format: u32,
    pub id: String,
    pub target: TargetName,
    pub trigger: Trigger,
    pub outcome: Outcome,
    /// Why it failed; `null` when it did not.
    pub reason: Option<String>,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    /// Backups whose manifest was removed: they exist no longer, and their objects go after the grace time.
    pub removed: Vec<PrunedBackup>,
    /// Objects that belonged to no backup, and are gone.
    pub objects: u64,
    /// Space that is really free now.
    pub freed_bytes: u64,
    /// What stays and takes space, one line each.
    pub kept: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrunedBackup {
    pub backup: BackupId,
    pub reason: String,
}

/// A person says that a sharp loss of content was meant: the backup before it need not be kept for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgementRecord {
    pub format: u32,
    pub id: String,
    pub target: TargetName,
    /// The backup in which the content was found to be gone.
    pub backup: BackupId,
    pub at: DateTime<Utc>,
    /// The account and machine it was said from.
    pub by: String,
    pub reason: Option<String>,
}

/// The target's backups whose sharp loss of content somebody has said was meant.
pub fn acknowledged<'a>(
    target: &TargetName,
    records: impl IntoIterator<Item = &'a Entry>,
) -> BTreeSet<BackupId> {
    let of_target = |entry: &'a Entry| match &entry.record {
        Record::Acknowledgement(record) if record.target == *target => Some(record.backup.clone()),
        _ => None,
    };
    records.into_iter().filter_map(of_target).collect()
}
