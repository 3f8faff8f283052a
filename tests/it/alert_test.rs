//! `alert-test`: that alerts arrive is proven, and where they do not, it is said where the way ends.

use std::net::{SocketAddr, TcpListener};

use serde_json::Value;

use crate::shop::{LIMIT, Shop, wait_for};
use crate::support::directory::TestDir;
use crate::support::ernstfall::{Ernstfall, Running};
use crate::support::monitoring::{Alertmanager, OnCall, Prometheus, find, free_address};
use crate::support::skip::require;

/// Alerts need no database; nobody listens there.
fn ernstfall(directory: &TestDir) -> Ernstfall {
    Ernstfall::new(directory).target("shop", "postgresql://127.0.0.1:1/shop?connect_timeout=2")
}

fn webhook(name: &str, to: SocketAddr) -> String {
    format!("[[alert.channel]]\nkind = \"webhook\"\nname = \"{name}\"\nurl = \"http://{to}/\"\n")
}

fn command(name: &str, script: &str) -> String {
    format!(
        "[[alert.channel]]\nkind = \"command\"\nname = \"{name}\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n"
    )
}

/// The records of alert tests in the journal.
fn recorded(directory: &TestDir) -> Vec<Value> {
    let records = directory.join("state/records");
    let chains = std::fs::read_dir(records).into_iter().flatten().flatten();
    let files = chains.flat_map(|chain| std::fs::read_dir(chain.path()).unwrap().flatten());
    let texts = files.filter_map(|file| std::fs::read_to_string(file.path()).ok());
    let entries = texts.filter_map(|text| serde_json::from_str::<Value>(&text).ok());
    let records = entries.map(|mut entry| entry["record"].take());
    records.filter(|record| record["kind"] == "alert_test").collect()
}

fn messages(texts: impl IntoIterator<Item = String>) -> Vec<Value> {
    texts
        .into_iter()
        .map(|text| serde_json::from_str(&text).unwrap())
        .collect()
}

