//! What kind of server and database this is.

use chrono::{DateTime, Utc};

use crate::model::contents::{DatabaseFacts, DatabaseGrant, DatabaseSetting, Extension};

use super::error::Error;
use super::session::Session;

/// Servers before this are not supported: `pg_current_snapshot()` and others are missing.
pub const OLDEST_SERVER: i32 = 130_000;

/// Who the server is, and where its log of changes stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerIdentity {
    /// `None` where the service does not let us read it.
    pub system_identifier: Option<String>,
    pub timeline: Option<u32>,
    pub standby: bool,
    /// How many locks fit into the shared lock table.
    pub lock_capacity: u64,
}

/// Reads who the server is. Each query stands alone, since a managed service may refuse some.
pub async fn identity(session: &Session) -> Result<ServerIdentity, Error> {
    let row = session
        .select_one(
            "read the server's settings",
            "SELECT pg_catalog.pg_is_in_recovery(),
                    pg_catalog.current_setting('max_locks_per_transaction')::bigint
                    * (pg_catalog.current_setting('max_connections')::bigint
                       + pg_catalog.current_setting('max_prepared_transactions')::bigint)",
            &[],
        )
        .await?;
    let system = "SELECT system_identifier::text FROM pg_catalog.pg_control_system()";
    let system_identifier = session.query_one(system, &[]).await.ok().map(|row| row.get(0));
    let checkpoint = "SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()";
    let timeline = session
        .query_one(checkpoint, &[])
        .await
        .ok()
        .map(|row| row.get::<_, i32>(0));
    Ok(ServerIdentity {
        system_identifier,
        timeline: timeline.and_then(|timeline| u32::try_from(timeline).ok()),
        standby: row.get(0),
        lock_capacity: u64::try_from(row.get::<_, i64>(1)).unwrap_or(0),
    })
}

/// The server's wall clock, now.
pub async fn clock(session: &Session) -> Result<DateTime<Utc>, Error> {
    let rows = session
        .select_text("read the server's clock", "SELECT pg_catalog.clock_timestamp()")
        .await?;
    let text = rows.first().and_then(|row| row.get(0)).unwrap_or_default();
    parse_timestamp(text)
        .ok_or_else(|| Error::unexpected("read the server's clock", session.description(), text))
}

/// Parses a timestamptz as PostgreSQL writes it under DateStyle ISO and TimeZone UTC.
pub fn parse_timestamp(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z")
        .ok()
        .map(|at| at.with_timezone(&Utc))
}

/// The database's own encoding.
pub async fn encoding(session: &Session) -> Result<String, Error> {
    let sql = "SELECT pg_catalog.current_setting('server_encoding')";
    Ok(session
        .select_one("read the database's encoding", sql, &[])
        .await?
        .get(0))
}

/// Columns of pg_database that differ between versions.
fn locale_columns(version: i32) -> &'static str {
    match version {
        170_000.. => {
            "CASE d.datlocprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END,
             d.datlocale, d.daticurules, d.datcollversion"
        }
        160_000.. => {
            "CASE d.datlocprovider WHEN 'i' THEN 'icu' ELSE 'libc' END,
             d.daticulocale, d.daticurules, d.datcollversion"
        }
        150_000.. => {
            "CASE d.datlocprovider WHEN 'i' THEN 'icu' ELSE 'libc' END,
             d.daticulocale, NULL::text, d.datcollversion"
        }
        _ => "'libc', NULL::text, NULL::text, NULL::text",
    }
}

/// What the database must be made like.
///
/// `shared_preload_libraries` is hidden from roles without pg_read_all_settings: the view then leaves it out, where
/// `current_setting` would fail.
pub async fn database(session: &Session) -> Result<DatabaseFacts, Error> {
    let sql = format!(
        "SELECT d.datname::text, pg_catalog.pg_get_userbyid(d.datdba)::text, pg_catalog.pg_get_userbyid(10)::text,
                pg_catalog.pg_encoding_to_char(d.encoding)::text, d.datcollate::text, d.datctype::text,
                coalesce((SELECT setting FROM pg_catalog.pg_settings
                           WHERE name = 'shared_preload_libraries'), ''),
                pg_catalog.pg_database_size(d.oid), {},
                d.datacl IS NOT NULL, pg_catalog.shobj_description(d.oid, 'pg_database')
           FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()",
        locale_columns(session.server_version_num())
    );
    let row = session
        .select_one("read the database's locale and encoding", &sql, &[])
        .await?;
    Ok(DatabaseFacts {
        name: row.get(0),
        owner: row.get(1),
        bootstrap_role: row.get(2),
        encoding: row.get(3),
        collate: row.get(4),
        ctype: row.get(5),
        shared_preload_libraries: row.get(6),
        size_bytes: u64::try_from(row.get::<_, i64>(7)).unwrap_or(0),
        locale_provider: row.get(8),
        locale: row.get(9),
        icu_rules: row.get(10),
        collation_version: row.get(11),
        grants: if row.get(12) {
            Some(grants(session).await?)
        } else {
            None
        },
        comment: row.get(13),
        settings: settings(session).await?,
        server_version: session.server_version().to_owned(),
        server_version_num: session.server_version_num(),
    })
}

