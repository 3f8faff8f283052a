//! Connection settings, resolved as libpq does: connection string, then service file, then environment, then defaults.
//!
//! Why not the driver's own parser: it knows no `verify-full`, no `.pgpass`, no service file and no `PG*` variable,
//! and what works with `psql` must work here. Never: a password in an error, in `Debug` or in a description.

mod environment;
mod hosts;
mod keyword;
mod keyword_form;
mod options;
pub(super) mod passfile;
mod service;
mod uri;

pub use environment::Environment;
pub use hosts::{Endpoint, Host};
pub use options::{Keepalive, RootCertificates, SslMode, TargetSession, TlsSettings};

use crate::model::secret::Secret;
use keyword::{KEYWORDS, Parameters};
use passfile::Passfile;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio_postgres::config::ChannelBinding;

/// Why a connection string cannot be used.
#[derive(Debug, Error)]
pub enum ConninfoError {
    #[error("connection parameter `{key}` is not supported; remove it or check its spelling")]
    UnknownKey { key: String },
    #[error("{fault}; see \"Connection Strings\" in PostgreSQL's libpq documentation")]
    Malformed { fault: String },
    #[error("connection parameter `{key}` is `{value}`; use {allowed}")]
    Value {
        key: &'static str,
        value: String,
        allowed: &'static str,
    },
    #[error("{fault}; give as many as there are hosts, or one for all")]
    Count { fault: String },
    #[error("read service file {}; check its permissions", path.display())]
    ServiceFile { path: PathBuf, source: std::io::Error },
    #[error("service `{name}` is not defined (searched: {searched}); define it there, or set PGSERVICEFILE")]
    UnknownService { name: String, searched: String },
    #[error("no user to connect as; name one with `user=` in the connection string, or set PGUSER")]
    NoUser,
}

/// Where a password came from, so that a refused login can name the place to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PasswordSource {
    ConnectionString,
    Service,
    Environment,
    Passfile(PathBuf),
    None,
}

/// All that is needed to reach one database. `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    hosts: Vec<Host>,
    user: String,
    database: String,
    password: Option<Secret>,
    password_source: PasswordSource,
    passfile: Option<Passfile>,
    tls: TlsSettings,
    connect_timeout: Duration,
    /// The connection string, its service or the environment said so.
    connect_timeout_given: bool,
    target_session: TargetSession,
    channel_binding: ChannelBinding,
    keepalive: Keepalive,
    options: Option<String>,
    warnings: Vec<String>,
}

impl ConnectionSettings {
    /// Resolves a connection string: a URI, keywords, or empty for the environment alone.
    pub fn resolve(dsn: &str, environment: &Environment) -> Result<Self, ConninfoError> {
        let dsn = dsn.trim();
        let text = match uri::without_scheme(dsn) {
            Some(rest) => uri::parse(rest)?,
            None => keyword_form::parse(dsn)?,
        };
        let (parameters, password_source) = with_defaults(text, environment)?;
        Self::from_parameters(&parameters, password_source, environment)
    }

    fn from_parameters(
        parameters: &Parameters,
        password_source: PasswordSource,
        environment: &Environment,
    ) -> Result<Self, ConninfoError> {
        // As in libpq an empty value is as good as none once all sources have been merged.
        let given = |name: &str| {
            parameters
                .get(name)
                .map(String::as_str)
                .filter(|value| !value.is_empty())
        };
        let user = given("user")
            .or(environment.system_user.as_deref())
            .ok_or(ConninfoError::NoUser)?;
        let password = given("password").map(Secret::new);
        let mut warnings = Vec::new();
        let passfile = match password {
            Some(_) => None,
            None => read_passfile(given("passfile"), environment, &mut warnings),
        };
        options::refuse_gssapi(given("gssencmode"))?;
        Ok(Self {
            hosts: hosts::read(given("host"), given("hostaddr"), given("port"), environment)?,
            user: user.to_owned(),
            database: given("dbname").unwrap_or(user).to_owned(),
            password_source: if password.is_some() {
                password_source
            } else {
                PasswordSource::None
            },
            password,
            passfile,
            tls: options::tls(&given, environment)?,
            connect_timeout: options::connect_timeout(given("connect_timeout"))?,
            connect_timeout_given: given("connect_timeout").is_some(),
            target_session: options::target_session(given("target_session_attrs"))?,
            channel_binding: options::channel_binding(given("channel_binding"))?,
            keepalive: options::keepalive(&given)?,
            options: given("options").map(str::to_owned),
            warnings,
        })
    }

