//! Runs of each target: past, under way and to come.

use super::{Metric, Values, flag, one, seconds_since_epoch, timestamp};
use crate::journal::Task;
use crate::observe::measures::BackupResult;
use crate::observe::view::{RunView, TargetView, TaskView};

const TASKS: [Task; 5] = [
    Task::Backup,
    Task::RestoreTest,
    Task::Restore,
    Task::Scrub,
    Task::Prune,
];

pub(super) const METRICS: &[Metric<TargetView>] = &[
    Metric::counter(
        "backups_total",
        "Backup runs that ended on this machine since the daemon started.",
        backups_total,
    )
    .by(&["result"]),
    Metric::gauge(
        "last_backup_result",
        "How the last backup run ended: 1 for that result, 0 for the others.",
        last_backup_result,
    )
    .by(&["result"]),
    Metric::gauge(
        "last_run_interrupted",
        "Whether the last run was killed, or the machine went down under it.",
        last_run_interrupted,
    )
    .by(&["task"]),
    Metric::gauge(
        "last_prune_failed",
        "Whether the last run of prune failed. Absent: there was none.",
        |target| {
            flag(
                target
                    .measures
                    .as_ref()
                    .and_then(|measures| measures.last_prune_failed),
            )
        },
    ),
    Metric::gauge(
        "next_run_timestamp_seconds",
        "When the task is due next. Absent: not before something happens, such as a backup.",
        |target| of_schedule(target, |task| task.next_run_at.map(seconds_since_epoch)),
    )
    .by(&["task"]),
    Metric::gauge(
        "waiting_since_timestamp_seconds",
        "Since when a run is due and waits for its turn. Absent: none does.",
        |target| of_schedule(target, |task| task.waiting_since.map(seconds_since_epoch)),
    )
    .by(&["task"]),
    Metric::gauge(
        "running",
        "Runs under way on this machine, in any process.",
        |target| of_tasks(|task| Some(runs(target, task).count() as f64)),
    )
    .by(&["task"]),
    Metric::gauge(
        "running_since_timestamp_seconds",
        "When the longest of the runs under way began. Absent: none is.",
        |target| {
            of_tasks(|task| {
                let oldest = runs(target, task).map(|run| run.started_at).min();
                oldest.map(seconds_since_epoch)
            })
        },
    )
    .by(&["task"]),
    Metric::gauge(
        "run_deadline_seconds",
        "How long a run may take before the daemon gives it up.",
        |target| of_schedule(target, |task| task.deadline_seconds),
    )
    .by(&["task"]),
    Metric::counter(
        "skipped_runs_total",
        "Slots of the schedule without a run of their own, since the daemon started.",
        |target| of_schedule(target, |task| Some(task.skipped as f64)),
    )
    .by(&["task"]),
    Metric::gauge(
        "snapshot_age_seconds",
        "How old the snapshot is that a backup under way holds. Absent: none does.",
        |target| {
            let ages = target.running.iter().filter_map(|run| run.snapshot_age_seconds);
            one(ages.reduce(f64::max))
        },
    ),
    Metric::gauge(
        "heartbeat_timestamp_seconds",
        "The last heartbeat that was written, by the source's clock.",
        |target| {
            timestamp(
                target
                    .heartbeat
                    .as_ref()
                    .and_then(|heartbeat| heartbeat.written_at),
            )
        },
    ),
    Metric::gauge(
        "heartbeat_interval_seconds",
        "How often a heartbeat is to be written. Absent: it is switched off.",
        |target| one(target.heartbeat.as_ref().map(|heartbeat| heartbeat.every_seconds)),
    ),
];

/// One value for each task of the daemon's; the same task is there once.
fn of_schedule(target: &TargetView, value: impl Fn(&TaskView) -> Option<f64>) -> Values<'static> {
    of_tasks(|task| value(target.tasks.iter().find(|one| one.task == task)?))
}

fn of_tasks(value: impl Fn(Task) -> Option<f64>) -> Values<'static> {
    TASKS
        .into_iter()
        .filter_map(|task| Some((vec![task.as_str()], value(task)?)))
        .collect()
}

fn runs(target: &TargetView, task: Task) -> impl Iterator<Item = &RunView> {
    target.running.iter().filter(move |run| run.task == task)
}

fn backups_total(target: &TargetView) -> Values<'_> {
    let counted = &target.counted;
    vec![
        (vec!["succeeded"], counted.backups_succeeded as f64),
        (vec!["failed"], counted.backups_failed as f64),
        (vec!["cancelled"], counted.backups_cancelled as f64),
        (vec!["interrupted"], counted.backups_interrupted as f64),
    ]
}

fn last_backup_result(target: &TargetView) -> Values<'_> {
    let last = target
        .measures
        .as_ref()
        .and_then(|measures| measures.last_backup_result);
    let Some(last) = last else {
        return Values::new();
    };
    [
        ("succeeded", BackupResult::Succeeded),
        ("failed", BackupResult::Failed),
        ("cancelled", BackupResult::Cancelled),
        ("interrupted", BackupResult::Interrupted),
    ]
    .into_iter()
    .map(|(word, result)| (vec![word], f64::from(u8::from(result == last))))
    .collect()
}

fn last_run_interrupted(target: &TargetView) -> Values<'_> {
    let Some(measures) = &target.measures else {
        return Values::new();
    };
    [Task::Backup, Task::RestoreTest, Task::Prune]
        .into_iter()
        .map(|task| {
            let interrupted = measures.last_run_interrupted.contains(&task);
            (vec![task.as_str()], f64::from(u8::from(interrupted)))
        })
        .collect()
}
