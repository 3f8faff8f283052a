//! The templates that are shipped, as their receivers get them; and templates with faults.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ernstfall::alert::channel::template::Template;
use ernstfall::alert::channel::webhook::{Addressee, Webhook};
use ernstfall::alert::http::{Receiver, Settings};
use ernstfall::alert::late::Late;
use ernstfall::alert::message::Message;
use ernstfall::model::secret::Secret;
use serde_json::{Value, json};

use super::receiver::{Does, TestReceiver};
use super::{deliver, firing, hostile, resolved, test};
use crate::support::directory::TestDir;
use crate::support::ernstfall::Ernstfall;

const ROUTING_KEY: &str = "r0uting\"key";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn load(file: &Path) -> Result<Template, String> {
    Template::load(file, &["routing_key".to_owned()]).map_err(|error| error.to_string())
}

fn channel(receiver: &TestReceiver, template: Template) -> Webhook {
    let url = receiver.url("/");
    let addressee = Late::new(move || {
        let key = Secret::new(ROUTING_KEY);
        let settings = Settings {
            url: Secret::new(url.clone()),
            token: None,
            headers: Vec::new(),
            ca_file: None,
            in_body: vec![key.clone()],
        };
        Ok(Addressee {
            receiver: Receiver::new(&settings)?,
            values: BTreeMap::from([("routing_key".to_owned(), key)]),
        })
    });
    Webhook::new(addressee, Some(template))
}

