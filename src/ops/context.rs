//! What every use case needs: where backups live, where records go, who listens, when to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::journal::{Error, Journal, Run, RunId, RunStart, Task};
use crate::model::human_duration::HumanDuration;
use crate::model::target_name::TargetName;
use crate::repository::Repository;

use super::keys::Keys;

/// What a failed run may take to remove what it has stored. Requests have limits of their own; this is for very many.
const CLEAN_UP: Duration = Duration::from_secs(600);

/// The same when somebody waits for the end: systemd kills a unit that takes 90 s.
pub(super) const CLEAN_UP_AFTER_SIGNAL: Duration = Duration::from_secs(20);

/// Longer than any process lives.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Hears how a run goes on. All methods may be called from several tasks.
pub trait Progress: Send + Sync {
    /// A phase begins.
    fn phase(&self, name: &str);
    /// So many bytes of rows are expected.
    fn expect_bytes(&self, bytes: u64);
    /// Rows have gone by.
    fn rows(&self, rows: u64, bytes: u64);
    /// Something a person should read.
    fn note(&self, text: &str);
}

/// The surroundings of a run.
#[derive(Clone)]
pub struct Context {
    pub repository: Arc<Repository>,
    /// What backups are encrypted to, and what reads encrypted ones.
    pub keys: Keys,
    pub journal: Arc<Journal>,
    /// Where the PostgreSQL programs are, if not where they usually are.
    pub bin_dir: Option<PathBuf>,
    pub progress: Arc<dyn Progress>,
    /// The first signal: stop at the next safe point and clean up.
    pub cancel: CancellationToken,
    /// A run that is not over by then is given up: it hangs. `None`: as long as it takes.
    pub deadline: Option<Deadline>,
    pub state_dir: PathBuf,
    /// The wall clock; durations never come from it.
    pub clock: fn() -> DateTime<Utc>,
}

/// When a run is given up.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    length: Duration,
    at: Instant,
}

impl Deadline {
    /// So long from now.
    pub fn after(length: Duration) -> Self {
        let now = Instant::now();
        Self {
            length,
            at: now.checked_add(length).unwrap_or(now + FAR_FUTURE),
        }
    }
}

/// Why a run is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    #[error("cancelled by a signal")]
    Signal,
    #[error(
        "given up after {}, which is its deadline: it hung, or was far slower than usual; look at what it was doing, or raise `timeouts` of the target",
        HumanDuration::from_seconds(.0.as_secs())
    )]
    Deadline(Duration),
}

impl Halt {
    /// Returns when a run shall end.
    pub async fn wait(cancel: &CancellationToken, deadline: Option<Deadline>) -> Self {
        let past = async {
            match deadline {
                Some(deadline) => {
                    tokio::time::sleep_until(deadline.at).await;
                    Self::Deadline(deadline.length)
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = cancel.cancelled() => Self::Signal,
            halt = past => halt,
        }
    }
}

impl Context {
    /// Returns when the run shall end.
    pub(super) async fn halted(&self) -> Halt {
        Halt::wait(&self.cancel, self.deadline).await
    }

    /// Returns when removing what was stored has taken as long as it may, counted from this call or from the signal; and
    /// how long that is.
    pub(super) async fn clean_up_is_over(&self) -> Duration {
        let after_signal = async {
            self.cancel.cancelled().await;
            tokio::time::sleep(CLEAN_UP_AFTER_SIGNAL).await;
        };
        tokio::select! {
            () = tokio::time::sleep(CLEAN_UP) => CLEAN_UP,
            () = after_signal => CLEAN_UP_AFTER_SIGNAL,
        }
    }

    /// Notes in the journal that a run has begun, so that a killed one is found.
    pub(super) fn start_run(
        &self,
        task: Task,
        target: &TargetName,
        now: DateTime<Utc>,
    ) -> Result<Run, Error> {
        self.journal.start_run(RunStart {
            id: RunId::new(now)?,
            task,
            target: target.clone(),
            backup: None,
            started_at: now,
            pid: std::process::id(),
        })
    }
}
