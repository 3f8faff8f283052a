//! The record of one run: the evidence. Every field is always there, `null` where unknown.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::alert_record::{AlertDeliveryRecord, AlertTestRecord};
use crate::model::backup_id::BackupId;
use crate::model::contents::{NotCovered, TableName};
use crate::model::manifest::{RecoveryPoint, Totals};
use crate::model::target_name::TargetName;
use crate::model::upkeep::{AcknowledgementRecord, PruneRecord, ScrubRecord};
use crate::model::verification::{Finding, Verification};

/// The record format that this version writes.
pub const FORMAT: u32 = 1;

/// One run, with its place in the chain of records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Which writer's chain this is: one per state directory.
    pub chain: String,
    pub sequence: u64,
    /// SHA-256 of the record before it, as stored; absent for the first.
    pub previous_sha256: Option<String>,
    pub record: Record,
}

/// What one run did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    Backup(BackupRecord),
    RestoreTest(Box<RestoreTestRecord>),
    Restore(RestoreRecord),
    /// A run that was found to have ended without a word: killed, or the machine went down.
    Interrupted(InterruptedRecord),
    Scrub(ScrubRecord),
    Prune(PruneRecord),
    Acknowledgement(AcknowledgementRecord),
    AlertDelivery(Box<AlertDeliveryRecord>),
    AlertTest(AlertTestRecord),
}

impl Record {
    /// `None`: it is about no target alone.
    pub fn target(&self) -> Option<&TargetName> {
        Some(match self {
            Self::Backup(record) => &record.target,
            Self::RestoreTest(record) => &record.target,
            Self::Restore(record) => &record.target,
            Self::Interrupted(record) => &record.target,
            Self::Scrub(record) => &record.target,
            Self::Prune(record) => &record.target,
            Self::Acknowledgement(record) => &record.target,
            Self::AlertDelivery(record) => return record.target.as_ref(),
            Self::AlertTest(record) => return record.target.as_ref(),
        })
    }

    /// The id of the run.
    pub fn id(&self) -> &str {
        match self {
            Self::Backup(record) => &record.id,
            Self::RestoreTest(record) => &record.id,
            Self::Restore(record) => &record.id,
            Self::Interrupted(record) => &record.id,
            Self::Scrub(record) => &record.id,
            Self::Prune(record) => &record.id,
            Self::Acknowledgement(record) => &record.id,
            Self::AlertDelivery(record) => &record.id,
            Self::AlertTest(record) => &record.id,
        }
    }

    pub fn finished_at(&self) -> DateTime<Utc> {
        match self {
            Self::Backup(record) => record.finished_at,
            Self::RestoreTest(record) => record.finished_at,
            Self::Restore(record) => record.finished_at,
            Self::Interrupted(record) => record.found_at,
            Self::Scrub(record) => record.finished_at,
            Self::Prune(record) => record.finished_at,
            Self::Acknowledgement(record) => record.at,
            Self::AlertDelivery(record) => record.finished_at,
            Self::AlertTest(record) => record.finished_at,
        }
    }
}

/// How a backup or restore ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    Failed,
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupRecord {
    pub format: u32,
    pub id: String,
    pub target: TargetName,
    pub environment: Option<String>,
    pub owner: Option<String>,
    pub trigger: Trigger,
    pub outcome: Outcome,
    /// Why it failed; `null` when it did not.
    pub reason: Option<String>,
    pub backup: Option<BackupId>,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub recovery_point: Option<RecoveryPoint>,
    /// The source's clock minus ours; `null` when the source was not reached.
    pub clock_skew_seconds: Option<f64>,
    /// Attempts that were started over because the schema moved.
    pub attempts: u32,
    pub phases: Vec<Phase>,
    pub totals: Option<Totals>,
    pub not_covered: Vec<NotCovered>,
    /// Databases of the server that no target covers; `null` where that is not known.
    #[serde(default)]
    pub uncovered_databases: Option<u64>,
    pub findings: Vec<Finding>,
}

/// What made a run start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    Command,
    Schedule,
    /// It was due before the daemon started.
    CatchUp,
    AfterBackup,
    /// The run before could not do its work.
    Retry,
}

/// One timed part of a run, from a monotonic clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    pub name: String,
    pub seconds: f64,
}

