//! The exported snapshot: lock first, then look.
//!
//! A snapshot taken before its locks is silently wrong: a TRUNCATE or a rewriting ALTER TABLE that commits in between
//! leaves 0 rows and no error. So the transaction's first statements are the LOCKs, the snapshot comes with the first
//! query after them, and what that query shows is compared with what is locked and with what is there now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::error::{Error, ErrorKind};
use super::facts::parse_timestamp;
use super::identifier::qualified;
use super::partitions::{self, Partition};
use super::relations::{self, Columns, Relation};
use super::session::Session;
use super::waiting;

/// Names in one LOCK statement: long enough to save round trips, short enough to read in a log.
const LOCK_BATCH: usize = 200;

/// Whether the exporter locks all tables before it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locking {
    AllTables,
    /// The server's lock table has no room for all: each table is locked when it is copied, and checked then.
    WhenCopied,
}

/// The transaction that holds the snapshot and the locks of one backup.
pub struct Exporter {
    pub session: Session,
    /// What other connections give to `SET TRANSACTION SNAPSHOT`.
    pub snapshot_name: String,
    /// `pg_current_snapshot()` as text.
    pub snapshot: String,
    /// On the source's clock, not later than the snapshot.
    pub taken_at: DateTime<Utc>,
    /// On a standby: the last transaction replayed at that moment.
    pub replayed_at: Option<DateTime<Utc>>,
    pub lsn: String,
    /// What the snapshot holds.
    pub relations: Vec<Relation>,
    pub columns: BTreeMap<u32, Columns>,
    pub partitions: BTreeMap<u32, Partition>,
}

/// Why no snapshot was exported.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The schema moved between listing, locking and looking: worth another try.
    #[error("the schema changed while the backup began: {0}")]
    SchemaMoved(String),
    #[error(
        "lock the tables of {on}: {blocker} held a conflicting lock for longer than {waited:?}; end that transaction, back up at another time or raise lock_timeout"
    )]
    Blocked {
        on: String,
        blocker: String,
        waited: Duration,
    },
    #[error(transparent)]
    Server(#[from] Error),
}

