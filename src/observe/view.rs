//! Everything that metrics, the page and alerts show of one moment. Of each target it says what `ernstfall status` says.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::journal::{ChainProblem, RunStart, Task};
use crate::model::backup_id::BackupId;
use crate::model::clocks::source_clock;
use crate::model::record::{Entry, Record};
use crate::model::target_name::TargetName;
use crate::observe::gathered::{AlertsState, Gathered, HeartbeatState, RaisedTest, TaskState};
use crate::observe::measures::{Counted, Measures};
use crate::observe::status::{self, Recorded, TargetFacts, TargetStatus};

/// A heartbeat that was written within so many of its intervals still tells the source's clock.
const FRESH_INTERVALS: u32 = 3;

/// And never less than this, so that a slow statement does not make it old.
const FRESH_AT_LEAST: Duration = Duration::from_secs(60);

/// What the daemon knows at one moment. Every field is always there, `null` where unknown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    /// Of the program.
    pub version: &'static str,
    /// The moment, by this machine's clock.
    pub at: DateTime<Utc>,
    pub started_at: DateTime<Utc>,
    /// When all of the repository was last seen; what is said of backups is as of then.
    pub repository_seen_at: Option<DateTime<Utc>>,
    /// Why it could not be seen the last time.
    pub repository_fault: Option<String>,
    /// Why runs on this machine are not recorded, or their records not seen.
    pub journal_fault: Option<String>,
    /// Why the configuration that was last asked for is not in force.
    pub configuration_fault: Option<String>,
    /// Records that are missing, changed or unreadable.
    pub record_problems: Vec<ChainProblem>,
    pub alerts: AlertsState,
    /// When every way that an alert test tried last brought it there.
    pub last_alert_test_success_at: Option<DateTime<Utc>>,
    /// A test alert that is shown to Prometheus now.
    pub raised_test: Option<RaisedTest>,
    /// Those of the configuration, in its order.
    pub targets: Vec<TargetView>,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TargetView {
    pub target: TargetName,
    pub environment: Option<String>,
    pub owner: Option<String>,
    pub rpo_seconds: Option<f64>,
    pub rto_seconds: Option<f64>,
    /// What `ernstfall status` says; `null` while the repository has not been seen.
    pub status: Option<TargetStatus>,
    /// `null` likewise.
    pub measures: Option<Measures>,
    pub counted: Counted,
    pub tasks: Vec<TaskView>,
    /// Runs under way on this machine, in any process.
    pub running: Vec<RunView>,
    /// `null` where it is switched off.
    pub heartbeat: Option<HeartbeatView>,
}

