//! Backup: lock first, then look; schema by pg_dump; rows by COPY; manifest last.
//!
//! - `attempt` is one try from the locks to the stored objects; it is started over when the schema
//!   moved under it.
//! - `prepare` connects, and checks what can be checked before a lock is taken.
//! - `schema` dumps the schema and reads what belongs to it.
//! - `evidence` finds the recovery point, by clock, replay or heartbeat.
//! - `excluded` finds what `exclude` leaves out, with all that depends on it.
//! - `plan` decides what is copied, what is not covered, and how big tables are split.
//! - `copying` runs the workers.
//! - `puts` are the objects on their way into the repository.
//! - `sink` turns rows into stored objects.
//! - `pace` keeps reading at the rate that is allowed.
//! - `watch` looks who waits behind the backup.
//! - `finish` stores everything but the rows.
//! - `shrank` finds out whether much is gone since the backup before.

mod attempt;
mod copying;
mod evidence;
pub(super) mod excluded;
mod finish;
mod guide;
mod pace;
pub(super) mod plan;
pub(super) mod prepare;
mod puts;
mod schema;
mod shrank;
mod sink;
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::journal::{Error as JournalError, Run, RunId, Task};
use crate::model::backup_id::BackupId;
use crate::model::contents::NotCovered;
use crate::model::manifest::Manifest;
use crate::model::record::{BackupRecord, FORMAT, Outcome, Record, Trigger};
use crate::model::verification::{Finding, Severity};
use crate::ops::context::{Context, Halt};
use crate::ops::phases::Phases;
use crate::ops::target::Target;
use crate::postgres::ChildError;
use crate::postgres::error::Error as PostgresError;
use crate::postgres::programs::ProgramsError;
use crate::postgres::snapshot::SnapshotError;
use crate::repository::{Error as RepositoryError, OtherIdentity};

use super::privileges::MissingPrivileges;
use puts::Puts;

/// How often a backup is started over because the schema moved under it.
const ATTEMPTS: u32 = 3;

/// What the caller wants of this backup.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub trigger: Trigger,
    /// What to do when the source is not the one that the target's backups are of.
    pub other_identity: OtherIdentity,
}

