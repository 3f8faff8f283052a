//! Looks who waits behind the backup: DDL that queues blocks the application's own queries behind it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::ops::target::OnBlockedDdl;
use crate::postgres::session::Session;
use crate::postgres::snapshot::SnapshotError;
use crate::postgres::waiting::{self, Waiter};

use super::{BackupError, Notebook};

/// A waiting statement is seen within this time and one query.
const INTERVAL: Duration = Duration::from_secs(5);

/// How often it is looked whether pg_dump gets on: small against any useful lock_timeout, and cheap.
const STUCK_INTERVAL: Duration = Duration::from_secs(1);

/// Watches until it is dropped, or until the backup has to give way.
pub(super) async fn watch(
    guard: &Session,
    our_pids: &Mutex<Vec<i32>>,
    on_blocked_ddl: OnBlockedDdl,
    notes: &Notebook,
) -> Result<std::convert::Infallible, BackupError> {
    let mut seen = BTreeSet::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let ours = our_pids.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for waiter in waiting::exclusive_waiters(guard, &ours).await? {
            let description = describe(&waiter);
            if on_blocked_ddl == OnBlockedDdl::Abort {
                return Err(BackupError::GaveWay { waiter: description });
            }
            if seen.insert(waiter.pid) {
                let finding = super::warning(&waiter.table, description);
                notes.lock().findings.push(finding);
            }
        }
    }
}

/// Waits until pg_dump has waited too long for a lock on a view or the like, for which it knows no time limit.
pub(super) async fn stuck(guard: &Session, application: &str, limit: Duration) -> BackupError {
    loop {
        tokio::time::sleep(STUCK_INTERVAL).await;
        match waiting::blockers_of_application(guard, application, limit).await {
            Ok(None) => {}
            Ok(Some(blocker)) => {
                return BackupError::Snapshot(SnapshotError::Blocked {
                    on: guard.description().to_owned(),
                    blocker,
                    waited: limit,
                });
            }
            Err(error) => return error.into(),
        }
    }
}

fn describe(waiter: &Waiter) -> String {
    format!(
        "pid {} waited for the backup's lock on {}, and queries on that table behind it: {}",
        waiter.pid, waiter.table, waiter.query
    )
}
