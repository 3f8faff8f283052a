//! From the configuration to what the use cases need.

mod alerts;
mod heartbeat;
mod http;
mod monitoring;
mod settle;

use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::anyhow;
use chrono::Utc;
use tracing_subscriber::EnvFilter;

use crate::config::{self, Config, Environment, Isolation, RepositoryLocation, ScratchKind, SecretSource};
use crate::journal::Journal;
use crate::model::retention::Policy;
use crate::model::target_name::TargetName;
use crate::ops::context::{Context, Progress};
use crate::ops::keys::{Fetch, Keys};
use crate::ops::target::{OnBlockedDdl, SourceCount, Target};
use crate::postgres::conninfo::{self, ConnectionSettings};
use crate::repository::{Error as RepositoryError, Repository};
use crate::scratch::IsolationWanted;
use crate::store;
use crate::store::s3::{self, Bucket};

pub(super) use monitoring::{own_pages, receiver_at};

use super::arguments::Global;
use super::exit::Failure;
use super::signals::Signals;

/// Whoever is to stop waits so long for a repository that does not answer.
const LAST_DELIVERY: Duration = Duration::from_secs(5);

/// Logs go to stderr; `RUST_LOG` has the last word. `quietly` is the level where nobody asked for another.
pub(super) fn start_logging(global: &Global, quietly: &str) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (_, 0) => quietly,
        (_, 1) => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

fn read(global: &Global) -> Result<(Config, Environment), Failure> {
    let environment = Environment::of_this_process();
    let path = Config::find(global.config.as_deref(), &environment).map_err(Failure::usage)?;
    let config = Config::load(&path, &environment).map_err(Failure::usage)?;
    Ok((config, environment))
}

/// What `[encryption]` says; the identity's secret is not fetched yet.
fn keys(config: &Config, environment: &Environment) -> Keys {
    let Some(encryption) = &config.encryption else {
        return Keys::default();
    };
    let fetch = encryption.identity.clone().map(|source| {
        let environment = environment.clone();
        let fetch: Arc<Fetch> = Arc::new(move || {
            let secret = source.resolve(&environment);
            secret.map_err(|error| crate::ops::chain(&error))
        });
        fetch
    });
    Keys::new(encryption.recipients.clone(), fetch)
}

/// The configuration, and the surroundings it was read in.
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) environment: Environment,
    pub(super) signals: Signals,
    /// Of all targets, resolved when first wanted.
    connections: OnceLock<Vec<ConnectionSettings>>,
    /// Of `[encryption]`; one for all runs of this process, so that the identity is fetched once.
    pub(super) keys: Keys,
}

impl Setup {
    pub(super) fn load(global: &Global) -> Result<Self, Failure> {
        let (config, environment) = read(global)?;
        let signals = Signals::listen().map_err(Failure::operation)?;
        Ok(Self::of(config, environment, signals))
    }

    /// Reads the configuration again, for a process that goes on.
    pub(super) fn load_again(&self, global: &Global) -> Result<Self, Failure> {
        let (config, environment) = read(global)?;
        let needs_restart = |key: &str| {
            Failure::usage(anyhow!(
                "{}: `{key}` has changed, which needs a restart",
                config.file.display()
            ))
        };
        if config.state_dir != self.config.state_dir {
            return Err(needs_restart("state_dir"));
        }
        let listen = |config: &Config| config.http.as_ref().map(|http| http.listen);
        if listen(&config) != listen(&self.config) {
            return Err(needs_restart("http.listen"));
        }
        Ok(Self::of(config, environment, self.signals.clone()))
    }

    fn of(config: Config, environment: Environment, signals: Signals) -> Self {
        Self {
            keys: keys(&config, &environment),
            config,
            environment,
            signals,
            connections: OnceLock::new(),
        }
    }

    /// The targets named, or all. An unknown name is a usage error that says which there are.
    pub(super) fn targets(&self, names: &[TargetName]) -> Result<Vec<&config::Target>, Failure> {
        if names.is_empty() {
            return Ok(self.config.targets.iter().collect());
        }
        names
            .iter()
            .map(|name| {
                self.config.target(name.as_str()).ok_or_else(|| {
                    let known: Vec<&str> = self.config.targets.iter().map(|t| t.name.as_str()).collect();
                    let file = self.config.file.display();
                    Failure::usage(anyhow!(
                        "{file} has no target {name}: it has {}",
                        known.join(", ")
                    ))
                })
            })
            .collect()
    }

    /// Where backups live.
    pub(super) fn store(&self) -> Result<Arc<dyn store::Store>, Failure> {
        match &self.config.repository.location {
            RepositoryLocation::Directory(path) => {
                Ok(Arc::new(store::directory::Directory::new(path.clone())))
            }
            RepositoryLocation::S3 { bucket, prefix } => {
                Ok(Arc::new(Bucket::new(self.bucket(bucket, prefix)?)))
            }
        }
    }

