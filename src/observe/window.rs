//! Which records a process that runs for months keeps in memory: those that still say something. The others are only
//! counted; they stay in the journal and in the repository.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::model::alert_record::Delivery;
use crate::model::backup_id::BackupId;
use crate::model::record::{Entry, Outcome, Record, Verdict};
use crate::model::target_name::TargetName;
use crate::observe::status::Counts;
use crate::repository::Manifests;

/// Of each kind of record and way to end, the newest so many are kept for each target.
const KEPT: usize = 20;

/// Runs that were let go of, by target.
pub type Forgotten = BTreeMap<TargetName, Counts>;

/// Records that are alike: of one target, kind and way to end.
type Class = (Option<TargetName>, u8, u8);

/// Lets go of the records that say nothing any more of backups that exist, and are not among the newest of their kind.
/// The records are in the order in which runs ended, and stay in it.
pub fn trim(
    entries: Vec<Entry>,
    manifests: &BTreeMap<TargetName, Arc<Manifests>>,
    forgotten: &mut Forgotten,
) -> Vec<Entry> {
    let existing: HashSet<(&TargetName, &BackupId)> = manifests
        .iter()
        .flat_map(|(target, listed)| listed.readable.iter().map(move |one| (target, &one.id)))
        .collect();
    let mut newest: HashMap<Class, usize> = HashMap::new();
    let mut said: HashSet<(BackupId, u8)> = HashSet::new();
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    for entry in entries.into_iter().rev() {
        let target = entry.record.target().cloned();
        let (kind, end) = class(&entry.record);
        let of_class = newest.entry((target.clone(), kind, end)).or_default();
        *of_class += 1;
        let is_new = *of_class <= KEPT;
        // The last word of each kind on each backup.
        let speaks = about(&entry.record)
            .into_iter()
            .filter_map(|id| Some((target.as_ref()?, id)))
            .any(|(target, id)| {
                existing.contains(&(target, id)) && said.insert((id.clone(), kind * 8 + end))
            });
        if is_new || speaks {
            kept.push(entry);
        } else if let Some(target) = target {
            forgotten.entry(target).or_default().note(&entry.record);
        }
    }
    kept.reverse();
    kept
}

/// Kind and way to end, as numbers below 8.
fn class(record: &Record) -> (u8, u8) {
    let of_outcome = |outcome| match outcome {
        Outcome::Succeeded => 0,
        Outcome::Failed => 1,
        Outcome::Cancelled => 2,
    };
    let of_verdict = |verdict| match verdict {
        Verdict::Passed => 0,
        Verdict::Failed => 1,
        Verdict::CouldNotRun => 2,
    };
    match record {
        Record::Backup(record) => (0, of_outcome(record.outcome)),
        Record::RestoreTest(record) if record.cancelled => (1, 3),
        Record::RestoreTest(record) => (1, of_verdict(record.verdict)),
        Record::Restore(record) => (2, of_outcome(record.outcome)),
        Record::Interrupted(record) => match record.task.as_str() {
            "backup" => (3, 0),
            "restore_test" => (3, 1),
            _ => (3, 2),
        },
        Record::Scrub(record) => (4, of_verdict(record.verdict)),
        Record::Prune(record) => (5, of_outcome(record.outcome)),
        Record::Acknowledgement(_) => (6, 0),
        Record::AlertDelivery(record) => match record.result {
            Delivery::Delivered => (7, 0),
            Delivery::Failed => (7, 1),
            Delivery::GivenUp => (7, 2),
        },
        Record::AlertTest(record) => (7, if record.succeeded { 3 } else { 4 }),
    }
}

/// The backups that a record says something of.
fn about(record: &Record) -> Vec<&BackupId> {
    match record {
        Record::Backup(record) => record.backup.iter().collect(),
        Record::RestoreTest(record) => record.backup.iter().collect(),
        Record::Scrub(record) => record.backups.iter().map(|one| &one.backup).collect(),
        Record::Acknowledgement(record) => vec![&record.backup],
        Record::Restore(_)
        | Record::Interrupted(_)
        | Record::Prune(_)
        | Record::AlertDelivery(_)
        | Record::AlertTest(_) => Vec::new(),
    }
}

