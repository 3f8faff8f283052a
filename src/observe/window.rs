//! Which records a process that runs for months keeps in memory: those that still say something. The others are only
//! counted; they stay in the journal and in the repository.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::model::agenda::DEADLINE_RUNS;
use crate::model::alert_record::Delivery;
use crate::model::backup_id::BackupId;
use crate::model::record::{Entry, Outcome, Record, Verdict};
use crate::model::target_name::TargetName;
use crate::observe::status::Counts;
use crate::ops::prune::time_of_reading;
use crate::repository::Manifests;

/// Of each kind of record and way to end, the newest so many are kept for each target: as many as deadlines are made
/// from, and more than it takes for the longest pause between tries.
const KEPT: usize = DEADLINE_RUNS;

/// Runs that were let go of, by target.
pub type Forgotten = BTreeMap<TargetName, Counts>;

/// Records that are alike: of one target, kind and way to end.
type Class<'a> = (Option<&'a TargetName>, u8, u8);

/// After at least so many records that came in, it is looked which of them still say something.
const TRIM_EVERY: usize = 250;

/// Records as they are heard, in any order, of which only those are kept that still say something.
pub struct Window<'a> {
    manifests: &'a BTreeMap<TargetName, Arc<Manifests>>,
    entries: Vec<Arc<Entry>>,
    forgotten: Forgotten,
    /// The newest record heard of each chain.
    read: BTreeMap<String, u64>,
    trim_at: usize,
}

impl<'a> Window<'a> {
    /// For records that speak of these backups.
    pub fn new(manifests: &'a BTreeMap<TargetName, Arc<Manifests>>) -> Self {
        Self {
            manifests,
            entries: Vec::new(),
            forgotten: Forgotten::new(),
            read: BTreeMap::new(),
            trim_at: TRIM_EVERY,
        }
    }

    pub fn hear(&mut self, entry: Arc<Entry>) {
        let read = self.read.entry(entry.chain.clone()).or_default();
        *read = entry.sequence.max(*read);
        self.entries.push(entry);
        if self.entries.len() >= self.trim_at {
            let entries = std::mem::take(&mut self.entries);
            self.entries = trim(entries, self.manifests, &mut self.forgotten);
            // A part of what is kept, so that the time that it takes grows no faster than the records.
            self.trim_at = self.entries.len() + self.entries.len() / 4 + TRIM_EVERY;
        }
    }

    /// What is left, what was let go of, and the newest record heard of each chain.
    pub fn into_kept(self) -> (Vec<Arc<Entry>>, Forgotten, BTreeMap<String, u64>) {
        (self.entries, self.forgotten, self.read)
    }
}

/// Lets go of the records that say nothing any more of backups that exist, and are not among the newest of their kind.
/// Those that are left are in the order in which runs ended.
///
/// Retention may decide by what is left as it does by all: on each backup that exists, the last word of each kind stays
/// (verdicts, acknowledgements), and so does the restore that took longest. That holds for backups that are known here,
/// also those whose manifest cannot be read now; what is said of others is lost.
pub fn trim(
    mut entries: Vec<Arc<Entry>>,
    manifests: &BTreeMap<TargetName, Arc<Manifests>>,
    forgotten: &mut Forgotten,
) -> Vec<Arc<Entry>> {
    entries.sort_by_key(|entry| entry.record.finished_at());
    let existing: HashSet<(&TargetName, &BackupId)> = manifests
        .iter()
        .flat_map(|(target, listed)| listed.ids().into_iter().map(move |id| (target, id)))
        .collect();
    let longest = longest_of_each_target(&entries);
    let mut newest: HashMap<Class<'_>, usize> = HashMap::new();
    let mut said: HashSet<(&TargetName, &BackupId, u8)> = HashSet::new();
    let mut kept: Vec<Arc<Entry>> = Vec::with_capacity(entries.len());
    for entry in entries.iter().rev() {
        let target = entry.record.target();
        let (kind, end) = class(&entry.record);
        let of_class = newest.entry((target, kind, end)).or_default();
        *of_class += 1;
        let is_new = *of_class <= KEPT;
        // The last word of each kind on each backup.
        let mut speaks = false;
        for (id, word) in about(&entry.record, end) {
            speaks |= target.is_some_and(|target| {
                existing.contains(&(target, id)) && said.insert((target, id, kind * 8 + word))
            });
        }
        let is_longest = target
            .and_then(|target| longest.get(target))
            .is_some_and(|longest| Arc::ptr_eq(longest, entry));
        if is_new || speaks || is_longest {
            kept.push(Arc::clone(entry));
        } else if let Some(target) = target {
            forgotten.entry(target.clone()).or_default().note(&entry.record);
        }
    }
    kept.reverse();
    kept
}

