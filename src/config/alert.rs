//! The part of the configuration about alerts: what the daemon tells by itself, and through which channels.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::document::Table;
use super::secret_source::SecretSource;
use crate::model::human_duration::HumanDuration;
use crate::model::target_name::TargetName;
use crate::observe::rules::DEFAULT_RUNBOOK_URL;

const DEFAULT_REPEAT: HumanDuration = HumanDuration::from_seconds(4 * 60 * 60);

const DEFAULT_DELIVERY_TIMEOUT: HumanDuration = HumanDuration::from_seconds(10);

#[derive(Debug, Clone)]
pub struct Alert {
    /// The daemon itself watches the conditions.
    pub evaluate: bool,
    /// People are reminded so often of what still fires, by channels that do not remind them by themselves.
    pub repeat: HumanDuration,
    /// Where the runbook can be read: alerts link to their part of it.
    pub runbook_url: String,
    /// The URL may hold a token, as those of dead-man switches do.
    pub ping_url: Option<SecretSource>,
    /// The server that has the rules, where there is one.
    pub prometheus: Option<Endpoint>,
    pub channels: Vec<Channel>,
}

/// A server that is reached by HTTP.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub url: SecretSource,
    /// Sent as bearer token.
    pub token: Option<SecretSource>,
    /// Authorities that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Channel {
    /// Unique; plain enough for a label of a metric.
    pub name: String,
    pub timeout: HumanDuration,
    pub kind: ChannelKind,
}

#[derive(Debug, Clone)]
pub enum ChannelKind {
    Alertmanager(Endpoint),
    Webhook {
        endpoint: Endpoint,
        headers: Vec<(String, SecretSource)>,
        /// The file that makes the body; absent: the alert as JSON.
        template: Option<PathBuf>,
        /// What the template has beside the alert, by name.
        values: Vec<(String, SecretSource)>,
    },
    Email {
        from: String,
        to: Vec<String>,
        server: MailServer,
    },
    Command {
        command: Vec<String>,
    },
}

#[derive(Debug, Clone)]
pub struct MailServer {
    pub host: String,
    pub port: u16,
    pub encryption: MailEncryption,
    /// Authorities that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Name and password.
    pub login: Option<(String, SecretSource)>,
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

impl Default for Alert {
    fn default() -> Self {
        Self {
            evaluate: false,
            repeat: DEFAULT_REPEAT,
            runbook_url: DEFAULT_RUNBOOK_URL.to_owned(),
            ping_url: None,
            prometheus: None,
            channels: Vec::new(),
        }
    }
}

impl Alert {
    pub(super) fn read(table: &Table<'_>, base: &Path) -> Self {
        let default = Self::default();
        let evaluate = table.boolean("evaluate");
        let ping_url = table.secret("ping_url").map(|secret| secret.relative_to(base));
        let repeat = table.duration("repeat").unwrap_or(default.repeat);
        let runbook_url = table.text("runbook_url").unwrap_or(default.runbook_url);
        let prometheus = table.table("prometheus").and_then(|prometheus| {
            let endpoint = Endpoint::read(&prometheus, base, "such as \"http://127.0.0.1:9090\"");
            prometheus.finish();
            endpoint
        });
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
            evaluate: evaluate.unwrap_or(!channels.is_empty() || ping_url.is_some()),
            repeat,
            runbook_url,
            ping_url,
            prometheus,
            channels,
        }
    }
}

