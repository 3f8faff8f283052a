//! The record of a run that could not even begin: no repository, or no way to know the source.

use chrono::{DateTime, Utc};

use crate::journal::{Error, Journal, RunId};
use crate::model::record::{
    BackupRecord, FORMAT, ObjectiveResult, Objectives, Outcome, Record, RestoreTestRecord, Trigger, Verdict,
};
use crate::model::target_name::TargetName;
use crate::model::upkeep::ScrubRecord;
use crate::model::verification::Verification;

/// What is known of it.
#[derive(Clone, Debug)]
pub struct NotBegun {
    pub target: TargetName,
    pub environment: Option<String>,
    pub owner: Option<String>,
    pub rpo_seconds: Option<f64>,
    pub rto_seconds: Option<f64>,
    pub trigger: Trigger,
    pub at: DateTime<Utc>,
    pub reason: String,
    /// Somebody ended it before it could.
    pub cancelled: bool,
}

impl NotBegun {
    /// Records that a backup failed. The record is kept here until there is a repository to deliver it to.
    pub fn backup(self, journal: &Journal) -> Result<BackupRecord, Error> {
        let record = BackupRecord {
            format: FORMAT,
            id: RunId::new(self.at)?.to_string(),
            target: self.target,
            environment: self.environment,
            owner: self.owner,
            trigger: self.trigger,
            outcome: if self.cancelled {
                Outcome::Cancelled
            } else {
                Outcome::Failed
            },
            reason: Some(self.reason),
            backup: None,
            started_at: self.at,
            finished_at: self.at,
            recovery_point: None,
            clock_skew_seconds: None,
            attempts: 0,
            phases: Vec::new(),
            totals: None,
            not_covered: Vec::new(),
            uncovered_databases: None,
            findings: Vec::new(),
        };
        journal.append(Record::Backup(record.clone()))?;
        Ok(record)
    }

    /// Records that a restore test could not run, likewise.
    pub fn restore_test(self, journal: &Journal) -> Result<RestoreTestRecord, Error> {
        let record = RestoreTestRecord {
            format: FORMAT,
            id: RunId::new(self.at)?.to_string(),
            target: self.target,
            environment: self.environment,
            owner: self.owner,
            backup: None,
            trigger: self.trigger,
            verdict: Verdict::CouldNotRun,
            reason: Some(self.reason),
            cancelled: self.cancelled,
            started_at: self.at,
            finished_at: self.at,
            recovery_point: None,
            heartbeat_at: None,
            objectives: Objectives {
                rpo: ObjectiveResult::judge(self.rpo_seconds, None, None),
                rto: ObjectiveResult::judge(self.rto_seconds, None, None),
            },
            phases: Vec::new(),
            verification: Verification::default(),
            scratch: None,
        };
        journal.append(Record::RestoreTest(Box::new(record.clone())))?;
        Ok(record)
    }

    /// Records that a scrub could not run, likewise.
    pub fn scrub(self, journal: &Journal) -> Result<ScrubRecord, Error> {
        let record = ScrubRecord {
            format: FORMAT,
            id: RunId::new(self.at)?.to_string(),
            target: self.target,
            trigger: self.trigger,
            verdict: Verdict::CouldNotRun,
            reason: Some(self.reason),
            started_at: self.at,
            finished_at: self.at,
            backups: Vec::new(),
        };
        journal.append(Record::Scrub(record.clone()))?;
        Ok(record)
    }
}
