//! The servers a connection string names, in the order they are tried.

use super::ConninfoError;
use super::environment::Environment;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub(super) const DEFAULT_PORT: u16 = 5432;

/// One place to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    pub endpoint: Endpoint,
    pub port: u16,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The directory of its Unix socket.
    Socket(PathBuf),
    /// A name (or an address written as one); `address` spares the look-up of the name.
    Tcp { name: String, address: Option<IpAddr> },
}

impl Host {
    /// The names a password file may call this host by.
    pub(in crate::postgres) fn passfile_names(&self) -> Vec<&str> {
        match &self.endpoint {
            Endpoint::Socket(directory) => {
                let mut names = vec!["localhost"];
                names.extend(directory.to_str());
                names
            }
            Endpoint::Tcp { name, .. } => vec![name],
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Socket(directory) => {
                formatter.write_str(&socket(directory, self.port).to_string_lossy())
            }
            Endpoint::Tcp { name, .. } if name.contains(':') => write!(formatter, "[{name}]:{}", self.port),
            Endpoint::Tcp { name, .. } => write!(formatter, "{name}:{}", self.port),
        }
    }
}

pub(super) fn read(
    host: Option<&str>,
    hostaddr: Option<&str>,
    port: Option<&str>,
    environment: &Environment,
) -> Result<Vec<Host>, ConninfoError> {
    let names: Vec<&str> = host
        .map(|host| host.split(',').map(str::trim).collect())
        .unwrap_or_default();
    let addresses = read_addresses(hostaddr)?;
    let count = names.len().max(addresses.len()).max(1);
    if !names.is_empty() && !addresses.is_empty() && names.len() != addresses.len() {
        let fault = format!(
            "{} hosts and {} host addresses are given",
            names.len(),
            addresses.len()
        );
        return Err(ConninfoError::Count { fault });
    }
    let ports = read_ports(port)?;
    if ports.len() > 1 && ports.len() != count {
        let fault = format!("{count} hosts and {} ports are given", ports.len());
        return Err(ConninfoError::Count { fault });
    }
    (0..count)
        .map(|index| {
            let port = ports
                .get(index)
                .or(ports.first())
                .copied()
                .unwrap_or(DEFAULT_PORT);
            let name = names.get(index).copied().unwrap_or_default();
            let address = addresses.get(index).copied().flatten();
            Ok(Host {
                endpoint: endpoint(name, address, port, environment)?,
                port,
            })
        })
        .collect()
}

fn endpoint(
    name: &str,
    address: Option<IpAddr>,
    port: u16,
    environment: &Environment,
) -> Result<Endpoint, ConninfoError> {
    if name.starts_with('@') {
        let fault = "a host that begins with `@` (an abstract Unix socket) is not supported".to_owned();
        return Err(ConninfoError::Malformed { fault });
    }
    // As libpq: an address goes before the name, even before a socket's.
    Ok(match (name, address) {
        ("", None) => Endpoint::Socket(default_socket_directory(port, environment)),
        ("", Some(address)) => Endpoint::Tcp {
            name: address.to_string(),
            address: Some(address),
        },
        (name, None) if name.starts_with('/') => Endpoint::Socket(PathBuf::from(name)),
        (name, address) => Endpoint::Tcp {
            name: name.to_owned(),
            address,
        },
    })
}

/// The first directory where a server has its socket; without one the first that exists, so that the error names it.
fn default_socket_directory(port: u16, environment: &Environment) -> PathBuf {
    let directories = &environment.socket_directories;
    let with_socket = directories
        .iter()
        .find(|directory| socket(directory, port).exists());
    let existing = || directories.iter().find(|directory| directory.is_dir());
    with_socket
        .or_else(existing)
        .cloned()
        .unwrap_or_else(|| PathBuf::from("/tmp"))
}

fn socket(directory: &Path, port: u16) -> PathBuf {
    directory.join(format!(".s.PGSQL.{port}"))
}

fn read_addresses(text: Option<&str>) -> Result<Vec<Option<IpAddr>>, ConninfoError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    text.split(',')
        .map(|entry| match entry.trim() {
            "" => Ok(None),
            entry => entry.parse().map(Some).map_err(|_| ConninfoError::Value {
                key: "hostaddr",
                value: text.to_owned(),
                allowed: "IP addresses, separated by commas",
            }),
        })
        .collect()
}

fn read_ports(text: Option<&str>) -> Result<Vec<u16>, ConninfoError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    text.split(',')
        .map(|entry| match entry.trim() {
            "" => Ok(DEFAULT_PORT),
            entry => entry
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| ConninfoError::Value {
                    key: "port",
                    value: text.to_owned(),
                    allowed: "port numbers from 1 to 65535, separated by commas",
                }),
        })
        .collect()
}
