//! Where alerts are judged and handed to the channels: one worker for each channel, so that one that hangs holds up no
//! other. What waits and what was told is on disk before anything is sent, so that a restart neither forgets nor repeats.

mod kept;
mod tally;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::journal::{Journal, RunId};
use crate::model::alert_record::{AlertDeliveryRecord, AlertState, Delivery};
use crate::model::causes::chain;
use crate::model::record::{FORMAT, Record};
use crate::observe::gathered::{AlertsState, ChannelState, FiringAlert};
use crate::observe::metrics::Readings;

use super::channel::{Failure, Named, Receipt};
use super::evaluation::Manner;
use super::message::Message;
use super::outbox::{Fate, Waiting};

use kept::{File, Kept};
use tally::Tally;

/// The clock may jump, so what is due is looked for at least so often.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Whoever is to stop waits so long for a message that is under way: cut off, it might arrive twice.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Says what time it is.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

pub struct Desk {
    journal: Journal,
    clock: Clock,
    state: Mutex<State>,
    channels: watch::Sender<Arc<Vec<Arc<Named>>>>,
    /// Tells the workers that something waits.
    queued: watch::Sender<()>,
}

struct State {
    kept: Kept,
    file: File,
    /// By channel.
    tallies: BTreeMap<String, Tally>,
}

impl Desk {
    /// With what was kept in the state directory.
    pub fn open(state_dir: &Path, journal: Journal, clock: Clock) -> Self {
        let file = File::new(state_dir);
        Self {
            journal,
            clock,
            state: Mutex::new(State {
                kept: file.read(),
                file,
                tallies: BTreeMap::new(),
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
        state.save();
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
        let mut working = BTreeSet::new();
        loop {
            for channel in channels.borrow_and_update().iter() {
                if working.insert(channel.name.clone()) {
                    let (desk, stop, name) = (Arc::clone(&self), stop.clone(), channel.name.clone());
                    workers.spawn(async move {
                        desk.work(&name, &stop).await;
                        name
                    });
                }
            }
            tokio::select! {
                changed = channels.changed() => if changed.is_err() { break },
                Some(Ok(name)) = workers.join_next() => { working.remove(&name); }
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
            channels: channels.iter().map(|channel| state.shown(channel)).collect(),
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
        let too_late = async {
            stop.cancelled().await;
            sleep(LAST_WORD).await;
        };
        tokio::select! {
            told = channel.tell(&waiting.message, (self.clock)()) => self.note(channel, waiting, told),
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
        let tally = state.tallies.entry(name.to_owned()).or_default();
        tally.count(waiting, &told, result, now);
        state.save();
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn save(&mut self) {
        self.file.save(&self.kept);
    }

    fn shown(&self, channel: &Named) -> ChannelState {
        let waiting = self.kept.outbox.len(&channel.name);
        let tally = self.tallies.get(&channel.name);
        tally.unwrap_or(&Tally::default()).shown(channel, waiting)
    }

    /// Says what fires again to a receiver that would forget it.
    fn refresh(&mut self, channel: &Named, now: DateTime<Utc>) {
        let Some(every) = channel.channel.refreshed_every() else {
            return;
        };
        let every = TimeDelta::from_std(every).unwrap_or(TimeDelta::MAX);
        let tally = self.tallies.entry(channel.name.clone()).or_default();
        if tally.refreshed_at.is_some_and(|at| now - at < every && now >= at) {
            return;
        }
        tally.refreshed_at = Some(now);
        let firing: Vec<Message> = self.kept.evaluation.firing().cloned().collect();
        for message in firing
            .into_iter()
            .filter(|message| is_about_another(channel, message))
        {
            self.kept.outbox.queue(&channel.name, message, true, now);
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

#[cfg(test)]
mod tests;
