//! What is wrong with a target, in words for a person who has to act.

use chrono::{DateTime, TimeDelta, Utc};

use crate::journal::Task;
use crate::model::manifest::Manifest;
use crate::model::record::{InterruptedRecord, ObjectiveVerdict, Outcome, RestoreTestRecord, Verdict};
use crate::model::upkeep::CONTENT_SHRANK;
use crate::model::verdicts::FoundBadBy;
use crate::model::verification::Severity;
use crate::observe::status::{BackupStatus, Runs, TargetStatus};

/// A prune that was interrupted counts for so long at most. A prune with nothing to do leaves no record, so nobody can
/// tell that one has ended well since; but one that found something to do has left a record by then, or was
/// interrupted again: daemons prune every hour.
const INTERRUPTED_PRUNE_COUNTS: TimeDelta = TimeDelta::days(1);

/// Everything that is wrong with a target at this moment, the gravest first.
pub(super) fn problems(
    status: &TargetStatus,
    newest_good: Option<&Manifest>,
    runs: &Runs<'_>,
    now: DateTime<Utc>,
) -> Vec<String> {
    let mut problems = Vec::new();
    match &status.newest_backup {
        None => problems.push("no backup yet".to_owned()),
        Some(newest) => problems.extend(bad_newest(newest, newest_good, runs)),
    }
    problems.extend(last_backup_run(runs));
    problems.extend(restore_tests(status, runs));
    problems.extend(last_prune(runs, now));
    for (name, objective) in [("RPO", &status.rpo), ("RTO", &status.rto)] {
        if let (ObjectiveVerdict::Missed, Some(wanted), Some(actual)) = (
            objective.verdict,
            objective.objective_seconds,
            objective.actual_seconds,
        ) {
            let basis = objective.basis.as_deref().unwrap_or("basis unknown");
            problems.push(format!(
                "{name} missed: {actual:.0} s ({basis}) against {wanted:.0} s"
            ));
        }
    }
    problems
}

/// Backups taken while the source's clock was ahead: what they hold is good, and of what time it is nobody knows.
pub(super) fn from_the_future(backups: &[&Manifest]) -> Option<String> {
    let newest = backups.last()?;
    Some(format!(
        "{} backups have recovery points in the future, up to {}: the source's clock was wrong; they count as no recovery point until then",
        backups.len(),
        newest
            .recovery_point
            .at
            .to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    ))
}

fn bad_newest(newest: &BackupStatus, newest_good: Option<&Manifest>, runs: &Runs<'_>) -> Option<String> {
    let by = match runs.verdicts.found_bad_by(&newest.id)? {
        FoundBadBy::RestoreTest(test) => format!("restore test {}", test.id),
        FoundBadBy::Scrub(scrub) => format!("scrub {}", scrub.id),
    };
    let fallback = match newest_good {
        Some(good) => format!("the recovery point falls back to backup {}", good.id),
        None => "no good backup is left".to_owned(),
    };
    Some(format!(
        "newest backup {} was found bad by {by}: {fallback}",
        newest.id
    ))
}

/// A run that was cancelled was somebody's wish; what it means for the RPO, the RPO tells.
fn last_backup_run(runs: &Runs<'_>) -> Option<String> {
    let last = runs.backups.last();
    let interrupted = runs.last_interrupted("backup", last.map(|record| record.started_at));
    if let Some(record) = interrupted {
        return Some(format!(
            "last backup run {} was interrupted: killed, or the machine went down",
            record.id
        ));
    }
    let failed = last.filter(|record| record.outcome == Outcome::Failed)?;
    Some(format!(
        "last backup run {} failed: {}",
        failed.id,
        reason(&failed.reason)
    ))
}

