//! What the records say of each backup of one target: good, bad, or nothing yet.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

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
    pub fn of(target: &TargetName, records: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut ordered: Vec<&Entry> = records
            .into_iter()
            .filter(|entry| entry.record.target() == Some(target))
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

    /// When a restore test last passed or failed it.
    pub fn last_test_at(&self, backup: &BackupId) -> Option<DateTime<Utc>> {
        let test = self.backups.get(backup)?.test?;
        Some(test.finished_at)
    }

    /// Whether any restore test has said something of any backup.
    pub fn any_test(&self) -> bool {
        self.backups.values().any(|judged| judged.test.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::FORMAT;
    use crate::model::samples::{entries, id, restore_test, target, time};
    use crate::model::upkeep::ScrubbedBackup;

    use Verdict::{CouldNotRun, Failed, Passed};

    fn scrub(backup: i64, verdict: Verdict, at: i64) -> Record {
        Record::Scrub(ScrubRecord {
            format: FORMAT,
            id: format!("scrub-{at}"),
            target: target(),
            trigger: crate::model::record::Trigger::Command,
            verdict,
            reason: None,
            started_at: time(at - 1),
            finished_at: time(at),
            backups: vec![ScrubbedBackup {
                backup: id(backup),
                verdict,
                objects: 1,
                bytes: 1,
                faults: Vec::new(),
            }],
        })
    }

    fn verdict_after(records: Vec<Record>) -> Option<Verdict> {
        Verdicts::of(&target(), &entries(records)).verdict(&id(1))
    }

    #[test]
    fn the_last_word_counts_and_a_scrub_proves_nothing_good() {
        assert_eq!(verdict_after(vec![]), None);
        assert_eq!(verdict_after(vec![scrub(1, Passed, 1)]), None);
        assert_eq!(verdict_after(vec![scrub(1, Failed, 1)]), Some(Failed));
        assert_eq!(verdict_after(vec![scrub(2, Failed, 1)]), None);
        assert_eq!(
            verdict_after(vec![scrub(1, Failed, 1), scrub(1, Passed, 2)]),
            None,
            "the object is whole again"
        );
        assert_eq!(
            verdict_after(vec![scrub(1, Failed, 1), scrub(1, CouldNotRun, 2)]),
            Some(Failed)
        );
        assert_eq!(
            verdict_after(vec![restore_test(1, Passed, 1), scrub(1, Failed, 2)]),
            Some(Failed)
        );
        assert_eq!(
            verdict_after(vec![scrub(1, Failed, 1), restore_test(1, Passed, 2)]),
            Some(Passed)
        );
        assert_eq!(
            verdict_after(vec![restore_test(1, Failed, 1), scrub(1, Passed, 2)]),
            Some(Failed),
            "objects that are whole may restore to something else"
        );
        assert_eq!(
            verdict_after(vec![restore_test(1, Failed, 1), restore_test(1, CouldNotRun, 2)]),
            Some(Failed)
        );
        // Records of several machines come in any order.
        assert_eq!(
            verdict_after(vec![restore_test(1, Passed, 2), restore_test(1, Failed, 1)]),
            Some(Passed)
        );
    }

    #[test]
    fn who_found_a_backup_bad_is_known() {
        let records = entries(vec![restore_test(1, Failed, 1), scrub(2, Failed, 2)]);
        let verdicts = Verdicts::of(&target(), &records);
        assert!(matches!(
            verdicts.found_bad_by(&id(1)),
            Some(FoundBadBy::RestoreTest(_))
        ));
        assert!(matches!(
            verdicts.found_bad_by(&id(2)),
            Some(FoundBadBy::Scrub(_))
        ));
        assert!(verdicts.found_bad_by(&id(3)).is_none() && verdicts.is_bad(&id(2)) && verdicts.any_test());
    }
}
