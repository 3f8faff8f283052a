//! The heartbeat: can it be written where it is to be, and is it?

use chrono::{DateTime, Utc};

use crate::ops::clock_skew::clock_skew_seconds;
use crate::ops::heartbeat::published;
use crate::ops::target::{Target, matches_any};
use crate::postgres::facts::{self, ServerIdentity};
use crate::postgres::heartbeat::{self, Heartbeat, SCHEMA, TABLE};
use crate::postgres::session::Session;
use crate::postgres::{ConnectionSettings, Error};

use super::source::SKEW_WARNING_SECONDS;
use super::{Lines, Surroundings};

const SUBJECT: &str = "heartbeat";
/// It goes on for as long as the daemon runs.
const START: &str = "start `ernstfall run`, or look at its log";

/// Adds the lines about the heartbeat; none where it is off.
pub(super) async fn check(
    surroundings: &Surroundings,
    target: &Target,
    source: (&Session, &ServerIdentity),
    lines: &mut Lines,
) {
    let Some(configured) = &target.heartbeat else {
        return;
    };
    let name = format!("{SCHEMA}.{TABLE}");
    if matches_any(&target.exclude, &name) || matches_any(&target.exclude_data, &name) {
        lines.warning(
            SUBJECT,
            format!("the target leaves {name} out of its backups, so that none holds a heartbeat"),
            "correct `exclude` or `exclude_data`, or remove `heartbeat`",
        );
    }
    let result = match &configured.elsewhere {
        None => place(surroundings, target, source.0, lines).await,
        Some(Ok(connection)) => elsewhere(surroundings, target, connection, source.1, lines).await,
        Some(Err(reason)) => {
            lines.failed(
                SUBJECT,
                reason.clone(),
                "correct `url` of the target's `heartbeat`",
            );
            return;
        }
    };
    if let Err(error) = result {
        lines.refused(SUBJECT, &error);
    }
}

/// The server that takes the writes, which must be of the same database.
async fn elsewhere(
    surroundings: &Surroundings,
    target: &Target,
    connection: &ConnectionSettings,
    source: &ServerIdentity,
    lines: &mut Lines,
) -> Result<(), Error> {
    let remedy = "correct `url` of the target's `heartbeat`";
    if connection.database() != target.connection.database() {
        lines.failed(
            SUBJECT,
            format!(
                "it is written to the database {}, and the target is {}: no backup would hold it",
                connection.database(),
                target.connection.database()
            ),
            remedy,
        );
        return Ok(());
    }
    crate::postgres::refuse_transaction_pooler(connection).await?;
    let session = Session::connect(connection, "check", None).await?;
    let found = facts::identity(&session).await?;
    // A service may hide who its servers are.
    if let (Some(there), Some(here)) = (&found.system_identifier, &source.system_identifier)
        && there != here
    {
        lines.failed(
            SUBJECT,
            format!(
                "{} is no server that the target's follows: its system identifier is {there}, and the target's {here}",
                session.description()
            ),
            remedy,
        );
        return Ok(());
    }
    let skew = clock_skew_seconds(&session, surroundings.clock).await?;
    if skew.abs() > SKEW_WARNING_SECONDS {
        lines.warning(
            "heartbeat clock",
            format!(
                "the clock of {} is {skew:+.1} s off this machine's",
                session.description()
            ),
            "synchronise both: timedatectl set-ntp true",
        );
    }
    let result = place(surroundings, target, &session, lines).await;
    session.close().await;
    result
}

/// The database that it is written to.
async fn place(
    surroundings: &Surroundings,
    target: &Target,
    session: &Session,
    lines: &mut Lines,
) -> Result<(), Error> {
    let grants = format!(
        "let an administrator run what `ernstfall grants {}` prints",
        target.name
    );
    if session.in_recovery() {
        lines.failed(
            SUBJECT,
            "the server is a standby, which takes no writes",
            "give the primary's address: heartbeat = { every = \"10s\", url = … }",
        );
        return Ok(());
    }
    if session.read_only() {
        lines.failed(
            SUBJECT,
            "transactions are set to be read-only there",
            "lift default_transaction_read_only, or remove `heartbeat`",
        );
        return Ok(());
    }
    let standing = heartbeat::look(session).await?;
    if !standing.publications.is_empty() {
        lines.failed(
            SUBJECT,
            published(&standing.publications, standing.table_exists),
            "read docs/heartbeat.md, \"Logical replication\"",
        );
        return Ok(());
    }
    match (standing.table_exists, standing.may_create, standing.may_write) {
        (false, false, _) => lines.failed(SUBJECT, format!("the role may not make {SCHEMA}.{TABLE}"), grants),
        (true, _, false) => lines.failed(
            SUBJECT,
            format!("the role may not write {SCHEMA}.{TABLE}"),
            grants,
        ),
        (false, true, _) => lines.warning(
            SUBJECT,
            format!("none was written yet: the first makes the table {SCHEMA}.{TABLE}"),
            START,
        ),
        (true, _, true) => match heartbeat::read(session, target.name.as_str()).await? {
            None => lines.warning(SUBJECT, "none was written yet", START),
            Some(found) => age(surroundings, &found, facts::clock(session).await?, lines),
        },
    }
    Ok(())
}

/// How old the last one is, and whose.
fn age(surroundings: &Surroundings, found: &Heartbeat, now: DateTime<Utc>, lines: &mut Lines) {
    let age = (now - found.written_at).as_seconds_f64();
    let told = format!(
        "written {age:.0} s ago by {}, every {:.0} s",
        found.host, found.every_seconds
    );
    let installation = surroundings.installation.as_ref();
    if age > 3.0 * found.every_seconds + 60.0 {
        lines.warning(SUBJECT, told, START);
    } else if age < -SKEW_WARNING_SECONDS {
        lines.warning(
            SUBJECT,
            format!("{told}: later than its server's clock is now"),
            "that clock was set back; the next heartbeat is right again",
        );
    } else if installation.is_some_and(|ours| *ours != found.writer) {
        lines.warning(
            SUBJECT,
            format!("{told}: another installation than this one"),
            "nothing to do if that one runs the daemon; two must not have a target of one name in one database",
        );
    } else {
        lines.ok(SUBJECT, told);
    }
}
