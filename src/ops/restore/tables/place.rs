//! The schema that tables are brought back into: made by the restore, marked while unfinished, and removed with nothing
//! else when that fails. Never: a CASCADE, which could reach what somebody else has made.

use std::sync::{Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use crate::model::backup_id::BackupId;
use crate::postgres::error::Error;
use crate::postgres::identifier::{qualified, quote_identifier, quote_literal};
use crate::postgres::session::{CancelHandle, Session};

use super::definition::{Definition, MADE};

/// Begins the comment of a schema whose restore has not ended.
const UNFINISHED: &str = "a restore of tables by ernstfall that has not ended: ";

/// "ernt": the class of the advisory lock of a transaction that makes tables.
const MAKING: i32 = 0x6572_6e74;

/// Tables made or removed in one transaction: each takes several of the server's locks, of which a small server has
/// some thousands.
const BATCH: usize = 200;

/// How long removing waits for those who look at the tables.
const LOCK_TIMEOUT_SECONDS: u32 = 30;

/// A schema to restore into.
pub(super) struct Place {
    pub(super) schema: String,
    /// Its comment while the restore is under way; no two runs have the same.
    marker: String,
    /// Of the sessions that may be at work in it.
    at_work: Mutex<Vec<CancelHandle>>,
}

/// What stands where the schema is to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    Absent,
    /// Left by a restore that broke, with what others have made in it since.
    Unfinished {
        comment: String,
        foreign: Vec<String>,
    },
    Taken,
}

impl Place {
    pub(super) fn new(schema: &str, backup: &BackupId, run: &str) -> Self {
        Self {
            schema: schema.to_owned(),
            marker: format!("{UNFINISHED}backup {backup}, run {run}"),
            at_work: Mutex::default(),
        }
    }

    /// Makes the schema with its marker, then the relations. What fails leaves what its marker names, or nothing.
    pub(super) async fn make(&self, session: &Session, definitions: &[Definition]) -> Result<(), Error> {
        let schema = quote_identifier(&self.schema);
        let begin = format!(
            "BEGIN; SELECT pg_catalog.pg_advisory_xact_lock({})",
            self.making()
        );
        let head = format!(
            "{begin}; CREATE SCHEMA {schema}; COMMENT ON SCHEMA {schema} IS {}",
            quote_literal(&self.marker)
        );
        let tried = format!("make the schema {}", self.schema);
        session.batch(&tried, &head).await?;
        for (number, batch) in definitions.chunks(BATCH).enumerate() {
            if number > 0 {
                session.batch("begin", &begin).await?;
            }
            for definition in batch {
                session.batch(&definition.tried, &definition.statements).await?;
            }
            session.batch("commit", "COMMIT").await?;
        }
        Ok(())
    }

    /// The advisory lock of each transaction that makes something, by which its end can be waited for.
    fn making(&self) -> String {
        format!("{MAKING}, {}", lock_number(&self.schema))
    }

    /// Remembers a session, to cancel what it runs should the restore end before it.
    pub(super) fn works_in(&self, session: &Session) {
        let mut handles = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
        handles.push(session.cancel_handle());
    }

    /// Says instead of the marker what the schema holds.
    pub(super) async fn finish(&self, session: &Session, comment: &str) -> Result<(), Error> {
        let sql = format!(
            "COMMENT ON SCHEMA {} IS {}",
            quote_identifier(&self.schema),
            quote_literal(comment)
        );
        session.batch("say where the tables come from", &sql).await
    }

    /// Removes what this run has made, if it has made anything.
    pub(super) async fn remove_own(&self, session: &Session) -> Result<(), Error> {
        let handles = std::mem::take(&mut *self.at_work.lock().unwrap_or_else(PoisonError::into_inner));
        for handle in handles {
            // Most have ended already; one that goes on would hold up the removal, which then says so.
            let _ = handle.cancel().await;
        }
        // A commit may be under way, and what it makes is not seen before.
        let wait = format!(
            "SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'; SELECT pg_catalog.pg_advisory_xact_lock({})",
            self.making()
        );
        session
            .batch("wait for the end of what was being made", &wait)
            .await?;
        match state(session, &self.schema).await? {
            State::Unfinished { comment, .. } if comment == self.marker => {
                remove(session, &self.schema).await
            }
            _ => Ok(()),
        }
    }
}

