//! What tells ours from everybody else's on a server that is not ours: names, markers and locks.
//!
//! A marker is the comment of a database or a role. It names the thing it is on, so that a comment that was copied
//! elsewhere proves nothing there.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::postgres::error::Error;
use crate::postgres::identifier::{quote_identifier, quote_literal};
use crate::postgres::session::Session;

/// Reserved: databases of other names are never looked at.
pub const PREFIX: &str = "ernstfall_scratch_";

const PROGRAM: &str = "ernstfall";

/// PostgreSQL cuts longer names.
const LONGEST_NAME: usize = 63;

/// "erns": the class of all advisory locks of scratch databases. Two numbers make a key, of which this is the first.
pub(super) const LOCK_CLASS: i32 = 0x6572_6e73;

/// The second number of the lock that every living test shares, and that is taken alone to remove roles.
pub(super) const ROLES_KEY: i32 = 0;

/// What a marker is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    ScratchDatabase,
    ScratchRole,
}

/// Which run makes a scratch database, and where that run is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maker {
    pub run: String,
    pub host: String,
    pub state_dir: String,
    pub started_at: DateTime<Utc>,
}

/// The comment on a database or role of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    program: String,
    kind: Kind,
    name: String,
    #[serde(flatten)]
    pub(super) maker: Maker,
    /// Left there on request: no sweep removes it.
    #[serde(default)]
    pub(super) kept: bool,
}

impl Marker {
    pub(super) fn new(kind: Kind, name: &str, maker: &Maker) -> Self {
        Self {
            program: PROGRAM.to_owned(),
            kind,
            name: name.to_owned(),
            maker: maker.clone(),
            kept: false,
        }
    }

    /// Reads the comment on the database or role of this name; `None` if it is not our marker for it.
    pub(super) fn read(kind: Kind, name: &str, comment: Option<&str>) -> Option<Self> {
        let marker: Self = serde_json::from_str(comment?).ok()?;
        let reserved = kind == Kind::ScratchRole || name.starts_with(PREFIX);
        (reserved && marker.program == PROGRAM && marker.kind == kind && marker.name == name)
            .then_some(marker)
    }

    /// The statement that puts the marker on what it names.
    pub(super) fn statement(&self) -> String {
        let word = match self.kind {
            Kind::ScratchDatabase => "DATABASE",
            Kind::ScratchRole => "ROLE",
        };
        let text = serde_json::to_string(self).unwrap_or_default();
        format!(
            "COMMENT ON {word} {} IS {}",
            quote_identifier(&self.name),
            quote_literal(&text)
        )
    }
}

/// The name of a run's database: the prefix and the run's id, of lower-case letters, digits and underscores.
pub(super) fn database_name(run: &str) -> String {
    let safe = run.chars().map(|character| match character.to_ascii_lowercase() {
        safe @ ('a'..='z' | '0'..='9') => safe,
        _ => '_',
    });
    PREFIX.chars().chain(safe).take(LONGEST_NAME).collect()
}

/// The second number of the lock that a run holds for its database. Never the roles' one.
pub(super) fn lock_key(database: &str) -> i32 {
    let hash = Sha256::digest(database);
    i32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]) & i32::MAX | 1
}

/// Whether some other session holds such a lock, in whatever database of the server. Without a key: any of the class.
pub(super) async fn is_held_elsewhere(session: &Session, key: Option<i32>) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
                WHERE locktype = 'advisory' AND objsubid = 2 AND classid::bigint = $1 AND granted
                  AND ($2::bigint IS NULL OR objid::bigint = $2) AND pid <> pg_catalog.pg_backend_pid())";
    let row = session
        .select_one(
            "look for living restore tests",
            sql,
            &[&i64::from(LOCK_CLASS), &key.map(i64::from)],
        )
        .await?;
    Ok(row.get(0))
}

/// Takes a lock of the class if nobody has it.
pub(super) async fn try_lock(session: &Session, key: i32) -> Result<bool, Error> {
    let sql = "SELECT pg_catalog.pg_try_advisory_lock($1, $2)";
    let row = session
        .select_one("lock the scratch database's name", sql, &[&LOCK_CLASS, &key])
        .await?;
    Ok(row.get(0))
}

pub(super) async fn unlock(session: &Session, key: i32) -> Result<(), Error> {
    let sql = "SELECT pg_catalog.pg_advisory_unlock($1, $2)";
    session
        .select_one("let go of a lock", sql, &[&LOCK_CLASS, &key])
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker() -> Maker {
        Maker {
            run: "20261122T031500Z-7f3a".into(),
            host: "test".into(),
            state_dir: "/var/lib/ernstfall".into(),
            started_at: DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_database_is_named_by_its_run_and_nothing_in_it_needs_quotes() {
        assert_eq!(
            database_name("20261122T031500Z-7f3a"),
            "ernstfall_scratch_20261122t031500z_7f3a"
        );
        assert_eq!(database_name(&"Ü".repeat(80)).len(), 63);
    }

    #[test]
    fn a_marker_counts_only_on_what_it_names() {
        let name = "ernstfall_scratch_1";
        let text = serde_json::to_string(&Marker::new(Kind::ScratchDatabase, name, &maker())).unwrap();
        let read = |kind, name, text: &str| Marker::read(kind, name, Some(text));
        assert_eq!(read(Kind::ScratchDatabase, name, &text).unwrap().maker, maker());
        assert!(read(Kind::ScratchDatabase, "ernstfall_scratch_2", &text).is_none());
        assert!(read(Kind::ScratchRole, name, &text).is_none());
        assert!(read(Kind::ScratchDatabase, name, "a scratch database of ernstfall").is_none());
        assert!(Marker::read(Kind::ScratchDatabase, name, None).is_none());
        let elsewhere = serde_json::to_string(&Marker::new(Kind::ScratchDatabase, "shop", &maker())).unwrap();
        assert!(
            read(Kind::ScratchDatabase, "shop", &elsewhere).is_none(),
            "without the prefix nothing is ours"
        );
    }

    #[test]
    fn no_database_has_the_lock_of_the_roles() {
        for number in 0..1000 {
            assert!(lock_key(&format!("{PREFIX}{number}")) > ROLES_KEY);
        }
    }
}
