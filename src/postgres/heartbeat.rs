//! The heartbeat row: its schema, its table, and reading and writing it. The only thing that is ever written to a source.
//!
//! One row for each target. Its updates touch no indexed column and find room in their own page, so that neither table
//! nor index grows, as long as no old snapshot is held open.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::error::Error;
use super::facts::parse_timestamp;
use super::session::Session;

/// The schema that holds nothing but the table.
pub const SCHEMA: &str = "ernstfall";
/// The table's name in it.
pub const TABLE: &str = "heartbeat";

/// Makes the schema, and says what it is to whoever finds it.
pub const SCHEMA_DEFINITION: &str = "\
CREATE SCHEMA IF NOT EXISTS ernstfall;
COMMENT ON SCHEMA ernstfall IS 'Holds the heartbeat by which ernstfall measures how recent its backups are. Nothing of the application.';";

/// Makes the table, likewise.
pub const TABLE_DEFINITION: &str = "\
CREATE TABLE IF NOT EXISTS ernstfall.heartbeat (
    target text PRIMARY KEY,
    written_at timestamp with time zone NOT NULL,
    every interval NOT NULL,
    writer text NOT NULL,
    host text NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE ernstfall.heartbeat IS 'One row for each target of ernstfall, rewritten every so often. A backup that holds the row holds everything committed before written_at. It may be dropped once no target has `heartbeat` configured.';
COMMENT ON COLUMN ernstfall.heartbeat.target IS 'The target, as the configuration of ernstfall calls it.';
COMMENT ON COLUMN ernstfall.heartbeat.written_at IS 'By the clock of the server that was written to.';
COMMENT ON COLUMN ernstfall.heartbeat.every IS 'How often the writer means to write.';
COMMENT ON COLUMN ernstfall.heartbeat.writer IS 'Which installation writes: the chain of its records. Only one does; another takes over when it falls silent.';
COMMENT ON COLUMN ernstfall.heartbeat.host IS 'The machine it runs on.';";

/// Somebody else made it at the same moment: unique violation, duplicate schema, duplicate table.
const MADE_BY_ANOTHER: [&str; 3] = ["23505", "42P06", "42P07"];

/// What there is, and what the role may do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub schema_exists: bool,
    pub table_exists: bool,
    /// The role may make what is missing.
    pub may_create: bool,
    /// The role may read and write the table.
    pub may_write: bool,
    /// Publications that carry the table, or would once it is there. A subscriber that lacks the table stops at the first
    /// row of it.
    pub publications: Vec<String>,
}

/// Looks, and changes nothing.
pub async fn look(session: &Session) -> Result<Standing, Error> {
    // The names are looked up in the catalogue: to_regclass() fails without the right to use the schema.
    let sql = "SELECT n.oid IS NOT NULL, c.oid IS NOT NULL,
                      CASE WHEN n.oid IS NULL
                           THEN pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
                           ELSE coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                                         AND pg_catalog.has_schema_privilege(n.oid, 'CREATE'), false) END,
                      coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                               AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
                               AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
                               AND pg_catalog.has_table_privilege(c.oid, 'UPDATE'), false)
                 FROM (SELECT) AS one
                 LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = 'ernstfall'
                 LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = 'heartbeat'";
    let row = session.select_one("look for the heartbeat", sql, &[]).await?;
    let table_exists = row.get(1);
    Ok(Standing {
        schema_exists: row.get(0),
        table_exists,
        may_create: row.get(2),
        may_write: row.get(3),
        publications: publications(session, table_exists).await?,
    })
}

