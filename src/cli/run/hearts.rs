//! The heartbeats: for each target that has one, a loop that writes it.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use nix::unistd::gethostname;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::exit::Failure;
use crate::cli::setup::Setup;
use crate::config;
use crate::daemon::{Pulse, Pulses};
use crate::observe::gathered::HeartbeatState;
use crate::ops;
use crate::ops::heartbeat::{Beat, Heart, Writer};

/// A loop that waits tells so often that it still turns.
const TICK: Duration = Duration::from_secs(5);

/// The heartbeats of one configuration.
pub(super) struct Hearts {
    stop: CancellationToken,
    states: Vec<watch::Receiver<HeartbeatState>>,
}

impl Hearts {
    /// Starts a loop for each target that has a heartbeat. `before`: how they stood until now, so that a reload makes nobody
    /// forget that one stopped.
    pub(super) fn start(
        setup: &Arc<Setup>,
        pulses: &Pulses,
        loops: &TaskTracker,
        before: &[HeartbeatState],
    ) -> Self {
        let stop = setup.signals.cancel.child_token();
        let mut states = Vec::new();
        for target in &setup.config.targets {
            let Some(heartbeat) = &target.heartbeat else {
                continue;
            };
            let last = before.iter().find(|state| state.target == target.name);
            let (state, receiver) = watch::channel(HeartbeatState {
                target: target.name.clone(),
                every: heartbeat.every.into(),
                written_at: last.and_then(|last| last.written_at),
                clock_skew_seconds: last.and_then(|last| last.clock_skew_seconds),
                fault: last.and_then(|last| last.fault.clone()),
            });
            states.push(receiver);
            let beating = Beating {
                setup: Arc::clone(setup),
                target: target.clone(),
                heart: None,
                state,
                pulse: pulses.begin(&format!("heartbeat of {}", target.name)),
                stop: stop.clone(),
            };
            loops.spawn(beating.run(heartbeat.every.into()));
        }
        Self { stop, states }
    }

    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    pub(super) fn states(&self) -> Vec<HeartbeatState> {
        self.states.iter().map(|state| state.borrow().clone()).collect()
    }
}

struct Beating {
    setup: Arc<Setup>,
    target: config::Target,
    /// Connected or not; made anew after a fault, with secrets fetched anew.
    heart: Option<Heart>,
    state: watch::Sender<HeartbeatState>,
    pulse: Pulse,
    stop: CancellationToken,
}

impl Beating {
    async fn run(mut self, every: Duration) {
        let stop = self.stop.clone();
        loop {
            let next = Instant::now() + every;
            tokio::select! {
                () = self.beat_once() => {}
                () = stop.cancelled() => break,
            }
            while Instant::now() < next && !stop.is_cancelled() {
                self.pulse.beat();
                let wait = next.saturating_duration_since(Instant::now()).min(TICK);
                tokio::select! {
                    () = sleep(wait) => {}
                    () = stop.cancelled() => {}
                }
            }
            if stop.is_cancelled() {
                break;
            }
        }
        if let Some(mut heart) = self.heart.take() {
            heart.rest().await;
        }
    }

    async fn beat_once(&mut self) {
        let heart = match self.heart.take() {
            Some(heart) => Ok(heart),
            None => self.new_heart(),
        };
        let beat = match heart {
            Ok(mut heart) => self.beat(&mut heart).await.map(|beat| (beat, heart)),
            Err(fault) => Err(fault),
        };
        let name = &self.target.name;
        match beat {
            Ok((beat, heart)) => {
                self.heart = Some(heart);
                self.state.send_modify(|state| {
                    if state.fault.take().is_some() {
                        tracing::info!("heartbeat of {name}: is written again");
                    }
                    state.written_at = Some(beat.written_at);
                    state.clock_skew_seconds = Some(beat.clock_skew_seconds);
                });
            }
            Err(fault) => self.state.send_modify(|state| {
                if state.fault.as_ref() != Some(&fault) {
                    tracing::error!("heartbeat of {name}: {fault}");
                }
                state.fault = Some(fault);
            }),
        }
    }

    async fn beat(&self, heart: &mut Heart) -> Result<Beat, String> {
        let beating = heart.beat();
        tokio::pin!(beating);
        loop {
            self.pulse.beat();
            tokio::select! {
                beat = &mut beating => return beat.map_err(|error| ops::chain(&error)),
                () = sleep(TICK) => {}
            }
        }
    }

    fn new_heart(&self) -> Result<Heart, String> {
        let said = |failure: Failure| ops::chain(failure.error.as_ref());
        let target = self.setup.target(&self.target).map_err(said)?;
        let journal = self.setup.journal().map_err(said)?;
        let writer = Writer {
            installation: journal.chain().to_owned(),
            host: host_name(),
        };
        let heart = Heart::new(&target, writer, Utc::now).map_err(|error| ops::chain(&error))?;
        heart.ok_or_else(|| "the target has no heartbeat".to_owned())
    }
}

fn host_name() -> String {
    let name = gethostname().ok().and_then(|name| name.into_string().ok());
    name.unwrap_or_else(|| "unknown host".to_owned())
}
