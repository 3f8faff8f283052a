//! One target's objectives and actuals, folded from its manifests and the records of its runs.
//!
//! A pure function: the command line, the metrics and the page all show what this says, and never more.
//! What is not known is `null` or `unknown`, never zero and never good.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::journal::{ChainProblem, History};
use crate::model::backup_id::BackupId;
use crate::model::clocks::source_clock;
use crate::model::contents::NotCovered;
use crate::model::cycle::{by_recovery_point, cycle_between, seconds_between};
use crate::model::manifest::{Manifest, RecoveryPoint};
use crate::model::record::{
    BackupRecord, Entry, InterruptedRecord, ObjectiveResult, Outcome, Record, RestoreTestRecord, Verdict,
};
use crate::model::target_name::TargetName;
use crate::model::upkeep::{PruneRecord, acknowledged};
use crate::model::verdicts::Verdicts;
use crate::observe::problems::{from_the_future, losses, problems};
use crate::repository::Manifests;

/// What the configuration says of a target.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetFacts {
    pub name: TargetName,
    pub environment: Option<String>,
    pub owner: Option<String>,
    pub rpo_seconds: Option<f64>,
    pub rto_seconds: Option<f64>,
}

/// How a target stands. Every field is always there, `null` where unknown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetStatus {
    pub target: TargetName,
    pub environment: Option<String>,
    pub owner: Option<String>,
    /// Nothing is wrong: the same as no problems.
    pub ok: bool,
    /// What is wrong, in words.
    pub problems: Vec<String>,
    /// The backup with the newest recovery point, good or bad.
    pub newest_backup: Option<BackupStatus>,
    /// The newest recovery point of a backup not found bad: what would be recovered if the source died now.
    pub recovery_point: Option<RecoveryPoint>,
    /// What would be lost if the source died now, by the source's clock.
    pub exposure_seconds: Option<f64>,
    /// The newest recovery point that a restore test has proven.
    pub proven_recovery_point: Option<RecoveryPoint>,
    pub proven_backup: Option<BackupId>,
    /// The worst moment of the last cycle that ended.
    pub last_cycle_rpa_seconds: Option<f64>,
    pub last_restore_test: Option<RestoreTestStatus>,
    pub rpo: ObjectiveResult,
    /// From the last restore test that passed.
    pub rto: ObjectiveResult,
    pub counts: Counts,
    /// What the newest backup does not hold.
    pub not_covered: Option<u64>,
    /// By name, what the newest backup does not hold and what its last restore test left out; `null` where no record
    /// of them is known here.
    pub not_covered_objects: Option<Vec<NotCovered>>,
    /// The source's clock minus ours, as last measured.
    pub clock_skew_seconds: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackupStatus {
    pub id: BackupId,
    pub recovery_point: RecoveryPoint,
    pub finished_at: DateTime<Utc>,
    pub duration_seconds: f64,
    pub tables: u64,
    pub rows: u64,
    pub stored_bytes: u64,
    /// What the last restore test or scrub of it that could say something said.
    pub verdict: Option<Verdict>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RestoreTestStatus {
    pub id: String,
    pub backup: Option<BackupId>,
    pub verdict: Verdict,
    pub reason: Option<String>,
    pub finished_at: DateTime<Utc>,
    /// Only for a test that passed.
    pub rta_seconds: Option<f64>,
    pub mismatches: u64,
}

/// How many there are (backups), and how many runs were recorded (the rest).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub backups: u64,
    pub backups_found_bad: u64,
    pub backup_runs_succeeded: u64,
    pub backup_runs_failed: u64,
    pub backup_runs_cancelled: u64,
    pub restore_tests_passed: u64,
    pub restore_tests_failed: u64,
    pub restore_tests_could_not_run: u64,
    pub runs_interrupted: u64,
}

/// What was recorded, as far as it matters to a target: records of others do no harm.
pub struct Recorded<'a> {
    pub entries: Vec<&'a Entry>,
    pub problems: &'a [ChainProblem],
}

impl<'a> From<&'a History> for Recorded<'a> {
    fn from(history: &'a History) -> Self {
        Self {
            entries: history.iter().collect(),
            problems: &history.problems,
        }
    }
}

