//! A dead-man switch: it raises an alarm when it has not heard of this daemon for a while.

use super::channel::Failure;
use super::http::Receiver;
use super::late::Late;

/// Receivers keep no more: healthchecks.io has 10 kB for the common account.
const MAX_TEXT_CHARACTERS: usize = 5_000;

/// What the switch is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The daemon begins.
    Start,
    /// All is as it should be.
    Success,
    /// Something is wrong: the alarm is to be raised at once.
    Fail,
}

/// The address of a dead-man switch.
pub struct Ping {
    receiver: Late<Receiver>,
}

impl Ping {
    pub fn new(receiver: Late<Receiver>) -> Self {
        Self { receiver }
    }

    /// Fetches the address, and sends nothing.
    ///
    /// # Errors
    /// It is not to be had, or is of no use.
    pub async fn prepare(&self) -> Result<(), Failure> {
        self.receiver.get().await?;
        Ok(())
    }

    /// Tells it once, with some words for people. Whoever calls sets the time that this may take.
    ///
    /// # Errors
    /// It is not certain that it was heard.
    pub async fn send(&self, signal: Signal, text: &str) -> Result<(), Failure> {
        let receiver = self.receiver.get().await?;
        let url = match signal {
            Signal::Start => receiver.url_below("start"),
            Signal::Success => receiver.url().clone(),
            Signal::Fail => receiver.url_below("fail"),
        };
        let text = text.chars().take(MAX_TEXT_CHARACTERS).collect();
        receiver.post(url, "text/plain; charset=utf-8", text).await?;
        Ok(())
    }
}
