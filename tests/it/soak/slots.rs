//! What the schedules demand of the runs of one task of one target, by the records alone: that they go on, and how many
//! slots had no run of their own.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{MAX_BACKUPS, MAX_RESTORE_TESTS, TARGETS, faults};

/// At most so long after the daemon has decided on a run does that begin by its record, on a busy machine: in between, it
/// opens the repository. A slot that falls into this time may have been counted or not.
const DOUBT: TimeDelta = TimeDelta::seconds(1);

/// So many faults fall into the time in which all targets have their turn once.
const FAULTS_IN_A_ROUND: u32 = 2;

pub(super) const TASKS: [Task; 2] = [
    Task {
        name: "backup",
        every: Duration::from_secs(5),
        places: MAX_BACKUPS,
        usual: Duration::from_secs(5),
        result_within: Duration::from_secs(100),
    },
    Task {
        name: "restore_test",
        every: Duration::from_secs(25),
        places: MAX_RESTORE_TESTS,
        usual: Duration::from_secs(8),
        result_within: Duration::from_secs(600),
    },
];

/// What each target has done by schedule.
pub(super) struct Task {
    pub(super) name: &'static str,
    /// What nobody would want, so that an hour holds the runs of weeks.
    pub(super) every: Duration,
    /// For so many targets at once.
    places: usize,
    /// 99 of 100 runs took less, on two cores and while everything failed at random: 4.4 s and 6.9 s.
    usual: Duration,
    /// Each target has a result by then, after a dozen runs, of which less than a third fail.
    result_within: Duration,
}

impl Task {
    /// A target that is due has its turn within this time: after all others, and after what held them up.
    pub(super) fn turn_within(&self) -> Duration {
        let one_after_the_other = u32::try_from(TARGETS.div_ceil(self.places)).unwrap();
        self.usual * one_after_the_other + faults::LONGEST * FAULTS_IN_A_ROUND
    }

    /// From the start of one run to that of the next. Its slot comes at most one interval after the end of a run, also of
    /// one that failed: the shortest pause before a retry, of a minute, is longer than the interval.
    pub(super) fn longest_pause(&self) -> Duration {
        self.every + self.turn_within()
    }

    /// For so many targets it must have succeeded in a soak of this length.
    pub(super) fn results_after(&self, length: Duration) -> usize {
        if length >= self.result_within {
            TARGETS
        } else if length >= self.turn_within() {
            TARGETS / 2
        } else {
            0
        }
    }

    fn slots(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> u64 {
        (to - from).num_milliseconds().max(0) as u64 / self.every.as_millis() as u64
    }
}

/// When the schedules of seconds were in force.
#[derive(Clone, Copy)]
pub(super) struct Busy {
    /// When they were asked for.
    pub(super) from: DateTime<Utc>,
    /// When their end was asked for. What failed last is tried again after that, by no slot.
    pub(super) until: DateTime<Utc>,
    /// When that was in force.
    pub(super) over: DateTime<Utc>,
}

impl Busy {
    pub(super) fn length(&self) -> Duration {
        (self.until - self.from).to_std().unwrap_or_default()
    }
}

/// A run that counts for the schedule.
pub(super) struct Run {
    pub(super) started_at: DateTime<Utc>,
    pub(super) ended_at: DateTime<Utc>,
    pub(super) by_hand: bool,
    pub(super) succeeded: bool,
}

/// How many slots had no run: no fewer than, and no more than.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missed {
    pub(super) least: u64,
    pub(super) most: u64,
}

/// What the daemon must have counted, by the runs in the order of their starts. Whenever it decides to run, it counts the
/// slots since the start of the last run that it knows of, but for the one that the new run serves.
pub(super) fn missed(task: &Task, runs: &[Run], busy: &Busy) -> Missed {
    let mut missed = Missed::default();
    for (place, run) in runs.iter().enumerate().filter(|(_, run)| !run.by_hand) {
        let before = &runs[..place];
        // A run by hand since then may not have been known yet.
        let known = before.iter().rfind(|run| !run.by_hand).or(before.first());
        let (Some(known), Some(last)) = (known, before.last()) else {
            continue;
        };
        // It decides before the record begins, so no slot is counted that came after that.
        if run.started_at <= busy.over + DOUBT {
            let counted = task.slots(known.started_at, run.started_at);
            missed.most += counted.saturating_sub(1);
        }
        if run.started_at > busy.until || known.by_hand {
            continue;
        }
        let before_the_decision = task.slots(last.started_at, run.started_at - DOUBT);
        // It waits for the first slot after the end of its own last run: those that came during that are skipped.
        let during_the_last = if last.by_hand {
            0
        } else {
            task.slots(last.started_at, last.ended_at)
        };
        missed.least += before_the_decision.saturating_sub(1).max(during_the_last);
    }
    missed
}