impl Endpoint {
    fn read(table: &Table<'_>, base: &Path, advice: &str) -> Option<Self> {
        let secret = |key| table.secret(key).map(|secret| secret.relative_to(base));
        require(table, "url", advice);
        let (url, token) = (secret("url"), secret("token"));
        let ca_file = table.path("ca_file").map(|path| base.join(path));
        Some(Self {
            url: url?,
            token,
            ca_file,
        })
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
        require(
            table,
            "kind",
            "a channel is of kind \"alertmanager\", \"webhook\", \"email\" or \"command\"",
        );
        // Which other keys are known depends on the kind: without it, nothing more can be said.
        let Some(kind_word) = kind_word else {
            table.hide_all();
            return None;
        };
        let name = table.parsed_with("name", plain_name);
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
        match word {
            KindWord::Alertmanager => {
                Endpoint::read(table, base, "such as \"http://127.0.0.1:9093\"").map(Self::Alertmanager)
            }
            KindWord::Webhook => Self::read_webhook(table, base),
            KindWord::Email => Self::read_email(table, base),
            KindWord::Command => {
                require(
                    table,
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

    fn read_webhook(table: &Table<'_>, base: &Path) -> Option<Self> {
        let endpoint = Endpoint::read(table, base, "say where to send the alert");
        let secrets = |key| {
            let pairs = table.secrets_by_name(key).into_iter();
            pairs
                .map(|(name, secret)| (name, secret.relative_to(base)))
                .collect()
        };
        let (headers, values) = (secrets("headers"), secrets("values"));
        let template = table.path("template").map(|path| base.join(path));
        if table.has("values") && !table.has("template") {
            table.fault(
                "values",
                "only a template uses them: name its file as `template`, or remove them",
            );
        }
        Some(Self::Webhook {
            endpoint: endpoint?,
            headers,
            template,
            values,
        })
    }

    fn read_email(table: &Table<'_>, base: &Path) -> Option<Self> {
        require(table, "from", "give the sender's address");
        require(table, "to", "list the recipients' addresses");
        let (from, to) = (table.text("from"), table.texts("to"));
        if table.has("to") && to.is_empty() {
            table.fault("to", "nobody would get the alert: list at least one address");
        }
        let server = MailServer::read(table, base);
        Some(Self::Email {
            from: from?,
            to,
            server: server?,
        })
    }
}

impl MailServer {
    fn read(table: &Table<'_>, base: &Path) -> Option<Self> {
        require(
            table,
            "server",
            "name the mail server, such as \"mail.example.org:587\"",
        );
        let address = table.parsed_with("server", host_and_port);
        let username = table.text("username");
        let password = table.secret("password").map(|secret| secret.relative_to(base));
        let ca_file = table.path("ca_file").map(|path| base.join(path));
        for (one, other) in [("username", "password"), ("password", "username")] {
            if table.has(one) && !table.has(other) {
                table.fault(one, format!("needs `{other}` as well: give both, or none"));
            }
        }
        let encryptions = [
            ("tls", MailEncryption::Tls),
            ("starttls", MailEncryption::StartTls),
            ("none", MailEncryption::None),
        ];
        let encryption = table
            .choice("encryption", &encryptions)
            .unwrap_or(MailEncryption::StartTls);
        let (host, port) = address?;
        if encryption == MailEncryption::None && table.has("password") && !is_loopback(&host) {
            table.fault(
                "encryption",
                "the password would cross the network in the clear: write \"starttls\" or \"tls\", or remove `username` and `password`",
            );
        }
        Some(Self {
            host,
            port,
            encryption,
            ca_file,
            login: username.zip(password),
        })
    }
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let advice = || format!("{text:?} is not a server: write HOST:PORT, such as \"mail.example.org:587\"");
    let (host, port) = text.rsplit_once(':').ok_or_else(advice)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(advice)?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = inner.unwrap_or(host);
    let is_host = inner.is_some() || !host.contains(':');
    if host.is_empty() || !is_host || host.contains(char::is_whitespace) {
        return Err(advice());
    }
    Ok((host.to_owned(), port))
}

fn is_loopback(host: &str) -> bool {
    let address = host.parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn require(table: &Table<'_>, key: &'static str, advice: &str) {
    if !table.has(key) {
        table.missing(key, advice);
    }
}

/// A name becomes a label of metrics and a field of records, and is typed by people: the rule is that of targets.
fn plain_name(text: &str) -> Result<String, String> {
    match text.parse::<TargetName>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!(
            "{text:?} cannot be a channel's name: use 1 to 63 lower-case letters, digits, `-` and `_`, and begin with a letter or digit"
        )),
    }
}
