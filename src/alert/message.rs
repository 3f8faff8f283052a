//! What an alert says to people, whichever channel brings it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::alert_record::AlertState;
use crate::observe::rules::TEST_LABEL;

/// The label that holds the name of the alert.
pub const ALERT_NAME: &str = "alertname";

/// The label that marks an alert that was raised on purpose, to see whether it arrives; its value is `true`.
pub const TEST: &str = TEST_LABEL;

/// One thing to say of one alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// All labels of the alert, its name and severity among them. They tell which messages are about the same alert.
    pub labels: BTreeMap<String, String>,
    pub state: AlertState,
    /// In one line.
    pub summary: String,
    pub description: String,
    pub runbook_url: String,
    /// Since when the condition holds, or held.
    pub since: DateTime<Utc>,
    /// When it was resolved; `null` while it fires.
    pub resolved_at: Option<DateTime<Utc>>,
    /// It was told before, and still holds.
    pub reminder: bool,
}

impl Message {
    /// The name of the alert.
    pub fn alert(&self) -> &str {
        self.label(ALERT_NAME)
    }

    pub fn severity(&self) -> &str {
        self.label("severity")
    }

    /// It was raised on purpose, and nothing is wrong.
    pub fn is_test(&self) -> bool {
        self.label(TEST) == "true"
    }

    /// What is the same for all messages of one alert, and of no other: 32 hexadecimal digits.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.labels)
    }

    fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Of an alert with these labels.
pub fn fingerprint(labels: &BTreeMap<String, String>) -> String {
    // No text holds a zero byte, so that two different sets never look alike.
    let text: String = labels
        .iter()
        .map(|(name, value)| format!("{name}\0{value}\0"))
        .collect();
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(text.as_bytes()))
}