/// Each time in which nothing began: up to the first run, from one to the next, and from the last on. A run by hand is a run
/// like any other, since the daemon lets it have the slot.
pub(super) fn pauses(
    runs: &[Run],
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Vec<(DateTime<Utc>, Duration)> {
    let starts = runs.iter().map(|run| run.started_at);
    let moments: Vec<DateTime<Utc>> = std::iter::once(from)
        .chain(starts.filter(|start| (from..=until).contains(start)))
        .chain([until])
        .collect();
    let pauses = moments.windows(2).map(|pair| {
        let length = (pair[1] - pair[0]).to_std();
        (pair[0], length.unwrap_or_default())
    });
    pauses.collect()
}

/// The pauses that are too long.
pub(super) fn standstills(
    task: &Task,
    runs: &[Run],
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Vec<String> {
    let mut found = Vec::new();
    // The first run is due at once.
    let mut allowed = task.turn_within();
    for (since, length) in pauses(runs, from, until) {
        if length > allowed {
            found.push(format!(
                "nothing began for {:.1} s from {since} on, and within {} s something should",
                length.as_secs_f64(),
                allowed.as_secs()
            ));
        }
        allowed = task.longest_pause();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKUP: &Task = &TASKS[0];

    fn at(milliseconds: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds(milliseconds)
    }

    fn run(started: i64, ended: i64) -> Run {
        Run {
            started_at: at(started),
            ended_at: at(ended),
            by_hand: false,
            succeeded: true,
        }
    }

    fn by_hand(started: i64, ended: i64) -> Run {
        Run {
            by_hand: true,
            ..run(started, ended)
        }
    }

    fn missed_of(runs: &[Run]) -> (u64, u64) {
        let busy = Busy {
            from: at(0),
            until: at(1_000_000),
            over: at(1_001_000),
        };
        let Missed { least, most } = missed(BACKUP, runs, &busy);
        (least, most)
    }

    #[test]
    fn slots_that_came_during_a_run_or_while_it_waited_are_missed() {
        assert_eq!(missed_of(&[]), (0, 0));
        assert_eq!(missed_of(&[run(0, 2_000), run(5_010, 7_000)]), (0, 0));
        assert_eq!(missed_of(&[run(0, 12_000), run(15_010, 16_000)]), (2, 2));
        assert_eq!(missed_of(&[run(0, 2_000), run(18_000, 19_000)]), (2, 2));
        // The third slot came between the decision and the record, or before both.
        assert_eq!(missed_of(&[run(0, 2_000), run(15_500, 16_000)]), (1, 2));
    }

    #[test]
    fn a_run_by_hand_may_take_slots_with_it() {
        let runs = [run(0, 2_000), by_hand(17_000, 18_000), run(33_000, 34_000)];
        assert_eq!(missed_of(&runs), (2, 5));
        let first = [by_hand(0, 12_000), run(15_000, 16_000)];
        assert_eq!(missed_of(&first), (0, 2));
    }

    #[test]
    fn what_runs_after_the_end_of_the_schedule_has_missed_nothing() {
        let late = |started| missed_of(&[run(980_000, 981_000), run(started, started + 1_000)]);
        assert_eq!(late(999_000), (2, 2));
        assert_eq!(late(1_001_500), (0, 3), "decided while the end came into force");
        assert_eq!(late(1_060_000), (0, 0), "a retry");
    }

    #[test]
    fn whatever_stands_still_is_told() {
        let seconds = |number: u64| Duration::from_secs(number);
        let limits = TASKS.map(|task| (task.turn_within(), task.longest_pause()));
        assert_eq!(limits[0], (seconds(55), seconds(60)));
        assert_eq!(limits[1], (seconds(110), seconds(135)));
        let told = |starts: &[i64]| {
            let runs: Vec<Run> = starts.iter().map(|start| run(*start, start + 1_000)).collect();
            standstills(BACKUP, &runs, at(0), at(120_000)).len()
        };
        assert_eq!(told(&[50_000, 110_000]), 0);
        assert_eq!(told(&[]), 1, "it never ran");
        assert_eq!(told(&[56_000, 110_000]), 1, "it began late");
        assert_eq!(told(&[5_000, 66_000]), 1, "it paused");
        assert_eq!(told(&[5_000, 50_000]), 1, "it ended early");
    }

    #[test]
    fn how_many_targets_need_a_result_depends_on_the_time_there_was() {
        let needed = |seconds| TASKS.map(|task| task.results_after(Duration::from_secs(seconds)));
        assert_eq!(needed(30), [0, 0]);
        assert_eq!(needed(120), [TARGETS, TARGETS / 2]);
        assert_eq!(needed(3600), [TARGETS, TARGETS]);
    }
}
