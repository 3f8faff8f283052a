//! What conditions ask of the past: which counters have risen, and which targets there were. Kept over restarts.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::conditions::Instance;
use crate::observe::metrics::{Readings, Sample};

/// Counters whose rise is a condition, and for how long it is remembered.
const COUNTERS: &[(&str, TimeDelta)] = &[
    ("ernstfall_skipped_runs_total", TimeDelta::hours(6)),
    ("ernstfall_alert_deliveries_total", TimeDelta::hours(1)),
];

/// A target that is gone is remembered for so long.
const TARGETS: TimeDelta = TimeDelta::days(1);

/// That a target is still there is noted so often: more exactly nobody has to know.
const TARGET_NOTED_EVERY: TimeDelta = TimeDelta::minutes(10);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trail {
    rises: Vec<Rise>,
    targets: Vec<Seen>,
    /// Counters start at zero with the process.
    #[serde(skip)]
    counts: Vec<Count>,
}

/// A counter has risen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Rise {
    metric: String,
    labels: BTreeMap<String, String>,
    at: DateTime<Utc>,
}

/// A target was there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    labels: BTreeMap<String, String>,
    last_at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq)]
struct Count {
    metric: &'static str,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Trail {
    /// Remembers what conditions may ask for later.
    pub fn note(&mut self, readings: &Readings) {
        for (metric, window) in COUNTERS {
            for sample in readings.all(metric) {
                self.count(metric, sample, readings.at);
            }
            let is_kept = |rise: &Rise| rise.metric != *metric || readings.at - rise.at <= *window;
            self.rises.retain(is_kept);
        }
        for sample in readings.all("ernstfall_target_info") {
            let noted =
                |seen: &Seen| seen.labels == sample.labels && readings.at - seen.last_at < TARGET_NOTED_EVERY;
            if self.targets.iter().any(noted) {
                continue;
            }
            self.targets
                .retain(|seen| seen.labels.get("target") != sample.labels.get("target"));
            self.targets.push(Seen {
                labels: sample.labels.clone(),
                last_at: readings.at,
            });
        }
        self.targets.retain(|seen| readings.at - seen.last_at <= TARGETS);
    }

    /// The series of a counter, among others with this label, that have risen lately.
    pub(super) fn risen(&self, metric: &str, label: Option<(&str, &str)>) -> Vec<Instance> {
        let rises = self.rises.iter().filter(|rise| rise.metric == metric);
        let wanted = rises.filter(|rise| {
            label.is_none_or(|(name, value)| rise.labels.get(name).is_some_and(|own| own == value))
        });
        wanted
            .map(|rise| Instance {
                labels: rise.labels.clone(),
                value: 1.0,
            })
            .collect()
    }

    /// Targets that were there, and are not now.
    pub(super) fn vanished(&self, readings: &Readings) -> Vec<Instance> {
        let is_there = |seen: &Seen| {
            let mut infos = readings.all("ernstfall_target_info");
            infos.any(|info| seen.labels.get("target") == info.labels.get("target"))
        };
        let gone = self.targets.iter().filter(|seen| !is_there(seen));
        gone.map(|seen| Instance {
            labels: seen.labels.clone(),
            value: 1.0,
        })
        .collect()
    }

    fn count(&mut self, metric: &'static str, sample: &Sample, at: DateTime<Utc>) {
        let known = self
            .counts
            .iter_mut()
            .find(|count| count.metric == metric && count.labels == sample.labels);
        let before = match known {
            Some(count) => std::mem::replace(&mut count.value, sample.value),
            None => {
                self.counts.push(Count {
                    metric,
                    labels: sample.labels.clone(),
                    value: sample.value,
                });
                // What is there at the first look was not seen to rise.
                sample.value
            }
        };
        if sample.value > before {
            self.rises
                .retain(|rise| rise.metric != metric || rise.labels != sample.labels);
            self.rises.push(Rise {
                metric: metric.to_owned(),
                labels: sample.labels.clone(),
                at,
            });
        }
    }
}