#[test]
fn a_test_alert_looks_like_the_real_one_arrives_by_every_channel_and_is_taken_back() {
    let directory = TestDir::new("alert-test");
    let on_call = OnCall::start();
    let file = directory.join("told");
    let script = format!("{{ cat; echo; }} >> {}; echo noted", file.display());
    let ernstfall = ernstfall(&directory)
        .tables(&webhook("chat", on_call.address))
        .tables(&command("pager", &script));
    let output = ernstfall
        .run(["alert-test", "--alert", "ErnstfallRpoMissed", "--json"])
        .expect_code(0);
    let record = output.json();
    assert_eq!(
        (&record["succeeded"], &record["target"]),
        (&true.into(), &"shop".into())
    );
    let receipts: Vec<&Value> = record["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|delivery| &delivery["receipt"])
        .collect();
    assert_eq!(receipts, ["200 OK", "noted"]);

    let by_webhook = messages(on_call.requests().into_iter().map(|request| request.body));
    let by_command = std::fs::read_to_string(file).unwrap();
    let by_command = messages(by_command.lines().map(str::to_owned));
    for told in [by_webhook, by_command] {
        let states: Vec<&Value> = told.iter().map(|message| &message["status"]).collect();
        assert_eq!(states, ["firing", "resolved"]);
        for (field, value) in [
            ("severity", "critical"),
            ("target", "shop"),
            ("environment", "test"),
            ("owner", "tests"),
            ("summary", "TEST: shop: more would be lost than the RPO allows"),
        ] {
            assert_eq!(told[0][field], value);
        }
        assert_eq!(
            (&told[0]["test"], &told[0]["labels"]["ernstfall_test"]),
            (&true.into(), &"true".into())
        );
        assert_eq!(told[0]["labels"]["test"], record["id"]);
        assert_eq!(told[0]["fingerprint"], told[1]["fingerprint"]);
    }
    let [mut kept] = recorded(&directory).try_into().unwrap();
    kept.as_object_mut().unwrap().remove("kind");
    assert_eq!(kept, record);
}

#[test]
fn a_channel_that_fails_is_told_with_its_reason_and_the_others_arrive() {
    let directory = TestDir::new("alert-test");
    let on_call = OnCall::start();
    let ernstfall = ernstfall(&directory)
        .tables(&webhook("gone", free_address()))
        .tables(&command("broken", "echo no paper >&2; exit 7"))
        .tables(&webhook("chat", on_call.address));
    let output = ernstfall.run(["alert-test"]).expect_code(1);
    // There is no repository yet.
    let listed = ernstfall.run(["list", "alerts"]).expect_code(0);
    assert!(listed.stdout.contains("no paper"), "{}", listed.stdout);
    assert!(
        listed.stderr.contains("only what this machine recorded"),
        "{}",
        listed.stderr
    );
    let row = |channel: &str| {
        let mut lines = output.stdout.lines();
        lines
            .find(|line| line.trim_start().starts_with(channel))
            .unwrap()
            .to_owned()
    };
    assert!(
        row("gone").contains("failed") && row("gone").contains("check the URL"),
        "{}",
        output.stdout
    );
    assert!(row("broken").contains("no paper"), "{}", output.stdout);
    assert!(
        row("chat").contains("delivered") && row("chat").contains("200 OK"),
        "{}",
        output.stdout
    );
    assert!(
        output.stderr.contains("the record is kept here"),
        "{}",
        output.stderr
    );
    assert_eq!(recorded(&directory)[0]["succeeded"], false);

    let alone = ernstfall
        .run(["alert-test", "--channel", "chat", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(alone["deliveries"].as_array().unwrap().len(), 1);
}

#[test]
fn a_test_that_is_not_known_to_be_over_has_failed() {
    let directory = TestDir::new("alert-test");
    let script = "grep -q firing";
    let ernstfall = ernstfall(&directory).tables(&command("half", script));
    let record = ernstfall.run(["alert-test", "--json"]).expect_code(1).json();
    let reason = record["deliveries"][0]["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("it arrived") && reason.contains("close it there"),
        "{reason}"
    );
}

#[test]
fn names_that_there_are_not_and_no_way_at_all_are_faults_of_usage() {
    let directory = TestDir::new("alert-test");
    let without = ernstfall(&directory);
    let refused = |ernstfall: &Ernstfall, arguments: &[&str], advice: &str| {
        let output = ernstfall
            .run_all(&[&["alert-test"], arguments].concat())
            .expect_code(2);
        assert!(output.stderr.contains(advice), "{arguments:?}: {}", output.stderr);
    };
    refused(&without, &[], "[[alert.channel]]");
    refused(&without, &["--through-prometheus"], "[http]");
    let with = ernstfall(&directory).tables(&command("pager", "true"));
    refused(&with, &["--channel", "mail"], "it has pager");
    refused(
        &with,
        &["--alert", "ErnstfallRpoMised"],
        "ErnstfallRpoMissed is meant",
    );
    refused(&with, &["--target", "barn"], "it has shop");
    refused(
        &with,
        &["--target", "shop", "--alert", "ErnstfallDaemonAbsent"],
        "about no target alone",
    );
    refused(&with, &["--wait", "1m"], "--through-prometheus");
    let two = with.target("barn", "postgresql://127.0.0.1:1/barn");
    refused(&two, &["--alert", "ErnstfallRpoMissed"], "of shop, barn");
    assert_eq!(recorded(&directory), Vec::<Value>::new());
}

#[test]
fn a_signal_ends_a_test_and_the_record_says_so() {
    let directory = TestDir::new("alert-test");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let channel = webhook("silent", silent.local_addr().unwrap()) + "timeout = \"10m\"\n";
    let running = ernstfall(&directory).tables(&channel).spawn(["alert-test"]);
    let _unanswered = silent.accept().unwrap();
    running.terminate();
    running.wait().expect_code(143);
    let record = &recorded(&directory)[0];
    assert_eq!(record["succeeded"], false);
    let reason = record["deliveries"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("ended by a signal"), "{reason}");
}

#[test]
fn tests_go_to_the_repository_and_are_listed_one_delivery_a_row() {
    let shop = Shop::open();
    shop.backup();
    let ernstfall = shop.ernstfall().tables(&command("pager", "echo noted"));
    let output = ernstfall.run(["alert-test"]).expect_code(0);
    assert!(!output.stderr.contains("kept here"), "{}", output.stderr);
    let listed = ernstfall.run(["list", "alerts"]).expect_code(0).stdout;
    let row = listed.lines().nth(1).unwrap();
    for cell in ["ErnstfallAlertTest", "test", "pager", "delivered", "noted"] {
        assert!(row.contains(cell), "{listed}");
    }
    std::fs::remove_dir_all(shop.directory.join("state")).unwrap();
    let listed = ernstfall.run(["list", "alerts", "--json"]).expect_code(0).json();
    assert_eq!(listed[0]["record"]["kind"], "alert_test", "{listed}");
}

/// A daemon that shows itself there, and knows of Prometheus.
fn daemon(directory: &TestDir, listen: SocketAddr, prometheus: &Prometheus) -> (Ernstfall, Running) {
    let ernstfall = ernstfall(directory)
        .target_without("backup")
        .target_without("restore_test")
        .tables(&format!("[http]\nlisten = \"{listen}\"\n"))
        .tables(&format!(
            "[alert.prometheus]\nurl = \"http://{}\"\n",
            prometheus.address
        ));
    let mut running = ernstfall.spawn(["run"]);
    running.wait_for_stderr("ready: ", LIMIT);
    wait_for("Prometheus to see the daemon", || {
        prometheus.count("ernstfall_build_info") == Some(1)
    });
    (ernstfall, running)
}

fn are_installed() -> bool {
    ["prometheus", "prometheus-alertmanager"]
        .map(find)
        .iter()
        .all(Option::is_some)
}

fn alert_lines(ernstfall: &Ernstfall) -> Vec<Value> {
    let lines = ernstfall.run(["check", "--json"]).json();
    let mut lines = lines.as_array().unwrap().clone();
    lines.retain(|line| line["area"] == "alerts");
    lines
}

fn line<'a>(lines: &'a [Value], subject: &str) -> &'a Value {
    let found = lines.iter().find(|line| line["subject"] == subject);
    found.unwrap_or_else(|| panic!("no line about {subject} in {lines:#?}"))
}

fn says(line: &Value, result: &str, part: &str) {
    let message = line["message"].as_str().unwrap();
    assert!(line["result"] == result && message.contains(part), "{line:#}");
}

#[test]
fn the_way_over_prometheus_and_alertmanager_is_proven_to_its_end() {
    require!(
        are_installed(),
        "prometheus and prometheus-alertmanager are not installed"
    );
    let directory = TestDir::new("alert-test");
    let (on_call, listen) = (OnCall::start(), free_address());
    let alertmanager = Alertmanager::start(on_call.address);
    let rules = ernstfall(&directory).run(["rules"]).expect_code(0).stdout;
    let prometheus = Prometheus::start(&rules, listen, alertmanager.address);
    let (ernstfall, _running) = daemon(&directory, listen, &prometheus);
    let output = ernstfall
        .run([
            "alert-test",
            "--through-prometheus",
            "--alert",
            "ErnstfallRpoMissed",
            "--json",
        ])
        .expect_code(0);
    for step in [
        "Prometheus has the rule",
        "the daemon shows the metric",
        "Prometheus has seen the metric",
        "fires in Prometheus",
        "Alertmanager has it, for test",
    ] {
        assert!(output.stderr.contains(step), "{step}: {}", output.stderr);
    }
    let delivery = &output.json()["deliveries"][0];
    assert_eq!(
        (&delivery["channel"], &delivery["kind"]),
        (&"prometheus".into(), &"prometheus".into())
    );
    assert_eq!(
        delivery["receipt"],
        "Alertmanager passes it on to test, and has sent a notification"
    );
    wait_for("the test alert", || on_call.alert("ErnstfallAlertTest").is_some());
    let alert = on_call.alert("ErnstfallAlertTest").unwrap();
    for (label, value) in [
        ("alert", "ErnstfallRpoMissed"),
        ("severity", "critical"),
        ("target", "shop"),
        ("environment", "test"),
        ("owner", "tests"),
        ("ernstfall_test", "true"),
    ] {
        assert_eq!(alert["labels"][label], value, "{alert}");
    }
    let summary = alert["annotations"]["summary"].as_str().unwrap();
    assert!(summary.starts_with("TEST: "), "{summary}");

    let lines = alert_lines(&ernstfall);
    says(
        line(&lines, "Prometheus"),
        "ok",
        "it has the rules, and tells http://",
    );
    says(line(&lines, "ways to people"), "ok", "rules of Prometheus");
    says(line(&lines, "last alert test"), "ok", "arrived by prometheus at ");
    let twice = ernstfall.tables(&command("pager", "true"));
    let lines = alert_lines(&twice);
    says(line(&lines, "ways to people"), "warning", "twice");
    says(line(&lines, "last alert test"), "warning", "pager: never tried");
}

#[test]
fn a_way_that_ends_before_anybody_hears_is_told_with_the_place() {
    require!(
        are_installed(),
        "prometheus and prometheus-alertmanager are not installed"
    );
    let directory = TestDir::new("alert-test");
    let listen = free_address();
    // Nobody listens where it would send to.
    let alertmanager = Alertmanager::start(free_address());
    let rules = ernstfall(&directory).run(["rules"]).expect_code(0).stdout;
    let prometheus = Prometheus::start(&rules, listen, alertmanager.address);
    let without_rules = Prometheus::start("groups: []\n", listen, alertmanager.address);
    let (ernstfall, _running) = daemon(&directory, listen, &prometheus);
    let reason = |ernstfall: &Ernstfall, arguments: &[&str]| {
        let arguments = [&["alert-test", "--through-prometheus", "--json"], arguments].concat();
        let record = ernstfall.run_all(&arguments).expect_code(1).json();
        record["deliveries"][0]["reason"].as_str().unwrap().to_owned()
    };
    let not_sent = reason(&ernstfall, &[]);
    assert!(
        not_sent.starts_with("Alertmanager has it for test, and cannot send"),
        "{not_sent}"
    );
    // What did not arrive is taken away at once.
    wait_for("the metric to go", || {
        prometheus.count("ernstfall_alert_test") == Some(0)
    });
    let nobody = format!("http://{}", free_address());
    let not_shown = reason(&ernstfall, &["--wait", "5s", "--alertmanager", &nobody]);
    assert!(
        not_shown.contains("not within 5s") && not_shown.contains(&nobody),
        "{not_shown}"
    );

    let text = format!("[alert.prometheus]\nurl = \"http://{}\"\n", without_rules.address);
    let other = self::ernstfall(&directory)
        .tables(&format!("[http]\nlisten = \"{listen}\"\n"))
        .tables(&text);
    let no_rule = reason(&other, &[]);
    assert!(no_rule.contains("has no rule ErnstfallAlertTest"), "{no_rule}");
    says(
        line(&alert_lines(&other), "Prometheus"),
        "warning",
        "none of our alerting rules",
    );
}

#[test]
fn without_a_daemon_nothing_is_raised() {
    let directory = TestDir::new("alert-test");
    let ernstfall = ernstfall(&directory).tables("[http]\nlisten = \"127.0.0.1:1\"\n");
    let arguments = [
        "alert-test",
        "--through-prometheus",
        "--alertmanager",
        "http://127.0.0.1:1",
    ];
    let output = ernstfall.run(arguments).expect_code(1);
    assert!(output.stderr.contains("start it first"), "{}", output.stderr);
    assert_eq!(recorded(&directory), Vec::<Value>::new());
}

#[test]
fn check_says_whether_anybody_would_hear_of_anything_and_sends_nothing() {
    let directory = TestDir::new("alert-test");
    let production = || ernstfall(&directory).target_key("environment", "\"production\"");
    let lines = alert_lines(&production());
    says(line(&lines, "ways to people"), "warning", "not known here");
    says(line(&lines, "dead-man switch"), "warning", "protects shop");

    let on_call = OnCall::start();
    let secret = "[[alert.channel]]\nkind = \"webhook\"\nname = \"late\"\nurl = { env = \"NOT_SET\" }\n";
    let with = production()
        .tables("[alert]\nping_url = \"http://127.0.0.1:1/ping\"\n")
        .tables(&webhook("chat", on_call.address))
        .tables(secret);
    let lines = alert_lines(&with);
    says(line(&lines, "channel chat"), "ok", "nothing was sent");
    says(line(&lines, "channel late"), "failed", "NOT_SET is not set");
    says(line(&lines, "dead-man switch"), "ok", "nothing was sent");
    says(line(&lines, "ways to people"), "ok", "by chat, late");
    says(
        line(&lines, "last alert test"),
        "warning",
        "chat: never tried; late: never tried",
    );
    assert!(on_call.requests().is_empty());
    with.run(["alert-test"]).expect_code(1);
    let lines = alert_lines(&with);
    let last = line(&lines, "last alert test");
    says(last, "warning", "late: did not arrive at ");
    assert!(!last["message"].as_str().unwrap().contains("chat"), "{last}");
}
