//! A test alert through the channels of the configuration: told, its receipt confirmed, and taken back.

use std::time::Duration;

use chrono::Utc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::alert::channel::{Named, Receipt};
use crate::alert::message::Message;
use crate::model::alert_record::{AlertState, TestDelivery};
use crate::model::human_duration::HumanDuration;

/// What the daemon tries so often before it says that a delivery has failed.
const TRIES: u32 = 3;

const PAUSE: Duration = Duration::from_secs(1);

/// Tells one channel. A signal ends it.
pub(super) async fn tell(channel: &Named, message: &Message, cancel: &CancellationToken) -> TestDelivery {
    let begun = Instant::now();
    let told = async {
        let receipt = deliver(channel, message).await?;
        Ok((confirm(channel, message, receipt).await?, begun.elapsed()))
    };
    let told = tokio::select! {
        told = told => told,
        () = cancel.cancelled() => Err("ended by a signal; it may have arrived nevertheless".to_owned()),
    };
    let (result, took) = match told {
        Ok((receipt, took)) => (take_back(channel, message, receipt).await, took),
        Err(reason) => (Err(reason), begun.elapsed()),
    };
    TestDelivery {
        channel: channel.name.clone(),
        kind: channel.kind.to_owned(),
        delivered: result.is_ok(),
        seconds: took.as_secs_f64(),
        receipt: result.as_ref().ok().map(|receipt| receipt.0.clone()),
        reason: result.err(),
    }
}

/// Tries as often as the daemon would before it said that the channel fails.
async fn deliver(channel: &Named, message: &Message) -> Result<Receipt, String> {
    let mut tries = 0;
    loop {
        tries += 1;
        let failure = match channel.tell(message, Utc::now()).await {
            Ok(receipt) => return Ok(receipt),
            Err(failure) => failure,
        };
        let pause = failure.retry_after.unwrap_or_default().max(PAUSE);
        if failure.lasting || tries == TRIES || pause > channel.timeout.max(PAUSE) {
            return Err(failure.reason);
        }
        sleep(pause).await;
    }
}

async fn confirm(channel: &Named, message: &Message, receipt: Receipt) -> Result<Receipt, String> {
    let said = receipt.0.clone();
    let confirmed = timeout(channel.timeout, channel.channel.confirm(message, receipt)).await;
    match confirmed {
        Ok(confirmed) => confirmed.map_err(|failure| failure.reason),
        Err(_) => Err(format!(
            "it was taken ({said}), and could not be seen there within {}",
            HumanDuration::from(channel.timeout)
        )),
    }
}

/// No test alert stays open. Whoever forgets by itself what is not said again is left to do so: it may gather alerts for
/// a while before it tells people, and would never tell of one that is over by then.
async fn take_back(channel: &Named, message: &Message, receipt: Receipt) -> Result<Receipt, String> {
    if channel.channel.refreshed_every().is_some() {
        return Ok(Receipt(format!(
            "{}; it ends there by itself within minutes",
            receipt.0
        )));
    }
    let resolved = Message {
        state: AlertState::Resolved,
        resolved_at: Some(Utc::now()),
        ..message.clone()
    };
    match deliver(channel, &resolved).await {
        Ok(_) => Ok(receipt),
        Err(reason) => Err(format!(
            "it arrived ({}), but not that it is over: {reason}; if the receiver keeps alerts open, close it there",
            receipt.0
        )),
    }
}
