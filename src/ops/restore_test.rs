//! The restore test: restore a backup into scratch, compare it, measure it, remove it.

use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::journal::{Error as JournalError, Run, RunId, Task};
use crate::model::check::Check;
use crate::model::cycle::{cycle_ended_by_rpa_seconds, cycle_rpa_seconds};
use crate::model::manifest::Manifest;
use crate::model::record::{
    FORMAT, ObjectiveResult, Objectives, Phase, ProbeFact, Record, RestoreTestRecord, ScratchFacts, Trigger,
    Verdict,
};
use crate::model::verification::{CheckResult, Finding, Severity, Verification};
use crate::ops::compare_schema::compare_schema;
use crate::ops::context::Context;
use crate::ops::fault_point::pause;
use crate::ops::phases::Phases;
use crate::ops::target::Target;
use crate::ops::verify::{self, Copy};
use crate::ops::work_directory::WorkDirectory;
use crate::postgres::conninfo::{ConnectionSettings, Environment};
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;
use crate::scratch::{Embedded, EmbeddedSettings, LogEntry, Machine};

use super::restore::build::{self, Backup, Destination, Powers};
use super::restore::{Choice, RestoreError, lacks, source};

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
    let rpo = rpo(context, target, found.manifest.as_ref(), started_at).await;
    let record = record(
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
        (Err(RestoreError::Program { error, .. }), Some(scratch)) => Err(RestoreError::Program {
            error,
            logged: last_error(scratch).map(Box::new),
        }),
        (result, _) => result,
    }
}

/// The last error that the scratch server logged.
fn last_error(scratch: &Embedded) -> Option<LogEntry> {
    let entries = scratch.read_csv_log().unwrap_or_default();
    entries
        .into_iter()
        .rev()
        .find(|entry| matches!(entry.severity.as_str(), "ERROR" | "FATAL" | "PANIC"))
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

    let work_directory = work_directory(context, run.id())?;

    phases.begin("provision");
    pause("restore-provision").await;
    let settings = scratch_settings(context, target, &backup, &run.id().to_string())?;
    if let Some(lack) = room(&target.scratch_directory, &backup)? {
        return Err(RestoreError::Lacking(vec![lack]));
    }
    let embedded = scratch.insert(Embedded::provision(settings, &context.cancel).await?);
    found.scratch = Some(scratch_facts(embedded));
    let destination = destination(target, &backup, embedded, context, &work_directory)?;
    let maintenance = Session::connect(
        &destination.connection.with_database("template1"),
        "restore",
        None,
    )
    .await?;
    let lacking = lacks::extensions(&maintenance, &backup.contents).await?;
    if !lacking.is_empty() {
        return Err(RestoreError::Lacking(lacking));
    }

    phases.begin("roles");
    pause("restore-roles").await;
    build::roles(context, &backup, &maintenance).await?;
    create_database(&maintenance, &backup, destination.connection.database()).await?;
    drop(maintenance);
    build::restore(context, &backup, &destination, phases).await?;

    phases.begin("durable");
    pause("restore-durable").await;
    scratch
        .as_mut()
        .ok_or(RestoreError::Cancelled)?
        .restart_durable(&context.cancel)
        .await?;

    phases.begin("checks");
    pause("restore-checks").await;
    found.verification.checks = checks(&destination.connection, &target.checks).await?;
    if found.verification.checks.iter().all(|check| check.passed) {
        phases.end();
        found.recovered_seconds = Some(phases.total_seconds());
    }

    phases.begin("verify");
    pause("restore-verify").await;
    context.progress.expect_bytes(backup.manifest.totals.bytes);
    let copy = Copy {
        connection: destination.connection.clone(),
        jobs: target.jobs,
        progress: Arc::clone(&context.progress),
    };
    let checks = std::mem::take(&mut found.verification.checks);
    found.verification = verify::compare(&copy, &backup.contents).await?;
    found.verification.checks = checks;
    compare_schema(&backup, &destination, &mut found.verification).await
}

fn scratch_settings(
    context: &Context,
    target: &Target,
    backup: &Backup,
    run_id: &str,
) -> Result<EmbeddedSettings, RestoreError> {
    let source_major = u32::try_from(backup.contents.database.server_version_num / 10_000).unwrap_or(0);
    let programs = Programs::server_for(context.bin_dir.as_deref(), source_major)?;
    let mut settings = EmbeddedSettings::new(target.scratch_directory.clone(), programs);
    settings.isolation = target.isolation;
    settings.superuser = backup.contents.database.bootstrap_role.clone();
    settings.user = target.scratch_user.clone();
    settings.run = run_id.to_owned();
    settings.preload = lacks::preloads(&backup.contents);
    Ok(settings)
}

fn work_directory(context: &Context, run_id: &RunId) -> Result<WorkDirectory, RestoreError> {
    WorkDirectory::create(&context.state_dir, &run_id.to_string()).map_err(|source| RestoreError::File {
        tried: "make a work directory in",
        path: context.state_dir.display().to_string(),
        source,
    })
}

