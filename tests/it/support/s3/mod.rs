//! An S3 server in this process: objects in memory, signatures checked, and faults on demand.

mod backend;
mod connection;
mod tls;
pub(crate) use tls::front;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use hyper_util::rt::{TokioExecutor, TokioIo};
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use backend::{Backend, Gate, Users};
use connection::Droppable;

/// The bucket that there is.
pub(crate) const BUCKET: &str = "backups";
/// Where in it the product's objects are.
pub(crate) const PREFIX: &str = "team/a";

/// An access key and its secret; what it may do is in `backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) key: &'static str,
    pub(crate) secret: &'static str,
}

/// May do everything.
pub(crate) const ADMIN: User = User {
    key: "admin-key",
    secret: "hunter2-of-admin",
};
/// As docs/s3.md has it for backups: puts, lists, reads no backup, deletes nothing.
pub(crate) const WRITER: User = User {
    key: "writer-key",
    secret: "hunter2-of-writer",
};
/// As docs/s3.md has it for restores: gets and lists.
pub(crate) const READER: User = User {
    key: "reader-key",
    secret: "hunter2-of-reader",
};

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing is done, and this is the answer.
    Error {
        code: &'static str,
        status: u16,
        message: &'static str,
        /// Of a redirect: where the bucket is.
        region: Option<&'static str>,
    },
    /// The connection is closed in the middle of the body that is read.
    CutBody,
    /// It is done, and the connection is closed instead of an answer.
    LoseAnswer,
    /// Nothing is done, and no answer ever comes.
    NoAnswer,
}

impl Fault {
    pub(crate) fn error(status: u16, code: &'static str) -> Self {
        Self::Error {
            code,
            status,
            message: "made to fail",
            region: None,
        }
    }
}

/// What the server makes of `If-None-Match: *` on a put.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Conditions {
    #[default]
    Honoured,
    /// 501, as by servers that do not know it.
    Refused,
    /// What exists is replaced.
    Ignored,
}

/// An object as it was put.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) id: String,
    /// None: a mark that it was deleted.
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) modified: SystemTime,
    pub(crate) checksum_sha256: Option<String>,
    pub(crate) storage_class: Option<String>,
    pub(crate) encryption: Option<String>,
    pub(crate) kms_key_id: Option<String>,
}

#[derive(Default)]
pub(crate) struct State {
    /// Newest last.
    objects: BTreeMap<String, Vec<Version>>,
    versioned: bool,
    /// Versions may not be removed.
    locked: bool,
    conditions: Conditions,
    faults: Vec<Planned>,
    requests: BTreeMap<String, u64>,
    next_version: u64,
}

struct Planned {
    operation: &'static str,
    part_of_key: &'static str,
    times: u32,
    fault: Fault,
}

