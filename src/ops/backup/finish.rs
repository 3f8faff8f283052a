//! Storing everything but the rows: large objects, scripts, contents; and putting the manifest together.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::model::backup_id::BackupId;
use crate::model::contents::{Contents, LargeObjects, NotCovered};
use crate::model::manifest::{self, Encryption, Manifest, Object, Totals, Versions};
use crate::ops::context::Context;
use crate::ops::packing::{pack, stored_name};
use crate::ops::target::Target;
use crate::postgres::identifier::Quoting;
use crate::postgres::snapshot::Exporter;
use crate::postgres::{fixed_settings, large_objects, sequences, set_statements, settings};
use crate::repository::keys::RECOVERY_GUIDE;

use super::copying::Counting;
use super::evidence::Recoverable;
use super::guide::Guide;
use super::pace::Pace;
use super::plan::Plan;
use super::prepare::Prepared;
use super::schema::Schema;
use super::sink::Stored;
use super::{BackupError, Notebook, shrank};

/// What an attempt has by the time everything is copied.
pub(super) struct Parts {
    pub(super) id: BackupId,
    pub(super) started_at: DateTime<Utc>,
    pub(super) recoverable: Recoverable,
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
    pace: &Pace,
) -> Result<(LargeObjects, Vec<Object>), BackupError> {
    let server_version_num = exporter.session.server_version_num();
    let depot = Depot {
        context,
        target,
        id,
        notes,
    };
    let mut summary = LargeObjects::default();
    let mut objects = Vec::new();
    let oids = large_objects::list(&exporter.session).await?;
    let mut script = large_objects::Script::new(script_header(server_version_num, "UTF8"));
    for (index, large_object) in oids.iter().enumerate() {
        large_objects::read(
            &exporter.session,
            large_object,
            &mut script,
            &mut summary,
            |bytes| rest(pace.note(bytes)),
        )
        .await?;
        if script.is_full() || index + 1 == oids.len() {
            let name = format!("large-objects/{}.sql", objects.len() + 1);
            let object = depot.pack(&name, &script.take()).await?;
            summary.objects.push(object.key.clone());
            objects.push(object);
        }
    }
    Ok((summary, objects))
}

async fn rest(until: Option<Instant>) {
    if let Some(until) = until {
        tokio::time::sleep_until(until).await;
    }
}

/// Where the objects of one backup go.
struct Depot<'a> {
    context: &'a Context,
    target: &'a Target,
    id: &'a BackupId,
    notes: &'a Notebook,
}

impl Depot<'_> {
    /// What the manifest says of whom the objects are encrypted to.
    fn encryption(&self) -> Option<Encryption> {
        let recipients = self.context.keys.recipients()?;
        Some(Encryption {
            recipients: recipients.to_texts(),
        })
    }

    /// Packs and stores an object; its name is the one without endings.
    async fn pack(&self, name: &str, bytes: &[u8]) -> Result<Object, BackupError> {
        let recipients = self.context.keys.recipients();
        let packed = pack(bytes, recipients.map(Arc::as_ref));
        let packed = packed.map_err(|source| BackupError::Pack(name.to_owned(), source))?;
        let name = stored_name(name, recipients.map(Arc::as_ref));
        self.put(name, packed).await
    }

    /// Stores the guide to recovery by hand, which is never encrypted.
    async fn put_guide(
        &self,
        prepared: &Prepared,
        schema: &Schema,
        contents: &Contents,
        data: &[Object],
    ) -> Result<Object, BackupError> {
        let encryption = self.encryption();
        let guide = Guide {
            target: &self.target.name,
            id: self.id,
            contents,
            data,
            pg_dump_major: prepared.installation.major,
            has_schema_list: schema.list.is_some(),
            encryption: encryption.as_ref(),
        };
        self.put(RECOVERY_GUIDE.to_owned(), guide.text().into()).await
    }

    /// Stores an object as a task of its own: one that was begun is ended, and waited for before anything is removed.
    async fn put(&self, name: String, bytes: Bytes) -> Result<Object, BackupError> {
        let repository = Arc::clone(&self.context.repository);
        let (target, id) = (self.target.name.clone(), self.id.clone());
        let put = self
            .notes
            .puts
            .spawn(async move { repository.put_object(&target, &id, &name, bytes).await });
        put.await?
    }
}

/// Makes the backup exist, likewise.
pub(super) async fn put_manifest(
    context: &Context,
    notes: &Notebook,
    manifest: &Manifest,
) -> Result<(), BackupError> {
    let (repository, manifest) = (Arc::clone(&context.repository), manifest.clone());
    let put = notes.puts.spawn(async move {
        repository.confirm_objects(&manifest).await?;
        repository.put_manifest(&manifest).await
    });
    put.await?
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
        recoverable,
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
    // Everything is read: nobody need wait for our locks any longer.
    exporter.session.close().await;
    let depot = Depot {
        context,
        target,
        id: &id,
        notes,
    };
    let (summary, large_objects) = large_objects;
    let contents = contents(plan, &schema, &stored, summary);
    notes.lock().not_covered = contents.not_covered.clone();
    let shrank = shrank::look(context, target, &contents, notes).await;
    let described = describe(&depot, &schema, &contents).await?;
    let data: Vec<Object> = stored.into_iter().flat_map(|stored| stored.objects).collect();
    let recovery_guide = depot.put_guide(prepared, &schema, &contents, &data).await?;
    let mut manifest = Manifest {
        format: manifest::FORMAT,
        target: target.name.clone(),
        started_at,
        finished_at: started_at,
        duration_seconds: 0.0,
        recovery_point: recoverable.point,
        clock_skew_seconds: notes.lock().clock_skew_seconds,
        heartbeat: recoverable.heartbeat,
        snapshot: exporter.snapshot,
        lsn: exporter.lsn,
        timeline: prepared.identity.timeline,
        system_identifier: prepared.identity.system_identifier.clone(),
        versions: versions(prepared, &contents),
        schema: described.schema,
        schema_list: described.schema_list,
        roles: described.roles,
        sequences: described.sequences,
        contents: described.contents,
        recovery_guide,
        data,
        large_objects,
        totals: totals(&contents),
        source_counted: counting == Counting::ServerToo,
        encryption: depot.encryption(),
        shrank,
        id: id.clone(),
    };
    manifest.totals.stored_bytes = manifest.objects().map(|object| object.size_bytes).sum();
    Ok(manifest)
}

/// The objects that say what the database is made of.
struct Described {
    schema: Object,
    schema_list: Option<Object>,
    roles: Object,
    sequences: Object,
    contents: Object,
}

async fn describe(depot: &Depot<'_>, schema: &Schema, contents: &Contents) -> Result<Described, BackupError> {
    let json = serde_json::to_vec(contents);
    let json = json.map_err(|error| BackupError::Pack("contents.json".to_owned(), error.into()))?;
    let header = script_header(contents.database.server_version_num, "UTF8");
    let roles = [&header, schema.roles.sql.as_bytes()].concat();
    let quoting = Quoting::for_encoding(&schema.database.encoding);
    let last = [&header, finish_script(contents, quoting).as_bytes()].concat();
    Ok(Described {
        schema: depot.pack("schema.dump", &schema.archive.bytes).await?,
        schema_list: match &schema.list {
            Some(list) => Some(depot.pack("schema.list", list.as_bytes()).await?),
            None => None,
        },
        roles: depot.pack("roles.sql", &roles).await?,
        sequences: depot.pack("sequences.sql", &last).await?,
        contents: depot.pack("contents.json", &json).await?,
    })
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
