//! What raises an alert: names, severities and conditions, as rules for Prometheus. Each has its part of the runbook,
//! `docs/runbook.md`. Thresholds come from the metrics, so that the rules need no configuration and fit every target.

mod conditions;
mod daemon;
mod expressions;
mod objectives;
mod runs;
mod trail;

use std::fmt::Write;
use std::time::Duration;

use crate::observe::metrics::Readings;

pub use conditions::{Facts, Instance};
pub use trail::Trail;

/// Where a package installs the runbook: the same on every machine, and reachable for whoever is logged in there.
pub const DEFAULT_RUNBOOK_URL: &str = "file:///usr/share/doc/ernstfall/runbook.md";

/// The alert that is raised on purpose, to see whether alerts arrive.
pub const TEST_ALERT: &str = "ErnstfallAlertTest";

/// The label that marks whatever is raised on purpose; its value is `true`.
pub const TEST_LABEL: &str = "ernstfall_test";

/// A condition that somebody should know of.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The name of the alert.
    pub name: &'static str,
    pub severity: AlertSeverity,
    /// The condition has to hold for so long, as Prometheus writes durations.
    held_for: &'static str,
    /// In PromQL; several lines.
    expression: fn() -> String,
    /// The same for the daemon's own evaluation; without the target's environment and owner.
    condition: fn(&Facts<'_>) -> Vec<Instance>,
    /// In one line; with Prometheus' templates, as `description`.
    pub summary: &'static str,
    pub description: &'static str,
}

/// How soon a person has to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertSeverity {
    /// Now: data could be lost, or nobody would notice.
    Critical,
    /// On the next working day.
    Warning,
    /// When there is time; nothing is lost by waiting.
    Info,
}

impl AlertSeverity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl Rule {
    pub fn expression(&self) -> String {
        (self.expression)()
    }

    /// Of what the condition holds now, with the labels that Prometheus gives.
    pub fn instances(&self, facts: &Facts<'_>) -> Vec<Instance> {
        let mut instances = (self.condition)(facts);
        for instance in &mut instances {
            self.own(facts.readings, instance);
        }
        instances
    }

    /// With the target's environment and owner, so that alerts find their way; and with the severity.
    fn own(&self, readings: &Readings, instance: &mut Instance) {
        if let Some(target) = instance.labels.get("target") {
            let mut infos = readings.all("ernstfall_target_info");
            if let Some(info) = infos.find(|info| info.label("target") == *target) {
                for name in ["environment", "owner"] {
                    instance
                        .labels
                        .insert(name.to_owned(), info.label(name).to_owned());
                }
            }
        }
        // Prometheus has no empty labels.
        instance.labels.retain(|_, value| !value.is_empty());
        for (name, value) in [("alertname", self.name), ("severity", self.severity.as_str())] {
            instance.labels.insert(name.to_owned(), value.to_owned());
        }
    }

    /// How long the condition has to hold.
    pub fn held_for(&self) -> Duration {
        // Of the notations of Prometheus, the rules use one number with one unit; a test holds them to that.
        let split = self.held_for.len() - 1;
        let count: u64 = self.held_for[..split].parse().unwrap_or(0);
        let unit = match &self.held_for[split..] {
            "d" => 86_400,
            "h" => 3600,
            "m" => 60,
            _ => 1,
        };
        Duration::from_secs(count * unit)
    }

    /// Whether the alert is about one target, and not about the daemon.
    pub fn is_of_a_target(&self) -> bool {
        self.summary.contains("$labels.target")
    }

    /// What Prometheus adds to the labels of the expression, as lines of the rules file.
    fn added_labels(&self) -> String {
        let indent = " ".repeat(10);
        if self.name == TEST_ALERT {
            // It has the severity of the alert in whose place it stands, so that it goes the same way.
            return format!(
                "{indent}severity: \"{{{{ $labels.severity }}}}\"\n{indent}{TEST_LABEL}: \"true\""
            );
        }
        format!("{indent}severity: {}", self.severity.as_str())
    }

    /// The name of the rule's part of the runbook, as it stands behind `#` in a link.
    pub fn anchor(&self) -> String {
        self.name.to_lowercase()
    }
}

