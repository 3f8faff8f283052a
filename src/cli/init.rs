//! `ernstfall init`: a configuration that works and a key to encrypt backups, never over what exists, and never with a
//! password in it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use chrono::{SecondsFormat, Utc};
use serde::Serialize;

use crate::config::{Config, Environment, InitAnswers, InitKey, SecretSource, template};
use crate::encryption;
use crate::model::secret::Secret;
use crate::model::target_name::TargetName;
use crate::postgres::conninfo::{self, ConnectionSettings, Endpoint};
use crate::postgres::{Session, pooler};

use super::arguments::{Global, Init};
use super::exit::{Exit, Failure};
use super::print;

/// A connection string that was found in no other place than the environment keeps these parts of it.
const KEPT_VARIABLES: [(&str, &str); 3] = [
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("channel_binding", "PGCHANNELBINDING"),
];

/// What was written, and what was found out.
#[derive(Serialize)]
struct Written {
    file: PathBuf,
    /// `null` where backups are stored in the clear.
    key: Option<WrittenKey>,
    target: TargetName,
    /// `null` where nothing says which database it is.
    connected: Option<bool>,
    notes: Vec<String>,
    next: Vec<String>,
}

/// The key that was made.
#[derive(Serialize)]
struct WrittenKey {
    /// Holds the secret.
    file: PathBuf,
    public_key: String,
}

/// What the key is called, beside the configuration.
const KEY_FILE: &str = "age.key";

/// Where the database is, as far as that is known.
struct Source {
    url: SecretSource,
    database: Option<String>,
    connected: Option<bool>,
    notes: Vec<String>,
}

pub(super) async fn run(global: &Global, options: &Init) -> Result<Exit, Failure> {
    let environment = Environment::of_this_process();
    let file = [&options.file, &options.output, &global.config]
        .into_iter()
        .find_map(Option::as_ref);
    let file = file.map_or(Path::new("ernstfall.toml"), PathBuf::as_path);
    let file = environment.current_directory.join(file);
    let key_file = file.with_file_name(KEY_FILE);
    if file.symlink_metadata().is_ok() {
        return Err(refuse_to_overwrite(&file));
    }
    if !options.no_encryption && key_file.symlink_metadata().is_ok() {
        return Err(refuse_to_overwrite_key(&key_file));
    }
    let mut source = find_source(options, &environment).await?;
    // Of a database that nobody named and that does not answer, the name is only a guess.
    let is_meant = options.url.is_some() || source.connected == Some(true);
    let database = source.database.as_deref().filter(|_| is_meant);
    let named = database.and_then(|name| name.parse().ok());
    let target = match options.target.clone().or(named) {
        Some(target) => target,
        None => "main".parse().map_err(Failure::operation)?,
    };
    if options.url.is_none() && options.url_env.is_none() && source.connected != Some(true) {
        source = placeholder(&target, source.notes);
    }
    let made = (!options.no_encryption)
        .then(|| encryption::generate_key_file(&Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true)));
    let public = made.as_ref().map(|(_, public)| public.clone());
    let text = text(options, &environment, &target, source.url, public.as_deref())?;
    // What is written works: it is read before it is kept.
    Config::parse(&text, &file, &environment).map_err(Failure::usage)?;
    let key = made.map(|(secret, public_key)| WrittenKey::write(&key_file, &secret, public_key));
    let key = key.transpose()?;
    if let Err(failure) = write(&file, &text, refuse_to_overwrite) {
        if key.is_some() {
            // Nothing was encrypted to it, and nothing names it.
            let _ = std::fs::remove_file(&key_file);
        }
        return Err(failure);
    }
    let next = |command: &str| format!("ernstfall --config {} {command}", file.display());
    let next = ["check", "backup", "restore-test", "run"].map(next).to_vec();
    show(
        global,
        &Written {
            file,
            key,
            target,
            connected: source.connected,
            notes: source.notes,
            next,
        },
    )
}

fn refuse_to_overwrite(file: &Path) -> Failure {
    Failure::usage(anyhow!(
        "{} exists already, and is not overwritten: name another file (`ernstfall init FILE`), or move that one away",
        file.display()
    ))
}

fn refuse_to_overwrite_key(file: &Path) -> Failure {
    Failure::usage(anyhow!(
        "{} exists already, and is not overwritten, since backups may be encrypted to it: write the configuration into another directory, or with --no-encryption, and add [encryption] with that key yourself",
        file.display()
    ))
}

impl WrittenKey {
    fn write(file: &Path, secret: &Secret, public_key: String) -> Result<Self, Failure> {
        write(file, secret.expose(), refuse_to_overwrite_key)?;
        Ok(Self {
            file: file.to_owned(),
            public_key,
        })
    }
}

async fn find_source(options: &Init, environment: &Environment) -> Result<Source, Failure> {
    let surroundings = conninfo::Environment::of_process();
    if let Some(name) = &options.url_env {
        let url = SecretSource::Env(name.clone());
        let Some(dsn) = environment.variable(name) else {
            let note = format!(
                "{name} is not set here, so the connection was not tried: set it for `ernstfall check`"
            );
            return Ok(Source {
                url,
                database: None,
                connected: None,
                notes: vec![note],
            });
        };
        let settings = ConnectionSettings::resolve(dsn, &surroundings).map_err(Failure::usage)?;
        return Ok(tried(url, &settings).await);
    }
    let dsn = options.url.as_deref().unwrap_or_default();
    let settings = ConnectionSettings::resolve(dsn, &surroundings);
    if options.url.is_some() {
        let settings = settings.map_err(Failure::usage)?;
        refuse_password(&settings)?;
        return Ok(tried(SecretSource::Text(Secret::new(dsn)), &settings).await);
    }
    match settings {
        Ok(settings) => {
            let url = SecretSource::Text(Secret::new(spelled_out(&settings, environment)));
            let mut source = tried(url, &settings).await;
            if environment.variable("PGPASSWORD").is_some() {
                source.notes.push(
                    "PGPASSWORD is not written down: set it wherever ernstfall runs, or put the password into ~/.pgpass (mode 0600)"
                        .to_owned(),
                );
            }
            Ok(source)
        }
        Err(error) => Ok(Source {
            url: SecretSource::Env(String::new()),
            database: None,
            connected: None,
            notes: vec![format!("the PG* variables name no database: {error}")],
        }),
    }
}

