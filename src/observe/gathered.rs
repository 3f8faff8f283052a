//! What the daemon has gathered by one moment: metrics, pages and alerts are views of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::journal::{History, RunStart, Task};
use crate::model::target_name::TargetName;
use crate::observe::measures::Counted;
use crate::observe::status::TargetFacts;
use crate::observe::window::Forgotten;
use crate::repository::Manifests;

/// Replaced as a whole, and cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Gathered {
    /// When the daemon started, by this machine's clock.
    pub started_at: DateTime<Utc>,
    /// The targets of the configuration, in its order.
    pub targets: Vec<TargetFacts>,
    /// As the repository was last seen; a target that was never seen there is absent.
    pub manifests: BTreeMap<TargetName, Arc<Manifests>>,
    /// When all of the repository was last seen.
    pub repository_seen_at: Option<DateTime<Utc>>,
    /// Why it could not be seen the last time; `None` where it was.
    pub repository_fault: Option<String>,
    /// Why runs on this machine are not recorded, or their records not seen.
    pub journal_fault: Option<String>,
    /// Of this machine, and of others as the repository was last seen; without what says nothing any more.
    pub history: Arc<History>,
    /// What the records counted that `history` holds no longer.
    pub forgotten: Arc<Forgotten>,
    /// What this machine recorded since the daemon started, by whatever process.
    pub counted: Arc<BTreeMap<TargetName, Counted>>,
    /// Runs under way on this machine, in any process.
    pub running: Vec<RunStart>,
    pub tasks: Vec<TaskState>,
    pub heartbeats: Vec<HeartbeatState>,
    pub alerts: AlertsState,
    /// A test alert that is to be seen by Prometheus.
    pub raised_test: Option<RaisedTest>,
    /// Why the configuration that was last asked for is not in force.
    pub configuration_fault: Option<String>,
}

/// How one task of one target stands.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskState {
    pub target: TargetName,
    pub task: Task,
    /// In the words of the configuration.
    pub schedule: String,
    /// `None`: not before something happens, such as a backup.
    pub next_run_at: Option<DateTime<Utc>>,
    /// It is due, and waits for its turn.
    pub waiting_since: Option<DateTime<Utc>>,
    /// Of a run of this process.
    pub running_since: Option<DateTime<Utc>>,
    /// When a run of now would be given up.
    pub deadline: Option<Duration>,
    /// Slots without a run of their own, since the daemon started.
    pub skipped: u64,
}

/// How the daemon's own alerts stand.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AlertsState {
    pub firing: Vec<FiringAlert>,
    /// Those of the configuration, in its order.
    pub channels: Vec<ChannelState>,
}

/// An alert that people were told of, and that is not resolved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FiringAlert {
    /// Its name and severity are among them.
    pub labels: BTreeMap<String, String>,
    pub summary: String,
    /// Since when the condition holds.
    pub since: DateTime<Utc>,
}

/// How one alert channel stands; counted since the daemon started.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChannelState {
    pub name: String,
    /// `alertmanager`, `webhook`, `email` or `command`.
    pub kind: &'static str,
    pub delivered: u64,
    /// Tries that failed, and were not the last.
    pub retried: u64,
    /// Messages that several tries could not deliver; they are tried again.
    pub failed: u64,
    /// Messages that are not tried any more.
    pub given_up: u64,
    /// Messages that are not delivered yet.
    pub waiting: u64,
    pub last_delivered_at: Option<DateTime<Utc>>,
    /// Why the last try failed; `null` where it did not.
    pub fault: Option<String>,
}

/// A test alert that is shown as a metric, so that the whole way from Prometheus to people is tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RaisedTest {
    /// Of the alert test.
    pub test: String,
    /// In the place of which alert it stands.
    pub alert: String,
    /// Of that alert.
    pub severity: String,
    /// `null` where that alert is about no target alone.
    pub target: Option<TargetName>,
    pub environment: Option<String>,
    pub owner: Option<String>,
    /// It is over then, whether or not anybody has taken it away.
    pub until: DateTime<Utc>,
}

/// How the heartbeat of one target stands.
#[derive(Clone, Debug, PartialEq)]
pub struct HeartbeatState {
    pub target: TargetName,
    pub every: Duration,
    /// The last one that was written, by the source's clock.
    pub written_at: Option<DateTime<Utc>>,
    /// The source's clock minus ours, as last measured.
    pub clock_skew_seconds: Option<f64>,
    /// Why the last one could not be written.
    pub fault: Option<String>,
}
