//! The whole way from the daemon to a person: real metrics, the real Prometheus and Alertmanager.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::json::{assert_fits, schema_with};
use crate::shop::{LIMIT, Shop, wait_for};
use crate::support::ernstfall::{Ernstfall, Running};
use crate::support::monitoring::{Alertmanager, OnCall, Prometheus, find, free_address, get};
use crate::support::skip::require;

/// A daemon that shows itself there.
fn daemon(shop: &Shop, listen: SocketAddr) -> Ernstfall {
    shop.ernstfall()
        .tables(&format!(
            "[limits]\njitter = \"0s\"\n[http]\nlisten = \"{listen}\"\n"
        ))
        .deadline(Duration::from_secs(600))
}

fn start(daemon: &Ernstfall) -> Running {
    let mut running = daemon.spawn(["run"]);
    running.wait_for_stderr("ready: ", LIMIT);
    running
}

fn metrics(address: SocketAddr) -> String {
    get(address, "/metrics").expect("the daemon answers").body
}

fn sample(metrics: &str, series: &str) -> Option<f64> {
    let rest = metrics.lines().find_map(|line| line.strip_prefix(series))?;
    Some(rest.trim().parse().unwrap())
}

fn check_with_promtool(metrics: &str) {
    use std::io::Write;
    let mut command = Command::new(find("promtool").unwrap());
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{metrics}");
}

#[test]
fn metrics_and_status_of_the_daemon_follow_runs_of_another_process() {
    require!(find("promtool").is_some(), "promtool is not installed");
    let shop = Shop::open();
    let address = free_address();
    let daemon = daemon(&shop, address)
        .target_without("backup")
        .target_without("restore_test");
    let running = start(&daemon);
    let before = metrics(address);
    check_with_promtool(&before);
    assert_eq!(
        sample(
            &before,
            "ernstfall_backups_total{result=\"succeeded\",target=\"shop\"}"
        ),
        Some(0.0)
    );
    assert_eq!(
        sample(
            &before,
            "ernstfall_recovery_point_timestamp_seconds{target=\"shop\"}"
        ),
        None
    );

    let backup = shop.backup();
    shop.restore_test().expect_code(0);
    wait_for("the runs in the metrics", || {
        let now = metrics(address);
        sample(
            &now,
            "ernstfall_restore_tests_total{target=\"shop\",verdict=\"passed\"}",
        ) == Some(1.0)
            && sample(
                &now,
                "ernstfall_last_restore_test_verdict{target=\"shop\",verdict=\"passed\"}",
            ) == Some(1.0)
    });
    let after = metrics(address);
    check_with_promtool(&after);
    assert_eq!(
        sample(
            &after,
            "ernstfall_backups_total{result=\"succeeded\",target=\"shop\"}"
        ),
        Some(1.0)
    );
    assert_eq!(
        sample(&after, "ernstfall_uncovered_databases{target=\"shop\"}"),
        Some(0.0)
    );
    assert!(sample(&after, "ernstfall_verified_rows{target=\"shop\"}").is_some_and(|rows| rows > 500.0));

    let shown: Value = serde_json::from_str(&get(address, "/api/v1/status").unwrap().body).unwrap();
    assert_fits(
        &schema_with("daemon-status.schema.json", &["status.schema.json"]),
        &shown,
    );
    let by_command = timeless(shop.status().json());
    assert_eq!(timeless(shown["targets"][0]["status"].clone()), by_command);
    assert_eq!(by_command["proven_backup"], backup.as_str());
    assert_eq!(get(address, "/readyz").unwrap().status, 200);
    running.terminate();
    running.wait().expect_code(143);
}

/// A status without what depends on the moment at which it was asked for.
fn timeless(mut status: Value) -> Value {
    assert!(status["exposure_seconds"].take().is_f64());
    assert!(status["rpo"]["actual_seconds"].take().is_f64());
    status
}

#[test]
fn a_daemon_that_cannot_listen_says_so_and_ends() {
    let shop = Shop::open();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output = daemon(&shop, taken.local_addr().unwrap())
        .run(["run"])
        .expect_code(1);
    assert!(output.stderr.contains("free the address"), "{}", output.stderr);
}

#[test]
fn somebody_hears_that_the_source_is_gone_and_then_that_the_daemon_is() {
    let installed = ["prometheus", "prometheus-alertmanager"].map(find);
    require!(
        installed.iter().all(Option::is_some),
        "prometheus and prometheus-alertmanager are not installed"
    );
    let mut shop = Shop::open();
    let address = free_address();
    let daemon = daemon(&shop, address)
        .target_key("rpo", "\"30s\"")
        .target_key("backup", "\"every 1s\"");
    let (on_call, mut rules) = (OnCall::start(), String::new());
    for line in daemon.run(["rules"]).expect_code(0).stdout.lines() {
        // Nobody waits for minutes here.
        let line = if line.trim_start().starts_with("for: ") {
            "        for: 0s"
        } else {
            line
        };
        rules.push_str(&format!("{line}\n"));
    }
    let running = start(&daemon);
    let alertmanager = Alertmanager::start(on_call.address);
    let prometheus = Prometheus::start(&rules, address, alertmanager.address);
    wait_for("a recovery point in Prometheus", || {
        prometheus.count("ernstfall_recovery_point_timestamp_seconds{target=\"shop\"}") == Some(1)
    });
    assert_eq!(on_call.alert("ErnstfallRpoMissed"), None);

    shop.cluster.crash();
    wait_for_alert(&on_call, "ErnstfallBackupFailed");
    let missed = wait_for_alert(&on_call, "ErnstfallRpoMissed");
    for (label, value) in [
        ("target", "shop"),
        ("owner", "tests"),
        ("environment", "test"),
        ("severity", "critical"),
        ("job", "ernstfall"),
    ] {
        assert_eq!(missed["labels"][label], value, "{missed}");
    }
    assert_eq!(
        missed["annotations"]["summary"],
        "shop: more would be lost than the RPO allows"
    );

    on_call.forget();
    running.kill9();
    wait_for("Prometheus to see nothing of the daemon", || {
        prometheus.count("ernstfall_build_info") == Some(0)
    });
    let absent = wait_for_alert(&on_call, "ErnstfallDaemonAbsent");
    assert_eq!(absent["labels"]["severity"], "critical");
    // That nobody says so any more makes it no better.
    let still = "ALERTS{alertname=\"ErnstfallRpoMissed\",alertstate=\"firing\",target=\"shop\"}";
    assert_eq!(prometheus.count(still), Some(1));
}

fn wait_for_alert(on_call: &OnCall, name: &str) -> Value {
    let mut alert = None;
    wait_for(name, || {
        alert = on_call.alert(name);
        alert.is_some()
    });
    alert.unwrap()
}
