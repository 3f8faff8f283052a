//! Metrics of the daemon itself: no target in them.

use super::{Metric, Values, count, flag, timestamp};
use crate::model::target_name::TargetName;
use crate::observe::view::View;

pub(super) const METRICS: &[Metric<View>] = &[
    Metric::gauge("build_info", "The program that runs; always 1.", |view: &View| {
        vec![(vec![view.version], 1.0)]
    })
    .by(&["version"]),
    Metric::gauge(
        "start_timestamp_seconds",
        "When the daemon started; counters count from there.",
        |view| timestamp(Some(view.started_at)),
    ),
    Metric::gauge(
        "repository_seen_timestamp_seconds",
        "When all of the repository was last seen.",
        |view| timestamp(view.repository_seen_at),
    ),
    Metric::gauge(
        "repository_up",
        "Whether the repository could be seen the last time it was looked at.",
        repository_up,
    ),
    Metric::gauge(
        "journal_up",
        "Whether runs on this machine are recorded, and their records seen.",
        |view| flag(Some(view.journal_fault.is_none())),
    ),
    Metric::gauge(
        "configuration_reload_success",
        "Whether the configuration that was last asked for is in force.",
        |view| flag(Some(view.configuration_fault.is_none())),
    ),
    Metric::counter(
        "alert_deliveries_total",
        "Alerts that the daemon told by its channels, or could not; without what only refreshes a receiver's memory.",
        alert_deliveries,
    )
    .by(&["channel", "result"]),
    Metric::gauge(
        "last_alert_test_success_timestamp_seconds",
        "When an alert test last arrived by every way that it tried.",
        |view| timestamp(view.last_alert_test_success_at),
    ),
    Metric::gauge(
        "alert_test",
        "A test alert that `ernstfall alert-test` has raised, and in the place of which alert it stands; always 1.",
        alert_test,
    )
    .by(&["test", "alert", "severity", "target", "environment", "owner"]),
    Metric::gauge(
        "record_problems",
        "Records of any target that are missing, changed or unreadable.",
        |view| count(view.repository_seen_at.map(|_| view.record_problems.len() as u64)),
    ),
];

fn alert_deliveries(view: &View) -> Values<'_> {
    let of_channel = view.alerts.channels.iter().flat_map(|channel| {
        let counts = [
            ("delivered", channel.delivered),
            ("retried", channel.retried),
            ("failed", channel.failed),
            ("given_up", channel.given_up),
        ];
        counts.map(|(result, count)| (vec![channel.name.as_str(), result], count as f64))
    });
    of_channel.collect()
}

fn alert_test(view: &View) -> Values<'_> {
    let raised = view.raised_test.iter().map(|raised| {
        let target = raised.target.as_ref().map_or("", TargetName::as_str);
        let [environment, owner] =
            [&raised.environment, &raised.owner].map(|label| label.as_deref().unwrap_or_default());
        let (alert, severity) = (raised.alert.as_str(), raised.severity.as_str());
        (
            vec![raised.test.as_str(), alert, severity, target, environment, owner],
            1.0,
        )
    });
    raised.collect()
}

fn repository_up(view: &View) -> Values<'_> {
    let looked_at = view.repository_fault.is_some() || view.repository_seen_at.is_some();
    flag(looked_at.then_some(view.repository_fault.is_none()))
}