impl Counts {
    /// Counts one more run that was recorded.
    pub fn note(&mut self, record: &Record) {
        let count = match record {
            Record::Backup(record) => match record.outcome {
                Outcome::Succeeded => &mut self.backup_runs_succeeded,
                Outcome::Failed => &mut self.backup_runs_failed,
                Outcome::Cancelled => &mut self.backup_runs_cancelled,
            },
            Record::RestoreTest(record) => match record.verdict {
                Verdict::Passed => &mut self.restore_tests_passed,
                Verdict::Failed => &mut self.restore_tests_failed,
                Verdict::CouldNotRun => &mut self.restore_tests_could_not_run,
            },
            Record::Interrupted(_) => &mut self.runs_interrupted,
            Record::Restore(_)
            | Record::Scrub(_)
            | Record::Prune(_)
            | Record::Acknowledgement(_)
            | Record::AlertDelivery(_)
            | Record::AlertTest(_) => return,
        };
        *count += 1;
    }

    /// Adds runs that were counted elsewhere.
    pub fn add_runs(&mut self, other: &Self) {
        self.backup_runs_succeeded += other.backup_runs_succeeded;
        self.backup_runs_failed += other.backup_runs_failed;
        self.backup_runs_cancelled += other.backup_runs_cancelled;
        self.restore_tests_passed += other.restore_tests_passed;
        self.restore_tests_failed += other.restore_tests_failed;
        self.restore_tests_could_not_run += other.restore_tests_could_not_run;
        self.runs_interrupted += other.runs_interrupted;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::History;
    use crate::journal::run::tests::backup_record;
    use crate::model::samples::{entries, id, manifest, restore_test, target, time};
    use crate::model::upkeep::{AcknowledgementRecord, ScrubRecord, ScrubbedBackup};
    use crate::observe::measures::Measures;
    use crate::observe::status::{self, Recorded, TargetFacts};

    /// A record of one kind and end about one backup.
    fn record(kind: u8, end: usize, backup: i64, at: i64) -> Record {
        let verdict = [Verdict::Passed, Verdict::Failed, Verdict::CouldNotRun][end];
        match kind {
            0 => {
                let Record::Backup(mut record) = backup_record(at) else {
                    unreachable!("it makes records of backups");
                };
                record.outcome = [Outcome::Succeeded, Outcome::Failed, Outcome::Cancelled][end];
                record.backup = (end == 0).then(|| id(backup));
                Record::Backup(record)
            }
            1 => Record::Scrub(ScrubRecord {
                format: 1,
                id: format!("scrub {at}"),
                target: target(),
                trigger: crate::model::record::Trigger::Command,
                verdict,
                reason: None,
                started_at: time(at),
                finished_at: time(at),
                backups: vec![ScrubbedBackup {
                    backup: id(backup),
                    verdict,
                    objects: 1,
                    bytes: 1,
                    faults: Vec::new(),
                }],
            }),
            2 => Record::Acknowledgement(AcknowledgementRecord {
                format: 1,
                id: format!("word {at}"),
                target: target(),
                backup: id(backup),
                at: time(at),
                by: "somebody".to_owned(),
                reason: None,
            }),
            _ => restore_test(backup, verdict, at),
        }
    }

    proptest! {
        #[test]
        fn what_is_let_go_of_changes_nothing_that_is_told(
            runs in proptest::collection::vec((0..5_u8, 0..3_usize, 0..8_i64), 0..400),
            existing in proptest::collection::btree_set(0..8_i64, 0..5),
        ) {
            let numbered = (0_i64..).zip(runs);
            let records = numbered.map(|(at, (kind, end, backup))| record(kind, end, backup, 100_000 + at));
            let all = entries(records.collect());
            let listed = Manifests {
                readable: existing.iter().map(|number| manifest(*number)).collect(),
                ..Manifests::default()
            };
            let manifests = [(target(), Arc::new(listed.clone()))].into();
            let mut forgotten = Forgotten::new();
            let kept = trim(all.clone(), &manifests, &mut forgotten);
            prop_assert!(kept.len() <= 15 * KEPT + 8 * listed.readable.len());

            let facts = TargetFacts {
                name: target(),
                environment: None,
                owner: None,
                rpo_seconds: Some(60.0),
                rto_seconds: Some(60.0),
            };
            let told = |entries: &[Entry]| {
                let history = History { entries: entries.to_vec(), problems: Vec::new() };
                status::of(&facts, &listed, &Recorded::from(&history), None, time(200_000))
            };
            let mut after = told(&kept);
            if let Some(counts) = forgotten.get(&target()) {
                after.counts.add_runs(counts);
            }
            prop_assert_eq!(after, told(&all));
            let measured = |entries: &[Entry]| {
                let entries: Vec<&Entry> = entries.iter().collect();
                Measures::of(&target(), &listed.readable, &entries)
            };
            prop_assert_eq!(measured(&kept), measured(&all));
        }
    }
}
