//! What the role of a target needs, as SQL for an administrator to read and to run.

use serde::Serialize;

use crate::model::target_name::TargetName;
use crate::postgres::grants::{self, Grant};
use crate::postgres::pooler;
use crate::postgres::session::Session;

use super::target::Target;

/// The oldest version that has what nearly all need; what later ones add is less to grant, not more.
const ASSUMED_MAJOR: u32 = 14;

/// What the caller wants.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Instead of the user in the target's connection string.
    pub role: Option<String>,
    /// Instead of asking the server.
    pub server_major: Option<u32>,
}

/// The SQL, and what it was made for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Grants {
    pub target: TargetName,
    pub database: String,
    pub role: String,
    /// Major version of PostgreSQL.
    pub server_major: u32,
    pub basis: Basis,
    /// Why the server was not asked; `null` where it was, or was not meant to be.
    pub not_reached: Option<String>,
    pub grants: Vec<Grant>,
    /// What the SQL cannot do.
    pub notes: Vec<String>,
}

/// How the server's version is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// It said so.
    Server,
    /// The caller said so.
    Given,
    /// Nobody did.
    Assumed,
}

/// Asks the server for its version, where it can be reached and none is given, and puts the SQL together.
pub async fn grants(target: &Target, options: &Options) -> Grants {
    let (server_major, basis, not_reached) = match options.server_major {
        Some(major) => (major, Basis::Given, None),
        None => match server_major(target).await {
            Ok(major) => (major, Basis::Server, None),
            Err(error) => (ASSUMED_MAJOR, Basis::Assumed, Some(error.to_string())),
        },
    };
    let connection = &target.connection;
    let role = options
        .role
        .clone()
        .unwrap_or_else(|| connection.user().to_owned());
    let mut all = grants::login(&role, connection.database());
    all.extend(heartbeat(target, &role));
    all.extend(grants::reading(&role, server_major));
    Grants {
        target: target.name.clone(),
        database: connection.database().to_owned(),
        role,
        server_major,
        basis,
        not_reached,
        grants: all,
        notes: notes(target, server_major),
    }
}

async fn server_major(target: &Target) -> Result<u32, crate::postgres::Error> {
    pooler::refuse_transaction_pooler(&target.connection).await?;
    let session = Session::connect(&target.connection, "grants", None).await?;
    let number = session.server_version_num();
    session.close().await;
    Ok(u32::try_from(number / 10_000).unwrap_or(0))
}

/// The heartbeat may be written by another role than the one that reads.
fn heartbeat(target: &Target, role: &str) -> Vec<Grant> {
    let Some(configured) = &target.heartbeat else {
        return Vec::new();
    };
    match &configured.elsewhere {
        Some(Ok(elsewhere)) if elsewhere.user() != target.connection.user() => {
            let writer = elsewhere.user();
            let mut grants = grants::login(writer, elsewhere.database());
            grants.push(grants::heartbeat(writer));
            grants
        }
        _ => vec![grants::heartbeat(role)],
    }
}

fn notes(target: &Target, server_major: u32) -> Vec<String> {
    let mut notes = Vec::new();
    if target.is_written_elsewhere() {
        notes.push("The target is a standby: run all of this on its primary.".to_owned());
    }
    notes.push(
        "BYPASSRLS is given by a superuser, and from PostgreSQL 16 on also by a role with CREATEROLE that has it itself, \
         as Supabase's `postgres` does. Where a managed service's administrator may not give it, make the role a \
         member of the owner of the tables that have row-level security (GRANT owner TO role), which lets it write to \
         them too and is of no use where a table forces row-level security on its owner; or leave these tables out with \
         `exclude`. A policy that shows the role all rows is not enough: nobody can prove that it does, and the backup \
         refuses the table."
            .to_owned(),
    );
    if server_major < 18 {
        notes.push(
            "A large object that is made after this is readable for its owner alone. Whoever makes it can grant SELECT on \
             it; or run this again. A backup names those that it may not read, and fails."
                .to_owned(),
        );
    }
    notes.push(
        "On a managed service, GRANT and ALTER DEFAULT PRIVILEGES work only for what the administrator owns, or for roles \
         that it is a member of. Objects in the service's own schemas that it will not let anybody read have to be left \
         out with `exclude`; `ernstfall check` names them."
            .to_owned(),
    );
    notes.push(passwords(server_major).to_owned());
    notes
}

fn passwords(server_major: u32) -> &'static str {
    if server_major < 14 {
        return "Passwords of roles are read by superusers alone, and are named as not covered. Where backups are encrypted, \
                this adds them, as hashes: GRANT SELECT (rolname, rolpassword) ON pg_catalog.pg_authid TO the role, in \
                this database.";
    }
    "pg_read_all_data also lets the role read the hashes of passwords in pg_authid, which only encrypted backups hold. Where \
     that is too much, use what --server-version 13 prints."
}
