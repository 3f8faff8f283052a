//! The view as metrics for Prometheus. What is not known is absent, never zero; there is one series for each target and
//! word of a fixed set, so that their number is bounded by the configuration. What each means: `docs/metrics.md`.

mod objectives;
mod process;
mod readings;
mod restore_tests;
mod runs;

use prometheus::{Encoder, GaugeVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::observe::view::{TargetView, View};

pub use readings::{Readings, Sample};

/// What the text is, for the header of an answer.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const PREFIX: &str = "ernstfall";

/// Why the metrics could not be written: a fault of the program.
#[derive(Debug, thiserror::Error)]
#[error("write the metric {name}")]
pub struct Error {
    name: String,
    source: prometheus::Error,
}

/// A metric: what it is called, what it means, and where its values come from.
struct Metric<Of: 'static> {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    /// Besides `target`.
    labels: &'static [&'static str],
    values: fn(&Of) -> Values<'_>,
}

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

/// Values with those of their labels; none where nothing is known.
type Values<'a> = Vec<(Vec<&'a str>, f64)>;

/// Writes everything anew: nothing is kept between two calls, so that what is gone is gone.
pub fn render(view: &View) -> Result<String, Error> {
    let registry = Registry::new();
    for metric in process::METRICS {
        let values = (metric.values)(view);
        register(&registry, metric, metric.labels.to_vec(), &values)?;
    }
    for metric in of_targets() {
        let mut labels = vec!["target"];
        labels.extend(metric.labels);
        let mut values = Values::new();
        for target in &view.targets {
            for (mut labels, value) in (metric.values)(target) {
                labels.insert(0, target.target.as_str());
                values.push((labels, value));
            }
        }
        register(&registry, metric, labels, &values)?;
    }
    let mut text = Vec::new();
    let written = TextEncoder::new().encode(&registry.gather(), &mut text);
    written.map_err(|source| Error {
        name: "text".to_owned(),
        source,
    })?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The names of all metrics, with their labels besides `target`.
pub fn names() -> Vec<(String, &'static [&'static str])> {
    let of_process = process::METRICS.iter().map(|metric| (metric.name, metric.labels));
    let of_targets = of_targets().map(|metric| (metric.name, metric.labels));
    of_process
        .chain(of_targets)
        .map(|(name, labels)| (format!("{PREFIX}_{name}"), labels))
        .collect()
}

fn of_targets() -> impl Iterator<Item = &'static Metric<TargetView>> {
    objectives::METRICS
        .iter()
        .chain(runs::METRICS)
        .chain(restore_tests::METRICS)
}

fn register<Of>(
    registry: &Registry,
    metric: &Metric<Of>,
    labels: Vec<&str>,
    values: &Values<'_>,
) -> Result<(), Error> {
    let options = Opts::new(metric.name, metric.help).namespace(PREFIX);
    let register = || match metric.kind {
        Kind::Gauge => {
            let gauges = GaugeVec::new(options, &labels)?;
            for (labels, value) in values {
                gauges.get_metric_with_label_values(labels)?.set(*value);
            }
            registry.register(Box::new(gauges))
        }
        Kind::Counter => {
            let counters = IntCounterVec::new(options, &labels)?;
            for (labels, value) in values {
                counters
                    .get_metric_with_label_values(labels)?
                    .inc_by(*value as u64);
            }
            registry.register(Box::new(counters))
        }
    };
    register().map_err(|source| Error {
        name: metric.name.to_owned(),
        source,
    })
}

impl<Of> Metric<Of> {
    const fn gauge(name: &'static str, help: &'static str, values: fn(&Of) -> Values<'_>) -> Self {
        Self {
            name,
            help,
            kind: Kind::Gauge,
            labels: &[],
            values,
        }
    }

    const fn counter(name: &'static str, help: &'static str, values: fn(&Of) -> Values<'_>) -> Self {
        Self {
            kind: Kind::Counter,
            ..Self::gauge(name, help, values)
        }
    }

    const fn by(self, labels: &'static [&'static str]) -> Self {
        Self { labels, ..self }
    }
}

/// The only value of a metric without labels of its own.
fn one(value: Option<f64>) -> Values<'static> {
    value.map(|value| (Vec::new(), value)).into_iter().collect()
}

fn count(value: Option<u64>) -> Values<'static> {
    one(value.map(|value| value as f64))
}

fn flag(value: Option<bool>) -> Values<'static> {
    count(value.map(u64::from))
}

fn timestamp(moment: Option<chrono::DateTime<chrono::Utc>>) -> Values<'static> {
    one(moment.map(seconds_since_epoch))
}

/// To the millisecond, as Prometheus keeps time.
fn seconds_since_epoch(moment: chrono::DateTime<chrono::Utc>) -> f64 {
    moment.timestamp_millis() as f64 / 1000.0
}

#[cfg(test)]
mod rendered;
