//! The marker of a real restore: a schema in the destination that says what is done, so that a broken restore can go on.
//!
//! It is made only in an empty database; so whatever else is there while it stands was made by the restore.

use std::collections::BTreeSet;

use crate::model::backup_id::BackupId;
use crate::model::contents::LoadStage;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::error::Error;
use crate::postgres::identifier::{Quoting, quote_literal};
use crate::postgres::session::Session;

use super::build::Powers;

/// The schema's name; reserved, so that nobody's schema is taken for it.
pub(super) const SCHEMA: &str = "ernstfall_restore";

/// "ernr", so that the lock is not mistaken for one of the application's, or of a backup's.
const ADVISORY_CLASS: i32 = 0x6572_6e72;

/// What is locked where the whole database is restored into.
pub(super) const WHOLE_DATABASE: i32 = 1;

/// Begins the notes of what emptying takes away although it is not ours: an extension goes with the schema it is in.
pub(super) const PUT_BACK: &str = "put back ";

/// Notes the schema public as it is: it goes with what is in it.
const PUBLIC: &str = "SELECT 'put back CREATE SCHEMA IF NOT EXISTS public; ALTER SCHEMA public OWNER TO '
           || pg_catalog.quote_ident(r.rolname) || '; REVOKE ALL ON SCHEMA public FROM PUBLIC, '
           || pg_catalog.quote_ident(r.rolname)
           || coalesce((SELECT pg_catalog.string_agg(pg_catalog.format('; GRANT %s ON SCHEMA public TO %s%s', x.privilege_type,
                  CASE WHEN x.grantee = 0 THEN 'PUBLIC'
                       ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(x.grantee)) END,
                  CASE WHEN x.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '')
                FROM pg_catalog.aclexplode(coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))) AS x), '')
           || coalesce('; COMMENT ON SCHEMA public IS '
                  || pg_catalog.quote_literal(pg_catalog.obj_description(n.oid, 'pg_namespace')), '')
      FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner WHERE n.nspname = 'public'";

/// A marker in the database behind a connection.
#[derive(Clone)]
pub(in crate::ops) struct Marker {
    pub(super) connection: ConnectionSettings,
}

impl Marker {
    /// A connection of the moment.
    pub(super) async fn session(&self) -> Result<Session, Error> {
        Session::connect(&self.connection, "restore", None).await
    }

    /// One restore into a database, or into one of its schemas, at a time. The server lets go of the lock with the
    /// session. Returns who holds it, if somebody else does.
    pub(super) async fn lock(session: &Session, part: i32) -> Result<Option<String>, Error> {
        let sql = "SELECT pg_catalog.pg_try_advisory_lock($1, $2),
                          (SELECT pg_catalog.string_agg('pid ' || l.pid, ', ') FROM pg_catalog.pg_locks l
                            WHERE l.locktype = 'advisory' AND l.classid::bigint = $1 AND l.objid::bigint = $2 AND l.granted
                              AND l.database = (SELECT oid FROM pg_catalog.pg_database
                                                 WHERE datname = pg_catalog.current_database())
                              AND l.pid <> pg_catalog.pg_backend_pid())";
        let row = session
            .select_one(
                "lock the database for the restore",
                sql,
                &[&ADVISORY_CLASS, &part],
            )
            .await?;
        let holder = row
            .get::<_, Option<String>>(1)
            .unwrap_or_else(|| "another session".to_owned());
        Ok((!row.get::<_, bool>(0)).then_some(holder))
    }