fn refuse_password(settings: &ConnectionSettings) -> Result<(), Failure> {
    if !settings.password_from_text() {
        return Ok(());
    }
    Err(Failure::usage(anyhow!(
        "--url holds a password, which would stand in the configuration for all to read: leave it out and put it into ~/.pgpass (mode 0600), or put the whole URL into an environment variable and name that: --url-env SHOP_DATABASE_URL, which writes url = {{ env = \"SHOP_DATABASE_URL\" }}"
    )))
}

/// Tries the connection; that it fails is said, and stops nothing.
async fn tried(url: SecretSource, settings: &ConnectionSettings) -> Source {
    let attempt = async {
        pooler::refuse_transaction_pooler(settings).await?;
        let session = Session::connect(settings, "init", None).await?;
        let note = format!(
            "connected: {}, PostgreSQL {}",
            session.description(),
            session.server_version()
        );
        session.close().await;
        Ok::<String, crate::postgres::Error>(note)
    };
    let (connected, note) = match attempt.await {
        Ok(note) => (true, note),
        Err(error) => (false, format!("not connected: {error}")),
    };
    Source {
        url,
        database: Some(settings.database().to_owned()),
        connected: Some(connected),
        notes: vec![note],
    }
}

/// What the environment says, as a connection string that does not need it.
fn spelled_out(settings: &ConnectionSettings, environment: &Environment) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let host = |endpoint: &Endpoint| match endpoint {
        Endpoint::Socket(directory) => directory.display().to_string(),
        Endpoint::Tcp { name, .. } => name.clone(),
    };
    let hosts: Vec<String> = settings.hosts().iter().map(|one| host(&one.endpoint)).collect();
    let ports: Vec<String> = settings.hosts().iter().map(|one| one.port.to_string()).collect();
    let mut text = format!(
        "host={} port={} user={} dbname={}",
        quoted(&hosts.join(",")),
        ports.join(","),
        quoted(settings.user()),
        quoted(settings.database())
    );
    for (keyword, variable) in KEPT_VARIABLES {
        if let Some(value) = environment.variable(variable) {
            text.push_str(&format!(" {keyword}={}", quoted(value)));
        }
    }
    text
}

fn placeholder(target: &TargetName, mut notes: Vec<String>) -> Source {
    let name = format!(
        "{}_DATABASE_URL",
        target.as_str().replace('-', "_").to_ascii_uppercase()
    );
    notes.push(format!(
        "no database was named: the url is taken from {name}; set that to a connection string, or correct the file"
    ));
    Source {
        url: SecretSource::Env(name),
        database: None,
        connected: None,
        notes,
    }
}

fn text(
    options: &Init,
    environment: &Environment,
    target: &TargetName,
    url: SecretSource,
    public_key: Option<&str>,
) -> Result<String, Failure> {
    let current = &environment.current_directory;
    let state_dir = options.state_dir.as_ref().map(|path| current.join(path));
    let repository = match &options.repository {
        Some(url) if url.contains("://") => url.clone(),
        Some(path) => current.join(path).display().to_string(),
        None => {
            let state = state_dir
                .clone()
                .unwrap_or_else(|| environment.default_state_dir());
            format!("file://{}", state.join("repository").display())
        }
    };
    Ok(template(&InitAnswers {
        target: target.clone(),
        url,
        repository,
        state_dir,
        bin_dir: None,
        encryption: public_key.map(|public| InitKey {
            public: public.to_owned(),
            file: PathBuf::from(KEY_FILE),
        }),
    }))
}

/// Writes a new file that only this user can read.
fn write(file: &Path, text: &str, refuse: impl FnOnce(&Path) -> Failure) -> Result<(), Failure> {
    let written = || {
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let mut open = OpenOptions::new();
        let mut file = open.write(true).create_new(true).mode(0o600).open(file)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    written().map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => refuse(file),
        _ => Failure::operation(anyhow::Error::new(error).context(format!(
            "write {}: name a file in a directory that this user may write to",
            file.display()
        ))),
    })
}

fn show(global: &Global, written: &Written) -> Result<Exit, Failure> {
    if global.json {
        print::json(written).map_err(Failure::operation)?;
        return Ok(Exit::Done);
    }
    print::text(&format!(
        "wrote {} with the target {}",
        written.file.display(),
        written.target
    ));
    if let Some(key) = &written.key {
        let file = key.file.display();
        print::text(&format!("wrote {file}, the secret key of {}", key.public_key));
        print::text("  backups are encrypted to it: without this key nobody can restore a backup");
        print::text("  keep a copy of it away from this machine, from the database and from the repository");
    }
    for note in &written.notes {
        print::text(&format!("  {note}"));
    }
    print::text("next:");
    for command in &written.next {
        print::text(&format!("  {command}"));
    }
    Ok(Exit::Done)
}
