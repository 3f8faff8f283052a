//! The server that restore tests may use: can it be reached, is it another one than the source, is there all a copy needs?

use crate::ops::restore::lacks;
use crate::ops::target::Target;
use crate::postgres::Error;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::quote_identifier;
use crate::scratch::{GivenServer, KnownSource, Maker, Proof, ScratchError};

use super::source::Found;
use super::{Lines, Surroundings};

/// Looks at the server; nothing is made there.
pub(super) async fn check(
    surroundings: &Surroundings,
    target: &Target,
    connection: &Result<ConnectionSettings, String>,
    found: Option<&Found>,
    lines: &mut Lines,
) {
    let connection = match connection {
        Ok(connection) => connection,
        Err(reason) => {
            lines.failed("scratch", reason.clone(), "correct scratch.url");
            return;
        }
    };
    // Checks may run at the same time; each has a name of its own.
    let maker = Maker {
        run: format!("check-{}-{}", target.name, std::process::id()),
        host: String::new(),
        state_dir: String::new(),
        started_at: (surroundings.clock)(),
    };
    let server = match GivenServer::claim(connection, maker).await {
        Ok(server) => server,
        Err(error) => return refused("scratch", &error, lines),
    };
    if let Err(error) = rights(&server, lines).await {
        refused("scratch", &error, lines);
    }
    another(surroundings, target, &server, lines).await;
    if let Some(found) = found
        && let Err(error) = content(&server, found, lines).await
    {
        lines.refused("scratch extensions", &error);
    }
}

fn refused(subject: &str, error: &ScratchError, lines: &mut Lines) {
    match error {
        ScratchError::Given(error) => lines.refused(subject, error),
        _ => {
            let text = error.to_string();
            let (message, remedy) = text.split_once("; ").unwrap_or((&text, "look at its log"));
            lines.failed(subject, message, remedy);
        }
    }
}

async fn rights(server: &GivenServer, lines: &mut Lines) -> Result<(), ScratchError> {
    let session = server.session();
    let on = session.description();
    if session.in_recovery() {
        lines.failed(
            "scratch",
            format!("{on} is a standby, where nothing can be written"),
            "name its primary as scratch.url",
        );
        return Ok(());
    }
    let rights = server.rights().await?;
    let role = quote_identifier(&rights.role);
    if !rights.creates_databases {
        lines.failed(
            "scratch",
            format!("{on}: the role {} may not create databases", rights.role),
            format!("ALTER ROLE {role} CREATEDB;"),
        );
    } else if !rights.creates_roles {
        lines.warning(
            "scratch",
            format!(
                "{on}: the role {} may not create the roles of a backup that are missing",
                rights.role
            ),
            format!("ALTER ROLE {role} CREATEROLE;"),
        );
    } else {
        lines.ok(
            "scratch",
            format!(
                "{on}: PostgreSQL {}; {} may create databases and roles; not isolated, as the configuration accepts",
                session.server_version(),
                rights.role
            ),
        );
    }
    Ok(())
}

/// Whether it is another server than the source.
async fn another(surroundings: &Surroundings, target: &Target, server: &GivenServer, lines: &mut Lines) {
    let recorded = match &surroundings.repository {
        Some(repository) => repository.target_identity(&target.name).await.ok().flatten(),
        None => None,
    };
    let source = KnownSource {
        connection: &target.connection,
        recorded_identifier: recorded.as_ref().map(|known| known.system_identifier.as_str()),
    };
    match server.prove_it_is_not(&source).await {
        Ok(Proof::Identifiers) => lines.ok("scratch source", "not the source: the system identifiers differ"),
        Ok(Proof::Lock) => lines.ok(
            "scratch source",
            "not the source: a lock on the one is not seen on the other",
        ),
        Ok(Proof::RecordedIdentifier(reason)) => lines.ok(
            "scratch source",
            format!(
                "not the source by its recorded system identifier; the source was not reached ({reason})"
            ),
        ),
        Err(error) => refused("scratch source", &error, lines),
    }
}

/// Version and extensions.
async fn content(server: &GivenServer, found: &Found, lines: &mut Lines) -> Result<(), Error> {
    let session = server.session();
    if session.server_version_num() / 10_000 < found.server_version_num / 10_000 {
        lines.failed(
            "scratch version",
            format!("PostgreSQL {}, older than the source's", session.server_version()),
            "name a server of the source's version or a newer one",
        );
    }
    let lacking = lacks::missing_extensions(session, &found.extensions).await?;
    match lacking.is_empty() {
        true => lines.ok(
            "scratch extensions",
            format!(
                "all {} extensions of the source can be installed there",
                found.extensions.len()
            ),
        ),
        false => lines.failed(
            "scratch extensions",
            lacking.join("; "),
            "install them on that server",
        ),
    }
    Ok(())
}
