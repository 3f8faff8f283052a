//! `ernstfall run`: the daemon. It puts together what runs for months; the loops themselves are in `daemon`.
//!
//! - `jobs` is what is run by schedule.
//! - `fleet` starts a loop for each task and target of a configuration; `hearts` one for each heartbeat.
//! - `alerts` judges what was gathered, and has people told.
//! - `known` is what jobs and views know of runs and backups; `look` keeps it true. `whole` reads all records,
//!   `past` is what they mean for schedules.
//! - `memory` gives back what is not needed any more.

mod alerts;
mod fleet;
mod hearts;
mod jobs;
mod known;
mod look;
mod memory;
mod past;
mod whole;

use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use chrono::Utc;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::daemon::Supervisor;
use crate::observe::gathered::Gathered;
use crate::observe::http::{Reloader, Server, Source};
use crate::observe::status::TargetFacts;
use crate::ops;

use super::alert_test;
use super::arguments::Global;
use super::exit::{Exit, Failure};
use super::setup::Setup;

use alerts::Alerts;
use fleet::{Fleet, Yard};
use hearts::Hearts;
use known::{Chains, Watcher};

/// Held while a daemon runs.
const LOCK: &str = "daemon.lock";

const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Schedules wait so long at most for a repository that does not answer, to hear what was done already.
const FIRST_LOOK: Duration = Duration::from_secs(30);

/// Views are put together anew so often.
const GATHER_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(global: &Global) -> Result<Exit, Failure> {
    let setup = Arc::new(Setup::load(global)?);
    let _lock = lock(&setup.config.state_dir).await?;
    // From now on a wish to reload must not end the process.
    let hangups = signal(SignalKind::hangup()).map_err(|error| Failure::operation(anyhow!(error)))?;
    let journal = setup.journal()?;
    let watcher = Arc::new(Watcher::new());
    watcher.look_at_journal(&journal).map_err(Failure::operation)?;
    // Whoever is to be reached at an address that is taken cannot be reached: that is said now, and not in a log.
    let server = match setup.http()? {
        Some(settings) => Some(Server::bind(&settings).await.map_err(Failure::operation)?),
        None => None,
    };
    let alerts = Alerts::open(&setup)?;
    let mut daemon = Daemon::new(global.clone(), setup, watcher, alerts);
    daemon.open(server);
    daemon.first_look().await;
    let exit = daemon.serve(hangups).await;
    Ok(exit)
}

