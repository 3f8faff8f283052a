//! Alertmanager, by version 2 of its interface: it groups, silences, reminds and routes by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{Channel, Failure, Receipt};
use crate::alert::http::Receiver;
use crate::alert::late::Late;
use crate::alert::message::Message;
use crate::model::alert_record::AlertState;

/// Alertmanager takes an alert for resolved when it has not heard of it for so long: some refreshments may get lost.
const HELD_FOR: TimeDelta = TimeDelta::minutes(5);

const REFRESHED_EVERY: Duration = Duration::from_secs(60);

/// How often we look whether an alert is shown.
const LOOK_EVERY: Duration = Duration::from_millis(250);

const PATH: &str = "api/v2/alerts";

/// One Alertmanager.
pub struct Alertmanager {
    receiver: Late<Receiver>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Posted<'a> {
    labels: &'a BTreeMap<String, String>,
    annotations: Annotations<'a>,
    starts_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
}

#[derive(Serialize)]
struct Annotations<'a> {
    summary: &'a str,
    description: &'a str,
    runbook_url: &'a str,
}

/// An alert as Alertmanager shows it.
#[derive(Deserialize)]
pub(in crate::alert) struct Shown {
    pub(in crate::alert) labels: BTreeMap<String, String>,
    receivers: Vec<Named>,
    status: Status,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    /// `unprocessed`, `active` or `suppressed`.
    state: String,
    silenced_by: Vec<String>,
}

impl Shown {
    /// Who is to hear of it; nothing while that is not settled yet.
    ///
    /// # Errors
    /// Nobody is told of it.
    pub(in crate::alert) fn receivers(&self) -> Result<Option<String>, Failure> {
        match self.status.state.as_str() {
            "active" => {
                let names: Vec<&str> = self.receivers.iter().map(|one| one.name.as_str()).collect();
                Ok(Some(names.join(", ")))
            }
            "suppressed" => Err(Failure::lasts(suppressed(&self.status))),
            _ => Ok(None),
        }
    }
}

impl Alertmanager {
    /// The receiver's address is that of the server, without the path of the interface.
    pub fn new(receiver: Late<Receiver>) -> Self {
        Self { receiver }
    }
}

#[async_trait]
impl Channel for Alertmanager {
    async fn prepare(&self) -> Result<(), Failure> {
        self.receiver.get().await?;
        Ok(())
    }

    async fn deliver(&self, message: &Message, now: DateTime<Utc>) -> Result<Receipt, Failure> {
        let receiver = self.receiver.get().await?;
        let alert = Posted {
            labels: &message.labels,
            annotations: Annotations {
                summary: &message.summary,
                description: &message.description,
                runbook_url: &message.runbook_url,
            },
            starts_at: message.since,
            ends_at: match message.state {
                AlertState::Firing => now + HELD_FOR,
                AlertState::Resolved => message.resolved_at.unwrap_or(now),
            },
        };
        let body = serde_json::to_string(&[alert]).expect("texts and dates always have a JSON form");
        let url = receiver.url_below(PATH);
        let answer = receiver.post(url, "application/json", body).await?;
        Ok(Receipt(answer.status))
    }

    /// Waits until Alertmanager shows the alert to people, or does not show it any more once it is resolved.
    async fn confirm(&self, message: &Message, delivered: Receipt) -> Result<Receipt, Failure> {
        let receiver = self.receiver.get().await?;
        loop {
            match (message.state, shown(receiver, message).await?) {
                (AlertState::Firing, Some(alert)) => {
                    if let Some(names) = alert.receivers()? {
                        return Ok(Receipt(format!("{}, passed on to {names}", delivered.0)));
                    }
                }
                (AlertState::Resolved, None) => {
                    return Ok(Receipt(format!("{}, not shown any more", delivered.0)));
                }
                _ => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn refreshed_every(&self) -> Option<Duration> {
        Some(REFRESHED_EVERY)
    }
}

/// The alert with just these labels, if Alertmanager shows it.
async fn shown(receiver: &Receiver, message: &Message) -> Result<Option<Shown>, Failure> {
    let alerts = alerts_with(receiver, &message.labels).await?;
    // It drops labels without a value.
    let said: BTreeMap<&String, &String> = message
        .labels
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .collect();
    let is_it = |alert: &Shown| alert.labels.iter().collect::<BTreeMap<_, _>>() == said;
    Ok(alerts.into_iter().find(is_it))
}

/// The alerts with these labels, and maybe others, that Alertmanager shows.
pub(in crate::alert) async fn alerts_with(
    receiver: &Receiver,
    labels: &BTreeMap<String, String>,
) -> Result<Vec<Shown>, Failure> {
    let mut url = receiver.url_below(PATH);
    for (name, value) in labels {
        url.query_pairs_mut()
            .append_pair("filter", &format!("{name}={}", quoted(value)));
    }
    let answer = receiver.get(url).await?;
    let text = receiver.text(answer).await?;
    serde_json::from_str(&text).map_err(|error| {
        Failure::lasts(format!(
            "what answers is no Alertmanager ({error}): check the URL"
        ))
    })
}

/// A text as Alertmanager's filters have it.
fn quoted(value: &str) -> String {
    let value = value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{value}\"")
}

fn suppressed(status: &Status) -> String {
    if status.silenced_by.is_empty() {
        return "Alertmanager has it and tells nobody: one of its inhibit_rules holds it back".to_owned();
    }
    format!(
        "Alertmanager has it and tells nobody: it is silenced by {}; see Silences on its page",
        status.silenced_by.join(", ")
    )
}
