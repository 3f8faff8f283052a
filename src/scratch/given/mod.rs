//! A PostgreSQL server that the operator gave for restore tests: a database of its own for each test.
//!
//! It is shared: other databases, other roles and other tests are there. So nothing is dropped without our prefix and
//! our marker, and nothing is made before it is proven that the server is not the source. The copy is not shut off from
//! anything; whoever names a server has written `isolation = "none"`.

mod marker;
mod removal;
mod roles;
mod sameness;

use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::postgres::conninfo::{ConnectionSettings, Endpoint};
use crate::postgres::error::Error;
use crate::postgres::facts::OLDEST_SERVER;
use crate::postgres::identifier::quote_identifier;
use crate::postgres::refuse_transaction_pooler;
use crate::postgres::session::Session;

use super::ScratchError;
use marker::{Kind, LOCK_CLASS, Marker, ROLES_KEY};
use removal::Removal;

pub use marker::{Maker, PREFIX};
pub use roles::{Rights, RolesWanted};
pub use sameness::{KnownSource, Proof};

/// A server, and the name of one test's database on it. While this lives, a lock says that the test does.
///
/// Dropping it removes nothing: what is left is found by the next test's [`sweep`](Self::sweep).
pub struct GivenServer {
    connection: ConnectionSettings,
    session: Arc<Session>,
    maker: Maker,
    name: String,
    creation: Option<JoinHandle<Result<(), Error>>>,
}

/// A database that was left on the server on request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptDatabase {
    pub name: String,
    /// Where it is, and as whom; without a password.
    pub on: String,
    pub connect_command: String,
    pub drop_command: String,
}

impl GivenServer {
    /// Connects and takes the lock by which others see that this test lives. Nothing is made on the server.
    ///
    /// # Errors
    /// When the server cannot be reached or used, or is older than any source.
    pub async fn claim(connection: &ConnectionSettings, maker: Maker) -> Result<Self, ScratchError> {
        let session = connect(connection).await?;
        if session.server_version_num() < OLDEST_SERVER {
            return Err(sameness::refused(
                &session,
                "use it as a scratch server",
                &format!("it is PostgreSQL {}", session.server_version()),
                "name one of PostgreSQL 13 or newer",
            ));
        }
        let name = marker::database_name(&maker.run);
        let claimed = Self {
            connection: connection.clone(),
            session: Arc::new(session),
            maker,
            name,
            creation: None,
        };
        claimed.lock().await?;
        Ok(claimed)
    }

