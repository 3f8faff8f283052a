//! How a channel does since the daemon started.

use chrono::{DateTime, Utc};

use crate::alert::channel::{Failure, Named, Receipt};
use crate::alert::outbox::Waiting;
use crate::model::alert_record::Delivery;
use crate::observe::gathered::ChannelState;

#[derive(Default)]
pub(super) struct Tally {
    delivered: u64,
    retried: u64,
    failed: u64,
    given_up: u64,
    last_delivered_at: Option<DateTime<Utc>>,
    fault: Option<String>,
    pub(super) refreshed_at: Option<DateTime<Utc>>,
}

impl Tally {
    /// Counts one try; `None`: nobody need know of it yet.
    pub(super) fn count(
        &mut self,
        waiting: &Waiting,
        told: &Result<Receipt, Failure>,
        result: Option<Delivery>,
        now: DateTime<Utc>,
    ) {
        match result {
            None => self.retried += 1,
            Some(Delivery::Delivered) => {
                self.last_delivered_at = Some(now);
                self.delivered += u64::from(!waiting.refresh);
            }
            Some(Delivery::Failed) => self.failed += 1,
            Some(Delivery::GivenUp) => self.given_up += 1,
        }
        self.fault = told.as_ref().err().map(|failure| failure.reason.clone());
    }

    pub(super) fn shown(&self, channel: &Named, waiting: usize) -> ChannelState {
        ChannelState {
            name: channel.name.clone(),
            kind: channel.kind,
            delivered: self.delivered,
            retried: self.retried,
            failed: self.failed,
            given_up: self.given_up,
            waiting: waiting as u64,
            last_delivered_at: self.last_delivered_at,
            fault: self.fault.clone(),
        }
    }
}
