//! How people are told: each channel against a real receiver, and against receivers that misbehave.

mod mail;
mod receiver;
mod templates;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ernstfall::alert::channel::alertmanager::Alertmanager;
use ernstfall::alert::channel::command::Command;
use ernstfall::alert::channel::webhook::{Addressee, Webhook};
use ernstfall::alert::channel::{Channel, Failure, Receipt};
use ernstfall::alert::http::{self, Receiver};
use ernstfall::alert::late::Late;
use ernstfall::alert::message::Message;
use ernstfall::alert::ping::{Ping, Signal};
use ernstfall::model::alert_record::AlertState;
use ernstfall::model::secret::Secret;
use serde_json::{Value, json};

use self::receiver::{Does, TestReceiver};
use crate::shop::wait_for;
use crate::support::directory::TestDir;
use crate::support::monitoring::{self, OnCall, find, free_address, get};
use crate::support::s3::front;
use crate::support::skip::require;
use crate::support::tls::{CA, LOCAL_NAMES, make_certificates};

/// As long as nobody waits who is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// A part of the address that nobody may see.
const URL_SECRET: &str = "T0KEN-in-the-path";

pub(super) fn moment(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

pub(super) fn firing() -> Message {
    let labels = [
        ("alertname", "ErnstfallRpoMissed"),
        ("severity", "critical"),
        ("target", "shop"),
        ("environment", "production"),
        ("owner", "commerce"),
    ];
    Message {
        labels: labels
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        state: AlertState::Firing,
        summary: "shop: more would be lost than the RPO allows".to_owned(),
        description: "The newest recovery point is 2 hours old.\nThe RPO is 1 hour.".to_owned(),
        runbook_url: "https://example.org/runbook#ernstfallrpomissed".to_owned(),
        since: moment("2026-03-01T10:00:00Z"),
        resolved_at: None,
        reminder: false,
    }
}

pub(super) fn resolved() -> Message {
    Message {
        state: AlertState::Resolved,
        resolved_at: Some(moment("2026-03-01T12:30:00Z")),
        ..firing()
    }
}

pub(super) fn test() -> Message {
    let mut message = firing();
    message
        .labels
        .insert("ernstfall_test".to_owned(), "true".to_owned());
    message
}

/// With everything in it that breaks what is made of texts without care.
pub(super) fn hostile() -> Message {
    let evil =
        "a \"quote\" \\ {{ summary }} {% raw %}\r\nBcc: eve@example.org\r\n\r\n<!channel> ü \u{0} \u{1b}[2J";
    let mut message = firing();
    message.summary = evil.to_owned();
    message.description = evil.to_owned();
    message.labels.insert("owner".to_owned(), evil.to_owned());
    message
}

fn settings(url: impl Into<String>) -> http::Settings {
    http::Settings {
        url: Secret::new(url),
        token: Some(Secret::new("bearer-t0ken")),
        headers: vec![("X-Team".to_owned(), Secret::new("header-s3cret"))],
        ca_file: None,
        in_body: Vec::new(),
    }
}

fn webhook(settings: http::Settings) -> Webhook {
    let addressee = Late::new(move || {
        Ok(Addressee {
            receiver: Receiver::new(&settings)?,
            values: BTreeMap::new(),
        })
    });
    Webhook::new(addressee, None)
}

/// Delivers, and fails if that takes for ever.
pub(super) async fn deliver(channel: &dyn Channel, message: &Message) -> Result<Receipt, Failure> {
    let delivered = channel.deliver(message, moment("2026-03-01T10:01:00Z"));
    let delivered = tokio::time::timeout(PATIENCE, delivered)
        .await
        .expect("an end of the delivery");
    if let Err(failure) = &delivered {
        for secret in [URL_SECRET, "bearer-t0ken", "header-s3cret"] {
            assert!(!failure.reason.contains(secret), "{}", failure.reason);
        }
        assert!(!failure.reason.contains(char::is_control), "{}", failure.reason);
    }
    delivered
}

async fn failure_of(does: Does) -> Failure {
    let receiver = TestReceiver::start(does);
    let url = receiver.url(&format!("/hook/{URL_SECRET}?key={URL_SECRET}"));
    deliver(&webhook(settings(url)), &firing()).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_every_fact_as_json_with_its_headers() {
    let receiver = TestReceiver::start(Does::answer("202 Accepted", &[], "thanks"));
    let channel = webhook(settings(receiver.url("/hook?a=b")));
    assert_eq!(
        deliver(&channel, &firing()).await.unwrap(),
        Receipt("202 Accepted".to_owned())
    );
    let request = receiver.request();
    assert_eq!(request.line, "POST /hook?a=b HTTP/1.1");
    for (name, value) in [
        ("content-type", "application/json"),
        ("authorization", "Bearer bearer-t0ken"),
        ("x-team", "header-s3cret"),
    ] {
        assert_eq!(request.header(name), Some(value));
    }
    let expected = json!({
        "status": "firing",
        "alert": "ErnstfallRpoMissed",
        "severity": "critical",
        "target": "shop",
        "environment": "production",
        "owner": "commerce",
        "summary": "shop: more would be lost than the RPO allows",
        "description": "The newest recovery point is 2 hours old.\nThe RPO is 1 hour.",
        "runbook_url": "https://example.org/runbook#ernstfallrpomissed",
        "labels": firing().labels,
        "since": "2026-03-01T10:00:00Z",
        "resolved_at": null,
        "reminder": false,
        "test": false,
        "fingerprint": firing().fingerprint(),
    });
    assert_eq!(serde_json::from_str::<Value>(&request.body).unwrap(), expected);

    deliver(
        &channel,
        &Message {
            labels: test().labels,
            ..resolved()
        },
    )
    .await
    .unwrap();
    let said: Value = serde_json::from_str(&receiver.request().body).unwrap();
    assert_eq!(said["status"], "resolved");
    assert_eq!(said["resolved_at"], "2026-03-01T12:30:00Z");
    assert_eq!(said["test"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_answers_tells_whether_trying_again_helps() {
    for (status, may_pass) in [
        ("500 Internal Server Error", true),
        ("502 Bad Gateway", true),
        ("503 Service Unavailable", true),
        ("429 Too Many Requests", true),
        ("408 Request Timeout", true),
        ("400 Bad Request", false),
        ("401 Unauthorized", false),
        ("403 Forbidden", false),
        ("404 Not Found", false),
        ("410 Gone", false),
    ] {
        let failure = failure_of(Does::answer(status, &[], "no\tsuch \u{1b}[1mthing")).await;
        assert_eq!(failure.lasting, !may_pass, "{status}");
        assert_eq!(failure.retry_after, None, "{status}");
        for part in ["POST http://127.0.0.1:", status, "no such [1mthing", "; "] {
            assert!(failure.reason.contains(part), "{}", failure.reason);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_to_be_left_alone_is_for_at_most_an_hour() {
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    for (status, headers, expected) in [
        ("429 Too Many Requests", vec![("Retry-After", "17")], seconds(17)),
        (
            "503 Service Unavailable",
            vec![("Retry-After", "86400")],
            seconds(3600),
        ),
        (
            "503 Service Unavailable",
            vec![
                ("Date", "Wed, 21 Oct 2015 07:28:00 GMT"),
                ("Retry-After", "Wed, 21 Oct 2015 07:29:30 GMT"),
            ],
            seconds(90),
        ),
        ("429 Too Many Requests", vec![("Retry-After", "tomorrow")], None),
        ("500 Internal Server Error", vec![("Retry-After", "17")], None),
    ] {
        let failure = failure_of(Does::answer(status, &headers, "")).await;
        assert_eq!(
            (failure.retry_after, failure.lasting),
            (expected, false),
            "{status} {headers:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_told_and_not_followed() {
    let stranger = TestReceiver::start(Does::answer("200 OK", &[], ""));
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let location = stranger.url(&format!("/login/{URL_SECRET}?key={URL_SECRET}"));
        let failure = failure_of(Does::answer(status, &[("Location", &location)], "")).await;
        assert!(failure.lasting, "{status}");
        let shown = format!("{status} sends on to {}***", stranger.url("/login/"));
        assert!(failure.reason.contains(&shown), "{}", failure.reason);
    }
    assert_eq!(stranger.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_echoed_is_not_shown() {
    let echo = format!("bad path /hook/{URL_SECRET}, bad token bearer-t0ken, bad header header-s3cret");
    let failure = failure_of(Does::answer("400 Bad Request", &[], &echo)).await;
    assert!(
        failure.reason.contains("bad path") && failure.reason.contains("***"),
        "{}",
        failure.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_may_pass() {
    let failure = failure_of(Does::HangUp).await;
    assert!(!failure.lasting, "{}", failure.reason);

    let url = format!("http://{}/{URL_SECRET}", free_address());
    let failure = deliver(&webhook(settings(url)), &firing()).await.unwrap_err();
    assert!(!failure.lasting, "{}", failure.reason);
    assert!(
        failure.reason.contains("Connection refused"),
        "{}",
        failure.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_without_end_neither_stops_nor_fills_us() {
    let failure = failure_of(Does::Drip {
        status: "500 Internal Server Error",
    })
    .await;
    assert!(
        !failure.lasting && failure.reason.contains("500 "),
        "{}",
        failure.reason
    );
    let failure = failure_of(Does::Flood {
        status: "404 Not Found",
    })
    .await;
    assert!(
        failure.lasting && failure.reason.contains("404 "),
        "{}",
        failure.reason
    );
    assert!(failure.reason.len() < 1000, "{}", failure.reason);

    let receiver = TestReceiver::start(Does::Drip { status: "200 OK" });
    deliver(&webhook(settings(receiver.url("/"))), &firing())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_left_when_the_caller_gives_up() {
    let receiver = TestReceiver::start(Does::Hang);
    let channel = webhook(settings(receiver.url("/")));
    let message = firing();
    let delivery = tokio::time::timeout(Duration::from_millis(300), channel.deliver(&message, Utc::now()));
    assert!(delivery.await.is_err());
    wait_for("the connection is closed", || receiver.left() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_checked_against_the_systems_authorities_and_the_files() {
    let directory = TestDir::new("channel-tls");
    make_certificates(directory.path(), LOCAL_NAMES);
    let receiver = TestReceiver::start(Does::answer("200 OK", &[], ""));
    let url = front(receiver.address, directory.path());
    let with = |ca_file: Option<PathBuf>| http::Settings {
        ca_file,
        ..settings(url.clone())
    };
    let failure = deliver(&webhook(with(None)), &firing()).await.unwrap_err();
    assert!(
        failure.lasting && failure.reason.contains("`ca_file`"),
        "{}",
        failure.reason
    );
    assert_eq!(receiver.count(), 0);
    deliver(&webhook(with(Some(directory.join(CA)))), &firing())
        .await
        .unwrap();
    assert_eq!(receiver.count(), 1);

    let missing = deliver(&webhook(with(Some(directory.join("none.pem")))), &firing())
        .await
        .unwrap_err();
    assert!(
        missing.lasting && missing.reason.contains("none.pem"),
        "{}",
        missing.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_an_address_or_a_header_is_said_without_it() {
    for url in ["bearer-t0ken", "ftp://bearer-t0ken", "http://"] {
        let failure = deliver(&webhook(settings(url)), &firing()).await.unwrap_err();
        assert!(
            failure.lasting && failure.reason.contains("the URL"),
            "{}",
            failure.reason
        );
    }
    let token = Some(Secret::new("bearer-t0ken\r\nX-Evil: 1"));
    let broken = http::Settings {
        token,
        ..settings("http://127.0.0.1:1")
    };
    let failure = deliver(&webhook(broken), &firing()).await.unwrap_err();
    assert!(
        failure.lasting && failure.reason.contains("`token`"),
        "{}",
        failure.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_could_not_be_had_is_asked_for_again_and_then_kept() {
    let receiver = TestReceiver::start(Does::answer("200 OK", &[], ""));
    let settings = settings(receiver.url("/"));
    let asked = std::sync::Mutex::new(0);
    let addressee = Late::new(move || {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        match *asked {
            1 => Err(Failure::may_pass("locked")),
            2 => Ok(Addressee {
                receiver: Receiver::new(&settings)?,
                values: BTreeMap::new(),
            }),
            _ => panic!("it was there"),
        }
    });
    let channel = Webhook::new(addressee, None);
    assert_eq!(
        deliver(&channel, &firing()).await,
        Err(Failure::may_pass("locked"))
    );
    deliver(&channel, &firing()).await.unwrap();
    deliver(&channel, &firing()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_slower_than_a_delivery_is_there_for_a_later_one() {
    let receiver = TestReceiver::start(Does::answer("200 OK", &[], ""));
    let settings = settings(receiver.url("/"));
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let addressee = Late::new(move || {
        // A second one would wait for ever.
        wait.lock().unwrap().recv().unwrap();
        Ok(Addressee {
            receiver: Receiver::new(&settings)?,
            values: BTreeMap::new(),
        })
    });
    let channel = Webhook::new(addressee, None);
    let message = firing();
    let cut_off = tokio::time::timeout(Duration::from_millis(50), channel.deliver(&message, Utc::now()));
    assert!(cut_off.await.is_err());
    go.send(()).unwrap();
    deliver(&channel, &message).await.unwrap();
}

fn alertmanager(url: impl Into<String>) -> Alertmanager {
    let settings = settings(url);
    Alertmanager::new(Late::new(move || Receiver::new(&settings)))
}

/// A real one, once it answers.
fn started(receiver: &OnCall) -> monitoring::Alertmanager {
    let server = monitoring::Alertmanager::start(receiver.address);
    wait_for("Alertmanager is ready", || {
        get(server.address, "/-/ready").is_some_and(|answer| answer.status == 200)
    });
    server
}

fn shown(server: &monitoring::Alertmanager) -> Value {
    let answer = get(server.address, "/api/v2/alerts").unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

/// Since just now, so that Alertmanager takes it for what it says.
fn fresh() -> Message {
    let mut message = hostile();
    message.since = Utc::now() - TimeDelta::minutes(1);
    // What no label can hold.
    message
        .labels
        .insert("owner".to_owned(), "a \"quote\" \\ {{ x }}\nü".to_owned());
    message.labels.insert("environment".to_owned(), String::new());
    message
}

async fn confirm(channel: &dyn Channel, message: &Message, receipt: Receipt) -> Result<Receipt, Failure> {
    let confirmed = channel.confirm(message, receipt);
    tokio::time::timeout(PATIENCE, confirmed)
        .await
        .expect("Alertmanager shows it")
}

#[tokio::test(flavor = "multi_thread")]
async fn alertmanager_gets_refreshes_and_resolves_an_alert() {
    require!(
        find("prometheus-alertmanager").is_some(),
        "prometheus-alertmanager is not installed"
    );
    let on_call = OnCall::start();
    let server = started(&on_call);
    let channel = alertmanager(format!("http://{}/", server.address));
    assert_eq!(channel.refreshed_every(), Some(Duration::from_secs(60)));
    let (message, now) = (fresh(), Utc::now());

    let receipt = channel.deliver(&message, now).await.unwrap();
    assert_eq!(receipt, Receipt("200 OK".to_owned()));
    let confirmed = confirm(&channel, &message, receipt.clone()).await.unwrap();
    assert_eq!(confirmed.0, "200 OK, passed on to test");
    wait_for("the alert", || on_call.alert("ErnstfallRpoMissed").is_some());
    let heard = on_call.alert("ErnstfallRpoMissed").unwrap();
    assert_eq!(heard["labels"]["owner"], message.labels["owner"].as_str());
    assert_eq!(heard["annotations"]["summary"], message.summary.as_str());
    assert_eq!(heard["annotations"]["runbook_url"], message.runbook_url.as_str());

    let ends_at = |alerts: Value| moment(alerts[0]["endsAt"].as_str().unwrap());
    let before = ends_at(shown(&server));
    channel
        .deliver(&message, now + TimeDelta::minutes(1))
        .await
        .unwrap();
    wait_for("the alert to be refreshed", || {
        ends_at(shown(&server)) == before + TimeDelta::minutes(1)
    });

    let over = Message {
        state: AlertState::Resolved,
        resolved_at: Some(now),
        ..message
    };
    let receipt = channel.deliver(&over, now).await.unwrap();
    let confirmed = confirm(&channel, &over, receipt).await.unwrap();
    assert_eq!(confirmed.0, "200 OK, not shown any more");
    assert_eq!(shown(&server), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_that_is_silenced_did_not_arrive() {
    require!(
        find("amtool").is_some(),
        "prometheus-alertmanager is not installed"
    );
    let on_call = OnCall::start();
    let server = started(&on_call);
    let mut command = std::process::Command::new(find("amtool").unwrap());
    let url = format!("--alertmanager.url=http://{}", server.address);
    command.args([
        &url,
        "silence",
        "add",
        "--author=test",
        "--comment=test",
        "target=shop",
    ]);
    let silence = crate::support::process::run_or_panic(&mut command);
    let channel = alertmanager(format!("http://{}", server.address));
    let message = fresh();
    let receipt = channel.deliver(&message, Utc::now()).await.unwrap();
    let failure = confirm(&channel, &message, receipt).await.unwrap_err();
    assert!(
        failure.lasting && failure.reason.contains(silence.trim()),
        "{}",
        failure.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn alertmanager_may_be_below_a_path_and_behind_a_token() {
    let receiver = TestReceiver::start(Does::answer("200 OK", &[], ""));
    for path in ["", "/", "/monitoring", "/monitoring/"] {
        deliver(&alertmanager(receiver.url(path)), &resolved())
            .await
            .unwrap();
        let request = receiver.request();
        let expected = format!("POST {}/api/v2/alerts HTTP/1.1", path.trim_end_matches('/'));
        assert_eq!(request.line, expected);
        assert_eq!(request.header("authorization"), Some("Bearer bearer-t0ken"));
        let said: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(said[0]["endsAt"], "2026-03-01T12:30:00Z");
    }
    let refuses = TestReceiver::start(Does::answer("401 Unauthorized", &[], ""));
    let failure = deliver(&alertmanager(refuses.url("")), &firing())
        .await
        .unwrap_err();
    assert!(
        failure.lasting && failure.reason.contains("check the token"),
        "{}",
        failure.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_alertmanager_confirms_nothing() {
    let receiver = TestReceiver::start(Does::answer("200 OK", &[], "<html>"));
    let failure = alertmanager(receiver.url(""))
        .confirm(&firing(), Receipt(String::new()))
        .await
        .unwrap_err();
    assert!(
        failure.lasting && failure.reason.contains("is no Alertmanager"),
        "{}",
        failure.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_mans_switch_hears_start_success_and_failure() {
    let receiver = TestReceiver::start(Does::answer("200 OK", &[], ""));
    let settings = settings(receiver.url(&format!("/{URL_SECRET}/?a=b")));
    let ping = Ping::new(Late::new(move || Receiver::new(&settings)));
    for (signal, path) in [
        (Signal::Start, format!("/{URL_SECRET}/start?a=b")),
        (Signal::Success, format!("/{URL_SECRET}/?a=b")),
        (Signal::Fail, format!("/{URL_SECRET}/fail?a=b")),
    ] {
        ping.send(signal, "how it is").await.unwrap();
        let request = receiver.request();
        assert_eq!(
            (request.line, request.body),
            (format!("POST {path} HTTP/1.1"), "how it is".to_owned())
        );
    }
}

fn shell(script: &str) -> Command {
    Command::new(["sh", "-c", script].map(str::to_owned).to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_the_alert_as_json_and_as_variables() {
    let directory = TestDir::new("channel-command");
    let file = directory.join("said.json");
    let script = format!(
        "cat > '{}'; echo; echo \"paged: $ERNSTFALL_ALERT $ERNSTFALL_STATUS $ERNSTFALL_TARGET $ERNSTFALL_SEVERITY\"; echo \"$ERNSTFALL_SUMMARY\" >&2",
        file.display()
    );
    let receipt = deliver(&shell(&script), &hostile()).await.unwrap();
    assert_eq!(receipt.0, "paged: ErnstfallRpoMissed firing shop critical");
    let said: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(said["summary"], hostile().summary.as_str());

    // Nobody has to read it, or to say something; and what is left in the background holds nobody up.
    for script in ["exec <&-; exit 0", "sleep 300 &"] {
        assert_eq!(
            deliver(&shell(script), &firing()).await.unwrap().0,
            "exit status: 0"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_is_quoted_by_its_last_lines() {
    let lines = "for n in $(seq 1 20000); do echo \"line $n\" >&2; done; echo 'no\tmodem' >&2; exit 3";
    let failure = deliver(&shell(lines), &firing()).await.unwrap_err();
    for part in ["sh ended with exit status: 3", "line 20000; no modem"] {
        assert!(failure.reason.contains(part), "{}", failure.reason);
    }
    assert!(
        !failure.lasting && !failure.reason.contains("line 1;"),
        "{}",
        failure.reason
    );

    let missing = Command::new(vec!["/no/such/program".to_owned()]);
    let failure = deliver(&missing, &firing()).await.unwrap_err();
    assert!(
        failure.lasting && failure.reason.contains("/no/such/program"),
        "{}",
        failure.reason
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_hangs_is_killed_with_what_it_started() {
    let directory = TestDir::new("channel-command");
    let file = directory.join("pids");
    let script = format!(
        "sleep 300 & echo $$ $! > '{0}.new'; mv '{0}.new' '{0}'; wait",
        file.display()
    );
    let channel = shell(&script);
    let message = firing();
    let started = async {
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        ended = channel.deliver(&message, Utc::now()) => panic!("it ended by itself: {ended:?}"),
        () = started => {}
    }
    for pid in std::fs::read_to_string(&file).unwrap().split_whitespace() {
        wait_for("the process to end", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            // A zombie has ended; whoever took it over collects it.
            status.map_or(true, |status| status.contains(") Z "))
        });
    }
}
