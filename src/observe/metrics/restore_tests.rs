//! Restore tests of each target.

use super::{Metric, Values, count, seconds_since_epoch};
use crate::model::record::Verdict;
use crate::observe::measures::{Measures, Verified};
use crate::observe::view::TargetView;

const VERDICTS: [Verdict; 3] = [Verdict::Passed, Verdict::Failed, Verdict::CouldNotRun];

/// The phases of a restore test. A newer version may have recorded others: they are not shown.
const PHASES: [&str; 11] = [
    "locate",
    "provision",
    "roles",
    "schema",
    "data",
    "indexes",
    "finish",
    "analyze",
    "durable",
    "checks",
    "verify",
];

pub(super) const METRICS: &[Metric<TargetView>] = &[
    Metric::counter(
        "restore_tests_total",
        "Restore tests that ended on this machine since the daemon started.",
        restore_tests_total,
    )
    .by(&["verdict"]),
    Metric::gauge(
        "last_restore_test_timestamp_seconds",
        "When the last restore test of this verdict ended. Absent: there was none.",
        last_timestamps,
    )
    .by(&["verdict"]),
    Metric::gauge(
        "last_restore_test_verdict",
        "What the last restore test said: 1 for that verdict, 0 for the others.",
        last_verdict,
    )
    .by(&["verdict"]),
    Metric::gauge(
        "restore_test_phase_seconds",
        "How long each phase of the last restore test that passed took.",
        phases,
    )
    .by(&["phase"]),
    Metric::gauge(
        "verified_tables",
        "Tables that the last restore test compared.",
        |target| count(verified(target).map(|verified| verified.tables)),
    ),
    Metric::gauge(
        "verified_rows",
        "Rows that the last restore test compared.",
        |target| count(verified(target).map(|verified| verified.rows)),
    ),
    Metric::gauge(
        "mismatched_tables",
        "Tables that the last restore test found different.",
        |target| count(verified(target).map(|verified| verified.mismatched_tables)),
    ),
];

fn measures(target: &TargetView) -> Option<&Measures> {
    target.measures.as_ref()
}

fn verified(target: &TargetView) -> Option<&Verified> {
    measures(target)?.verified.as_ref()
}

fn restore_tests_total(target: &TargetView) -> Values<'_> {
    let counted = &target.counted;
    let counts = [
        counted.restore_tests_passed,
        counted.restore_tests_failed,
        counted.restore_tests_could_not_run,
    ];
    let mut values: Values<'_> = VERDICTS
        .into_iter()
        .zip(counts)
        .map(|(verdict, count)| (vec![verdict.as_str()], count as f64))
        .collect();
    values.push((vec!["cancelled"], counted.restore_tests_cancelled as f64));
    values.push((vec!["interrupted"], counted.restore_tests_interrupted as f64));
    values
}

fn last_timestamps(target: &TargetView) -> Values<'_> {
    let Some(measures) = measures(target) else {
        return Values::new();
    };
    let last = &measures.last_restore_tests;
    VERDICTS
        .into_iter()
        .zip([last.passed, last.failed, last.could_not_run])
        .filter_map(|(verdict, at)| Some((vec![verdict.as_str()], seconds_since_epoch(at?))))
        .collect()
}

fn last_verdict(target: &TargetView) -> Values<'_> {
    let Some(last) = measures(target).and_then(|measures| measures.last_restore_test_verdict) else {
        return Values::new();
    };
    VERDICTS
        .into_iter()
        .map(|verdict| (vec![verdict.as_str()], f64::from(u8::from(verdict == last))))
        .collect()
}

fn phases(target: &TargetView) -> Values<'_> {
    let Some(measures) = measures(target) else {
        return Values::new();
    };
    let known = measures
        .restore_test_phases
        .iter()
        .filter(|phase| PHASES.contains(&phase.name.as_str()));
    known
        .map(|phase| (vec![phase.name.as_str()], phase.seconds))
        .collect()
}
