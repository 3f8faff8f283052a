//! The source: can it be reached, read completely, and in a consistent way?

use crate::model::contents::{DatabaseFacts, Extension};
use crate::ops::backup::excluded::Excluded;
use crate::ops::backup::plan::{self, Abilities};
use crate::ops::backup::prepare::locks_needed;
use crate::ops::clock_skew::clock_skew_seconds;
use crate::ops::privileges;
use crate::ops::target::Target;
use crate::postgres::conninfo::{ConnectionSettings, Endpoint};
use crate::postgres::facts::{self, OLDEST_SERVER, ServerIdentity};
use crate::postgres::identifier::Quoting;
use crate::postgres::large_objects;
use crate::postgres::partitions;
use crate::postgres::relations::{self, Relation};
use crate::postgres::session::Session;
use crate::postgres::{Error, ErrorKind, pooler};
use crate::repository::TargetIdentity;

use super::{Lines, Surroundings, heartbeat};

/// Recovery points are on the source's clock, and exposure is told by ours.
pub(super) const SKEW_WARNING_SECONDS: f64 = 2.0;
/// Names shown of what is not covered; a backup's record has them all.
const SHOWN: usize = 10;

/// What the later checks want to know of the source.
pub(super) struct Found {
    pub(super) server_version_num: i32,
    pub(super) database: DatabaseFacts,
    /// Without those that restore tests leave out.
    pub(super) extensions: Vec<Extension>,
}

impl Found {
    pub(super) fn major(&self) -> u32 {
        u32::try_from(self.server_version_num / 10_000).unwrap_or(0)
    }
}

/// Checks the source; `None` where it could not be reached or is of no use.
pub(super) async fn check(surroundings: &Surroundings, target: &Target, lines: &mut Lines) -> Option<Found> {
    for warning in target.connection.warnings() {
        lines.warning(
            "password file",
            warning.clone(),
            "correct it, or remove it from the connection string",
        );
    }
    let session = match connect(target, lines).await {
        Ok(session) => session,
        Err(error) => {
            lines.refused(subject_of(&error), &error);
            return None;
        }
    };
    if session.server_version_num() < OLDEST_SERVER {
        lines.failed(
            "server version",
            format!(
                "PostgreSQL {}, and the oldest that can be backed up is 13",
                session.server_version()
            ),
            "upgrade the server",
        );
        return None;
    }
    lines.ok(
        "server version",
        format!("PostgreSQL {}", session.server_version()),
    );
    let found = look(surroundings, target, &session, lines).await;
    session.close().await;
    match found {
        Ok(found) => Some(found),
        Err(error) => {
            lines.refused("catalogue", &error);
            None
        }
    }
}

fn subject_of(error: &Error) -> &'static str {
    if error.kind() == ErrorKind::Pooler {
        "pooler"
    } else {
        "connection"
    }
}

async fn connect(target: &Target, lines: &mut Lines) -> Result<Session, Error> {
    // First, as on such a pooler a session's settings would stay on connections of others.
    pooler::refuse_transaction_pooler(&target.connection).await?;
    let session = Session::connect(&target.connection, "check", None).await?;
    lines.ok("connection", session.description().to_owned());
    lines.ok("pooler", "no transaction-mode pooler stands between");
    Ok(session)
}

async fn look(
    surroundings: &Surroundings,
    target: &Target,
    session: &Session,
    lines: &mut Lines,
) -> Result<Found, Error> {
    encryption(target, session, lines).await;
    clock(surroundings, session, lines).await?;
    let identity = facts::identity(session).await?;
    server(&identity, lines);
    same_source(surroundings, target, &identity, lines).await;
    heartbeat::check(surroundings, target, (session, &identity), lines).await;
    let mut relations = relations::list(session).await?;
    relations::mark_remote_views(session, &mut relations).await?;
    partitions::mark(&partitions::list(session).await?, &mut relations);
    let excluded = Excluded::find(session, target, &relations).await?;
    let wanted: Vec<Relation> = relations
        .iter()
        .filter(|relation| !excluded.relation(relation))
        .cloned()
        .collect();
    privileges(target, session, &wanted, lines).await?;
    locks(target, &identity, &wanted, lines);
    not_covered(target, session, &relations, &excluded, lines);
    let mut extensions = facts::extensions(session).await?;
    extensions.retain(|extension| !target.skip_extensions.contains(&extension.name));
    Ok(Found {
        server_version_num: session.server_version_num(),
        database: facts::database(session).await?,
        extensions,
    })
}

/// Whether others on the way can read along.
async fn encryption(target: &Target, session: &Session, lines: &mut Lines) {
    if !leaves_this_machine(&target.connection) {
        lines.ok("encryption", "the connection does not leave this machine");
        return;
    }
    let sql =
        "SELECT ssl, version, cipher FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()";
    let rows = session
        .select_text("ask whether the connection is encrypted", sql)
        .await;
    let row = rows.ok().and_then(|rows| rows.into_iter().next());
    let value = |index: usize| row.as_ref().and_then(|row| row.get(index)).unwrap_or_default();
    if value(0) == "t" {
        lines.ok("encryption", format!("{} with {}", value(1), value(2)));
    } else {
        lines.warning(
            "encryption",
            "the server says that this connection is not encrypted, and it leaves this machine",
            "add sslmode=verify-full (or at least sslmode=require) to the target's url",
        );
    }
}

