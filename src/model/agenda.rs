//! When a task of a target is due, from its schedule and from the runs that were recorded. A pure rule: a daemon that
//! is restarted, or started elsewhere with the same records, comes to the same answer.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::model::clocks::CLOCK_TOLERANCE;
use crate::model::schedule::Schedule;

/// A run that could not do its work is tried again after so long, and after twice as long each time.
const FIRST_RETRY: Duration = Duration::from_secs(60);

/// But at least so often.
const LONGEST_RETRY: Duration = Duration::from_secs(3600);

/// Enough to count every missed slot of a schedule by the second for a day; more is only told as so many.
const COUNTED_SLOTS: u64 = 100_000;

/// What is given up takes at least so long, whatever was usual.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(6 * 3600);

/// So many times the slowest of the last runs is not slow any more, it hangs.
const DEADLINE_FACTOR: u32 = 5;

/// Of so many runs.
pub const DEADLINE_RUNS: usize = 10;

/// A run of this task and target that came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastRun {
    pub started_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
    pub end: End,
}

/// What the end of a run means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It did its work, whatever the result.
    Done,
    /// It could not do it, and is tried again.
    CouldNotRun,
    /// Somebody ended it: it does not count.
    Cancelled,
}

/// The next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Not after now: at once.
    pub at: DateTime<Utc>,
    pub why: Why,
    /// Slots that have passed and get no run of their own.
    pub skipped: u64,
    /// Others are likely to be due at this very moment: at a time on the clock, or because a daemon just started.
    pub in_step: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Schedule,
    /// It was due before the daemon started.
    CatchUp,
    /// The last run could not do its work.
    Retry,
    AfterBackup,
}

/// The newest backup, as far as restore tests are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewestBackup {
    pub finished_at: DateTime<Utc>,
    /// A restore test of it has said something.
    pub tested: bool,
    /// Backups before it, since the last restore test began, that no restore test has said anything of.
    pub passed_over: u64,
}

