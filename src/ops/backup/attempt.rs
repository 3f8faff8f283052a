//! One try: from the locks to the manifest.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::model::backup_id::BackupId;
use crate::model::contents::{Contents, DatabaseFacts, Extension, LargeObjects, NotCovered, Sequence};
use crate::model::manifest::{self, Manifest, Object, RecoveryPoint, RecoveryPointBasis, Totals, Versions};
use crate::ops::context::Context;
use crate::ops::fault_point::pause;
use crate::ops::phases::Phases;
use crate::ops::script;
use crate::ops::target::{SourceCount, Target};
use crate::postgres::dump::{self, DumpRequest, SchemaArchive};
use crate::postgres::error::ErrorKind;
use crate::postgres::identifier::Quoting;
use crate::postgres::roles::Roles;
use crate::postgres::session::Session;
use crate::postgres::snapshot::{self, Exporter, Locking};
use crate::postgres::{facts, large_objects, roles, schema_watch, sequences, settings};
use crate::postgres::{fixed_settings, set_statements};

use super::copying::{self, Counting, Work};
use super::plan::{self, Abilities, Plan};
use super::sink::{Stock, Stored};
use super::{BackupError, Notes, Prepared, guide, watch};

/// Everything about the schema, read right after the export.
struct Schema {
    archive: SchemaArchive,
    roles: Roles,
    database: DatabaseFacts,
    extensions: Vec<Extension>,
    sequences: Vec<Sequence>,
}

pub(super) async fn run(
    context: &Context,
    target: &Target,
    prepared: &Prepared,
    run: &mut crate::journal::Run,
    notes: &Mutex<Notes>,
    phases: &mut Phases<'_>,
) -> Result<Manifest, BackupError> {
    let began = Instant::now();
    let started_at = facts::clock(&prepared.guard).await?;
    phases.begin("lock");
    let (exporter, locking) = export(context, target, prepared, notes).await?;
    pause("after-export").await;
    let recovery_point = recovery_point(prepared, &exporter)?;
    let id = BackupId::new(recovery_point.at, random());
    run.note_backup(&id)?;
    notes.lock().unwrap_or_else(PoisonError::into_inner).backup = Some(id.clone());

    phases.begin("schema");
    let quoting = quoting(&prepared.guard).await?;
    let abilities = Abilities {
        server_version_num: prepared.guard.server_version_num(),
        standby: prepared.identity.standby,
        quoting,
    };
    let plan = plan::plan(target, &exporter.relations, &exporter.columns, &abilities);
    let schema = read_schema(context, target, prepared, &exporter, &plan).await?;
    pause("after-schema").await;

    phases.begin("data");
    context.progress.expect_bytes(plan.bytes);
    let counting = counting(context, target).await?;
    let stock = Arc::new(Stock {
        repository: Arc::clone(&context.repository),
        progress: Arc::clone(&context.progress),
        target: target.name.clone(),
        id: id.clone(),
        next_object: AtomicU64::new(1),
        header: script_header(abilities.server_version_num, &schema.database.encoding),
    });
    let work = Arc::new(Work {
        connection: target.connection.clone(),
        encoding: schema.database.encoding.clone(),
        snapshot_name: exporter.snapshot_name.clone(),
        storage_check: copying::storage_check(locking),
        counting,
        stock,
        queue: Mutex::new(VecDeque::from(plan.units.clone())),
        pids: Mutex::default(),
    });
    let stored = copy_rows(target, prepared, &exporter, work, notes).await?;
    let large_objects = large_objects(context, target, &exporter, &id, abilities.server_version_num).await?;
    drop(exporter.session);

    phases.begin("store");
    pause("before-manifest").await;
    let facts = Facts {
        started_at,
        recovery_point,
        snapshot: exporter.snapshot,
        lsn: exporter.lsn,
        counting,
        pg_dump: prepared.installation.version.clone(),
        pg_dump_major: prepared.installation.major,
        quoting,
    };
    let mut manifest = store(
        context,
        target,
        prepared,
        &id,
        facts,
        plan,
        schema,
        stored,
        large_objects,
        notes,
    )
    .await?;
    manifest.finished_at = facts::clock(&prepared.guard).await?;
    manifest.duration_seconds = began.elapsed().as_secs_f64();
    context.repository.put_manifest(&manifest).await?;
    pause("after-manifest").await;
    Ok(manifest)
}

fn random() -> u16 {
    // Without randomness the id of a backup of the same second is refused by the store, never overwritten.
    let mut bytes = [0; 2];
    let _ = getrandom::fill(&mut bytes);
    u16::from_le_bytes(bytes)
}

