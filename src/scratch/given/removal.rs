//! Removing what restore tests made on a server: databases with our marker, and roles with our marker that nothing
//! depends on any more.

use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::error::Error;
use crate::postgres::identifier::quote_identifier;
use crate::postgres::session::Session;

use super::marker::{self, Kind, Marker, PREFIX, ROLES_KEY};

/// What became of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    Removed,
    NotThere,
    /// It does not bear our marker.
    NotOurs,
}

/// Drops databases that a killed run left: marked, not kept, and without a living run's lock. Says what was found.
pub(super) async fn sweep(session: &Session, connection: &ConnectionSettings) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    for (name, comment) in databases(session).await? {
        let Some(marker) = Marker::read(Kind::ScratchDatabase, &name, comment.as_deref()) else {
            lines.push(format!(
                "the database {name} on the scratch server has our prefix and not our marker: it is left alone"
            ));
            continue;
        };
        let key = marker::lock_key(&name);
        // A living run may hold it from another database of the server, where taking it here would not meet it.
        if marker.kept
            || marker::is_held_elsewhere(session, Some(key)).await?
            || !marker::try_lock(session, key).await?
        {
            continue;
        }
        lines.push(match drop_database(session, connection, &name).await {
            Ok(_) => format!(
                "removed the scratch database {name}, which run {} on {} had left",
                marker.maker.run, marker.maker.host
            ),
            Err(error) => format!("the scratch database {name} stays behind: {error}"),
        });
        marker::unlock(session, key).await?;
    }
    lines.extend(remove_roles(session).await?);
    Ok(lines)
}

async fn databases(session: &Session) -> Result<Vec<(String, Option<String>)>, Error> {
    let sql = "SELECT datname::text, pg_catalog.shobj_description(oid, 'pg_database')
                 FROM pg_catalog.pg_database WHERE pg_catalog.starts_with(datname::text, $1) ORDER BY 1";
    let rows = session
        .select("list the scratch databases", sql, &[&PREFIX])
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The marker on a database; `None` where there is no such database, or no marker of ours on it.
pub(super) async fn marker_of(session: &Session, name: &str) -> Result<(bool, Option<Marker>), Error> {
    let sql = "SELECT pg_catalog.shobj_description(oid, 'pg_database')
                 FROM pg_catalog.pg_database WHERE datname = $1";
    let rows = session
        .select("read the marker of the scratch database", sql, &[&name])
        .await?;
    let comment: Option<String> = rows.first().and_then(|row| row.get(0));
    let marker = Marker::read(Kind::ScratchDatabase, name, comment.as_deref());
    Ok((!rows.is_empty(), marker))
}

/// Drops a database with whoever is connected to it, if it bears our marker.
pub(super) async fn drop_database(
    session: &Session,
    connection: &ConnectionSettings,
    name: &str,
) -> Result<Removal, Error> {
    match marker_of(session, name).await? {
        (false, _) => return Ok(Removal::NotThere),
        (true, None) => return Ok(Removal::NotOurs),
        (true, Some(_)) => {}
    }
    forget_subscriptions(session, connection, name).await?;
    let quoted = quote_identifier(name);
    let tried = format!("drop the scratch database {name}");
    let forced = format!("DROP DATABASE IF EXISTS {quoted} WITH (FORCE)");
    match session.batch(&tried, &forced).await {
        // A worker of the server's own may be there, which an ordinary role cannot end; without force it is waited for.
        Err(error) if error.sqlstate() == Some("42501") => {
            session
                .batch(&tried, &format!("DROP DATABASE IF EXISTS {quoted}"))
                .await?;
        }
        result => result?,
    }
    Ok(Removal::Removed)
}

/// A database with subscriptions cannot be dropped. Theirs are disabled, and their slots are the source's: the slot is
/// taken away from the subscription first, so that dropping it touches nothing elsewhere.
async fn forget_subscriptions(
    session: &Session,
    connection: &ConnectionSettings,
    name: &str,
) -> Result<(), Error> {
    let sql = "SELECT s.subname::text FROM pg_catalog.pg_subscription s
                 JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = $1";
    let rows = session
        .select("list the subscriptions of the copy", sql, &[&name])
        .await?;
    if rows.is_empty() {
        return Ok(());
    }
    let copy = Session::connect(&connection.with_database(name), "scratch", None).await?;
    for row in rows {
        let subscription = quote_identifier(row.get(0));
        let tried = format!("drop the subscription {subscription} of the copy");
        for statement in [
            format!("ALTER SUBSCRIPTION {subscription} DISABLE"),
            format!("ALTER SUBSCRIPTION {subscription} SET (slot_name = NONE)"),
            format!("DROP SUBSCRIPTION {subscription}"),
        ] {
            copy.batch(&tried, &statement).await?;
        }
    }
    copy.close().await;
    Ok(())
}

/// Drops the roles with our marker that nothing depends on, unless another restore test lives on this server: it may
/// be about to use them. Then they are left to that test, or to the next.
pub(super) async fn remove_roles(session: &Session) -> Result<Vec<String>, Error> {
    if !marker::try_lock(session, ROLES_KEY).await? {
        return Ok(Vec::new());
    }
    let removed = remove_roles_alone(session).await;
    marker::unlock(session, ROLES_KEY).await?;
    removed
}

async fn remove_roles_alone(session: &Session) -> Result<Vec<String>, Error> {
    let mut lines = Vec::new();
    if marker::is_held_elsewhere(session, None).await? {
        return Ok(lines);
    }
    let sql = "SELECT rolname::text, pg_catalog.shobj_description(oid, 'pg_authid') FROM pg_catalog.pg_roles
                WHERE pg_catalog.shobj_description(oid, 'pg_authid') IS NOT NULL ORDER BY 1";
    for row in session
        .select("list the roles of restore tests", sql, &[])
        .await?
    {
        let name: String = row.get(0);
        if Marker::read(Kind::ScratchRole, &name, row.get(1)).is_none() {
            continue;
        }
        let statement = format!("DROP ROLE IF EXISTS {}", quote_identifier(&name));
        match session.batch("drop a role of a restore test", &statement).await {
            Ok(()) => {}
            // Dependent objects still exist, of a database that was kept.
            Err(error) if error.sqlstate() == Some("2BP01") => {}
            Err(error) => lines.push(format!("the role {name} of a restore test stays behind: {error}")),
        }
    }
    Ok(lines)
}
