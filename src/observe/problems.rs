//! What is wrong with a target, in words for a person who has to act.

use chrono::{DateTime, Utc};

use crate::model::manifest::Manifest;
use crate::model::record::{InterruptedRecord, ObjectiveVerdict, Outcome, Verdict};
use crate::model::upkeep::CONTENT_SHRANK;
use crate::model::verdicts::FoundBadBy;
use crate::model::verification::Severity;
use crate::observe::status::{BackupStatus, Runs, TargetStatus};

/// Everything that is wrong with a target, the gravest first.
pub(super) fn problems(
    status: &TargetStatus,
    newest_good: Option<&Manifest>,
    runs: &Runs<'_>,
) -> Vec<String> {
    let mut problems = Vec::new();
    match &status.newest_backup {
        None => problems.push("no backup yet".to_owned()),
        Some(newest) => problems.extend(bad_newest(newest, newest_good, runs)),
    }
    problems.extend(last_backup_run(runs));
    problems.extend(restore_tests(status, runs));
    problems.extend(last_prune(runs));
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
fn last_prune(runs: &Runs<'_>) -> Option<String> {
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
    let last = runs.tests.iter().rfind(|test| !test.cancelled);
    match last {
        Some(test) if test.verdict == Verdict::CouldNotRun => {
            problems.push(format!(
                "last restore test {} could not run: {}",
                test.id,
                reason(&test.reason)
            ));
        }
        Some(test) if test.verdict == Verdict::Failed => {
            let newest = status.newest_backup.as_ref().map(|backup| &backup.id);
            // That the newest backup is bad was said already.
            if newest.is_none() || test.backup.as_ref() != newest {
                problems.push(format!(
                    "last restore test {} failed: {}",
                    test.id,
                    reason(&test.reason)
                ));
            }
        }
        _ => {}
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
}

fn reason(reason: &Option<String>) -> &str {
    reason.as_deref().unwrap_or("no reason was recorded")
}