/// Locks and exports, with as many locks as the server's lock table has room for.
async fn export(
    context: &Context,
    target: &Target,
    prepared: &Prepared,
    notes: &Mutex<Notes>,
) -> Result<(Exporter, Locking), BackupError> {
    // The exporter and pg_dump lock every table, each worker one; the application keeps half of the room.
    let needed = 2 * prepared.lockable_tables + target.jobs as u64;
    let locking = if needed > prepared.identity.lock_capacity / 2 {
        let message = format!(
            "{needed} locks do not fit beside the application's into the server's lock table of {}; tables were locked when they were copied (raise max_locks_per_transaction)",
            prepared.identity.lock_capacity
        );
        context.progress.note(&message);
        notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .findings
            .push(super::warning("locks", message));
        Locking::WhenCopied
    } else {
        Locking::AllTables
    };
    let session = Session::connect(&target.connection, "backup snapshot", None).await?;
    let wanted = |relation: &_| !plan::excluded(target, relation);
    let exporter = snapshot::export(session, &prepared.guard, locking, target.lock_timeout, wanted);
    Ok((exporter.await.map_err(BackupError::Snapshot)?, locking))
}

fn recovery_point(prepared: &Prepared, exporter: &Exporter) -> Result<RecoveryPoint, BackupError> {
    if !prepared.identity.standby {
        return Ok(RecoveryPoint {
            at: exporter.taken_at,
            basis: RecoveryPointBasis::Snapshot,
        });
    }
    match exporter.replayed_at {
        Some(at) => Ok(RecoveryPoint {
            at,
            basis: RecoveryPointBasis::Replay,
        }),
        None => Err(BackupError::RecoveryPointUnknown(
            prepared.guard.description().to_owned(),
        )),
    }
}

/// Names beyond ASCII cannot be written as they are where the connection does not speak UTF-8.
async fn quoting(guard: &Session) -> Result<Quoting, BackupError> {
    let encoding = facts::encoding(guard).await?;
    Ok(if matches!(encoding.as_str(), "UTF8" | "SQL_ASCII") {
        Quoting::Utf8
    } else {
        Quoting::AsciiOnly
    })
}

/// Dumps the schema and reads what belongs to it; everything must have stood still meanwhile.
async fn read_schema(
    context: &Context,
    target: &Target,
    prepared: &Prepared,
    exporter: &Exporter,
    plan: &Plan,
) -> Result<Schema, BackupError> {
    let before = schema_watch::version(&exporter.session).await?;
    let child = target.connection.for_child(&context.state_dir)?;
    let exclude = exporter
        .relations
        .iter()
        .filter(|relation| plan::excluded(target, relation))
        .map(|relation| (relation.schema.clone(), relation.name.clone()));
    let request = DumpRequest {
        installation: &prepared.installation,
        connection: &child,
        on: prepared.guard.description(),
        snapshot_name: Some(&exporter.snapshot_name),
        lock_timeout: target.lock_timeout,
        exclude: exclude.collect(),
    };
    let archive = match dump::schema(&request).await {
        Err(error) if error.kind() == ErrorKind::LockTimeout => {
            return Err(BackupError::SchemaMoved(format!(
                "a statement waits for a lock we hold: {error}"
            )));
        }
        other => other?,
    };
    let sequences = sequences::read(&prepared.guard, &plan.sequences).await?;
    let schema = Schema {
        archive,
        roles: roles::read(&exporter.session).await?,
        database: facts::database(&exporter.session).await?,
        extensions: facts::extensions(&exporter.session).await?,
        sequences,
    };
    pause("before-schema-check").await;
    let after = schema_watch::version(&prepared.guard).await?;
    match before.first_change(&after) {
        Some(change) => Err(BackupError::SchemaMoved(change)),
        None => Ok(schema),
    }
}

/// Copies all rows, until something goes wrong anywhere.
async fn copy_rows(
    target: &Target,
    prepared: &Prepared,
    exporter: &Exporter,
    work: Arc<Work>,
    notes: &Mutex<Notes>,
) -> Result<Vec<Stored>, BackupError> {
    let pids = {
        let (work, exporter_pid) = (Arc::clone(&work), exporter.session.backend_pid());
        move || [work.pids(), vec![exporter_pid]].concat()
    };
    tokio::select! {
        stored = copying::run(work, exporter, target.jobs) => stored,
        error = exporter.session.closed() => Err(error.into()),
        result = watch::watch(&prepared.guard, pids, target.on_blocked_ddl, notes) => match result {
            Ok(never) => match never {},
            Err(error) => Err(error),
        },
        () = tokio::time::sleep(target.max_snapshot_age) => {
            Err(BackupError::SnapshotTooOld(target.max_snapshot_age))
        }
    }
}

/// Whether the server counts the rows this time.
async fn counting(context: &Context, target: &Target) -> Result<Counting, BackupError> {
    let due = match target.source_count {
        SourceCount::Always => true,
        SourceCount::Never => false,
        SourceCount::Daily => {
            let manifests = context.repository.manifests(&target.name).await?.readable;
            let yesterday = (context.clock)() - chrono::TimeDelta::hours(24);
            !manifests
                .iter()
                .any(|manifest| manifest.source_counted && manifest.started_at > yesterday)
        }
    };
    Ok(if due {
        Counting::ServerToo
    } else {
        Counting::StreamOnly
    })
}

