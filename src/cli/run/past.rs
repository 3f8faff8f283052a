//! What records mean for schedules.

use std::collections::BTreeMap;

use crate::journal::{History, Task};
use crate::model::agenda::{End, PastRun};
use crate::model::record::{Outcome, Record, RestoreTestRecord, Verdict};
use crate::model::target_name::TargetName;

/// Runs of one task and target, by their start.
pub(super) type RunsBy = BTreeMap<(TargetName, Task), Vec<PastRun>>;

/// The runs of all tasks that are run by schedule.
pub(super) fn runs_by(history: &History) -> RunsBy {
    let mut runs = RunsBy::new();
    for entry in history.iter() {
        if let (Some((task, run)), Some(target)) = (past_run(&entry.record), entry.record.target()) {
            runs.entry((target.clone(), task)).or_default().push(run);
        }
    }
    runs.values_mut()
        .for_each(|runs| runs.sort_by_key(|run| run.started_at));
    runs
}

/// What the end of a backup or a prune means for the schedule.
pub(super) fn end_of_run(outcome: Outcome) -> End {
    match outcome {
        Outcome::Succeeded => End::Done,
        Outcome::Failed => End::CouldNotRun,
        Outcome::Cancelled => End::Cancelled,
    }
}

/// The same of a restore test: a bad backup is a result like any other. Where a manifest could not be read, so that nobody
/// knows which backup was tested, no backup is tested, and the same would be due again at once.
pub(super) fn end_of_test(record: &RestoreTestRecord) -> End {
    match record.verdict {
        Verdict::Failed if record.backup.is_none() => End::CouldNotRun,
        Verdict::Passed | Verdict::Failed => End::Done,
        Verdict::CouldNotRun if record.cancelled => End::Cancelled,
        Verdict::CouldNotRun => End::CouldNotRun,
    }
}

/// What a record means for the schedule; nothing for what no schedule runs.
fn past_run(record: &Record) -> Option<(Task, PastRun)> {
    let (task, started_at, end) = match record {
        Record::Backup(record) => (Task::Backup, record.started_at, end_of_run(record.outcome)),
        Record::Prune(record) => (Task::Prune, record.started_at, end_of_run(record.outcome)),
        Record::RestoreTest(record) => (Task::RestoreTest, record.started_at, end_of_test(record)),
        Record::Interrupted(record) => {
            let scheduled = [Task::Backup, Task::RestoreTest, Task::Prune];
            let task = scheduled.into_iter().find(|task| task.as_str() == record.task)?;
            (task, record.started_at, End::CouldNotRun)
        }
        Record::Restore(_)
        | Record::Scrub(_)
        | Record::Acknowledgement(_)
        | Record::AlertDelivery(_)
        | Record::AlertTest(_) => return None,
    };
    let ended_at = record.finished_at();
    Some((
        task,
        PastRun {
            started_at,
            ended_at,
            end,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples::restore_test;

    #[test]
    fn a_test_that_found_no_backup_to_test_is_tried_again_and_not_at_once() {
        let Record::RestoreTest(mut record) = restore_test(1, Verdict::Failed, 100) else {
            unreachable!("the sample is a restore test");
        };
        assert_eq!(end_of_test(&record), End::Done);
        record.backup = None;
        assert_eq!(end_of_test(&record), End::CouldNotRun);
    }
}
