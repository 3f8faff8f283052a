//! The values of all metrics at one moment, as the conditions of alerts ask for them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::observe::view::View;

use super::{PREFIX, of_targets, process, seconds_since_epoch};

/// What a scrape at this moment shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Readings {
    pub at: DateTime<Utc>,
    pub samples: Vec<Sample>,
    /// Everything was looked at since the daemon started: what is absent is not there, rather than not known yet.
    pub complete: bool,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// With the product's prefix.
    pub metric: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Readings {
    pub fn of(view: &View) -> Self {
        let mut samples = Vec::new();
        let mut add = |name: &str, labels: BTreeMap<String, String>, value: f64| {
            samples.push(Sample {
                metric: format!("{PREFIX}_{name}"),
                labels,
                value,
            });
        };
        for metric in process::METRICS {
            for (values, value) in (metric.values)(view) {
                add(metric.name, labels(metric.labels, &values), value);
            }
        }
        for metric in of_targets() {
            for target in &view.targets {
                for (values, value) in (metric.values)(target) {
                    let mut labels = labels(metric.labels, &values);
                    labels.insert("target".to_owned(), target.target.to_string());
                    add(metric.name, labels, value);
                }
            }
        }
        Self {
            at: view.at,
            samples,
            complete: view.repository_seen_at.is_some(),
        }
    }

    /// The moment as Prometheus' `time()` tells it.
    pub fn seconds(&self) -> f64 {
        seconds_since_epoch(self.at)
    }

    /// All values of a metric.
    pub fn all<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.metric == metric)
    }

    /// The first value of a metric whose labels are these, among others.
    pub fn find(&self, metric: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found = self
            .samples
            .iter()
            .find(|sample| sample.metric == metric && sample.has(labels));
        found.map(|sample| sample.value)
    }
}

impl Sample {
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    /// Whether these are among its labels.
    pub fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == *value)
    }
}

fn labels(names: &[&str], values: &[&str]) -> BTreeMap<String, String> {
    let pairs = names.iter().zip(values);
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