/// What a restore test says of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Passed,
    /// The backup is bad.
    Failed,
    /// The environment is at fault: nothing is known of the backup.
    CouldNotRun,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::CouldNotRun => "could-not-run",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestoreTestRecord {
    pub format: u32,
    pub id: String,
    pub target: TargetName,
    pub environment: Option<String>,
    pub owner: Option<String>,
    pub backup: Option<BackupId>,
    pub trigger: Trigger,
    pub verdict: Verdict,
    /// Why it is not `passed`; `null` when it is.
    pub reason: Option<String>,
    /// Somebody ended it, so that it says nothing, and does not count as a run of the schedule.
    #[serde(default)]
    pub cancelled: bool,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub recovery_point: Option<RecoveryPoint>,
    /// The heartbeat found again in the copy; `null` where the copy holds none.
    #[serde(default)]
    pub heartbeat_at: Option<DateTime<Utc>>,
    pub objectives: Objectives,
    pub phases: Vec<Phase>,
    pub verification: Verification,
    pub scratch: Option<ScratchFacts>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objectives {
    pub rpo: ObjectiveResult,
    pub rto: ObjectiveResult,
}

impl Objectives {
    pub fn missed(&self) -> bool {
        [&self.rpo, &self.rto]
            .iter()
            .any(|objective| objective.verdict == ObjectiveVerdict::Missed)
    }
}

/// What was wanted, and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveResult {
    pub objective_seconds: Option<f64>,
    pub actual_seconds: Option<f64>,
    /// What the actual was measured on.
    pub basis: Option<String>,
    pub verdict: ObjectiveVerdict,
}

impl ObjectiveResult {
    /// Judges an actual against its objective; what is not known is not met.
    pub fn judge(objective_seconds: Option<f64>, actual_seconds: Option<f64>, basis: Option<String>) -> Self {
        let verdict = match (objective_seconds, actual_seconds) {
            (Some(objective), Some(actual)) if actual <= objective => ObjectiveVerdict::Met,
            (Some(_), Some(_)) => ObjectiveVerdict::Missed,
            _ => ObjectiveVerdict::Unknown,
        };
        Self {
            objective_seconds,
            actual_seconds,
            basis,
            verdict,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectiveVerdict {
    Met,
    Missed,
    Unknown,
}

impl ObjectiveVerdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Unknown => "unknown",
        }
    }
}

/// Where the copy lived, and what it could reach from there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScratchFacts {
    /// `embedded` or `server`.
    pub kind: String,
    pub server_version: Option<String>,
    /// The probe inside the copy reached nothing; `null` when it did not run.
    pub isolated: Option<bool>,
    /// The layers of the sandbox in force.
    pub layers: Vec<String>,
    /// What the probe tried, and whether it got through.
    pub probe: Vec<ProbeFact>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeFact {
    pub name: String,
    pub open: bool,
    pub detail: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestoreRecord {
    pub format: u32,
    pub id: String,
    pub target: TargetName,
    pub backup: Option<BackupId>,
    /// Where it was restored to; never with a password.
    pub destination: String,
    pub outcome: Outcome,
    /// What the restore says of the backup.
    pub verdict: Verdict,
    pub reason: Option<String>,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub phases: Vec<Phase>,
    /// Where only some tables were brought back: which, and into which schema; `null` for a whole database.
    #[serde(default)]
    pub tables: Option<RestoredTables>,
    pub verification: Option<Verification>,
}

/// Tables that were brought back beside others, in a schema of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredTables {
    pub schema: String,
    pub tables: Vec<RestoredTable>,
    /// Partitioned tables, each as a view over its partitions.
    pub views: Vec<TableName>,
    /// What belongs to these tables and was not brought, by name and with the reason.
    pub not_restored: Vec<NotCovered>,
}

/// One of them; it is called `name` in its new schema as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredTable {
    /// In the backup.
    pub schema: String,
    pub name: String,
    pub rows: u64,
    /// COPY text.
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterruptedRecord {
    pub format: u32,
    pub id: String,
    pub target: TargetName,
    /// `backup`, `restore_test`, `restore`, `scrub` or `prune`.
    pub task: String,
    pub backup: Option<BackupId>,
    pub started_at: DateTime<Utc>,
    pub found_at: DateTime<Utc>,
    /// What was found left behind and removed.
    pub removed: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_objective_without_a_measurement_is_unknown_and_never_met() {
        assert_eq!(
            ObjectiveResult::judge(Some(60.0), None, None).verdict,
            ObjectiveVerdict::Unknown
        );
        assert_eq!(
            ObjectiveResult::judge(None, Some(1.0), None).verdict,
            ObjectiveVerdict::Unknown
        );
        assert_eq!(
            ObjectiveResult::judge(Some(60.0), Some(60.0), None).verdict,
            ObjectiveVerdict::Met
        );
        assert_eq!(
            ObjectiveResult::judge(Some(60.0), Some(60.1), None).verdict,
            ObjectiveVerdict::Missed
        );
    }

    #[test]
    fn verdicts_are_spelled_as_the_documentation_spells_them() {
        for verdict in [Verdict::Passed, Verdict::Failed, Verdict::CouldNotRun] {
            assert_eq!(serde_json::to_value(verdict).unwrap(), verdict.as_str());
        }
    }
}
