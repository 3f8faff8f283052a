//! How people are told, and the dead-man switch.
//!
//! Secrets are fetched when a channel is first used: one that cannot be had stops its channel, and no other.

use chrono::TimeDelta;
use nix::unistd::gethostname;

use crate::alert::channel::alertmanager::Alertmanager;
use crate::alert::channel::command::Command;
use crate::alert::channel::email::{self, Email};
use crate::alert::channel::template::Template;
use crate::alert::channel::webhook::{Addressee, Webhook};
use crate::alert::channel::{Channel, Failure as NotDelivered, Named};
use crate::alert::evaluation::Manner;
use crate::alert::http::{self, Receiver};
use crate::alert::late::Late;
use crate::alert::ping::Ping;
use crate::config::{
    self, ChannelKind, Endpoint, Environment, MailEncryption, MailServer, SecretError, SecretSource,
};
use crate::model::secret::Secret;

use super::{Failure, Setup};

impl Setup {
    /// The channels of the configuration; nothing of them is tried yet.
    ///
    /// # Errors
    /// A template or an address cannot be used.
    pub(in crate::cli) fn channels(&self) -> Result<Vec<Named>, Failure> {
        let channels = &self.config.alert.channels;
        channels.iter().map(|channel| self.channel(channel)).collect()
    }

    /// The dead-man switch, where there is one.
    pub(in crate::cli) fn ping(&self) -> Option<Ping> {
        let url = self.config.alert.ping_url.clone()?;
        let secrets = self.secrets("alert".to_owned());
        let receiver = Late::new(move || {
            Receiver::new(&http::Settings {
                url: secrets.fetch("ping_url", &url)?,
                token: None,
                headers: Vec::new(),
                ca_file: None,
                in_body: Vec::new(),
            })
        });
        Some(Ping::new(receiver))
    }

    fn channel(&self, channel: &config::Channel) -> Result<Named, Failure> {
        let place = format!("alert.channel[{}]", channel.name);
        let secrets = self.secrets(place.clone());
        let (kind, made): (_, Box<dyn Channel>) = match &channel.kind {
            ChannelKind::Alertmanager(endpoint) => {
                let endpoint = endpoint.clone();
                let receiver = Late::new(move || Receiver::new(&secrets.http(&endpoint)?));
                ("alertmanager", Box::new(Alertmanager::new(receiver)))
            }
            ChannelKind::Webhook {
                endpoint,
                headers,
                template,
                values,
            } => {
                let names: Vec<String> = values.iter().map(|(name, _)| name.clone()).collect();
                let template = template.as_ref().map(|file| Template::load(file, &names));
                let template = template.transpose().map_err(|error| unusable(error, &place))?;
                let (endpoint, headers, values) = (endpoint.clone(), headers.clone(), values.clone());
                let addressee = Late::new(move || secrets.addressee(&endpoint, &headers, &values));
                ("webhook", Box::new(Webhook::new(addressee, template)))
            }
            ChannelKind::Email { from, to, server } => {
                let server = server.clone();
                let server = Late::new(move || secrets.mail_server(&server));
                let email = Email::new(from, to, server).map_err(|error| unusable(error, &place))?;
                ("email", Box::new(email))
            }
            ChannelKind::Command { command } => ("command", Box::new(Command::new(command.clone()))),
        };
        Ok(Named {
            name: channel.name.clone(),
            kind,
            timeout: channel.timeout.into(),
            channel: made,
        })
    }

    /// How alerts are put.
    pub(in crate::cli) fn alert_manner(&self) -> Manner {
        let host = gethostname().ok().and_then(|name| name.into_string().ok());
        Manner {
            repeat: TimeDelta::from_std(self.config.alert.repeat.into()).unwrap_or(TimeDelta::MAX),
            runbook_url: self.config.alert.runbook_url.clone(),
            labels: host
                .map(|host| ("instance".to_owned(), host))
                .into_iter()
                .collect(),
        }
    }

    /// How a server of the configuration is reached, with its secrets fetched.
    pub(super) fn reached_by(
        &self,
        place: &str,
        endpoint: &Endpoint,
    ) -> Result<http::Settings, NotDelivered> {
        self.secrets(place.to_owned()).http(endpoint)
    }

    fn secrets(&self, place: String) -> Secrets {
        Secrets {
            environment: self.environment.clone(),
            place,
        }
    }
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static, place: &str) -> Failure {
    Failure::usage(anyhow::Error::new(error).context(place.to_owned()))
}

/// Fetches the secrets of one table of the configuration.
struct Secrets {
    environment: Environment,
    /// `alert.channel[on-call]`
    place: String,
}

impl Secrets {
    fn fetch(&self, key: &str, source: &SecretSource) -> Result<Secret, NotDelivered> {
        source.resolve(&self.environment).map_err(|error| {
            let reason = format!("{}.{key}: {}", self.place, crate::ops::chain(&error));
            match error {
                // A password manager may be locked now and open later.
                SecretError::CommandFailed { .. } => NotDelivered::may_pass(reason),
                _ => NotDelivered::lasts(reason),
            }
        })
    }

    fn http(&self, endpoint: &Endpoint) -> Result<http::Settings, NotDelivered> {
        let token = endpoint.token.as_ref();
        Ok(http::Settings {
            url: self.fetch("url", &endpoint.url)?,
            token: token.map(|token| self.fetch("token", token)).transpose()?,
            headers: Vec::new(),
            ca_file: endpoint.ca_file.clone(),
            in_body: Vec::new(),
        })
    }

