//! What was done so far: a backup, a restore test of it, and whether the schedule can meet the RPO at all.

use std::time::Duration;

use chrono::TimeDelta;

use crate::journal::History;
use crate::model::manifest::Manifest;
use crate::model::record::{Record, RestoreTestRecord, Verdict};
use crate::ops::target::Target;

use super::{Lines, Surroundings, encryption};

/// Adds the lines about earlier runs.
pub(super) async fn check(
    surroundings: &Surroundings,
    target: &Target,
    longest_gap: Option<Duration>,
    lines: &mut Lines,
) {
    let backups = backups(surroundings, target, lines).await;
    retention(target, &backups, lines);
    let newest = backups.last();
    if let (Some(repository), Some(_)) = (&surroundings.repository, newest) {
        encryption::backups(&surroundings.keys, repository, target, &backups, lines).await;
        restore_test(surroundings, target, lines);
    }
    schedule(
        target,
        longest_gap,
        newest.map(|manifest| manifest.duration_seconds),
        lines,
    );
}

/// All backups that can be read, the newest last.
async fn backups(surroundings: &Surroundings, target: &Target, lines: &mut Lines) -> Vec<Manifest> {
    let remedy = format!("ernstfall backup {}", target.name);
    let listed = match &surroundings.repository {
        None => {
            lines.warning("last backup", "there is none", remedy);
            return Vec::new();
        }
        Some(repository) => repository.manifests(&target.name).await,
    };
    match listed {
        Err(error) => {
            lines.failed("last backup", crate::ops::chain(&error), "look at the repository");
            Vec::new()
        }
        Ok(listed) => {
            match listed.newest() {
                None => lines.warning("last backup", "there is none", remedy),
                Some(manifest) => lines.ok(
                    "last backup",
                    format!(
                        "{} in {:.1} s, recovery point {}",
                        manifest.id,
                        manifest.duration_seconds,
                        manifest
                            .recovery_point
                            .at
                            .to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
                    ),
                ),
            }
            listed.readable
        }
    }
}

/// Without retention, the repository grows until its disk is full.
fn retention(target: &Target, backups: &[Manifest], lines: &mut Lines) {
    match &target.retention {
        Some(policy) => lines.ok("retention", format!("{policy} (days of {})", policy.time_zone)),
        None => {
            let growth = bytes_a_day(backups).map_or_else(
                || "by an unknown amount".to_owned(),
                |bytes| format!("by {bytes:.0} bytes a day, as far as the backups of the last week tell"),
            );
            lines.warning(
                "retention",
                format!("none: every backup is kept for ever, and the repository grows {growth}"),
                "retention = { last = 48, daily = 7, weekly = 5, monthly = 12 }",
            );
        }
    }
}

/// What the backups of the last week before the newest took, by the day; nothing where they span less than an hour.
fn bytes_a_day(backups: &[Manifest]) -> Option<f64> {
    let newest = backups.last()?.recovery_point.at;
    let recent: Vec<&Manifest> = backups
        .iter()
        .filter(|manifest| manifest.recovery_point.at >= newest - TimeDelta::days(7))
        .collect();
    // The first one begins the span, and what it took belongs to the time before.
    let (first, others) = recent.split_first()?;
    let days = (newest - first.recovery_point.at).as_seconds_f64() / 86_400.0;
    let bytes: u64 = others.iter().map(|manifest| manifest.totals.stored_bytes).sum();
    #[expect(clippy::cast_precision_loss, reason = "shown rounded")]
    let a_day = bytes as f64 / days;
    (days >= 1.0 / 24.0).then_some(a_day)
}

fn restore_test(surroundings: &Surroundings, target: &Target, lines: &mut Lines) {
    let remedy = format!("ernstfall restore-test {}", target.name);
    let Some(history) = &surroundings.history else {
        return;
    };
    match last_test(history, target) {
        None => lines.warning(
            "last restore test",
            "there was none: it is not known whether the backups can be restored",
            remedy,
        ),
        Some(test) if test.verdict == Verdict::Passed => {
            let at = test
                .finished_at
                .to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            lines.ok("last restore test", format!("passed at {at}"));
        }
        Some(test) => {
            let reason = test.reason.as_deref().unwrap_or("no reason was recorded");
            let message = format!("{}: {reason}", test.verdict.as_str());
            lines.warning("last restore test", message, remedy);
        }
    }
}

