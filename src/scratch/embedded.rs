//! The embedded scratch: a private PostgreSQL cluster for one restore test, in the sandbox.
//!
//! Never started, stopped or asked by pg_ctl: in a process namespace its notion of process numbers is wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_postgres::Config;
use tokio_util::sync::CancellationToken;

use super::error::{ScratchError, remedy};
use super::identity::{check_superuser, find_identity};
use super::launch::Sandboxed;
use super::place::Place;
use super::probe::{Canaries, IsolationReport};
use super::sandbox::spec::{Answer, Identity, IsolationWanted, layer};
use super::server_log::{self, LogEntry};
use super::settings::{EmbeddedSettings, Phase};
use super::sweep::remove_directory;

/// A clean stop writes all buffers out, at most 1 GB.
const STOP_DEADLINE: Duration = Duration::from_secs(300);

/// Writing everything to the disk: as long as the disk needs, but a dead one must not hold the test for ever.
const SYNC_DEADLINE: Duration = Duration::from_secs(4 * 3600);

/// A scratch that is thrown away need not write anything out.
const REMOVE_DEADLINE: Duration = Duration::from_secs(5);

/// A running scratch server. Dropping it kills the server and removes the directory, as well as that goes.
pub struct Embedded {
    pub(super) place: Option<Place>,
    pub(super) server: Option<Sandboxed>,
    pub(super) settings: EmbeddedSettings,
    pub(super) identity: Option<Identity>,
    pub(super) isolation: IsolationReport,
    pub(super) server_version: String,
}

/// A stopped scratch that was left on disk on request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub path: PathBuf,
    /// Starts it again, without a sandbox.
    pub command: String,
}

impl Embedded {
    /// Makes a cluster, starts it and proves by the probe how far it is shut off. When cut or failing, nothing
    /// is left behind.
    pub async fn provision(
        settings: EmbeddedSettings,
        cancel: &CancellationToken,
    ) -> Result<Self, ScratchError> {
        check_superuser(&settings.superuser)?;
        let identity = find_identity(settings.user.as_deref())?;
        let place = Place::claim(&settings.base, &settings.run, identity.as_ref())?;
        let mut embedded = Self {
            place: Some(place),
            server: None,
            settings,
            identity,
            isolation: IsolationReport::default(),
            server_version: String::new(),
        };
        let answer = embedded.initialise(cancel).await?;
        embedded.require_layers(&answer)?;
        embedded
            .start(Phase::Fast, answer.private_shared_memory, cancel)
            .await?;
        embedded.probe(cancel).await?;
        Ok(embedded)
    }

    /// Stops, writes everything to the disk, and starts with production settings: the copy survives a power
    /// cut from here on, and has proven that it starts. When cut, the scratch is of no more use.
    pub async fn restart_durable(&mut self, cancel: &CancellationToken) -> Result<(), ScratchError> {
        self.stop(STOP_DEADLINE, cancel).await?;
        let arguments = ["--sync-only", "-D"].map(str::to_owned).to_vec();
        let answer = self.run_initdb(arguments, SYNC_DEADLINE, cancel).await?;
        self.start(Phase::Durable, answer.private_shared_memory, cancel)
            .await
    }