    fn addressee(
        &self,
        endpoint: &Endpoint,
        headers: &[(String, SecretSource)],
        values: &[(String, SecretSource)],
    ) -> Result<Addressee, NotDelivered> {
        let fetch_all = |key: &str, sources: &[(String, SecretSource)]| {
            let sources = sources.iter();
            sources
                .map(|(name, source)| Ok((name.clone(), self.fetch(&format!("{key}.{name}"), source)?)))
                .collect::<Result<Vec<_>, NotDelivered>>()
        };
        let values = fetch_all("values", values)?;
        let settings = http::Settings {
            headers: fetch_all("headers", headers)?,
            in_body: values.iter().map(|(_, secret)| secret.clone()).collect(),
            ..self.http(endpoint)?
        };
        Ok(Addressee {
            receiver: Receiver::new(&settings)?,
            values: values.into_iter().collect(),
        })
    }

    fn mail_server(&self, server: &MailServer) -> Result<email::Server, NotDelivered> {
        let login = server.login.as_ref();
        let login =
            login.map(|(username, password)| Ok((username.clone(), self.fetch("password", password)?)));
        email::Server::new(email::Settings {
            host: server.host.clone(),
            port: server.port,
            encryption: match server.encryption {
                MailEncryption::Tls => email::Encryption::Tls,
                MailEncryption::StartTls => email::Encryption::StartTls,
                MailEncryption::None => email::Encryption::None,
            },
            ca_file: server.ca_file.clone(),
            login: login.transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use chrono::Utc;

    use super::*;
    use crate::alert::message::Message;
    use crate::cli::signals::Signals;
    use crate::config::Config;
    use crate::model::alert_record::AlertState;

    fn setup(directory: &Path, alert: &str) -> Setup {
        let environment = Environment {
            current_directory: directory.to_owned(),
            ..Environment::default()
        };
        let text = format!(
            "{alert}\n[repository]\nurl = \"backups\"\n[[target]]\nname = \"shop\"\nurl = \"postgres://a\"\n"
        );
        let config = Config::parse(&text, &directory.join("ernstfall.toml"), &environment);
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        Setup::of(config, environment, Signals::listen().unwrap())
    }

    fn message() -> Message {
        Message {
            labels: BTreeMap::new(),
            state: AlertState::Firing,
            summary: String::new(),
            description: String::new(),
            runbook_url: String::new(),
            since: Utc::now(),
            resolved_at: None,
            reminder: false,
        }
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_had_stops_its_channel_only() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("page.txt"), "{{ summary }}").unwrap();
        let setup = setup(
            directory.path(),
            "[[alert.channel]]
             kind = \"alertmanager\"
             url = { env = \"NO_SUCH_URL\" }
             [[alert.channel]]
             kind = \"webhook\"
             name = \"pager\"
             timeout = \"3s\"
             url = \"http://127.0.0.1:1\"
             template = \"page.txt\"
             values = { key = { command = [\"sh\", \"-c\", \"exit 7\"] } }
             [[alert.channel]]
             kind = \"email\"
             server = \"127.0.0.1:1\"
             from = \"a@example.org\"
             to = [\"b@example.org\"]
             username = \"a\"
             password = { file = \"no-such-file\" }
             [[alert.channel]]
             kind = \"command\"
             command = [\"echo\", \"paged\"]",
        );
        let channels = setup
            .channels()
            .unwrap_or_else(|failure| panic!("{}", failure.error));
        let shown: Vec<_> = channels
            .iter()
            .map(|channel| (channel.name.as_str(), channel.kind, channel.timeout.as_secs()))
            .collect();
        let expected = [
            ("alertmanager", "alertmanager", 10),
            ("pager", "webhook", 3),
            ("email", "email", 10),
            ("command", "command", 10),
        ];
        assert_eq!(shown, expected);
        let mut outcomes = Vec::new();
        for channel in &channels {
            outcomes.push(channel.channel.deliver(&message(), Utc::now()).await);
        }
        for (outcome, lasting, part) in [
            (
                &outcomes[0],
                true,
                "alert.channel[alertmanager].url: environment variable NO_SUCH_URL",
            ),
            (
                &outcomes[1],
                false,
                "alert.channel[pager].values.key: sh gave no secret",
            ),
            (
                &outcomes[2],
                true,
                "alert.channel[email].password: cannot read the secret",
            ),
        ] {
            let failure = outcome.as_ref().unwrap_err();
            assert_eq!(failure.lasting, lasting, "{}", failure.reason);
            assert!(failure.reason.contains(part), "{}", failure.reason);
        }
        assert_eq!(outcomes[3].as_ref().unwrap().0, "paged");
    }

    #[tokio::test]
    async fn a_template_or_an_address_that_cannot_be_used_is_a_fault_of_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("page.json"), "{{ sumary }}").unwrap();
        for (channel, parts) in [
            (
                "kind = \"webhook\"\nurl = \"http://x\"\ntemplate = \"page.json\"",
                ["alert.channel[webhook]", "page.json: line 1: "],
            ),
            (
                "kind = \"email\"\nserver = \"x:1\"\nfrom = \"a\"\nto = [\"b@example.org\"]",
                ["alert.channel[email]", "\"a\" is not an address"],
            ),
        ] {
            let failure = setup(directory.path(), &format!("[[alert.channel]]\n{channel}")).channels();
            let failure = failure.err().unwrap();
            let message = crate::ops::chain(failure.error.as_ref());
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
            assert_eq!(failure.exit.code(), 2);
        }
    }
}
