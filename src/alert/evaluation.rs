//! Which alerts hold, since when, and what is to be said of them: pure, so that a day passes in a moment in tests.
//!
//! A condition is pending until it has held as long as its rule asks, then it fires, is repeated while it goes on, and is
//! resolved once it has not held for a while: what comes and goes every minute is one alert and not many.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::model::alert_record::AlertState;
use crate::observe::metrics::Readings;
use crate::observe::rules::{self, AlertSeverity, Facts, Instance, Rule, Trail};

use super::message::{Message, fingerprint};
use super::words::filled;

/// A condition that holds again within this time was never resolved.
pub const CLEAR_FOR: TimeDelta = TimeDelta::minutes(5);

/// How alerts are put.
#[derive(Clone, Debug, PartialEq)]
pub struct Manner {
    /// What still fires is said again so often.
    pub repeat: TimeDelta,
    /// Where the runbook is; the alert's anchor is added.
    pub runbook_url: String,
    /// Labels of every alert, such as the machine's name.
    pub labels: BTreeMap<String, String>,
}

/// All alerts, kept over restarts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// By fingerprint.
    standings: BTreeMap<String, Standing>,
    trail: Trail,
}

/// How one alert stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Standing {
    /// As it was last put.
    message: Message,
    /// When people were last told that it fires; `null` while it is pending.
    told_at: Option<DateTime<Utc>>,
    /// Since when the condition does not hold any more.
    clear_since: Option<DateTime<Utc>>,
}

impl Evaluation {
    /// Judges all rules, and says what people should hear now.
    pub fn evaluate(&mut self, readings: &Readings, manner: &Manner) -> Vec<Message> {
        self.trail.note(readings);
        let mut said = Vec::new();
        let mut holding = BTreeMap::new();
        let facts = Facts {
            readings,
            trail: &self.trail,
        };
        for rule in rules::all() {
            for mut instance in rule.instances(&facts) {
                instance.labels.extend(manner.labels.clone());
                holding.insert(fingerprint(&instance.labels), (rule, instance));
            }
        }
        for (key, (rule, instance)) in &holding {
            said.extend(self.holds(key, rule, instance, readings.at, manner));
        }
        self.standings.retain(|key, standing| {
            if holding.contains_key(key) {
                return true;
            }
            // What is not known yet after a start is not over.
            let keeps = !readings.complete || !standing.is_over(readings.at);
            if !keeps && standing.told_at.is_some() {
                said.push(standing.resolved(readings.at));
            }
            keeps
        });
        said
    }

    /// What fires now, as it was last put.
    pub fn firing(&self) -> impl Iterator<Item = &Message> {
        let told = self.standings.values().filter(|one| one.told_at.is_some());
        told.map(|standing| &standing.message)
    }

    fn holds(
        &mut self,
        key: &str,
        rule: &Rule,
        instance: &Instance,
        now: DateTime<Utc>,
        manner: &Manner,
    ) -> Option<Message> {
        let standing = self.standings.entry(key.to_owned()).or_insert_with(|| Standing {
            message: message(rule, instance, now, manner),
            told_at: None,
            clear_since: None,
        });
        standing.clear_since = None;
        let since = standing.message.since;
        standing.message = message(rule, instance, since, manner);
        let held = (now - since).to_std().unwrap_or_default();
        match standing.told_at {
            None if held < rule.held_for() => None,
            None => {
                standing.told_at = Some(now);
                Some(standing.message.clone())
            }
            Some(told_at) if now - told_at < manner.repeat => None,
            // What may wait until there is time need not be said twice.
            Some(_) if rule.severity == AlertSeverity::Info => None,
            Some(_) => {
                standing.told_at = Some(now);
                Some(Message {
                    reminder: true,
                    ..standing.message.clone()
                })
            }
        }
    }
}

impl Standing {
    /// Notes that the condition does not hold, and tells whether that has been so for long enough.
    fn is_over(&mut self, now: DateTime<Utc>) -> bool {
        let since = *self.clear_since.get_or_insert(now);
        self.told_at.is_none() || now - since >= CLEAR_FOR
    }

    fn resolved(&self, now: DateTime<Utc>) -> Message {
        Message {
            state: AlertState::Resolved,
            resolved_at: Some(self.clear_since.unwrap_or(now)),
            reminder: false,
            ..self.message.clone()
        }
    }
}

/// What a firing alert says.
pub fn message(rule: &Rule, instance: &Instance, since: DateTime<Utc>, manner: &Manner) -> Message {
    Message {
        labels: instance.labels.clone(),
        state: AlertState::Firing,
        summary: filled(rule.summary, instance),
        description: filled(rule.description, instance),
        runbook_url: format!("{}#{}", manner.runbook_url, rule.anchor()),
        since,
        resolved_at: None,
        reminder: false,
    }
}

#[cfg(test)]
mod tests;
