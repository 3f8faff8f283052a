//! What is found out, and refused, before the first lock is taken.

use crate::ops::clock_skew::clock_skew_seconds;
use crate::ops::context::Context;
use crate::ops::privileges;
use crate::ops::target::Target;
use crate::ops::uncovered;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::error::Error as PostgresError;
use crate::postgres::facts::{self, OLDEST_SERVER, ServerIdentity};
use crate::postgres::large_objects;
use crate::postgres::pooler;
use crate::postgres::programs::{Installation, Programs};
use crate::postgres::relations;
use crate::postgres::roles::{self, Passwords};
use crate::postgres::session::Session;
use crate::repository::TargetIdentity;

use super::excluded::Excluded;
use super::{BackupError, Notebook, Options};

/// What is known of the source before the first attempt.
pub(super) struct Prepared {
    pub(super) guard: Session,
    pub(super) identity: ServerIdentity,
    pub(super) installation: Installation,
    pub(super) lockable_tables: u64,
    /// Whether the roles are stored with their passwords.
    pub(super) passwords: Passwords,
    /// Holds the lock on the primary, where the source is a standby that names it.
    _primary: Option<Session>,
}

/// Connects, and checks everything that can be checked before a lock is taken.
pub(super) async fn prepare(
    context: &Context,
    target: &Target,
    options: Options,
    notes: &Notebook,
) -> Result<Prepared, BackupError> {
    // First of all: through such a pooler, the settings of a session would stay on other people's connections.
    pooler::refuse_transaction_pooler(&target.connection).await?;
    let guard = Session::connect(&target.connection, "backup guard", None).await?;
    if guard.server_version_num() < OLDEST_SERVER {
        return Err(BackupError::ServerTooOld {
            on: guard.description().to_owned(),
            version: guard.server_version().to_owned(),
        });
    }
    // It reads sequences, which somebody may have locked.
    let lock_timeout = format!("SET lock_timeout = {}", target.lock_timeout.as_millis());
    guard.batch("set the lock timeout", &lock_timeout).await?;
    let skew = clock_skew_seconds(&guard, context.clock).await?;
    notes.lock().clock_skew_seconds = Some(skew);
    let identity = facts::identity(&guard).await?;
    let source = TargetIdentity {
        // Where the service hides it, the name of the database has to do.
        system_identifier: identity.system_identifier.clone().unwrap_or_default(),
        database: target.connection.database().to_owned(),
    };
    let major = u32::try_from(guard.server_version_num() / 10_000).unwrap_or(0);
    let installation = Programs::client_for(context.bin_dir.as_deref(), major)?;
    take_advisory_lock(&guard, target).await?;
    let primary = lock_primary(context, target, &identity, notes).await?;
    let lockable_tables = check_relations(&guard, target).await?;
    let other = options.other_identity;
    context
        .repository
        .claim_target(&target.name, &source, other, (context.clock)())
        .await?;
    note_uncovered(context, target, &guard, &identity, notes).await;
    Ok(Prepared {
        passwords: passwords(context, &guard).await?,
        guard,
        identity,
        installation,
        lockable_tables,
        _primary: primary,
    })
}

/// Password hashes are stored only where nobody can read them without a key.
async fn passwords(context: &Context, session: &Session) -> Result<Passwords, BackupError> {
    Ok(match context.keys.recipients() {
        None => Passwords::LeftOut,
        Some(_) if roles::passwords_are_readable(session).await? => Passwords::Included,
        Some(_) => Passwords::Unreadable,
    })
}

/// A database that no target covers is a finding; that it cannot be known is none of the backup's business.
async fn note_uncovered(
    context: &Context,
    target: &Target,
    guard: &Session,
    identity: &ServerIdentity,
    notes: &Notebook,
) {
    let system_identifier = identity.system_identifier.as_deref();
    let uncovered = uncovered::databases(guard, system_identifier, target, &context.repository).await;
    notes.lock().uncovered_databases = uncovered.as_ref().ok().map(|databases| databases.len() as u64);
    let message = match uncovered {
        Ok(databases) if databases.is_empty() => return,
        Ok(databases) => format!(
            "no target covers these databases of the server: {}",
            databases.join(", ")
        ),
        Err(error) => format!(
            "unknown whether every database of the server is covered: {}",
            crate::ops::chain(&error)
        ),
    };
    context.progress.note(&message);
    notes.lock().findings.push(super::warning("databases", message));
}