    /// How to reach a bucket, with its secrets fetched.
    fn bucket(&self, bucket: &str, prefix: &str) -> Result<s3::Settings, Failure> {
        let settings = &self.config.repository.s3;
        Ok(s3::Settings {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: settings.endpoint.clone(),
            region: settings.region.clone(),
            path_style: settings.path_style,
            credentials: self.s3_credentials("repository", &settings.credentials)?,
            read_credentials: match &settings.read {
                Some(read) => self.s3_credentials("repository.read", read)?,
                None => None,
            },
            ca_file: settings.ca_file.clone(),
            storage_class: settings.storage_class.clone(),
            server_side_encryption: settings.server_side_encryption.clone(),
            kms_key_id: settings.kms_key_id.clone(),
            checksums: settings.checksums,
        })
    }

    fn s3_credentials(
        &self,
        place: &str,
        configured: &config::S3Credentials,
    ) -> Result<Option<s3::Credentials>, Failure> {
        let secret = |key: &str, source: &SecretSource| {
            let resolved = source.resolve(&self.environment);
            resolved.map_err(|error| {
                Failure::operation(anyhow::Error::new(error).context(format!("{place}.{key}")))
            })
        };
        let (Some(id), Some(key)) = (&configured.access_key_id, &configured.secret_access_key) else {
            return Ok(None);
        };
        let token = configured.session_token.as_ref();
        Ok(Some(s3::Credentials {
            access_key_id: secret("access_key_id", id)?,
            secret_access_key: secret("secret_access_key", key)?,
            session_token: token.map(|token| secret("session_token", token)).transpose()?,
        }))
    }

    /// The repository, made at first use.
    pub(super) async fn repository_or_new(&self) -> Result<Repository, Failure> {
        let (store, journal) = (self.store()?, self.journal()?);
        let location = store.describe();
        let known = journal.repository_at(&location).map_err(Failure::operation)?;
        let opened = match known {
            None => Repository::open_or_create(store, Utc::now()).await,
            Some(_) => Repository::open(store).await,
        };
        let repository = match (opened, known) {
            (Err(RepositoryError::NoRepository { .. }), Some(id)) => {
                let file = journal.place_file(&location);
                return Err(Failure::operation(gone(&id, &location, &file)));
            }
            (opened, _) => self.cached(opened)?,
        };
        journal.note_place(&repository).map_err(Failure::operation)?;
        Ok(repository)
    }

    /// The repository, which must be there.
    pub(super) async fn repository(&self) -> Result<Repository, Failure> {
        self.cached(Repository::open(self.store()?).await)
    }

    fn cached(&self, opened: Result<Repository, RepositoryError>) -> Result<Repository, Failure> {
        let repository = opened.map_err(Failure::operation)?;
        Ok(repository.cached_in(&self.config.state_dir.join("cache")))
    }

    pub(super) fn journal(&self) -> Result<Journal, Failure> {
        Journal::open(&self.config.state_dir).map_err(Failure::operation)
    }

    pub(super) fn context(
        &self,
        repository: Repository,
        journal: Journal,
        progress: Arc<dyn Progress>,
    ) -> Context {
        Context {
            repository: Arc::new(repository),
            keys: self.keys.clone(),
            journal: Arc::new(journal),
            bin_dir: self.config.bin_dir.clone(),
            progress,
            cancel: self.signals.cancel.clone(),
            deadline: None,
            state_dir: self.config.state_dir.clone(),
            clock: Utc::now,
        }
    }

    /// Records that were kept here while the repository was out of reach go there now. After a signal, what does not
    /// arrive soon is left to the next start.
    pub(super) async fn deliver(&self, context: &Context) {
        let too_late = async {
            self.signals.cancel.cancelled().await;
            tokio::time::sleep(LAST_DELIVERY).await;
        };
        let delivered = tokio::select! {
            delivered = context.journal.deliver(&context.repository) => delivered,
            () = too_late => return,
        };
        if let Err(error) = delivered {
            context.progress.note(&format!(
                "records are kept here and delivered later: {}",
                crate::ops::chain(&error)
            ));
        }
    }

    /// Resolves a connection string with this process's environment.
    pub(super) fn connection(&self, dsn: &str) -> Result<ConnectionSettings, Failure> {
        let settings = ConnectionSettings::resolve(dsn, &conninfo::Environment::of_process());
        let settings = settings.map_err(Failure::usage)?;
        for warning in settings.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(settings)
    }

