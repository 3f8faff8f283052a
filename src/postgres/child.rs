//! The same connection for PostgreSQL's own programs: by environment variables and a password file of their own.
//!
//! Never: a password in an argument or in a variable, both of which other processes may read.

use super::conninfo::{ConnectionSettings, Endpoint, Host, RootCertificates, passfile};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;
use tokio::process::Command;

/// Where distributions keep the roots that `sslrootcert=system` means. libpq before 16 does not know that word, and
/// takes it for a file's name; the file itself every libpq understands.
const SYSTEM_ROOT_FILES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// Why a child's connection could not be prepared.
#[derive(Debug, Error)]
pub enum ChildError {
    #[error("the password or user name has a line break, which no password file can hold; change it")]
    LineBreak,
    #[error("write password file {}; check that its directory exists and has space", path.display())]
    Passfile { path: PathBuf, source: std::io::Error },
    #[error("draw a random file name; check the system's random source")]
    Random { source: getrandom::Error },
}

/// The environment for one child program. Keep it while the child runs: dropping it removes the password file.
#[derive(Debug)]
pub struct ChildConnection {
    variables: Vec<(&'static str, OsString)>,
    passfile: PathBuf,
}

impl ConnectionSettings {
    /// Prepares the environment, with a password file (0600) in `directory`, which should be 0700.
    pub fn for_child(&self, directory: &Path) -> Result<ChildConnection, ChildError> {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random).map_err(|source| ChildError::Random { source })?;
        let path = directory.join(format!("pgpass-{:016x}", u64::from_ne_bytes(random)));
        let text = passfile_text(self)?;
        let mut variables = variables(self);
        variables.push(("PGPASSFILE", path.clone().into_os_string()));
        // The guard comes first, so that a file half written is removed too.
        let connection = ChildConnection {
            variables,
            passfile: path.clone(),
        };
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| ChildError::Passfile { path, source })?;
        Ok(connection)
    }
}

impl ChildConnection {
    /// Sets the child's environment: nothing of ours that begins with `PG`, then what this connection needs.
    pub fn apply(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        // Messages are compared and shown: always the same language.
        command.env("LC_ALL", "C").env("PGAPPNAME", "ernstfall");
        command.envs(self.variables().map(|(name, value)| (name, value.to_owned())));
    }

    /// What [`apply`](Self::apply) sets for the connection itself.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &OsStr)> {
        self.variables
            .iter()
            .map(|(name, value)| (*name, value.as_os_str()))
    }
}

impl Drop for ChildConnection {
    fn drop(&mut self) {
        // It may be gone with its directory; nothing more can be done here in any case.
        let _ = std::fs::remove_file(&self.passfile);
    }
}

fn variables(settings: &ConnectionSettings) -> Vec<(&'static str, OsString)> {
    let hosts = settings.hosts();
    let joined =
        |part: &dyn Fn(&Host) -> String| OsString::from(hosts.iter().map(part).collect::<Vec<_>>().join(","));
    let mut variables = vec![
        (
            "PGHOST",
            joined(&|host| match &host.endpoint {
                Endpoint::Socket(directory) => directory.to_string_lossy().into_owned(),
                Endpoint::Tcp { name, .. } => name.clone(),
            }),
        ),
        ("PGPORT", joined(&|host| host.port.to_string())),
        ("PGUSER", settings.user().into()),
        ("PGDATABASE", settings.database().into()),
        ("PGSSLMODE", settings.tls().mode.as_str().into()),
        (
            "PGCONNECT_TIMEOUT",
            settings.connect_timeout().as_secs().to_string().into(),
        ),
        ("PGTARGETSESSIONATTRS", settings.target_session().as_str().into()),
        // As our own sessions: no GSSAPI.
        ("PGGSSENCMODE", "disable".into()),
    ];
    let address = |host: &Host| match &host.endpoint {
        Endpoint::Tcp { address, .. } => *address,
        Endpoint::Socket(_) => None,
    };
    if hosts.iter().any(|host| address(host).is_some()) {
        let text = |host: &Host| {
            address(host)
                .map(|address| address.to_string())
                .unwrap_or_default()
        };
        variables.push(("PGHOSTADDR", joined(&text)));
    }
    variables.extend(settings.options().map(|options| ("PGOPTIONS", options.into())));
    variables.extend(channel_binding(settings).map(|value| ("PGCHANNELBINDING", value.into())));
    match &settings.tls().roots {
        RootCertificates::None => {}
        RootCertificates::File(path) => variables.push(("PGSSLROOTCERT", path.into())),
        RootCertificates::System => variables.push(("PGSSLROOTCERT", system_roots().into())),
    }
    if let Some((certificate, key)) = &settings.tls().client {
        variables.push(("PGSSLCERT", certificate.into()));
        variables.push(("PGSSLKEY", key.into()));
    }
    variables
}

