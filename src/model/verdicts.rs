//! What the records say of each backup of one target: good, bad, or nothing yet.

use std::collections::HashMap;

use crate::model::backup_id::BackupId;
use crate::model::record::{Entry, Record, RestoreTestRecord, Verdict};
use crate::model::target_name::TargetName;
use crate::model::upkeep::ScrubRecord;

/// The last word on each backup. `could-not-run` says nothing.
#[derive(Debug, Default)]
pub struct Verdicts<'a> {
    backups: HashMap<&'a BackupId, Judged<'a>>,
}

/// Who judged a backup last.
#[derive(Clone, Copy, Debug, Default)]
struct Judged<'a> {
    test: Option<&'a RestoreTestRecord>,
    /// A scrub that found it bad. One that finds nothing proves no restore, and only takes an earlier scrub's word back.
    scrub: Option<&'a ScrubRecord>,
}

/// A run that found a backup bad.
#[derive(Clone, Copy, Debug)]
pub enum FoundBadBy<'a> {
    RestoreTest(&'a RestoreTestRecord),
    Scrub(&'a ScrubRecord),
}

impl<'a> Verdicts<'a> {
    /// Reads the records of all targets, in any order.
    pub fn of(target: &TargetName, records: &'a [Entry]) -> Self {
        let mut ordered: Vec<&Entry> = records
            .iter()
            .filter(|entry| entry.record.target() == target)
            .collect();
        ordered.sort_by_key(|entry| (entry.record.finished_at(), entry.sequence));
        let mut verdicts = Self::default();
        for entry in ordered {
            match &entry.record {
                Record::RestoreTest(record) => verdicts.hear_test(record),
                Record::Scrub(record) => verdicts.hear_scrub(record),
                _ => {}
            }
        }
        verdicts
    }

    fn hear_test(&mut self, record: &'a RestoreTestRecord) {
        let (Some(backup), Verdict::Passed | Verdict::Failed) = (&record.backup, record.verdict) else {
            return;
        };
        let judged = self.backups.entry(backup).or_default();
        judged.test = Some(record);
        if record.verdict == Verdict::Passed {
            // It read every object, and later than the scrub did.
            judged.scrub = None;
        }
    }

    fn hear_scrub(&mut self, record: &'a ScrubRecord) {
        for scrubbed in &record.backups {
            match scrubbed.verdict {
                Verdict::Passed => {
                    if let Some(judged) = self.backups.get_mut(&scrubbed.backup) {
                        judged.scrub = None;
                    }
                }
                Verdict::Failed => self.backups.entry(&scrubbed.backup).or_default().scrub = Some(record),
                Verdict::CouldNotRun => {}
            }
        }
    }

    /// Nothing where neither a restore test nor a scrub has said anything that still holds.
    pub fn verdict(&self, backup: &BackupId) -> Option<Verdict> {
        let judged = self.backups.get(backup)?;
        match judged.scrub {
            Some(_) => Some(Verdict::Failed),
            None => judged.test.map(|record| record.verdict),
        }
    }

    /// Who found the backup bad; nothing where it is not.
    pub fn found_bad_by(&self, backup: &BackupId) -> Option<FoundBadBy<'a>> {
        let judged = self.backups.get(backup)?;
        match (judged.scrub, judged.test) {
            (Some(scrub), _) => Some(FoundBadBy::Scrub(scrub)),
            (None, Some(test)) if test.verdict == Verdict::Failed => Some(FoundBadBy::RestoreTest(test)),
            _ => None,
        }
    }

    pub fn is_bad(&self, backup: &BackupId) -> bool {
        self.verdict(backup) == Some(Verdict::Failed)
    }

    pub fn is_proven(&self, backup: &BackupId) -> bool {
        self.verdict(backup) == Some(Verdict::Passed)
    }

    /// Whether any restore test has said something of any backup.
    pub fn any_test(&self) -> bool {
        self.backups.values().any(|judged| judged.test.is_some())
    }
}
