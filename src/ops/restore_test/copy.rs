//! The copy's cluster and database: how they are made, and what the record says of them.

use std::path::Path;

use crate::model::contents::DatabaseFacts;
use crate::model::record::{ProbeFact, ScratchFacts};
use crate::ops::context::Context;
use crate::ops::restore::RestoreError;
use crate::ops::restore::build::{self, Backup, Destination, Powers};
use crate::ops::restore::lacks;
use crate::ops::target::Target;
use crate::ops::work_directory::WorkDirectory;
use crate::postgres::conninfo::{ConnectionSettings, Environment};
use crate::postgres::error::Error;
use crate::postgres::identifier::quote_identifier;
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;
use crate::scratch::{Embedded, EmbeddedSettings, LogEntry};

/// What the scratch server logged about a failed program: the first error that the program itself tells of. Later ones
/// are of its other workers, which were stopped for that.
pub(super) fn logged_cause(scratch: &Embedded, told: &str) -> Option<LogEntry> {
    let entries = scratch.read_csv_log().unwrap_or_default();
    entries.into_iter().find(|entry| {
        matches!(entry.severity.as_str(), "ERROR" | "FATAL" | "PANIC") && told.contains(&entry.message)
    })
}

pub(super) fn scratch_settings(
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
    // Its extension can be made in this database only.
    if settings.preload.iter().any(|library| library == "pg_cron") {
        let name = database_name(backup).to_owned();
        settings.settings.push(("cron.database_name".to_owned(), name));
    }
    Ok(settings)
}

/// The nearest directory that exists says how much room there is.
pub(super) fn room(directory: &Path, backup: &Backup) -> Result<Option<String>, RestoreError> {
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

pub(super) fn scratch_facts(embedded: &Embedded) -> ScratchFacts {
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

/// What the copy's database is called in a cluster of its own.
pub(super) fn database_name(backup: &Backup) -> &str {
    match backup.contents.database.name.as_str() {
        // The templates stay what they are in the copy's cluster.
        "template0" | "template1" => "ernstfall_copy",
        name => name,
    }
}

/// Connects to the scratch server by its socket, and by nothing that the environment says.
pub(super) fn destination(
    target: &Target,
    backup: &Backup,
    embedded: &Embedded,
    context: &Context,
    work_directory: &WorkDirectory,
) -> Result<Destination, RestoreError> {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let dsn = format!(
        // A role that is set with the database must not take our rights away.
        "host={} port={} user={} dbname={} sslmode=disable options='-c role=none'",
        quoted(&embedded.socket_directory().to_string_lossy()),
        embedded.port(),
        quoted(embedded.superuser()),
        quoted(database_name(backup)),
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

/// Makes the source's tablespaces inside the scratch's own directory.
pub(super) async fn create_tablespaces(session: &Session, backup: &Backup) -> Result<(), RestoreError> {
    if backup.contents.tablespaces.is_empty() {
        return Ok(());
    }
    session
        .batch("map the tablespaces", "SET allow_in_place_tablespaces = on")
        .await?;
    for name in &backup.contents.tablespaces {
        let statement = format!("CREATE TABLESPACE {} LOCATION ''", quote_identifier(name));
        session.batch("map a tablespace", &statement).await?;
    }
    Ok(())
}

/// Creates the copy's database. What its locale needs and the machine lacks is the environment's fault.
pub(super) async fn create_database(
    session: &Session,
    backup: &Backup,
    name: &str,
) -> Result<(), RestoreError> {
    if name == "postgres" {
        session
            .batch("make room for the copy", "DROP DATABASE postgres")
            .await?;
    }
    let facts = &backup.contents.database;
    let statement = build::create_database_statement(facts, name, session.server_version_num());
    match session.batch("create the copy's database", &statement).await {
        Ok(()) => Ok(()),
        Err(error) => Err(locale_lack(facts, &error).unwrap_or_else(|| error.into())),
    }
}

/// What a server lacks that refuses the source's locale.
pub(super) fn locale_lack(facts: &DatabaseFacts, error: &Error) -> Option<RestoreError> {
    // Wrong object type, undefined object, invalid parameter: the locale is not known there.
    matches!(error.sqlstate(), Some("42809" | "42704" | "22023")).then(|| {
        RestoreError::Lacking(vec![format!(
            "the locale of the source ({}, {}) is not installed: apt-get install locales-all ({error})",
            facts.collate, facts.ctype
        )])
    })
}
