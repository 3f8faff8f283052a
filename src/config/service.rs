//! The parts of the configuration about the daemon: status page, limits, alerts.

use std::collections::BTreeSet;
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

const DEFAULT_DELIVERY_TIMEOUT: HumanDuration = HumanDuration::from_seconds(10);

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

#[derive(Debug, Clone, Default)]
pub struct Alert {
    pub evaluate: bool,
    /// The URL may hold a token, as those of dead-man switches do.
    pub ping_url: Option<SecretSource>,
    pub channels: Vec<Channel>,
}

#[derive(Debug, Clone)]
pub struct Channel {
    pub name: String,
    pub timeout: HumanDuration,
    pub kind: ChannelKind,
}

#[derive(Debug, Clone)]
pub enum ChannelKind {
    Alertmanager {
        url: SecretSource,
        token: Option<SecretSource>,
        ca_file: Option<PathBuf>,
    },
    Webhook {
        url: SecretSource,
        token: Option<SecretSource>,
        ca_file: Option<PathBuf>,
        headers: Vec<(String, SecretSource)>,
        /// The body to send; absent: the alert as JSON.
        template: Option<String>,
    },
    Email {
        /// `host:port` of the mail server.
        server: String,
        from: String,
        to: Vec<String>,
        username: Option<String>,
        password: Option<SecretSource>,
        encryption: MailEncryption,
    },
    Command {
        command: Vec<String>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailEncryption {
    Tls,
    StartTls,
    None,
}

#[derive(Clone, Copy)]
enum KindWord {
    Alertmanager,
    Webhook,
    Email,
    Command,
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

impl Alert {
    pub(super) fn read(table: &Table<'_>, base: &Path) -> Self {
        let evaluate = table.boolean("evaluate");
        let ping_url = table.secret("ping_url").map(|secret| secret.relative_to(base));
        let mut names = BTreeSet::new();
        let mut channels = Vec::new();
        for channel in table.tables("channel") {
            if let Some(read) = Channel::read(&channel, base) {
                if !names.insert(read.name.clone()) {
                    let advice = format!(
                        "another channel is called {:?} too: give each a `name`",
                        read.name
                    );
                    channel.fault("name", advice);
                }
                channels.push(read);
            }
        }
        table.finish();
        Self {
            evaluate: evaluate.unwrap_or(!channels.is_empty()),
            ping_url,
            channels,
        }
    }
}

impl Channel {
    fn read(table: &Table<'_>, base: &Path) -> Option<Self> {
        let kinds = [
            ("alertmanager", KindWord::Alertmanager),
            ("webhook", KindWord::Webhook),
            ("email", KindWord::Email),
            ("command", KindWord::Command),
        ];
        let kind_word = table.choice("kind", &kinds);
        if !table.has("kind") {
            table.missing(
                "kind",
                "a channel is of kind \"alertmanager\", \"webhook\", \"email\" or \"command\"",
            );
        }
        // Which other keys are known depends on the kind: without it, nothing more can be said.
        let Some(kind_word) = kind_word else {
            table.hide_all();
            return None;
        };
        let name = table.text("name");
        let timeout = table.duration("timeout").unwrap_or(DEFAULT_DELIVERY_TIMEOUT);
        let kind = ChannelKind::read(kind_word, table, base);
        table.finish();
        let default_name = || table.peek_text("kind").unwrap_or_default().to_owned();
        Some(Self {
            name: name.unwrap_or_else(default_name),
            timeout,
            kind: kind?,
        })
    }
}

impl ChannelKind {
    fn read(word: KindWord, table: &Table<'_>, base: &Path) -> Option<Self> {
        let secret = |key| table.secret(key).map(|secret| secret.relative_to(base));
        let required = |key, advice| {
            if !table.has(key) {
                table.missing(key, advice);
            }
        };
        match word {
            KindWord::Alertmanager => {
                required("url", "such as \"http://127.0.0.1:9093\"");
                let (url, token) = (secret("url"), secret("token"));
                let ca_file = table.path("ca_file").map(|path| base.join(path));
                Some(Self::Alertmanager {
                    url: url?,
                    token,
                    ca_file,
                })
            }
            KindWord::Webhook => {
                required("url", "say where to send the alert");
                let (url, token) = (secret("url"), secret("token"));
                let ca_file = table.path("ca_file").map(|path| base.join(path));
                let headers = table.secrets_by_name("headers").into_iter();
                let headers = headers
                    .map(|(name, secret)| (name, secret.relative_to(base)))
                    .collect();
                let template = table.text("template");
                Some(Self::Webhook {
                    url: url?,
                    token,
                    ca_file,
                    headers,
                    template,
                })
            }
            KindWord::Email => Self::read_email(table, base),
            KindWord::Command => {
                required(
                    "command",
                    "list the program and its arguments, such as [\"/usr/local/bin/page\", \"oncall\"]",
                );
                let command = table.texts("command");
                if table.has("command") && command.is_empty() {
                    table.fault("command", "is empty: name a program and its arguments");
                }
                Some(Self::Command { command })
            }
        }
    }

    fn read_email(table: &Table<'_>, base: &Path) -> Option<Self> {
        for (key, advice) in [
            ("server", "name the mail server, such as \"mail.example.org:587\""),
            ("from", "give the sender's address"),
            ("to", "list the recipients' addresses"),
        ] {
            if !table.has(key) {
                table.missing(key, advice);
            }
        }
        let (server, from, to) = (table.text("server"), table.text("from"), table.texts("to"));
        let (username, password) = (
            table.text("username"),
            table.secret("password").map(|secret| secret.relative_to(base)),
        );
        if table.has("to") && to.is_empty() {
            table.fault("to", "nobody would get the alert: list at least one address");
        }
        let encryptions = [
            ("tls", MailEncryption::Tls),
            ("starttls", MailEncryption::StartTls),
            ("none", MailEncryption::None),
        ];
        let encryption = table
            .choice("encryption", &encryptions)
            .unwrap_or(MailEncryption::StartTls);
        Some(Self::Email {
            server: server?,
            from: from?,
            to,
            username,
            password,
            encryption,
        })
    }
}
