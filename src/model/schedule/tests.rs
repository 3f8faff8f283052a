//! Schedules on ordinary days, and on the days when clocks change.

use super::*;

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn zone(name: &str) -> Tz {
    super::super::time_zone::parse(name).unwrap()
}

/// The next runs after a moment, in the schedule's own time zone, with the offset that holds there.
fn runs(text: &str, time_zone: &str, after: &str, count: usize) -> Vec<String> {
    let zone = zone(time_zone);
    let schedule = Schedule::parse(text, zone).unwrap();
    let mut last = at(after);
    (0..count)
        .map(|_| {
            last = schedule.next_after(Some(last), last).unwrap();
            last.with_timezone(&zone).format("%d %H:%M%:::z").to_string()
        })
        .collect()
}

#[test]
fn a_daily_time_that_clocks_skip_runs_at_the_next_that_exists() {
    assert_eq!(
        runs("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
        ["28 02:30+01", "29 03:00+02", "30 02:30+02"]
    );
    assert_eq!(
        runs("30 2 * * *", "America/New_York", "2026-03-07T05:00:00Z", 3),
        ["07 02:30-05", "08 03:00-04", "09 02:30-04"]
    );
}

#[test]
fn a_daily_time_that_occurs_twice_runs_once() {
    assert_eq!(
        runs("30 2 * * *", "Europe/Berlin", "2026-10-24T00:00:00Z", 3),
        ["24 02:30+02", "25 02:30+02", "26 02:30+01"]
    );
    assert_eq!(
        runs("30 1 * * *", "America/New_York", "2026-10-31T04:00:00Z", 3),
        ["31 01:30-04", "01 01:30-04", "02 01:30-05"]
    );
}

#[test]
fn what_repeats_keeps_its_spacing_when_clocks_go_forward() {
    assert_eq!(
        runs("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 4),
        ["29 01:30+01", "29 03:00+02", "29 03:30+02", "29 04:00+02"]
    );
    assert_eq!(
        runs("15 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 3),
        ["29 01:15+01", "29 03:15+02", "29 04:15+02"]
    );
    assert_eq!(
        runs("15 */2 * * *", "Europe/Berlin", "2026-03-28T23:00:00Z", 3),
        ["29 00:15+01", "29 03:15+02", "29 04:15+02"]
    );
}

#[test]
fn what_repeats_keeps_its_spacing_when_clocks_go_back() {
    assert_eq!(
        runs("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", 6),
        [
            "25 02:00+02",
            "25 02:30+02",
            "25 02:00+01",
            "25 02:30+01",
            "25 03:00+01",
            "25 03:30+01"
        ]
    );
    assert_eq!(
        runs("0 * * * *", "America/New_York", "2026-11-01T04:30:00Z", 3),
        ["01 01:00-04", "01 01:00-05", "01 02:00-05"]
    );
}

#[test]
fn runs_are_in_order_and_never_repeat_around_clock_changes() {
    for text in [
        "*/7 * * * *",
        "*/20 1-4 * * *",
        "30 1,2,3 * * *",
        "10 15 */3 * * *",
    ] {
        for (zone_name, start) in [
            ("Europe/Berlin", "2026-03-28T20:00:00Z"),
            ("Europe/Berlin", "2026-10-24T20:00:00Z"),
            ("America/New_York", "2026-03-08T01:00:00Z"),
            ("America/New_York", "2026-11-01T01:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T10:00:00Z"),
        ] {
            let schedule = Schedule::parse(text, zone(zone_name)).unwrap();
            let mut last = at(start);
            for _ in 0..60 {
                let next = schedule.next_after(Some(last), last).unwrap();
                assert!(next > last, "{text} in {zone_name}: {next} follows {last}");
                // Asked a moment earlier, the answer is the same: nothing lies between.
                let asked_again = schedule
                    .next_after(Some(next - TimeDelta::seconds(1)), last)
                    .unwrap();
                assert_eq!(asked_again, next, "{text} in {zone_name}");
                last = next;
            }
        }
    }
}

#[test]
fn intervals_count_from_the_last_start() {
    let schedule = Schedule::parse("every 30m", Tz::UTC).unwrap();
    let now = at("2026-06-01T12:00:00Z");
    assert_eq!(schedule.next_after(None, now), Some(now), "never run: due now");
    let last = at("2026-06-01T11:50:00Z");
    assert_eq!(
        schedule.next_after(Some(last), now),
        Some(at("2026-06-01T12:20:00Z"))
    );
    let long_ago = at("2026-06-01T08:00:00Z");
    assert!(schedule.next_after(Some(long_ago), now).unwrap() < now, "overdue");
}

#[test]
fn a_wall_clock_schedule_that_never_ran_waits_for_its_slot() {
    let schedule = Schedule::parse("0 3 * * *", Tz::UTC).unwrap();
    let now = at("2026-06-01T12:00:00Z");
    assert_eq!(schedule.next_after(None, now), Some(at("2026-06-02T03:00:00Z")));
    let missed = schedule
        .next_after(Some(at("2026-05-30T03:00:00Z")), now)
        .unwrap();
    assert_eq!(
        missed,
        at("2026-05-31T03:00:00Z"),
        "a missed slot is overdue, once"
    );
}

#[test]
fn numeric_days_of_the_week_count_from_sunday() {
    // 2026-06-07 is a Sunday.
    for text in ["0 3 * * 0", "0 3 * * 7", "0 3 * * sun", "0 0 3 * * 0"] {
        assert_eq!(
            runs(text, "UTC", "2026-06-03T00:00:00Z", 2),
            ["07 03:00+00", "14 03:00+00"],
            "{text}"
        );
    }
    assert_eq!(
        runs("0 3 * * 1-5", "UTC", "2026-06-05T00:00:00Z", 2),
        ["05 03:00+00", "08 03:00+00"]
    );
}

#[test]
fn either_day_matches_when_both_are_restricted() {
    assert_eq!(
        runs("0 3 10 * mon", "UTC", "2026-06-07T00:00:00Z", 3),
        ["08 03:00+00", "10 03:00+00", "15 03:00+00"]
    );
}

#[test]
fn the_longest_gap_covers_nights_weekends_and_clock_changes() {
    let hours = |text: &str, zone_name: &str| {
        let gap = Schedule::parse(text, zone(zone_name))
            .unwrap()
            .longest_gap()
            .unwrap();
        gap.as_secs_f64() / 3600.0
    };
    assert_eq!(hours("every 30m", "UTC"), 0.5);
    assert_eq!(hours("*/30 * * * *", "Europe/Berlin"), 0.5);
    assert_eq!(hours("0 3 * * *", "UTC"), 24.0);
    assert_eq!(hours("0 3 * * *", "Europe/Berlin"), 25.0);
    assert_eq!(hours("0 8-18 * * mon-fri", "UTC"), 62.0);
    assert_eq!(
        hours("0 0 1 1 *", "UTC"),
        366.0 * 24.0,
        "a leap year is among those seen"
    );
    assert_eq!(hours("*/10 * 9 * * *", "UTC"), 23.0 + 1.0 / 60.0);
    assert_eq!(Schedule::AfterEveryBackup.longest_gap(), None);
}

#[test]
fn what_is_not_a_schedule_is_refused_with_the_ways_to_write_one() {
    for text in [
        "",
        "hourly",
        "every",
        "every 0s",
        "every banana",
        "* * * *",
        "61 * * * *",
        "0 0 31 2 *",
        "0 3 * * 9",
    ] {
        assert!(Schedule::parse(text, Tz::UTC).is_err(), "{text:?} was taken");
    }
    assert_eq!(
        Schedule::parse("After  every backup", Tz::UTC).unwrap(),
        Schedule::AfterEveryBackup
    );
}
