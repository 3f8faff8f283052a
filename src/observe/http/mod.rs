//! The daemon's pages for programs: `/metrics`, `/healthz`, `/readyz`, `/api/v1/status`. They only show.
//!
//! A connection serves one request, in bounded time, and there are only so many of them at once: a client that is slow,
//! or sends nothing, takes a place for seconds, and starves nobody.

mod pages;
mod protection;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use chrono::{DateTime, Utc};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::model::secret::Secret;
use crate::observe::gathered::Gathered;
use protection::Protection;
pub use protection::ProtectionError;

/// A few monitors and a few people; each takes a place for no longer than [`CONNECTION_TIME`].
const MAX_CONNECTIONS: usize = 128;

/// For the TLS handshake, and for the head of the request.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// From the first byte to the last.
const CONNECTION_TIME: Duration = Duration::from_secs(30);

/// The head of a request of a monitor is a few hundred bytes; hyper wants at least 8 KiB.
const MAX_REQUEST_HEAD: usize = 16 * 1024;

/// When files or memory run out, connections are accepted again after so long.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// For answers under way when the daemon stops.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Where to listen, and who may look.
#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub tls: Option<TlsFiles>,
    /// What a request has to bring; whoever asks only whether the daemon lives needs none.
    pub token: Option<Secret>,
}

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate first, then those that signed it.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Why there are no pages.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("listen on {address} for [http]: free the address, or set `listen` to another one")]
    Listen { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Protection(#[from] ProtectionError),
}

/// Listens, and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    protection: SharedProtection,
}

/// Puts another certificate or token in force while the server runs.
#[derive(Clone, Debug)]
pub struct Reloader(SharedProtection);

type SharedProtection = Arc<RwLock<Arc<Protection>>>;

/// What pages show: the latest that was gathered, as it stands by this clock.
#[derive(Clone, Debug)]
pub struct Source {
    pub gathered: watch::Receiver<Arc<Gathered>>,
    pub clock: fn() -> DateTime<Utc>,
}

impl Server {
    /// Reads the certificate, and listens: whatever is wrong is an error here, before anything is served.
    pub async fn bind(settings: &Settings) -> Result<Self, Error> {
        let protection = Protection::read(settings)?;
        let listen = |source| Error::Listen {
            address: settings.listen,
            source,
        };
        let listener = TcpListener::bind(settings.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self {
            listener,
            address,
            protection: Arc::new(RwLock::new(Arc::new(protection))),
        })
    }

    /// Where it listens: another port than in the settings where that was 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn reloader(&self) -> Reloader {
        Reloader(Arc::clone(&self.protection))
    }

    /// Answers until it is told to stop; then ends within a few seconds, with the answers that were under way.
    pub async fn serve(self, source: Source, stop: CancellationToken) {
        let router = pages::router(source, Arc::clone(&self.protection));
        let mut connections = JoinSet::new();
        loop {
            let has_place = connections.len() < MAX_CONNECTIONS;
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.listener.accept(), if has_place => match accepted {
                    Ok((stream, _)) => {
                        let tls = current(&self.protection).tls();
                        connections.spawn(connection(stream, tls, router.clone(), stop.clone()));
                    }
                    Err(error) => {
                        tracing::warn!("accept a connection on {}: {error}", self.address);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        let rest = async { while connections.join_next().await.is_some() {} };
        // What is not ready by then is cut off when the set is dropped.
        let _ = timeout(STOP_TIME, rest).await;
    }
}

impl Reloader {
    /// Reads certificate, key and token anew; the address stays. On an error all stays as it was.
    pub fn reload(&self, settings: &Settings) -> Result<(), ProtectionError> {
        let protection = Arc::new(Protection::read(settings)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = protection;
        Ok(())
    }
}

fn current(protection: &SharedProtection) -> Arc<Protection> {
    Arc::clone(&protection.read().unwrap_or_else(PoisonError::into_inner))
}

/// What goes wrong in a connection is the client's to see, and nobody else's business.
async fn connection(stream: TcpStream, tls: Option<TlsAcceptor>, router: Router, stop: CancellationToken) {
    let served = async {
        match tls {
            None => answer(stream, router, stop).await,
            Some(acceptor) => {
                if let Ok(Ok(stream)) = timeout(REQUEST_TIME, acceptor.accept(stream)).await {
                    answer(stream, router, stop).await;
                }
            }
        }
    };
    let _ = timeout(CONNECTION_TIME, served).await;
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, router: Router, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(MAX_REQUEST_HEAD);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
