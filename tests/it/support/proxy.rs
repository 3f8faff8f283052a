//! A proxy in front of a test server that breaks connections: after so many bytes, or when told to.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::cluster::{Cluster, PASSWORD, SUPERUSER};
use super::database::Database;
use super::directory::TestDir;

/// Listens on a TCP port and on a Unix socket; each connection goes on to the server in the same way.
pub(crate) struct Proxy {
    port: u16,
    directory: TestDir,
    shared: Arc<Shared>,
}

struct Shared {
    server_port: u16,
    server_socket: PathBuf,
    closed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    refuses: bool,
    /// Bytes from the server that may still pass before everything is cut; nothing means no limit.
    bytes_left: Option<usize>,
    bytes_passed: u64,
    /// Both ends of every connection that was ever opened.
    wires: Vec<Wire>,
}

impl Proxy {
    pub(crate) fn before(cluster: &Cluster) -> Self {
        let directory = TestDir::new("proxy");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = |directory: &std::path::Path, port| directory.join(format!(".s.PGSQL.{port}"));
        let own_socket = socket(directory.path(), port);
        let unix_listener = UnixListener::bind(&own_socket).unwrap();
        super::account::Account::unprivileged().own(&own_socket);
        let shared = Arc::new(Shared {
            server_port: cluster.port(),
            server_socket: socket(cluster.socket_directory(), cluster.port()),
            closed: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let (tcp, unix) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || tcp.serve(|| listener.accept().map(|(stream, _)| Wire::Tcp(stream))));
        thread::spawn(move || unix.serve(|| unix_listener.accept().map(|(stream, _)| Wire::Unix(stream))));
        Self {
            port,
            directory,
            shared,
        }
    }

    /// The database through this proxy, over TCP, as the superuser.
    pub(crate) fn url(&self, database: &Database) -> String {
        database.url_at(self.port, SUPERUSER, PASSWORD)
    }

    /// The database through this proxy, over its Unix socket.
    pub(crate) fn socket_url(&self, database: &Database) -> String {
        let directory = self.directory.path().display();
        format!(
            "postgresql://{SUPERUSER}@/{}?host={directory}&port={}",
            database.name(),
            self.port
        )
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every connection when so many more bytes have come from the server, over all connections; once.
    pub(crate) fn cut_after_bytes(&self, count: usize) {
        self.shared.state.lock().unwrap().bytes_left = Some(count);
    }

    /// Cuts every connection now. New ones are let through.
    pub(crate) fn cut(&self) {
        self.shared.state.lock().unwrap().cut();
    }

    /// Cuts every connection, and every new one as soon as it comes.
    pub(crate) fn go_away(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.refuses = true;
        state.cut();
    }

    pub(crate) fn come_back(&self) {
        self.shared.state.lock().unwrap().refuses = false;
    }

    /// What has come from the server so far.
    pub(crate) fn bytes_passed(&self) -> u64 {
        self.shared.state.lock().unwrap().bytes_passed
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.go_away();
        // Wakes the two that wait for a connection, so that they see the end.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        let _ = UnixStream::connect(self.directory.join(format!(".s.PGSQL.{}", self.port)));
    }
}

impl Shared {
    fn serve(self: Arc<Self>, accept: impl Fn() -> io::Result<Wire>) {
        while let Ok(client) = accept() {
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            // A server that is gone: the client sees its connection closed.
            let Ok(server) = self.connect_like(&client) else {
                continue;
            };
            let mut state = self.state.lock().unwrap();
            if state.refuses {
                continue;
            }
            state.wires.extend([client.duplicate(), server.duplicate()]);
            drop(state);
            let (to_server, to_client) = (Arc::clone(&self), Arc::clone(&self));
            let (client_reader, server_writer) = (client.duplicate(), server.duplicate());
            thread::spawn(move || to_server.copy(client_reader, server_writer, |_, count| count));
            thread::spawn(move || to_client.copy(server, client, State::let_through));
        }
    }

    fn connect_like(&self, client: &Wire) -> io::Result<Wire> {
        match client {
            Wire::Tcp(_) => TcpStream::connect((Ipv4Addr::LOCALHOST, self.server_port)).map(Wire::Tcp),
            Wire::Unix(_) => UnixStream::connect(&self.server_socket).map(Wire::Unix),
        }
    }

    /// Copies until one end closes; `allowed` says how many of the bytes that came may go on.
    fn copy(&self, mut from: Wire, mut to: Wire, allowed: impl Fn(&mut State, usize) -> usize) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let passing = allowed(&mut self.state.lock().unwrap(), count);
            if to.write_all(&buffer[..passing]).is_err() {
                break;
            }
            if passing < count {
                self.state.lock().unwrap().cut();
                break;
            }
        }
        from.close();
        to.close();
    }
}

impl State {
    fn let_through(&mut self, count: usize) -> usize {
        let passing = self.bytes_left.map_or(count, |left| left.min(count));
        self.bytes_left = if passing < count {
            None
        } else {
            self.bytes_left.map(|left| left - passing)
        };
        self.bytes_passed += passing as u64;
        passing
    }

    fn cut(&mut self) {
        self.wires.drain(..).for_each(|wire| wire.close());
    }
}

enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Wire {
    fn duplicate(&self) -> Self {
        match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone().unwrap()),
            Self::Unix(stream) => Self::Unix(stream.try_clone().unwrap()),
        }
    }

    fn close(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;

    fn psql(url: &str, sql: &str) -> Output {
        Command::new("psql").args(["-XAtc", sql, url]).output().unwrap()
    }

    #[test]
    fn proxy_passes_everything_until_it_is_told_to_cut() {
        let cluster = Cluster::start();
        let database = cluster.database("shop");
        let proxy = Proxy::before(&cluster);
        for url in [proxy.url(&database), proxy.socket_url(&database)] {
            assert_eq!(psql(&url, "select 6 * 7").stdout, b"42\n");
            proxy.cut_after_bytes(1 << 20);
            let output = psql(
                &url,
                "copy (select repeat('x', 1023) from generate_series(1, 10000)) to stdout",
            );
            assert!(!output.status.success());
            assert!(
                !output.stdout.is_empty() && output.stdout.len() < 2 << 20,
                "{}",
                output.stdout.len()
            );
            assert!(psql(&url, "select 1").status.success(), "cut more than once");
        }
        assert!(proxy.bytes_passed() > 2 << 20);
        proxy.go_away();
        assert!(!psql(&proxy.url(&database), "select 1").status.success());
        proxy.come_back();
        assert!(psql(&proxy.url(&database), "select 1").status.success());
    }
}
