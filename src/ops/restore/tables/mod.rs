//! `restore --table`: single tables brought back into a schema of their own, beside whatever else the database holds.
//! Usually that is production itself: nothing outside of the schema is touched, or even locked.
//!
//! - `selection` finds which tables are meant.
//! - `definition` writes them anew, and `indexes` what belongs to them.
//! - `lacks` finds what is missing before anything is touched.
//! - `place` makes, marks and removes the schema.
//! - `prepare` brings these together, and `plan` says what would be done.

mod definition;
mod indexes;
mod lacks;
mod place;
mod plan;
mod prepare;
mod selection;

use std::sync::Arc;

use crate::journal::{Error as JournalError, Run, Task};
use crate::model::contents::LoadStage;
use crate::model::record::{FORMAT, Record, RestoreRecord};
use crate::model::target_name::TargetName;
use crate::model::verification::{Finding, Severity, Verification};
use crate::ops::context::Context;
use crate::ops::fault_point::pause;
use crate::ops::phases::Phases;
use crate::ops::verify::{self, Copy, CopyKind};
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::identifier::qualified;
use crate::postgres::session::Session;

use super::RestoreError;
use super::build::Powers;
use super::load::{self, Load};
use super::real::{Broken, judge};
use super::source::Choice;
use place::State;
use prepare::{Prepared, prepare};

pub use plan::{Plan, plan};

/// What the caller wants of this restore.
#[derive(Clone, Debug)]
pub struct Options {
    pub choice: Choice,
    /// `StartOver` removes what a broken restore left in the schema; none is ever continued.
    pub broken: Broken,
    pub jobs: usize,
    /// Names or patterns of tables.
    pub tables: Vec<String>,
    /// The schema to make.
    pub schema: String,
}

/// Restores tables. The record is in the journal when this returns; after anything but success the schema is gone, or
/// the record says why it is not.
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
    let mut prepared = None;
    let work = perform(context, target, to, options, &mut run, &mut phases, &mut prepared);
    let mut result = tokio::select! {
        biased;
        result = work => result.map_err(of_given_database),
        halt = context.halted() => Err(halt.into()),
    };
    phases.end();
    if let (Ok(verification), Some(prepared)) = (&result, &prepared)
        && verification.mismatches.is_empty()
        && let Err(error) = finish(to, prepared).await
    {
        result = Err(of_given_database(error));
    }
    let (outcome, verdict, mut reason) = judge(&result);
    if let (Some(reason), Some(prepared)) = (&mut reason, &prepared)
        && let Err(error) = clean_up(to, prepared).await
    {
        reason.push_str(&format!(
            "; what was made is still there: {}",
            crate::ops::chain(&error)
        ));
    }
    let record = RestoreRecord {
        format: FORMAT,
        id: run.id().to_string(),
        target: target.clone(),
        backup: prepared
            .as_ref()
            .map(|prepared| prepared.backup.manifest.id.clone()),
        destination: to.describe(),
        outcome,
        verdict,
        reason,
        started_at,
        finished_at: (context.clock)(),
        phases: phases.take(),
        tables: prepared.as_ref().map(Prepared::facts),
        verification: result.ok(),
    };
    run.finish(Record::Restore(record.clone()))?;
    Ok(record)
}

/// What a server says that has types, functions and rights of its own does not tell whether the backup is bad.
fn of_given_database(error: RestoreError) -> RestoreError {
    match error {
        RestoreError::Postgres(error) => RestoreError::GivenDatabase(Box::new(error)),
        other => other,
    }
}

/// Says in the schema's comment where it comes from, and with that that it is whole. It connects anew: the connection
/// that holds the lock has idled for as long as the restore took, and may have been cut.
async fn finish(to: &ConnectionSettings, prepared: &Prepared) -> Result<(), RestoreError> {
    let manifest = &prepared.backup.manifest;
    let comment = format!(
        "tables of {}, restored by ernstfall from backup {} (recovery point {})",
        manifest.target,
        manifest.id,
        manifest.recovery_point.at.to_rfc3339()
    );
    let session = Session::connect(to, "restore", None).await?;
    Ok(prepared.place.finish(&session, &comment).await?)
}

async fn clean_up(to: &ConnectionSettings, prepared: &Prepared) -> Result<(), RestoreError> {
    let session = Session::connect(to, "restore", None).await?;
    Ok(prepared.place.remove_own(&session).await?)
}

