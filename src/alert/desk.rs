//! Where alerts are judged and handed to the channels: one worker for each channel, so that one that hangs holds up no
//! other. What waits and what was told is on disk before anything is sent, so that a restart neither forgets nor repeats.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::journal::{Journal, RunId};
use crate::model::alert_record::{AlertDeliveryRecord, AlertState, Delivery};
use crate::model::causes::chain;
use crate::model::record::{FORMAT, Record};
use crate::observe::gathered::{AlertsState, ChannelState, FiringAlert};
use crate::observe::metrics::Readings;
use crate::store::durable::write_over;

use super::channel::{Failure, Named, Receipt};
use super::evaluation::{Evaluation, Manner};
use super::message::Message;
use super::outbox::{Fate, Outbox, Waiting};

const VERSION: u32 = 1;

/// The clock may jump, so what is due is looked for at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Whoever is to stop waits so long for a message that is under way: cut off, it might arrive twice.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Says what time it is.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

pub struct Desk {
    /// Where it is kept.
    path: PathBuf,
    journal: Journal,
    clock: Clock,
    state: Mutex<State>,
    channels: watch::Sender<Arc<Vec<Arc<Named>>>>,
    /// Tells the workers that something waits.
    queued: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    kept: Kept,
    standing: BTreeMap<String, Standing>,
    /// What is on disk.
    saved: Vec<u8>,
}

/// What a restart must not forget.
#[derive(Default, Serialize, Deserialize)]
struct Kept {
    version: u32,
    evaluation: Evaluation,
    outbox: Outbox,
}

/// How a channel stands since the daemon started.
#[derive(Default)]
struct Standing {
    delivered: u64,
    retried: u64,
    failed: u64,
    given_up: u64,
    last_delivered_at: Option<DateTime<Utc>>,
    fault: Option<String>,
    refreshed_at: Option<DateTime<Utc>>,
}

impl Desk {
    /// With what was kept in the state directory.
    pub fn open(state_dir: &Path, journal: Journal, clock: Clock) -> Self {
        let path = state_dir.join("alerts.json");
        let mut kept = read(&path).unwrap_or_else(|fault| {
            // Telling everything again is better than telling nothing.
            tracing::error!(
                "{} cannot be used, and alerts begin anew: {fault}",
                path.display()
            );
            Kept::default()
        });
        kept.version = VERSION;
        Self {
            path,
            journal,
            clock,
            state: Mutex::new(State {
                kept,
                ..State::default()
            }),
            channels: watch::channel(Arc::default()).0,
            queued: watch::channel(()).0,
        }
    }

    /// The channels from now on. What waits for others is let go of.
    pub fn set_channels(&self, channels: Vec<Named>) {
        let channels: Vec<Arc<Named>> = channels.into_iter().map(Arc::new).collect();
        let names: Vec<&str> = channels.iter().map(|one| one.name.as_str()).collect();
        for gone in self.lock().kept.outbox.keep_only(&names) {
            tracing::warn!(
                "there is no alert channel {gone} any more: what it had not told yet is not told by it"
            );
        }
        self.channels.send_replace(Arc::new(channels));
    }

    /// Judges all rules, and has the channels tell what people should hear.
    pub fn evaluate(&self, readings: &Readings, manner: &Manner) {
        let now = readings.at;
        let channels = self.channels.borrow().clone();
        let mut state = self.lock();
        for message in state.kept.evaluation.evaluate(readings, manner) {
            log(&message);
            for channel in channels.iter().filter(|channel| hears_of(channel, &message)) {
                state
                    .kept
                    .outbox
                    .queue(&channel.name, message.clone(), false, now);
            }
        }
        for channel in channels.iter() {
            state.refresh(channel, now);
        }
        self.save(&mut state);
        drop(state);
        self.queued.send_replace(());
    }

