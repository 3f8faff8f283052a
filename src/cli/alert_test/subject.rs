//! What a test alert is to look like.

use anyhow::anyhow;
use chrono::{DateTime, Utc};

use crate::alert::evaluation::{Manner, message};
use crate::alert::message::{ALERT_NAME, Message, TEST};
use crate::cli::arguments::AlertTest;
use crate::cli::exit::Failure;
use crate::cli::setup::Setup;
use crate::config;
use crate::model::suggestion;
use crate::observe::gathered::RaisedTest;
use crate::observe::rules::{self, Instance, Rule};

/// Tells one test from the next, so that no receiver takes it for one that it knows already.
pub(super) const TEST_ID: &str = "test";

/// What the texts of an alert have for its value, where that is a duration in seconds and where it is a number.
const SAMPLE_SECONDS: f64 = 3600.0;
const SAMPLE_NUMBER: f64 = 2.0;

/// The alert that is made to look as if it fired.
pub(super) struct Subject<'a> {
    rule: &'static Rule,
    target: Option<&'a config::Target>,
}

impl<'a> Subject<'a> {
    /// As the options say.
    ///
    /// # Errors
    /// There is no such alert or target, or the two do not fit.
    pub(super) fn choose(setup: &'a Setup, options: &AlertTest) -> Result<Self, Failure> {
        let rule = find(options.alert.as_deref().unwrap_or(rules::TEST_ALERT))?;
        let names: Vec<_> = options.target.iter().cloned().collect();
        let named = match names.as_slice() {
            [] => None,
            names => setup.targets(names)?.into_iter().next(),
        };
        let target = match (named, setup.config.targets.as_slice()) {
            (Some(_), _) if !rule.is_of_a_target() && rule.name != rules::TEST_ALERT => {
                return Err(Failure::usage(anyhow!(
                    "{} is about no target alone: leave --target out",
                    rule.name
                )));
            }
            (None, [only]) if rule.is_of_a_target() => Some(only),
            (None, targets) if rule.is_of_a_target() => {
                let known: Vec<&str> = targets.iter().map(|target| target.name.as_str()).collect();
                return Err(Failure::usage(anyhow!(
                    "{} is about one target: say with --target which it shall be, of {}",
                    rule.name,
                    known.join(", ")
                )));
            }
            (named, _) => named,
        };
        Ok(Self { rule, target })
    }

    pub(super) fn alert(&self) -> &'static str {
        self.rule.name
    }

    pub(super) fn target(&self) -> Option<&config::Target> {
        self.target
    }

    /// What channels tell: with the labels of the real alert, so that it goes the same way.
    pub(super) fn message(&self, test: &str, manner: &Manner, channel: &str, now: DateTime<Utc>) -> Message {
        let mut labels = manner.labels.clone();
        let mut add = |name: &str, value: &str| {
            if !value.is_empty() {
                labels.insert(name.to_owned(), value.to_owned());
            }
        };
        let texts = format!("{}{}", self.rule.summary, self.rule.description);
        for (label, sample) in [
            ("task", "backup"),
            ("channel", channel),
            ("alert", self.rule.name),
        ] {
            if texts.contains(&format!("$labels.{label}")) {
                add(label, sample);
            }
        }
        if let Some(target) = self.target {
            add("target", target.name.as_str());
            add("environment", target.environment.as_deref().unwrap_or_default());
            add("owner", target.owner.as_deref().unwrap_or_default());
        }
        add(ALERT_NAME, self.rule.name);
        add("severity", self.rule.severity.as_str());
        add(TEST, "true");
        add(TEST_ID, test);
        let is_duration = texts.contains("humanizeDuration");
        let value = if is_duration {
            SAMPLE_SECONDS
        } else {
            SAMPLE_NUMBER
        };
        marked(message(self.rule, &Instance { labels, value }, now, manner))
    }

    /// What the daemon shows to Prometheus, until then.
    pub(super) fn raised(&self, test: &str, until: DateTime<Utc>) -> RaisedTest {
        let target = self.target;
        RaisedTest {
            test: test.to_owned(),
            alert: self.rule.name.to_owned(),
            severity: self.rule.severity.as_str().to_owned(),
            target: target.map(|target| target.name.clone()),
            environment: target.and_then(|target| target.environment.clone()),
            owner: target.and_then(|target| target.owner.clone()),
            until,
        }
    }
}

fn find(name: &str) -> Result<&'static Rule, Failure> {
    rules::all().find(|rule| rule.name == name).ok_or_else(|| {
        let known: Vec<String> = rules::all().map(Rule::anchor).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let meant = suggestion::nearest(name, &known)
            .and_then(|meant| rules::all().find(|rule| rule.anchor() == meant))
            .map(|meant| format!("; {} is meant, perhaps", meant.name));
        Failure::usage(anyhow!(
            "there is no alert {name}: `ernstfall rules` prints all of them{}",
            meant.unwrap_or_default()
        ))
    })
}

/// Nobody shall take it for the real one.
fn marked(message: Message) -> Message {
    if message.alert() == rules::TEST_ALERT {
        return message;
    }
    Message {
        summary: format!("TEST: {}", message.summary),
        description: format!(
            "Nothing is wrong: `ernstfall alert-test` has raised this on purpose. In earnest it would say: {}",
            message.description
        ),
        ..message
    }
}