/// Locks, looks and exports. `session` is consumed: its transaction stays open until it is dropped.
///
/// `guard` is another session on the same database; `wanted` says which relations are to be locked; `reached` is
/// awaited between listing and locking (`after-list`) and right after the snapshot (`after-look`), for tests.
pub async fn export<F: Future<Output = ()>>(
    session: Session,
    guard: &Session,
    locking: Locking,
    lock_timeout: Duration,
    wanted: impl Fn(&Relation) -> bool,
    reached: impl Fn(&'static str) -> F,
) -> Result<Exporter, SnapshotError> {
    let before: Vec<Relation> = relations::list(guard)
        .await?
        .into_iter()
        .filter(|r| r.lockable() && wanted(r))
        .collect();
    reached("after-list").await;
    let timeout = format!("SET lock_timeout = {}", lock_timeout.as_millis());
    session.batch("set the lock timeout", &timeout).await?;
    session
        .batch("begin", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    if locking == Locking::AllTables {
        for batch in before.chunks(LOCK_BATCH) {
            lock(&session, guard, batch, lock_timeout).await?;
        }
    }
    let replayed_at = replayed_at(guard).await?;
    let look = look(&session).await?;
    reached("after-look").await;
    let relations = relations::list(&session).await?;
    let locked = match locking {
        Locking::AllTables => {
            let missing = unlocked(&session, &relations, &wanted).await?;
            for batch in missing.chunks(LOCK_BATCH) {
                lock(&session, guard, batch, lock_timeout).await?;
            }
            missing
        }
        Locking::WhenCopied => Vec::new(),
    };
    let mut relations = relations::list(&session).await?;
    let with_rows = relations.iter_mut().filter(|r| r.has_rows() && wanted(r));
    relations::measure(&session, with_rows).await?;
    relations::mark_remote_views(&session, &mut relations).await?;
    let oids: Vec<u32> = relations.iter().filter(|r| r.lockable()).map(|r| r.oid).collect();
    let columns = relations::columns(&session, &oids).await?;
    let partitions = partitions::list(&session).await?;
    partitions::mark(&partitions, &mut relations);
    same_now(&relations, &wanted)?;
    same_columns(guard, &locked, &columns).await?;
    Ok(Exporter {
        session,
        snapshot_name: look.snapshot_name,
        snapshot: look.snapshot,
        taken_at: look.taken_at,
        replayed_at,
        lsn: look.lsn,
        relations,
        columns,
        partitions,
    })
}

struct Look {
    snapshot_name: String,
    snapshot: String,
    taken_at: DateTime<Utc>,
    lsn: String,
}

/// On a standby: the last transaction replayed. Asked before the snapshot is taken, so that it never claims too much.
async fn replayed_at(guard: &Session) -> Result<Option<DateTime<Utc>>, Error> {
    let sql =
        "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_xact_replay_timestamp() END";
    let rows = guard.select_text("read the replay position", sql).await?;
    Ok(rows.first().and_then(|row| row.get(0)).and_then(parse_timestamp))
}

/// The first query: it takes the snapshot. One message, so that its time is from before the snapshot.
async fn look(session: &Session) -> Result<Look, Error> {
    const TRIED: &str = "take and export the snapshot";
    let rows = session
        .select_text(
            TRIED,
            "SELECT pg_catalog.statement_timestamp(), pg_catalog.pg_current_snapshot(),
                    CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                         ELSE pg_catalog.pg_current_wal_lsn() END",
        )
        .await?;
    let name = session
        .select_text(TRIED, "SELECT pg_catalog.pg_export_snapshot()")
        .await?;
    let text = |rows: &[tokio_postgres::SimpleQueryRow], column: usize| {
        rows.first().and_then(|row| row.get(column)).map(str::to_owned)
    };
    let unexpected = || {
        Error::unexpected(
            TRIED,
            session.description(),
            "the server's answer was not understood",
        )
    };
    Ok(Look {
        snapshot_name: text(&name, 0).ok_or_else(unexpected)?,
        taken_at: text(&rows, 0)
            .as_deref()
            .and_then(parse_timestamp)
            .ok_or_else(unexpected)?,
        snapshot: text(&rows, 1).ok_or_else(unexpected)?,
        lsn: text(&rows, 2).unwrap_or_default(),
    })
}

/// Locks the tables in ACCESS SHARE mode, for at most the session's lock timeout each.
///
/// While it waits, the guard looks who is in the way, so that the error can name them.
async fn lock(
    session: &Session,
    guard: &Session,
    tables: &[Relation],
    waited: Duration,
) -> Result<(), SnapshotError> {
    let names: Vec<String> = tables
        .iter()
        .map(|table| format!("ONLY {}", qualified(&table.schema, &table.name)))
        .collect();
    let statement = format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "));
    let locking = session.batch("lock the tables", &statement);
    tokio::pin!(locking);
    let mut blocker = None;
    let result = loop {
        tokio::select! {
            result = &mut locking => break result,
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                if let Some(found) = waiting::blockers_of(guard, session.backend_pid()).await? {
                    blocker = Some(found);
                }
            }
        }
    };
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::LockTimeout => Err(SnapshotError::Blocked {
            on: session.description().to_owned(),
            blocker: blocker.unwrap_or_else(|| "another session".to_owned()),
            waited,
        }),
        // The table is gone, or its schema, or the name belongs to something else by now.
        Err(error) if matches!(error.sqlstate(), Some("42P01" | "3F000" | "42809")) => {
            Err(SnapshotError::SchemaMoved(error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// The wanted relations of the snapshot that this transaction holds no lock on: new since the first list, or renamed.
async fn unlocked(
    session: &Session,
    relations: &[Relation],
    wanted: &impl Fn(&Relation) -> bool,
) -> Result<Vec<Relation>, Error> {
    let sql = "SELECT relation FROM pg_catalog.pg_locks
                WHERE locktype = 'relation' AND pid = pg_catalog.pg_backend_pid() AND mode = 'AccessShareLock'
                  AND database = (SELECT oid FROM pg_catalog.pg_database
                                   WHERE datname = pg_catalog.current_database())";
    let rows = session.select("see which tables are locked", sql, &[]).await?;
    let held: BTreeSet<u32> = rows.iter().map(|row| row.get(0)).collect();
    let missing =
        |relation: &&Relation| relation.lockable() && wanted(relation) && !held.contains(&relation.oid);
    Ok(relations.iter().filter(missing).cloned().collect())
}

/// The storage that the snapshot shows is the storage that is there: nothing was truncated or rewritten in between.
fn same_now(relations: &[Relation], wanted: &impl Fn(&Relation) -> bool) -> Result<(), SnapshotError> {
    let moved = |relation: &&Relation| {
        relation.has_rows() && wanted(relation) && relation.filenode_in_snapshot != relation.filenode_now
    };
    match relations.iter().find(moved) {
        Some(relation) => Err(SnapshotError::SchemaMoved(format!(
            "{} was truncated, rewritten or dropped",
            relation.display_name()
        ))),
        None => Ok(()),
    }
}

/// A table locked only after the snapshot may have changed its columns before the lock, without a rewrite.
async fn same_columns(
    guard: &Session,
    locked_late: &[Relation],
    in_snapshot: &BTreeMap<u32, Columns>,
) -> Result<(), SnapshotError> {
    if locked_late.is_empty() {
        return Ok(());
    }
    let oids: Vec<u32> = locked_late.iter().map(|relation| relation.oid).collect();
    let now = relations::columns(guard, &oids).await?;
    match locked_late
        .iter()
        .find(|relation| now.get(&relation.oid) != in_snapshot.get(&relation.oid))
    {
        Some(relation) => Err(SnapshotError::SchemaMoved(format!(
            "the columns of {} changed",
            relation.display_name()
        ))),
        None => Ok(()),
    }
}