fn last_test<'a>(history: &'a History, target: &Target) -> Option<&'a RestoreTestRecord> {
    history.iter().rev().find_map(|entry| match &entry.record {
        Record::RestoreTest(record) if record.target == target.name => Some(record.as_ref()),
        _ => None,
    })
}

/// In the worst moment, just before a backup ends, the newest recovery point is one gap and one backup old.
fn schedule(target: &Target, longest_gap: Option<Duration>, last_seconds: Option<f64>, lines: &mut Lines) {
    let (Some(rpo), Some(gap)) = (target.rpo, longest_gap) else {
        return;
    };
    let (rpo, gap) = (rpo.as_secs_f64(), gap.as_secs_f64());
    let worst = gap + last_seconds.unwrap_or(0.0);
    let message = format!(
        "backups up to {gap:.0} s apart that take {} lose up to {worst:.0} s, and the RPO is {rpo:.0} s",
        last_seconds.map_or("an unknown time".to_owned(), |seconds| format!("{seconds:.0} s")),
    );
    if worst > rpo {
        lines.failed(
            "schedule",
            message,
            "back up more often, use more `jobs`, or agree on a longer `rpo`",
        );
    } else {
        lines.ok("schedule", message);
    }
}

#[cfg(test)]
mod tests {
    use super::super::LineResult;
    use super::*;

    fn judged(gap_seconds: u64, last_seconds: Option<f64>) -> LineResult {
        let mut target = crate::ops::target::for_tests();
        target.rpo = Some(Duration::from_secs(3600));
        let mut lines = Lines::of("target shop");
        schedule(
            &target,
            Some(Duration::from_secs(gap_seconds)),
            last_seconds,
            &mut lines,
        );
        lines.lines[0].result
    }

    #[test]
    fn growth_is_what_the_backups_of_a_week_took() {
        let backups = |hours: &[i64]| -> Vec<Manifest> {
            let sized = |hour: &i64| {
                let mut manifest = crate::model::samples::manifest(*hour);
                manifest.totals.stored_bytes = 100;
                manifest
            };
            hours.iter().map(sized).collect()
        };
        assert_eq!(bytes_a_day(&backups(&[])), None);
        assert_eq!(bytes_a_day(&backups(&[1])), None);
        assert_eq!(bytes_a_day(&backups(&[0, 12, 24])), Some(200.0));
        assert_eq!(bytes_a_day(&backups(&[0, 1000, 1024])), Some(100.0));
    }

    #[test]
    fn a_target_without_retention_is_a_warning() {
        let mut target = crate::ops::target::for_tests();
        let mut lines = Lines::of("target shop");
        retention(&target, &[], &mut lines);
        target.retention = Some(crate::model::retention::Policy {
            last: 3,
            daily: 0,
            weekly: 2,
            monthly: 0,
            yearly: 0,
            time_zone: crate::model::time_zone::Tz::Europe__Berlin,
        });
        retention(&target, &[], &mut lines);
        let results: Vec<LineResult> = lines.lines.iter().map(|line| line.result).collect();
        assert_eq!(results, [LineResult::Warning, LineResult::Ok]);
        assert_eq!(
            lines.lines[1].message,
            "last = 3, weekly = 2 (days of Europe/Berlin)"
        );
    }

    #[test]
    fn an_interval_and_a_backup_together_must_fit_into_the_rpo() {
        assert_eq!(judged(3600, Some(1.0)), LineResult::Failed);
        assert_eq!(judged(3500, Some(100.0)), LineResult::Ok);
        assert_eq!(judged(3600, None), LineResult::Ok);
        assert_eq!(judged(3601, None), LineResult::Failed);
    }
}