    /// The same server and user, another database. A password file is asked again for it.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self {
            database: database.to_owned(),
            ..self.clone()
        }
    }

    /// Another limit for connecting than the usual one, where neither the connection string nor the environment has one.
    #[must_use]
    pub fn with_connect_timeout_if_open(self, limit: Duration) -> Self {
        if self.connect_timeout_given {
            return self;
        }
        Self {
            connect_timeout: options::bounded_connect_timeout(limit),
            ..self
        }
    }

    /// For people: `shop at db.example.com:5432 as backup`.
    pub fn describe(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(ToString::to_string).collect();
        format!("{} at {} as {}", self.database, hosts.join(","), self.user)
    }

    pub fn database(&self) -> &str {
        &self.database
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// In the order they are tried; never empty.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Whether the password stood in the connection string itself, where `ps` and shell histories show it.
    pub fn password_from_text(&self) -> bool {
        self.password_source == PasswordSource::ConnectionString
    }

    /// What was ignored on the way, for the operator: password files that must not be used.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The password for one host, if there is one.
    pub(super) fn password(&self, host: &Host) -> Option<&Secret> {
        self.password.as_ref().or_else(|| self.passfile_password(host))
    }

    /// Where the password for one host came from.
    pub(super) fn password_source(&self, host: &Host) -> PasswordSource {
        match (&self.passfile, self.passfile_password(host)) {
            (Some(passfile), Some(_)) => PasswordSource::Passfile(passfile.path.clone()),
            _ => self.password_source.clone(),
        }
    }

    fn passfile_password(&self, host: &Host) -> Option<&Secret> {
        self.passfile
            .as_ref()?
            .find(&host.passfile_names(), host.port, &self.database, &self.user)
    }

    pub(super) fn tls(&self) -> &TlsSettings {
        &self.tls
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    pub(super) fn target_session(&self) -> TargetSession {
        self.target_session
    }

    pub(super) fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    pub(super) fn keepalive(&self) -> &Keepalive {
        &self.keepalive
    }

    pub(super) fn options(&self) -> Option<&str> {
        self.options.as_deref()
    }
}

/// Fills what the text leaves open from the service file and the environment.
fn with_defaults(
    text: Parameters,
    environment: &Environment,
) -> Result<(Parameters, PasswordSource), ConninfoError> {
    let mut source = PasswordSource::None;
    let mut note = |parameters: &Parameters, place: PasswordSource| {
        if source == PasswordSource::None && parameters.contains_key("password") {
            source = place;
        }
    };
    let mut parameters = text;
    note(&parameters, PasswordSource::ConnectionString);
    let service = parameters
        .get("service")
        .map(String::as_str)
        .or(environment.variable("PGSERVICE"));
    if let Some(service) = service.filter(|service| !service.is_empty()) {
        let mut merged = service::load(service, environment)?;
        merged.append(&mut parameters);
        parameters = merged;
        note(&parameters, PasswordSource::Service);
    }
    for (name, variable) in KEYWORDS {
        if let Some(value) = variable.and_then(|variable| environment.variable(variable)) {
            parameters.entry(name).or_insert_with(|| value.to_owned());
        }
    }
    note(&parameters, PasswordSource::Environment);
    Ok((parameters, source))
}

fn read_passfile(
    given: Option<&str>,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Option<Passfile> {
    let path = given
        .map(PathBuf::from)
        .or_else(|| environment.home_file(".pgpass"))?;
    match Passfile::read(Path::new(&path)) {
        Ok(Some(passfile)) => Some(passfile),
        Ok(None) => {
            if given.is_some() {
                warnings.push(format!(
                    "password file {} does not exist; create it",
                    path.display()
                ));
            }
            None
        }
        Err(warning) => {
            warnings.push(warning);
            None
        }
    }
}

#[cfg(test)]
mod tests;
