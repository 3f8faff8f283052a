//! `restore`: the real thing, into an empty database of a running server.

use std::sync::Arc;

use serde::Serialize;

use crate::journal::{Error as JournalError, Run, Task};
use crate::model::contents::NotCovered;
use crate::model::manifest::{Manifest, RecoveryPoint, Totals};
use crate::model::record::{FORMAT, Outcome, Record, RestoreRecord, Verdict};
use crate::model::target_name::TargetName;
use crate::model::verification::{Mismatch, Verification};
use crate::ops::compare_schema::compare_schema;
use crate::ops::context::Context;
use crate::ops::phases::Phases;
use crate::ops::verify::{self, Copy, CopyKind};
use crate::ops::work_directory::WorkDirectory;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::dump::Tablespaces;
use crate::postgres::facts;
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;

use super::build::{self, Backup, Destination, Powers};
use super::marker::{Marker, WHOLE_DATABASE};
use super::source::{self, Choice, Reader};
use super::{RestoreError, destination, files, lacks};

/// What the caller wants of this restore.
#[derive(Clone, Debug)]
pub struct Options {
    pub choice: Choice,
    pub broken: Broken,
    pub jobs: usize,
    pub tablespaces: Tablespaces,
}

/// What to do with a restore that broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Continue,
    /// What it left is removed first.
    StartOver,
}

/// What a restore would do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub target: TargetName,
    pub backup: String,
    pub recovery_point: RecoveryPoint,
    pub totals: Totals,
    pub destination: String,
    pub server_version: String,
    pub pg_restore_version: String,
    /// It continues a restore that broke.
    pub continues: bool,
    pub roles: Vec<String>,
    /// What the backup does not hold.
    pub not_covered: Vec<NotCovered>,
    pub steps: Vec<String>,
    /// What is missing; the restore is refused while there is anything.
    pub lacking: Vec<String>,
}

/// A restore that may begin.
struct Prepared {
    backup: Backup,
    session: Session,
    destination: Destination,
    continues: bool,
    lacking: Vec<String>,
}

/// Looks at the backup and the destination, and changes nothing.
///
/// # Errors
/// When there is no such backup, it cannot be read, or the destination is not to be restored into.
pub async fn plan(
    context: &Context,
    target: &TargetName,
    to: &ConnectionSettings,
    options: &Options,
) -> Result<Plan, RestoreError> {
    let work = files::work_directory(context, "plan")?;
    let prepared = prepare(context, target, to, options, &work).await?;
    let manifest = &prepared.backup.manifest;
    let totals = manifest.totals;
    let mut steps = vec![
        format!(
            "create the roles that are missing of {}",
            prepared.backup.contents.roles.len()
        ),
        "restore the schema up to the tables".to_owned(),
        format!(
            "load {} rows of {} tables with {} connections",
            totals.rows, totals.tables, options.jobs
        ),
        "build indexes and constraints".to_owned(),
        format!(
            "set {} sequences, restore {} large objects, refresh views",
            totals.sequences, totals.large_objects
        ),
        "analyze".to_owned(),
        "compare every table with what the source had sent".to_owned(),
    ];
    if options.broken == Broken::StartOver && prepared.continues {
        steps.insert(0, "remove what the broken restore left".to_owned());
    }
    Ok(Plan {
        target: target.clone(),
        backup: manifest.id.to_string(),
        recovery_point: manifest.recovery_point,
        totals,
        destination: prepared.session.description().to_owned(),
        server_version: prepared.session.server_version().to_owned(),
        pg_restore_version: prepared.destination.installation.version.clone(),
        continues: prepared.continues && options.broken == Broken::Continue,
        roles: prepared.backup.contents.roles.clone(),
        not_covered: prepared.backup.contents.not_covered.clone(),
        steps,
        lacking: prepared.lacking,
    })
}

/// Restores a backup. The record is in the journal when this returns.
///
/// # Errors
/// Only where no record could be kept; a failed restore is a record.
pub async fn restore(
    context: &Context,
    target: &TargetName,
    to: &ConnectionSettings,
    options: &Options,
) -> Result<RestoreRecord, JournalError> {
    let started_at = (context.clock)();
    let mut run = context.start_run(Task::Restore, target, started_at)?;
    let mut phases = Phases::new(context.progress.as_ref());
    let mut manifest = None;
    let work = perform(context, target, to, options, &mut run, &mut phases, &mut manifest);
    let result = tokio::select! {
        result = work => result,
        halt = context.halted() => Err(halt.into()),
    };
    let (outcome, verdict, reason) = judge(&result);
    let record = RestoreRecord {
        format: FORMAT,
        id: run.id().to_string(),
        target: target.clone(),
        backup: manifest.map(|manifest: Manifest| manifest.id),
        destination: to.describe(),
        outcome,
        verdict,
        reason,
        started_at,
        finished_at: (context.clock)(),
        phases: phases.take(),
        tables: None,
        verification: result.ok(),
    };
    run.finish(Record::Restore(record.clone()))?;
    Ok(record)
}

/// How the restore ended, what it says of the backup, and why.
pub(super) fn judge(result: &Result<Verification, RestoreError>) -> (Outcome, Verdict, Option<String>) {
    match result {
        Ok(verification) => match verification.mismatches.first() {
            None => (Outcome::Succeeded, Verdict::Passed, None),
            Some(first) => {
                let Mismatch {
                    kind,
                    name,
                    expected,
                    found,
                } = first;
                let reason = format!(
                    "the restored database differs: {kind} {name}: expected {expected}, found {found}"
                );
                (Outcome::Failed, Verdict::Failed, Some(reason))
            }
        },
        Err(RestoreError::Halted(halt)) => (Outcome::Cancelled, Verdict::CouldNotRun, Some(halt.to_string())),
        Err(error) => (Outcome::Failed, error.verdict(), Some(crate::ops::chain(error))),
    }
}