/// The nearest directory that exists says how much room there is.
fn room(directory: &Path, backup: &Backup) -> Result<Option<String>, RestoreError> {
    let existing = directory
        .ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"));
    lacks::disk_space(existing, &backup.contents).map_err(|error| RestoreError::File {
        tried: "see how much room there is in",
        path: existing.display().to_string(),
        source: error.into(),
    })
}

fn scratch_facts(embedded: &Embedded) -> ScratchFacts {
    let isolation = embedded.isolation();
    let fact = |probe: &crate::scratch::ProbeResult| ProbeFact {
        name: probe.name.clone(),
        open: probe.open,
        detail: probe.detail.clone(),
    };
    ScratchFacts {
        kind: "embedded".to_owned(),
        server_version: Some(embedded.server_version().to_owned()),
        isolated: Some(isolation.isolated),
        layers: isolation.layers.clone(),
        probe: isolation.probe.iter().map(fact).collect(),
    }
}

/// Connects to the scratch server by its socket, and by nothing that the environment says.
fn destination(
    target: &Target,
    backup: &Backup,
    embedded: &Embedded,
    context: &Context,
    work_directory: &WorkDirectory,
) -> Result<Destination, RestoreError> {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let name = match backup.contents.database.name.as_str() {
        // The templates stay what they are in the copy's cluster.
        "template0" | "template1" => "ernstfall_copy",
        name => name,
    };
    let dsn = format!(
        "host={} port={} user={} dbname={} sslmode=disable",
        quoted(&embedded.socket_directory().to_string_lossy()),
        embedded.port(),
        quoted(embedded.superuser()),
        quoted(name),
    );
    let connection = ConnectionSettings::resolve(&dsn, &Environment::default())
        .map_err(|error| RestoreError::Refused(error.to_string()))?;
    let major = u32::try_from(backup.contents.database.server_version_num / 10_000).unwrap_or(0);
    let installation = Programs::client_for(context.bin_dir.as_deref(), major)?;
    let directory = work_directory.path().to_owned();
    Ok(Destination::new(
        connection,
        installation,
        target.jobs,
        directory,
        Powers::Superuser,
    ))
}

/// Creates the copy's database. What its locale needs and the machine lacks is the environment's fault.
async fn create_database(session: &Session, backup: &Backup, name: &str) -> Result<(), RestoreError> {
    if name == "postgres" {
        session
            .batch("make room for the copy", "DROP DATABASE postgres")
            .await?;
    }
    let facts = &backup.contents.database;
    let statement = build::create_database_statement(facts, name, session.server_version_num());
    match session.batch("create the copy's database", &statement).await {
        Ok(()) => Ok(()),
        // Wrong object type, undefined object, invalid parameter: the locale is not known here.
        Err(error) if matches!(error.sqlstate(), Some("42809" | "42704" | "22023")) => {
            Err(RestoreError::Lacking(vec![format!(
                "the locale of the source ({}, {}) is not installed: apt-get install locales-all ({error})",
                facts.collate, facts.ctype
            )]))
        }
        Err(error) => Err(error.into()),
    }
}

/// Runs the target's own checks, each in a transaction that may not write.
async fn checks(connection: &ConnectionSettings, checks: &[Check]) -> Result<Vec<CheckResult>, RestoreError> {
    let session = Session::connect(connection, "checks", None).await?;
    session
        .batch(
            "prepare the checks",
            "SET search_path TO DEFAULT; SET statement_timeout = '10min'",
        )
        .await?;
    let mut results = Vec::new();
    for check in checks {
        session.batch("begin", "BEGIN READ ONLY").await?;
        let answer = session
            .select_text(&format!("run the check {}", check.name), &check.sql)
            .await;
        session.batch("roll back", "ROLLBACK").await?;
        let value = match &answer {
            Err(error) if error.is_environment() => {
                return Err(answer
                    .map(drop)
                    .map_err(Into::into)
                    .err()
                    .unwrap_or(RestoreError::Cancelled));
            }
            Err(error) => Err(error.to_string()),
            Ok(rows) => match rows.as_slice() {
                [row] if row.len() == 1 => Ok(row.get(0).unwrap_or("null").to_owned()),
                rows => Err(format!(
                    "{} rows came back, and a check needs one value",
                    rows.len()
                )),
            },
        };
        let (passed, found) = match value {
            Ok(value) => match check.expect.holds(&value) {
                Ok(passed) => (passed, value),
                Err(error) => (false, error.to_string()),
            },
            Err(error) => (false, error),
        };
        results.push(CheckResult {
            name: check.name.clone(),
            passed,
            expected: check.expect.to_string(),
            found,
        });
    }
    Ok(results)
}

