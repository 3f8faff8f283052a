//! Looks who waits behind the backup: DDL that queues blocks the application's own queries behind it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::ops::target::OnBlockedDdl;
use crate::postgres::session::Session;
use crate::postgres::waiting::{self, Waiter};

use super::{BackupError, Notebook};

/// A waiting statement is seen within this time and one query.
const INTERVAL: Duration = Duration::from_secs(5);

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

fn describe(waiter: &Waiter) -> String {
    format!(
        "pid {} waited for the backup's lock on {}, and queries on that table behind it: {}",
        waiter.pid, waiter.table, waiter.query
    )
}
