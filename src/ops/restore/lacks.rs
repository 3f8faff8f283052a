//! What a destination lacks for a backup: found before anything is touched, and said all at once.

use std::collections::BTreeSet;
use std::path::Path;

use crate::model::contents::{Contents, Extension};
use crate::postgres::error::Error;
use crate::postgres::facts;
use crate::postgres::session::Session;

/// A restored database needs about what the source's takes, and room for sorting indexes and for its own log.
const SPACE_FACTOR: f64 = 1.3;
/// Even an empty cluster takes this.
const SPACE_FLOOR: u64 = 64 << 20;

/// Extensions that the server programs on this machine cannot provide, each with the package that does.
pub(in crate::ops) async fn extensions(session: &Session, contents: &Contents) -> Result<Vec<String>, Error> {
    missing_extensions(session, &contents.extensions).await
}

/// Those of the extensions that the server cannot provide, each with the package that does.
pub(in crate::ops) async fn missing_extensions(
    session: &Session,
    wanted: &[Extension],
) -> Result<Vec<String>, Error> {
    let rows = session
        .select(
            "list the extensions that can be installed",
            "SELECT name::text FROM pg_catalog.pg_available_extensions",
            &[],
        )
        .await?;
    let available: BTreeSet<String> = rows.iter().map(|row| row.get(0)).collect();
    let major = session.server_version_num() / 10_000;
    let missing = wanted
        .iter()
        .filter(|extension| !available.contains(&extension.name));
    Ok(missing
        .map(|extension| {
            format!(
                "the extension {} {} is not installed on the server: apt-get install {}",
                extension.name,
                extension.version,
                package(&extension.name, major)
            )
        })
        .collect())
}

/// The Debian package that brings an extension.
pub(in crate::ops) fn package(extension: &str, major: i32) -> String {
    match extension {
        "postgis"
        | "postgis_topology"
        | "postgis_raster"
        | "postgis_tiger_geocoder"
        | "address_standardizer" => {
            format!("postgresql-{major}-postgis-3")
        }
        "vector" => format!("postgresql-{major}-pgvector"),
        "pg_cron" => format!("postgresql-{major}-cron"),
        "plperl" | "plperlu" | "bool_plperl" | "hstore_plperl" => format!("postgresql-plperl-{major}"),
        "plpython3u" | "hstore_plpython3u" | "jsonb_plpython3u" | "ltree_plpython3u" => {
            format!("postgresql-plpython3-{major}")
        }
        "pltcl" | "pltclu" => format!("postgresql-pltcl-{major}"),
        other => format!("postgresql-{major}-{}", other.replace('_', "-")),
    }
}

/// Extensions that work only when preloaded, among those of the backup.
pub(in crate::ops) fn preloads(contents: &Contents) -> Vec<String> {
    const NEEDED: &[&str] = &[
        "citus",
        "pg_cron",
        "pg_net",
        "pg_squeeze",
        "pg_tle",
        "pgaudit",
        "pglogical",
        "pgsodium",
        "supabase_vault",
        "timescaledb",
        "vchord",
    ];
    let installed = |name: &str| contents.extensions.iter().any(|extension| extension.name == name);
    NEEDED
        .iter()
        .filter(|name| installed(name))
        .map(|name| (*name).to_owned())
        .collect()
}

/// Whether the disk has room for the copy.
pub(in crate::ops) fn disk_space(
    directory: &Path,
    contents: &Contents,
) -> Result<Option<String>, nix::Error> {
    space_for(directory, contents.database.size_bytes)
}

/// Whether the disk has room for the copy of a database of this size.
pub(in crate::ops) fn space_for(directory: &Path, database_bytes: u64) -> Result<Option<String>, nix::Error> {
    let statistics = nix::sys::statvfs::statvfs(directory)?;
    let free = statistics.blocks_available() * statistics.fragment_size();
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    let needed = (database_bytes as f64 * SPACE_FACTOR) as u64 + SPACE_FLOOR;
    Ok((free < needed).then(|| {
        format!(
            "{} has {} MB free, and the copy needs about {} MB: free some space or set scratch.directory",
            directory.display(),
            free >> 20,
            needed >> 20
        )
    }))
}

/// Differences of an existing destination that would change or refuse the data.
pub(in crate::ops) async fn destination(
    session: &Session,
    contents: &Contents,
) -> Result<Vec<String>, Error> {
    let mut lacks = Vec::new();
    let wanted = &contents.database;
    let encoding = facts::encoding(session).await?;
    if encoding != wanted.encoding {
        lacks.push(format!(
            "the database's encoding is {encoding}, and the backup's {}: create it anew with CREATE DATABASE … TEMPLATE template0 ENCODING '{}'",
            wanted.encoding, wanted.encoding
        ));
    }
    lacks.extend(older(session, contents));
    lacks.extend(extensions(session, contents).await?);
    lacks.extend(tablespaces(session, contents).await?);
    Ok(lacks)
}

/// Whether the server is older than the source's.
pub(in crate::ops) fn older(session: &Session, contents: &Contents) -> Option<String> {
    let wanted = &contents.database;
    let is_older = session.server_version_num() / 10_000 < wanted.server_version_num / 10_000;
    is_older.then(|| {
        format!(
            "the server is PostgreSQL {}, older than the source's {}: restore into the same version or a newer one",
            session.server_version(),
            wanted.server_version
        )
    })
}

async fn tablespaces(session: &Session, contents: &Contents) -> Result<Vec<String>, Error> {
    let sql = "SELECT name FROM pg_catalog.unnest($1::text[]) AS name
                WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_tablespace WHERE spcname = name)";
    let rows = session
        .select("look for the tablespaces", sql, &[&contents.tablespaces])
        .await?;
    let names = rows.iter().map(|row| row.get::<_, String>(0));
    let lacking = |name| {
        format!(
            "the tablespace {name} is missing: make it with CREATE TABLESPACE, or restore everything into the database's own with --no-tablespaces"
        )
    };
    Ok(names.map(lacking).collect())
}

/// Roles of the backup that the destination lacks, where the connected role may not make any.
pub(in crate::ops) async fn roles(session: &Session, contents: &Contents) -> Result<Vec<String>, Error> {
    let sql = "SELECT name FROM pg_catalog.unnest($1::text[]) AS name
                WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = name)
                  AND NOT (SELECT rolsuper OR rolcreaterole FROM pg_catalog.pg_roles WHERE rolname = current_user)";
    let rows = session
        .select("look for the roles", sql, &[&contents.roles])
        .await?;
    let names = rows.iter().map(|row| row.get::<_, String>(0));
    Ok(names
        .map(|name| format!("the role {name} is missing, and this connection may not create roles"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_of_an_extension_is_named_as_debian_names_it() {
        assert_eq!(package("postgis", 15), "postgresql-15-postgis-3");
        assert_eq!(package("plpython3u", 15), "postgresql-plpython3-15");
        assert_eq!(package("pg_partman", 16), "postgresql-16-pg-partman");
    }
}
