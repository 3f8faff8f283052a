//! The daemon's HTTP server in this process, and a client that sends what it is told, byte by byte.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ernstfall::observe::gathered::Gathered;
use ernstfall::observe::http::{Reloader, Server, Settings, Source};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// No answer of ours takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that serves until it is dropped.
pub(crate) struct Pages {
    runtime: Runtime,
    address: SocketAddr,
    reloader: Reloader,
    gathered: watch::Sender<Arc<Gathered>>,
    stop: CancellationToken,
    served: Option<JoinHandle<()>>,
}

/// An answer, as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In lower case, `name: value`.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

pub(crate) fn moment() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

/// Plain, on any free port.
pub(crate) fn plain() -> Settings {
    Settings {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        tls: None,
        token: None,
    }
}

impl Pages {
    pub(crate) fn open(settings: &Settings, gathered: Gathered) -> Self {
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(Server::bind(settings)).unwrap();
        let (sender, receiver) = watch::channel(Arc::new(gathered));
        let source = Source {
            gathered: receiver,
            clock: moment,
        };
        let stop = CancellationToken::new();
        let (address, reloader) = (server.address(), server.reloader());
        let served = runtime.spawn(server.serve(source, stop.clone()));
        Self {
            runtime,
            address,
            reloader,
            gathered: sender,
            stop,
            served: Some(served),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn reloader(&self) -> &Reloader {
        &self.reloader
    }

    pub(crate) fn gather(&self, gathered: Gathered) {
        self.gathered.send_replace(Arc::new(gathered));
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"))
    }

    pub(crate) fn get_with(&self, path: &str, header: &str) -> Answer {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n"))
    }

    pub(crate) fn request(&self, text: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(text.as_bytes()).unwrap();
        Answer::read(&mut stream).unwrap()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Tells it to stop, and waits for its end.
    pub(crate) fn stop(&mut self) {
        self.stop.cancel();
        if let Some(served) = self.served.take() {
            self.runtime.block_on(served).unwrap();
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Answer {
    /// Reads to the end of the connection.
    pub(crate) fn read(stream: &mut impl Read) -> io::Result<Self> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let text = String::from_utf8(bytes).map_err(io::Error::other)?;
        let (head, body) = text
            .split_once("\r\n\r\n")
            .ok_or_else(|| io::Error::other(format!("no answer: {text:?}")))?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        Ok(Self {
            status: status.ok_or_else(|| io::Error::other("no status"))?,
            headers: lines.map(str::to_lowercase).collect(),
            body: body.to_owned(),
        })
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.headers.iter().find_map(|line| line.strip_prefix(&prefix))
    }
}
