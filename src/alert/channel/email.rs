//! Mail, handed to a mail server.
//!
//! A recipient that the server refuses does not keep the mail from the others.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;

use super::{Channel, Failure, Receipt};
use crate::alert::authorities;
use crate::alert::late::Late;
use crate::alert::message::Message;
use crate::alert::redaction::{Redaction, in_one_line};
use crate::model::alert_record::AlertState;
use crate::model::secret::Secret;

/// For each address that the server's name has: one of them may lead nowhere, and the next one needs time as well.
const CONNECT_TIME: Duration = Duration::from_secs(4);

/// Programs that answer mail by themselves leave alone what says this (RFC 3834).
const AUTO_SUBMITTED: HeaderName = HeaderName::new_from_ascii_str("Auto-Submitted");

/// A mail to some people.
pub struct Email {
    from: Mailbox,
    to: Vec<Mailbox>,
    server: Late<Server>,
}

/// How a mail server is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    pub host: String,
    pub port: u16,
    pub encryption: Encryption,
    /// Authorities that are trusted beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// Name and password.
    pub login: Option<(String, Secret)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// From the first byte on.
    Tls,
    /// After a request to begin with it; without it nothing is sent.
    StartTls,
    None,
}

/// A mail server, ready to be connected to.
pub struct Server {
    settings: Settings,
    tls: Option<TlsParameters>,
    redaction: Redaction,
}

/// A text is not the address of a mailbox.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not an address: write NAME@HOST, or \"Some Body <NAME@HOST>\", in ASCII but for the name before"
)]
pub struct AddressError(String);

impl Email {
    /// # Errors
    /// One of the addresses is none.
    pub fn new(from: &str, to: &[String], server: Late<Server>) -> Result<Self, AddressError> {
        Ok(Self {
            from: mailbox(from)?,
            to: to.iter().map(|text| mailbox(text)).collect::<Result<_, _>>()?,
            server,
        })
    }
}

fn mailbox(text: &str) -> Result<Mailbox, AddressError> {
    let parsed: Option<Mailbox> = text.parse().ok();
    let parsed = parsed.filter(|mailbox| AsRef::<str>::as_ref(&mailbox.email).is_ascii());
    parsed.ok_or_else(|| AddressError(text.to_owned()))
}

impl Server {
    /// Reads the file of authorities, which blocks. Nothing is sent yet.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn new(settings: Settings) -> Result<Self, Failure> {
        let mut redaction = Redaction::default();
        if let Some((_, password)) = &settings.login {
            redaction.add(password);
        }
        let tls = match settings.encryption {
            Encryption::None => None,
            Encryption::Tls | Encryption::StartTls => Some(tls(&settings)?),
        };
        Ok(Self {
            settings,
            tls,
            redaction,
        })
    }

    /// Hands the mail over, in a connection of its own.
    async fn send(&self, from: &Mailbox, to: &[Mailbox], mail: &[u8]) -> Result<Receipt, Failure> {
        let mut connection = self.connect().await?;
        let hand_over = connection.command(Mail::new(Some(from.email.clone()), Vec::new()));
        hand_over
            .await
            .map_err(|error| self.failed(&format!("send mail from {}", from.email), &error))?;
        let mut refused = Vec::new();
        for mailbox in to {
            let asked = connection.command(Rcpt::new(mailbox.email.clone(), Vec::new()));
            if let Err(error) = asked.await {
                refused.push(self.failed(&format!("send mail to {}", mailbox.email), &error));
            }
        }
        if refused.len() == to.len() {
            return Err(none_accepted(refused));
        }
        let failed = |error| self.failed("hand over a mail", &error);
        connection.command(Data).await.map_err(failed)?;
        let answer = connection.message(mail).await.map_err(failed)?;
        // It is the server's now; that we leave is a courtesy.
        let _ = connection.quit().await;
        Ok(self.receipt(&answer, &refused))
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, Failure> {
        let (settings, name) = (&self.settings, hello_name());
        let wrapper = self
            .tls
            .clone()
            .filter(|_| settings.encryption == Encryption::Tls);
        let address = (settings.host.as_str(), settings.port);
        let connecting =
            AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT_TIME), &name, wrapper, None);
        let mut connection = connecting.await.map_err(|error| self.failed("connect", &error))?;
        if let (Encryption::StartTls, Some(tls)) = (settings.encryption, self.tls.clone()) {
            let upgraded = connection.starttls(tls, &name).await;
            upgraded.map_err(|error| self.failed("begin encryption", &error))?;
        }
        if let Some((username, password)) = &settings.login {
            let credentials = Credentials::new(username.clone(), password.expose().to_owned());
            let logged_in = connection.auth(DEFAULT_MECHANISMS, &credentials).await;
            logged_in.map_err(|error| self.failed(&format!("log in as {username}"), &error))?;
        }
        Ok(connection)
    }

    fn receipt(&self, answer: &Response, refused: &[Failure]) -> Receipt {
        let said: Vec<&str> = answer.message().collect();
        let said = self
            .redaction
            .quote(&format!("{} {}", answer.code(), said.join(" ")));
        if refused.is_empty() {
            return Receipt(said);
        }
        let reasons: Vec<&str> = refused.iter().map(|failure| failure.reason.as_str()).collect();
        tracing::warn!("a mail did not go to everybody: {}", reasons.join("; "));
        Receipt(format!("{said}; but not for everybody: {}", reasons.join("; ")))
    }

    fn failed(&self, tried: &str, error: &lettre::transport::smtp::Error) -> Failure {
        let why = self.redaction.quote(&error.to_string());
        let is_certificate = authorities::is_about_certificate(error);
        let advice = match () {
            () if is_certificate => {
                "name the authority that signed the server's certificate as `ca_file`, or correct `server`"
            }
            () if error.is_client() || error.is_permanent() => {
                "correct the channel, or what the server complains of"
            }
            () => "check `server` and `encryption`, and that it can be reached from here",
        };
        let Settings { host, port, .. } = &self.settings;
        Failure {
            reason: format!("{tried}, at {host}:{port}: {why}; {advice}"),
            retry_after: None,
            lasting: is_certificate || error.is_client() || error.is_permanent(),
        }
    }
}