    /// Databases that targets have on this server. A target whose secret cannot be had is left out: it is named when its
    /// own turn comes.
    fn neighbours(&self, connection: &ConnectionSettings) -> Vec<String> {
        let all = self.connections.get_or_init(|| {
            let connection = |target: &config::Target| {
                // A command may take its time, or hang, and it is another target's.
                if matches!(target.url, SecretSource::Command(_)) {
                    return None;
                }
                let dsn = target.url.resolve(&self.environment).ok()?;
                ConnectionSettings::resolve(dsn.expose(), &conninfo::Environment::of_process()).ok()
            };
            self.config.targets.iter().filter_map(connection).collect()
        });
        let same_server = all.iter().filter(|other| other.hosts() == connection.hosts());
        same_server.map(|other| other.database().to_owned()).collect()
    }

    /// A target of the configuration with its connection resolved, as the use cases want it.
    pub(super) fn target(&self, target: &config::Target) -> Result<Target, Failure> {
        let dsn = target.url.resolve(&self.environment).map_err(|error| {
            Failure::operation(anyhow::Error::new(error).context(format!("target {}", target.name)))
        })?;
        let connection = self.connection(dsn.expose())?;
        let connection = connection.with_connect_timeout_if_open(target.timeouts.connect.into());
        let overhead = &target.rto_overhead;
        let declared = [
            ("detect", overhead.detect),
            ("decide", overhead.decide),
            ("provision", overhead.provision),
            ("cut_over", overhead.cut_over),
        ];
        Ok(Target {
            name: target.name.clone(),
            environment: target.environment.clone(),
            owner: target.owner.clone(),
            connection: connection.clone(),
            heartbeat: self.heartbeat(target),
            rpo: target.objectives.rpo.map(Duration::from),
            rto: target.objectives.rto.map(Duration::from),
            rto_overhead: declared
                .into_iter()
                .filter_map(|(name, time)| Some((name.to_owned(), Duration::from(time?))))
                .collect(),
            jobs: target.jobs as usize,
            max_rate: self.config.limits.max_rate,
            split: target.split,
            exclude_data: target.exclude_data.clone(),
            exclude: target.exclude.clone(),
            may_shrink: target.may_shrink.clone(),
            retention: policy(target),
            lock_timeout: target.lock_timeout.into(),
            max_snapshot_age: target.max_snapshot_age.into(),
            on_blocked_ddl: match target.on_blocked_ddl {
                config::OnBlockedDdl::Continue => OnBlockedDdl::Continue,
                config::OnBlockedDdl::Abort => OnBlockedDdl::Abort,
            },
            source_count: match target.source_count {
                config::SourceCount::Always => SourceCount::Always,
                config::SourceCount::Daily => SourceCount::Daily,
                config::SourceCount::Never => SourceCount::Never,
            },
            checks: target.checks.clone(),
            isolation: match target.scratch.isolation {
                Isolation::Required => IsolationWanted::Required,
                Isolation::BestEffort => IsolationWanted::BestEffort,
                Isolation::None => IsolationWanted::None,
            },
            neighbours: self.neighbours(&connection),
            scratch_directory: target.scratch.directory.clone(),
            scratch_user: target.scratch.user.clone(),
            skip_extensions: target.scratch.skip_extensions.clone(),
            scratch_server: match &target.scratch.kind {
                ScratchKind::Embedded => None,
                ScratchKind::Server { url } => Some(self.scratch_server(url)),
            },
        })
    }

    /// How to reach a scratch server; the error is for people. Backups need no scratch, so it must not stop them.
    fn scratch_server(&self, url: &SecretSource) -> Result<ConnectionSettings, String> {
        let dsn = url
            .resolve(&self.environment)
            .map_err(|error| format!("scratch.url: {}", crate::ops::chain(&error)))?;
        self.connection(dsn.expose())
            .map_err(|failure| format!("scratch.url: {}", crate::ops::chain(failure.error.as_ref())))
    }
}

/// The target's retention as a rule; a count that is not given keeps none.
pub(super) fn policy(target: &config::Target) -> Option<Policy> {
    let retention = target.retention.as_ref()?;
    Some(Policy {
        last: retention.last.unwrap_or(0),
        daily: retention.daily.unwrap_or(0),
        weekly: retention.weekly.unwrap_or(0),
        monthly: retention.monthly.unwrap_or(0),
        yearly: retention.yearly.unwrap_or(0),
        time_zone: target.time_zone,
    })
}

/// A repository that was there has left its place: a new one would look like the old one, and hold nothing.
pub(super) fn gone(id: &str, location: &str, file: &Path) -> anyhow::Error {
    anyhow!(
        "the repository {id} was at {location}, and is there no longer: mount its disk or file system, or correct `repository.url`; if a new one shall begin there, remove {}",
        file.display()
    )
}