fn leaves_this_machine(connection: &ConnectionSettings) -> bool {
    connection.hosts().iter().any(|host| match &host.endpoint {
        Endpoint::Socket(_) => false,
        Endpoint::Tcp { name, address } => {
            let address = address.or_else(|| name.parse().ok());
            address.map_or(name != "localhost", |address| !address.is_loopback())
        }
    })
}

async fn clock(surroundings: &Surroundings, session: &Session, lines: &mut Lines) -> Result<(), Error> {
    let skew = clock_skew_seconds(session, surroundings.clock).await?;
    if skew.abs() > SKEW_WARNING_SECONDS {
        lines.warning(
            "clock",
            format!("the source's clock is {skew:+.1} s off this machine's"),
            "synchronise both: timedatectl set-ntp true",
        );
    } else {
        lines.ok("clock", format!("{skew:+.1} s off this machine's"));
    }
    Ok(())
}

fn server(identity: &ServerIdentity, lines: &mut Lines) {
    if identity.standby {
        lines.ok(
            "role of the server",
            "a standby: the recovery point is what it has replayed",
        );
    } else {
        lines.ok("role of the server", "a primary");
    }
}

/// Whether the backups there are were taken of this very source.
async fn same_source(
    surroundings: &Surroundings,
    target: &Target,
    identity: &ServerIdentity,
    lines: &mut Lines,
) {
    let Some(repository) = &surroundings.repository else {
        return;
    };
    let found = TargetIdentity {
        system_identifier: identity.system_identifier.clone().unwrap_or_default(),
        database: target.connection.database().to_owned(),
    };
    match repository.target_identity(&target.name).await {
        Ok(Some(known)) if known != found => lines.failed(
            "identity",
            format!("the backups there are of {known}, and the source now is {found}"),
            format!(
                "if that is meant: ernstfall backup {} --adopt; if not, correct the target's url",
                target.name
            ),
        ),
        Ok(Some(_)) => lines.ok("identity", "the same source that the backups there are of"),
        Ok(None) => {}
        Err(error) => lines.failed("identity", crate::ops::chain(&error), "look at the repository"),
    }
}

async fn privileges(
    target: &Target,
    session: &Session,
    wanted: &[Relation],
    lines: &mut Lines,
) -> Result<(), Error> {
    let role = privileges::current_role(session).await?;
    let mut missing = privileges::missing(wanted, &role, session.server_version_num());
    missing.add_large_objects(&large_objects::unreadable(session).await?, &role);
    if missing.is_empty() {
        lines.ok(
            "privileges",
            format!("{role} may read all {} tables and sequences", wanted.len()),
        );
    } else {
        lines.failed(
            "privileges",
            missing.problems.join("; "),
            format!(
                "{}\n-- everything that the role needs: ernstfall grants {}",
                missing.remedy.join(" "),
                target.name
            ),
        );
    }
    Ok(())
}

fn locks(target: &Target, identity: &ServerIdentity, wanted: &[Relation], lines: &mut Lines) {
    let lockable = wanted.iter().filter(|relation| relation.lockable()).count() as u64;
    let needed = locks_needed(target, lockable);
    let capacity = identity.lock_capacity;
    if needed > capacity / 2 {
        let factor = needed
            .saturating_mul(2)
            .div_ceil(capacity.max(1))
            .saturating_mul(64);
        lines.warning(
            "locks",
            format!("{needed} locks do not fit beside the application's into the lock table of {capacity}: tables are locked only when they are copied"),
            format!("ALTER SYSTEM SET max_locks_per_transaction = {factor}; and restart the server"),
        );
    } else {
        lines.ok(
            "locks",
            format!("{needed} of the {capacity} that the server has room for"),
        );
    }
}

fn not_covered(
    target: &Target,
    session: &Session,
    relations: &[Relation],
    excluded: &Excluded,
    lines: &mut Lines,
) {
    let abilities = Abilities {
        server_version_num: session.server_version_num(),
        standby: session.in_recovery(),
        quoting: Quoting::Utf8,
    };
    let left_out = plan::not_covered(target, relations, excluded, &abilities);
    if left_out.is_empty() {
        lines.ok("coverage", "all tables, sequences and views");
        return;
    }
    let mut shown: Vec<String> = left_out
        .iter()
        .take(SHOWN)
        .map(|one| format!("{} {} ({})", one.kind, one.name, one.reason))
        .collect();
    if left_out.len() > SHOWN {
        shown.push(format!("and {} more", left_out.len() - SHOWN));
    }
    lines.warning(
        "coverage",
        format!("not covered: {}", shown.join(", ")),
        "see that these are kept elsewhere, or can be made again",
    );
}
