//! Who waits for whom: the sessions in our way, and those that we are in the way of.

use std::time::Duration;

use crate::model::redact::without_literals;

use super::error::Error;
use super::session::Session;

/// A description of the sessions that block `pid`, or `None` where nobody does.
pub async fn blockers_of(guard: &Session, pid: i32) -> Result<Option<String>, Error> {
    let sql = "SELECT a.pid, coalesce(a.usename::text, '?'), coalesce(a.application_name, ''),
                      coalesce(a.state, '?'), pg_catalog.left(coalesce(a.query, ''), 200)
                 FROM pg_catalog.pg_stat_activity a
                WHERE a.pid = ANY (pg_catalog.pg_blocking_pids($1)) ORDER BY a.xact_start LIMIT 3";
    let rows = guard.select("see who blocks the backup", sql, &[&pid]).await?;
    let described: Vec<String> = rows
        .iter()
        .map(|row| {
            let (pid, user, application, state, query): (i32, &str, &str, &str, &str) =
                (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
            format!(
                "pid {pid} ({user}, {application}, {state}: {})",
                without_literals(query).replace('\n', " ")
            )
        })
        .collect();
    Ok((!described.is_empty()).then(|| described.join("; ")))
}

/// The sessions that have kept our session of this name waiting for longer than `limit`, or `None`.
///
/// Waiting for LOCK TABLE does not count: pg_dump has a time limit of its own for that.
pub async fn blockers_of_application(
    guard: &Session,
    application: &str,
    limit: Duration,
) -> Result<Option<String>, Error> {
    let sql = "SELECT pid FROM pg_catalog.pg_stat_activity
                WHERE application_name = $1 AND wait_event_type = 'Lock' AND query NOT LIKE 'LOCK TABLE%'
                  AND pg_catalog.clock_timestamp() - query_start > $2::float8 * interval '1 second'";
    let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] = &[&application, &limit.as_secs_f64()];
    let rows = guard.select("see whether pg_dump waits", sql, parameters).await?;
    match rows.first() {
        Some(row) => blockers_of(guard, row.get(0)).await,
        None => Ok(None),
    }
}

/// A statement that waits for a lock we hold, with the application's queries queueing behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiter {
    pub pid: i32,
    pub table: String,
    pub query: String,
}

/// Requests for ACCESS EXCLUSIVE that wait for one of our sessions.
pub async fn exclusive_waiters(guard: &Session, ours: &[i32]) -> Result<Vec<Waiter>, Error> {
    let sql = "SELECT l.pid, coalesce(l.relation::pg_catalog.regclass::text, '?'),
                      pg_catalog.left(coalesce(a.query, ''), 200)
                 FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
                WHERE NOT l.granted AND l.mode = 'AccessExclusiveLock' AND l.locktype = 'relation'
                  AND pg_catalog.pg_blocking_pids(l.pid) && $1::int[]";
    let rows = guard
        .select("see who waits for the backup", sql, &[&ours])
        .await?;
    let waiter = |row: &tokio_postgres::Row| Waiter {
        pid: row.get(0),
        table: row.get(1),
        query: without_literals(row.get(2)).replace('\n', " "),
    };
    Ok(rows.iter().map(waiter).collect())
}
