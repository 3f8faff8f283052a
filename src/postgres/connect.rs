//! Finding a server: hosts, addresses, TLS and the kind of server, in libpq's order.
//!
//! Opens sessions without settings; only [`Session::connect`] and the pooler probe build on it.

use super::advice::{connect_error, describe};
use super::conninfo::{ConnectionSettings, Endpoint, Host, SslMode, TargetSession};
use super::error::{Error, ErrorKind};
use super::session::{Driver, Ended, ServerFacts, Session};
use super::tls;
use std::error::Error as StdError;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_postgres::config::SslMode as DriverSslMode;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Qualified throughout: a role's search_path may put other functions first.
const FACTS: &str = "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('server_version_num'), \
     pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery(), \
     pg_catalog.current_setting('transaction_read_only')";

type DriverConnection =
    Connection<Socket, <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Socket>>::Stream>;
type Cause = Arc<dyn StdError + Send + Sync>;

/// One way to reach one host.
struct Attempt<'a> {
    settings: &'a ConnectionSettings,
    host: &'a Host,
    address: Option<IpAddr>,
    purpose: &'a str,
    tls: &'a MakeRustlsConnect,
}

/// Opens a session without fixing its settings.
pub(super) async fn open(settings: &ConnectionSettings, purpose: &str) -> Result<Session, Error> {
    let tls = tls::connector(settings.tls()).map_err(|error| {
        let reason = match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        Error::new(
            "prepare TLS",
            settings.describe(),
            ErrorKind::Configuration,
            reason,
            error.advice(),
        )
    })?;
    match settings.target_session() {
        TargetSession::PreferStandby => match open_any(settings, TargetSession::Standby, purpose, &tls).await
        {
            Ok(session) => Ok(session),
            Err(_) => open_any(settings, TargetSession::Any, purpose, &tls).await,
        },
        wanted => open_any(settings, wanted, purpose, &tls).await,
    }
}

