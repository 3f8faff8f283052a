//! What is due, by hand-made runs at round minutes.

use chrono::TimeZone;

use super::*;
use crate::model::time_zone::Tz;

fn at(minutes: i64) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 22, 0, 0, 0).unwrap() + TimeDelta::minutes(minutes)
}

fn schedule(text: &str) -> Schedule {
    Schedule::parse(text, Tz::UTC).unwrap()
}

fn run(started: i64, ended: i64, end: End) -> PastRun {
    PastRun {
        started_at: at(started),
        ended_at: at(ended),
        end,
    }
}

fn due(text: &str, runs: &[PastRun], since: i64, now: i64) -> (DateTime<Utc>, Why, u64) {
    let due = by_the_clock(&schedule(text), runs, at(since), at(now)).unwrap();
    (due.at, due.why, due.skipped)
}

#[test]
fn a_first_run_by_an_interval_is_due_at_once_and_one_by_the_clock_at_its_slot() {
    assert_eq!(due("every 30m", &[], 0, 1), (at(0), Why::Schedule, 0));
    assert_eq!(due("*/30 * * * *", &[], 1, 2), (at(30), Why::Schedule, 0));
    assert_eq!(due("*/30 * * * *", &[], 1, 31), (at(30), Why::Schedule, 0));
}

#[test]
fn a_restart_neither_delays_nor_repeats() {
    let runs = [run(0, 5, End::Done)];
    assert_eq!(due("every 30m", &runs, 20, 20), (at(30), Why::Schedule, 0));
    assert_eq!(due("0 * * * *", &runs, 20, 20), (at(60), Why::Schedule, 0));
}

#[test]
fn what_was_missed_while_nothing_ran_is_made_up_for_once_and_the_rest_is_counted() {
    let runs = [run(0, 5, End::Done)];
    assert_eq!(due("every 30m", &runs, 200, 200), (at(30), Why::CatchUp, 5));
    assert_eq!(due("*/30 * * * *", &runs, 200, 200), (at(30), Why::CatchUp, 5));
}

#[test]
fn a_slot_whose_predecessor_still_runs_is_skipped_and_counted() {
    let runs = [run(0, 70, End::Done)];
    assert_eq!(due("every 30m", &runs, 0, 71), (at(90), Why::Schedule, 2));
    assert_eq!(due("*/30 * * * *", &runs, 0, 71), (at(90), Why::Schedule, 2));
    assert_eq!(due("every 30m", &runs, 0, 90), (at(90), Why::Schedule, 2));
}

#[test]
fn a_run_that_seemed_to_end_in_the_future_holds_up_nothing() {
    // The clock was days ahead while it ran, and was set right.
    let runs = [run(0, 5000, End::Done)];
    assert_eq!(due("every 30m", &runs, 0, 40), (at(30), Why::Schedule, 0));
    assert_eq!(due("*/30 * * * *", &runs, 0, 40), (at(30), Why::Schedule, 0));
    let runs = [run(0, 5000, End::CouldNotRun)];
    assert_eq!(due("every 1d", &runs, 0, 40).1, Why::Retry);
    assert!(due("every 1d", &runs, 0, 40).0 < at(40));
}

#[test]
fn what_could_not_run_is_tried_again_ever_less_often_and_never_later_than_the_next_slot() {
    let mut runs = vec![run(0, 0, End::CouldNotRun)];
    assert_eq!(due("every 6h", &runs, 0, 0), (at(1), Why::Retry, 0));
    runs.push(run(1, 1, End::CouldNotRun));
    assert_eq!(due("every 6h", &runs, 0, 1), (at(3), Why::Retry, 0));
    runs.extend((2..30).map(|minute| run(minute, minute, End::CouldNotRun)));
    assert_eq!(due("every 6h", &runs, 0, 30), (at(89), Why::Retry, 0));
    assert_eq!(due("every 10m", &runs, 0, 30), (at(39), Why::Schedule, 0));
    runs.push(run(89, 90, End::Done));
    assert_eq!(due("every 6h", &runs, 0, 90), (at(89 + 360), Why::Schedule, 0));
}

#[test]
fn what_could_not_run_beside_a_run_that_succeeded_needs_no_retry() {
    let runs = [run(0, 20, End::Done), run(10, 10, End::CouldNotRun)];
    assert_eq!(due("every 6h", &runs, 0, 30), (at(370), Why::Schedule, 0));
}

#[test]
fn a_run_that_somebody_ended_does_not_count() {
    let runs = [run(0, 5, End::Done), run(30, 31, End::Cancelled)];
    assert_eq!(due("every 30m", &runs, 32, 32), (at(30), Why::CatchUp, 0));
    let failed = [run(0, 5, End::CouldNotRun), run(6, 7, End::Cancelled)];
    assert_eq!(due("every 30m", &failed, 7, 7), (at(6), Why::Retry, 0));
}

#[test]
fn runs_from_the_future_are_not_believed() {
    let runs = [run(0, 5, End::Done), run(100_000, 100_001, End::Done)];
    assert_eq!(due("every 30m", &runs, 0, 31), (at(30), Why::Schedule, 0));
    assert_eq!(due("every 30m", &[runs[1]], 0, 31), (at(0), Why::Schedule, 0));
}

#[test]
fn many_missed_slots_are_counted_without_end_neither_of_time_nor_of_numbers() {
    let runs = [run(0, 0, End::Done)];
    let later = by_the_clock(&schedule("* * * * * *"), &runs, at(0), at(1_000_000)).unwrap();
    assert_eq!(later.skipped, COUNTED_SLOTS - 1);
    let later = by_the_clock(&schedule("every 1s"), &runs, at(0), at(1_000_000)).unwrap();
    assert_eq!(later.skipped, 60_000_000 - 1);
}

#[test]
fn a_restore_test_follows_the_newest_backup_once_it_has_said_something() {
    let newest = |tested| NewestBackup {
        finished_at: at(10),
        tested,
        passed_over: 2,
    };
    let due = |newest, runs: &[PastRun]| {
        after_backup(newest, runs, at(20)).map(|due| (due.at, due.why, due.skipped))
    };
    assert_eq!(due(None, &[]), None);
    assert_eq!(due(Some(newest(true)), &[]), None);
    assert_eq!(
        due(Some(newest(false)), &[run(1, 2, End::CouldNotRun)]),
        Some((at(10), Why::AfterBackup, 2))
    );
    assert_eq!(
        due(Some(newest(false)), &[run(11, 12, End::CouldNotRun)]),
        Some((at(13), Why::Retry, 0))
    );
    assert_eq!(
        due(Some(newest(false)), &[run(11, 12, End::Cancelled)]),
        Some((at(10), Why::AfterBackup, 2))
    );
}

#[test]
fn a_deadline_is_as_configured_or_far_beyond_what_was_usual() {
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    assert_eq!(deadline(None, &[]), hours(6));
    assert_eq!(deadline(None, &[run(0, 120, End::Done)]), hours(10));
    assert_eq!(deadline(None, &[run(0, 1200, End::CouldNotRun)]), hours(6));
    let mut runs = vec![run(0, 600, End::Done)];
    runs.extend((0..10).map(|number| run(number, number + 1, End::Done)));
    assert_eq!(deadline(None, &runs), hours(6), "only the last ten count");
    assert_eq!(deadline(Some(hours(1)), &runs), hours(1));
}
