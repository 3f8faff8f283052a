//! The records of what was told to people: alerts that were delivered or not, and tests of the way there.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::target_name::TargetName;

/// What an alert says of its condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    Firing,
    Resolved,
}

impl AlertState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// How a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    Delivered,
    /// Several tries have failed, and it is tried again; a delivery may follow, in a record of its own.
    Failed,
    /// It is not tried any more.
    GivenUp,
}

impl Delivery {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::GivenUp => "given_up",
        }
    }
}

/// One alert was told, or could not be told, by one channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertDeliveryRecord {
    pub format: u32,
    pub id: String,
    /// The name of the alert.
    pub alert: String,
    /// `null` where the alert is about no target alone.
    pub target: Option<TargetName>,
    /// All labels of the alert, its name among them.
    pub labels: BTreeMap<String, String>,
    pub state: AlertState,
    /// It was told before, and still holds.
    pub reminder: bool,
    /// Since when the condition held.
    pub since: DateTime<Utc>,
    /// The name of the channel in the configuration.
    pub channel: String,
    pub result: Delivery,
    /// Tries so far.
    pub attempts: u32,
    /// Why the last try failed; `null` when it did not.
    pub reason: Option<String>,
    /// When it was to be told.
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
}

/// A test alert was sent on purpose, to see whether it arrives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertTestRecord {
    pub format: u32,
    pub id: String,
    /// The alert that was made to look as if it fired.
    pub alert: String,
    /// The target that it was made to be about.
    pub target: Option<TargetName>,
    /// Every way that was tried brought it there.
    pub succeeded: bool,
    pub started_at: DateTime<Utc>,
    pub finished_at: DateTime<Utc>,
    pub deliveries: Vec<TestDelivery>,
}

/// The way of a test alert through one channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestDelivery {
    /// The name of the channel in the configuration, or `prometheus`.
    pub channel: String,
    /// `alertmanager`, `webhook`, `email`, `command` or `prometheus`.
    pub kind: String,
    pub delivered: bool,
    pub seconds: f64,
    /// What the receiver said; `null` where it was not delivered.
    pub receipt: Option<String>,
    /// Why it was not delivered; `null` when it was.
    pub reason: Option<String>,
}