/// Publications that carry the table, or would once it is there.
pub async fn publications(session: &Session, table_exists: bool) -> Result<Vec<String>, Error> {
    let sql = match session.server_version_num() {
        // From there on, a publication of all tables can leave some out.
        190_000.. if table_exists => PUBLICATIONS_OF_TABLE.to_owned(),
        150_000.. => format!("{PUBLICATIONS} {OR_OF_SCHEMA} ORDER BY 1"),
        _ => format!("{PUBLICATIONS} ORDER BY 1"),
    };
    let rows = session.select("look for publications", &sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

const PUBLICATIONS_OF_TABLE: &str = "
    SELECT DISTINCT pubname::text FROM pg_catalog.pg_publication_tables
     WHERE schemaname = 'ernstfall' AND tablename = 'heartbeat' ORDER BY 1";

/// Not by the view above, which lists every table of every publication first: this is asked before each beat.
const PUBLICATIONS: &str = "
    SELECT p.pubname::text FROM pg_catalog.pg_publication p
     WHERE p.puballtables
        OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r
                     JOIN pg_catalog.pg_class c ON c.oid = r.prrelid
                     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                    WHERE r.prpubid = p.oid AND n.nspname = 'ernstfall' AND c.relname = 'heartbeat')";

const OR_OF_SCHEMA: &str = "
        OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace s
                     JOIN pg_catalog.pg_namespace n ON n.oid = s.pnnspid
                    WHERE s.pnpubid = p.oid AND n.nspname = 'ernstfall')";

/// Makes what is missing. Whoever else does so at the same moment is no error.
pub async fn create(session: &Session, standing: &Standing) -> Result<(), Error> {
    let mut statements = Vec::new();
    if !standing.schema_exists {
        statements.push(SCHEMA_DEFINITION);
    }
    if !standing.table_exists {
        statements.push(TABLE_DEFINITION);
    }
    // One message is one transaction.
    match session
        .batch("make the heartbeat's table", &statements.join("\n"))
        .await
    {
        Err(error)
            if error
                .sqlstate()
                .is_some_and(|code| MADE_BY_ANOTHER.contains(&code)) =>
        {
            Ok(())
        }
        result => result,
    }
}

/// Who writes a heartbeat, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub target: String,
    pub every: Duration,
    /// The installation: no two have the same.
    pub writer: String,
    /// For people.
    pub host: String,
}

/// A heartbeat, as its row says.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    pub written_at: DateTime<Utc>,
    /// Seconds between two.
    pub every_seconds: f64,
    pub writer: String,
    pub host: String,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// By the server's clock.
    At(DateTime<Utc>),
    /// Another installation keeps the row, and has written it lately.
    ByAnother(Heartbeat),
}

/// Writes the row of this target, unless another installation keeps it. One that has missed three of its beats, and a
/// minute more, has given it up.
pub async fn write(session: &Session, mark: &Mark) -> Result<Written, Error> {
    let sql = "INSERT INTO ernstfall.heartbeat AS there (target, written_at, every, writer, host)
               VALUES ($1, pg_catalog.clock_timestamp(), $2::float8 * interval '1 second', $3, $4)
               ON CONFLICT (target) DO UPDATE
                  SET written_at = EXCLUDED.written_at, every = EXCLUDED.every,
                      writer = EXCLUDED.writer, host = EXCLUDED.host
                WHERE there.writer = EXCLUDED.writer
                   OR there.written_at NOT BETWEEN
                      EXCLUDED.written_at - (there.every * 3 + interval '1 minute')
                      AND EXCLUDED.written_at + (there.every * 3 + interval '1 minute')
               RETURNING written_at::text";
    let tried = "write the heartbeat";
    let rows = session
        .select(
            tried,
            sql,
            &[&mark.target, &mark.every.as_secs_f64(), &mark.writer, &mark.host],
        )
        .await?;
    match rows.first() {
        Some(row) => timestamp(tried, session, row.get(0)).map(Written::At),
        None => match read(session, &mark.target).await? {
            Some(heartbeat) => Ok(Written::ByAnother(heartbeat)),
            None => Err(Error::unexpected(
                tried,
                session.description(),
                "the row was neither written nor found",
            )),
        },
    }
}

/// The heartbeat of this target; the table must be there, and readable.
pub async fn read(session: &Session, target: &str) -> Result<Option<Heartbeat>, Error> {
    let sql = "SELECT written_at::text, extract(epoch FROM every)::float8, writer, host
                 FROM ernstfall.heartbeat WHERE target = $1";
    let tried = "read the heartbeat";
    let rows = session.select(tried, sql, &[&target]).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    Ok(Some(Heartbeat {
        written_at: timestamp(tried, session, row.get(0))?,
        every_seconds: row.get(1),
        writer: row.get(2),
        host: row.get(3),
    }))
}

fn timestamp(tried: &str, session: &Session, text: &str) -> Result<DateTime<Utc>, Error> {
    parse_timestamp(text).ok_or_else(|| Error::unexpected(tried, session.description(), text))
}
