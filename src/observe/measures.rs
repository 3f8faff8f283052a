//! What the records of one target say beyond its status: figures that are watched over time.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::journal::Task;
use crate::model::manifest::Manifest;
use crate::model::record::{Entry, Outcome, Phase, Record, RestoreTestRecord, Verdict};
use crate::model::target_name::TargetName;
use crate::model::upkeep::CONTENT_SHRANK;
use crate::model::verification::{Finding, Severity};
use crate::observe::status::Runs;

/// Every field is always there, `null` where unknown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measures {
    /// How the last run of a backup ended.
    pub last_backup_result: Option<BackupResult>,
    /// What the last restore test said that nobody cancelled.
    pub last_restore_test_verdict: Option<Verdict>,
    /// When the last restore test of each verdict ended.
    pub last_restore_tests: LastRestoreTests,
    /// Of the last restore test that passed; empty where none has.
    pub restore_test_phases: Vec<Phase>,
    /// By the last restore test that got as far as comparing.
    pub verified: Option<Verified>,
    /// Databases of the server that no target covers, as the last backup saw it.
    pub uncovered_databases: Option<u64>,
    /// Backups with a sharp loss of content that nobody has acknowledged.
    pub open_losses: u64,
    /// Of the last backup that succeeded and the last restore test that said something, and open losses.
    pub open_findings: FindingCounts,
    /// What the existing backups hold in the repository.
    pub stored_bytes: u64,
    /// Tasks whose last run was killed, or the machine went down under it. That of prune counts for a day at most.
    pub last_run_interrupted: BTreeSet<Task>,
    /// Whether the last run of prune failed.
    pub last_prune_failed: Option<bool>,
}

/// How a run of a backup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupResult {
    Succeeded,
    Failed,
    Cancelled,
    Interrupted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LastRestoreTests {
    pub passed: Option<DateTime<Utc>>,
    pub failed: Option<DateTime<Utc>>,
    pub could_not_run: Option<DateTime<Utc>>,
}

/// What a restore test compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub tables: u64,
    pub rows: u64,
    pub mismatched_tables: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FindingCounts {
    pub info: u64,
    pub warning: u64,
    pub critical: u64,
}

/// Runs that ended and were recorded by this machine since the daemon started, by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub backups_succeeded: u64,
    pub backups_failed: u64,
    pub backups_cancelled: u64,
    pub backups_interrupted: u64,
    pub restore_tests_passed: u64,
    pub restore_tests_failed: u64,
    pub restore_tests_could_not_run: u64,
    pub restore_tests_cancelled: u64,
    pub restore_tests_interrupted: u64,
}

impl Measures {
    /// From the target's backups and records, at this moment of our clock.
    pub fn of(target: &TargetName, manifests: &[Manifest], records: &[&Entry], now: DateTime<Utc>) -> Self {
        let runs = Runs::of(target, records.iter().copied());
        let losses = manifests
            .iter()
            .filter(|manifest| manifest.shrank.is_some() && !runs.acknowledged.contains(&manifest.id));
        let open_losses = losses.count() as u64;
        let objects = manifests.iter().flat_map(Manifest::objects);
        Self {
            last_backup_result: last_backup_result(&runs),
            last_restore_test_verdict: not_cancelled(&runs).next().map(|test| test.verdict),
            last_restore_tests: LastRestoreTests {
                passed: last_test(&runs, Verdict::Passed),
                failed: last_test(&runs, Verdict::Failed),
                could_not_run: last_test(&runs, Verdict::CouldNotRun),
            },
            restore_test_phases: last_passed(&runs).map_or_else(Vec::new, |test| test.phases.clone()),
            verified: verified(&runs),
            uncovered_databases: uncovered_databases(&runs),
            open_losses,
            open_findings: open_findings(&runs, open_losses),
            stored_bytes: objects.map(|object| object.size_bytes).sum(),
            last_run_interrupted: interrupted_tasks(&runs, now),
            last_prune_failed: runs.last_prune.map(|prune| prune.outcome == Outcome::Failed),
        }
    }
}

fn last_backup_result(runs: &Runs<'_>) -> Option<BackupResult> {
    let last = runs.backups.last();
    if runs
        .last_interrupted(Task::Backup.as_str(), last.map(|record| record.started_at))
        .is_some()
    {
        return Some(BackupResult::Interrupted);
    }
    last.map(|record| match record.outcome {
        Outcome::Succeeded => BackupResult::Succeeded,
        Outcome::Failed => BackupResult::Failed,
        Outcome::Cancelled => BackupResult::Cancelled,
    })
}