/// What is not removed only takes space, but the person who set the retention counts on it.
fn last_prune(runs: &Runs<'_>, now: DateTime<Utc>) -> Option<String> {
    if let Some(record) = runs.interrupted_prune(now) {
        return Some(format!(
            "last prune {} was interrupted: killed, or the machine went down",
            record.id
        ));
    }
    let failed = runs
        .last_prune
        .filter(|record| record.outcome == Outcome::Failed)?;
    Some(format!(
        "last prune {} failed: {}",
        failed.id,
        reason(&failed.reason)
    ))
}

/// Sharp losses of content that nobody has said were meant.
pub(super) fn losses(manifests: &[&Manifest], runs: &Runs<'_>) -> Vec<String> {
    let open = manifests
        .iter()
        .filter(|manifest| !runs.acknowledged.contains(&manifest.id));
    let loss = |manifest: &&Manifest| {
        let shrank = manifest.shrank.as_ref()?;
        // The manifest tells no names, but the record does.
        let of_backup = runs
            .backups
            .iter()
            .find(|record| record.backup.as_ref() == Some(&manifest.id));
        let mut findings = of_backup.iter().flat_map(|record| &record.findings);
        let named = findings
            .find(|finding| finding.subject == CONTENT_SHRANK && finding.severity == Severity::Warning);
        let what = named.map_or_else(
            || {
                format!(
                    "much is gone since backup {}: {} tables, and more than half of the rows of {} others",
                    shrank.since, shrank.tables_gone, shrank.tables_halved
                )
            },
            |finding| finding.message.clone(),
        );
        Some(format!(
            "backup {}: {what}; if that was not meant, restore it from {}, which is kept; if it was: ernstfall acknowledge {} {}",
            manifest.id, shrank.since, manifest.target, manifest.id
        ))
    };
    open.filter_map(loss).collect()
}

fn restore_tests(status: &TargetStatus, runs: &Runs<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    if !runs.verdicts.any_test() {
        problems.push("never restore-tested".to_owned());
    }
    // One that was cancelled was somebody's wish, like a cancelled backup.
    let newest_first = || runs.tests.iter().rev().filter(|test| !test.cancelled);
    // One that could not run changes nothing of what the one before it said.
    let said = newest_first().find(|test| test.verdict != Verdict::CouldNotRun);
    let newest = status.newest_backup.as_ref().map(|backup| &backup.id);
    // That the newest backup is bad was said already.
    let is_other = |test: &RestoreTestRecord| newest.is_none() || test.backup.as_ref() != newest;
    if let Some(test) = said.filter(|test| test.verdict == Verdict::Failed && is_other(test)) {
        problems.push(format!(
            "last restore test {} failed: {}",
            test.id,
            reason(&test.reason)
        ));
    }
    let last = newest_first().next();
    if let Some(test) = last.filter(|test| test.verdict == Verdict::CouldNotRun) {
        problems.push(format!(
            "last restore test {} could not run: {}",
            test.id,
            reason(&test.reason)
        ));
    }
    if let Some(record) = runs.last_interrupted("restore_test", last.map(|test| test.started_at)) {
        problems.push(format!(
            "last restore test {} was interrupted: killed, or the machine went down",
            record.id
        ));
    }
    problems
}

impl Runs<'_> {
    /// The interrupted run of this task, when no other one was started after it.
    pub(super) fn last_interrupted(
        &self,
        task: &str,
        last_started_at: Option<DateTime<Utc>>,
    ) -> Option<&InterruptedRecord> {
        let of_task = self.interrupted.iter().filter(|record| record.task == task);
        let newest = of_task.max_by_key(|record| record.started_at)?;
        last_started_at
            .is_none_or(|started_at| started_at < newest.started_at)
            .then_some(newest)
    }

    /// The interrupted prune, as long as it counts.
    pub(super) fn interrupted_prune(&self, now: DateTime<Utc>) -> Option<&InterruptedRecord> {
        let last = self.last_prune.map(|record| record.started_at);
        let interrupted = self.last_interrupted(Task::Prune.as_str(), last);
        interrupted.filter(|record| now - record.found_at < INTERRUPTED_PRUNE_COUNTS)
    }
}

