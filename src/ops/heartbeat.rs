//! Keeps the heartbeat of one target written, so that it can be found again in backups and in copies of them.
//!
//! Never: a write to a server in recovery, to a database that is set read-only, to one that is empty or being restored, or
//! where a publication would carry the row to a subscriber that lacks the table.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::model::target_name::TargetName;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::error::Error as PostgresError;
use crate::postgres::heartbeat::{self, Mark, SCHEMA, TABLE, Written};
use crate::postgres::pooler;
use crate::postgres::session::Session;

use super::clock_skew::clock_skew_seconds;
use super::restore::destination;
use super::restore::marker::Marker;
use super::target::Target;

/// A source that does not answer for so long has missed a beat.
const LIMIT: Duration = Duration::from_secs(60);
/// A connection is kept between beats that come sooner than this; else the source may sleep in between.
const KEPT_BELOW: Duration = Duration::from_secs(60);
/// A heartbeat waits neither for locks, nor for a disk, nor for a standby that has to confirm: it says how far the
/// log of changes has come, and must itself survive nothing.
const SETTINGS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '5s'; SET synchronous_commit = off";

/// Which installation writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// No two have the same: the chain of the journal.
    pub installation: String,
    /// The machine's name, for people.
    pub host: String,
}

/// A heartbeat that was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beat {
    /// By the clock of the server written to.
    pub written_at: DateTime<Utc>,
    /// That clock minus ours.
    pub clock_skew_seconds: f64,
}

/// Why no heartbeat was written. The next beat is the retry.
#[derive(Debug, thiserror::Error)]
pub enum HeartError {
    #[error("write the heartbeat of {target}: {reason}")]
    NoAddress { target: TargetName, reason: String },
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(
        "write the heartbeat of {target} ({on}): the server is a standby, which takes no writes; give the primary's address as `url` of the target's `heartbeat`"
    )]
    Standby { target: TargetName, on: String },
    #[error(
        "write the heartbeat of {target} ({on}): transactions are set to be read-only there; lift that (default_transaction_read_only), or give another address as `url` of the target's `heartbeat`"
    )]
    ReadOnly { target: TargetName, on: String },
    #[error(
        "write the heartbeat of {target} ({on}): the database is empty, and may be about to be restored into; the heartbeat begins once there is something in it"
    )]
    Empty { target: TargetName, on: String },
    #[error(
        "write the heartbeat of {target} ({on}): the database is being restored; the heartbeat goes on after that (end a restore that broke off with the same command, or with --start-over)"
    )]
    BeingRestored { target: TargetName, on: String },
    #[error("write the heartbeat of {target} ({on}): {}", published(publications, *table_exists))]
    Published {
        target: TargetName,
        on: String,
        publications: Vec<String>,
        /// It was there before the publication, or somebody made it.
        table_exists: bool,
    },
    #[error(
        "write the heartbeat of {target} ({on}): the role may not {what}; let an administrator run what `ernstfall grants {target}` prints"
    )]
    NoRight {
        target: TargetName,
        on: String,
        what: &'static str,
    },
    #[error(
        "write the heartbeat of {target} ({on}): the installation of {host} keeps it; two installations must not have a target of one name in one database: rename one, or switch one's heartbeat off (where this one replaces the other, it takes over once that is silent)"
    )]
    AnotherWriter {
        target: TargetName,
        on: String,
        host: String,
    },
    #[error(
        "write the heartbeat of {target} ({on}): no answer within {limit:?}; look at the server's load and log, and at the network"
    )]
    TookTooLong {
        target: TargetName,
        on: String,
        limit: Duration,
    },
}

/// What is in the way, and how to go on.
pub(super) fn published(publications: &[String], table_exists: bool) -> String {
    let names = publications.join(", ");
    let then = if table_exists {
        "drop the schema ernstfall, or take it out of the publication"
    } else {
        "publish tables or schemas by name instead of all"
    };
    format!(
        "the publication {names} carries {SCHEMA}.{TABLE}, and a subscriber without that table would stop: {then}, or switch the heartbeat off"
    )
}

/// Writes the heartbeat of one target whenever it is asked to.
pub struct Heart {
    target: TargetName,
    connection: ConnectionSettings,
    mark: Mark,
    clock: fn() -> DateTime<Utc>,
    limit: Duration,
    /// No transaction-mode pooler stands between.
    direct: bool,
    kept: Option<Session>,
}

impl Heart {
    /// Connects to nothing yet; `None` where the target has no heartbeat.
    ///
    /// # Errors
    /// Where the address to write to cannot be told.
    pub fn new(
        target: &Target,
        writer: Writer,
        clock: fn() -> DateTime<Utc>,
    ) -> Result<Option<Self>, HeartError> {
        let Some(heartbeat) = &target.heartbeat else {
            return Ok(None);
        };
        let connection = match &heartbeat.elsewhere {
            None => target.connection.clone(),
            Some(Ok(elsewhere)) => elsewhere.clone(),
            Some(Err(reason)) => {
                return Err(HeartError::NoAddress {
                    target: target.name.clone(),
                    reason: reason.clone(),
                });
            }
        };
        Ok(Some(Self {
            target: target.name.clone(),
            connection,
            mark: Mark {
                target: target.name.to_string(),
                every: heartbeat.every,
                writer: writer.installation,
                host: writer.host,
            },
            clock,
            limit: LIMIT,
            direct: false,
            kept: None,
        }))
    }

