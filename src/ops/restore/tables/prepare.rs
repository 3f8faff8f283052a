//! Everything that is known before a restore of tables begins: which backup, which tables, and what stands in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::contents::{Contents, Table};
use crate::model::manifest::{Manifest, Object};
use crate::model::record::{RestoredTable, RestoredTables};
use crate::model::target_name::TargetName;
use crate::ops::context::Context;
use crate::ops::restore::RestoreError;
use crate::ops::restore::build::Backup;
use crate::ops::restore::files;
use crate::ops::restore::marker::{self, Marker};
use crate::ops::restore::real::Broken;
use crate::ops::restore::source::{self, Reader};
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::dump;
use crate::postgres::programs::Programs;
use crate::postgres::session::Session;

use super::indexes::{self, Additions};
use super::place::{self, Place, State};
use super::selection::Selection;
use super::{Options, definition, lacks};

/// A restore that may begin.
pub(super) struct Prepared {
    pub(super) backup: Backup,
    /// Holds the lock of the schema.
    pub(super) session: Session,
    pub(super) place: Arc<Place>,
    pub(super) state: State,
    pub(super) selection: Selection,
    /// The chosen tables as they are to stand in the schema.
    pub(super) into: BTreeMap<usize, Table>,
    pub(super) additions: Additions,
    pub(super) lacking: Vec<String>,
}

impl Prepared {
    pub(super) fn facts(&self) -> RestoredTables {
        let table = |place: &usize| {
            let table = &self.backup.contents.tables[*place];
            RestoredTable {
                schema: table.schema.clone(),
                name: table.name.clone(),
                rows: table.fingerprint.rows,
                bytes: table.fingerprint.bytes,
            }
        };
        RestoredTables {
            schema: self.place.schema.clone(),
            tables: self.selection.tables.iter().map(table).collect(),
            views: self.selection.roots.keys().cloned().collect(),
            not_restored: self.additions.not_restored.clone(),
        }
    }

    /// The stored objects that hold rows of the chosen tables.
    pub(super) fn objects(&self) -> Vec<Object> {
        let chunks = self.backup.contents.chunks.iter();
        let keys: BTreeSet<&str> = chunks
            .filter(|chunk| self.into.contains_key(&chunk.table))
            .map(|chunk| chunk.object.as_str())
            .collect();
        let data = self.backup.manifest.data.iter();
        data.filter(|object| keys.contains(object.key.as_str()))
            .cloned()
            .collect()
    }

    /// The contents as they would be, had the schema alone been backed up.
    pub(super) fn contents_of_schema(&self) -> Contents {
        Contents {
            tables: self.into.values().cloned().collect(),
            chunks: Vec::new(),
            ..(*self.backup.contents).clone()
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.into.values().map(|table| table.fingerprint.bytes).sum()
    }
}

/// Chooses backup and tables, connects, and finds everything that stands in the way. Changes nothing.
pub(super) async fn prepare(
    context: &Context,
    target: &TargetName,
    to: &ConnectionSettings,
    options: &Options,
    run: &str,
) -> Result<Prepared, RestoreError> {
    let schema = options.schema.as_str();
    if schema.is_empty() || schema.starts_with("pg_") || schema == marker::SCHEMA {
        return Err(RestoreError::Refused(format!(
            "--into-schema {schema}: choose another name, this one is reserved"
        )));
    }
    crate::postgres::refuse_transaction_pooler(to).await?;
    let session = Session::connect(to, "restore", None).await?;
    if let Some(holder) = Marker::lock(&session, place::lock_number(schema)).await? {
        return Err(RestoreError::Refused(format!(
            "another restore into the schema {schema} of {} is running ({holder}): wait for it, or end it",
            session.description()
        )));
    }
    let state = look(&session, options).await?;
    let now = (context.clock)();
    let manifest = source::locate(&context.repository, target, &options.choice, now).await?;
    let reader = Reader::open(&context.keys, &context.repository, &manifest).await?;
    let contents = reader.contents(&manifest).await?;
    let selection = Selection::find(&contents, &options.tables).map_err(RestoreError::Refused)?;
    let sql = archive_sql(context, &session, &reader, &manifest, &contents, run).await?;
    let additions = Additions::find(&sql, &contents, &selection, schema);
    let into = definition::renamed(&contents, &selection, schema);
    let lacking = lacks::find(&session, &contents, &into, schema).await?;
    Ok(Prepared {
        place: Arc::new(Place::new(schema, &manifest.id, run)),
        backup: Backup::new(reader, manifest, contents).await?,
        session,
        state,
        selection,
        into,
        additions,
        lacking,
    })
}

/// Looks at what stands where the schema is to be, and refuses whatever is not to be removed.
async fn look(session: &Session, options: &Options) -> Result<State, RestoreError> {
    let on = session.description();
    let schema = &options.schema;
    if let Some(id) = Marker::find(session).await? {
        return Err(RestoreError::Refused(format!(
            "{on} holds an unfinished restore of the whole backup {id}: end that first"
        )));
    }
    let state = place::state(session, schema).await?;
    match &state {
        State::Absent => {}
        State::Taken => {
            return Err(RestoreError::Refused(format!(
                "the schema {schema} exists in {on}, and tables are brought back only into a schema that the restore makes: name another one, or remove it"
            )));
        }
        State::Unfinished { comment, .. } if options.broken == Broken::Continue => {
            return Err(RestoreError::Refused(format!(
                "the schema {schema} of {on} is {comment}: remove it and begin anew with --start-over"
            )));
        }
        State::Unfinished { foreign, .. } if !foreign.is_empty() => {
            return Err(RestoreError::Refused(format!(
                "the schema {schema} of {on} holds what no restore has made ({}): move that elsewhere, or name another schema",
                foreign.join(", ")
            )));
        }
        State::Unfinished { .. } => {}
    }
    Ok(state)
}

/// The backup's schema as SQL.
async fn archive_sql(
    context: &Context,
    session: &Session,
    reader: &Reader,
    manifest: &Manifest,
    contents: &Contents,
    run: &str,
) -> Result<String, RestoreError> {
    let work = files::work_directory(context, run)?;
    let path = work.path().join("schema.dump");
    let archive = reader.read(&manifest.schema).await?;
    files::write(&path, archive).await?;
    // What wrote the archive can read it.
    let written_by = manifest
        .versions
        .pg_dump
        .split(|c: char| !c.is_ascii_digit())
        .next();
    let written_by = written_by.and_then(|major| major.parse().ok()).unwrap_or(0);
    let source_major = u32::try_from(contents.database.server_version_num / 10_000).unwrap_or(0);
    let installation = Programs::client_for(context.bin_dir.as_deref(), source_major.max(written_by))?;
    let sql = dump::as_sql_bytes(&installation, &path, None).await;
    // The archive itself was checked: a program that fails on it says nothing of the backup.
    let sql = sql.map_err(|error| RestoreError::Program {
        error: Box::new(error),
        logged: None,
    })?;
    Ok(indexes::text_of(session, sql).await?)
}
