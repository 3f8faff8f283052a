//! Restore: the same code for a restore test and for the real thing.
//!
//! - `source` chooses a backup and reads its parts.
//! - `build` makes the database again, phase by phase.
//! - `load` loads the rows, and `refresh` fills the materialised views.
//! - `left_out` is what is not restored of a backup.
//! - `files` are those that pg_restore reads; `late_keys` are foreign keys that wait for rows.
//! - `lacks` finds what is missing before anything is touched.
//! - `real` is the command `restore`, with its marker.
//! - `tables` brings single tables back beside others.

pub(super) mod build;
pub(super) mod lacks;
pub(super) mod destination;
pub(super) mod files;
pub(super) mod left_out;
mod late_keys;
mod load;
pub(super) mod marker;
mod real;
mod refresh;
pub(super) mod source;
mod tables;

use crate::model::record::Verdict;
use crate::ops::context::Halt;
use crate::ops::keys::KeyError;
use crate::postgres::ChildError;
use crate::postgres::error::Error as PostgresError;
use crate::postgres::programs::ProgramsError;
use crate::repository::{Error as RepositoryError, ReadError};
use crate::scratch::{LogEntry, ScratchError};

pub use crate::postgres::dump::Tablespaces;
pub use real::{Broken, Options, Plan, plan, restore};
pub use source::Choice;
pub use tables::{
    Options as TablesOptions, Plan as TablesPlan, plan as plan_tables, restore as restore_tables,
};

/// Why a restore did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("there is no backup of {0} in {1}: take one with `ernstfall backup {0}`")]
    NoBackup(String, String),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("{object} is damaged: {what}")]
    Damaged { object: String, what: String },
    #[error("the plan found what is missing: {}", .0.join("; "))]
    Lacking(Vec<String>),
    #[error(transparent)]
    Child(#[from] ChildError),
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    #[error(transparent)]
    Scratch(#[from] ScratchError),
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A database that holds other things as well refused something: its own types, functions and rights decide about
    /// that too, so that it says nothing of the backup.
    #[error("{0}")]
    GivenDatabase(Box<PostgresError>),
    /// pg_restore failed; the server's log said with which SQLSTATE, where it could be read.
    #[error("{error}{}", .logged.as_ref().map(|logged| explain(logged)).unwrap_or_default())]
    Program {
        error: Box<PostgresError>,
        logged: Option<Box<LogEntry>>,
    },
    #[error("{table}: {loaded} rows were loaded, and the backup holds {expected}")]
    RowsLost {
        table: String,
        loaded: u64,
        expected: u64,
    },
    #[error("remove what a broken restore left: {0}")]
    Emptying(Box<PostgresError>),
    #[error("materialised views could not be refreshed: {0}")]
    Refresh(String),
    /// The view's owner may not read what it shows.
    #[error("materialised views could not be refreshed: {0}")]
    RefreshDenied(String),
    #[error("{tried} {path}")]
    File {
        tried: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0}")]
    Refused(String),
    #[error("a task of the restore ended unexpectedly")]
    Task(#[from] tokio::task::JoinError),
    #[error(transparent)]
    Halted(#[from] Halt),
}

impl RestoreError {
    /// Whether the backup is bad, or only this attempt to restore it.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Read(error) if error.means_bad_backup() => Verdict::Failed,
            Self::Repository(RepositoryError::Unreadable { .. }) => Verdict::Failed,
            Self::Damaged { .. } | Self::RowsLost { .. } => Verdict::Failed,
            Self::Refresh(_) | Self::RefreshDenied(_) => Verdict::Failed,
            Self::Postgres(error) => blame(error.sqlstate(), error.reason()),
            // A program that failed without a word of the server could not even begin.
            Self::Program { logged: None, .. } => Verdict::CouldNotRun,
            Self::Program {
                logged: Some(logged), ..
            } if logged.statement.starts_with("CREATE EXTENSION") => Verdict::CouldNotRun,
            Self::Program {
                logged: Some(logged), ..
            } => blame(Some(&logged.sqlstate), &logged.message),
            _ => Verdict::CouldNotRun,
        }
    }
}

/// What the server's log adds to a failed program.
fn explain(logged: &LogEntry) -> String {
    // Integrity constraint violation: the rows were loaded as the source had sent them.
    let cause = if logged.sqlstate.starts_with("23") {
        "; the backup holds what the source sent, so the source's own rows violate it"
    } else {
        ""
    };
    format!(
        " (server log: {} {}: {}{cause})",
        logged.severity, logged.sqlstate, logged.message
    )
}

/// SQLSTATEs, or classes of them, that speak of the server, its surroundings and our rights there, and not of what was
/// sent to it: connection, authorisation, no such database, transaction rollback, resources, a read-only server,
/// missing rights, a lock not got, no such grantor, operator intervention, system.
const ENVIRONMENT: &[&str] = &[
    "08", "28", "3D", "40", "53", "25006", "42501", "55P03", "0LP01", "57", "58",
];

/// What the server says about a locale that this machine lacks; the SQLSTATEs are those of any bad name.
const MISSING_LOCALE: &[&str] = &["could not create locale", "collation \"", "invalid locale name"];

fn blame(sqlstate: Option<&str>, message: &str) -> Verdict {
    match sqlstate {
        None => Verdict::CouldNotRun,
        Some(state) if ENVIRONMENT.iter().any(|class| state.starts_with(class)) => Verdict::CouldNotRun,
        Some("42704" | "22023") if MISSING_LOCALE.iter().any(|text| message.contains(text)) => {
            Verdict::CouldNotRun
        }
        Some(_) => Verdict::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_speaks_of_the_data_makes_a_backup_bad() {
        for state in [
            "08006", "28P01", "3D000", "42501", "53100", "55P03", "57P01", "58P01", "25006",
        ] {
            assert_eq!(blame(Some(state), ""), Verdict::CouldNotRun, "{state}");
        }
        for state in ["23505", "22P02", "42883", "42P07", "42704"] {
            assert_eq!(
                blame(Some(state), "type x does not exist"),
                Verdict::Failed,
                "{state}"
            );
        }
        assert_eq!(
            blame(
                Some("42704"),
                "collation \"xx\" for encoding \"UTF8\" does not exist"
            ),
            Verdict::CouldNotRun
        );
        assert_eq!(blame(None, ""), Verdict::CouldNotRun);
    }
}