/// The SET lines that make COPY text mean the same wherever it is loaded.
fn script_header(server_version_num: i32, encoding: &str) -> Vec<u8> {
    let mut header = String::from("-- Rows in COPY text: load with psql -X -v ON_ERROR_STOP=1\n");
    header.push_str(&set_statements(&fixed_settings(server_version_num, encoding)));
    header.into_bytes()
}

async fn large_objects(
    context: &Context,
    target: &Target,
    exporter: &Exporter,
    id: &BackupId,
    server_version_num: i32,
) -> Result<(LargeObjects, Vec<Object>), BackupError> {
    let mut summary = LargeObjects::default();
    let mut objects = Vec::new();
    let oids = large_objects::list(&exporter.session).await?;
    let mut script = large_objects::Script::new(script_header(server_version_num, "UTF8"));
    for (index, large_object) in oids.iter().enumerate() {
        large_objects::read(&exporter.session, large_object, &mut script, &mut summary).await?;
        if script.is_full() || index + 1 == oids.len() {
            let bytes = compress("large objects", &script.take())?;
            let name = format!("large-objects/{}.sql.zst", objects.len() + 1);
            let object = context
                .repository
                .put_object(&target.name, id, &name, bytes)
                .await?;
            summary.objects.push(object.key.clone());
            objects.push(object);
        }
    }
    Ok((summary, objects))
}

/// What an attempt knows by the time everything is copied.
struct Facts {
    started_at: DateTime<Utc>,
    recovery_point: RecoveryPoint,
    snapshot: String,
    lsn: String,
    counting: Counting,
    pg_dump: String,
    pg_dump_major: u32,
    quoting: Quoting,
}

fn compress(what: &'static str, bytes: &[u8]) -> Result<Bytes, BackupError> {
    script::compress(bytes).map_err(|source| BackupError::Compress(what, source))
}

/// Stores everything but the rows, and puts the manifest together; storing that is the caller's last act.
#[expect(clippy::too_many_arguments, reason = "the parts of a backup meet here, once")]
async fn store(
    context: &Context,
    target: &Target,
    prepared: &Prepared,
    id: &BackupId,
    facts: Facts,
    plan: Plan,
    schema: Schema,
    stored: Vec<Stored>,
    large_objects: (LargeObjects, Vec<Object>),
    notes: &Mutex<Notes>,
) -> Result<Manifest, BackupError> {
    let put = |name: &'static str, bytes: Bytes| context.repository.put_object(&target.name, id, name, bytes);
    let guide = guide::recovery_guide(&target.name, id, &schema.database, facts.pg_dump_major);
    let contents = contents(plan, &schema, &stored, large_objects.0);
    notes.lock().unwrap_or_else(PoisonError::into_inner).not_covered = contents.not_covered.clone();
    let data: Vec<Object> = stored.into_iter().flat_map(|stored| stored.objects).collect();
    let json = serde_json::to_vec(&contents).map_err(|e| BackupError::Compress("the contents", e.into()))?;
    let header =
        String::from_utf8_lossy(&script_header(contents.database.server_version_num, "UTF8")).into_owned();
    let roles_script = format!("{header}{}", schema.roles.sql);
    let finish = format!("{header}{}", finish_script(&contents, facts.quoting));
    let mut manifest = Manifest {
        format: manifest::FORMAT,
        id: id.clone(),
        target: target.name.clone(),
        started_at: facts.started_at,
        finished_at: facts.started_at,
        duration_seconds: 0.0,
        recovery_point: facts.recovery_point,
        snapshot: facts.snapshot,
        lsn: facts.lsn,
        timeline: prepared.identity.timeline,
        system_identifier: prepared.identity.system_identifier.clone(),
        versions: Versions {
            ernstfall: env!("CARGO_PKG_VERSION").to_owned(),
            server: contents.database.server_version.clone(),
            pg_dump: facts.pg_dump,
        },
        schema: put("schema.dump.zst", compress("the schema", &schema.archive.bytes)?).await?,
        roles: put("roles.sql.zst", compress("the roles", roles_script.as_bytes())?).await?,
        sequences: put("sequences.sql.zst", compress("the sequences", finish.as_bytes())?).await?,
        recovery_guide: put("RECOVERY.md", Bytes::from(guide)).await?,
        contents: put("contents.json.zst", compress("the contents", &json)?).await?,
        data,
        large_objects: large_objects.1,
        totals: totals(&contents),
        source_counted: facts.counting == Counting::ServerToo,
    };
    manifest.totals.stored_bytes = manifest.objects().map(|object| object.size_bytes).sum();
    Ok(manifest)
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
