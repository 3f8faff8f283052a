//! What the text of the metrics says of every kind of view.

mod given;

use std::sync::Arc;

use super::render;
use crate::journal::Task;
use crate::model::record::{BackupRecord, Outcome, Record, Verdict};
use crate::model::samples::{manifest, restore_test, target, time};
use crate::observe::gathered::Gathered;
use crate::observe::status::TargetFacts;
use crate::observe::view::View;
use given::{
    HOUR, backup, cancelled, facts, gathered, history, interrupted, manifests, prune, test_with_phases, whole,
};

use Verdict::{CouldNotRun, Failed, Passed};

fn text(gathered: &Gathered, at: i64) -> String {
    render(&View::of(gathered, time(at))).unwrap()
}

/// The samples of a metric, without its name.
fn samples<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let is_of = |rest: &&str| rest.starts_with(['{', ' ']);
    let of_metric = text
        .lines()
        .filter_map(|line| line.strip_prefix(name).filter(is_of));
    of_metric.map(str::trim).collect()
}

#[test]
fn everything_that_is_known_is_shown_with_its_meaning() {
    insta::assert_snapshot!(text(&whole(), 3 * HOUR + 5));
}

#[test]
fn every_metric_of_the_catalogue_is_rendered_once_all_is_known() {
    let text = text(&whole(), 3 * HOUR + 5);
    for (name, labels) in super::names() {
        let samples = samples(&text, &name);
        assert!(!samples.is_empty(), "{name}");
        assert!(
            labels
                .iter()
                .all(|label| samples[0].contains(&format!("{label}=\""))),
            "{name}"
        );
    }
}

