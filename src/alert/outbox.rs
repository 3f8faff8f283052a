//! What waits to be told, channel by channel, until it is: kept over restarts, tried again ever more slowly.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::channel::Failure;
use super::message::Message;

/// After the first failure; doubled with each.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// So many tries in a row make a failed delivery, and somebody else has to hear of it: fewer happen to every network.
const TRIES: u32 = 3;

/// What could not be told for so long is not news any more.
const GIVEN_UP_AFTER: TimeDelta = TimeDelta::days(1);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outbox {
    /// By channel and fingerprint: of each alert only the last word.
    waiting: BTreeMap<String, BTreeMap<String, Waiting>>,
    /// Channels whose last try failed for a reason that may pass.
    #[serde(skip)]
    resting: BTreeMap<String, Rest>,
    last_number: u64,
}

/// A message that a channel has to tell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Waiting {
    pub message: Message,
    /// Said again only so that the receiver does not forget it.
    pub refresh: bool,
    pub queued_at: DateTime<Utc>,
    /// Tries so far.
    pub attempts: u32,
    next_at: DateTime<Utc>,
    /// Tells it from what may have taken its place meanwhile.
    number: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Rest {
    failures: u32,
    until: DateTime<Utc>,
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is tried again, and nobody need know yet.
    TriedAgain,
    /// It is tried again, and people should know by other ways that it has not arrived.
    Failed,
    GivenUp,
}

impl Outbox {
    /// Has a channel tell something; in the place of what it has not told of the same alert yet.
    pub fn queue(&mut self, channel: &str, message: Message, refresh: bool, now: DateTime<Utc>) {
        let waiting = self.waiting.entry(channel.to_owned()).or_default();
        let key = message.fingerprint();
        let before = waiting.get(&key);
        // A change that has not arrived yet says the same and more.
        if refresh && before.is_some() {
            return;
        }
        self.last_number += 1;
        let before = before.filter(|before| before.message.state == message.state && !before.refresh);
        let fresh = Waiting {
            // What people have not heard for the first time is no reminder.
            message: Message {
                reminder: message.reminder && before.is_none_or(|before| before.message.reminder),
                ..message
            },
            refresh,
            queued_at: before.map_or(now, |before| before.queued_at),
            attempts: before.map_or(0, |before| before.attempts),
            next_at: before.map_or(now, |before| before.next_at),
            number: self.last_number,
        };
        waiting.insert(key, fresh);
    }

    /// What the channel tells next, when it is time.
    pub fn due(&self, channel: &str, now: DateTime<Utc>) -> Option<Waiting> {
        let first = self.first(channel)?;
        (self.time_of(channel, first) <= now).then(|| first.clone())
    }

    /// How long until something is due; `None` where nothing waits.
    pub fn due_in(&self, channel: &str, now: DateTime<Utc>) -> Option<Duration> {
        let at = self.time_of(channel, self.first(channel)?);
        Some((at - now).to_std().unwrap_or_default())
    }

    /// How many messages wait for a channel.
    pub fn len(&self, channel: &str) -> usize {
        self.waiting.get(channel).map_or(0, BTreeMap::len)
    }

    pub fn delivered(&mut self, channel: &str, told: &Waiting) {
        self.resting.remove(channel);
        self.remove(channel, told);
    }

    pub fn failed(&mut self, channel: &str, tried: &Waiting, failure: &Failure, now: DateTime<Utc>) -> Fate {
        let attempts = tried.attempts + 1;
        let pause = pause(attempts, failure);
        if !failure.lasting {
            let rest = self.resting.entry(channel.to_owned()).or_insert(Rest {
                failures: 0,
                until: now,
            });
            rest.failures += 1;
            rest.until = now + self::pause(rest.failures, failure);
        }
        if now - tried.queued_at >= GIVEN_UP_AFTER {
            self.remove(channel, tried);
            return Fate::GivenUp;
        }
        let waiting = self.waiting.get_mut(channel);
        let own = waiting.and_then(|waiting| waiting.get_mut(&tried.message.fingerprint()));
        if let Some(own) = own.filter(|own| own.number == tried.number) {
            own.attempts = attempts;
            own.next_at = now + pause;
        }
        // Each of them is told once: what lasts at the first try, what may pass at the third.
        let fails_now = if failure.lasting {
            attempts == 1
        } else {
            attempts == TRIES
        };
        if fails_now { Fate::Failed } else { Fate::TriedAgain }
    }

    /// Lets go of what waits for channels that there are no more; names them.
    pub fn keep_only(&mut self, channels: &[&str]) -> Vec<String> {
        let is_there = |name: &String| channels.contains(&name.as_str());
        let gone = self.waiting.keys().filter(|name| !is_there(name));
        let gone: Vec<String> = gone.cloned().collect();
        self.waiting.retain(|name, _| is_there(name));
        self.resting.retain(|name, _| is_there(name));
        gone
    }

    fn first(&self, channel: &str) -> Option<&Waiting> {
        let waiting = self.waiting.get(channel)?.values();
        waiting.min_by_key(|waiting| (waiting.next_at, waiting.number))
    }

    fn time_of(&self, channel: &str, waiting: &Waiting) -> DateTime<Utc> {
        let rest = self.resting.get(channel);
        rest.map_or(waiting.next_at, |rest| rest.until.max(waiting.next_at))
    }

    fn remove(&mut self, channel: &str, told: &Waiting) {
        let Some(waiting) = self.waiting.get_mut(channel) else {
            return;
        };
        let key = told.message.fingerprint();
        if waiting.get(&key).is_some_and(|own| own.number == told.number) {
            waiting.remove(&key);
        }
    }
}

fn pause(failures: u32, failure: &Failure) -> Duration {
    let pause = match failure.lasting {
        true => LONGEST_PAUSE,
        false => FIRST_PAUSE
            .saturating_mul(1 << failures.saturating_sub(1).min(10))
            .min(LONGEST_PAUSE),
    };
    failure.retry_after.unwrap_or_default().max(pause)
}

#[cfg(test)]
mod tests;