/// How the target stands by what was found of it in a repository, and what is wrong with what was found.
///
/// `clock_skew_seconds` is what was measured since the last backup: the source's clock minus ours.
pub fn of(
    target: &TargetFacts,
    manifests: &Manifests,
    history: &Recorded<'_>,
    clock_skew_seconds: Option<f64>,
    now: DateTime<Utc>,
) -> TargetStatus {
    let records = history.entries.iter().copied();
    let mut status = fold(target, &manifests.readable, records, clock_skew_seconds, now);
    let unreadable = manifests.unreadable.iter().map(|unreadable| {
        format!(
            "the manifest {} is of no use: {}",
            unreadable.key, unreadable.reason
        )
    });
    let in_chains = history.problems.iter().map(|problem| {
        format!(
            "record {} of chain {}: {}",
            problem.sequence, problem.chain, problem.reason
        )
    });
    status.problems.extend(unreadable.chain(in_chains));
    status.ok = status.problems.is_empty();
    status
}

/// Folds what is stored and what was recorded into how the target stands at this moment of our clock.
pub(super) fn fold<'a>(
    target: &TargetFacts,
    manifests: &[Manifest],
    records: impl IntoIterator<Item = &'a Entry>,
    clock_skew_seconds: Option<f64>,
    now: DateTime<Utc>,
) -> TargetStatus {
    let runs = Runs::of(&target.name, records);
    let ordered = by_recovery_point(manifests.iter().filter(|manifest| manifest.target == target.name));
    let good: Vec<&Manifest> = ordered
        .iter()
        .copied()
        .filter(|manifest| !runs.verdicts.is_bad(&manifest.id))
        .collect();
    let clock_skew_seconds = clock_skew_seconds.or_else(|| runs.clock_skew_seconds());
    let now_there = source_clock(now, clock_skew_seconds);
    let newest_present = ordered
        .iter()
        .rfind(|manifest| !manifest.recovery_point.is_in_the_future(now_there));
    let newest = newest_present.or(ordered.last()).copied();
    let (future, present): (Vec<&Manifest>, Vec<&Manifest>) = good
        .iter()
        .partition(|manifest| manifest.recovery_point.is_in_the_future(now_there));
    let proven = present
        .iter()
        .rev()
        .find(|manifest| runs.verdicts.is_proven(&manifest.id));
    let recovery_point = present.last().map(|manifest| manifest.recovery_point);
    let exposure_seconds = recovery_point.map(|point| seconds_between(point.at, now_there).max(0.0));
    let last_cycle_rpa_seconds = match present.as_slice() {
        [.., begin, end] => cycle_between(begin, end),
        _ => None,
    };
    let mut status = TargetStatus {
        target: target.name.clone(),
        environment: target.environment.clone(),
        owner: target.owner.clone(),
        ok: true,
        problems: Vec::new(),
        newest_backup: newest.map(|manifest| backup_status(manifest, &runs)),
        recovery_point,
        exposure_seconds,
        proven_recovery_point: proven.map(|manifest| manifest.recovery_point),
        proven_backup: proven.map(|manifest| manifest.id.clone()),
        last_cycle_rpa_seconds,
        last_restore_test: runs.tests.last().map(|record| test_status(record)),
        rpo: judge_rpo(target, exposure_seconds, last_cycle_rpa_seconds),
        rto: judge_rto(target, &runs),
        counts: runs.counts(ordered.len(), good.len()),
        not_covered: newest.map(|manifest| manifest.totals.not_covered),
        not_covered_objects: newest.and_then(|manifest| runs.not_covered(&manifest.id)),
        clock_skew_seconds,
    };
    status.problems = problems(&status, present.last().copied(), &runs, now);
    status.problems.extend(from_the_future(&future));
    status.problems.extend(losses(&ordered, &runs));
    status.ok = status.problems.is_empty();
    status
}

/// The target's records by kind, each in the order in which they ended.
pub(super) struct Runs<'a> {
    pub(super) backups: Vec<&'a BackupRecord>,
    pub(super) tests: Vec<&'a RestoreTestRecord>,
    pub(super) interrupted: Vec<&'a InterruptedRecord>,
    pub(super) last_prune: Option<&'a PruneRecord>,
    pub(super) acknowledged: BTreeSet<BackupId>,
    pub(super) verdicts: Verdicts<'a>,
}

impl<'a> Runs<'a> {
    pub(super) fn of(target: &TargetName, records: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut ordered: Vec<&Entry> = records
            .into_iter()
            .filter(|entry| entry.record.target() == Some(target))
            .collect();
        ordered.sort_by_key(|entry| (entry.record.finished_at(), entry.sequence));
        let mut runs = Self {
            backups: Vec::new(),
            tests: Vec::new(),
            interrupted: Vec::new(),
            last_prune: None,
            acknowledged: acknowledged(target, ordered.iter().copied()),
            verdicts: Verdicts::of(target, ordered.iter().copied()),
        };
        for entry in ordered {
            match &entry.record {
                Record::Backup(record) => runs.backups.push(record),
                Record::RestoreTest(record) => runs.tests.push(record),
                Record::Interrupted(record) => runs.interrupted.push(record),
                Record::Prune(record) => runs.last_prune = Some(record),
                Record::Restore(_)
                | Record::Scrub(_)
                | Record::Acknowledgement(_)
                | Record::AlertDelivery(_)
                | Record::AlertTest(_) => {}
            }
        }
        runs
    }

