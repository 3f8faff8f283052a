//! The parts of the configuration about the daemon: status page and limits.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::document::Table;
use super::secret_source::SecretSource;
use crate::model::byte_size::ByteRate;
use crate::model::human_duration::HumanDuration;

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9810);
const DEFAULT_MAX_BACKUPS: u32 = 2;
const DEFAULT_MAX_RESTORE_TESTS: u32 = 1;
const DEFAULT_JITTER: HumanDuration = HumanDuration::from_seconds(30);

/// More at once has no use on one machine.
const MAX_RUNS: u32 = 64;

#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    pub listen: SocketAddr,
    pub tls: Option<Tls>,
    pub token: Option<SecretSource>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub max_backups: u32,
    pub max_restore_tests: u32,
    /// What is due for all targets at one moment begins spread over so long.
    pub jitter: HumanDuration,
    /// For each source; `None`: as fast as it goes.
    pub max_rate: Option<ByteRate>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_backups: DEFAULT_MAX_BACKUPS,
            max_restore_tests: DEFAULT_MAX_RESTORE_TESTS,
            jitter: DEFAULT_JITTER,
            max_rate: None,
        }
    }
}

impl Http {
    pub(super) fn read(table: &Table<'_>, base: &Path) -> Self {
        let listen = table.parsed_with("listen", |text| {
            let advice = || format!("{text:?} is not an address: write IP:PORT, such as \"127.0.0.1:9810\"");
            text.parse::<SocketAddr>().map_err(|_| advice())
        });
        let listen = listen.unwrap_or(DEFAULT_LISTEN);
        let tls = table.table("tls").and_then(|tls| Tls::read(&tls, base));
        let token = table.secret("token").map(|secret| secret.relative_to(base));
        // Names of targets and their state are nobody's business on the network.
        let is_guarded = table.has("tls") && table.has("token");
        let is_meant = table.boolean("allow_unprotected") == Some(true);
        if !listen.ip().is_loopback() && !is_guarded && !is_meant {
            table.fault(
                "listen",
                "an address beyond loopback needs `tls` and `token`: give both, or listen on 127.0.0.1; where something else keeps strangers away, write allow_unprotected = true",
            );
        }
        table.finish();
        Self { listen, tls, token }
    }
}

impl Tls {
    fn read(table: &Table<'_>, base: &Path) -> Option<Self> {
        let (cert, key) = (table.path("cert"), table.path("key"));
        for name in ["cert", "key"] {
            if !table.has(name) {
                table.missing(name, "tls is { cert = \"PATH\", key = \"PATH\" }, both PEM files");
            }
        }
        table.finish();
        Some(Self {
            cert: base.join(cert?),
            key: base.join(key?),
        })
    }
}

impl Limits {
    pub(super) fn read(table: &Table<'_>) -> Self {
        let default = Self::default();
        let limits = Self {
            max_backups: table
                .integer("max_backups", 1..=MAX_RUNS)
                .unwrap_or(default.max_backups),
            max_restore_tests: table
                .integer("max_restore_tests", 1..=MAX_RUNS)
                .unwrap_or(default.max_restore_tests),
            jitter: table.parsed("jitter").unwrap_or(default.jitter),
            max_rate: table.parsed::<ByteRate>("max_rate"),
        };
        if limits
            .max_rate
            .is_some_and(|rate| rate.as_bytes_per_second() == 0)
        {
            table.fault("max_rate", "must be more than zero: remove it for no limit");
        }
        table.finish();
        limits
    }
}
