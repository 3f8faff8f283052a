//! The configuration file, checked as a whole: every fault is reported at once, with its place.
//!
//! Loading reads one file and nothing else: no secret, no connection. Whether the settings are wise, and whether what
//! they name exists, is for `check` to say.

mod alert;
mod document;
mod environment;
mod fault;
mod secret_source;
mod service;
mod storage;
mod target;
mod template;
#[cfg(test)]
mod tests;

pub use alert::{Alert, Channel, ChannelKind, Endpoint, MailEncryption, MailServer};
pub use environment::Environment;
pub use fault::Fault;
pub use secret_source::{SecretError, SecretSource};
pub use service::{Http, Limits, Tls};
pub use storage::{
    Encryption, Isolation, ObjectLock, ObjectLockMode, Repository, RepositoryLocation, S3Credentials,
    S3Settings, Scratch, ScratchKind,
};
pub use target::{Heartbeat, OnBlockedDdl, Retention, SourceCount, Target, Timeouts};
pub use template::{InitAnswers, InitKey, template};

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use document::Table;

/// Keys that are read and checked, and that this version does nothing with. Paths without names of targets.
const NOT_YET_ACTED_UPON: [&str; 1] = ["repository.object_lock"];

/// Everything the file says, with defaults filled in and paths made absolute.
#[derive(Debug, Clone)]
pub struct Config {
    pub file: PathBuf,
    pub state_dir: PathBuf,
    /// Where the PostgreSQL programs are; `None`: they are searched for.
    pub bin_dir: Option<PathBuf>,
    pub repository: Repository,
    pub encryption: Option<Encryption>,
    pub http: Option<Http>,
    pub limits: Limits,
    pub scratch: Scratch,
    pub targets: Vec<Target>,
    pub alert: Alert,
    present_keys: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "there is no configuration at {0}: run `ernstfall init` to write one, or name another with --config"
    )]
    Missing(PathBuf),
    #[error("found no configuration (looked for {}): run `ernstfall init` to write one, or name one with --config", listed(.0))]
    NoneFound(Vec<PathBuf>),
    #[error(
        "cannot read the configuration {file}: check that it is a text file and that this user may read it"
    )]
    Unreadable { file: PathBuf, source: io::Error },
    #[error("{}", Faults { file, faults })]
    Faults { file: PathBuf, faults: Vec<Fault> },
}

impl Config {
    /// The configuration that is used: the one named, else the first that is found.
    pub fn find(named: Option<&Path>, environment: &Environment) -> Result<PathBuf, ConfigError> {
        if let Some(path) = named {
            return Ok(environment.current_directory.join(path));
        }
        // A variable that names a file is meant: if that is gone, nothing else is taken in its stead.
        if let Some(path) = environment.variable("ERNSTFALL_CONFIG") {
            return Ok(environment.current_directory.join(path));
        }
        let candidates = environment.config_candidates();
        candidates
            .iter()
            .find(|path| path.exists())
            .cloned()
            .ok_or(ConfigError::NoneFound(candidates))
    }

    pub fn load(path: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let file = environment.current_directory.join(path);
        let text = std::fs::read_to_string(&file).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ConfigError::Missing(file.clone()),
            _ => ConfigError::Unreadable {
                file: file.clone(),
                source,
            },
        })?;
        Self::parse(&text, &file, environment)
    }

    /// Reads a text as if it stood in the file.
    pub fn parse(text: &str, file: &Path, environment: &Environment) -> Result<Self, ConfigError> {
        let read = document::read(text, |root| Self::read(root, file, environment));
        let (mut config, present_keys) = read.map_err(|faults| ConfigError::Faults {
            file: file.to_owned(),
            faults,
        })?;
        config.present_keys = present_keys;
        Ok(config)
    }

    fn read(root: &Table<'_>, file: &Path, environment: &Environment) -> Option<Self> {
        let base = file.parent().unwrap_or(Path::new(""));
        let state_dir = root.path("state_dir").map(|path| base.join(path));
        let state_dir = state_dir.unwrap_or_else(|| environment.default_state_dir());
        let bin_dir = root.path("bin_dir").map(|path| base.join(path));
        let repository = root
            .table("repository")
            .map(|table| Repository::read(&table, base));
        if !root.has("repository") {
            root.missing(
                "repository",
                "add [repository] with the url where backups shall live",
            );
        }
        let default_scratch = Scratch::default_in(&state_dir);
        let scratch = match root.table("scratch") {
            Some(table) => Scratch::read(&table, &default_scratch, base),
            None => default_scratch,
        };
        let encryption = root
            .table("encryption")
            .map(|table| Encryption::read(&table, base));
        let http = root.table("http").map(|table| Http::read(&table, base));
        let limits = root
            .table("limits")
            .map(|table| Limits::read(&table))
            .unwrap_or_default();
        let targets = target::read_targets(root, &scratch, base);
        let alert = root
            .table("alert")
            .map(|table| Alert::read(&table, base))
            .unwrap_or_default();
        root.finish();
        Some(Self {
            file: file.to_owned(),
            state_dir,
            bin_dir,
            repository: repository??,
            encryption,
            http,
            limits,
            scratch,
            targets,
            alert,
            present_keys: Vec::new(),
        })
    }

    pub fn target(&self, name: &str) -> Option<&Target> {
        self.targets.iter().find(|target| target.name.as_str() == name)
    }

    /// What the file sets and this version does not act upon yet, by path, so that `check` can say so.
    pub fn not_yet_acted_upon(&self) -> Vec<String> {
        let mut found: BTreeSet<String> = BTreeSet::new();
        for path in &self.present_keys {
            let name = without_names(path);
            if NOT_YET_ACTED_UPON.contains(&name.as_str()) {
                found.insert(path.clone());
            }
        }
        found.into_iter().collect()
    }
}

/// `target[shop].rpo` as `target.rpo`.
fn without_names(path: &str) -> String {
    let mut depth = 0_usize;
    let outside = |character: &char| {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            _ => return depth == 0,
        }
        false
    };
    path.chars().filter(outside).collect()
}

fn listed(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

struct Faults<'a> {
    file: &'a Path,
    faults: &'a [Fault],
}

impl fmt::Display for Faults<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(
            formatter,
            "{} has {count} fault{plural}; correct the file and try again",
            self.file.display()
        )?;
        for fault in self.faults {
            write!(formatter, "\n\n{fault}")?;
        }
        Ok(())
    }
}
