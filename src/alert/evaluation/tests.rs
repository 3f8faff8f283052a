//! What is told when, and what is not.

use std::collections::BTreeSet;

use super::*;
use crate::model::samples::time;
use crate::observe::metrics::Sample;

fn manner() -> Manner {
    Manner {
        repeat: TimeDelta::hours(4),
        runbook_url: "https://docs.example.org/runbook.md".to_owned(),
        labels: BTreeMap::from([("instance".to_owned(), "db1".to_owned())]),
    }
}

/// The last backup failed, or not.
fn readings(at: i64, failed: bool) -> Readings {
    let labels = [("target", "shop"), ("result", "failed")];
    let sample = Sample {
        metric: "ernstfall_last_backup_result".to_owned(),
        labels: labels
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        value: f64::from(failed),
    };
    Readings {
        at: time(at),
        samples: vec![sample],
        complete: true,
    }
}

/// What is said when the condition is so at each minute of these, and whether that is a reminder.
fn said(minutes: impl IntoIterator<Item = (i64, bool)>) -> Vec<(i64, AlertState, bool)> {
    let mut evaluation = Evaluation::default();
    let mut said = Vec::new();
    for (minute, failed) in minutes {
        for message in evaluation.evaluate(&readings(minute * 60, failed), &manner()) {
            assert_eq!(message.alert(), "ErnstfallBackupFailed");
            said.push((minute, message.state, message.reminder));
        }
        // A restart at any moment changes nothing.
        let kept = serde_json::to_string(&evaluation).unwrap();
        evaluation = serde_json::from_str(&kept).unwrap();
    }
    said
}

use AlertState::{Firing, Resolved};

#[test]
fn a_condition_fires_when_it_has_held_for_its_time_and_is_resolved_once() {
    let minutes = (0..60).map(|minute| (minute, (10..30).contains(&minute)));
    assert_eq!(said(minutes), [(15, Firing, false), (35, Resolved, false)]);
}

#[test]
fn what_does_not_last_is_never_told() {
    let minutes = (0..60).map(|minute| (minute, minute % 5 != 0));
    assert_eq!(said(minutes), []);
}

#[test]
fn what_comes_and_goes_is_one_alert() {
    // Seven minutes failed, three minutes not.
    let minutes = (0..120).map(|minute| (minute, minute < 90 && minute % 10 < 7));
    assert_eq!(said(minutes), [(5, Firing, false), (92, Resolved, false)]);
}

#[test]
fn what_goes_on_is_said_again_at_the_interval() {
    let minutes = (0..600).map(|minute| (minute, true));
    let expected = [(5, Firing, false), (245, Firing, true), (485, Firing, true)];
    assert_eq!(said(minutes), expected);
}

#[test]
fn what_is_only_for_information_is_said_once() {
    let mut evaluation = Evaluation::default();
    let mut said = Vec::new();
    for minute in 0..1000 {
        let mut readings = readings(minute * 60, false);
        readings.samples[0].metric = "ernstfall_not_covered_objects".to_owned();
        readings.samples[0].value = 3.0;
        said.extend(evaluation.evaluate(&readings, &manner()));
    }
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].severity(), said[0].reminder), ("info", false));
}

#[test]
fn what_is_not_known_after_a_start_is_not_over() {
    let mut evaluation = Evaluation::default();
    for minute in 0..10 {
        evaluation.evaluate(&readings(minute * 60, true), &manner());
    }
    let unknown = |minute: i64| Readings {
        samples: Vec::new(),
        complete: false,
        ..readings(minute * 60, false)
    };
    for minute in 10..60 {
        assert_eq!(evaluation.evaluate(&unknown(minute), &manner()), []);
    }
    assert_eq!(evaluation.firing().count(), 1);
    // Known again, and it still holds: nobody is told twice.
    assert_eq!(evaluation.evaluate(&readings(3600, true), &manner()), []);
}

#[test]
fn a_clock_that_jumps_back_neither_fires_nor_resolves() {
    let mut evaluation = Evaluation::default();
    evaluation.evaluate(&readings(3600, true), &manner());
    assert_eq!(evaluation.evaluate(&readings(0, true), &manner()), []);
    assert_eq!(evaluation.evaluate(&readings(3900, true), &manner()).len(), 1);
    assert_eq!(evaluation.evaluate(&readings(0, false), &manner()), []);
    assert_eq!(evaluation.firing().count(), 1);
}

#[test]
fn a_resolved_alert_says_when_it_began_and_when_it_was_over() {
    let mut evaluation = Evaluation::default();
    let mut last = Vec::new();
    for minute in 0..40 {
        last.extend(evaluation.evaluate(&readings(minute * 60, (10..30).contains(&minute)), &manner()));
    }
    let [firing, resolved] = &last[..] else {
        panic!("{last:?}");
    };
    assert_eq!((firing.since, firing.resolved_at), (time(600), None));
    assert_eq!(
        (resolved.since, resolved.resolved_at),
        (time(600), Some(time(1800)))
    );
    assert_eq!(firing.fingerprint(), resolved.fingerprint());
    assert_eq!(firing.labels["instance"], "db1");
    let names: BTreeSet<&str> = firing.labels.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        BTreeSet::from(["alertname", "instance", "result", "severity", "target"])
    );
}