/// What arrives of a message.
async fn arrived(name: &str, message: &Message) -> Value {
    let receiver = TestReceiver::start(Does::answer("200 OK", &[], "ok"));
    let channel = channel(&receiver, load(&shipped(name)).unwrap());
    deliver(&channel, message).await.unwrap();
    let request = receiver.request();
    assert_eq!(request.header("content-type"), Some("application/json"));
    serde_json::from_str(&request.body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slack_shows_every_fact_and_no_value_does_anything_there() {
    let said = arrived("webhook-slack.json.j2", &firing()).await;
    let text = said["text"].as_str().unwrap();
    for part in [
        "*[FIRING] critical: shop: more would be lost than the RPO allows*",
        "The newest recovery point is 2 hours old.\nThe RPO is 1 hour.",
        "shop",
        "production",
        "commerce",
        "https://example.org/runbook#ernstfallrpomissed",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let text = |said: Value| said["text"].as_str().unwrap().to_owned();
    let over = text(arrived("webhook-slack.json.j2", &resolved()).await);
    assert!(
        over.starts_with("*[RESOLVED] critical: ") && over.contains("2026-03-01T12:30:00Z"),
        "{over}"
    );
    let reminder = Message {
        reminder: true,
        ..firing()
    };
    assert!(text(arrived("webhook-slack.json.j2", &reminder).await).starts_with("*[STILL FIRING] "));
    let tried = text(arrived("webhook-slack.json.j2", &test()).await);
    assert!(tried.starts_with("*[TEST] [FIRING] critical: "), "{tried}");

    let evil = text(arrived("webhook-slack.json.j2", &hostile()).await);
    assert!(evil.contains("a \"quote\" \\ {{ summary }} {% raw %}"), "{evil}");
    assert!(
        evil.contains("&lt;!channel&gt;") && !evil.contains("<!channel>"),
        "{evil}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pagerduty_opens_and_closes_one_incident_for_one_alert() {
    let name = "webhook-pagerduty.json.j2";
    let said = arrived(name, &firing()).await;
    assert_eq!(said["routing_key"], ROUTING_KEY);
    assert_eq!(said["event_action"], "trigger");
    assert_eq!(said["dedup_key"], firing().fingerprint());
    assert_eq!(said["payload"]["summary"], firing().summary);
    assert_eq!(said["payload"]["severity"], "critical");
    assert_eq!(said["payload"]["source"], "shop");
    assert_eq!(said["payload"]["timestamp"], "2026-03-01T10:00:00Z");
    assert_eq!(said["payload"]["custom_details"]["owner"], "commerce");
    assert_eq!(said["links"][0]["href"], firing().runbook_url);

    let over = arrived(name, &resolved()).await;
    assert_eq!(over["event_action"], "resolve");
    assert_eq!(over["dedup_key"], said["dedup_key"]);

    let tried = arrived(name, &test()).await;
    assert_eq!(
        tried["payload"]["summary"],
        format!("[TEST] {}", firing().summary)
    );
    // Another alert: closing one does not close the other.
    assert_ne!(tried["dedup_key"], said["dedup_key"]);

    let evil = arrived(name, &hostile()).await;
    assert_eq!(evil["payload"]["summary"], hostile().summary);
    assert_eq!(
        evil["payload"]["custom_details"]["description"],
        hostile().description
    );

    for (severity, expected) in [("warning", "warning"), ("info", "info"), ("page", "error")] {
        let mut message = firing();
        message.labels.insert("severity".to_owned(), severity.to_owned());
        assert_eq!(arrived(name, &message).await["payload"]["severity"], expected);
    }
    let mut long = firing();
    long.summary = "ä".repeat(2000);
    let said = arrived(name, &long).await;
    assert!(said["payload"]["summary"].as_str().unwrap().chars().count() <= 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_of_another_name_makes_plain_text() {
    let directory = TestDir::new("template");
    let file = directory.write(
        "page.txt",
        "{{ alert }}: {{ summary }} ({{ values.routing_key }})",
    );
    let receiver = TestReceiver::start(Does::answer("200 OK", &[], ""));
    let channel = channel(&receiver, load(&file).unwrap());
    deliver(&channel, &firing()).await.unwrap();
    let request = receiver.request();
    assert_eq!(request.header("content-type"), Some("text/plain; charset=utf-8"));
    let expected = format!("ErnstfallRpoMissed: {} ({ROUTING_KEY})", firing().summary);
    assert_eq!(request.body, expected);
}

#[test]
fn a_template_that_would_fail_for_some_alert_is_refused_when_it_is_loaded() {
    let directory = TestDir::new("template");
    for (name, text, part) in [
        ("a.json", "{ \"text\": {{ summary }", "line 1: "),
        (
            "b.json.j2",
            "{\n \"text\": {{ sumary }} }",
            "line 2: undefined value",
        ),
        ("c.json", "{ \"text\": \"{{ summary }}\" }", "is not JSON"),
        // Not every alert is about a target.
        ("d.txt", "{{ labels.target }}", "line 1: undefined value"),
        ("e.txt", "{{ values.other_key }}", "line 1: undefined value"),
        (
            "f.txt",
            "{% if resolved_at %}{{ nothing }}{% endif %}",
            "line 1: undefined value",
        ),
    ] {
        let file = directory.write(name, text);
        let error = load(&file).err().unwrap_or_else(|| panic!("{text} was taken"));
        assert!(error.contains(part) && error.contains(name), "{error}");
    }
    let fine = directory.write("g.json", "{ \"text\": {{ labels.target | default(\"\") }} }");
    load(&fine).unwrap();
    let error = load(&directory.join("none.json")).err().unwrap();
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn check_refuses_a_faulty_template_as_a_fault_of_the_configuration() {
    let directory = TestDir::new("template");
    directory.write("chat.json", "{\n \"text\": {{ sumary }} }");
    let output = Ernstfall::new(&directory)
        .configuration(
            "state_dir = \"state\"\n[repository]\nurl = \"backups\"\n[[target]]\nname = \"shop\"\nurl = \"host=none\"\n\
             [[alert.channel]]\nkind = \"webhook\"\nname = \"chat\"\nurl = \"http://x\"\ntemplate = \"chat.json\"\n",
        )
        .run(["check"])
        .expect_code(2);
    for part in ["alert.channel[chat]", "chat.json: line 2: undefined value"] {
        assert!(output.stderr.contains(part), "{}", output.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_template_holds_for_its_receiver_alone_is_in_no_error() {
    let receiver = TestReceiver::start(Does::answer(
        "400 Bad Request",
        &[],
        &format!("bad key {ROUTING_KEY}"),
    ));
    let channel = channel(&receiver, load(&shipped("webhook-pagerduty.json.j2")).unwrap());
    let failure = deliver(&channel, &firing()).await.unwrap_err();
    assert!(
        failure.reason.contains("bad key ***") && !failure.reason.contains(ROUTING_KEY),
        "{}",
        failure.reason
    );
    assert_eq!(json!(failure.lasting), json!(true));
}
