//! The daemon's own alerts, from the condition to the person: told once, over restarts, by each channel; and the dead-man
//! switch.

use serde_json::Value;

use crate::shop::{LIMIT, Shop, overwrite, wait_for};
use crate::support::ernstfall::{Ernstfall, Running};
use crate::support::monitoring::OnCall;

/// A daemon whose restore tests miss the RTO by what is declared of the people, and a channel that writes to a file.
fn daemon(shop: &Shop, channels: &str) -> Ernstfall {
    shop.ernstfall()
        .key("limits.jitter", "\"0s\"")
        .target_key("backup", "\"every 1h\"")
        .target_key("restore_test", "\"after every backup\"")
        .target_key("rto", "\"1m\"")
        .target_key("rto_overhead", "{ detect = \"5m\" }")
        .target_key("environment", "\"production\"")
        .target_key("owner", "\"platform\"")
        .tables(channels)
}

/// A channel whose messages `told` reads.
fn to_file(shop: &Shop, name: &str) -> String {
    let file = shop.directory.join(name);
    let script = format!("{{ cat; echo; }} >> {}", file.display());
    format!(
        "[[alert.channel]]\nkind = \"command\"\nname = \"{name}\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\n"
    )
}

/// The messages that came by this channel.
fn told(shop: &Shop, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(shop.directory.join(name)).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.is_empty());
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn start(daemon: &Ernstfall) -> Running {
    let mut running = daemon.spawn(["run"]);
    running.wait_for_stderr("ready: ", LIMIT);
    running
}

fn stop(running: Running) {
    running.terminate();
    running.wait().expect_code(143);
}

fn told_of(shop: &Shop, name: &str, alert: &str) -> Vec<Value> {
    let mut messages = told(shop, name);
    messages.retain(|message| message["alert"] == alert);
    messages
}

fn alerts(shop: &Shop) -> Value {
    shop.ernstfall()
        .run(["--json", "list", "alerts"])
        .expect_code(0)
        .json()
}

#[test]
fn a_missed_rto_reaches_people_once_with_whose_target_it_is_and_a_restart_repeats_nothing() {
    let shop = Shop::open();
    let daemon = daemon(&shop, &to_file(&shop, "pager"));
    let running = start(&daemon);
    wait_for("the missed RTO to be told", || {
        !told_of(&shop, "pager", "ErnstfallRtoMissed").is_empty()
    });
    stop(running);
    let message = &told_of(&shop, "pager", "ErnstfallRtoMissed")[0];
    assert_eq!(message["status"], "firing");
    assert_eq!(message["severity"], "warning");
    for (field, value) in [
        ("target", "shop"),
        ("environment", "production"),
        ("owner", "platform"),
    ] {
        assert_eq!(message[field], value);
        assert_eq!(message["labels"][field], value);
    }
    assert_eq!(message["summary"], "shop: a recovery takes longer than the RTO");
    let url = message["runbook_url"].as_str().unwrap();
    assert!(url.ends_with("/runbook.md#ernstfallrtomissed"), "{url}");

    // What is judged after the restart has changed nothing; another alert shows that it was judged.
    spoil_newest(&shop);
    let running = start(&daemon);
    wait_for("the bad backup to be told", || {
        !told_of(&shop, "pager", "ErnstfallRestoreTestFailed").is_empty()
    });
    stop(running);
    assert_eq!(told_of(&shop, "pager", "ErnstfallRtoMissed").len(), 1);
    let recorded = alerts(&shop);
    let recorded = recorded.as_array().unwrap().iter().map(|entry| &entry["record"]);
    let of_rto: Vec<&Value> = recorded
        .filter(|record| record["alert"] == "ErnstfallRtoMissed")
        .collect();
    assert_eq!(of_rto.len(), 1);
    for (field, value) in [
        ("kind", "alert_delivery"),
        ("result", "delivered"),
        ("channel", "pager"),
    ] {
        assert_eq!(of_rto[0][field], value);
    }
    assert_eq!(of_rto[0]["attempts"], 1);
}

/// Damages the newest backup, and has a restore test find it.
fn spoil_newest(shop: &Shop) {
    let listed = shop
        .ernstfall()
        .run(["--json", "list", "backups"])
        .expect_code(0)
        .json();
    let id = listed.as_array().unwrap().last().unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    overwrite(&shop.object_file(&shop.manifest(&id)["schema"]), b"no dump");
    shop.restore_test().expect_code(3);
}

#[test]
fn a_dead_man_switch_hears_that_the_daemon_lives_and_at_once_of_a_bad_backup() {
    let shop = Shop::open();
    let switch = OnCall::start();
    let url = format!("[alert]\nping_url = \"http://{}/ping/secret\"\n", switch.address);
    let mut running = start(&daemon(&shop, &url));
    let paths = || -> Vec<String> { switch.requests().into_iter().map(|one| one.path).collect() };
    wait_for("two pings", || paths().len() >= 2);
    assert_eq!(paths()[..2], ["/ping/secret/start", "/ping/secret"]);
    running.wait_for_stderr(": passed", LIMIT);
    spoil_newest(&shop);
    wait_for("a failing ping", || {
        paths().contains(&"/ping/secret/fail".to_owned())
    });
    stop(running);
    let failing = switch
        .requests()
        .into_iter()
        .find(|one| one.path.ends_with("/fail"));
    assert_eq!(
        failing.unwrap().body,
        "shop: a restore test failed: the backup is bad\nshop: the newest backup is bad\n"
    );
}

#[test]
fn a_channel_that_fails_is_told_by_the_others_and_recorded() {
    let shop = Shop::open();
    let broken = "[[alert.channel]]\nkind = \"command\"\nname = \"broken\"\ncommand = [\"/bin/false\"]\n";
    let channels = format!("{broken}{}", to_file(&shop, "pager"));
    let running = start(&daemon(&shop, &channels));
    let of_failure = || told_of(&shop, "pager", "ErnstfallAlertDeliveryFailed");
    wait_for("the failure to be told", || !of_failure().is_empty());
    stop(running);
    assert_eq!(of_failure()[0]["labels"]["channel"], "broken");
    let recorded = alerts(&shop).to_string();
    assert!(recorded.contains("\"result\":\"failed\""), "{recorded}");
}

#[test]
fn with_evaluate_off_nobody_is_told() {
    let shop = Shop::open();
    let channels = format!("[alert]\nevaluate = false\n{}", to_file(&shop, "pager"));
    let mut running = start(&daemon(&shop, &channels));
    running.wait_for_stderr(": passed", LIMIT);
    spoil_newest(&shop);
    stop(running);
    assert_eq!(told(&shop, "pager"), Vec::<Value>::new());
}