async fn open_any(
    settings: &ConnectionSettings,
    wanted: TargetSession,
    purpose: &str,
    tls: &MakeRustlsConnect,
) -> Result<Session, Error> {
    let mut errors = Vec::new();
    for host in settings.hosts() {
        let addresses = match addresses(settings, host).await {
            Ok(addresses) => addresses,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        for address in addresses {
            match (Attempt {
                settings,
                host,
                address,
                purpose,
                tls,
            })
            .open(wanted)
            .await
            {
                Ok(session) => return Ok(session),
                Err(error) => errors.push(error),
            }
        }
    }
    Err(gather(settings, errors))
}

/// All addresses of a host, so that each has a time limit of its own; None for a socket.
async fn addresses(settings: &ConnectionSettings, host: &Host) -> Result<Vec<Option<IpAddr>>, Error> {
    let name = match &host.endpoint {
        Endpoint::Socket(_) => return Ok(vec![None]),
        Endpoint::Tcp {
            address: Some(address),
            ..
        } => return Ok(vec![Some(*address)]),
        Endpoint::Tcp { name, address: None } => name.as_str(),
    };
    let failed = |error: io::Error| connect_error(settings, host, Arc::new(error));
    let looking_up = tokio::net::lookup_host((name, host.port));
    let found = match tokio::time::timeout(settings.connect_timeout(), looking_up).await {
        Ok(found) => found.map_err(failed)?,
        Err(_) => {
            return Err(failed(io::Error::new(
                io::ErrorKind::TimedOut,
                "looking up the name took too long",
            )));
        }
    };
    let mut addresses: Vec<Option<IpAddr>> = Vec::new();
    for address in found {
        if !addresses.contains(&Some(address.ip())) {
            addresses.push(Some(address.ip()));
        }
    }
    Ok(addresses)
}

impl Attempt<'_> {
    async fn open(&self, wanted: TargetSession) -> Result<Session, Error> {
        match tokio::time::timeout(self.settings.connect_timeout(), self.open_within_limit()).await {
            Ok(opened) => self.accept(opened?, wanted),
            Err(_) => {
                let timeout = io::Error::new(io::ErrorKind::TimedOut, "connecting took too long");
                Err(self.failed(Arc::new(timeout)))
            }
        }
    }

    async fn open_within_limit(&self) -> Result<Session, Error> {
        let mode = match (self.settings.tls().mode, &self.host.endpoint) {
            // As libpq: a Unix socket has no TLS, whatever the mode.
            (SslMode::Disable, _) | (_, Endpoint::Socket(_)) => DriverSslMode::Disable,
            (SslMode::Prefer, _) => DriverSslMode::Prefer,
            (SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull, _) => DriverSslMode::Require,
        };
        let first = self.config(mode).connect(self.tls.clone()).await;
        let (client, connection) = match first {
            Ok(opened) => opened,
            Err(error) => {
                let error = self.failed(Arc::new(error));
                // `prefer` only: a broken handshake, or a pg_hba.conf that wants no TLS, is tried without it. A wrong
                // password is not (libpq does): it would count twice against the account.
                let plain = error.kind() == ErrorKind::Tls || error.sqlstate() == Some("28000");
                if mode != DriverSslMode::Prefer || !plain {
                    return Err(error);
                }
                // The first error is the telling one when both fail.
                self.config(DriverSslMode::Disable)
                    .connect(self.tls.clone())
                    .await
                    .map_err(|_| error)?
            }
        };
        self.session(client, connection).await
    }

    fn config(&self, mode: DriverSslMode) -> Config {
        let settings = self.settings;
        let mut config = Config::new();
        match &self.host.endpoint {
            Endpoint::Socket(directory) => config.host_path(directory),
            Endpoint::Tcp { name, .. } => config.host(name),
        };
        if let Some(address) = self.address {
            config.hostaddr(address);
        }
        if let Some(password) = settings.password(self.host) {
            config.password(password.expose());
        }
        if let Some(options) = settings.options() {
            config.options(options);
        }
        let keepalive = settings.keepalive();
        if let Some(user_timeout) = keepalive.user_timeout {
            config.tcp_user_timeout(user_timeout);
        }
        config
            .port(self.host.port)
            .user(settings.user())
            .dbname(settings.database())
            .application_name(format!("ernstfall {}", self.purpose))
            .ssl_mode(mode)
            .channel_binding(settings.channel_binding())
            // For cancel requests, which use it too; connecting has the same limit around all of it.
            .connect_timeout(settings.connect_timeout())
            .keepalives(keepalive.enabled)
            .keepalives_idle(keepalive.idle)
            .keepalives_interval(keepalive.interval)
            .keepalives_retries(keepalive.count);
        config
    }

    async fn session(&self, client: Client, connection: DriverConnection) -> Result<Session, Error> {
        let mut session = Session {
            client,
            driver: drive(connection),
            tls: self.tls.clone(),
            description: describe(self.settings, self.host),
            connect_timeout: self.settings.connect_timeout(),
            facts: ServerFacts::default(),
        };
        let row = session
            .simple_row("ask the server for its version", FACTS)
            .await?;
        let text = |index| row.get(index).unwrap_or_default();
        let number = |index| text(index).parse().unwrap_or_default();
        session.facts = ServerFacts {
            backend_pid: number(0),
            server_version_num: number(1),
            server_version: text(2).to_owned(),
            in_recovery: text(3) == "t",
            read_only: text(4) == "on",
        };
        Ok(session)
    }

    fn accept(&self, session: Session, wanted: TargetSession) -> Result<Session, Error> {
        let facts = &session.facts;
        let reason = match wanted {
            TargetSession::ReadWrite if facts.read_only => "the server is read-only",
            TargetSession::ReadOnly if !facts.read_only => "the server is not read-only",
            TargetSession::Primary if facts.in_recovery => "the server is a standby",
            TargetSession::Standby if !facts.in_recovery => "the server is not a standby",
            _ => return Ok(session),
        };
        let hint = format!(
            "name another host, or change target_session_attrs={}",
            wanted.as_str()
        );
        Err(Error::new(
            "connect",
            &session.description,
            ErrorKind::Connection,
            reason,
            hint,
        ))
    }

    fn failed(&self, cause: Cause) -> Error {
        connect_error(self.settings, self.host, cause)
    }
}

/// Starts the task that moves the bytes. It is spawned here and not by the caller because no query ends without it;
/// it ends by itself when its client is dropped, and [`Session::close`] waits for that.
fn drive(connection: DriverConnection) -> Driver {
    let (sender, ended) = watch::channel(None);
    let task = tokio::spawn(async move {
        let reason = match connection.await {
            Ok(()) => Ended::InOrder,
            Err(error) => Ended::Broken(Arc::new(error)),
        };
        sender.send_replace(Some(reason));
    });
    Driver {
        ended,
        task: task.abort_handle(),
    }
}

/// One error of several: the one that says most, with what the other hosts said.
fn gather(settings: &ConnectionSettings, errors: Vec<Error>) -> Error {
    let telling = |error: &Error| error.kind() != ErrorKind::Connection;
    let index = errors.iter().position(telling).unwrap_or_default();
    let others: Vec<String> = errors
        .iter()
        .enumerate()
        .filter(|(other, _)| *other != index)
        .map(|(_, error)| format!("{}: {}", error.on(), error.reason()))
        .collect();
    match errors.into_iter().nth(index) {
        Some(error) if others.is_empty() => error,
        Some(error) => error.with_also_tried(&others.join("; ")),
        None => Error::new(
            "connect",
            settings.describe(),
            ErrorKind::Connection,
            "the name has no address",
            "check the host name",
        ),
    }
}