    /// Whether a restore into the whole database runs, or was broken off.
    pub(in crate::ops) async fn is_under_way(session: &Session) -> Result<bool, Error> {
        let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $3)
                       OR EXISTS (SELECT FROM pg_catalog.pg_locks l
                                   WHERE l.locktype = 'advisory' AND l.granted
                                     AND l.classid::bigint = $1::int AND l.objid::bigint = $2::int
                                     AND l.database = (SELECT oid FROM pg_catalog.pg_database
                                                        WHERE datname = pg_catalog.current_database()))";
        let tried = "see whether a restore is under way";
        let row = session
            .select_one(tried, sql, &[&ADVISORY_CLASS, &WHOLE_DATABASE, &SCHEMA])
            .await?;
        Ok(row.get(0))
    }

    /// Which backup a broken restore was restoring, if there is a marker.
    pub(super) async fn find(session: &Session) -> Result<Option<String>, Error> {
        let sql = format!("SELECT pg_catalog.to_regclass('{SCHEMA}.step') IS NOT NULL");
        if !session
            .select_one("look for the marker", &sql, &[])
            .await?
            .get::<_, bool>(0)
        {
            return Ok(None);
        }
        let sql = format!("SELECT name FROM {SCHEMA}.step WHERE name LIKE 'backup %'");
        let rows = session.select("read the marker", &sql, &[]).await?;
        Ok(rows
            .first()
            .map(|row| row.get::<_, String>(0).trim_start_matches("backup ").to_owned()))
    }

    /// Makes the marker.
    pub(super) async fn create(session: &Session, backup: &BackupId) -> Result<(), Error> {
        let sql = format!(
            "BEGIN; CREATE SCHEMA {SCHEMA}; CREATE TABLE {SCHEMA}.step (name text PRIMARY KEY); \
             COMMENT ON SCHEMA {SCHEMA} IS 'a restore by ernstfall that has not ended'; \
             INSERT INTO {SCHEMA}.step VALUES ('backup {backup}'); \
             INSERT INTO {SCHEMA}.step SELECT 'had extension ' || extname FROM pg_catalog.pg_extension; \
             INSERT INTO {SCHEMA}.step SELECT pg_catalog.format('{PUT_BACK}CREATE EXTENSION IF NOT EXISTS %I SCHEMA %I VERSION %L', \
             extname, nspname, extversion) FROM pg_catalog.pg_extension e \
             JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace; \
             INSERT INTO {SCHEMA}.step {PUBLIC}; COMMIT"
        );
        session.batch("make the marker", &sql).await
    }

    /// Removes the marker. Event triggers of the backup are there by then, and may refuse that anything is dropped.
    pub(super) async fn remove(session: &Session, powers: Powers) -> Result<(), Error> {
        let silence = powers.silence(session, Quoting::Utf8).await?;
        let statement = silence.around(&format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"));
        session.batch("remove the marker", &statement).await
    }

    /// Whether a step is done.
    pub(super) async fn has(session: &Session, step: &str) -> Result<bool, Error> {
        let sql = format!("SELECT EXISTS (SELECT FROM {SCHEMA}.step WHERE name = $1)");
        Ok(session
            .select_one("read the marker", &sql, &[&step])
            .await?
            .get(0))
    }

    pub(super) async fn note(session: &Session, step: &str) -> Result<(), Error> {
        let sql = format!(
            "INSERT INTO {SCHEMA}.step VALUES ({}) ON CONFLICT DO NOTHING",
            quote_literal(step)
        );
        session.batch("write the marker", &sql).await
    }

    /// The statement that notes an object, for the transaction that loads it.
    pub(super) fn note_object(stage: LoadStage, key: &str) -> String {
        format!(
            "INSERT INTO {SCHEMA}.step VALUES ({})",
            quote_literal(&step_of(stage, key))
        )
    }

    /// Keys of the objects that are in already.
    pub(super) async fn loaded_objects(&self, stage: LoadStage) -> Result<BTreeSet<String>, Error> {
        let session = self.session().await?;
        let sql = format!("SELECT name FROM {SCHEMA}.step");
        let rows = session.select("read the marker", &sql, &[]).await?;
        let prefix = step_of(stage, "");
        let names = rows.iter().map(|row| row.get::<_, String>(0));
        Ok(names
            .filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned))
            .collect())
    }
}

fn step_of(stage: LoadStage, key: &str) -> String {
    match stage {
        LoadStage::BeforeIndexes => format!("object {key}"),
        LoadStage::AfterIndexes | LoadStage::Never => format!("late object {key}"),
    }
}
