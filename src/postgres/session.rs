//! One connection with its settings fixed.
//!
//! Dropping a [`Session`] while a statement runs leaves that statement running on the server until its next write:
//! cancel it first ([`Session::cancel_handle`]). With a client encoding other than UTF-8 only ASCII statements and
//! COPY data are safe: the driver reads all other text as UTF-8.

use super::connect;
use super::conninfo::ConnectionSettings;
use super::error::{Error, ErrorKind};
use super::fixed_settings::{fixed_settings, holds, set_statements, verification_query};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_postgres::{CancelToken, Client, SimpleQueryMessage, SimpleQueryRow};
use tokio_postgres_rustls::MakeRustlsConnect;

/// A goodbye is one message; a server that does not take it in this time is gone.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one database. Derefs to the driver's client.
pub struct Session {
    pub(super) client: Client,
    pub(super) driver: Driver,
    pub(super) tls: MakeRustlsConnect,
    pub(super) description: String,
    pub(super) connect_timeout: Duration,
    pub(super) facts: ServerFacts,
}

/// The task that moves the bytes, and how it ended.
pub(super) struct Driver {
    pub(super) ended: watch::Receiver<Option<Ended>>,
    pub(super) task: AbortHandle,
}

#[derive(Clone)]
pub(super) enum Ended {
    InOrder,
    Broken(Arc<tokio_postgres::Error>),
}

/// What every session asks first.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerFacts {
    pub(super) backend_pid: i32,
    pub(super) server_version_num: i32,
    pub(super) server_version: String,
    pub(super) in_recovery: bool,
    pub(super) read_only: bool,
}

impl Session {
    /// Connects and fixes the settings. `purpose` goes into `application_name`; `encoding` defaults to UTF8.
    ///
    /// Takes at most `connect_timeout` for each address of each host, and once more for the settings. Being dropped
    /// half-way leaves nothing behind. Before the first session to a server that the operator named, call
    /// [`refuse_transaction_pooler`](super::pooler::refuse_transaction_pooler): on such a pooler the settings would
    /// stay on connections of others.
    pub async fn connect(
        settings: &ConnectionSettings,
        purpose: &str,
        encoding: Option<&str>,
    ) -> Result<Self, Error> {
        let session = connect::open(settings, purpose).await?;
        let fixing = session.fix_settings(encoding.unwrap_or("UTF8"));
        match tokio::time::timeout(settings.connect_timeout(), fixing).await {
            Ok(outcome) => outcome.map(|()| session),
            Err(_) => Err(Error::new(
                "fix the session's settings",
                &session.description,
                ErrorKind::Connection,
                "no answer in time",
                "look at the server's load and log, or raise connect_timeout",
            )),
        }
    }

    async fn fix_settings(&self, encoding: &str) -> Result<(), Error> {
        let settings = fixed_settings(self.server_version_num(), encoding);
        self.batch_execute(&set_statements(&settings))
            .await
            .map_err(|error| Error::query("fix the session's settings", &self.description, error))?;
        let row = self
            .simple_row("check the session's settings", &verification_query(&settings))
            .await?;
        let lost: Vec<String> = settings
            .iter()
            .enumerate()
            .filter_map(|(index, (name, value))| {
                let shown = row.get(index).unwrap_or_default();
                (!holds(name, value, shown)).then(|| format!("{name} is `{shown}`"))
            })
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            "check the session's settings",
            &self.description,
            ErrorKind::Pooler,
            format!("settings did not hold: {}", lost.join(", ")),
            "a transaction-mode pooler does this: use the direct connection, or a pooler in session mode",
        ))
    }

    /// The one row of a query, as texts, by the simple protocol (no prepared statements, which poolers lose).
    pub(super) async fn simple_row(&self, tried: &str, sql: &str) -> Result<SimpleQueryRow, Error> {
        let messages = self
            .client
            .simple_query(sql)
            .await
            .map_err(|error| Error::query(tried, &self.description, error))?;
        let row = messages.into_iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        row.ok_or_else(|| {
            let hint = "check that a PostgreSQL server stands behind this address";
            Error::new(
                tried,
                &self.description,
                ErrorKind::Other,
                "the server gave no row",
                hint,
            )
        })
    }

    /// The server process of this session, as the server itself says (a pooler tells the protocol another).
    pub fn backend_pid(&self) -> i32 {
        self.facts.backend_pid
    }

    pub fn server_version_num(&self) -> i32 {
        self.facts.server_version_num
    }

    pub fn server_version(&self) -> &str {
        &self.facts.server_version
    }

    /// Whether the server was a standby when the session began.
    pub fn in_recovery(&self) -> bool {
        self.facts.in_recovery
    }

    /// Whether the database or the role was set to be read-only when the session began. Ours lift that for themselves.
    pub fn read_only(&self) -> bool {
        self.facts.read_only
    }

    /// For errors: the database, the host this session really reached, and the user.
    pub fn description(&self) -> &str {
        &self.description
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed() || self.driver.ended.borrow().is_some()
    }

    /// Resolves when the connection has ended, with the reason. Does not borrow the session.
    pub fn closed(&self) -> impl Future<Output = Error> + Send + use<> {
        let mut ended = self.driver.ended.clone();
        let description = self.description.clone();
        async move {
            let reason = match ended.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone(),
                // The task was aborted, and its sender went with it.
                Err(_) => None,
            };
            match reason {
                Some(Ended::Broken(error)) => Error::from_cause("keep the connection", description, error),
                Some(Ended::InOrder) | None => Error::new(
                    "keep the connection",
                    description,
                    ErrorKind::Connection,
                    "it was closed",
                    "look at the server's log if nobody meant to",
                ),
            }
        }
    }

    /// Says goodbye and waits until the connection is gone; after 5 s it is cut.
    pub async fn close(self) {
        let Self {
            client, mut driver, ..
        } = self;
        drop(client);
        let goodbye = driver.ended.wait_for(Option::is_some);
        if tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await.is_err() {
            driver.task.abort();
        }
    }

    /// The means to cancel what this session runs, from elsewhere.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle {
            token: self.client.cancel_token(),
            tls: self.tls.clone(),
            description: self.description.clone(),
            timeout: self.connect_timeout,
        }
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Cancels whatever its session runs at that moment.
#[derive(Clone)]
pub struct CancelHandle {
    token: CancelToken,
    tls: MakeRustlsConnect,
    description: String,
    timeout: Duration,
}

impl CancelHandle {
    /// Asks the server to cancel. It says neither whether it did nor whether there was anything to cancel.
    pub async fn cancel(&self) -> Result<(), Error> {
        let tried = "cancel the running statement";
        match tokio::time::timeout(self.timeout, self.token.cancel_query(self.tls.clone())).await {
            Ok(outcome) => outcome.map_err(|error| Error::query(tried, &self.description, error)),
            Err(_) => {
                let hint = "end it on the server with pg_terminate_backend()";
                Err(Error::new(
                    tried,
                    &self.description,
                    ErrorKind::Connection,
                    "no answer in time",
                    hint,
                ))
            }
        }
    }
}