/// Every rule, the gravest matters first.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    objectives::RULES.iter().chain(runs::RULES).chain(daemon::RULES)
}

/// A rules file for Prometheus, whose alerts link to the runbook at this address.
pub fn to_yaml(runbook_url: &str) -> String {
    let mut text = String::from(
        "# Alerting rules for the metrics of Ernstfall, printed by `ernstfall rules`.\ngroups:\n  - name: ernstfall\n    rules:\n",
    );
    for rule in all() {
        write_rule(&mut text, rule, runbook_url);
    }
    text
}

fn write_rule(text: &mut String, rule: &Rule, runbook_url: &str) {
    let expression = rule.expression().replace('\n', "\n          ");
    let runbook = format!("{runbook_url}#{}", rule.anchor());
    let written = write!(
        text,
        "      - alert: {}
        expr: |-
          {expression}
        for: {}
        labels:
{}
        annotations:
          summary: {}
          description: {}
          runbook_url: {}
",
        rule.name,
        rule.held_for,
        rule.added_labels(),
        quoted(rule.summary),
        quoted(rule.description),
        quoted(&runbook),
    );
    // Writing to a text cannot fail.
    let _ = written;
}

/// Every JSON text is a YAML text.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::observe::metrics;

    #[test]
    fn names_are_unique_and_begin_with_the_product() {
        let names: BTreeSet<&str> = all().map(|rule| rule.name).collect();
        assert_eq!(names.len(), all().count());
        assert!(names.iter().all(|name| name.starts_with("Ernstfall")));
    }

    #[test]
    fn rules_are_about_metrics_that_there_are() {
        let known: BTreeSet<String> = metrics::names().into_iter().map(|(name, _)| name).collect();
        for rule in all() {
            let expression = rule.expression();
            let used = metrics_in(&expression);
            assert!(!used.is_empty(), "{}", rule.name);
            for metric in used {
                assert!(known.contains(metric), "{} asks for {metric}", rule.name);
            }
        }
    }

    fn metrics_in(expression: &str) -> BTreeSet<&str> {
        let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        words.filter(|word| word.starts_with("ernstfall_")).collect()
    }

    /// What a daemon tells although it has not seen the repository.
    const OF_NOW: &[&str] = &[
        "ernstfall_build_info",
        "ernstfall_repository_seen_timestamp_seconds",
        "ernstfall_journal_up",
        "ernstfall_configuration_reload_success",
        "ernstfall_alert_deliveries_total",
        "ernstfall_alert_test",
        "ernstfall_last_alert_test_success_timestamp_seconds",
        "ernstfall_running",
        "ernstfall_running_since_timestamp_seconds",
        "ernstfall_run_deadline_seconds",
        "ernstfall_skipped_runs_total",
    ];

    #[test]
    fn what_was_read_in_the_repository_counts_until_it_is_seen_again() {
        for rule in all() {
            let expression = rule.expression();
            for metric in metrics_in(&expression) {
                // A recovery point that has gone must not come back.
                let is_of_now = OF_NOW.contains(&metric)
                    || (rule.name == "ErnstfallNoRecoveryPoint"
                        && metric == "ernstfall_recovery_point_timestamp_seconds");
                let counts_on = expression.contains(&format!("last_over_time({metric}"));
                assert!(is_of_now || counts_on, "{} forgets {metric}", rule.name);
            }
        }
    }

    #[test]
    fn templates_show_labels_of_ours_and_the_value_alone() {
        let allowed = [
            "$labels.target",
            "$labels.task",
            "$labels.instance",
            "$labels.channel",
            "$labels.alert",
            "$value",
            "$value | humanizeDuration",
        ];
        for rule in all() {
            let text = format!("{} {}", rule.summary, rule.description);
            for part in text.split("{{").skip(1) {
                let template = part.split("}}").next().unwrap_or_default().trim();
                assert!(allowed.contains(&template), "{}: {template}", rule.name);
            }
        }
    }

    #[test]
    fn text_that_yaml_would_misread_is_quoted() {
        let text = to_yaml("https://docs.example.org/a\"b: c");
        assert!(text.contains("runbook_url: \"https://docs.example.org/a\\\"b: c#ernstfallrpomissed\"\n"));
    }
}
