//! Prune: removes the backups that a target's retention keeps no longer, and objects that belong to no backup.
//!
//! - `plan` decides on a fresh listing, and touches nothing.
//! - `removal` does what the plan says: manifests first, objects only after the grace time.

mod plan;
mod removal;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::journal::Error as JournalError;
use crate::journal::{History, Task};
use crate::model::record::{FORMAT, Outcome, Record, Trigger};
use crate::model::retention::Policy;
use crate::model::target_name::TargetName;
use crate::model::upkeep::PruneRecord;
use crate::ops::context::{Context, Halt};
use crate::repository::Error as RepositoryError;
use crate::store::ErrorKind;

pub use plan::{Leftover, Plan, PlannedBackup, plan, time_of_reading};
use removal::Removal;

/// What pruning needs to know of a target. No connection: it asks the source nothing.
#[derive(Clone, Debug)]
pub struct Settings {
    pub target: TargetName,
    /// Without one, nothing is ever removed.
    pub retention: Option<Policy>,
    /// No backup under way can be older than this.
    pub max_snapshot_age: Duration,
    /// The records as of now, where whoever asks has followed them; `None`: all are read.
    pub known: Option<Arc<History>>,
}

/// Why nothing, or not all, was removed.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(
        "pruning needs the right to list and to delete below targets/{target}/: grant it, or prune with other credentials"
    )]
    Denied {
        target: TargetName,
        source: RepositoryError,
    },
    #[error("read the records, without which it is not known which backups passed a restore test")]
    Journal(#[source] JournalError),
    #[error(
        "`{key}` is dated {dated}, which is later than the clock of this machine ({now}): ages cannot be told, so nothing is removed; set the clock right here, or where the object was stored"
    )]
    FromTheFuture {
        key: String,
        dated: DateTime<Utc>,
        now: DateTime<Utc>,
    },
    #[error(
        "a newer version wrote {0}, and may use objects of other backups, so nothing is removed: update ernstfall"
    )]
    NewerFormat(String),
    #[error(transparent)]
    Halted(#[from] Halt),
}

impl PruneError {
    fn of(target: &TargetName, error: RepositoryError) -> Self {
        match error {
            RepositoryError::Store(store) if store.kind == ErrorKind::PermissionDenied => Self::Denied {
                target: target.clone(),
                source: store.into(),
            },
            other => Self::Repository(other),
        }
    }
}

/// Prunes one target. The record is in the journal when this returns; there is none where nothing was to be done.
///
/// # Errors
/// Only where no record could be kept; a prune that failed is a record.
pub async fn prune(
    context: &Context,
    settings: &Settings,
    trigger: Trigger,
) -> Result<Option<PruneRecord>, JournalError> {
    let started_at = (context.clock)();
    let planned = tokio::select! {
        planned = plan(context, settings) => planned,
        halt = context.halted() => Err(halt.into()),
    };
    if let Ok(plan) = &planned {
        plan.remarks
            .iter()
            .for_each(|remark| context.progress.note(remark));
        if !plan.has_work() {
            return Ok(None);
        }
    }
    let run = context.start_run(Task::Prune, &settings.target, started_at)?;
    let (result, (done, kept)) = match &planned {
        Ok(plan) => {
            let removal = Removal::new(context, plan, run.id());
            (removal.carry_out_in_time().await, removal.into_done())
        }
        Err(_) => (Ok(()), Default::default()),
    };
    let result = planned.and(result);
    let record = PruneRecord {
        format: FORMAT,
        id: run.id().to_string(),
        target: settings.target.clone(),
        trigger,
        outcome: match &result {
            Ok(()) => Outcome::Succeeded,
            Err(PruneError::Halted(Halt::Signal)) => Outcome::Cancelled,
            Err(_) => Outcome::Failed,
        },
        reason: result.err().map(|error| crate::ops::chain(&error)),
        started_at,
        finished_at: (context.clock)(),
        objects: done.objects,
        freed_bytes: done.freed_bytes,
        kept,
        removed: done.removed,
    };
    run.finish(Record::Prune(record.clone()))?;
    Ok(Some(record))
}