fn reason(reason: &Option<String>) -> &str {
    reason.as_deref().unwrap_or("no reason was recorded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::{FORMAT, Record};
    use crate::model::samples::{entries, id, manifest, restore_test, target, time};
    use crate::model::upkeep::PruneRecord;
    use crate::observe::status::{TargetFacts, fold};

    use Verdict::{CouldNotRun, Failed, Passed};

    const HOUR: i64 = 3600;

    /// How a target of two backups and no objectives stands at this moment.
    fn status(records: Vec<Record>, at: i64) -> TargetStatus {
        let facts = TargetFacts {
            name: target(),
            environment: None,
            owner: None,
            rpo_seconds: None,
            rto_seconds: None,
        };
        let backups = [manifest(1), manifest(2)];
        fold(&facts, &backups, &entries(records), None, time(at))
    }

    fn told(records: Vec<Record>, at: i64) -> Vec<String> {
        status(records, at).problems
    }

    fn interrupted_prune(started_at: i64) -> Record {
        Record::Interrupted(InterruptedRecord {
            format: FORMAT,
            id: "lost".to_owned(),
            target: target(),
            task: "prune".to_owned(),
            backup: None,
            started_at: time(started_at),
            found_at: time(started_at + 10),
            removed: Vec::new(),
        })
    }

    fn prune(started_at: i64) -> Record {
        Record::Prune(PruneRecord {
            format: FORMAT,
            id: "prune".to_owned(),
            target: target(),
            trigger: crate::model::record::Trigger::Schedule,
            outcome: Outcome::Cancelled,
            reason: None,
            started_at: time(started_at),
            finished_at: time(started_at + 20),
            removed: Vec::new(),
            objects: 0,
            freed_bytes: 0,
            kept: Vec::new(),
        })
    }

    #[test]
    fn that_an_older_backup_is_bad_is_told_although_the_next_test_could_not_run() {
        let tests = vec![
            restore_test(1, Failed, 9000),
            restore_test(2, CouldNotRun, 10_000),
        ];
        assert_eq!(
            told(tests, 3 * HOUR),
            [
                "last restore test test-9000 failed: why",
                "last restore test test-10000 could not run: why"
            ]
        );
        let newest = vec![
            restore_test(2, Failed, 9000),
            restore_test(2, CouldNotRun, 10_000),
        ];
        let once = format!(
            "newest backup {} was found bad by restore test test-9000: the recovery point falls back to backup {}",
            id(2),
            id(1)
        );
        assert_eq!(
            told(newest, 3 * HOUR),
            [once.as_str(), "last restore test test-10000 could not run: why"]
        );
    }

    #[test]
    fn a_recovery_point_in_the_future_is_neither_recoverable_nor_proven() {
        let tests = vec![restore_test(1, Passed, 100), restore_test(2, Passed, 200)];
        let status = status(tests, HOUR + 60);
        assert_eq!(status.recovery_point, Some(manifest(1).recovery_point));
        assert_eq!(status.proven_backup, Some(id(1)));
        assert!(!status.ok);
    }

    #[test]
    fn an_interrupted_prune_is_told_until_a_later_one_has_left_a_record_or_for_a_day() {
        let none = [""; 0];
        let lost = "last prune lost was interrupted: killed, or the machine went down";
        let records = |after: Vec<Record>| {
            let before = vec![
                restore_test(2, Passed, 9000),
                prune(9000),
                interrupted_prune(10_000),
            ];
            [before, after].concat()
        };
        assert_eq!(told(records(Vec::new()), 3 * HOUR), [lost]);
        assert_eq!(told(records(vec![prune(10_100)]), 3 * HOUR), none);
        // A prune that has nothing to do leaves no record.
        let day_is_over = 10_010 + 24 * HOUR;
        assert_eq!(told(records(Vec::new()), day_is_over - 1), [lost]);
        assert_eq!(told(records(Vec::new()), day_is_over), none);
    }
}
