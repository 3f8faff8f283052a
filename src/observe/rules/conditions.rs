//! The conditions of the rules as the daemon judges them itself. Each says the same as the rule's expression does of a
//! living daemon that has seen the repository; a test has Prometheus judge both.

use std::collections::BTreeMap;

use super::trail::Trail;
use crate::observe::metrics::{Readings, Sample};

/// What a condition may ask.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub readings: &'a Readings,
    pub trail: &'a Trail,
}

/// Something of which the condition holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Instance {
    pub labels: BTreeMap<String, String>,
    /// What Prometheus calls the value of the expression.
    pub value: f64,
}

impl Instance {
    fn of(sample: &Sample) -> Self {
        Self {
            labels: sample.labels.clone(),
            value: sample.value,
        }
    }

    fn target(&self) -> &str {
        self.labels.get("target").map_or("", String::as_str)
    }

    fn valued(self, value: f64) -> Self {
        Self { value, ..self }
    }
}

impl Facts<'_> {
    /// Values that are so, with labels that are these.
    pub(super) fn those(
        &self,
        metric: &str,
        labels: &[(&str, &str)],
        is_so: impl Fn(f64) -> bool,
    ) -> Vec<Instance> {
        let samples = self.readings.all(metric);
        samples
            .filter(|sample| sample.has(labels) && is_so(sample.value))
            .map(Instance::of)
            .collect()
    }

    pub(super) fn positive(&self, metric: &str) -> Vec<Instance> {
        self.those(metric, &[], |value| value > 0.0)
    }

    /// Flags with these labels that are set.
    pub(super) fn set(&self, metric: &str, labels: &[(&str, &str)]) -> Vec<Instance> {
        self.those(metric, labels, |value| value == 1.0)
    }

    pub(super) fn unset(&self, metric: &str) -> Vec<Instance> {
        self.those(metric, &[], |value| value == 0.0)
    }

    /// Values above the threshold that the other metric has for the same target.
    pub(super) fn above(&self, metric: &str, threshold: &str) -> Vec<Instance> {
        let is_above = |sample: &&Sample| {
            self.of_target(threshold, sample)
                .is_some_and(|threshold| sample.value > threshold)
        };
        self.readings
            .all(metric)
            .filter(is_above)
            .map(Instance::of)
            .collect()
    }

    /// More would be lost now than the RPO allows.
    pub(super) fn exposed(&self) -> Vec<Instance> {
        let points = self.readings.all("ernstfall_recovery_point_timestamp_seconds");
        let exposure = points.map(|point| Instance::of(point).valued(self.age_there(point)));
        let beyond = |instance: &Instance| {
            let labels = [("target", instance.target())];
            let objective = self.readings.find("ernstfall_rpo_objective_seconds", &labels);
            objective.is_some_and(|objective| instance.value > objective)
        };
        exposure.filter(beyond).collect()
    }

    pub(super) fn without_recovery_point(&self) -> Vec<Instance> {
        let mut found = self.positive("ernstfall_stored_backups");
        found.retain(|one| !self.has_target("ernstfall_recovery_point_timestamp_seconds", &[], one));
        found
    }

    pub(super) fn never_backed_up(&self) -> Vec<Instance> {
        let mut found = self.unset("ernstfall_stored_backups");
        found.retain(|one| {
            let labels = [("target", one.target()), ("task", "backup")];
            !self
                .readings
                .find("ernstfall_running", &labels)
                .is_some_and(is_positive)
        });
        found
    }

    pub(super) fn never_restored(&self) -> Vec<Instance> {
        let mut found = self.positive("ernstfall_stored_backups");
        let tested = "ernstfall_last_restore_test_timestamp_seconds";
        found.retain(|one| {
            ["passed", "failed"]
                .iter()
                .all(|verdict| !self.has_target(tested, &[("verdict", verdict)], one))
        });
        found
    }

    /// Of the restore tests that said something of a backup, the newest failed.
    pub(super) fn restore_test_failed(&self) -> Vec<Instance> {
        let tested = "ernstfall_last_restore_test_timestamp_seconds";
        let mut found = self.those(tested, &[("verdict", "failed")], |_| true);
        found.retain(|failed| {
            let labels = [("target", failed.target()), ("verdict", "passed")];
            let passed = self.readings.find(tested, &labels);
            passed.is_none_or(|passed| passed <= failed.value)
        });
        found
    }

    pub(super) fn critical_findings(&self) -> Vec<Instance> {
        let mut found = self.those(
            "ernstfall_open_findings",
            &[("severity", "critical")],
            is_positive,
        );
        for one in &mut found {
            one.labels.remove("severity");
        }
        found
    }

    pub(super) fn clock_skew(&self) -> Vec<Instance> {
        let mut found = self.those("ernstfall_clock_skew_seconds", &[], |skew| skew.abs() > 60.0);
        for one in &mut found {
            one.value = one.value.abs();
        }
        found
    }

    pub(super) fn overdue(&self) -> Vec<Instance> {
        let late = |sample: &Sample| Instance::of(sample).valued(self.readings.seconds() - sample.value);
        let next = self.readings.all("ernstfall_next_run_timestamp_seconds");
        next.filter(|sample| !self.of_task("ernstfall_running", sample).is_some_and(is_positive))
            .map(late)
            .filter(|one| is_positive(one.value))
            .collect()
    }

    pub(super) fn hung(&self) -> Vec<Instance> {
        let since = self.readings.all("ernstfall_running_since_timestamp_seconds");
        let hung = since.filter_map(|sample| {
            let deadline = self.of_task("ernstfall_run_deadline_seconds", sample)?;
            let took = self.readings.seconds() - sample.value;
            (took > deadline).then(|| Instance::of(sample).valued(took))
        });
        hung.collect()
    }

    pub(super) fn heartbeat_stopped(&self) -> Vec<Instance> {
        let written = "ernstfall_heartbeat_timestamp_seconds";
        let intervals = self.readings.all("ernstfall_heartbeat_interval_seconds");
        let stopped = intervals.filter_map(|interval| {
            let beats = self.readings.all(written);
            let beat = beats
                .into_iter()
                .find(|beat| beat.label("target") == interval.label("target"));
            let Some(beat) = beat else {
                return Some(Instance::of(interval));
            };
            let age = self.age_there(beat);
            (age > 3.0 * interval.value + 60.0).then(|| Instance::of(interval).valued(age))
        });
        stopped.collect()
    }

    /// No alert test has succeeded for 30 days, or ever.
    pub(super) fn alert_test_old(&self) -> Vec<Instance> {
        let last = "ernstfall_last_alert_test_success_timestamp_seconds";
        let mut succeeded = self.readings.all(last).peekable();
        if succeeded.peek().is_none() {
            return self.set("ernstfall_journal_up", &[]);
        }
        succeeded
            .map(|sample| Instance::of(sample).valued(self.readings.seconds() - sample.value))
            .filter(|one| one.value > 30.0 * 86_400.0)
            .collect()
    }

    /// How long ago a moment of the source's clock was.
    fn age_there(&self, moment: &Sample) -> f64 {
        let skew = self.of_target("ernstfall_clock_skew_seconds", moment);
        self.readings.seconds() - moment.value + skew.unwrap_or(0.0)
    }

    fn of_target(&self, metric: &str, sample: &Sample) -> Option<f64> {
        self.readings.find(metric, &[("target", sample.label("target"))])
    }

    fn of_task(&self, metric: &str, sample: &Sample) -> Option<f64> {
        let labels = ["target", "task"].map(|name| (name, sample.label(name)));
        self.readings.find(metric, &labels)
    }

    fn has_target(&self, metric: &str, labels: &[(&str, &str)], instance: &Instance) -> bool {
        let labels = [labels, &[("target", instance.target())]].concat();
        self.readings.find(metric, &labels).is_some()
    }
}

fn is_positive(value: f64) -> bool {
    value > 0.0
}
