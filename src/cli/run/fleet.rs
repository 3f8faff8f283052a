//! The loops of one configuration: for each target its backups, restore tests and prunes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as Cell};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::setup::Setup;
use crate::config;
use crate::daemon::{Driver, DriverState, Gate, Job, Pulses};
use crate::journal::Task;
use crate::model::human_duration::HumanDuration;
use crate::model::schedule::Schedule;
use crate::model::target_name::TargetName;
use crate::observe::gathered::TaskState;

use super::jobs::{Backup, Common, Prune, RestoreTest, Scheduled};
use super::known::Watcher;

/// Retention is applied so often; where it finds nothing to do, that costs a few listings.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);

/// But not less often than after so many backups.
const BACKUPS_PER_PRUNE: u32 = 10;

/// What is spread over time takes at most this part of a schedule's interval.
const SPREAD_PART: u32 = 10;

type Key = (TargetName, Task);

/// What outlives a configuration.
pub(super) struct Yard {
    pub(super) watcher: Arc<Watcher>,
    pub(super) pulses: Pulses,
    /// When the daemon started.
    pub(super) since: DateTime<Utc>,
    /// All loops there are, of earlier configurations too.
    pub(super) loops: TaskTracker,
    backups: Gate,
    restore_tests: Gate,
    prunes: Gate,
    turns: BTreeMap<Key, Arc<Mutex<()>>>,
    /// Since when each task of a target is wanted: before that, nothing can have been missed.
    wanted_since: BTreeMap<Key, DateTime<Utc>>,
}

/// The loops of the configuration that is in force.
pub(super) struct Fleet {
    stop: CancellationToken,
    members: Vec<Member>,
}

struct Member {
    key: Key,
    schedule: String,
    state: watch::Receiver<DriverState>,
}

impl Yard {
    pub(super) fn new(watcher: Arc<Watcher>, since: DateTime<Utc>) -> Self {
        let default = config::Limits::default();
        Self {
            watcher,
            pulses: Pulses::default(),
            since,
            loops: TaskTracker::new(),
            backups: Gate::new(default.max_backups),
            restore_tests: Gate::new(default.max_restore_tests),
            prunes: Gate::new(1),
            turns: BTreeMap::new(),
            wanted_since: BTreeMap::new(),
        }
    }

    /// Starts the loops of a configuration. Those of the one before begin nothing any more, and what they run goes on.
    pub(super) fn start(&mut self, setup: &Arc<Setup>, before: Option<&Fleet>) -> Fleet {
        let config = &setup.config;
        self.backups.set_limit(config.limits.max_backups);
        self.restore_tests.set_limit(config.limits.max_restore_tests);
        if let Some(before) = before {
            before.stop.cancel();
        }
        let skipped = before.map(Fleet::skipped).unwrap_or_default();
        let stop = setup.signals.cancel.child_token();
        let since = if before.is_some() { Utc::now() } else { self.since };
        let wanted_before = std::mem::take(&mut self.wanted_since);
        let mut members = Vec::new();
        for (place, target) in config.targets.iter().enumerate() {
            let part = place as f64 / config.targets.len() as f64;
            for (task, schedule) in schedules(target) {
                let key = (target.name.clone(), task);
                let wanted_since = wanted_before.get(&key).copied().unwrap_or(since);
                self.wanted_since.insert(key.clone(), wanted_since);
                let (state, receiver) = watch::channel(DriverState {
                    skipped: skipped.get(&key).copied().unwrap_or(0),
                    ..DriverState::default()
                });
                let driver = Driver {
                    job: self.job(setup, target, task, schedule.clone(), wanted_since),
                    gate: self.gate(task),
                    turn: Arc::clone(self.turns.entry(key.clone()).or_default()),
                    offset: spread(&schedule, config.limits.jitter.into()).mul_f64(part),
                    pulses: self.pulses.clone(),
                    clock: Arc::new(Utc::now),
                    changed: self.watcher.changes(),
                    since: Utc::now(),
                    state,
                    stop: stop.clone(),
                };
                self.loops.spawn(driver.run());
                members.push(Member {
                    key,
                    schedule: schedule.to_string(),
                    state: receiver,
                });
            }
        }
        Fleet { stop, members }
    }

    fn gate(&self, task: Task) -> Gate {
        match task {
            Task::Backup => self.backups.clone(),
            Task::RestoreTest => self.restore_tests.clone(),
            Task::Restore | Task::Scrub | Task::Prune => self.prunes.clone(),
        }
    }

    fn job(
        &self,
        setup: &Arc<Setup>,
        target: &config::Target,
        task: Task,
        schedule: Schedule,
        since: DateTime<Utc>,
    ) -> Arc<dyn Job> {
        let common = Common {
            setup: Arc::clone(setup),
            watcher: Arc::clone(&self.watcher),
            target: target.clone(),
            task,
            schedule,
            since,
            name: format!("{} of {}", task.as_str().replace('_', " "), target.name),
            unrecorded: Cell::default(),
        };
        match task {
            Task::RestoreTest => Arc::new(Scheduled {
                common,
                work: RestoreTest,
            }),
            Task::Prune => Arc::new(Scheduled { common, work: Prune }),
            Task::Backup | Task::Restore | Task::Scrub => Arc::new(Scheduled { common, work: Backup }),
        }
    }
}

impl Fleet {
    /// Begins nothing any more.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    pub(super) fn states(&self) -> Vec<TaskState> {
        self.members.iter().map(Member::state).collect()
    }

    fn skipped(&self) -> BTreeMap<Key, u64> {
        let skipped = |member: &Member| (member.key.clone(), member.state.borrow().skipped);
        self.members.iter().map(skipped).collect()
    }
}

impl Member {
    fn state(&self) -> TaskState {
        let state = self.state.borrow().clone();
        TaskState {
            target: self.key.0.clone(),
            task: self.key.1,
            schedule: self.schedule.clone(),
            next_run_at: state.next_run_at,
            waiting_since: state.waiting_since,
            running_since: state.running_since,
            deadline: state.deadline,
            skipped: state.skipped,
        }
    }
}

/// What the configuration wants to be done with a target, and when.
fn schedules(target: &config::Target) -> Vec<(Task, Schedule)> {
    let between_backups = target.backup.as_ref().and_then(Schedule::longest_gap);
    let prune_every = between_backups.map_or(PRUNE_EVERY, |gap| {
        PRUNE_EVERY.min(gap.saturating_mul(BACKUPS_PER_PRUNE))
    });
    let prune_every = HumanDuration::from_seconds(prune_every.as_secs().max(1));
    let prune = target.retention.map(|_| Schedule::Every(prune_every));
    [
        (Task::Backup, target.backup.clone()),
        (Task::RestoreTest, target.restore_test.clone()),
        (Task::Prune, prune),
    ]
    .into_iter()
    .filter_map(|(task, schedule)| Some((task, schedule?)))
    .collect()
}

/// Over how long the targets' runs are spread that are due at one moment.
fn spread(schedule: &Schedule, jitter: Duration) -> Duration {
    let gap = schedule.longest_gap().unwrap_or(jitter);
    jitter.min(gap / SPREAD_PART)
}