/// Only what differs from libpq's default, which older programs know too.
fn channel_binding(settings: &ConnectionSettings) -> Option<&'static str> {
    use tokio_postgres::config::ChannelBinding;
    match settings.channel_binding() {
        ChannelBinding::Disable => Some("disable"),
        ChannelBinding::Require => Some("require"),
        _ => None,
    }
}

fn system_roots() -> &'static str {
    SYSTEM_ROOT_FILES
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("system")
}

/// One line for every name libpq may look a host up by. The database is left open: a program may connect to another.
fn passfile_text(settings: &ConnectionSettings) -> Result<String, ChildError> {
    let mut text = String::new();
    for host in settings.hosts() {
        let Some(password) = settings.password(host) else {
            continue;
        };
        for name in host.passfile_names() {
            let fields = [name, settings.user(), password.expose()];
            if fields.iter().any(|field| field.contains(['\n', '\r'])) {
                return Err(ChildError::LineBreak);
            }
            let [name, user, password] = fields.map(passfile::escape);
            text.push_str(&format!("{name}:{}:*:{user}:{password}\n", host.port));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::conninfo::Environment;
    use std::os::unix::fs::PermissionsExt;

    fn settings(dsn: &str) -> ConnectionSettings {
        let environment = Environment {
            system_user: Some("me".to_owned()),
            ..Environment::default()
        };
        ConnectionSettings::resolve(dsn, &environment).unwrap()
    }

    fn variable(connection: &ChildConnection, name: &str) -> Option<String> {
        let found = connection.variables().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| value.to_string_lossy().into_owned())
    }

    #[test]
    fn the_password_is_in_the_file_alone_and_the_file_goes_with_the_guard() {
        let directory = tempfile::tempdir().unwrap();
        let connection = settings("host=/run/pg,db port=1,2 user=a:b password='p\\\\q'")
            .for_child(directory.path())
            .unwrap();
        let path = PathBuf::from(variable(&connection, "PGPASSFILE").unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "localhost:1:*:a\\:b:p\\\\q\n/run/pg:1:*:a\\:b:p\\\\q\ndb:2:*:a\\:b:p\\\\q\n"
        );
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(
            connection
                .variables()
                .all(|(name, value)| name != "PGPASSWORD" && value != "p\\q")
        );
        drop(connection);
        assert!(!path.exists());
    }

    #[test]
    fn every_part_of_the_connection_becomes_a_variable() {
        let directory = tempfile::tempdir().unwrap();
        let dsn = "host=a,b hostaddr=10.0.0.1, port=1,2 user=u dbname=d sslmode=verify-full sslrootcert=/ca \
                   sslcert=/c sslkey=/k connect_timeout=7 options='-c geqo=off' target_session_attrs=primary";
        let connection = settings(dsn).for_child(directory.path()).unwrap();
        for (name, expected) in [
            ("PGHOST", "a,b"),
            ("PGHOSTADDR", "10.0.0.1,"),
            ("PGPORT", "1,2"),
            ("PGUSER", "u"),
            ("PGDATABASE", "d"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/ca"),
            ("PGSSLCERT", "/c"),
            ("PGSSLKEY", "/k"),
            ("PGCONNECT_TIMEOUT", "7"),
            ("PGOPTIONS", "-c geqo=off"),
            ("PGTARGETSESSIONATTRS", "primary"),
        ] {
            assert_eq!(variable(&connection, name).as_deref(), Some(expected), "{name}");
        }
    }

    #[test]
    fn a_password_that_no_password_file_can_hold_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(
            settings("host=a password='a\nb'")
                .for_child(directory.path())
                .is_err()
        );
    }

    #[test]
    fn a_child_inherits_nothing_that_begins_with_pg() {
        let directory = tempfile::tempdir().unwrap();
        let connection = settings("host=a").for_child(directory.path()).unwrap();
        let mut command = Command::new("true");
        connection.apply(&mut command);
        let variables: Vec<_> = command.as_std().get_envs().collect();
        assert!(variables.contains(&(OsStr::new("LC_ALL"), Some(OsStr::new("C")))));
        assert!(variables.contains(&(OsStr::new("PGAPPNAME"), Some(OsStr::new("ernstfall")))));
        assert!(variables.contains(&(OsStr::new("PGHOST"), Some(OsStr::new("a")))));
    }
}