/// Restore tests, the newest first. One that was cancelled was somebody's wish.
fn not_cancelled<'a>(runs: &Runs<'a>) -> impl Iterator<Item = &'a RestoreTestRecord> {
    runs.tests.iter().rev().copied().filter(|test| !test.cancelled)
}

fn last_test(runs: &Runs<'_>, verdict: Verdict) -> Option<DateTime<Utc>> {
    let last = not_cancelled(runs).find(|test| test.verdict == verdict);
    last.map(|test| test.finished_at)
}

fn last_passed<'a>(runs: &Runs<'a>) -> Option<&'a RestoreTestRecord> {
    not_cancelled(runs).find(|test| test.verdict == Verdict::Passed)
}

/// `could-not-run` says nothing of a backup.
fn last_said_something<'a>(runs: &Runs<'a>) -> Option<&'a RestoreTestRecord> {
    not_cancelled(runs).find(|test| test.verdict != Verdict::CouldNotRun)
}

/// A test that failed before it could compare anything has verified nothing, and has not found nothing different.
fn verified(runs: &Runs<'_>) -> Option<Verified> {
    let test = last_said_something(runs)?;
    let verification = &test.verification;
    let of_tables = verification.mismatches.iter().filter(|one| one.kind == "table");
    let mismatched: BTreeSet<&str> = of_tables.map(|one| one.name.as_str()).collect();
    let compared = test.verdict == Verdict::Passed || verification.tables > 0 || !mismatched.is_empty();
    compared.then_some(Verified {
        tables: verification.tables,
        rows: verification.rows,
        mismatched_tables: mismatched.len() as u64,
    })
}

fn uncovered_databases(runs: &Runs<'_>) -> Option<u64> {
    let mut newest_first = runs.backups.iter().rev();
    let last = newest_first.find(|record| record.outcome == Outcome::Succeeded)?;
    last.uncovered_databases
}

fn open_findings(runs: &Runs<'_>, open_losses: u64) -> FindingCounts {
    let mut newest_first = runs.backups.iter().rev();
    let backup = newest_first.find(|record| record.outcome == Outcome::Succeeded);
    let of_backup = backup.iter().flat_map(|record| &record.findings);
    let test = last_said_something(runs);
    let of_test = test.iter().flat_map(|record| &record.verification.findings);
    // Losses stay open until they are acknowledged, however many backups come after.
    let is_loss =
        |finding: &&Finding| finding.subject == CONTENT_SHRANK && finding.severity == Severity::Warning;
    let mut counts = FindingCounts {
        warning: open_losses,
        ..FindingCounts::default()
    };
    for finding in of_backup.chain(of_test).filter(|finding| !is_loss(finding)) {
        match finding.severity {
            Severity::Info => counts.info += 1,
            Severity::Warning => counts.warning += 1,
            Severity::Critical => counts.critical += 1,
        }
    }
    counts
}

fn interrupted_tasks(runs: &Runs<'_>, now: DateTime<Utc>) -> BTreeSet<Task> {
    let last_backup = runs.backups.last().map(|record| record.started_at);
    let last_test = runs.tests.last().map(|record| record.started_at);
    let mut tasks: BTreeSet<Task> = [(Task::Backup, last_backup), (Task::RestoreTest, last_test)]
        .into_iter()
        .filter(|(task, last)| runs.last_interrupted(task.as_str(), *last).is_some())
        .map(|(task, _)| task)
        .collect();
    tasks.extend(runs.interrupted_prune(now).map(|_| Task::Prune));
    tasks
}

impl Counted {
    /// Counts one more run that ended.
    pub fn note(&mut self, record: &Record) {
        if let Some(count) = self.count_of(record) {
            *count += 1;
        }
    }

    fn count_of(&mut self, record: &Record) -> Option<&mut u64> {
        Some(match record {
            Record::Backup(record) => match record.outcome {
                Outcome::Succeeded => &mut self.backups_succeeded,
                Outcome::Failed => &mut self.backups_failed,
                Outcome::Cancelled => &mut self.backups_cancelled,
            },
            Record::RestoreTest(record) => match record.verdict {
                Verdict::Passed => &mut self.restore_tests_passed,
                Verdict::Failed => &mut self.restore_tests_failed,
                Verdict::CouldNotRun if record.cancelled => &mut self.restore_tests_cancelled,
                Verdict::CouldNotRun => &mut self.restore_tests_could_not_run,
            },
            Record::Interrupted(record) if record.task == Task::Backup.as_str() => {
                &mut self.backups_interrupted
            }
            Record::Interrupted(record) if record.task == Task::RestoreTest.as_str() => {
                &mut self.restore_tests_interrupted
            }
            _ => return None,
        })
    }
}