/// The runs that may have read a backup for longer than any other.
fn longest_of_each_target(entries: &[Arc<Entry>]) -> HashMap<&TargetName, &Arc<Entry>> {
    let mut longest: HashMap<&TargetName, &Arc<Entry>> = HashMap::new();
    for entry in entries
        .iter()
        .filter(|entry| time_of_reading(&entry.record).is_some())
    {
        let Some(target) = entry.record.target() else {
            continue;
        };
        let of_target = longest.entry(target).or_insert(entry);
        if time_of_reading(&entry.record) > time_of_reading(&of_target.record) {
            *of_target = entry;
        }
    }
    longest
}

/// Kind and way to end, as numbers below 8.
fn class(record: &Record) -> (u8, u8) {
    let of_outcome = |outcome| match outcome {
        Outcome::Succeeded => 0,
        Outcome::Failed => 1,
        Outcome::Cancelled => 2,
    };
    match record {
        Record::Backup(record) => (0, of_outcome(record.outcome)),
        Record::RestoreTest(record) if record.cancelled => (1, 3),
        Record::RestoreTest(record) => (1, of_verdict(record.verdict)),
        Record::Restore(record) => (2, of_outcome(record.outcome)),
        Record::Interrupted(record) => match record.task.as_str() {
            "backup" => (3, 0),
            "restore_test" => (3, 1),
            "prune" => (3, 2),
            _ => (3, 3),
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

fn of_verdict(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Passed => 0,
        Verdict::Failed => 1,
        Verdict::CouldNotRun => 2,
    }
}

/// The backups that a record with this end says something of, and what: of one scrub, not the same of each.
fn about(record: &Record, end: u8) -> Vec<(&BackupId, u8)> {
    match record {
        Record::Backup(record) => record.backup.iter().map(|id| (id, end)).collect(),
        Record::RestoreTest(record) => record.backup.iter().map(|id| (id, end)).collect(),
        Record::Scrub(record) => record
            .backups
            .iter()
            .map(|one| (&one.backup, of_verdict(one.verdict)))
            .collect(),
        Record::Acknowledgement(record) => vec![(&record.backup, end)],
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
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::journal::History;
    use crate::journal::run::tests::backup_record;
    use crate::model::retention::Policy;
    use crate::model::samples::{entries, id, manifest, restore_test, target, time};
    use crate::model::upkeep::{AcknowledgementRecord, ScrubRecord, ScrubbedBackup};
    use crate::model::verdicts::Verdicts;
    use crate::observe::measures::Measures;
    use crate::observe::status::{self, Recorded, TargetFacts};
    use crate::ops::prune::{Plan, Settings};
    use crate::repository::keys::manifest_key;
    use crate::repository::{Inventory, Unreadable};

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
                // Not the same of each.
                backups: [(backup, verdict), (backup + 1, Verdict::CouldNotRun)]
                    .map(|(backup, verdict)| ScrubbedBackup {
                        backup: id(backup),
                        verdict,
                        objects: 1,
                        bytes: 1,
                        faults: Vec::new(),
                    })
                    .into(),
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
            _ => {
                let Record::RestoreTest(mut record) = restore_test(backup, verdict, at) else {
                    unreachable!("it makes records of restore tests");
                };
                // Any of them may be the longest.
                record.started_at = time(at - at * 7919 % 50 * 3600);
                Record::RestoreTest(record)
            }
        }
    }

    fn prune_settings() -> Settings {
        Settings {
            target: target(),
            retention: Some(Policy {
                last: 1,
                daily: 0,
                weekly: 0,
                monthly: 0,
                yearly: 0,
                time_zone: crate::model::time_zone::Tz::UTC,
            }),
            max_snapshot_age: Duration::ZERO,
            known: None,
        }
    }

    #[test]
    fn the_last_word_on_a_backup_is_not_that_of_a_scrub_that_could_not_read_it() {
        let later = (1..).take(2 * KEPT).map(|at| record(1, 1, 0, at));
        let records: Vec<Record> = std::iter::once(record(1, 1, 1, 0)).chain(later).collect();
        let all: Vec<Arc<Entry>> = entries(records).into_iter().map(Arc::new).collect();
        let listed = Manifests {
            readable: vec![manifest(0), manifest(1)],
            ..Manifests::default()
        };
        let manifests = [(target(), Arc::new(listed))].into();
        let kept = trim(all, &manifests, &mut Forgotten::new());
        let verdicts = Verdicts::of(&target(), kept.iter().map(Arc::as_ref));
        assert!(verdicts.is_bad(&id(0)) && verdicts.is_bad(&id(1)));
    }

    proptest! {
        #[test]
        fn what_is_let_go_of_changes_nothing_that_is_told(
            runs in proptest::collection::vec((0..5_u8, 0..3_usize, 0..8_i64), 0..400),
            existing in proptest::collection::btree_set(0..8_i64, 0..5),
        ) {
            let numbered = (0_i64..).zip(runs);
            let records = numbered.map(|(at, (kind, end, backup))| record(kind, end, backup, 100_000 + at));
            let all: Vec<Arc<Entry>> = entries(records.collect()).into_iter().map(Arc::new).collect();
            let listed = Manifests {
                readable: existing.iter().map(|number| manifest(*number)).collect(),
                ..Manifests::default()
            };
            // A manifest that cannot be read for a while is the manifest of a backup all the same.
            let mut seen = listed.clone();
            if let Some(manifest) = seen.readable.pop() {
                seen.unreadable.push(Unreadable {
                    key: manifest_key(&target(), &manifest.id),
                    backup: Some(manifest.id),
                    reason: "why".to_owned(),
                    newer_format: None,
                });
            }
            let manifests = [(target(), Arc::new(seen))].into();
            // Whole chains are heard in one go, and what is new a few at a time.
            let mut window = Window::new(&manifests);
            all[..all.len() / 2].iter().cloned().for_each(|entry| window.hear(entry));
            let (mut kept, mut forgotten, _) = window.into_kept();
            for some in all[all.len() / 2..].chunks(7) {
                kept.extend_from_slice(some);
                kept = trim(kept, &manifests, &mut forgotten);
            }
            kept = trim(kept, &manifests, &mut forgotten);
            prop_assert!(kept.len() <= 15 * KEPT + 8 * listed.readable.len());

            let facts = TargetFacts {
                name: target(),
                environment: None,
                owner: None,
                rpo_seconds: Some(60.0),
                rto_seconds: Some(60.0),
            };
            let told = |entries: &[Arc<Entry>]| {
                let history = History { entries: entries.to_vec(), problems: Vec::new() };
                status::of(&facts, &listed, &Recorded::from(&history), None, time(200_000))
            };
            let mut after = told(&kept);
            if let Some(counts) = forgotten.get(&target()) {
                after.counts.add_runs(counts);
            }
            prop_assert_eq!(after, told(&all));
            let measured = |entries: &[Arc<Entry>]| {
                let entries: Vec<&Entry> = entries.iter().map(Arc::as_ref).collect();
                Measures::of(&target(), &listed.readable, &entries, time(200_000))
            };
            prop_assert_eq!(measured(&kept), measured(&all));
            let planned = |entries: &[Arc<Entry>]| {
                let history = History { entries: entries.to_vec(), problems: Vec::new() };
                let settings = prune_settings();
                Plan::of(&settings, &listed, Inventory::default(), &history, time(200_000))
            };
            prop_assert_eq!(planned(&kept), planned(&all));
        }
    }
}
