//! Mail, through a real mail server in a process of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use ernstfall::alert::channel::email::{Email, Encryption, Server, Settings};
use ernstfall::alert::late::Late;
use ernstfall::alert::message::Message;
use ernstfall::model::secret::Secret;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{PATIENCE, deliver, firing, hostile, moment, resolved, test};
use crate::support::account::Account;
use crate::support::directory::TestDir;
use crate::support::monitoring::free_address;
use crate::support::process::{Captured, die_with_us, kill_group};
use crate::support::skip::require;
use crate::support::tls::{CA, CERTIFICATE, KEY, LOCAL_NAMES, make_certificates};

const PASSWORD: &str = "mail-passw0rd";

/// Debian's own: it has Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

/// Says its port in the first line, and every mail in one line more.
const SCRIPT: &str = r#"
import asyncio, json, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult

settings = json.loads(sys.argv[1])

class Handler:
    async def handle_MAIL(self, server, session, envelope, address, options):
        if settings.get("mail"):
            return settings["mail"]
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address in settings.get("refused", {}):
            return settings["refused"][address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        print(json.dumps({
            "from": envelope.mail_from, "to": envelope.rcpt_tos, "content": envelope.content.decode(),
            "encrypted": session.ssl is not None or settings["tls"] == "tls", "user": session.auth_data,
        }), flush=True)
        return "250 kept as mail 17"

def authenticate(server, session, envelope, mechanism, data):
    good = data.login == b"ernstfall" and data.password == settings["password"].encode()
    return AuthResult(success=good, handled=False, auth_data="ernstfall")

async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if settings["tls"] != "none":
        context.load_cert_chain(settings["certificate"], settings["key"])
    def factory():
        return SMTP(Handler(), authenticator=authenticate, auth_require_tls=settings["tls"] == "starttls",
                    auth_required=settings["tls"] != "none",
                    tls_context=context if settings["tls"] == "starttls" else None,
                    require_starttls=settings["tls"] == "starttls")
    server = await asyncio.get_running_loop().create_server(
        factory, "127.0.0.1", 0, ssl=context if settings["tls"] == "tls" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

asyncio.run(main())
"#;

fn is_installed() -> bool {
    let mut command = Command::new(PYTHON);
    command.args(["-c", "import aiosmtpd"]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

struct MailServer {
    child: Child,
    output: Captured,
    port: u16,
    directory: TestDir,
}

impl MailServer {
    /// `tls`: `starttls`, `tls` or `none`. `more`: refusals, as the script has them.
    fn start(tls: &str, names: &str, more: Value) -> Self {
        let directory = TestDir::new("mail");
        make_certificates(directory.path(), names);
        let mut settings = json!({
            "tls": tls, "password": PASSWORD,
            "certificate": directory.join(CERTIFICATE), "key": directory.join(KEY),
        });
        settings
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let mut command = Command::new(PYTHON);
        command
            .arg(directory.write("server.py", SCRIPT))
            .arg(settings.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Account::unprivileged().run_as(&mut command);
        die_with_us(&mut command, Signal::SIGKILL);
        let mut child = command.spawn().unwrap();
        let output = Captured::new(child.stdout.take().unwrap());
        assert!(
            output.wait_for("\n", Instant::now() + PATIENCE),
            "the mail server did not start"
        );
        let port = output.text().trim().parse().unwrap();
        Self {
            child,
            output,
            port,
            directory,
        }
    }

    fn settings(&self, encryption: Encryption) -> Settings {
        Settings {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            encryption,
            ca_file: Some(self.directory.join(CA)),
            login: Some(("ernstfall".to_owned(), Secret::new(PASSWORD))),
        }
    }

    /// What came; a mail is there before the client hears so.
    fn mails(&self) -> Vec<Value> {
        let text = self.output.text();
        text.lines()
            .skip(1)
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn wait_for_mails(&self, count: usize) -> Vec<Value> {
        crate::shop::wait_for("the mail", || self.mails().len() >= count);
        self.mails()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        kill_group(&mut self.child);
    }
}

fn email(settings: Settings) -> Email {
    email_to(settings, &["On Call <oncall@example.org>"])
}

fn email_to(settings: Settings, to: &[&str]) -> Email {
    let to: Vec<String> = to.iter().map(|text| (*text).to_owned()).collect();
    let server = Late::new(move || Server::new(settings.clone()));
    Email::new("Ernstfall <ernstfall@example.org>", &to, server).unwrap()
}

/// A header with its continuation lines; `None` where it is missing.
fn header(mail: &Value, name: &str) -> Option<String> {
    let (head, _) = mail["content"].as_str().unwrap().split_once("\r\n\r\n").unwrap();
    let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    let start = format!("{name}: ");
    let mut found = unfolded.lines().filter_map(|line| line.strip_prefix(&start));
    let value = found.next().map(str::to_owned);
    assert_eq!(found.next(), None, "{name} twice");
    value
}

fn body(mail: &Value) -> String {
    let (_, body) = mail["content"].as_str().unwrap().split_once("\r\n\r\n").unwrap();
    body.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn mails_about_one_alert_are_one_conversation() {
    require!(is_installed(), "python3-aiosmtpd is not installed");
    let server = MailServer::start("starttls", LOCAL_NAMES, json!({}));
    let channel = email(server.settings(Encryption::StartTls));
    let reminder = Message {
        reminder: true,
        ..firing()
    };
    for message in [firing(), reminder, resolved(), test()] {
        let receipt = deliver(&channel, &message).await.unwrap();
        assert_eq!(receipt.0, "250 kept as mail 17");
    }
    let mails = server.wait_for_mails(4);
    let header = |index: usize, name| header(&mails[index], name);
    for (index, subject) in [
        "[FIRING] critical: shop: more would be lost than the RPO allows",
        "[STILL FIRING] critical: shop: more would be lost than the RPO allows",
        "[RESOLVED] critical: shop: more would be lost than the RPO allows",
        "[TEST] [FIRING] critical: shop: more would be lost than the RPO allows",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(header(index, "Subject").unwrap(), subject);
        assert_eq!(header(index, "Auto-Submitted").unwrap(), "auto-generated");
        assert_eq!(header(index, "To").unwrap(), "\"On Call\" <oncall@example.org>");
        assert_eq!(mails[index]["encrypted"], true);
        assert_eq!(mails[index]["user"], "ernstfall");
    }
    let first = header(0, "Message-ID").unwrap();
    assert!(first.ends_with("@example.org>"), "{first}");
    assert_eq!((header(0, "In-Reply-To"), header(0, "References")), (None, None));
    for index in [1, 2] {
        assert_eq!(header(index, "In-Reply-To").as_ref(), Some(&first));
        assert_eq!(header(index, "References").as_ref(), Some(&first));
    }
    let ids: std::collections::BTreeSet<_> =
        (0..4).map(|index| header(index, "Message-ID").unwrap()).collect();
    assert_eq!(ids.len(), 4);
    assert_eq!(
        moment("2026-03-01T10:01:00Z"),
        chrono::DateTime::parse_from_rfc2822(&header(0, "Date").unwrap()).unwrap()
    );
    assert_eq!(
        body(&mails[2]).replace("\r\n", "\n"),
        "shop: more would be lost than the RPO allows

The newest recovery point is 2 hours old.
The RPO is 1 hour.

Since: 2026-03-01 10:00:00 UTC
Resolved: 2026-03-01 12:30:00 UTC
Runbook: https://example.org/runbook#ernstfallrpomissed

alertname: ErnstfallRpoMissed
environment: production
owner: commerce
severity: critical
target: shop
"
    );
    assert!(body(&mails[3]).starts_with("This is a test"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_text_gets_out_of_its_header() {
    require!(is_installed(), "python3-aiosmtpd is not installed");
    let server = MailServer::start("tls", LOCAL_NAMES, json!({}));
    deliver(&email(server.settings(Encryption::Tls)), &hostile())
        .await
        .unwrap();
    let mails = server.wait_for_mails(1);
    assert_eq!(header(&mails[0], "Bcc"), None);
    assert!(header(&mails[0], "Subject").is_some());
    assert_eq!(mails[0]["to"], json!(["oncall@example.org"]));
    assert_eq!(mails[0]["encrypted"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_this_machine_needs_neither_encryption_nor_password() {
    require!(is_installed(), "python3-aiosmtpd is not installed");
    let server = MailServer::start("none", LOCAL_NAMES, json!({}));
    let settings = Settings {
        login: None,
        ..server.settings(Encryption::None)
    };
    deliver(&email(settings), &firing()).await.unwrap();
    assert_eq!(server.wait_for_mails(1)[0]["user"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_a_server_that_is_not_proven_or_does_not_encrypt() {
    require!(is_installed(), "python3-aiosmtpd is not installed");
    let server = MailServer::start("starttls", "DNS:other.example.org", json!({}));
    let trusting = |ca_file: Option<PathBuf>| Settings {
        ca_file,
        ..server.settings(Encryption::StartTls)
    };
    let plain = MailServer::start("none", LOCAL_NAMES, json!({}));
    for (settings, part) in [
        // Of an unknown authority; of another name.
        (trusting(None), "`ca_file`"),
        (trusting(Some(server.directory.join(CA))), "correct `server`"),
        (plain.settings(Encryption::StartTls), "STARTTLS is not supported"),
    ] {
        let failure = deliver(&email(settings), &firing()).await.unwrap_err();
        assert!(
            failure.lasting && failure.reason.contains(part),
            "{}",
            failure.reason
        );
    }
    assert_eq!((server.mails().len(), plain.mails().len()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_without_it() {
    require!(is_installed(), "python3-aiosmtpd is not installed");
    let server = MailServer::start("starttls", LOCAL_NAMES, json!({}));
    let settings = Settings {
        login: Some(("ernstfall".to_owned(), Secret::new("wrong-passw0rd"))),
        ..server.settings(Encryption::StartTls)
    };
    let failure = deliver(&email(settings), &firing()).await.unwrap_err();
    assert!(failure.lasting, "{}", failure.reason);
    for part in ["log in as ernstfall, at 127.0.0.1:", "535"] {
        assert!(failure.reason.contains(part), "{}", failure.reason);
    }
    assert!(!failure.reason.contains("wrong-passw0rd"), "{}", failure.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_who_is_refused_keeps_the_mail_from_nobody_else() {
    require!(is_installed(), "python3-aiosmtpd is not installed");
    let refused =
        json!({ "refused": { "gone@example.org": "550 no such user", "full@example.org": "452 full" } });
    let server = MailServer::start("starttls", LOCAL_NAMES, refused);
    let settings = || server.settings(Encryption::StartTls);
    let some = email_to(
        settings(),
        &["gone@example.org", "here@example.org", "full@example.org"],
    );
    let receipt = deliver(&some, &firing()).await.unwrap();
    for part in [
        "250 kept as mail 17",
        "gone@example.org",
        "no such user",
        "full@example.org",
    ] {
        assert!(receipt.0.contains(part), "{}", receipt.0);
    }
    assert_eq!(server.wait_for_mails(1)[0]["to"], json!(["here@example.org"]));

    let gone = deliver(&email_to(settings(), &["gone@example.org"]), &firing())
        .await
        .unwrap_err();
    assert!(
        gone.lasting && gone.reason.contains("no such user"),
        "{}",
        gone.reason
    );
    let full = email_to(settings(), &["gone@example.org", "full@example.org"]);
    assert!(!deliver(&full, &firing()).await.unwrap_err().lasting);
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_busy_or_gone_may_be_there_later() {
    require!(is_installed(), "python3-aiosmtpd is not installed");
    let busy = MailServer::start("starttls", LOCAL_NAMES, json!({ "mail": "421 too busy" }));
    let failure = deliver(&email(busy.settings(Encryption::StartTls)), &firing())
        .await
        .unwrap_err();
    assert!(
        !failure.lasting && failure.reason.contains("421"),
        "{}",
        failure.reason
    );
    let gone = Settings {
        port: free_address().port(),
        ..busy.settings(Encryption::StartTls)
    };
    let failure = deliver(&email(gone), &firing()).await.unwrap_err();
    assert!(
        !failure.lasting && failure.reason.contains("connect, at 127.0.0.1:"),
        "{}",
        failure.reason
    );
}

#[test]
fn what_is_no_address_is_named() {
    let server = || Late::new(|| unreachable!("nothing is sent"));
    for wrong in [
        "oncall",
        "on call@example.org",
        "a@b\r\nBcc: eve@example.org",
        "grüße@example.org",
    ] {
        let error = Email::new("a@example.org", &[wrong.to_owned()], server())
            .err()
            .unwrap();
        assert!(error.to_string().contains("is not an address"), "{error}");
    }
}
