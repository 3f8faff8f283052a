//! The restore test: restore a backup into scratch, compare it, measure it, remove it.

mod checks;
mod copy;
mod judge;

use std::sync::Arc;

use crate::journal::{Error as JournalError, Run, Task};
use crate::model::manifest::Manifest;
use crate::model::record::{Record, RestoreTestRecord, ScratchFacts, Trigger};
use crate::model::verification::{Finding, Severity, Verification};
use crate::ops::compare_schema::compare_schema;
use crate::ops::context::Context;
use crate::ops::fault_point::pause;
use crate::ops::phases::Phases;
use crate::ops::restore::build::{self, Backup, Destination};
use crate::ops::restore::{Choice, RestoreError, lacks, source};
use crate::ops::target::Target;
use crate::ops::verify::{self, Copy, CopyKind};
use crate::postgres::session::Session;
use crate::scratch::Embedded;

/// What the caller wants of this restore test.
#[derive(Clone, Debug)]
pub struct Options {
    pub trigger: Trigger,
    pub choice: Choice,
    pub afterwards: Afterwards,
}

/// What becomes of the scratch cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    Remove,
    /// It is stopped and left on disk, for a person to look into.
    Keep,
}

/// What a run has found out so far, whether or not it comes to its end.
#[derive(Default)]
struct Findings {
    manifest: Option<Manifest>,
    scratch: Option<ScratchFacts>,
    verification: Verification,
    /// The objective's clock was stopped: the copy answered, and its checks had passed.
    recovered_seconds: Option<f64>,
    kept: Option<String>,
}

/// Restore-tests one backup of the target. The record is in the journal when this returns.
///
/// # Errors
/// Only where no record could be kept; a test that fails or cannot run is a record.
pub async fn restore_test(
    context: &Context,
    target: &Target,
    options: &Options,
) -> Result<RestoreTestRecord, JournalError> {
    let started_at = (context.clock)();
    let mut run = context.start_run(Task::RestoreTest, &target.name, started_at)?;
    let mut phases = Phases::new(context.progress.as_ref());
    let mut found = Findings::default();
    let mut scratch = None;
    let work = perform(
        context,
        target,
        options,
        &mut run,
        &mut phases,
        &mut found,
        &mut scratch,
    );
    let result = tokio::select! {
        result = work => result,
        () = context.cancel.cancelled() => Err(RestoreError::Cancelled),
    };
    let result = explain(result, scratch.as_ref());
    let phases = phases.take();
    if let Some(scratch) = scratch {
        let removed = match options.afterwards {
            Afterwards::Remove => scratch.remove().await,
            Afterwards::Keep => scratch.keep().await.map(|kept| {
                found.kept = Some(format!(
                    "the copy is kept in {}: start it with {}",
                    kept.path.display(),
                    kept.command
                ));
            }),
        };
        if let Err(error) = removed {
            found.verification.findings.push(Finding {
                severity: Severity::Warning,
                subject: "scratch".to_owned(),
                message: format!("it could not be removed, the next start tries again: {error}"),
            });
        }
    }
    if let Some(kept) = &found.kept {
        context.progress.note(kept);
    }
    let rpo = judge::rpo(context, target, found.manifest.as_ref(), started_at).await;
    let record = judge::record(
        context,
        target,
        options,
        run.id(),
        started_at,
        &result,
        found,
        rpo,
        phases,
    );
    run.finish(Record::RestoreTest(Box::new(record.clone())))?;
    Ok(record)
}

/// Adds the SQLSTATE of a failed program, which only the server's log knows.
fn explain(result: Result<(), RestoreError>, scratch: Option<&Embedded>) -> Result<(), RestoreError> {
    match (result, scratch) {
        (Err(RestoreError::Program { error, .. }), Some(scratch)) => {
            let logged = copy::logged_cause(scratch, error.reason()).map(Box::new);
            Err(RestoreError::Program { error, logged })
        }
        (result, _) => result,
    }
}

async fn perform(
    context: &Context,
    target: &Target,
    options: &Options,
    run: &mut Run,
    phases: &mut Phases<'_>,
    found: &mut Findings,
    scratch: &mut Option<Embedded>,
) -> Result<(), RestoreError> {
    phases.begin("locate");
    let manifest = source::locate(&context.repository, &target.name, &options.choice).await?;
    found.manifest = Some(manifest.clone());
    run.note_backup(&manifest.id)
        .map_err(|error| RestoreError::Refused(error.to_string()))?;
    let contents = Arc::new(source::contents(&context.repository, &manifest).await?);
    found.verification.not_covered = contents.not_covered.clone();
    let backup = Backup { manifest, contents };
    let work_directory = copy::work_directory(context, run.id())?;

    phases.begin("provision");
    pause("restore-provision").await;
    let settings = copy::scratch_settings(context, target, &backup, &run.id().to_string())?;
    if let Some(lack) = copy::room(&target.scratch_directory, &backup)? {
        return Err(RestoreError::Lacking(vec![lack]));
    }
    let embedded = scratch.insert(Embedded::provision(settings, &context.cancel).await?);
    found.scratch = Some(copy::scratch_facts(embedded));
    let destination = copy::destination(target, &backup, embedded, context, &work_directory)?;
    rebuild(context, &backup, &destination, phases).await?;

    phases.begin("durable");
    pause("restore-durable").await;
    embedded.restart_durable(&context.cancel).await?;

    phases.begin("checks");
    pause("restore-checks").await;
    found.verification.checks = checks::run(&destination.connection, &target.checks).await?;
    if found.verification.checks.iter().all(|check| check.passed) {
        phases.end();
        found.recovered_seconds = Some(phases.total_seconds());
    }
    compare(context, target, &backup, &destination, phases, found).await
}

/// Roles, the database, and everything in it.
async fn rebuild(
    context: &Context,
    backup: &Backup,
    destination: &Destination,
    phases: &mut Phases<'_>,
) -> Result<(), RestoreError> {
    let maintenance = destination.connection.with_database("template1");
    let maintenance = Session::connect(&maintenance, "restore", None).await?;
    let lacking = lacks::extensions(&maintenance, &backup.contents).await?;
    if !lacking.is_empty() {
        return Err(RestoreError::Lacking(lacking));
    }
    phases.begin("roles");
    pause("restore-roles").await;
    build::roles(context, backup, &maintenance).await?;
    copy::create_tablespaces(&maintenance, backup).await?;
    copy::create_database(&maintenance, backup, destination.connection.database()).await?;
    maintenance.close().await;
    build::restore(context, backup, destination, phases).await
}

/// Compares the copy with what the source sent. Not part of the recovery time.
async fn compare(
    context: &Context,
    target: &Target,
    backup: &Backup,
    destination: &Destination,
    phases: &mut Phases<'_>,
    found: &mut Findings,
) -> Result<(), RestoreError> {
    phases.begin("verify");
    pause("restore-verify").await;
    context.progress.expect_bytes(backup.manifest.totals.bytes);
    let copy = Copy {
        connection: destination.connection.clone(),
        kind: CopyKind::Scratch,
        jobs: target.jobs,
        progress: Arc::clone(&context.progress),
    };
    let checks = std::mem::take(&mut found.verification.checks);
    found.verification = verify::compare(&copy, &backup.contents).await?;
    found.verification.checks = checks;
    compare_schema(backup, destination, CopyKind::Scratch, &mut found.verification).await
}
