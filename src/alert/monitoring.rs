//! What Prometheus and Alertmanager say of themselves and of alerts, for whoever wants to know how far one comes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::channel::Failure;
use super::channel::alertmanager::alerts_with;
use super::http::Receiver;

/// Notifications that Alertmanager tried to send, and those of them that failed; each try counts.
const TRIED: &str = "alertmanager_notification_requests_total";
const FAILED: &str = "alertmanager_notification_requests_failed_total";

/// A Prometheus, by version 1 of its interface.
pub struct Prometheus {
    receiver: Receiver,
}

/// An Alertmanager, by version 2 of its interface.
pub struct Alertmanager {
    receiver: Receiver,
}

/// What Alertmanager has sent since it was started, to whomever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notifications {
    pub sent: u64,
    pub failed: u64,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<RuleName>,
}

#[derive(Deserialize)]
struct RuleName {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Alertmanagers {
    active_alertmanagers: Vec<Active>,
}

#[derive(Deserialize)]
struct Active {
    url: String,
}

#[derive(Deserialize)]
struct Found {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Series {
    metric: BTreeMap<String, String>,
}

impl Prometheus {
    /// The receiver's address is that of the server, without the path of the interface.
    pub fn new(receiver: Receiver) -> Self {
        Self { receiver }
    }

    /// The names of the alerting rules that it judges.
    ///
    /// # Errors
    /// It does not answer, or is no Prometheus.
    pub async fn alerting_rules(&self) -> Result<BTreeSet<String>, Failure> {
        let found: Groups = self.ask("rules", ("type", "alert")).await?;
        let rules = found.groups.into_iter().flat_map(|group| group.rules);
        Ok(rules.map(|rule| rule.name).collect())
    }

    /// The addresses of the servers that it tells of alerts, as it knows them.
    ///
    /// # Errors
    /// As of the rules.
    pub async fn alertmanagers(&self) -> Result<Vec<String>, Failure> {
        let found: Alertmanagers = self.ask("alertmanagers", ("", "")).await?;
        // It shows the address of the interface; what comes before may be a path of the server's own.
        let server = |active: Active| match active.url.find("/api/") {
            Some(end) => active.url[..end].to_owned(),
            None => active.url,
        };
        Ok(found.active_alertmanagers.into_iter().map(server).collect())
    }

    /// The labels of the series that an expression has now.
    ///
    /// # Errors
    /// As of the rules.
    pub async fn query(&self, expression: &str) -> Result<Vec<BTreeMap<String, String>>, Failure> {
        let found: Found = self.ask("query", ("query", expression)).await?;
        Ok(found.result.into_iter().map(|series| series.metric).collect())
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, (name, value): (&str, &str)) -> Result<T, Failure> {
        let mut url = self.receiver.url_below(&format!("api/v1/{path}"));
        if !name.is_empty() {
            url.query_pairs_mut().append_pair(name, value);
        }
        let answer = self.receiver.get(url).await?;
        let text = self.receiver.text(answer).await?;
        let answer: Answer<T> = serde_json::from_str(&text).map_err(|error| {
            Failure::lasts(format!(
                "what answers is no Prometheus ({error}): check its `url`"
            ))
        })?;
        Ok(answer.data)
    }
}

impl Alertmanager {
    /// The receiver's address is that of the server, without the path of the interface.
    pub fn new(receiver: Receiver) -> Self {
        Self { receiver }
    }

    /// To whom it passes on the alert with these labels, among others; nothing while it does not have it.
    ///
    /// # Errors
    /// It does not answer, is no Alertmanager, or keeps the alert to itself.
    pub async fn receivers_of(&self, labels: &BTreeMap<String, String>) -> Result<Option<String>, Failure> {
        let alerts = alerts_with(&self.receiver, labels).await?;
        match alerts.first() {
            Some(alert) => alert.receivers(),
            None => Ok(None),
        }
    }

    /// What it counts; nothing where it shows no such metrics.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn notifications(&self) -> Result<Option<Notifications>, Failure> {
        let answer = self.receiver.get(self.receiver.url_below("metrics")).await?;
        Ok(Notifications::read(&self.receiver.text(answer).await?))
    }
}

impl Notifications {
    fn read(metrics: &str) -> Option<Self> {
        let failed = sum(metrics, FAILED)?;
        Some(Self {
            sent: sum(metrics, TRIED)?.saturating_sub(failed),
            failed,
        })
    }
}

/// Of all series of a metric; nothing where there is none.
fn sum(metrics: &str, name: &str) -> Option<u64> {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next())??;
        value.parse::<f64>().ok()
    });
    let values: Vec<f64> = values.collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_are_counted_over_all_kinds_of_receivers() {
        let text = format!(
            "# TYPE {TRIED} counter\n{TRIED}{{integration=\"email\"}} 5\n{TRIED}{{integration=\"webhook\"}} 2\n{FAILED}{{integration=\"email\"}} 1\n{FAILED}{{integration=\"webhook\"}} 0\n"
        );
        let expected = Notifications { sent: 6, failed: 1 };
        assert_eq!(Notifications::read(&text), Some(expected));
        assert_eq!(Notifications::read("something_else 1\n"), None);
    }
}
