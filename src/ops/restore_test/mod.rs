//! The restore test: restore a backup into scratch, compare it, measure it, remove it.

mod checks;
mod copy;
mod heartbeat;
mod judge;
mod scratch;

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::journal::{Error as JournalError, Run, Task};
use crate::model::manifest::Manifest;
use crate::model::record::{Record, RestoreTestRecord, ScratchFacts, Trigger};
use crate::model::verification::{Finding, Severity, Verification};
use crate::ops::compare_schema::compare_schema;
use crate::ops::context::Context;
use crate::ops::fault_point::pause;
use crate::ops::phases::Phases;
use crate::ops::restore::build::{self, Backup, Destination};
use crate::ops::restore::source::{self, Reader};
use crate::ops::restore::{Choice, RestoreError, files, left_out};
use crate::ops::target::Target;
use crate::ops::verify::{self, Copy};

use scratch::{Scratch, Test};

/// What the caller wants of this restore test.
#[derive(Clone, Debug)]
pub struct Options {
    pub trigger: Trigger,
    pub choice: Choice,
    pub afterwards: Afterwards,
}

/// What becomes of the scratch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    Remove,
    /// A cluster is stopped and left on disk, a database on a server is left there, for a person to look into.
    Keep,
}

/// What a run has found out so far, whether or not it comes to its end.
#[derive(Default)]
struct Findings {
    manifest: Option<Manifest>,
    scratch: Option<ScratchFacts>,
    /// What the times are measured on.
    measured_on: Option<String>,
    verification: Verification,
    /// The objective's clock was stopped: the copy answered, and its checks had passed.
    recovered_seconds: Option<f64>,
    kept: Option<String>,
    /// As the copy has it.
    heartbeat_at: Option<DateTime<Utc>>,
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
        // First: a scratch that is being started sees the signal as well, and its error would not tell that somebody ended it.
        biased;
        halt = context.halted() => Err(halt.into()),
        result = work => result,
    };
    let result = match &scratch {
        Some(scratch) => result.map_err(|error| scratch.explain(error)),
        None => result,
    };
    let result = result.map_err(|error| blame_what_is_skipped(error, &target.skip_extensions));
    let phases = phases.take();
    if let Some(scratch) = scratch {
        match scratch.end(options.afterwards).await {
            Ok(kept) => found.kept = kept,
            Err(error) => found.verification.findings.push(Finding {
                severity: Severity::Warning,
                subject: "scratch".to_owned(),
                message: format!("it could not be removed, the next start tries again: {error}"),
            }),
        }
    }
    if let Some(kept) = &found.kept {
        context.progress.note(kept);
    }
    let rpo = tokio::select! {
        rpo = judge::rpo(context, target, found.manifest.as_ref(), started_at) => rpo,
        // The record is worth more than this part of it.
        _ = context.clean_up_is_over() => judge::unknown_rpo(target),
    };
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

/// Undefined function, table, object, schema.
const UNDEFINED: &[&str] = &["42883", "42P01", "42704", "3F000"];

/// The text of a function may need an extension that is left out, and no dependency says so: then the backup may be good.
fn blame_what_is_skipped(error: RestoreError, skipped: &[String]) -> RestoreError {
    let undefined = match &error {
        RestoreError::Program {
            logged: Some(logged), ..
        } => UNDEFINED.contains(&logged.sqlstate.as_str()),
        RestoreError::Refresh(_) => true,
        _ => false,
    };
    if skipped.is_empty() || !undefined {
        return error;
    }
    RestoreError::Lacking(vec![format!(
        "{error}; a function may need what scratch.skip_extensions leaves out ({}): then exclude what calls it, or install the extension here",
        skipped.join(", ")
    )])
}

async fn perform(
    context: &Context,
    target: &Target,
    options: &Options,
    run: &mut Run,
    phases: &mut Phases<'_>,
    found: &mut Findings,
    scratch: &mut Option<Scratch>,
) -> Result<(), RestoreError> {
    phases.begin("locate");
    let now = (context.clock)();
    let manifest = source::locate_for_test(&context.repository, &target.name, &options.choice, now).await?;
    found.manifest = Some(manifest.clone());
    run.note_backup(&manifest.id)
        .map_err(|error| RestoreError::Refused(error.to_string()))?;
    let reader = Reader::open(&context.keys, &context.repository, &manifest).await?;
    let mut contents = reader.contents(&manifest).await?;
    if target.scratch_server.is_some() && !contents.tablespaces.is_empty() {
        found.note(
            "everything lies in the tablespace of the copy's database: the server's own are not ours to use",
        );
        contents.leave_out_tablespaces();
    }
    let mut backup = Backup::new(reader, manifest, contents).await?;
    left_out::without_extensions(context, &mut backup, &target.skip_extensions).await?;
    found.verification.not_covered = backup.contents.not_covered.clone();
    let work_directory = files::work_directory(context, &run.id().to_string())?;
    let test = Test {
        context,
        target,
        backup: &backup,
        run_id: run.id(),
    };

    phases.begin("provision");
    pause("restore-provision").await;
    let scratch = scratch.insert(Scratch::provision(test, found).await?);
    found.scratch = Some(scratch.facts());
    found.measured_on = Some(scratch.described());
    let destination = scratch.destination(test, &work_directory).await?;
    rebuild(test, scratch, &destination, phases, found).await?;

    phases.begin("durable");
    pause("restore-durable").await;
    scratch.make_durable(context, found).await?;

    phases.begin("checks");
    pause("restore-checks").await;
    found.verification.checks = checks::run(&destination.connection, &target.checks).await?;
    if found.verification.checks.iter().all(|check| check.passed) {
        phases.end();
        found.recovered_seconds = Some(phases.total_seconds());
    }
    compare(test, scratch, &destination, phases, found).await
}

/// Roles, the database, and everything in it.
async fn rebuild(
    test: Test<'_>,
    scratch: &mut Scratch,
    destination: &Destination,
    phases: &mut Phases<'_>,
    found: &mut Findings,
) -> Result<(), RestoreError> {
    let maintenance = scratch.maintenance(destination).await?;
    let lacking = scratch.lacking(test.backup, &maintenance).await?;
    if !lacking.is_empty() {
        return Err(RestoreError::Lacking(lacking));
    }
    phases.begin("roles");
    pause("restore-roles").await;
    scratch.make_database(test, &maintenance, found).await?;
    maintenance.close().await;
    build::restore(test.context, test.backup, destination, phases).await
}

/// Compares the copy with what the source sent. Not part of the recovery time.
async fn compare(
    test: Test<'_>,
    scratch: &Scratch,
    destination: &Destination,
    phases: &mut Phases<'_>,
    found: &mut Findings,
) -> Result<(), RestoreError> {
    phases.begin("verify");
    pause("restore-verify").await;
    let Test { context, backup, .. } = test;
    context.progress.expect_bytes(backup.manifest.totals.bytes);
    let copy = Copy {
        connection: destination.connection.clone(),
        kind: scratch.copy_kind(),
        jobs: test.target.jobs,
        progress: Arc::clone(&context.progress),
    };
    let compared = verify::compare(&copy, &backup.contents).await?;
    let before = std::mem::replace(&mut found.verification, compared);
    found.verification.checks = before.checks;
    found.verification.findings.splice(0..0, before.findings);
    heartbeat::find(destination, &backup.manifest, found).await?;
    compare_schema(backup, destination, copy.kind, &mut found.verification).await
}
