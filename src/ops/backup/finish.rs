//! Storing everything but the rows: large objects, scripts, contents; and putting the manifest together.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::model::backup_id::BackupId;
use crate::model::contents::{Contents, LargeObjects, NotCovered};
use crate::model::manifest::{self, Manifest, Object, RecoveryPoint, Totals, Versions};
use crate::ops::context::Context;
use crate::ops::script;
use crate::ops::target::Target;
use crate::postgres::identifier::Quoting;
use crate::postgres::snapshot::Exporter;
use crate::postgres::{fixed_settings, large_objects, sequences, set_statements, settings};

use super::copying::Counting;
use super::guide::SchemaList;
use super::plan::Plan;
use super::prepare::Prepared;
use super::schema::Schema;
use super::sink::Stored;
use super::{BackupError, Notebook, guide, shrank};

/// What an attempt has by the time everything is copied.
pub(super) struct Parts {
    pub(super) id: BackupId,
    pub(super) started_at: DateTime<Utc>,
    pub(super) recovery_point: RecoveryPoint,
    pub(super) exporter: Exporter,
    pub(super) read: Read,
}

/// What was read while the snapshot was held.
pub(super) struct Read {
    pub(super) plan: Plan,
    pub(super) schema: Schema,
    pub(super) stored: Vec<Stored>,
    pub(super) large_objects: (LargeObjects, Vec<Object>),
    pub(super) counting: Counting,
}

/// The SET lines that make COPY text mean the same wherever it is loaded.
pub(super) fn script_header(server_version_num: i32, encoding: &str) -> Vec<u8> {
    let mut header = String::from("-- Rows in COPY text: load with psql -X -v ON_ERROR_STOP=1\n");
    header.push_str(&set_statements(&fixed_settings(server_version_num, encoding)));
    header.into_bytes()
}

pub(super) async fn large_objects(
    context: &Context,
    target: &Target,
    exporter: &Exporter,
    id: &BackupId,
    notes: &Notebook,
) -> Result<(LargeObjects, Vec<Object>), BackupError> {
    let server_version_num = exporter.session.server_version_num();
    let mut summary = LargeObjects::default();
    let mut objects = Vec::new();
    let oids = large_objects::list(&exporter.session).await?;
    let mut script = large_objects::Script::new(script_header(server_version_num, "UTF8"));
    for (index, large_object) in oids.iter().enumerate() {
        large_objects::read(&exporter.session, large_object, &mut script, &mut summary).await?;
        if script.is_full() || index + 1 == oids.len() {
            let bytes = compress("large objects", &script.take())?;
            let name = format!("large-objects/{}.sql.zst", objects.len() + 1);
            let object = put(context, target, id, notes, name, bytes).await?;
            summary.objects.push(object.key.clone());
            objects.push(object);
        }
    }
    Ok((summary, objects))
}

fn compress(what: &'static str, bytes: &[u8]) -> Result<Bytes, BackupError> {
    script::compress(bytes).map_err(|source| BackupError::Compress(what, source))
}

/// Stores an object as a task of its own: one that was begun is ended, and waited for before anything is removed.
async fn put(
    context: &Context,
    target: &Target,
    id: &BackupId,
    notes: &Notebook,
    name: String,
    bytes: Bytes,
) -> Result<Object, BackupError> {
    let (repository, target, id) = (Arc::clone(&context.repository), target.name.clone(), id.clone());
    let put = notes
        .puts
        .spawn(async move { repository.put_object(&target, &id, &name, bytes).await });
    Ok(put.await??)
}

/// Makes the backup exist, likewise.
pub(super) async fn put_manifest(
    context: &Context,
    notes: &Notebook,
    manifest: &Manifest,
) -> Result<(), BackupError> {
    let (repository, manifest) = (Arc::clone(&context.repository), manifest.clone());
    Ok(notes
        .puts
        .spawn(async move { repository.put_manifest(&manifest).await })
        .await??)
}