/// The grants on this database.
async fn grants(session: &Session) -> Result<Vec<DatabaseGrant>, Error> {
    let sql = "SELECT DISTINCT x.privilege_type, r.rolname::text, x.is_grantable
                 FROM pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) AS x
                 LEFT JOIN pg_catalog.pg_roles r ON r.oid = x.grantee
                WHERE d.datname = pg_catalog.current_database()";
    let rows = session.select("read the database's grants", sql, &[]).await?;
    let grant = |row: &tokio_postgres::Row| DatabaseGrant {
        privilege: row.get(0),
        grantee: row.get(1),
        grantable: row.get(2),
    };
    let mut grants: Vec<DatabaseGrant> = rows.iter().map(grant).collect();
    grants.sort();
    Ok(grants)
}

/// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET` of this database.
async fn settings(session: &Session) -> Result<Vec<DatabaseSetting>, Error> {
    let sql = "SELECT CASE WHEN s.setrole <> 0 THEN pg_catalog.pg_get_userbyid(s.setrole)::text END, entry
                 FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) AS entry
                WHERE s.setdatabase = (SELECT oid FROM pg_catalog.pg_database
                                        WHERE datname = pg_catalog.current_database())
                ORDER BY 1 NULLS FIRST, 2";
    let rows = session.select("read the database's settings", sql, &[]).await?;
    let setting = |row: &tokio_postgres::Row| {
        let (name, value) = row.get::<_, &str>(1).split_once('=')?;
        Some(DatabaseSetting {
            role: row.get(0),
            name: name.to_owned(),
            value: value.to_owned(),
        })
    };
    Ok(rows.iter().filter_map(setting).collect())
}

/// The extensions installed in the database.
pub async fn extensions(session: &Session) -> Result<Vec<Extension>, Error> {
    let sql = "SELECT e.extname::text, n.nspname::text, e.extversion
                 FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
                ORDER BY 1";
    let rows = session.select("list the extensions", sql, &[]).await?;
    let extension = |row: &tokio_postgres::Row| Extension {
        name: row.get(0),
        schema: row.get(1),
        version: row.get(2),
        relations: Vec::new(),
        constraints: Vec::new(),
        objects: Vec::new(),
    };
    Ok(rows.iter().map(extension).collect())
}

/// Databases in which services keep what is theirs.
const PLATFORM_DATABASES: &[&str] = &["azure_maintenance", "azure_sys", "cloudsqladmin", "rdsadmin"];

/// The other databases of the server that may hold somebody's data: no templates, no platform's, no scratch, and not the database
/// `postgres` as long as it is no bigger than a new one.
pub async fn other_databases(session: &Session) -> Result<Vec<String>, Error> {
    let sql = "WITH candidate AS (
                   SELECT d.datname::text AS name, d.datistemplate AS template, d.datallowconn AS open,
                          CASE WHEN d.datname IN ('postgres', 'template1')
                                    AND pg_catalog.has_database_privilege(d.oid, 'CONNECT')
                               THEN pg_catalog.pg_database_size(d.oid) END AS bytes
                     FROM pg_catalog.pg_database d)
               SELECT name FROM candidate
                WHERE open AND NOT template AND name <> pg_catalog.current_database() AND NOT name = ANY ($1)
                  AND NOT pg_catalog.starts_with(name, 'ernstfall_scratch_')
                  AND NOT (name = 'postgres'
                           AND coalesce(bytes <= (SELECT t.bytes FROM candidate t WHERE t.name = 'template1') + 1048576, true))
                ORDER BY name";
    let rows = session.select("list the databases of the server", sql, &[&PLATFORM_DATABASES]);
    Ok(rows.await?.iter().map(|row| row.get(0)).collect())
}

/// Tablespaces besides the built-in ones that the database, or a relation of it, lies in.
pub async fn tablespaces(session: &Session) -> Result<Vec<String>, Error> {
    let sql = "SELECT t.spcname::text FROM pg_catalog.pg_tablespace t
                WHERE t.spcname NOT IN ('pg_default', 'pg_global')
                  AND t.oid IN (SELECT reltablespace FROM pg_catalog.pg_class WHERE relpersistence <> 't'
                                UNION ALL SELECT dattablespace FROM pg_catalog.pg_database
                                           WHERE datname = pg_catalog.current_database())
                ORDER BY 1";
    let rows = session.select("list the tablespaces", sql, &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Names of the connected role's powers that matter to a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RolePowers {
    pub superuser: bool,
    pub bypasses_row_security: bool,
}

pub async fn role_powers(session: &Session) -> Result<RolePowers, Error> {
    let sql =
        "SELECT rolsuper, rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user";
    let row = session.select_one("read the role's powers", sql, &[]).await?;
    Ok(RolePowers {
        superuser: row.get(0),
        bypasses_row_security: row.get(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_as_postgresql_writes_them() {
        for (text, expected) in [
            ("2026-11-22 03:15:00.123456+00", "2026-11-22T03:15:00.123456Z"),
            ("2026-11-22 03:15:00+00", "2026-11-22T03:15:00Z"),
            ("2026-11-22 03:15:00+05:30", "2026-11-21T21:45:00Z"),
        ] {
            assert_eq!(parse_timestamp(text), Some(expected.parse().unwrap()), "{text}");
        }
        assert_eq!(parse_timestamp("infinity"), None);
    }
}
