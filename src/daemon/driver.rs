//! The loop around one job: wait until it is due, wait for its turn, run it, look again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::model::agenda::{Due, Why};

use super::gate::{Gate, Pass};
use super::pulse::{Pulse, Pulses};

/// The wall clock may jump, so no loop sleeps longer than this without looking at it.
const TICK: Duration = Duration::from_secs(5);

/// A job past its deadline ends by itself, removes what it has made, which may take ten minutes, and records that. One
/// that does not even do that is dropped after so long.
const GRACE: Duration = Duration::from_secs(15 * 60);

/// What clearing away after a dropped run may take. Each start, and the look each minute, tries it again.
const CLEAR_AWAY: Duration = Duration::from_secs(5 * 60);

/// The wall clock; tests bring their own.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// What a driver runs: one task of one target.
#[async_trait]
pub trait Job: Send + Sync {
    /// For logs and for whoever looks for a loop that hangs.
    fn name(&self) -> &str;

    /// When it is due, by all that is known now; `None`: not before something happens.
    fn due(&self, now: DateTime<Utc>) -> Option<Due>;

    /// How long a run may take.
    fn deadline(&self) -> Duration;

    /// Another process does the same now, so that a run would only be in its way.
    fn is_running_elsewhere(&self) -> bool;

    /// Runs it once. When this returns, the run is recorded, and `due` knows of it. A run that is past its deadline
    /// ends by itself.
    async fn run(&self, why: Why, deadline: Duration);

    /// Clears away after a run that had to be dropped, and records it.
    async fn clear_away(&self);
}

/// What everybody may know of a loop.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DriverState {
    pub next_run_at: Option<DateTime<Utc>>,
    pub waiting_since: Option<DateTime<Utc>>,
    pub running_since: Option<DateTime<Utc>>,
    pub deadline: Option<Duration>,
    pub skipped: u64,
}

/// One loop, not yet started.
pub struct Driver {
    pub job: Arc<dyn Job>,
    /// Shared by all jobs of its kind.
    pub gate: Gate,
    /// Held while the job runs: also by the loop of an earlier configuration, which may still be at it.
    pub turn: Arc<Mutex<()>>,
    /// How much later than others it begins what is due for all at the same moment.
    pub offset: Duration,
    pub pulses: Pulses,
    pub clock: Clock,
    /// Something has changed that `due` may depend on.
    pub changed: watch::Receiver<()>,
    pub state: watch::Sender<DriverState>,
    /// When this loop began.
    pub since: DateTime<Utc>,
    /// Nothing new begins; a run under way is waited for.
    pub stop: CancellationToken,
}

impl Driver {
    /// Returns when it was stopped, and its job has ended.
    pub async fn run(mut self) {
        let pulse = self.pulses.begin(self.job.name());
        while let Some(places) = self.next_turn(&pulse).await {
            let now = (self.clock)();
            // Much can happen while one waits: another process ran it, or the configuration is to change.
            let due = self.due(now).filter(|due| due.at <= now);
            let Some(due) = due.filter(|_| !self.stop.is_cancelled()) else {
                continue;
            };
            if self.job.is_running_elsewhere() {
                self.pause(&pulse, TICK).await;
                continue;
            }
            self.activate(due, &pulse).await;
            drop(places);
        }
        self.state.send_modify(|state| {
            state.next_run_at = None;
            state.waiting_since = None;
        });
    }

    /// Waits until the job is due, and then until it may run. `None`: it was stopped.
    async fn next_turn(&mut self, pulse: &Pulse) -> Option<(Pass, tokio::sync::OwnedMutexGuard<()>)> {
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            let now = (self.clock)();
            let due = self.due(now);
            self.state.send_if_modified(|state| {
                let next = due.map(|due| due.at);
                let deadline = Some(self.job.deadline());
                let changed = state.next_run_at != next || state.deadline != deadline;
                (state.next_run_at, state.deadline) = (next, deadline);
                changed
            });
            let wait = due.map_or(TICK, |due| (due.at - now).to_std().unwrap_or_default());
            if !wait.is_zero() {
                self.pause(pulse, wait.min(TICK)).await;
                continue;
            }
            if let Some(places) = self.places(now, pulse).await {
                return Some(places);
            }
        }
    }

    /// A place among the runs of its kind, and the turn of its target.
    async fn places(
        &self,
        now: DateTime<Utc>,
        pulse: &Pulse,
    ) -> Option<(Pass, tokio::sync::OwnedMutexGuard<()>)> {
        self.state.send_modify(|state| state.waiting_since = Some(now));
        let both = async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            (self.gate.enter().await, turn)
        };
        tokio::pin!(both);
        let places = loop {
            pulse.beat();
            tokio::select! {
                places = &mut both => break Some(places),
                () = self.stop.cancelled() => break None,
                () = tokio::time::sleep(TICK) => {}
            }
        };
        self.state.send_modify(|state| state.waiting_since = None);
        places
    }

    /// When it is due here: what is due for all at once is spread a little, also what was due before this loop began.
    fn due(&self, now: DateTime<Utc>) -> Option<Due> {
        let mut due = self.job.due(now)?;
        if due.in_step {
            let offset = TimeDelta::from_std(self.offset).unwrap_or_default();
            let at = due.at.max(self.since.min(now));
            due.at = at.checked_add_signed(offset).unwrap_or(at);
        }
        Some(due)
    }

    async fn activate(&self, due: Due, pulse: &Pulse) {
        let now = (self.clock)();
        let deadline = self.job.deadline();
        if due.skipped > 0 {
            tracing::warn!(
                "{}: {} slots had no run of their own",
                self.job.name(),
                due.skipped
            );
        }
        self.state.send_modify(|state| {
            state.running_since = Some(now);
            state.skipped = state.skipped.saturating_add(due.skipped);
        });
        let job = Arc::clone(&self.job);
        let mut run = tokio::spawn(async move { job.run(due.why, deadline).await });
        let dropped_at = Instant::now() + deadline + GRACE;
        let ended = loop {
            pulse.beat();
            tokio::select! {
                ended = &mut run => break ended.is_ok(),
                () = tokio::time::sleep_until(dropped_at) => {
                    run.abort();
                    // Until it is really gone, it may still hold files and connections.
                    break (&mut run).await.is_ok();
                }
                () = tokio::time::sleep(TICK) => {}
            }
        };
        if !ended {
            tracing::error!(
                "{}: the run did not end by itself; it is dropped and recorded",
                self.job.name()
            );
            self.clear_away(pulse).await;
        }
        self.state.send_modify(|state| state.running_since = None);
    }

    /// A repository that hangs must not make this loop seem to hang.
    async fn clear_away(&self, pulse: &Pulse) {
        let clearing = tokio::time::timeout(CLEAR_AWAY, self.job.clear_away());
        tokio::pin!(clearing);
        loop {
            pulse.beat();
            tokio::select! {
                cleared = &mut clearing => {
                    if cleared.is_err() {
                        tracing::error!("{}: clearing away after it takes too long", self.job.name());
                    }
                    return;
                }
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// Until something may have changed.
    async fn pause(&mut self, pulse: &Pulse, at_most: Duration) {
        pulse.beat();
        tokio::select! {
            () = tokio::time::sleep(at_most) => {}
            () = self.stop.cancelled() => {}
            changed = self.changed.changed() => {
                if changed.is_err() {
                    // Whoever told of changes has ended; the clock goes on.
                    tokio::time::sleep(at_most).await;
                }
            }
        }
    }
}