/// What will pass for one recipient may pass for the mail.
fn none_accepted(refused: Vec<Failure>) -> Failure {
    let reasons: Vec<&str> = refused.iter().map(|failure| failure.reason.as_str()).collect();
    Failure {
        reason: reasons.join("; "),
        retry_after: None,
        lasting: refused.iter().all(|failure| failure.lasting),
    }
}

fn tls(settings: &Settings) -> Result<TlsParameters, Failure> {
    let unusable = |error: lettre::transport::smtp::Error| {
        Failure::lasts(format!("set up TLS: {error}; check `ca_file`"))
    };
    let mut builder = TlsParameters::builder(settings.host.clone());
    if let Some(file) = &settings.ca_file {
        for certificate in authorities::read(file)? {
            let certificate = Certificate::from_der(certificate.to_vec()).map_err(unusable)?;
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(unusable)
}

/// This machine's name where it is a full one; else its address, which every server takes.
fn hello_name() -> ClientId {
    let name = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    let is_full = |name: &String| {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '.';
        name.contains('.') && name.chars().all(is_plain)
    };
    name.filter(is_full)
        .map_or_else(ClientId::default, ClientId::Domain)
}

#[async_trait]
impl Channel for Email {
    async fn prepare(&self) -> Result<(), Failure> {
        self.server.get().await?;
        Ok(())
    }

    async fn deliver(&self, message: &Message, now: DateTime<Utc>) -> Result<Receipt, Failure> {
        let mail = self
            .compose(message, now)
            .map_err(|error| Failure::lasts(format!("write a mail: {error}")))?;
        let server = self.server.get().await?;
        server.send(&self.from, &self.to, &mail).await
    }
}

impl Email {
    fn compose(&self, message: &Message, now: DateTime<Utc>) -> Result<Vec<u8>, lettre::error::Error> {
        let domain = self.from.email.domain();
        // All mails about one alert, from its beginning to its end, are one conversation.
        let first = format!(
            "<{}.{}@{domain}>",
            message.fingerprint(),
            message.since.timestamp()
        );
        let is_first = message.state == AlertState::Firing && !message.reminder;
        let mut builder = lettre::Message::builder()
            .from(self.from.clone())
            .subject(subject(message))
            .date(SystemTime::from(now))
            .raw_header(HeaderValue::new(AUTO_SUBMITTED, "auto-generated".to_owned()))
            .header(ContentType::TEXT_PLAIN);
        builder = self.to.iter().cloned().fold(builder, MessageBuilder::to);
        builder = match is_first {
            true => builder.message_id(Some(first)),
            false => {
                let id = format!(
                    "<{}.{}.{}.{}@{domain}>",
                    message.fingerprint(),
                    message.since.timestamp(),
                    message.state.as_str(),
                    message.resolved_at.unwrap_or(now).timestamp()
                );
                builder
                    .message_id(Some(id))
                    .in_reply_to(first.clone())
                    .references(first)
            }
        };
        Ok(builder.body(text(message))?.formatted())
    }
}

/// `[FIRING] critical: shop: more would be lost than the RPO allows`
fn subject(message: &Message) -> String {
    let test = if message.is_test() { "[TEST] " } else { "" };
    let state = match (message.state, message.reminder) {
        (AlertState::Resolved, _) => "[RESOLVED]",
        (AlertState::Firing, true) => "[STILL FIRING]",
        (AlertState::Firing, false) => "[FIRING]",
    };
    in_one_line(&format!(
        "{test}{state} {}: {}",
        message.severity(),
        message.summary
    ))
}

/// Everything, the most important first, in short lines.
fn text(message: &Message) -> String {
    let mut lines = Vec::new();
    if message.is_test() {
        lines.push("This is a test: nothing is wrong.".to_owned());
        lines.push(String::new());
    }
    lines.push(in_one_line(&message.summary));
    lines.push(String::new());
    lines.extend(message.description.lines().map(in_one_line));
    lines.push(String::new());
    let moment = |moment: DateTime<Utc>| moment.format("%Y-%m-%d %H:%M:%S UTC").to_string();
    lines.push(format!("Since: {}", moment(message.since)));
    if let Some(resolved_at) = message.resolved_at {
        lines.push(format!("Resolved: {}", moment(resolved_at)));
    }
    lines.push(format!("Runbook: {}", in_one_line(&message.runbook_url)));
    lines.push(String::new());
    let labels = message.labels.iter();
    lines.extend(labels.map(|(name, value)| format!("{}: {}", in_one_line(name), in_one_line(value))));
    lines.join("\n")
}