    /// Stops the server, by force if need be, and removes the directory.
    pub async fn remove(mut self) -> Result<(), ScratchError> {
        self.end_for_removal().await;
        let Some(place) = self.place.take() else {
            return Ok(());
        };
        let directory = place.directory.clone();
        // Many files: not on a thread that others wait for. The lock is held until they are gone.
        let removal = tokio::task::spawn_blocking(move || remove_directory(&place.directory));
        let removed = removal
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)));
        removed.map_err(ScratchError::directory(
            "remove the scratch directory",
            &directory,
        ))
    }

    /// Stops the server in order and leaves its directory, which no sweep removes from then on.
    pub async fn keep(mut self) -> Result<Kept, ScratchError> {
        self.stop(STOP_DEADLINE, &CancellationToken::new()).await?;
        let command = self.start_command();
        let place = self.place_mut();
        place.owner.kept = true;
        place.owner.server = None;
        place.write_owner()?;
        let path = place.directory.clone();
        for leftover in [place.canary(), place.new_root(), path.join("lock")] {
            let removed = if leftover.is_dir() {
                std::fs::remove_dir_all(&leftover)
            } else {
                std::fs::remove_file(&leftover)
            };
            removed.map_err(ScratchError::directory("remove", &leftover))?;
        }
        // Without the place there is nothing for `Drop` to remove.
        self.place = None;
        Ok(Kept { path, command })
    }

    /// For `host=` in connection strings.
    pub fn socket_directory(&self) -> PathBuf {
        self.place().run()
    }

    pub fn port(&self) -> u16 {
        5432
    }

    pub fn superuser(&self) -> &str {
        &self.settings.superuser
    }

    /// As the server says it, for example `15.18 (Debian 15.18-0+deb12u1)`.
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    pub fn isolation(&self) -> &IsolationReport {
        &self.isolation
    }

    /// Where everything of this scratch lies on disk: for its size and its free space.
    pub fn disk_path(&self) -> &Path {
        &self.place().directory
    }

    pub fn log_directory(&self) -> PathBuf {
        self.place().logs()
    }

    /// What the server logged so far, warnings and above.
    pub fn read_csv_log(&self) -> std::io::Result<Vec<LogEntry>> {
        server_log::read(&self.place().run())
    }

    /// The exit status, once the server has ended.
    pub fn exited(&mut self) -> Option<i32> {
        self.server.as_mut().and_then(Sandboxed::exited)
    }

    /// How to connect to a database of this server.
    pub fn connection(&self, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host_path(self.socket_directory())
            .port(self.port())
            .user(self.superuser())
            .dbname(database)
            .application_name("ernstfall")
            .connect_timeout(Duration::from_secs(10));
        config
    }

    pub(super) fn place(&self) -> &Place {
        self.place
            .as_ref()
            .expect("only `remove` and `keep` take the place away, and they take self")
    }

    pub(super) fn place_mut(&mut self) -> &mut Place {
        self.place
            .as_mut()
            .expect("only `remove` and `keep` take the place away, and they take self")
    }

    async fn probe(&mut self, cancel: &CancellationToken) -> Result<(), ScratchError> {
        let Some(server) = &self.server else { return Ok(()) };
        let place = self.place();
        let own_binary = self.settings.own_binary.as_deref();
        let canaries = Canaries::make(&place.canary(), self.identity.as_ref(), own_binary).map_err(
            ScratchError::directory("prepare the isolation probe in", &place.canary()),
        )?;
        let client = self
            .connect()
            .await
            .map_err(|source| self.query_failed("connect for the probe", source))?;
        let results = tokio::select! {
            results = canaries.probe(&client, &server.answer.probe) => results,
            () = cancel.cancelled() => return Err(ScratchError::Cancelled),
        };
        self.isolation.isolated = results.iter().all(|result| !result.open);
        self.isolation.probe = results;
        if self.settings.isolation == IsolationWanted::Required && !self.isolation.isolated {
            let missing: Vec<&str> = self
                .isolation
                .missing
                .iter()
                .map(|one| one.layer.as_str())
                .collect();
            return Err(ScratchError::Open {
                open: self.isolation.open().join(", "),
                remedy: remedy(&missing),
            });
        }
        Ok(())
    }

    /// Landlock and seccomp need no privilege: where they are missing, something is wrong. Whether the
    /// others are needed is for the probe to say.
    fn require_layers(&self, answer: &Answer) -> Result<(), ScratchError> {
        let missing = answer
            .missing
            .iter()
            .find(|one| [layer::LANDLOCK, layer::SECCOMP].contains(&one.layer.as_str()));
        match missing {
            Some(one) if self.settings.isolation == IsolationWanted::Required => {
                Err(ScratchError::MissingLayer {
                    layer: one.layer.clone(),
                    why: one.why.clone(),
                    remedy: remedy(&[&one.layer]),
                })
            }
            _ => Ok(()),
        }
    }

    async fn end_for_removal(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        for signal in [Signal::SIGINT, Signal::SIGQUIT] {
            server.signal(signal);
            if server.wait(REMOVE_DEADLINE).await.is_some() {
                return;
            }
        }
        // Dropped here, which kills it.
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Kills what is inside and waits for it.
        drop(self.server.take());
        if let Some(place) = self.place.take() {
            // What cannot be removed now is found by the next sweep.
            remove_directory(&place.directory).ok();
        }
    }
}