/// Why a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Snapshot(SnapshotError),
    #[error(
        "the schema of {on} kept changing: {change}; started over {ATTEMPTS} times: back up at a quieter time"
    )]
    SchemaKeptMoving { on: String, change: String },
    #[error("the schema changed while the backup ran: {0}")]
    SchemaMoved(String),
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(
        "check the rights of {role} on {on}: {missing} (`ernstfall grants` prints all that the role needs)"
    )]
    Privileges {
        role: String,
        on: String,
        missing: MissingPrivileges,
    },
    #[error(
        "{on} runs PostgreSQL {version}, and the oldest that can be backed up is 13: upgrade the server first"
    )]
    ServerTooOld { on: String, version: String },
    #[error("another backup of {target} is running on {on} ({holder}): wait for it, or end it")]
    AlreadyRunning {
        target: String,
        on: String,
        holder: String,
    },
    #[error(
        "read {table}: the row at ctid {ctid} cannot be read ({error}): mend or delete that row, or leave the table's rows out with `exclude_data`"
    )]
    UnreadableRow {
        table: String,
        ctid: String,
        error: Box<PostgresError>,
    },
    #[error(
        "{table}: {streamed} rows arrived, but the server counts {counted} in the same snapshot: the table or an index of it may be corrupt; check it with amcheck"
    )]
    CountDiffers {
        table: String,
        streamed: u64,
        counted: u64,
    },
    #[error(
        "{waiter}; the target says on_blocked_ddl = \"abort\", so the backup gave way: it can be run again once that statement is through"
    )]
    GaveWay { waiter: String },
    #[error(
        "the snapshot grew older than max_snapshot_age ({0:?}): raise it, use more jobs, exclude data, or raise `limits.max_rate` if that is set"
    )]
    SnapshotTooOld(std::time::Duration),
    #[error(
        "the target {target} excludes what stands inside the definition of tables that stay ({needs}), so that these could not be restored: use `exclude_data`, which keeps the definition, or exclude those tables as well"
    )]
    ExcludedIsInside { target: String, needs: String },
    #[error(
        "exclude leaves out partitions ({0}) of a table whose rows may belong to another partition in a copy, which would then have no place for them: use `exclude_data`, or exclude the whole table"
    )]
    ExcludedPartitions(String),
    #[error("the source has not answered for {} s: look at its load and its disks, and at the network", .0.as_secs())]
    SourceSilent(std::time::Duration),
    #[error("make a work directory in the state directory")]
    WorkDirectory(#[source] std::io::Error),
    #[error("compress or encrypt {0}")]
    Pack(String, #[source] std::io::Error),
    #[error("a task of the backup ended unexpectedly")]
    Task(#[from] tokio::task::JoinError),
    #[error("keep the journal")]
    Journal(#[from] JournalError),
    #[error(
        "the recovery point of a backup of {on} is unknown: {why}, and no heartbeat that can be believed has arrived: set the target's `heartbeat`, with the primary's address as its `url`, and let `ernstfall run` write it; or back up the primary"
    )]
    RecoveryPointUnknown { on: String, why: &'static str },
    #[error(transparent)]
    Halted(#[from] Halt),
}

/// What a run has found out so far, whether or not it succeeds.
#[derive(Default)]
struct Notes {
    backup: Option<BackupId>,
    attempts: u32,
    clock_skew_seconds: Option<f64>,
    not_covered: Vec<NotCovered>,
    uncovered_databases: Option<u64>,
    findings: Vec<Finding>,
    /// Of the backup that is about to exist.
    counts: Option<shrank::Counts>,
}

/// The notes of one run, and what it has under way.
#[derive(Default)]
struct Notebook {
    notes: Mutex<Notes>,
    puts: Puts,
}

impl Notebook {
    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Notebook {
    fn drop(&mut self) {
        self.puts.give_up();
    }
}

fn warning(subject: &str, message: String) -> Finding {
    Finding {
        severity: Severity::Warning,
        subject: subject.to_owned(),
        message,
    }
}

/// Takes one backup of the target. The record is in the journal when this returns.
///
/// # Errors
/// Only where no record could be kept; a failed backup is a record.
pub async fn backup(
    context: &Context,
    target: &Target,
    options: Options,
) -> Result<BackupRecord, JournalError> {
    let started_at = (context.clock)();
    let mut run = context.start_run(Task::Backup, &target.name, started_at)?;
    let notes = Notebook::default();
    let mut phases = Phases::new(context.progress.as_ref());
    let work = perform(context, target, options, &mut run, &notes, &mut phases);
    let result = tokio::select! {
        result = work => result,
        halt = context.halted() => Err(halt.into()),
    };
    let result = match result {
        Ok(manifest) => Ok(manifest),
        Err(error) => give_up(context, target, &notes).await.ok_or(error),
    };
    let notes = std::mem::take(&mut *notes.lock());
    let record = record(
        target,
        options,
        started_at,
        (context.clock)(),
        run.id(),
        &result,
        notes,
        phases.take(),
    );
    run.finish(Record::Backup(record.clone()))?;
    Ok(record)
}

/// Removes what a failed backup has stored, and gives what is none: one that was complete when the signal came is a
/// backup like any other. A repository that hangs holds this up for a while only.
async fn give_up(context: &Context, target: &Target, notes: &Notebook) -> Option<Manifest> {
    let id = notes.lock().backup.clone();
    let removal = async {
        notes.puts.wait().await;
        let id = id.as_ref()?;
        match context.repository.remove_unfinished(&target.name, id).await {
            Ok(_) => None,
            Err(RepositoryError::BackupExists { .. }) => {
                context.repository.manifest(&target.name, id).await.ok()
            }
            Err(kept) => {
                note_left_behind(context, id, &crate::ops::chain(&kept));
                None
            }
        }
    };
    tokio::select! {
        complete = removal => complete,
        limit = context.clean_up_is_over() => {
            if let Some(id) = &id {
                note_left_behind(context, id, &format!("removing them took longer than {} s", limit.as_secs()));
            }
            None
        }
    }
}

/// Objects without a manifest are no backup; they only take space. A host that may only write cannot remove them.
fn note_left_behind(context: &Context, id: &BackupId, why: &str) {
    context.progress.note(&format!(
        "objects of the unfinished backup {id} stay behind, until `ernstfall prune` removes them: {why}"
    ));
}

#[expect(
    clippy::too_many_arguments,
    reason = "it only puts a record together from its parts"
)]
fn record(
    target: &Target,
    options: Options,
    started_at: chrono::DateTime<chrono::Utc>,
    finished_at: chrono::DateTime<chrono::Utc>,
    run_id: &RunId,
    result: &Result<Manifest, BackupError>,
    notes: Notes,
    phases: Vec<crate::model::record::Phase>,
) -> BackupRecord {
    let manifest = result.as_ref().ok();
    let outcome = match result {
        Ok(_) => Outcome::Succeeded,
        Err(BackupError::Halted(Halt::Signal)) => Outcome::Cancelled,
        Err(_) => Outcome::Failed,
    };
    BackupRecord {
        format: FORMAT,
        id: run_id.to_string(),
        target: target.name.clone(),
        environment: target.environment.clone(),
        owner: target.owner.clone(),
        trigger: options.trigger,
        outcome,
        reason: result.as_ref().err().map(|error| crate::ops::chain(error)),
        backup: manifest.map(|manifest| manifest.id.clone()),
        started_at,
        finished_at,
        recovery_point: manifest.map(|manifest| manifest.recovery_point),
        clock_skew_seconds: notes.clock_skew_seconds,
        attempts: notes.attempts,
        phases,
        totals: manifest.map(|manifest| manifest.totals),
        not_covered: notes.not_covered,
        uncovered_databases: notes.uncovered_databases,
        findings: notes.findings,
    }
}

async fn perform(
    context: &Context,
    target: &Target,
    options: Options,
    run: &mut Run,
    notes: &Notebook,
    phases: &mut Phases<'_>,
) -> Result<Manifest, BackupError> {
    phases.begin("connect");
    let prepared = prepare::prepare(context, target, options, notes).await?;
    let mut change = String::new();
    for attempt in 1..=ATTEMPTS {
        notes.lock().attempts = attempt;
        notes.lock().not_covered.clear();
        let result = attempt::run(context, target, &prepared, run, notes, phases).await;
        let moved = match result {
            Err(
                BackupError::Snapshot(SnapshotError::SchemaMoved(change)) | BackupError::SchemaMoved(change),
            ) => change,
            other => return other,
        };
        context.progress.note(&format!("starting over: {moved}"));
        discard(context, target, notes).await;
        change = moved;
    }
    Err(BackupError::SchemaKeptMoving {
        on: prepared.guard.description().to_owned(),
        change,
    })
}

/// Removes what a given-up attempt has stored. Until that is done it is still known, for a signal that comes meanwhile.
async fn discard(context: &Context, target: &Target, notes: &Notebook) {
    notes.puts.wait().await;
    let id = notes.lock().backup.clone();
    if let Some(id) = id
        && let Err(kept) = context.repository.remove_unfinished(&target.name, &id).await
    {
        note_left_behind(context, &id, &crate::ops::chain(&kept));
    }
    notes.lock().backup = None;
}
