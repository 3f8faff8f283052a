//! How a target stands after every kind of history.

use serde_json::json;

use crate::journal::run::tests::backup_record;
use crate::model::manifest::{Manifest, Shrank};
use crate::model::record::{FORMAT, InterruptedRecord, ObjectiveVerdict, Outcome, Record, Verdict};
use crate::model::samples::{entries, id, manifest, restore_test, target, time};
use crate::model::upkeep::AcknowledgementRecord;
use crate::observe::status::{TargetFacts, TargetStatus, fold};

use Verdict::{CouldNotRun, Failed, Passed};

const HOUR: i64 = 3600;

fn facts() -> TargetFacts {
    TargetFacts {
        name: target(),
        environment: Some("production".to_owned()),
        owner: None,
        rpo_seconds: Some(2.0 * HOUR as f64),
        rto_seconds: Some(60.0),
    }
}

fn interrupted(task: &str, started_at: i64) -> Record {
    Record::Interrupted(InterruptedRecord {
        format: FORMAT,
        id: "lost".to_owned(),
        target: target(),
        task: task.to_owned(),
        backup: None,
        started_at: time(started_at),
        found_at: time(started_at + 10),
        removed: Vec::new(),
    })
}

/// A backup run that started then.
fn run(outcome: Outcome, at: i64, skew: Option<f64>) -> Record {
    match backup_record(at) {
        Record::Backup(mut record) => {
            record.outcome = outcome;
            record.reason = (outcome != Outcome::Succeeded).then(|| "disk full".to_owned());
            record.clock_skew_seconds = skew;
            Record::Backup(record)
        }
        other => other,
    }
}

/// Three backups, an hour apart, looked at an hour after the last.
fn after(records: Vec<Record>) -> TargetStatus {
    fold_at(&[manifest(1), manifest(2), manifest(0)], records, 3 * HOUR)
}

fn fold_at(manifests: &[Manifest], records: Vec<Record>, at: i64) -> TargetStatus {
    fold(&facts(), manifests, &entries(records), None, time(at))
}

#[test]
fn without_anything_all_is_unknown_and_not_well() {
    let status = fold_at(&[], Vec::new(), 0);
    assert_eq!(status.problems, ["no backup yet", "never restore-tested"]);
    assert!(!status.ok);
    let value = serde_json::to_value(&status).unwrap();
    for field in [
        "newest_backup",
        "recovery_point",
        "exposure_seconds",
        "proven_recovery_point",
        "proven_backup",
        "last_cycle_rpa_seconds",
        "last_restore_test",
        "owner",
        "not_covered",
        "clock_skew_seconds",
    ] {
        assert_eq!(value.get(field), Some(&json!(null)), "{field}");
    }
    assert_eq!(value["rpo"]["verdict"], "unknown");
    assert_eq!(value["rto"]["verdict"], "unknown");
}

#[test]
fn a_loss_of_content_is_a_problem_until_it_is_acknowledged() {
    let mut shrunken = manifest(2);
    shrunken.shrank = Some(Shrank {
        since: id(1),
        tables_gone: 3,
        tables_halved: 2,
    });
    let manifests = [manifest(1), shrunken];
    let tested = || restore_test(2, Passed, 10_000);
    let status = fold_at(&manifests, vec![tested()], 3 * HOUR);
    let [problem] = status.problems.as_slice() else {
        panic!("{:?}", status.problems)
    };
    for part in [
        "3 tables",
        "2 others",
        &format!("kept; if it was: ernstfall acknowledge shop {}", id(2)),
        &format!("restore it from {}", id(1)),
    ] {
        assert!(problem.contains(part), "{problem}");
    }
    let acknowledged = |backup| {
        Record::Acknowledgement(AcknowledgementRecord {
            format: FORMAT,
            id: "said".to_owned(),
            target: target(),
            backup: id(backup),
            at: time(11_000),
            by: "somebody@somewhere".to_owned(),
            reason: None,
        })
    };
    let other = fold_at(&manifests, vec![tested(), acknowledged(1)], 3 * HOUR);
    assert_eq!(other.problems.len(), 1);
    let status = fold_at(&manifests, vec![tested(), acknowledged(2)], 3 * HOUR);
    assert!(status.ok, "{:?}", status.problems);
}

