//! How people are told, and the dead-man switch.
//!
//! Secrets are fetched when a channel is first used: one that cannot be had stops its channel, and no other.

use crate::alert::channel::alertmanager::Alertmanager;
use crate::alert::channel::command::Command;
use crate::alert::channel::email::{self, Email};
use crate::alert::channel::template::Template;
use crate::alert::channel::webhook::{Addressee, Webhook};
use crate::alert::channel::{Channel, Failure as NotDelivered, Named};
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
