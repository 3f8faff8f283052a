//! The daemon's own alerts: judged by what was gathered, told by the channels; and the dead-man switch, which notices that
//! nobody judges anything any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::alert::channel::{Failure as NotHeard, Named};
use crate::alert::desk::Desk;
use crate::alert::ping::{Ping, Signal};
use crate::cli::exit::Failure;
use crate::cli::setup::Setup;
use crate::daemon::{Pulse, Pulses};
use crate::observe::gathered::{AlertsState, Gathered};
use crate::observe::metrics::Readings;
use crate::observe::rules::AlertSeverity;
use crate::observe::view::View;

/// Often enough for people, and nothing that a daemon would notice.
const JUDGE_EVERY: Duration = Duration::from_secs(5);

/// Dead-man switches are told so often that all is well; they should wait for a few of these.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_TIME: Duration = Duration::from_secs(10);

/// A loop that waits tells so often that it still turns.
const TICK: Duration = Duration::from_secs(5);

/// The alerts of this daemon, whatever its configuration.
pub(super) struct Alerts {
    desk: Arc<Desk>,
}

impl Alerts {
    /// Nothing is judged or told before `start`.
    pub(super) fn open(setup: &Setup) -> Result<Self, Failure> {
        let desk = Desk::open(&setup.config.state_dir, setup.journal()?, Arc::new(Utc::now));
        desk.set_channels(setup.channels()?);
        Ok(Self { desk: Arc::new(desk) })
    }

    pub(super) fn start(
        &self,
        setup: watch::Receiver<Arc<Setup>>,
        gathered: watch::Receiver<Arc<Gathered>>,
        pulses: &Pulses,
        loops: &TaskTracker,
    ) {
        let stop = setup.borrow().signals.cancel.clone();
        loops.spawn(Arc::clone(&self.desk).tell(stop.clone()));
        loops.spawn(judge(
            Arc::clone(&self.desk),
            setup.clone(),
            gathered.clone(),
            pulses.begin("the evaluation of alerts"),
            stop.clone(),
        ));
        loops.spawn(ping(setup, gathered, pulses.begin("the dead-man switch"), stop));
    }

    /// Takes the channels of a new configuration.
    pub(super) fn reload(&self, channels: Vec<Named>) {
        self.desk.set_channels(channels);
    }

    pub(super) fn state(&self) -> AlertsState {
        self.desk.state()
    }
}

async fn judge(
    desk: Arc<Desk>,
    setup: watch::Receiver<Arc<Setup>>,
    gathered: watch::Receiver<Arc<Gathered>>,
    pulse: Pulse,
    stop: CancellationToken,
) {
    let read = || {
        pulse.beat();
        let setup = setup.borrow().clone();
        let view = || View::of(&gathered.borrow(), Utc::now());
        let evaluates = setup.config.alert.evaluate;
        evaluates.then(|| (Readings::of(&view()), setup.alert_manner()))
    };
    desk.judge(JUDGE_EVERY, read, &stop).await;
}

/// Tells the dead-man switch that this daemon lives, and whether anything critical fires.
async fn ping(
    mut setup: watch::Receiver<Arc<Setup>>,
    gathered: watch::Receiver<Arc<Gathered>>,
    pulse: Pulse,
    stop: CancellationToken,
) {
    let mut switch = setup.borrow_and_update().ping();
    let mut signal = Signal::Start;
    let mut next_at = Instant::now();
    while !stop.is_cancelled() {
        pulse.beat();
        if setup.has_changed().unwrap_or(false) {
            switch = setup.borrow_and_update().ping();
            (signal, next_at) = (Signal::Start, Instant::now());
        }
        let critical = critical(&gathered.borrow().alerts);
        // That something began to fire, or is over, is told at once.
        let changed = signal != Signal::Start && (signal == Signal::Fail) == critical.is_empty();
        if let Some(switch) = switch.as_ref().filter(|_| changed || Instant::now() >= next_at) {
            let begins = signal == Signal::Start;
            if begins {
                say(switch, Signal::Start, "", &stop).await;
            }
            signal = if critical.is_empty() {
                Signal::Success
            } else {
                Signal::Fail
            };
            say(switch, signal, &critical, &stop).await;
            next_at = Instant::now() + PING_EVERY;
        }
        tokio::select! {
            () = sleep(TICK) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// One line for each critical alert that fires.
fn critical(alerts: &AlertsState) -> String {
    let severity = AlertSeverity::Critical.as_str();
    let is_critical =
        |labels: &BTreeMap<String, String>| labels.get("severity").is_some_and(|one| one == severity);
    let firing = alerts.firing.iter().filter(|alert| is_critical(&alert.labels));
    firing.map(|alert| format!("{}\n", alert.summary)).collect()
}

async fn say(switch: &Ping, signal: Signal, text: &str, stop: &CancellationToken) {
    let heard = async {
        let heard = timeout(PING_TIME, switch.send(signal, text)).await;
        heard.unwrap_or_else(|_| {
            Err(NotHeard::may_pass(format!(
                "no answer within {} s",
                PING_TIME.as_secs()
            )))
        })
    };
    tokio::select! {
        heard = heard => if let Err(failure) = heard {
            tracing::warn!("the dead-man switch was not reached: {}", failure.reason);
        },
        () = stop.cancelled() => {}
    }
}
