//! One try: from the locks to the manifest.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

use crate::model::backup_id::BackupId;
use crate::model::clocks::CLOCK_TOLERANCE;
use crate::model::manifest::Manifest;
use crate::ops::context::Context;
use crate::ops::fault_point::pause;
use crate::ops::phases::Phases;
use crate::ops::target::{SourceCount, Target};
use crate::ops::work_directory::WorkDirectory;
use crate::postgres::ChildConnection;
use crate::postgres::facts;
use crate::postgres::relations::{self, Relation};
use crate::postgres::session::Session;
use crate::postgres::snapshot::{self, Exporter, Locking};

use super::copying::{self, Counting, Work};
use super::excluded::Excluded;
use super::finish::{self, Parts, Read};
use super::pace::Pace;
use super::plan::{self, Abilities};
use super::prepare::{Prepared, locks_needed};
use super::schema::{self, Schema};
use super::sink::Stock;
use super::{BackupError, Notebook, evidence, shrank, watch};

pub(super) async fn run(
    context: &Context,
    target: &Target,
    prepared: &Prepared,
    run: &mut crate::journal::Run,
    notes: &Notebook,
    phases: &mut Phases<'_>,
) -> Result<Manifest, BackupError> {
    let began = Instant::now();
    let started_at = facts::clock(&prepared.guard).await?;
    phases.begin("lock");
    let (exporter, locking, excluded) = export(context, target, prepared, notes).await?;
    pause("after-export").await;
    let recoverable = evidence::look(context, target, prepared, &exporter, &excluded, notes).await?;
    let id = BackupId::new(recoverable.point.at, random());
    run.note_backup(&id)?;
    notes.lock().backup = Some(id.clone());

    let pids = Arc::new(Mutex::new(vec![exporter.session.backend_pid()]));
    // The password file is in a directory of the run's own, so that a killed run's is found and removed.
    let directory = WorkDirectory::create(&context.state_dir, &run.id().to_string())
        .map_err(BackupError::WorkDirectory)?;
    let child = target.connection.for_child(directory.path())?;
    let reading = read(
        context, target, prepared, &exporter, &excluded, locking, &id, &child, &pids, notes, phases,
    );
    let read = tokio::select! {
        read = reading => read?,
        error = exporter.session.closed() => return Err(error.into()),
        result = watch::watch(&prepared.guard, &pids, target.on_blocked_ddl, notes) => match result {
            Ok(never) => match never {},
            Err(error) => return Err(error),
        },
        () = tokio::time::sleep(target.max_snapshot_age) => {
            return Err(BackupError::SnapshotTooOld(target.max_snapshot_age));
        }
    };

    phases.begin("store");
    pause("before-manifest").await;
    let parts = Parts {
        id,
        started_at,
        recoverable,
        exporter,
        read,
    };
    let mut manifest = finish::store(context, target, prepared, parts, notes).await?;
    manifest.finished_at = facts::clock(&prepared.guard).await?;
    manifest.duration_seconds = began.elapsed().as_secs_f64();
    finish::put_manifest(context, notes, &manifest).await?;
    shrank::remember(context, &target.name, &manifest.id, notes);
    pause("after-manifest").await;
    Ok(manifest)
}

/// Everything that is read while the snapshot is held: schema, rows, large objects.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of an attempt meet here, once"
)]
async fn read(
    context: &Context,
    target: &Target,
    prepared: &Prepared,
    exporter: &Exporter,
    excluded: &Excluded,
    locking: Locking,
    id: &BackupId,
    child: &ChildConnection,
    pids: &Arc<Mutex<Vec<i32>>>,
    notes: &Notebook,
    phases: &mut Phases<'_>,
) -> Result<Read, BackupError> {
    phases.begin("schema");
    let abilities = Abilities {
        server_version_num: prepared.guard.server_version_num(),
        standby: prepared.identity.standby,
        quoting: schema::quoting(&prepared.guard).await?,
    };
    let plan = plan::plan(target, schema::seen(exporter, excluded), &abilities);
    if !plan.homeless.is_empty() {
        return Err(BackupError::ExcludedPartitions(plan.homeless.join(", ")));
    }
    for pattern in plan::idle_patterns(target, &exporter.relations) {
        let message = format!("{pattern} matches nothing: is it spelled as schema.table?");
        context.progress.note(&message);
        notes.lock().findings.push(super::warning("exclude", message));
    }
    let schema = schema::read_schema(target, prepared, exporter, excluded, &plan, child).await?;
    pause("after-schema").await;

    phases.begin("data");
    context.progress.expect_bytes(plan.bytes);
    let counting = counting(context, target).await?;
    let pace = Arc::new(Pace::new(target.max_rate));
    let work = Work {
        connection: target.connection.clone(),
        encoding: schema.database.encoding.clone(),
        snapshot_name: exporter.snapshot_name.clone(),
        storage_check: copying::storage_check(locking),
        counting,
        stock: stock(context, target, id, &schema, notes, &pace),
        queue: Mutex::new(VecDeque::from(plan.units.clone())),
        pids: Arc::clone(pids),
        cancels: Mutex::new(vec![exporter.session.cancel_handle()]),
    };
    let stored = copying::run(Arc::new(work), exporter, target.jobs).await?;
    let large_objects = finish::large_objects(context, target, exporter, id, notes, &pace).await?;
    if locking == Locking::WhenCopied {
        schema::columns_stood_still(exporter, prepared).await?;
    }
    Ok(Read {
        plan,
        schema,
        stored,
        large_objects,
        counting,
    })
}