/// Stores everything but the rows, and puts the manifest together; storing that is the caller's last act.
pub(super) async fn store(
    context: &Context,
    target: &Target,
    prepared: &Prepared,
    parts: Parts,
    notes: &Notebook,
) -> Result<Manifest, BackupError> {
    let Parts {
        id,
        started_at,
        recovery_point,
        exporter,
        read,
    } = parts;
    let Read {
        plan,
        schema,
        stored,
        large_objects,
        counting,
    } = read;
    let Exporter {
        session,
        snapshot,
        lsn,
        ..
    } = exporter;
    // Everything is read: nobody need wait for our locks any longer.
    session.close().await;
    let put = |name: &'static str, bytes: Bytes| put(context, target, &id, notes, name.to_owned(), bytes);
    let guide = guide(target, prepared, &id, &schema);
    let (summary, large_objects) = large_objects;
    let quoting = Quoting::for_encoding(&schema.database.encoding);
    let contents = contents(plan, &schema, &stored, summary);
    notes.lock().not_covered = contents.not_covered.clone();
    let shrank = shrank::look(context, target, &contents, notes).await;
    let json = serde_json::to_vec(&contents).map_err(|e| BackupError::Compress("the contents", e.into()))?;
    let header = script_header(contents.database.server_version_num, "UTF8");
    let roles = [&header, schema.roles.sql.as_bytes()].concat();
    let last = [&header, finish_script(&contents, quoting).as_bytes()].concat();
    let mut manifest = Manifest {
        format: manifest::FORMAT,
        target: target.name.clone(),
        started_at,
        finished_at: started_at,
        duration_seconds: 0.0,
        recovery_point,
        snapshot,
        lsn,
        timeline: prepared.identity.timeline,
        system_identifier: prepared.identity.system_identifier.clone(),
        versions: versions(prepared, &contents),
        schema: put("schema.dump.zst", compress("the schema", &schema.archive.bytes)?).await?,
        schema_list: put_list(context, target, &id, notes, schema.list.as_deref()).await?,
        roles: put("roles.sql.zst", compress("the roles", &roles)?).await?,
        sequences: put("sequences.sql.zst", compress("the sequences", &last)?).await?,
        recovery_guide: put("RECOVERY.md", guide).await?,
        contents: put("contents.json.zst", compress("the contents", &json)?).await?,
        data: stored.into_iter().flat_map(|stored| stored.objects).collect(),
        large_objects,
        totals: totals(&contents),
        source_counted: counting == Counting::ServerToo,
        encryption: None,
        shrank,
        id,
    };
    manifest.totals.stored_bytes = manifest.objects().map(|object| object.size_bytes).sum();
    Ok(manifest)
}

/// The list by which pg_restore leaves out some of the schema, where there is one.
async fn put_list(
    context: &Context,
    target: &Target,
    id: &BackupId,
    notes: &Notebook,
    list: Option<&str>,
) -> Result<Option<Object>, BackupError> {
    let Some(list) = list else { return Ok(None) };
    let bytes = compress("the list of the schema", list.as_bytes())?;
    let name = "schema.list.zst".to_owned();
    Ok(Some(put(context, target, id, notes, name, bytes).await?))
}

fn guide(target: &Target, prepared: &Prepared, id: &BackupId, schema: &Schema) -> Bytes {
    let major = prepared.installation.major;
    let list = match &schema.list {
        Some(_) => SchemaList::Stored,
        None => SchemaList::NotNeeded,
    };
    guide::recovery_guide(&target.name, id, &schema.database, major, list).into()
}

fn versions(prepared: &Prepared, contents: &Contents) -> Versions {
    Versions {
        ernstfall: env!("CARGO_PKG_VERSION").to_owned(),
        server: contents.database.server_version.clone(),
        pg_dump: prepared.installation.version.clone(),
    }
}

fn totals(contents: &Contents) -> Totals {
    Totals {
        tables: contents.tables.len() as u64,
        rows: contents.tables.iter().map(|table| table.fingerprint.rows).sum(),
        bytes: contents.tables.iter().map(|table| table.fingerprint.bytes).sum(),
        stored_bytes: 0,
        sequences: contents.sequences.len() as u64,
        large_objects: contents.large_objects.count,
        not_covered: contents.not_covered.len() as u64,
    }
}

fn contents(plan: Plan, schema: &Schema, stored: &[Stored], large_objects: LargeObjects) -> Contents {
    let mut tables = plan.tables;
    let chunks: Vec<_> = stored
        .iter()
        .flat_map(|stored| stored.chunks.iter().cloned())
        .collect();
    for chunk in &chunks {
        tables[chunk.table].fingerprint.merge(chunk.fingerprint);
    }
    for (table, found) in stored.iter().flat_map(|stored| &stored.generated) {
        if let Some(fingerprint) = &mut tables[*table].generated_fingerprint {
            fingerprint.merge(*found);
        }
    }
    let not_covered: Vec<NotCovered> = plan
        .not_covered
        .into_iter()
        .chain(schema.archive.not_covered.iter().cloned())
        .collect();
    Contents {
        format: manifest::FORMAT,
        database: schema.database.clone(),
        tables,
        chunks,
        sequences: schema.sequences.clone(),
        large_objects,
        roles: schema.roles.names.clone(),
        extensions: schema.extensions.clone(),
        materialized_views: plan.materialized_views,
        tablespaces: schema.tablespaces.clone(),
        catalogue: schema.catalogue.clone(),
        parts: schema.parts.clone(),
        not_covered,
    }
}

/// The script that is run last: sequences, then the settings stored with the database.
fn finish_script(contents: &Contents, quoting: Quoting) -> String {
    let mut sql = String::from("-- Run last: where the sequences stood, then the database's own settings.\n");
    for sequence in &contents.sequences {
        sql.push_str(&sequences::set_statement(sequence, quoting));
        sql.push('\n');
    }
    for statement in settings::statements(&contents.database) {
        sql.push_str(&statement);
        sql.push('\n');
    }
    sql
}
