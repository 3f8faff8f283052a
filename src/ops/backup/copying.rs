//! The workers that copy the tables, each in short transactions of its own that adopt the one snapshot.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::ops::fault_point::pause;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::copy_out::{self, CopyError, StorageCheck};
use crate::postgres::error::Error as PostgresError;
use crate::postgres::session::{CancelHandle, Session};
use crate::postgres::snapshot::{Exporter, Locking};

use super::BackupError;
use super::plan::Unit;
use super::sink::{Sink, Stock, Stored};

/// An idle transaction is kept alive through firewalls and proxies by a word every so often.
const PING: Duration = Duration::from_secs(30);

/// A source that does not even answer this for so long hangs.
const SILENCE: Duration = Duration::from_secs(60);

/// What the workers share.
pub(super) struct Work {
    pub(super) connection: ConnectionSettings,
    pub(super) encoding: String,
    pub(super) snapshot_name: String,
    pub(super) storage_check: StorageCheck,
    /// The server counts every table's rows as well.
    pub(super) counting: Counting,
    pub(super) stock: Arc<Stock>,
    pub(super) queue: Mutex<VecDeque<Unit>>,
    /// Server processes of the workers, so that whoever waits for them can be found.
    pub(super) pids: Arc<Mutex<Vec<i32>>>,
    /// To end what these sessions read, when nobody wants it any longer.
    pub(super) cancels: Mutex<Vec<CancelHandle>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counting {
    StreamOnly,
    ServerToo,
}

impl Work {
    fn next(&self) -> Option<Unit> {
        self.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    }
}

/// How the storage of a table is known to be the snapshot's.
pub(super) fn storage_check(locking: Locking) -> StorageCheck {
    match locking {
        Locking::AllTables => StorageCheck::HeldByExporter,
        Locking::WhenCopied => StorageCheck::CompareWithSnapshot,
    }
}

/// Copies everything in the queue with `jobs` workers; the exporter copies what they are refused.
///
/// Dropping the future ends the workers and their connections; what they stored stays in the repository.
pub(super) async fn run(
    work: Arc<Work>,
    exporter: &Exporter,
    jobs: usize,
) -> Result<Vec<Stored>, BackupError> {
    let mut given_up = GivenUp {
        work: Some(Arc::clone(&work)),
    };
    let (refused, taken_over) = unbounded_channel();
    let mut workers = JoinSet::new();
    for _ in 0..jobs.max(1) {
        workers.spawn(worker(Arc::clone(&work), refused.clone()));
    }
    drop(refused);
    let collect = async {
        let mut stored = Vec::new();
        while let Some(result) = workers.join_next().await {
            stored.push(result??);
        }
        Ok::<_, BackupError>(stored)
    };
    let (mut stored, by_exporter) = tokio::try_join!(collect, serve(&work, exporter, taken_over))?;
    stored.push(by_exporter);
    given_up.work = None;
    Ok(stored)
}

/// Dropped before the work is done, it has the server stop reading: a dropped connection alone reads its table to the
/// end, and holds its locks as long.
struct GivenUp {
    work: Option<Arc<Work>>,
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        let (Some(work), Ok(runtime)) = (self.work.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        for handle in work
            .cancels
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            // Whether it arrives or not, the connection ends: there is nothing to report.
            runtime.spawn(async move { handle.cancel().await.ok() });
        }
    }
}

async fn worker(work: Arc<Work>, refused: UnboundedSender<Unit>) -> Result<Stored, BackupError> {
    let session = Session::connect(&work.connection, "backup worker", Some(&work.encoding)).await?;
    work.pids
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(session.backend_pid());
    work.cancels
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(session.cancel_handle());
    let mut sink = Sink::new(Arc::clone(&work.stock));
    while let Some(unit) = work.next() {
        pause("before-table").await;
        match copy_out::begin(&session, &unit.source, &work.snapshot_name, work.storage_check).await {
            Ok(()) => {}
            Err(CopyError::LockRefused) => {
                // The receiver lives as long as the workers do.
                let _ = refused.send(unit);
                continue;
            }
            Err(error) => return Err(backup_error(error, &unit)),
        }
        match copy(&work, &session, &unit, &mut sink).await {
            Ok(()) => copy_out::commit(&session).await?,
            Err(CopyError::Row { after, error }) if error.sqlstate().is_some() && !error.is_environment() => {
                return Err(unreadable_row(&work, &session, &unit, after, error).await);
            }
            Err(error) => return Err(backup_error(error, &unit)),
        }
    }
    sink.finish().await
}

/// Copies a unit inside the session's open transaction.
async fn copy(
    work: &Work,
    session: &Session,
    unit: &Unit,
    sink: &mut Sink,
) -> Result<(), CopyError<BackupError>> {
    sink.begin_table(unit).await.map_err(CopyError::Sink)?;
    let streamed = copy_out::copy(session, &unit.source, sink).await?;
    sink.end_table(unit);
    if work.counting == Counting::ServerToo {
        let counted = copy_out::count(session, &unit.source).await?;
        if counted != streamed {
            return Err(CopyError::Sink(BackupError::CountDiffers {
                table: unit.table_name(),
                streamed,
                counted,
            }));
        }
    }
    Ok(())
}

/// The server can not send a row: where does it stand? The transaction has failed, so another one looks.
async fn unreadable_row(
    work: &Work,
    session: &Session,
    unit: &Unit,
    after: u64,
    error: PostgresError,
) -> BackupError {
    let found = async {
        session.batch("roll back", "ROLLBACK").await.ok()?;
        copy_out::begin::<BackupError>(session, &unit.source, &work.snapshot_name, work.storage_check)
            .await
            .ok()?;
        copy_out::locate(session, &unit.source, after).await.ok()?
    };
    match found.await {
        Some(ctid) => BackupError::UnreadableRow {
            table: unit.table_name(),
            ctid,
            error: Box::new(error),
        },
        None => error.into(),
    }
}

fn backup_error(error: CopyError<BackupError>, unit: &Unit) -> BackupError {
    let table = || unit.table_name();
    match error {
        CopyError::Server(error) | CopyError::Row { error, .. } => error.into(),
        CopyError::Sink(error) => error,
        CopyError::Moved => {
            BackupError::SchemaMoved(format!("{} was truncated, rewritten or replaced", table()))
        }
        CopyError::LockRefused => BackupError::SchemaMoved(format!("{} is being altered", table())),
    }
}

/// The exporter's part: it holds every lock already, so it can read what DDL keeps the workers from.
async fn serve(
    work: &Arc<Work>,
    exporter: &Exporter,
    mut taken_over: UnboundedReceiver<Unit>,
) -> Result<Stored, BackupError> {
    let session = &exporter.session;
    let encoding = format!("SET client_encoding = '{}'", work.encoding);
    session.batch("set the client encoding", &encoding).await?;
    let mut sink = Sink::new(Arc::clone(&work.stock));
    loop {
        tokio::select! {
            unit = taken_over.recv() => match unit {
                Some(unit) if work.storage_check == StorageCheck::CompareWithSnapshot => {
                    return Err(backup_error(CopyError::LockRefused, &unit));
                }
                Some(unit) => copy(work, session, &unit, &mut sink)
                    .await
                    .map_err(|error| backup_error(error, &unit))?,
                None => return sink.finish().await,
            },
            () = tokio::time::sleep(PING) => {
                let answered = tokio::time::timeout(SILENCE, session.batch("keep the snapshot", "SELECT 1"));
                answered.await.map_err(|_| BackupError::SourceSilent(SILENCE))??;
            }
        }
    }
}