#[test]
fn a_proven_newest_backup_within_its_objectives_is_well() {
    let status = after(vec![restore_test(2, Passed, 10_000)]);
    assert_eq!(status.problems, Vec::<String>::new());
    assert!(status.ok);
    assert_eq!(status.exposure_seconds, Some(3600.0));
    assert_eq!(status.last_cycle_rpa_seconds, Some(4200.0));
    assert_eq!(
        (status.rpo.verdict, status.rpo.actual_seconds),
        (ObjectiveVerdict::Met, Some(4200.0))
    );
    assert_eq!(status.rpo.basis.as_deref(), Some("last cycle"));
    assert_eq!(
        (status.rto.verdict, status.rto.actual_seconds),
        (ObjectiveVerdict::Met, Some(42.0))
    );
    assert_eq!(status.proven_backup, Some(id(2)));
    assert_eq!(status.newest_backup.unwrap().verdict, Some(Passed));
}

/// Every sequence of up to three verdicts on the newest backup: the last one that says something counts.
#[test]
fn the_last_conclusive_verdict_decides_whether_a_backup_is_a_recovery_point() {
    let verdicts = [Passed, Failed, CouldNotRun];
    for number in 0..(3_usize.pow(3) + 3_usize.pow(2) + 3 + 1) {
        let sequence = sequence(number, &verdicts);
        let tests = sequence
            .iter()
            .enumerate()
            .map(|(at, verdict)| restore_test(2, *verdict, 10_000 + at as i64));
        let status = after(tests.collect());
        let known = sequence
            .iter()
            .rev()
            .find(|verdict| **verdict != CouldNotRun)
            .copied();
        let bad = known == Some(Failed);
        assert_eq!(
            status.newest_backup.as_ref().unwrap().verdict,
            known,
            "{sequence:?}"
        );
        assert_eq!(
            status.exposure_seconds,
            Some(if bad { 7200.0 } else { 3600.0 }),
            "{sequence:?}"
        );
        assert_eq!(
            status.recovery_point.unwrap().at,
            time(if bad { HOUR } else { 2 * HOUR }),
            "{sequence:?}"
        );
        assert_eq!(
            status.proven_backup,
            (known == Some(Passed)).then(|| id(2)),
            "{sequence:?}"
        );
        assert_eq!(
            status.ok,
            sequence.last() == Some(&Passed),
            "{sequence:?}: {:?}",
            status.problems
        );
        let told = status
            .problems
            .iter()
            .any(|problem| problem.contains("was found bad by restore test"));
        assert_eq!(told, bad, "{sequence:?}");
        assert_eq!(status.counts.backups_found_bad, u64::from(bad));
        // An RTA exists only for tests that passed, and a later failure does not unmeasure it.
        let measured = sequence.contains(&Passed).then_some(42.0);
        assert_eq!(status.rto.actual_seconds, measured, "{sequence:?}");
    }
}

/// The nth sequence of up to three, counting through the shorter ones first.
fn sequence(mut number: usize, verdicts: &[Verdict; 3]) -> Vec<Verdict> {
    let mut length = 0;
    while number >= 3_usize.pow(length) {
        number -= 3_usize.pow(length);
        length += 1;
    }
    (0..length)
        .map(|place| verdicts[number / 3_usize.pow(place) % 3])
        .collect()
}

#[test]
fn the_order_in_which_records_are_given_changes_nothing() {
    let mut records = vec![
        restore_test(2, Failed, 10_000),
        restore_test(2, Passed, 10_001),
        run(Outcome::Succeeded, 7200, None),
    ];
    let status = after(records.clone());
    records.reverse();
    assert_eq!(after(records), status);
}

#[test]
fn exposure_falls_back_over_every_bad_backup_and_the_cycle_with_it() {
    let status = after(vec![
        restore_test(1, Failed, 8_000),
        restore_test(2, Failed, 10_000),
    ]);
    assert_eq!(status.exposure_seconds, Some(10_800.0));
    assert_eq!(status.last_cycle_rpa_seconds, None);
    assert_eq!(status.rpo.verdict, ObjectiveVerdict::Missed);
    assert!(
        status.problems[0].contains(&format!("falls back to backup {}", id(0))),
        "{:?}",
        status.problems
    );

    let status = after(vec![restore_test(1, Failed, 8_000)]);
    assert_eq!(status.exposure_seconds, Some(3600.0));
    assert_eq!(
        status.last_cycle_rpa_seconds,
        Some(7800.0),
        "the bad one between ends no cycle"
    );

    let all = after(
        (0..3)
            .map(|backup| restore_test(backup, Failed, 10_000 + backup))
            .collect(),
    );
    assert_eq!(
        (all.exposure_seconds, all.recovery_point, all.rpo.verdict),
        (None, None, ObjectiveVerdict::Unknown)
    );
    assert!(
        all.problems[0].contains("no good backup is left"),
        "{:?}",
        all.problems
    );
}