/// Runs by the clock. `since`: when whoever asks began to watch, before which nothing can have been missed if there
/// never was a run.
pub fn by_the_clock(
    schedule: &Schedule,
    runs: &[PastRun],
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<Due> {
    let believed: Vec<&PastRun> = believed(runs, now).collect();
    let last = believed.iter().rfind(|run| run.end != End::Cancelled);
    let slot = first_free_slot(schedule, last.copied(), since, now);
    let why = if slot.at.is_some_and(|at| at < since) {
        Why::CatchUp
    } else {
        Why::Schedule
    };
    let retry = retry_at(&believed, now).filter(|retry| slot.at.is_none_or(|slot| *retry < slot));
    match (retry, slot.at) {
        (Some(at), _) => Some(Due {
            at,
            why: Why::Retry,
            skipped: slot.passed,
            in_step: false,
        }),
        (None, Some(at)) => Some(Due {
            at,
            why,
            // One of those that have passed is served by this run.
            skipped: slot.passed.saturating_sub(u64::from(at <= now)),
            in_step: !matches!(schedule, Schedule::Every(_)) || last.is_none() || why == Why::CatchUp,
        }),
        (None, None) => None,
    }
}

/// Restore tests that follow backups: one of the newest, however many there were meanwhile.
pub fn after_backup(newest: Option<NewestBackup>, runs: &[PastRun], now: DateTime<Utc>) -> Option<Due> {
    let newest = newest.filter(|newest| !newest.tested)?;
    let after: Vec<&PastRun> = believed(runs, now)
        .filter(|run| run.started_at >= newest.finished_at)
        .collect();
    let due = Due {
        at: newest.finished_at,
        why: Why::AfterBackup,
        skipped: newest.passed_over,
        in_step: false,
    };
    Some(match retry_at(&after, now) {
        Some(at) => Due {
            at,
            why: Why::Retry,
            // They were counted when it was tried first.
            skipped: 0,
            ..due
        },
        None => due,
    })
}

/// How long a run may take before it is given up: as configured, or far longer than it ever took.
pub fn deadline(configured: Option<Duration>, runs: &[PastRun]) -> Duration {
    if let Some(configured) = configured {
        return configured;
    }
    let done = runs.iter().rev().filter(|run| run.end == End::Done);
    let took = |run: &PastRun| (run.ended_at - run.started_at).to_std().unwrap_or_default();
    let slowest = done.take(DEADLINE_RUNS).map(took).max().unwrap_or_default();
    SHORTEST_DEADLINE.max(slowest.saturating_mul(DEADLINE_FACTOR))
}

fn believed(runs: &[PastRun], now: DateTime<Utc>) -> impl Iterator<Item = &PastRun> {
    runs.iter()
        .filter(move |run| run.started_at <= now + CLOCK_TOLERANCE)
}

/// When a run ended; of one that ended in the future, when it began: the clock was wrong by then, and was set right.
fn believed_end(run: &PastRun, now: DateTime<Utc>) -> DateTime<Utc> {
    if run.ended_at <= now + CLOCK_TOLERANCE {
        run.ended_at
    } else {
        run.started_at
    }
}

struct Slot {
    /// The first that is not taken by an earlier run.
    at: Option<DateTime<Utc>>,
    /// How many have passed since the last run began.
    passed: u64,
}

/// The first slot after the last run has ended: those that came due while it ran are skipped.
fn first_free_slot(
    schedule: &Schedule,
    last: Option<&PastRun>,
    since: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Slot {
    if let (Schedule::Every(interval), Some(last)) = (schedule, last) {
        return interval_slot(interval.as_duration(), last, now);
    }
    if matches!(schedule, Schedule::Every(_)) {
        return Slot {
            at: Some(since),
            passed: u64::from(since <= now),
        };
    }
    let mut at = schedule.next_after(Some(last.map_or(since, |run| run.started_at)), now);
    let mut passed = 0;
    while let Some(slot) = at.filter(|slot| last.is_some_and(|run| *slot <= believed_end(run, now))) {
        passed += 1;
        at = schedule.next_after(Some(slot), now);
    }
    let mut later = at;
    while let Some(slot) = later.filter(|slot| *slot <= now && passed < COUNTED_SLOTS) {
        passed += 1;
        later = schedule.next_after(Some(slot), now);
    }
    Slot { at, passed }
}

fn interval_slot(interval: Duration, last: &PastRun, now: DateTime<Utc>) -> Slot {
    let slots_until = |moment: DateTime<Utc>| {
        let elapsed = (moment - last.started_at).to_std().unwrap_or_default();
        u64::try_from(elapsed.as_millis() / interval.as_millis().max(1)).unwrap_or(u64::MAX)
    };
    let taken = slots_until(believed_end(last, now));
    let offset = u32::try_from(taken + 1)
        .ok()
        .and_then(|slots| interval.checked_mul(slots))
        .and_then(|offset| TimeDelta::from_std(offset).ok());
    Slot {
        at: offset.and_then(|offset| last.started_at.checked_add_signed(offset)),
        passed: slots_until(now),
    }
}

/// When the run after one that could not do its work is tried.
fn retry_at(runs: &[&PastRun], now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    // By their ends: what could not run because another run was under way is made good by that one's success.
    let mut by_end: Vec<&PastRun> = runs.to_vec();
    by_end.sort_by_key(|run| run.ended_at);
    let counted = || by_end.iter().rev().filter(|run| run.end != End::Cancelled);
    let in_vain = counted().take_while(|run| run.end == End::CouldNotRun).count();
    let last = counted().next().filter(|_| in_vain > 0)?;
    let doublings = u32::try_from(in_vain - 1).unwrap_or(u32::MAX).min(30);
    let pause = FIRST_RETRY.saturating_mul(1 << doublings).min(LONGEST_RETRY);
    believed_end(last, now).checked_add_signed(TimeDelta::from_std(pause).ok()?)
}

#[cfg(test)]
mod tests;