/// Whether a daemon uses this state directory.
pub(super) fn is_running(state_dir: &Path) -> bool {
    let opened = File::open(state_dir.join(LOCK));
    opened.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// One daemon for each state directory: two would run everything twice.
async fn lock(state_dir: &Path) -> Result<File, Failure> {
    let path = state_dir.join(LOCK);
    let failed = |error: std::io::Error| {
        Failure::operation(anyhow::Error::new(error).context(format!("lock {}", path.display())))
    };
    crate::store::durable::make_directories(state_dir).map_err(failed)?;
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(failed)?;
    // `check` holds it for a moment, to see whether somebody else does.
    for _ in 0..LOCK_TRIES {
        if file.try_lock().is_ok() {
            return Ok(file);
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::operation(anyhow!(
            "another `ernstfall run` uses the state directory {}: stop it first, or give this one a `state_dir` of its own",
            state_dir.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The whole, while it runs.
struct Daemon {
    global: Global,
    setup: watch::Sender<Arc<Setup>>,
    yard: Yard,
    fleet: Option<Fleet>,
    hearts: Option<Hearts>,
    alerts: Alerts,
    pages: Option<Reloader>,
    supervisor: Supervisor,
    gathered: watch::Sender<Arc<Gathered>>,
    configuration_fault: Option<String>,
}

impl Daemon {
    fn new(global: Global, setup: Arc<Setup>, watcher: Arc<Watcher>, alerts: Alerts) -> Self {
        Self {
            global,
            setup: watch::channel(setup).0,
            yard: Yard::new(watcher, Utc::now()),
            fleet: None,
            hearts: None,
            alerts,
            pages: None,
            supervisor: Supervisor::of_this_process(),
            gathered: watch::channel(Arc::default()).0,
            configuration_fault: None,
        }
    }

    /// Serves metrics and status; what asks whether this is ready hears that it is not.
    fn open(&mut self, server: Option<Server>) {
        let Some(server) = server else { return };
        tracing::info!("metrics and status at {}", server.address());
        self.gather();
        self.pages = Some(server.reloader());
        let source = Source {
            gathered: self.gathered.subscribe(),
            clock: Utc::now,
        };
        let stop = self.setup().signals.cancel.clone();
        self.yard.loops.spawn(server.serve(source, stop));
    }

    fn setup(&self) -> Arc<Setup> {
        self.setup.borrow().clone()
    }

    /// What other machines did counts for the schedule, so it is heard first, where that can be had.
    async fn first_look(&self) {
        let setup = self.setup();
        let look = look::look_everywhere(&self.yard.watcher, &setup, Chains::Whole);
        tokio::select! {
            () = look => {}
            () = setup.signals.cancel.cancelled() => {}
            () = tokio::time::sleep(FIRST_LOOK) => {
                self.yard.watcher.note_fault("it has not answered yet".to_owned());
            }
        }
    }

    /// Until a signal ends it.
    async fn serve(&mut self, mut hangups: Signal) -> Exit {
        let setup = self.setup();
        let cancel = setup.signals.cancel.clone();
        if let Some(exit) = setup.signals.exit() {
            return exit;
        }
        self.fleet = Some(self.yard.start(&setup, None));
        self.hearts = Some(Hearts::start(&setup, &self.yard.pulses, &self.yard.loops, &[]));
        let looks = tokio::spawn(look::keep_looking(
            Arc::clone(&self.yard.watcher),
            self.setup.subscribe(),
            self.yard.pulses.begin("the look at journal and repository"),
            cancel.clone(),
        ));
        let (supervisor, pulses) = (self.supervisor.clone(), self.yard.pulses.clone());
        let watchdog = tokio::spawn(async move { supervisor.watch(&pulses).await });
        self.gather();
        let (setup_now, gathered) = (self.setup.subscribe(), self.gathered.subscribe());
        self.alerts
            .start(setup_now, gathered, &self.yard.pulses, &self.yard.loops);
        self.supervisor.ready(&self.in_words());
        tracing::info!("ready: {}", self.in_words());
        self.turn(&mut hangups, &cancel).await;
        self.supervisor.stopping("cancelling what runs, and cleaning up");
        if let Some(fleet) = &self.fleet {
            fleet.stop();
        }
        if let Some(hearts) = &self.hearts {
            hearts.stop();
        }
        self.yard.loops.close();
        self.yard.loops.wait().await;
        watchdog.abort();
        for task in [looks, watchdog] {
            // One that was aborted says so, and nothing else can be wrong with it.
            let _ended = task.await;
        }
        tracing::info!("stopped");
        setup.signals.exit().unwrap_or(Exit::Done)
    }

    async fn turn(&mut self, hangups: &mut Signal, cancel: &tokio_util::sync::CancellationToken) {
        let pulse = self.yard.pulses.begin("the main loop");
        let mut words = String::new();
        loop {
            pulse.beat();
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = hangups.recv() => self.reload(),
                () = tokio::time::sleep(GATHER_EVERY) => {}
            }
            self.gather();
            let now = self.in_words();
            if now != words {
                self.supervisor.status(&now);
                words = now;
            }
        }
    }

    /// Takes the new configuration, or keeps the old one and says why.
    fn reload(&mut self) {
        self.supervisor.reloading();
        match self.load_again() {
            Ok(setup) => {
                let setup = Arc::new(setup);
                self.setup.send_replace(Arc::clone(&setup));
                self.fleet = Some(self.yard.start(&setup, self.fleet.as_ref()));
                let before = self.hearts.take().map(|hearts| {
                    hearts.stop();
                    hearts.states()
                });
                let before = before.unwrap_or_default();
                let (pulses, loops) = (&self.yard.pulses, &self.yard.loops);
                self.hearts = Some(Hearts::start(&setup, pulses, loops, &before));
                self.yard.watcher.keep_only(&setup);
                self.configuration_fault = None;
                tracing::info!("the configuration was read again: {}", self.in_words());
            }
            Err(failure) => {
                let reason = ops::chain(failure.error.as_ref());
                tracing::error!("the configuration stays as it was: {reason}");
                self.configuration_fault = Some(reason);
            }
        }
        self.gather();
        self.supervisor.ready(&self.in_words());
    }

    fn load_again(&self) -> Result<Setup, Failure> {
        let setup = self.setup().load_again(&self.global)?;
        // All that can fail comes first: a refused configuration must not be half in force.
        let channels = setup.channels()?;
        if let (Some(pages), Some(settings)) = (&self.pages, setup.http()?) {
            pages.reload(&settings).map_err(Failure::operation)?;
        }
        self.alerts.reload(channels);
        Ok(setup)
    }

    /// Puts together what views show.
    fn gather(&self) {
        let (known, setup) = (self.yard.watcher.known(), self.setup());
        self.gathered.send_replace(Arc::new(Gathered {
            started_at: self.yard.since,
            journal_fault: known.journal_fault(),
            targets: setup.config.targets.iter().map(TargetFacts::from).collect(),
            manifests: known.manifests,
            repository_seen_at: known.repository_seen_at,
            repository_fault: known.repository_fault,
            history: known.history,
            forgotten: known.forgotten,
            counted: known.counted,
            running: known.running,
            tasks: self.fleet.as_ref().map(Fleet::states).unwrap_or_default(),
            heartbeats: self.hearts.as_ref().map(Hearts::states).unwrap_or_default(),
            raised_test: alert_test::raised(&setup.config.state_dir),
            alerts: self.alerts.state(),
            configuration_fault: self.configuration_fault.clone(),
        }));
    }

    /// One line for `systemctl status`.
    fn in_words(&self) -> String {
        let targets = self.setup().config.targets.len();
        let states = self.fleet.as_ref().map(Fleet::states).unwrap_or_default();
        let running = self.yard.watcher.known().running.len();
        let waiting = states
            .iter()
            .filter(|state| state.waiting_since.is_some())
            .count();
        let fault = match &self.configuration_fault {
            Some(_) => "; the configuration could not be reloaded",
            None => "",
        };
        format!("targets: {targets}, running: {running}, waiting: {waiting}{fault}")
    }
}