    /// As the last backup that reached the source measured it.
    fn clock_skew_seconds(&self) -> Option<f64> {
        let newest_first = self.backups.iter().rev();
        newest_first
            .into_iter()
            .find_map(|record| record.clock_skew_seconds)
    }

    /// The manifest tells no names, but the records do.
    fn not_covered(&self, backup: &BackupId) -> Option<Vec<NotCovered>> {
        let taken = self
            .backups
            .iter()
            .rev()
            .find(|record| record.backup.as_ref() == Some(backup))
            .map(|record| &record.not_covered);
        let tested = self
            .tests
            .iter()
            .rev()
            .find(|record| record.backup.as_ref() == Some(backup) && record.verdict == Verdict::Passed)
            .map(|record| &record.verification.not_covered);
        let mut objects = taken.or(tested)?.clone();
        for object in tested.into_iter().flatten() {
            if !objects.contains(object) {
                objects.push(object.clone());
            }
        }
        Some(objects)
    }

    fn counts(&self, backups: usize, good: usize) -> Counts {
        let outcomes = |outcome| {
            self.backups
                .iter()
                .filter(|record| record.outcome == outcome)
                .count() as u64
        };
        let verdicts = |verdict| {
            self.tests
                .iter()
                .filter(|record| record.verdict == verdict)
                .count() as u64
        };
        Counts {
            backups: backups as u64,
            backups_found_bad: (backups - good) as u64,
            backup_runs_succeeded: outcomes(Outcome::Succeeded),
            backup_runs_failed: outcomes(Outcome::Failed),
            backup_runs_cancelled: outcomes(Outcome::Cancelled),
            restore_tests_passed: verdicts(Verdict::Passed),
            restore_tests_failed: verdicts(Verdict::Failed),
            restore_tests_could_not_run: verdicts(Verdict::CouldNotRun),
            runs_interrupted: self.interrupted.len() as u64,
        }
    }
}

fn backup_status(manifest: &Manifest, runs: &Runs<'_>) -> BackupStatus {
    BackupStatus {
        id: manifest.id.clone(),
        recovery_point: manifest.recovery_point,
        finished_at: manifest.finished_at,
        duration_seconds: manifest.duration_seconds,
        tables: manifest.totals.tables,
        rows: manifest.totals.rows,
        stored_bytes: manifest.totals.stored_bytes,
        verdict: runs.verdicts.verdict(&manifest.id),
    }
}

fn test_status(record: &RestoreTestRecord) -> RestoreTestStatus {
    let passed = record.verdict == Verdict::Passed;
    RestoreTestStatus {
        id: record.id.clone(),
        backup: record.backup.clone(),
        verdict: record.verdict,
        reason: record.reason.clone(),
        finished_at: record.finished_at,
        rta_seconds: record.objectives.rto.actual_seconds.filter(|_| passed),
        mismatches: record.verification.mismatches.len() as u64,
    }
}

/// The worse of what would be lost now and what could have been lost in the last cycle.
fn judge_rpo(target: &TargetFacts, exposure: Option<f64>, cycle: Option<f64>) -> ObjectiveResult {
    let (actual, basis) = match (exposure, cycle) {
        (Some(exposure), Some(cycle)) if cycle > exposure => (Some(cycle), Some("last cycle")),
        (Some(exposure), _) => (Some(exposure), Some("exposure")),
        (None, _) => (None, None),
    };
    ObjectiveResult::judge(target.rpo_seconds, actual, basis.map(str::to_owned))
}

/// Against the objective of today, which may not be that of the test.
fn judge_rto(target: &TargetFacts, runs: &Runs<'_>) -> ObjectiveResult {
    let mut newest_first = runs.tests.iter().rev();
    let passed = newest_first.find(|record| record.verdict == Verdict::Passed);
    let measured = passed.map(|record| &record.objectives.rto);
    ObjectiveResult::judge(
        target.rto_seconds,
        measured.and_then(|rto| rto.actual_seconds),
        measured.and_then(|rto| rto.basis.clone()),
    )
}