/// Which backup is meant: a broken restore goes on with its own, unless something else is asked for.
fn choice(begun: Option<&str>, options: &Options) -> Choice {
    match (
        begun.and_then(|id| id.parse().ok()),
        &options.choice,
        options.broken,
    ) {
        (Some(id), Choice::Newest, Broken::Continue) => Choice::Exactly(id),
        (_, choice, _) => choice.clone(),
    }
}

/// Chooses the backup, connects, and finds everything that stands in the way.
async fn prepare(
    context: &Context,
    target: &TargetName,
    to: &ConnectionSettings,
    options: &Options,
    work: &WorkDirectory,
) -> Result<Prepared, RestoreError> {
    crate::postgres::refuse_transaction_pooler(to).await?;
    let session = Session::connect(to, "restore", None).await?;
    if let Some(holder) = Marker::lock(&session, WHOLE_DATABASE).await? {
        return Err(RestoreError::Refused(format!(
            "another restore into {} is running ({holder}): wait for it, or end it",
            session.description()
        )));
    }
    let begun = Marker::find(&session).await?;
    let choice = choice(begun.as_deref(), options);
    let manifest = source::locate(&context.repository, target, &choice, (context.clock)()).await?;
    if begun.is_none()
        && let Some(objects) = destination::user_objects(&session).await?
    {
        return Err(RestoreError::Refused(format!(
            "{} is not empty ({objects}), and nothing is ever restored over data: create an empty database with CREATE DATABASE … TEMPLATE template0, and restore into that",
            session.description()
        )));
    }
    if let Some(id) = &begun
        && *id != manifest.id.to_string()
        && options.broken == Broken::Continue
    {
        return Err(RestoreError::Refused(format!(
            "{} holds an unfinished restore of backup {id}: continue it with --backup {id}, or remove it with --start-over",
            session.description()
        )));
    }
    let reader = Reader::open(&context.keys, &context.repository, &manifest).await?;
    let mut contents = reader.contents(&manifest).await?;
    if options.tablespaces == Tablespaces::OfTheDatabase {
        contents.leave_out_tablespaces();
    }
    let backup = Backup::new(reader, manifest, contents).await?;
    let contents = &backup.contents;
    let mut lacking = lacks::destination(&session, contents).await?;
    lacking.extend(lacks::roles(&session, contents).await?);
    let source_major = contents.database.server_version_num / 10_000;
    let major = u32::try_from(source_major.max(session.server_version_num() / 10_000)).unwrap_or(0);
    let installation = Programs::client_for(context.bin_dir.as_deref(), major)?;
    let powers = Powers::of(facts::role_powers(&session).await?.superuser);
    let mut destination = Destination::new(
        to.clone(),
        installation,
        options.jobs,
        work.path().to_owned(),
        powers,
    );
    destination.tablespaces = options.tablespaces;
    destination.marker = Some(Marker {
        connection: to.clone(),
    });
    Ok(Prepared {
        backup,
        session,
        destination,
        continues: begun.is_some(),
        lacking,
    })
}

async fn perform(
    context: &Context,
    target: &TargetName,
    to: &ConnectionSettings,
    options: &Options,
    run: &mut Run,
    phases: &mut Phases<'_>,
    manifest: &mut Option<Manifest>,
) -> Result<Verification, RestoreError> {
    phases.begin("locate");
    let work = files::work_directory(context, &run.id().to_string())?;
    let prepared = prepare(context, target, to, options, &work).await?;
    *manifest = Some(prepared.backup.manifest.clone());
    run.note_backup(&prepared.backup.manifest.id)
        .map_err(|error| RestoreError::Refused(error.to_string()))?;
    if !prepared.lacking.is_empty() {
        return Err(RestoreError::Lacking(prepared.lacking));
    }
    phases.begin("provision");
    mark(options, &prepared).await?;
    phases.begin("roles");
    build::roles(&prepared.backup, &prepared.session).await?;
    build::restore(context, &prepared.backup, &prepared.destination, phases).await?;
    let session = Session::connect(to, "restore", None).await?;
    Marker::remove(&session, prepared.destination.powers).await?;

    phases.begin("verify");
    let copy = Copy {
        connection: to.clone(),
        kind: CopyKind::GivenDatabase,
        jobs: options.jobs,
        progress: Arc::clone(&context.progress),
    };
    let mut verification = verify::compare(&copy, &prepared.backup.contents).await?;
    compare_schema(
        &prepared.backup,
        &prepared.destination,
        CopyKind::GivenDatabase,
        &mut verification,
    )
    .await?;
    Ok(verification)
}

/// Makes the marker, or brings what a broken restore left to where it can go on.
async fn mark(options: &Options, prepared: &Prepared) -> Result<(), RestoreError> {
    let session = &prepared.session;
    if !prepared.continues {
        Marker::create(session, &prepared.backup.manifest.id).await?;
        return Ok(());
    }
    // The schema is not restored in one transaction: half of it is of no use.
    if options.broken == Broken::StartOver || !Marker::has(session, build::PRE_DATA).await? {
        // Whatever stands in the way of removing, it says nothing of the backup.
        let emptied = destination::empty(session).await;
        emptied.map_err(|error| RestoreError::Emptying(Box::new(error)))?;
    }
    if options.broken == Broken::StartOver {
        Marker::remove(session, prepared.destination.powers).await?;
        Marker::create(session, &prepared.backup.manifest.id).await?;
    }
    Ok(())
}