async fn perform(
    context: &Context,
    target: &TargetName,
    to: &ConnectionSettings,
    options: &Options,
    run: &mut Run,
    phases: &mut Phases<'_>,
    slot: &mut Option<Prepared>,
) -> Result<Verification, RestoreError> {
    phases.begin("locate");
    let prepared = prepare(context, target, to, options, &run.id().to_string()).await?;
    run.note_backup(&prepared.backup.manifest.id)
        .map_err(|error| RestoreError::Refused(error.to_string()))?;
    let prepared: &mut Prepared = slot.insert(prepared);
    if !prepared.lacking.is_empty() {
        return Err(RestoreError::Lacking(prepared.lacking.clone()));
    }
    phases.begin("schema");
    pause("restore-schema").await;
    make(to, prepared).await?;

    phases.begin("data");
    pause("restore-data").await;
    context.progress.expect_bytes(prepared.bytes());
    rows(context, to, options, prepared).await?;

    phases.begin("indexes");
    pause("restore-indexes").await;
    let statements = &prepared.additions.statements;
    let refused = indexes::build(&prepared.place, to, statements, options.jobs).await?;

    phases.begin("analyze");
    let session = Session::connect(to, "restore", None).await?;
    prepared.place.works_in(&session);
    for table in prepared.into.values() {
        let name = qualified(&table.schema, &table.name);
        session.batch("analyze", &format!("ANALYZE {name}")).await?;
    }

    phases.begin("verify");
    pause("restore-verify").await;
    let copy = Copy {
        connection: to.clone(),
        kind: CopyKind::GivenDatabase,
        jobs: options.jobs,
        progress: Arc::clone(&context.progress),
    };
    let mut verification = verify::compare_tables(&copy, &prepared.contents_of_schema()).await?;
    verification
        .findings
        .extend(refused.iter().map(|refused| Finding {
            severity: Severity::Warning,
            subject: format!("{} {}", refused.kind, refused.name),
            message: format!("this server does not make it: {}", refused.reason),
        }));
    prepared.additions.not_restored.extend(refused);
    Ok(verification)
}

/// Makes the schema with the tables and views in it.
async fn make(to: &ConnectionSettings, prepared: &Prepared) -> Result<(), RestoreError> {
    let backup = prepared.backup.manifest.id.to_string();
    let schema = &prepared.place.schema;
    let session = Session::connect(to, "restore", None).await?;
    prepared.place.works_in(&session);
    if matches!(prepared.state, State::Unfinished { .. }) {
        place::remove(&session, schema).await?;
    }
    let contents = &prepared.backup.contents;
    let tables = prepared.into.iter();
    let mut definitions: Vec<_> = tables
        .map(|(place, into)| definition::table(&contents.tables[*place], into, &backup))
        .collect();
    let roots = prepared.selection.roots.iter();
    definitions.extend(
        roots.filter_map(|(root, parts)| definition::view(root, parts, &prepared.into, schema, &backup)),
    );
    prepared.place.make(&session, &definitions).await?;
    Ok(())
}

async fn rows(
    context: &Context,
    to: &ConnectionSettings,
    options: &Options,
    prepared: &Prepared,
) -> Result<(), RestoreError> {
    let contents = &prepared.backup.contents;
    let load = Load {
        reader: prepared.backup.reader.clone(),
        progress: Arc::clone(&context.progress),
        connection: to.clone(),
        contents: Arc::clone(contents),
        stage: LoadStage::BeforeIndexes,
        // Nothing in the schema has a trigger.
        powers: Powers::Ordinary,
        into: Some(prepared.into.clone()),
        marker: None,
    };
    let loaded = load::load(load, &prepared.objects(), options.jobs).await;
    let mut naming = prepared
        .selection
        .tables
        .iter()
        .map(|place| &contents.tables[*place]);
    let names_objects = naming.any(|table| table.load == LoadStage::AfterIndexes);
    loaded.map_err(|error| match error {
        RestoreError::Postgres(error) => {
            let advice = match error.sqlstate() {
                // Undefined table, object, function, schema.
                Some("42P01" | "42704" | "42883" | "3F000") if names_objects => {
                    "its rows name an object (a column of type regclass or the like), and this database has no such object"
                }
                // Text that does not read as the type, no such character, a domain's constraint.
                Some("22P02" | "22P05" | "23514") => {
                    "the source took this row: a type, a domain or the encoding of this database is another than the source's"
                }
                _ => return RestoreError::Postgres(error),
            };
            RestoreError::Postgres(error.with_hint(advice))
        }
        other => other,
    })
}