/// What all sinks of this backup share.
fn stock(
    context: &Context,
    target: &Target,
    id: &BackupId,
    schema: &Schema,
    notes: &Notebook,
    pace: &Arc<Pace>,
) -> Arc<Stock> {
    let database = &schema.database;
    Arc::new(Stock {
        repository: Arc::clone(&context.repository),
        progress: Arc::clone(&context.progress),
        target: target.name.clone(),
        id: id.clone(),
        recipients: context.keys.recipients().cloned(),
        next_object: AtomicU64::new(1),
        next_late_object: AtomicU64::new(1),
        puts: notes.puts.clone(),
        pace: Arc::clone(pace),
        header: finish::script_header(database.server_version_num, &database.encoding),
    })
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
    notes: &Notebook,
) -> Result<(Exporter, Locking, Excluded), BackupError> {
    let needed = locks_needed(target, prepared.lockable_tables);
    let locking = if needed > prepared.identity.lock_capacity / 2 {
        let message = format!(
            "{needed} locks do not fit beside the application's into the server's lock table of {}; tables were locked when they were copied (raise max_locks_per_transaction)",
            prepared.identity.lock_capacity
        );
        context.progress.note(&message);
        notes.lock().findings.push(super::warning("locks", message));
        Locking::WhenCopied
    } else {
        Locking::AllTables
    };
    let session = Session::connect(&target.connection, "backup snapshot", None).await?;
    let relations = relations::list(&prepared.guard).await?;
    let before = Excluded::find(&prepared.guard, target, &relations).await?;
    let wanted = |relation: &_| !before.relation(relation);
    let exporter = snapshot::export(
        session,
        &prepared.guard,
        locking,
        target.lock_timeout,
        wanted,
        pause,
    );
    let exporter = exporter.await.map_err(BackupError::Snapshot)?;
    let excluded = Excluded::find(&exporter.session, target, &exporter.relations).await?;
    // What is not left out any more was not locked before the snapshot was taken.
    if let Some(oid) = before.relations().difference(&excluded.relations()).next() {
        let relation = exporter.relations.iter().find(|relation| relation.oid == *oid);
        let name = relation.map_or_else(|| oid.to_string(), Relation::display_name);
        return Err(BackupError::SchemaMoved(format!(
            "{name} does not depend on an excluded table any more"
        )));
    }
    Ok((exporter, locking, excluded))
}

/// Whether the server counts the rows this time.
async fn counting(context: &Context, target: &Target) -> Result<Counting, BackupError> {
    let due = match target.source_count {
        SourceCount::Always => true,
        SourceCount::Never => false,
        SourceCount::Daily => {
            let manifests = context.repository.manifests(&target.name).await?.readable;
            !counted_lately(&manifests, (context.clock)())
        }
    };
    Ok(if due {
        Counting::ServerToo
    } else {
        Counting::StreamOnly
    })
}

/// Whether the server counted within the last day. A backup from the future says nothing of that.
fn counted_lately(manifests: &[Manifest], now: DateTime<Utc>) -> bool {
    let last_day = now - TimeDelta::hours(24)..=now + CLOCK_TOLERANCE;
    manifests
        .iter()
        .any(|one| one.source_counted && last_day.contains(&one.on_our_clock(one.started_at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples::{manifest, time};

    /// Whether a backup of this hour, by a clock that was so many hours ahead, makes another count at hour 30 needless.
    fn suffices(hour: i64, ahead: f64, source_counted: bool) -> bool {
        let mut backup = manifest(hour);
        backup.clock_skew_seconds = Some(ahead * 3600.0);
        backup.source_counted = source_counted;
        counted_lately(&[backup], time(30 * 3600))
    }

    #[test]
    fn the_server_counts_once_a_day_whatever_its_clock_says() {
        assert!(suffices(7, 0.0, true));
        assert!(!suffices(7, 0.0, false), "it did not count");
        assert!(!suffices(6, 0.0, true), "a day has passed");
        assert!(!suffices(999, 0.0, true), "of what time it is, nobody knows");
        assert!(suffices(999, 980.0, true), "it was ahead by so much");
        assert!(!suffices(999, 994.0, true), "and a day has passed since");
    }
}