/// The number under which a schema is locked. Two of the same only refuse to run at once.
pub(super) fn lock_number(schema: &str) -> i32 {
    // 1 is the whole database.
    i32::try_from(xxh3_64(schema.as_bytes()) & 0x7fff_fffe).unwrap_or(0) & !1
}

/// What is there under the schema's name.
pub(super) async fn state(session: &Session, schema: &str) -> Result<State, Error> {
    let sql = "SELECT oid, coalesce(pg_catalog.obj_description(oid, 'pg_namespace'), '')
                 FROM pg_catalog.pg_namespace WHERE nspname::text = $1";
    let rows = session.select("look for the schema", sql, &[&schema]).await?;
    let Some(row) = rows.first() else {
        return Ok(State::Absent);
    };
    let (oid, comment): (u32, String) = (row.get(0), row.get(1));
    if !comment.starts_with(UNFINISHED) {
        return Ok(State::Taken);
    }
    // All that lies in a schema depends on it.
    let sql =
        "SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_catalog.pg_depend d
                WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.refobjid = $1
                  AND NOT (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND EXISTS (
                      SELECT FROM pg_catalog.pg_class c WHERE c.oid = d.objid AND c.relkind IN ('r', 'v')
                         AND pg_catalog.starts_with(pg_catalog.obj_description(c.oid, 'pg_class'), $2)))
                ORDER BY 1";
    let rows = session
        .select("look into the schema", sql, &[&oid, &MADE])
        .await?;
    Ok(State::Unfinished {
        comment,
        foreign: rows.iter().map(|row| row.get(0)).collect(),
    })
}

/// Removes an unfinished schema and what restores have made in it. The server refuses where anything else is in it, or
/// depends on it.
pub(super) async fn remove(session: &Session, schema: &str) -> Result<(), Error> {
    let sql = "SELECT c.relname::text, c.relkind = 'v' FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname::text = $1 AND c.relkind IN ('r', 'v')
                  AND pg_catalog.starts_with(pg_catalog.obj_description(c.oid, 'pg_class'), $2)
                ORDER BY c.relkind = 'r', c.relname";
    let rows = session
        .select("look into the schema", sql, &[&schema, &MADE])
        .await?;
    let drops: Vec<String> = rows
        .iter()
        .map(|row| {
            let kind = if row.get(1) { "VIEW" } else { "TABLE" };
            format!("DROP {kind} {}; ", qualified(schema, row.get(0)))
        })
        .collect();
    let tried = format!("remove the schema {schema} with what an unfinished restore left in it");
    let run = async |statements: &str| {
        let sql = format!("SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'; {statements}");
        session.batch(&tried, &sql).await.map_err(explain)
    };
    for batch in drops.chunks(BATCH) {
        run(&batch.concat()).await?;
    }
    // The marker goes last, so that what breaks here can be begun anew.
    run(&format!("DROP SCHEMA {}", quote_identifier(schema))).await
}

/// Says what depends on the tables.
fn explain(error: Error) -> Error {
    match (error.sqlstate(), error.detail().map(str::to_owned)) {
        // Dependent objects still exist: the detail names them, and quotes no rows.
        (Some("2BP01"), Some(detail)) => error.with_hint(format!(
            "{}: remove that first, since nothing is removed that the restore has not made",
            detail.replace('\n', ", ")
        )),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_schema_is_locked_as_the_whole_database() {
        for schema in ["recovered", "", "S", "a\nb"] {
            let number = lock_number(schema);
            assert!(number >= 0 && number != crate::ops::restore::marker::WHOLE_DATABASE);
        }
    }
}
