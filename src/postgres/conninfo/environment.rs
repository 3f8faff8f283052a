//! What libpq would look at outside the connection string: variables, the home directory, the user, socket directories.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The surroundings a connection string is resolved in; a value, so that tests do not depend on theirs.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub variables: BTreeMap<String, String>,
    pub home: Option<PathBuf>,
    /// The user of the operating system: libpq's default for `user`.
    pub system_user: Option<String>,
    /// Where servers put their Unix sockets, in the order they are looked at.
    pub socket_directories: Vec<PathBuf>,
    /// Where a system-wide `pg_service.conf` may lie.
    pub system_directories: Vec<PathBuf>,
}

impl Environment {
    /// The environment of this process. Variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let account = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        let home = match variables.get("HOME").filter(|home| !home.is_empty()) {
            Some(home) => Some(PathBuf::from(home)),
            None => account.as_ref().map(|account| account.dir.clone()),
        };
        let system_directories = match variables.get("PGSYSCONFDIR") {
            Some(directory) => vec![PathBuf::from(directory)],
            None => vec![PathBuf::from("/etc/postgresql-common"), PathBuf::from("/etc")],
        };
        Self {
            variables,
            home,
            system_user: account.map(|account| account.name),
            socket_directories: vec![PathBuf::from("/var/run/postgresql"), PathBuf::from("/tmp")],
            system_directories,
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// A file below the home directory.
    pub(super) fn home_file(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(name))
    }
}