    /// Judges again and again what is read, until it is stopped. Where nothing is to be judged, nothing changes.
    pub async fn judge(
        &self,
        every: Duration,
        read: impl Fn() -> Option<(Readings, Manner)>,
        stop: &CancellationToken,
    ) {
        while !stop.is_cancelled() {
            if let Some((readings, manner)) = read() {
                self.evaluate(&readings, &manner);
            }
            tokio::select! {
                () = sleep(every) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Tells what waits, until it is stopped.
    pub async fn tell(self: Arc<Self>, stop: CancellationToken) {
        let mut channels = self.channels.subscribe();
        let mut workers = JoinSet::new();
        let working = Arc::new(Mutex::new(BTreeSet::new()));
        loop {
            let names: Vec<String> = channels
                .borrow_and_update()
                .iter()
                .map(|one| one.name.clone())
                .collect();
            for name in names {
                let begins = working
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(name.clone());
                if begins {
                    let (desk, stop, working) = (Arc::clone(&self), stop.clone(), Arc::clone(&working));
                    workers.spawn(async move {
                        desk.work(&name, &stop).await;
                        working
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .remove(&name);
                    });
                }
            }
            tokio::select! {
                changed = channels.changed() => if changed.is_err() { break },
                Some(_) = workers.join_next() => {}
                () = stop.cancelled() => break,
            }
        }
        while workers.join_next().await.is_some() {}
    }

    /// What fires now, and how the channels stand.
    pub fn state(&self) -> AlertsState {
        let channels = self.channels.borrow().clone();
        let state = self.lock();
        let firing = state.kept.evaluation.firing().map(|message| FiringAlert {
            labels: message.labels.clone(),
            summary: message.summary.clone(),
            since: message.since,
        });
        AlertsState {
            firing: firing.collect(),
            channels: channels.iter().map(|channel| state.of(channel)).collect(),
        }
    }

    /// One channel's worker: one message at a time.
    async fn work(&self, name: &str, stop: &CancellationToken) {
        let mut queued = self.queued.subscribe();
        while let Some(channel) = self.channel(name) {
            queued.borrow_and_update();
            let now = (self.clock)();
            let (due, pause) = {
                let state = self.lock();
                let pause = state.kept.outbox.due_in(name, now).unwrap_or(LOOK_EVERY);
                (state.kept.outbox.due(name, now), pause.min(LOOK_EVERY))
            };
            match due {
                Some(waiting) => self.tell_one(&channel, &waiting, stop).await,
                None => tokio::select! {
                    () = sleep(pause) => {}
                    _ = queued.changed() => {}
                    () = stop.cancelled() => {}
                },
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }

    async fn tell_one(&self, channel: &Named, waiting: &Waiting, stop: &CancellationToken) {
        let delivery = channel.channel.deliver(&waiting.message, (self.clock)());
        let delivery = async {
            let within = timeout(channel.timeout, delivery).await;
            within.unwrap_or_else(|_| {
                Err(Failure {
                    reason: format!("it did not answer within {} s", channel.timeout.as_secs()),
                    retry_after: None,
                    lasting: false,
                })
            })
        };
        let too_late = async {
            stop.cancelled().await;
            sleep(LAST_WORD).await;
        };
        tokio::select! {
            told = delivery => self.note(channel, waiting, told),
            // It waits until the next start.
            () = too_late => {}
        }
    }

    fn note(&self, channel: &Named, waiting: &Waiting, told: Result<Receipt, Failure>) {
        let now = (self.clock)();
        let name = channel.name.as_str();
        let alert = waiting.message.alert();
        let mut state = self.lock();
        let result = match &told {
            Ok(receipt) => {
                state.kept.outbox.delivered(name, waiting);
                tracing::debug!("alert {alert} was delivered by {name}: {}", receipt.0);
                Some(Delivery::Delivered)
            }
            Err(failure) => match state.kept.outbox.failed(name, waiting, failure, now) {
                Fate::TriedAgain => {
                    tracing::info!("alert {alert} was not delivered by {name}: {}", failure.reason);
                    None
                }
                Fate::Failed => {
                    tracing::error!("alert {alert} cannot be delivered by {name}: {}", failure.reason);
                    Some(Delivery::Failed)
                }
                Fate::GivenUp => {
                    tracing::error!("alert {alert} is given up by {name}: {}", failure.reason);
                    Some(Delivery::GivenUp)
                }
            },
        };
        state.count(name, waiting, &told, result, now);
        self.save(&mut state);
        drop(state);
        // That a receiver still knows what it was told is no news.
        let is_news = !waiting.refresh || result != Some(Delivery::Delivered);
        if let (Some(result), true) = (result, is_news) {
            self.record(name, waiting, result, told.err(), now);
        }
    }

    fn record(
        &self,
        channel: &str,
        waiting: &Waiting,
        result: Delivery,
        failure: Option<Failure>,
        now: DateTime<Utc>,
    ) {
        let message = &waiting.message;
        let recorded = RunId::new(now).and_then(|id| {
            let target = message.labels.get("target");
            self.journal
                .append(Record::AlertDelivery(Box::new(AlertDeliveryRecord {
                    format: FORMAT,
                    id: id.to_string(),
                    alert: message.alert().to_owned(),
                    target: target.and_then(|target| target.parse().ok()),
                    labels: message.labels.clone(),
                    state: message.state,
                    reminder: message.reminder,
                    since: message.since,
                    channel: channel.to_owned(),
                    result,
                    attempts: waiting.attempts + 1,
                    reason: failure.map(|failure| failure.reason),
                    started_at: waiting.queued_at,
                    finished_at: now,
                })))
        });
        if let Err(error) = recorded {
            tracing::error!(
                "the delivery of an alert could not be recorded: {}",
                chain(&error)
            );
        }
    }

    fn channel(&self, name: &str) -> Option<Arc<Named>> {
        let channels = self.channels.borrow();
        channels.iter().find(|one| one.name == name).cloned()
    }

    fn save(&self, state: &mut State) {
        let saved = serde_json::to_vec_pretty(&state.kept).map_err(std::io::Error::other);
        let saved = saved.and_then(|bytes| {
            if bytes != state.saved {
                write_over(&self.path.with_file_name(".tmp"), &self.path, &bytes)?;
                state.saved = bytes;
            }
            Ok(())
        });
        if let Err(error) = saved {
            tracing::error!(
                "keep the state of alerts in {}: {error}; after a restart some may be told again",
                self.path.display()
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Says what fires again to a receiver that would forget it.
    fn refresh(&mut self, channel: &Named, now: DateTime<Utc>) {
        let Some(every) = channel.channel.refreshed_every() else {
            return;
        };
        let every = TimeDelta::from_std(every).unwrap_or(TimeDelta::MAX);
        let standing = self.standing.entry(channel.name.clone()).or_default();
        if standing
            .refreshed_at
            .is_some_and(|at| now - at < every && now >= at)
        {
            return;
        }
        standing.refreshed_at = Some(now);
        let firing: Vec<Message> = self.kept.evaluation.firing().cloned().collect();
        for message in firing
            .into_iter()
            .filter(|message| is_about_another(channel, message))
        {
            self.kept.outbox.queue(&channel.name, message, true, now);
        }
    }

    fn count(
        &mut self,
        channel: &str,
        waiting: &Waiting,
        told: &Result<Receipt, Failure>,
        result: Option<Delivery>,
        now: DateTime<Utc>,
    ) {
        let standing = self.standing.entry(channel.to_owned()).or_default();
        match result {
            None => standing.retried += 1,
            Some(Delivery::Delivered) => {
                standing.last_delivered_at = Some(now);
                standing.delivered += u64::from(!waiting.refresh);
            }
            Some(Delivery::Failed) => standing.failed += 1,
            Some(Delivery::GivenUp) => standing.given_up += 1,
        }
        standing.fault = told.as_ref().err().map(|failure| failure.reason.clone());
    }

    fn of(&self, channel: &Named) -> ChannelState {
        let none = Standing::default();
        let standing = self.standing.get(&channel.name).unwrap_or(&none);
        ChannelState {
            name: channel.name.clone(),
            kind: channel.kind,
            delivered: standing.delivered,
            retried: standing.retried,
            failed: standing.failed,
            given_up: standing.given_up,
            waiting: self.kept.outbox.len(&channel.name) as u64,
            last_delivered_at: standing.last_delivered_at,
            fault: standing.fault.clone(),
        }
    }
}

/// A receiver that reminds people by itself needs no reminder.
fn hears_of(channel: &Named, message: &Message) -> bool {
    let reminds = channel.channel.refreshed_every().is_some();
    is_about_another(channel, message) && !(reminds && message.reminder)
}

/// That a channel fails is told by the others.
fn is_about_another(channel: &Named, message: &Message) -> bool {
    message.labels.get("channel") != Some(&channel.name)
}

/// The log tells it too, also where there is no channel.
fn log(message: &Message) {
    let (alert, summary) = (message.alert(), &message.summary);
    match message.state {
        AlertState::Firing if message.reminder => tracing::warn!("alert {alert} still fires: {summary}"),
        AlertState::Firing => tracing::warn!("alert {alert} fires: {summary}"),
        AlertState::Resolved => tracing::info!("alert {alert} is resolved: {summary}"),
    }
}

fn read(path: &Path) -> Result<Kept, String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(error.to_string()),
    };
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if kept.version > VERSION {
        return Err("a newer ernstfall has written it".to_owned());
    }
    Ok(kept)
}

#[cfg(test)]
mod tests;