#[test]
fn what_is_not_known_is_absent_and_never_zero() {
    let unseen = Gathered {
        targets: vec![TargetFacts {
            rpo_seconds: None,
            rto_seconds: None,
            owner: None,
            ..facts()
        }],
        ..Gathered::default()
    };
    let text = text(&unseen, 0);
    let known: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .map(|line| line.split(' ').nth(2).unwrap())
        .collect();
    assert_eq!(
        known,
        [
            "ernstfall_backups_total",
            "ernstfall_build_info",
            "ernstfall_configuration_reload_success",
            "ernstfall_journal_up",
            "ernstfall_restore_tests_total",
            "ernstfall_running",
            "ernstfall_start_timestamp_seconds",
            "ernstfall_target_info",
        ]
    );
    assert_eq!(
        samples(&text, "ernstfall_target_info"),
        [r#"{environment="production",owner="",target="shop"} 1"#]
    );
}

#[test]
fn a_repository_that_was_never_seen_is_no_empty_one() {
    let mut fault = Gathered {
        repository_seen_at: None,
        repository_fault: Some("no route".to_owned()),
        manifests: Default::default(),
        ..whole()
    };
    let unseen = text(&fault, 3 * HOUR);
    assert_eq!(samples(&unseen, "ernstfall_repository_up"), ["0"]);
    assert!(samples(&unseen, "ernstfall_stored_backups").is_empty());
    fault.repository_fault = None;
    fault.repository_seen_at = Some(time(3 * HOUR));
    fault.manifests = [(target(), manifests(Vec::new()))].into();
    let empty = text(&fault, 3 * HOUR);
    assert_eq!(samples(&empty, "ernstfall_repository_up"), ["1"]);
    assert_eq!(
        samples(&empty, "ernstfall_stored_backups"),
        [r#"{target="shop"} 0"#]
    );
}

#[test]
fn a_backup_found_bad_makes_the_recovery_point_jump_back() {
    let point = |records| {
        let text = text(&gathered(vec![manifest(1), manifest(2)], records), 3 * HOUR);
        let point = samples(&text, "ernstfall_recovery_point_timestamp_seconds").join("");
        let bad = samples(&text, "ernstfall_newest_backup_bad").join("");
        (point, bad)
    };
    let of = |number: i64, bad| {
        let at = time(number * HOUR).timestamp();
        (
            format!("{{target=\"shop\"}} {at}"),
            format!("{{target=\"shop\"}} {bad}"),
        )
    };
    assert_eq!(point(vec![]), of(2, 0));
    assert_eq!(point(vec![restore_test(2, Failed, 9000)]), of(1, 1));
    assert_eq!(point(vec![restore_test(2, CouldNotRun, 9000)]), of(2, 0));
}

#[test]
fn of_all_verdicts_exactly_one_is_the_last() {
    for verdict in [Passed, Failed, CouldNotRun] {
        let text = text(
            &gathered(
                vec![manifest(1)],
                vec![restore_test(1, Passed, 1), restore_test(1, verdict, 2)],
            ),
            3 * HOUR,
        );
        let verdicts = samples(&text, "ernstfall_last_restore_test_verdict");
        assert_eq!(verdicts.len(), 3);
        let ones: Vec<_> = verdicts.iter().filter(|line| line.ends_with(" 1")).collect();
        assert_eq!(
            ones,
            [&format!("{{target=\"shop\",verdict=\"{}\"}} 1", verdict.as_str())]
        );
    }
}

#[test]
fn a_restore_test_that_somebody_cancelled_says_nothing() {
    let tests = vec![
        restore_test(1, Passed, 1),
        cancelled(restore_test(1, CouldNotRun, 2)),
    ];
    let text = text(&gathered(vec![manifest(1)], tests), 3 * HOUR);
    let verdicts = samples(&text, "ernstfall_last_restore_test_verdict").join("\n");
    assert!(verdicts.contains("verdict=\"passed\"} 1"), "{verdicts}");
}

#[test]
fn counters_count_what_this_machine_recorded_since_the_daemon_started() {
    let runs = |outcome| Record::Backup(BackupRecord { outcome, ..backup(1) });
    let mut gathered = gathered(
        vec![manifest(1)],
        vec![
            runs(Outcome::Failed),
            runs(Outcome::Succeeded),
            runs(Outcome::Failed),
            restore_test(1, CouldNotRun, 5),
            cancelled(restore_test(1, CouldNotRun, 5)),
            interrupted(Task::Backup, 6),
            interrupted(Task::RestoreTest, 7),
        ],
    );
    let counts = |gathered: &Gathered| {
        let text = text(gathered, 3 * HOUR);
        let numbers = |name| -> Vec<u64> {
            let lines = samples(&text, name).into_iter();
            lines
                .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
                .collect()
        };
        (
            numbers("ernstfall_backups_total"),
            numbers("ernstfall_restore_tests_total"),
        )
    };
    // cancelled, failed, interrupted, succeeded; cancelled, could-not-run, failed, interrupted, passed.
    assert_eq!(counts(&gathered), (vec![0, 2, 1, 1], vec![1, 1, 0, 1, 0]));
    gathered.counted = Arc::default();
    assert_eq!(counts(&gathered), (vec![0; 4], vec![0; 5]));
}

#[test]
fn an_interrupted_run_is_the_last_result_until_another_one_ends() {
    let result = |records| {
        let text = text(&gathered(vec![manifest(1)], records), 3 * HOUR);
        let results = samples(&text, "ernstfall_last_backup_result");
        let one = results.into_iter().find(|line| line.ends_with(" 1")).unwrap();
        let interrupted = samples(&text, "ernstfall_last_run_interrupted").join("\n");
        (
            one.split('"').nth(1).unwrap().to_owned(),
            interrupted.contains("task=\"backup\"} 1"),
        )
    };
    assert_eq!(
        result(vec![
            Record::Backup(backup(1)),
            interrupted(Task::Backup, 2 * HOUR)
        ]),
        ("interrupted".to_owned(), true)
    );
    assert_eq!(
        result(vec![interrupted(Task::Backup, 60), Record::Backup(backup(1))]),
        ("succeeded".to_owned(), false)
    );
}

#[test]
fn an_interrupted_prune_is_told_until_another_one_leaves_a_record_or_a_day_has_passed() {
    let told = |records, at| {
        let text = text(&gathered(vec![manifest(1)], records), at);
        let interrupted = samples(&text, "ernstfall_last_run_interrupted").join("\n");
        interrupted.contains("task=\"prune\"} 1")
    };
    let found_at = 70;
    let last = || vec![prune(Outcome::Failed), interrupted(Task::Prune, found_at - 10)];
    assert!(told(last(), 3 * HOUR));
    // One that had nothing to do would have left no record.
    assert!(told(last(), found_at + 24 * HOUR - 1));
    assert!(!told(last(), found_at + 24 * HOUR));
    for outcome in [Outcome::Succeeded, Outcome::Failed, Outcome::Cancelled] {
        let before = vec![interrupted(Task::Prune, 0), prune(outcome)];
        assert!(!told(before, 3 * HOUR), "{outcome:?}");
    }
}

#[test]
fn a_test_that_failed_before_comparing_has_verified_nothing() {
    let Record::RestoreTest(mut early) = restore_test(1, Failed, 9000) else {
        panic!("no record of a restore test");
    };
    early.verification = Default::default();
    let text = text(
        &gathered(vec![manifest(1)], vec![Record::RestoreTest(early)]),
        3 * HOUR,
    );
    assert!(!text.contains("ernstfall_verified_") && !text.contains("ernstfall_mismatched_tables"));
}

#[test]
fn labels_hold_whatever_the_configuration_says() {
    let hostile = Gathered {
        targets: vec![TargetFacts {
            owner: Some("a \"b\"\\c\nernstfall_stored_backups{target=\"shop\"} 9".to_owned()),
            ..facts()
        }],
        ..gathered(vec![manifest(1)], Vec::new())
    };
    let text = text(&hostile, 3 * HOUR);
    assert_eq!(
        samples(&text, "ernstfall_target_info"),
        [
            r#"{environment="production",owner="a \"b\"\\c\nernstfall_stored_backups{target=\"shop\"} 9",target="shop"} 1"#
        ]
    );
    assert_eq!(
        samples(&text, "ernstfall_stored_backups"),
        [r#"{target="shop"} 1"#]
    );
}

#[test]
fn the_number_of_series_is_bounded_by_the_configuration_and_a_removed_target_is_gone() {
    let series = |gathered: &Gathered| {
        let text = text(gathered, 3 * HOUR);
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    let mut many = whole();
    let one = series(&many);
    // Months of history are no more series.
    let records = (0..500).flat_map(|number| {
        [
            Record::Backup(backup(number)),
            test_with_phases(number % 3, number * HOUR),
        ]
    });
    many.history = history(records.collect());
    assert!(series(&many) <= one);
    for number in 0..50 {
        let name = format!("target-{number}").parse().unwrap();
        many.targets.push(TargetFacts { name, ..facts() });
    }
    assert!(series(&many) <= 51 * one);
    many.targets.truncate(1);
    assert!(!text(&many, 3 * HOUR).contains("target-"));
}

#[test]
fn a_fresh_heartbeat_tells_the_source_s_clock_better_than_the_last_backup() {
    let skew = |written_at| {
        let mut gathered = whole();
        gathered.heartbeats[0].written_at = Some(time(written_at));
        let text = text(&gathered, 3 * HOUR);
        samples(&text, "ernstfall_clock_skew_seconds").join("")
    };
    assert_eq!(skew(3 * HOUR - 4), r#"{target="shop"} -0.5"#);
    assert_eq!(skew(2 * HOUR), r#"{target="shop"} 0.25"#);
}