/// A task of the daemon's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TaskView {
    pub task: Task,
    /// In the words of the configuration.
    pub schedule: String,
    /// `null`: not before something happens, such as a backup.
    pub next_run_at: Option<DateTime<Utc>>,
    /// It is due, and waits for its turn.
    pub waiting_since: Option<DateTime<Utc>>,
    /// When a run of now would be given up.
    pub deadline_seconds: Option<f64>,
    /// Slots without a run of their own, since the daemon started.
    pub skipped: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunView {
    pub id: String,
    pub task: Task,
    pub started_at: DateTime<Utc>,
    /// The backup that it makes or reads, as soon as it is known.
    pub backup: Option<BackupId>,
    /// Of a backup that holds its snapshot: how old that is.
    pub snapshot_age_seconds: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeartbeatView {
    pub every_seconds: f64,
    /// The last one, by the source's clock.
    pub written_at: Option<DateTime<Utc>>,
    /// Why the last one could not be written.
    pub fault: Option<String>,
}

impl View {
    /// What was gathered, as it stands at this moment of our clock.
    pub fn of(gathered: &Gathered, now: DateTime<Utc>) -> Self {
        // Records are walked through once, and not once for each target.
        let mut records: BTreeMap<&TargetName, Vec<&Entry>> = BTreeMap::new();
        for entry in gathered.history.iter() {
            if let Some(target) = entry.record.target() {
                records.entry(target).or_default().push(entry);
            }
        }
        let targets = gathered.targets.iter().map(|facts| {
            let recorded = Recorded {
                entries: records.remove(&facts.name).unwrap_or_default(),
                problems: &gathered.history.problems,
            };
            TargetView::of(facts, gathered, &recorded, now)
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            at: now,
            started_at: gathered.started_at,
            repository_seen_at: gathered.repository_seen_at,
            repository_fault: gathered.repository_fault.clone(),
            journal_fault: gathered.journal_fault.clone(),
            configuration_fault: gathered.configuration_fault.clone(),
            record_problems: gathered.history.problems.clone(),
            alerts: gathered.alerts.clone(),
            last_alert_test_success_at: last_alert_test_success(gathered.history.iter()),
            raised_test: gathered.raised_test.clone().filter(|test| now < test.until),
            targets: targets.collect(),
        }
    }
}

/// An alert test of any machine counts: the way to people is the same.
fn last_alert_test_success<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Option<DateTime<Utc>> {
    let succeeded = entries.into_iter().filter_map(|entry| match &entry.record {
        Record::AlertTest(record) if record.succeeded => Some(record.finished_at),
        _ => None,
    });
    succeeded.max()
}

impl TargetView {
    fn of(facts: &TargetFacts, gathered: &Gathered, recorded: &Recorded<'_>, now: DateTime<Utc>) -> Self {
        let heartbeat = gathered.heartbeats.iter().find(|one| one.target == facts.name);
        let skew = heartbeat.and_then(|heartbeat| fresh_skew(heartbeat, now));
        let manifests = gathered.manifests.get(&facts.name);
        let records = recorded.entries.as_slice();
        let status = manifests.map(|manifests| {
            let mut status = status::of(facts, manifests, recorded, skew, now);
            if let Some(forgotten) = gathered.forgotten.get(&facts.name) {
                status.counts.add_runs(forgotten);
            }
            status
        });
        let measures =
            manifests.map(|manifests| Measures::of(&facts.name, &manifests.readable, records, now));
        let known_skew = status.as_ref().and_then(|status| status.clock_skew_seconds);
        let now_there = source_clock(now, skew.or(known_skew));
        let tasks = gathered.tasks.iter().filter(|task| task.target == facts.name);
        let running = gathered.running.iter().filter(|run| run.target == facts.name);
        Self {
            target: facts.name.clone(),
            environment: facts.environment.clone(),
            owner: facts.owner.clone(),
            rpo_seconds: facts.rpo_seconds,
            rto_seconds: facts.rto_seconds,
            status,
            measures,
            counted: gathered.counted.get(&facts.name).copied().unwrap_or_default(),
            tasks: tasks.map(TaskView::of).collect(),
            running: running.map(|run| RunView::of(run, now_there)).collect(),
            heartbeat: heartbeat.map(|heartbeat| HeartbeatView {
                every_seconds: heartbeat.every.as_secs_f64(),
                written_at: heartbeat.written_at,
                fault: heartbeat.fault.clone(),
            }),
        }
    }
}

/// The skew that the heartbeat measured, unless that was too long ago.
fn fresh_skew(heartbeat: &HeartbeatState, now: DateTime<Utc>) -> Option<f64> {
    let skew = heartbeat.clock_skew_seconds?;
    let age = (source_clock(now, Some(skew)) - heartbeat.written_at?).as_seconds_f64();
    let fresh = heartbeat
        .every
        .saturating_mul(FRESH_INTERVALS)
        .max(FRESH_AT_LEAST);
    (age <= fresh.as_secs_f64()).then_some(skew)
}

impl TaskView {
    fn of(state: &TaskState) -> Self {
        Self {
            task: state.task,
            schedule: state.schedule.clone(),
            next_run_at: state.next_run_at,
            waiting_since: state.waiting_since,
            deadline_seconds: state.deadline.map(|deadline| deadline.as_secs_f64()),
            skipped: state.skipped,
        }
    }
}

impl RunView {
    /// A backup's id tells the second of its snapshot, by the source's clock.
    fn of(run: &RunStart, now_there: DateTime<Utc>) -> Self {
        let snapshot = run.backup.as_ref().filter(|_| run.task == Task::Backup);
        let age = |taken: DateTime<Utc>| (now_there - taken).as_seconds_f64().max(0.0);
        Self {
            id: run.id.to_string(),
            task: run.task,
            started_at: run.started_at,
            backup: run.backup.clone(),
            snapshot_age_seconds: snapshot.and_then(BackupId::time).map(age),
        }
    }
}