    async fn lock(&self) -> Result<(), ScratchError> {
        // Waits for the moment in which another test removes roles.
        let sql = "SELECT pg_catalog.pg_advisory_lock_shared($1, $2)";
        self.session
            .select_one("lock the roles of restore tests", sql, &[&LOCK_CLASS, &ROLES_KEY])
            .await
            .map_err(given)?;
        match marker::try_lock(&self.session, marker::lock_key(&self.name)).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(sameness::refused(
                &self.session,
                "lock the scratch database's name",
                "another restore test has it",
                "try again",
            )),
            Err(error) => Err(given(error)),
        }
    }

    /// Proves that this server is not the source. To be called before anything is made.
    ///
    /// # Errors
    /// When it is the source or a physical copy of it, or when neither can be proven.
    pub async fn prove_it_is_not(&self, source: &KnownSource<'_>) -> Result<Proof, ScratchError> {
        sameness::prove(&self.session, source).await
    }

    /// Removes what killed tests left here. Says what was found; what could not be removed does not stand in the way.
    pub async fn sweep(&self) -> Result<Vec<String>, ScratchError> {
        removal::sweep(&self.session, &self.connection)
            .await
            .map_err(given)
    }

    /// What the connected role may do here.
    pub async fn rights(&self) -> Result<Rights, ScratchError> {
        roles::rights(&self.session).await.map_err(given)
    }

    /// Makes the roles that are missing. Returns the memberships that were left out, as SQL.
    ///
    /// # Errors
    /// When the connected role may not make them, or the server is at fault.
    pub async fn make_roles(&self, wanted: &RolesWanted<'_>) -> Result<Vec<String>, ScratchError> {
        roles::make(&self.session, wanted, &self.maker)
            .await
            .map_err(given)
    }

    /// Makes the database by this statement, and marks it. A test that is cancelled meanwhile waits for both at its
    /// end, so that no database without a marker is left.
    ///
    /// # Errors
    /// As the server gives them.
    pub async fn create(&mut self, statement: String) -> Result<(), Error> {
        let session = Arc::clone(&self.session);
        let marker = Marker::new(Kind::ScratchDatabase, &self.name, &self.maker).statement();
        let creation = self.creation.insert(tokio::spawn(async move {
            session.batch("create the copy's database", &statement).await?;
            session.batch("mark the copy's database", &marker).await
        }));
        let made = creation.await;
        self.creation = None;
        made.unwrap_or_else(|error| {
            Err(Error::unexpected(
                "create the copy's database",
                self.session.description(),
                error.to_string(),
            ))
        })
    }

    /// Writes everything to the disk; `false` where the role may not ask for that.
    pub async fn checkpoint(&self) -> Result<bool, ScratchError> {
        match self
            .session
            .batch("write everything to the disk", "CHECKPOINT")
            .await
        {
            Ok(()) => Ok(true),
            Err(error) if error.sqlstate() == Some("42501") => Ok(false),
            Err(error) => Err(given(error)),
        }
    }

    /// How to connect to the database that the operator named.
    pub fn connection(&self) -> &ConnectionSettings {
        &self.connection
    }

    /// The session in the database that the connection names, which holds the lock.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The name of this test's database, which is there between [`create`](Self::create) and the end.
    pub fn database(&self) -> &str {
        &self.name
    }

    /// How to connect to this test's database.
    pub fn copy(&self) -> ConnectionSettings {
        self.connection.with_database(&self.name)
    }

    /// Drops the database, with whoever is connected to it, and the roles that nothing depends on.
    ///
    /// # Errors
    /// When that failed; the next test on this server tries again.
    pub async fn remove(mut self) -> Result<(), ScratchError> {
        let session = self.settled().await?;
        let removal = removal::drop_database(&session, &self.connection, &self.name)
            .await
            .map_err(given)?;
        if removal == Removal::NotOurs {
            return Err(sameness::refused(
                &session,
                &format!("drop the scratch database {}", self.name),
                "it does not bear our marker",
                "drop it by hand if it is not needed",
            ));
        }
        self.leave(&session).await
    }

    /// Leaves the database on the server, where no sweep removes it. `None` where it was not made yet.
    ///
    /// # Errors
    /// When it could not be marked as kept; then the next test on this server removes it.
    pub async fn keep(mut self) -> Result<Option<KeptDatabase>, ScratchError> {
        let session = self.settled().await?;
        let (_, marker) = removal::marker_of(&session, &self.name).await.map_err(given)?;
        let kept = match marker {
            None => None,
            Some(mut marker) => {
                marker.kept = true;
                session
                    .batch("keep the scratch database", &marker.statement())
                    .await
                    .map_err(given)?;
                Some(self.kept())
            }
        };
        self.leave(&session).await?;
        Ok(kept)
    }

    fn kept(&self) -> KeptDatabase {
        let copy = self.copy();
        let host = copy.hosts().first().map(|host| match &host.endpoint {
            Endpoint::Socket(directory) => format!("-h '{}' -p {} ", directory.display(), host.port),
            Endpoint::Tcp { name, .. } => format!("-h {name} -p {} ", host.port),
        });
        KeptDatabase {
            name: self.name.clone(),
            on: copy.describe(),
            connect_command: format!(
                "psql {}-U '{}' {}",
                host.unwrap_or_default(),
                copy.user(),
                self.name
            ),
            drop_command: format!("DROP DATABASE {} WITH (FORCE)", quote_identifier(&self.name)),
        }
    }

    /// A session of the moment, when nothing of ours is being made any more. The first one may have been cut.
    async fn settled(&mut self) -> Result<Arc<Session>, ScratchError> {
        if let Some(creation) = self.creation.take() {
            // Whether it was made is seen on the server.
            let _ = creation.await;
        }
        if self.session.is_closed() {
            self.session = Arc::new(connect(&self.connection).await?);
        }
        Ok(Arc::clone(&self.session))
    }

    /// Removes roles, and lets go of the locks with the session.
    async fn leave(self, session: &Session) -> Result<(), ScratchError> {
        // Of two tests that end at once one must not stand in the other's way.
        let sql = "SELECT pg_catalog.pg_advisory_unlock_shared($1, $2)";
        session
            .select_one("let go of a lock", sql, &[&LOCK_CLASS, &ROLES_KEY])
            .await
            .map_err(given)?;
        let left = removal::remove_roles(session).await.map_err(given)?;
        match left.is_empty() {
            true => Ok(()),
            false => Err(sameness::refused(
                session,
                "remove the roles of the test",
                &left.join("; "),
                "drop them by hand",
            )),
        }
    }
}

async fn connect(connection: &ConnectionSettings) -> Result<Session, ScratchError> {
    refuse_transaction_pooler(connection).await.map_err(given)?;
    Session::connect(connection, "scratch", None).await.map_err(given)
}

fn given(error: Error) -> ScratchError {
    ScratchError::Given(Box::new(error))
}