#[test]
fn an_older_backup_that_is_bad_is_told_until_a_later_test_passes() {
    let status = after(vec![restore_test(1, Failed, 8_000)]);
    assert!(
        status
            .problems
            .iter()
            .any(|problem| problem.contains("last restore test test-8000 failed: why"))
    );
    assert_eq!(status.last_restore_test.as_ref().unwrap().mismatches, 1);
    assert_eq!(status.last_restore_test.unwrap().rta_seconds, None);
    let mut status = after(vec![
        restore_test(1, Failed, 8_000),
        restore_test(2, Passed, 10_000),
    ]);
    // The cycle that the bad backup did not end was longer than the objective.
    assert_eq!(status.problems.len(), 1);
    assert!(status.problems.remove(0).contains("RPO missed"));
}

#[test]
fn could_not_run_proves_nothing_and_spoils_nothing() {
    let status = after(vec![
        restore_test(1, Passed, 8_000),
        restore_test(2, CouldNotRun, 10_000),
    ]);
    assert_eq!(
        status.problems,
        ["last restore test test-10000 could not run: why"]
    );
    assert_eq!(
        (status.proven_backup, status.exposure_seconds),
        (Some(id(1)), Some(3600.0))
    );
    let status = after(vec![restore_test(2, CouldNotRun, 10_000)]);
    assert!(status.problems.contains(&"never restore-tested".to_owned()));
}

#[test]
fn a_proven_backup_that_was_pruned_can_no_longer_be_recovered() {
    let status = fold_at(&[manifest(2)], vec![restore_test(1, Passed, 8_000)], 3 * HOUR);
    assert_eq!((status.proven_backup, status.proven_recovery_point), (None, None));
    assert_eq!(status.rto.actual_seconds, Some(42.0));
}

#[test]
fn failed_and_interrupted_runs_are_told_until_one_succeeds_after_them() {
    let proven = || restore_test(2, Passed, 7_500);
    let failed = after(vec![proven(), run(Outcome::Failed, 10_000, None)]);
    assert_eq!(failed.problems.len(), 1);
    assert!(
        failed.problems[0].contains("failed: disk full"),
        "{:?}",
        failed.problems
    );
    assert!(after(vec![proven(), run(Outcome::Cancelled, 10_000, None)]).ok);
    assert!(
        after(vec![
            proven(),
            run(Outcome::Failed, 10_000, None),
            run(Outcome::Succeeded, 10_100, None)
        ])
        .ok
    );

    for task in ["backup", "restore_test"] {
        let status = after(vec![proven(), interrupted(task, 10_000)]);
        assert!(
            status.problems[0].contains("lost was interrupted"),
            "{:?}",
            status.problems
        );
    }
    // Found after the next run had started: it is history all the same.
    assert!(
        after(vec![
            proven(),
            run(Outcome::Succeeded, 10_005, None),
            interrupted("backup", 10_000)
        ])
        .ok
    );
    assert!(after(vec![interrupted("restore_test", 7_000), proven()]).ok);
}

#[test]
fn exposure_is_counted_on_the_sources_clock_and_grows_until_the_objective_is_missed() {
    let skewed = after(vec![
        run(Outcome::Succeeded, 7_200, Some(90.5)),
        run(Outcome::Failed, 10_000, None),
    ]);
    assert_eq!(
        (skewed.exposure_seconds, skewed.clock_skew_seconds),
        (Some(3690.5), Some(90.5))
    );
    let late = fold_at(&[manifest(0)], vec![restore_test(0, Passed, 1_000)], 2 * HOUR);
    assert!(late.ok, "{:?}", late.problems);
    let later = fold_at(&[manifest(0)], vec![restore_test(0, Passed, 1_000)], 2 * HOUR + 1);
    assert_eq!(later.problems, ["RPO missed: 7201 s (exposure) against 7200 s"]);
}

#[test]
fn an_rta_over_the_objective_of_today_is_a_missed_rto() {
    let strict = TargetFacts {
        rto_seconds: Some(41.0),
        ..facts()
    };
    let status = fold(
        &strict,
        &[manifest(2)],
        &entries(vec![restore_test(2, Passed, 10_000)]),
        None,
        time(3 * HOUR),
    );
    assert_eq!(
        status.problems,
        ["RTO missed: 42 s (embedded scratch) against 41 s"]
    );
}

#[test]
fn other_targets_are_left_out() {
    let other = TargetFacts {
        name: "other".parse().unwrap(),
        ..facts()
    };
    let records = entries(vec![
        restore_test(2, Passed, 10_000),
        run(Outcome::Succeeded, 7_200, None),
    ]);
    let status = fold(&other, &[manifest(2)], &records, None, time(3 * HOUR));
    assert_eq!(status.problems, ["no backup yet", "never restore-tested"]);
    assert_eq!(status.counts, Default::default());
}