/// A running server; ends on drop.
pub(crate) struct S3Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3Server {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = mpsc::channel();
        let service = service(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                tokio::select! {
                    () = serve(listener, service) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address: told.recv().unwrap(),
            state,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same server behind TLS, with the certificate in this directory.
    pub(crate) fn tls_endpoint(&self, certificates: &Path) -> String {
        tls::front(self.address, certificates)
    }

    /// The lines of `[repository]` for a user who may do everything.
    pub(crate) fn repository_lines(&self) -> String {
        self.lines_of(ADMIN)
    }

    pub(crate) fn lines_of(&self, user: User) -> String {
        format!(
            "url = \"s3://{BUCKET}/{PREFIX}\"\nendpoint = {:?}\nregion = \"us-east-1\"\npath_style = true\n{}",
            self.endpoint(),
            credentials(user, "\n")
        )
    }

    /// Writes with one user, and reads with another.
    pub(crate) fn lines_of_two(&self, writer: User, reader: User) -> String {
        let read = credentials(reader, ", ");
        format!("{}\nread = {{ {read} }}", self.lines_of(writer))
    }

    /// The bucket keeps old versions from now on.
    pub(crate) fn keep_versions(&self) {
        self.state().versioned = true;
    }

    /// No version may be removed from now on, as with Object Lock.
    pub(crate) fn lock_versions(&self) {
        self.state().locked = true;
    }

    /// Everything was stored by this much earlier than it was.
    pub(crate) fn age(&self, by: Duration) {
        let mut state = self.state();
        for version in state.objects.values_mut().flatten() {
            version.modified -= by;
        }
    }

    pub(crate) fn set_conditions(&self, conditions: Conditions) {
        self.state().conditions = conditions;
    }

    /// The next so many requests of this operation, on keys with this in them, go wrong.
    pub(crate) fn fail(&self, operation: &'static str, part_of_key: &'static str, times: u32, fault: Fault) {
        self.state().faults.push(Planned {
            operation,
            part_of_key,
            times,
            fault,
        });
    }

    pub(crate) fn mend(&self) {
        self.state().faults.clear();
    }

    /// How many faults have not happened yet.
    pub(crate) fn faults_left(&self) -> u32 {
        self.state().faults.iter().map(|planned| planned.times).sum()
    }

    /// How many requests of this operation came, also those that went wrong.
    pub(crate) fn requests(&self, operation: &str) -> u64 {
        self.state().requests.get(operation).copied().unwrap_or(0)
    }

    /// Keys of the objects that are there, without the prefix.
    pub(crate) fn keys(&self) -> Vec<String> {
        let state = self.state();
        let there = state
            .objects
            .iter()
            .filter(|(_, versions)| newest(versions).is_some());
        let relative = |key: &String| key.strip_prefix(&format!("{PREFIX}/")).map(str::to_owned);
        there.filter_map(|(key, _)| relative(key)).collect()
    }

    pub(crate) fn object(&self, key: &str) -> Version {
        let state = self.state();
        let versions = state.objects.get(&format!("{PREFIX}/{key}"));
        versions.and_then(|versions| newest(versions)).expect(key).clone()
    }

    /// Versions that are kept, of all objects; marks do not count.
    pub(crate) fn versions(&self) -> usize {
        let state = self.state();
        let all = state.objects.values().flatten();
        all.filter(|version| version.bytes.is_some()).count()
    }

    /// Puts an object behind the product's back.
    pub(crate) fn put(&self, key: &str, bytes: Vec<u8>) {
        let version = Version {
            id: "null".to_owned(),
            bytes: Some(bytes),
            modified: SystemTime::now(),
            checksum_sha256: None,
            storage_class: None,
            encryption: None,
            kms_key_id: None,
        };
        self.state()
            .objects
            .insert(format!("{PREFIX}/{key}"), vec![version]);
    }

    /// Changes an object behind the product's back.
    pub(crate) fn overwrite(&self, key: &str, bytes: &[u8]) {
        let mut state = self.state();
        let versions = state.objects.get_mut(&format!("{PREFIX}/{key}")).expect(key);
        versions.last_mut().unwrap().bytes = Some(bytes.to_vec());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn newest(versions: &[Version]) -> Option<&Version> {
    versions.last().filter(|version| version.bytes.is_some())
}

fn credentials(user: User, between: &str) -> String {
    format!(
        "access_key_id = {:?}{between}secret_access_key = {:?}",
        user.key, user.secret
    )
}

fn service(state: &Arc<Mutex<State>>) -> S3Service {
    let mut builder = S3ServiceBuilder::new(Backend(state.clone()));
    builder.set_auth(Users);
    builder.set_access(Gate(state.clone()));
    builder.build()
}

async fn serve(listener: TcpListener, service: S3Service) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let service = service.clone();
        tokio::spawn(async move {
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let stream = TokioIo::new(Droppable(stream));
            // A client that goes away is no fault of the server's.
            let _ = builder.serve_connection(stream, service).await;
        });
    }
}