/// The recovery point actual that the RPO is judged on, with its basis.
///
/// The worst moment of the backup cycle, or the age of what was recovered, whichever is worse: of an older backup than
/// the newest only the cycle counts, since nobody would have recovered to it at the time of the test.
async fn rpo(
    context: &Context,
    target: &Target,
    manifest: Option<&Manifest>,
    started_at: DateTime<Utc>,
) -> ObjectiveResult {
    let objective = target.rpo.map(|rpo| rpo.as_secs_f64());
    let unknown = ObjectiveResult::judge(objective, None, None);
    let Some(manifest) = manifest else { return unknown };
    let Ok(listed) = context.repository.manifests(&target.name).await else {
        return unknown;
    };
    let manifests = listed.readable;
    let newest = manifests.last().is_some_and(|newest| newest.id == manifest.id);
    let (cycle, age) = if newest {
        let age = (started_at - manifest.recovery_point.at).as_seconds_f64();
        (cycle_ended_by_rpa_seconds(&manifests, &manifest.id), Some(age))
    } else {
        (cycle_rpa_seconds(&manifests, &manifest.id), None)
    };
    match (cycle, age) {
        (Some(cycle), Some(age)) if age > cycle => {
            judged(objective, age, "age of the recovery point when the test started")
        }
        (Some(cycle), _) => judged(objective, cycle, "worst moment of the backup cycle"),
        (None, Some(age)) => judged(objective, age, "age of the recovery point when the test started"),
        (None, None) => unknown,
    }
}

fn judged(objective: Option<f64>, actual: f64, basis: &str) -> ObjectiveResult {
    ObjectiveResult::judge(objective, Some(actual.max(0.0)), Some(basis.to_owned()))
}

/// The recovery time actual: only a test that passed has one.
fn rto(
    target: &Target,
    context: &Context,
    verdict: Verdict,
    found: &Findings,
    started_at: DateTime<Utc>,
) -> ObjectiveResult {
    let objective = target.rto.map(|rto| rto.as_secs_f64());
    let measured = found.recovered_seconds.filter(|_| verdict == Verdict::Passed);
    let overhead: f64 = target
        .rto_overhead
        .iter()
        .map(|(_, time)| time.as_secs_f64())
        .sum();
    let machine = Machine::of_this_host();
    let mut basis = format!(
        "measured on embedded scratch ({} cores, {} MB of memory), not on the production server; repository {}",
        machine.cores,
        machine.memory_bytes >> 20,
        context.repository.location()
    );
    if overhead > 0.0 {
        let parts: Vec<String> = target
            .rto_overhead
            .iter()
            .map(|(name, time)| format!("{name} {}s", time.as_secs()))
            .collect();
        basis.push_str(&format!("; with declared times added: {}", parts.join(", ")));
    }
    let _ = started_at;
    ObjectiveResult::judge(
        objective,
        measured.map(|seconds| seconds + overhead),
        measured.map(|_| basis),
    )
}

#[expect(
    clippy::too_many_arguments,
    reason = "it only puts a record together from its parts"
)]
fn record(
    context: &Context,
    target: &Target,
    options: &Options,
    run_id: &RunId,
    started_at: DateTime<Utc>,
    result: &Result<(), RestoreError>,
    found: Findings,
    rpo: ObjectiveResult,
    phases: Vec<Phase>,
) -> RestoreTestRecord {
    let (verdict, reason) = verdict(result, &found.verification);
    let rto = rto(target, context, verdict, &found, started_at);
    RestoreTestRecord {
        format: FORMAT,
        id: run_id.to_string(),
        target: target.name.clone(),
        environment: target.environment.clone(),
        owner: target.owner.clone(),
        backup: found.manifest.as_ref().map(|manifest| manifest.id.clone()),
        trigger: options.trigger,
        verdict,
        reason,
        started_at,
        finished_at: (context.clock)(),
        recovery_point: found.manifest.as_ref().map(|manifest| manifest.recovery_point),
        objectives: Objectives { rpo, rto },
        phases,
        verification: found.verification,
        scratch: found.scratch,
    }
}

/// What the test says of the backup, and why.
fn verdict(result: &Result<(), RestoreError>, verification: &Verification) -> (Verdict, Option<String>) {
    // A mismatch that was seen stays one, even if the comparison broke off later.
    if let Some(first) = verification.mismatches.first() {
        let more = match verification.mismatches.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let reason = format!(
            "{} {}: expected {}, found {}{more}",
            first.kind, first.name, first.expected, first.found
        );
        return (Verdict::Failed, Some(reason));
    }
    if let Some(check) = verification.checks.iter().find(|check| !check.passed) {
        let reason = format!(
            "the check {} expected {}, found {}",
            check.name, check.expected, check.found
        );
        return (Verdict::Failed, Some(reason));
    }
    match result {
        Ok(()) => (Verdict::Passed, None),
        Err(error) => (error.verdict(), Some(crate::ops::chain(error))),
    }
}