/// The exporter and pg_dump lock every table, each worker one; the application keeps half of the lock table.
pub(in crate::ops) fn locks_needed(target: &Target, lockable_tables: u64) -> u64 {
    2 * lockable_tables + target.jobs as u64
}

/// Names everything that stands in the way of reading, or returns how many tables are to be locked.
async fn check_relations(guard: &Session, target: &Target) -> Result<u64, BackupError> {
    let relations = relations::list(guard).await?;
    let excluded = Excluded::find(guard, target, &relations).await?;
    let wanted: Vec<_> = relations
        .into_iter()
        .filter(|relation| !excluded.relation(relation))
        .collect();
    let role = privileges::current_role(guard).await?;
    let mut missing = privileges::missing(&wanted, &role, guard.server_version_num());
    missing.add_large_objects(&large_objects::unreadable(guard).await?, &role);
    if missing.is_empty() {
        return Ok(wanted.iter().filter(|relation| relation.lockable()).count() as u64);
    }
    Err(BackupError::Privileges {
        role,
        on: guard.description().to_owned(),
        missing,
    })
}

/// "ernf", so that the lock is not mistaken for one of the application's.
const ADVISORY_CLASS: i32 = 0x6572_6e66;

/// One backup of a target at a time, whoever runs it. The server releases it with the session.
async fn take_advisory_lock(guard: &Session, target: &Target) -> Result<(), BackupError> {
    let row = guard
        .select_one(
            "take the target's lock",
            "SELECT pg_catalog.pg_try_advisory_lock($1, pg_catalog.hashtext($2)),
                    (SELECT pg_catalog.string_agg('pid ' || l.pid || coalesce(' from ' || a.client_addr, ''), ', ')
                       FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
                      WHERE l.locktype = 'advisory' AND l.classid::bigint = $1 AND l.granted
                        AND l.objid::bigint = (pg_catalog.hashtext($2)::bigint & 4294967295)
                        AND l.pid <> pg_catalog.pg_backend_pid())",
            &[&ADVISORY_CLASS, &target.name.as_str()],
        )
        .await?;
    if row.get::<_, bool>(0) {
        return Ok(());
    }
    Err(BackupError::AlreadyRunning {
        target: target.name.to_string(),
        on: guard.description().to_owned(),
        holder: row
            .get::<_, Option<String>>(1)
            .unwrap_or_else(|| "another session".to_owned()),
    })
}

/// A standby has advisory locks of its own. Where the heartbeat tells its primary, that one's lock is taken as well, so that
/// backups of the two keep out of each other's way. A primary that is gone is no reason to take none.
async fn lock_primary(
    context: &Context,
    target: &Target,
    identity: &ServerIdentity,
    notes: &Notebook,
) -> Result<Option<Session>, BackupError> {
    let elsewhere = target
        .heartbeat
        .as_ref()
        .and_then(|heartbeat| heartbeat.elsewhere.as_ref());
    let Some(elsewhere) = elsewhere.filter(|_| identity.standby) else {
        return Ok(None);
    };
    let why = match elsewhere {
        Ok(connection) => match lock_session(connection).await {
            // Perhaps the very server whose lock is held already.
            Ok(session) if session.in_recovery() => format!("{} is a standby itself", session.description()),
            Ok(session) => {
                take_advisory_lock(&session, target).await?;
                return Ok(Some(session));
            }
            Err(error) => error.to_string(),
        },
        Err(reason) => reason.clone(),
    };
    let message = format!(
        "unknown whether another backup of the target runs, as the primary could not be asked: {why}"
    );
    context.progress.note(&message);
    notes.lock().findings.push(super::warning("primary", message));
    Ok(None)
}

async fn lock_session(connection: &ConnectionSettings) -> Result<Session, PostgresError> {
    pooler::refuse_transaction_pooler(connection).await?;
    Session::connect(connection, "backup lock", None).await
}
