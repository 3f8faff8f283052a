//! How an alert reaches people.
//!
//! What one channel says of a secret, or of what a receiver answered, never shows the secret.

pub mod alertmanager;
pub mod command;
pub mod email;
pub mod template;
pub mod webhook;

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::time::timeout;

use super::message::Message;
use crate::model::human_duration::HumanDuration;

/// A way to tell people something.
#[async_trait]
pub trait Channel: Send + Sync {
    /// Fetches what is needed to tell anything, such as secrets, and sends nothing.
    ///
    /// # Errors
    /// Something is not to be had, or is of no use.
    async fn prepare(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Tells it once. Whoever calls sets the time that this may take, and tries again.
    ///
    /// # Errors
    /// It is not certain that the message arrived.
    async fn deliver(&self, message: &Message, now: DateTime<Utc>) -> Result<Receipt, Failure>;

    /// Looks whether a message that was delivered is there, where the receiver can be asked.
    async fn confirm(&self, _message: &Message, delivered: Receipt) -> Result<Receipt, Failure> {
        Ok(delivered)
    }

    /// A receiver that forgets what is not said again within some minutes, and reminds people by itself, wants to hear
    /// of what fires so often. `None`: it hears of a change, and of reminders.
    fn refreshed_every(&self) -> Option<Duration> {
        None
    }
}

/// What the receiver said, for people: `202 Accepted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt(pub String);

/// Why a message did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was tried, on what, why it failed and what to do: never with a secret.
    pub reason: String,
    /// The receiver asked to be left alone for so long.
    pub retry_after: Option<Duration>,
    /// Trying again soon will not help: somebody has to change something.
    pub lasting: bool,
}

impl Failure {
    /// Trying again may help.
    pub fn may_pass(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            retry_after: None,
            lasting: false,
        }
    }

    /// Somebody has to change something first.
    pub fn lasts(reason: impl Into<String>) -> Self {
        Self {
            lasting: true,
            ..Self::may_pass(reason)
        }
    }
}

/// A channel of the configuration.
pub struct Named {
    pub name: String,
    /// `alertmanager`, `webhook`, `email` or `command`.
    pub kind: &'static str,
    /// One delivery may take so long.
    pub timeout: Duration,
    pub channel: Box<dyn Channel>,
}

impl Named {
    /// Tells it once, within the channel's time.
    ///
    /// # Errors
    /// It is not certain that the message arrived.
    pub async fn tell(&self, message: &Message, now: DateTime<Utc>) -> Result<Receipt, Failure> {
        let told = timeout(self.timeout, self.channel.deliver(message, now)).await;
        told.unwrap_or_else(|_| {
            let limit = HumanDuration::from(self.timeout);
            Err(Failure::may_pass(format!("no answer within {limit}")))
        })
    }
}