    /// How long a beat may take, in the place of a minute.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Writes the row once, and makes its table before that if there is none. Takes a minute at most, and 5 s to hang up.
    ///
    /// Being dropped half-way leaves a row that is written or not, and at most one statement that ends within 10 s.
    pub async fn beat(&mut self) -> Result<Beat, HeartError> {
        let outcome = match tokio::time::timeout(self.limit, self.beat_in_time()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(HeartError::TookTooLong {
                target: self.target.clone(),
                on: self.connection.describe(),
                limit: self.limit,
            }),
        };
        if self.mark.every >= KEPT_BELOW {
            self.rest().await;
        }
        outcome
    }

    /// Ends the connection, if one is kept. The next beat opens another.
    pub async fn rest(&mut self) {
        if let Some(session) = self.kept.take() {
            session.close().await;
        }
    }

    async fn beat_in_time(&mut self) -> Result<Beat, HeartError> {
        // Taken out: a beat that breaks off ends its connection.
        let kept = self.kept.take().filter(|kept| !kept.is_closed());
        if let Some(kept) = kept {
            match self.beat_on(&kept).await {
                Err(HeartError::Postgres(error)) if is_to_be_tried_anew(&error) => {}
                outcome => {
                    self.kept = outcome.is_ok().then_some(kept);
                    return outcome;
                }
            }
        }
        let session = self.connect().await?;
        let beat = self.beat_on(&session).await?;
        self.kept = Some(session);
        Ok(beat)
    }

    async fn connect(&mut self) -> Result<Session, HeartError> {
        if !self.direct {
            pooler::refuse_transaction_pooler(&self.connection).await?;
            self.direct = true;
        }
        let session = Session::connect(&self.connection, "heartbeat", None).await?;
        let (target, on) = (self.target.clone(), session.description().to_owned());
        if session.in_recovery() {
            return Err(HeartError::Standby { target, on });
        }
        if session.read_only() {
            return Err(HeartError::ReadOnly { target, on });
        }
        session
            .batch("limit the heartbeat's statements", SETTINGS)
            .await?;
        self.look(&session).await?;
        Ok(session)
    }

    async fn beat_on(&self, session: &Session) -> Result<Beat, HeartError> {
        // One row is enough to stop a subscriber, or to make a restored copy differ: so both are asked each time.
        self.refuse_restored(session).await?;
        let publications = heartbeat::publications(session, true).await?;
        self.refuse_published(session, &publications, true)?;
        let clock_skew_seconds = clock_skew_seconds(session, self.clock).await?;
        match heartbeat::write(session, &self.mark).await? {
            Written::At(written_at) => Ok(Beat {
                written_at,
                clock_skew_seconds,
            }),
            Written::ByAnother(other) => Err(HeartError::AnotherWriter {
                target: self.target.clone(),
                on: session.description().to_owned(),
                host: other.host,
            }),
        }
    }

    /// Refuses where a publication would carry the row, and makes the table where it is missing.
    async fn look(&self, session: &Session) -> Result<(), HeartError> {
        self.refuse_restored(session).await?;
        let (target, on) = (self.target.clone(), session.description().to_owned());
        let standing = heartbeat::look(session).await?;
        self.refuse_published(session, &standing.publications, standing.table_exists)?;
        let what = if standing.table_exists {
            (!standing.may_write).then_some("write the table ernstfall.heartbeat")
        } else {
            (!standing.may_create).then_some("make the table ernstfall.heartbeat")
        };
        if let Some(what) = what {
            return Err(HeartError::NoRight { target, on, what });
        }
        if !standing.table_exists {
            if destination::user_objects(session).await?.is_none() {
                return Err(HeartError::Empty { target, on });
            }
            heartbeat::create(session, &standing).await?;
        }
        Ok(())
    }

    fn refuse_published(
        &self,
        session: &Session,
        publications: &[String],
        table_exists: bool,
    ) -> Result<(), HeartError> {
        if publications.is_empty() {
            return Ok(());
        }
        Err(HeartError::Published {
            target: self.target.clone(),
            on: session.description().to_owned(),
            publications: publications.to_vec(),
            table_exists,
        })
    }

    /// A row that is written into a restored copy would make it differ from its backup.
    async fn refuse_restored(&self, session: &Session) -> Result<(), HeartError> {
        if Marker::is_under_way(session).await? {
            return Err(HeartError::BeingRestored {
                target: self.target.clone(),
                on: session.description().to_owned(),
            });
        }
        Ok(())
    }
}

/// The kept connection was lost, or the table was dropped under it: undefined table, undefined schema.
fn is_to_be_tried_anew(error: &PostgresError) -> bool {
    error.kind() == crate::postgres::ErrorKind::Connection
        || matches!(error.sqlstate(), Some("42P01" | "3F000"))
}
