//! A message as flat facts: what webhooks and commands get as JSON, and templates as variables.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::message::Message;
use crate::model::alert_record::AlertState;

/// Documented in `docs/alerts.md`: names are never changed, only added.
#[derive(Serialize)]
pub(super) struct Facts<'a> {
    status: AlertState,
    alert: &'a str,
    severity: &'a str,
    /// `null` where the alert is about no target alone.
    target: Option<&'a str>,
    environment: Option<&'a str>,
    owner: Option<&'a str>,
    summary: &'a str,
    description: &'a str,
    runbook_url: &'a str,
    labels: &'a BTreeMap<String, String>,
    since: DateTime<Utc>,
    /// `null` while it fires.
    resolved_at: Option<DateTime<Utc>>,
    reminder: bool,
    test: bool,
    fingerprint: String,
}

impl<'a> Facts<'a> {
    pub(super) fn of(message: &'a Message) -> Self {
        let label = |name| message.labels.get(name).map(String::as_str);
        Self {
            status: message.state,
            alert: message.alert(),
            severity: message.severity(),
            target: label("target"),
            environment: label("environment"),
            owner: label("owner"),
            summary: &message.summary,
            description: &message.description,
            runbook_url: &message.runbook_url,
            labels: &message.labels,
            since: message.since,
            resolved_at: message.resolved_at,
            reminder: message.reminder,
            test: message.is_test(),
            fingerprint: message.fingerprint(),
        }
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts, dates and booleans always have a JSON form")
    }
}
