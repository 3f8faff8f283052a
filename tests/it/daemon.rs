//! The daemon: it runs what is due, once, whatever happens around it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::shop::{LIMIT, Shop, wait_for};
use crate::support::ernstfall::{Ernstfall, Running};

/// A daemon with these schedules; what is due for all at once is not spread.
fn scheduled(shop: &Shop, backup: &str, restore_test: Option<&str>) -> Ernstfall {
    let daemon = shop
        .ernstfall()
        .key("limits.jitter", "\"0s\"")
        .deadline(Duration::from_secs(300))
        .target_key("backup", &format!("{backup:?}"));
    match restore_test {
        Some(schedule) => daemon.target_key("restore_test", &format!("{schedule:?}")),
        None => daemon.target_without("restore_test"),
    }
}

fn start(daemon: &Ernstfall) -> Running {
    let mut running = daemon.spawn(["run"]);
    running.wait_for_stderr("ready: ", LIMIT);
    running
}

/// As SIGTERM ends it.
fn stop(running: Running) -> String {
    running.terminate();
    running.wait().expect_code(143).stderr
}

/// The records of a kind on this machine, in the order in which they were written.
fn records(shop: &Shop, kind: &str) -> Vec<Value> {
    let mut files = Vec::new();
    for chain in fs::read_dir(shop.directory.join("state/records"))
        .into_iter()
        .flatten()
    {
        let names = fs::read_dir(chain.unwrap().path()).unwrap();
        files.extend(names.map(|entry| entry.unwrap().path()));
    }
    files.retain(|path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "json"));
    files.sort();
    let read =
        |path: &std::path::PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let mut records: Vec<Value> = files.iter().map(|path| read(path)["record"].take()).collect();
    records.retain(|record| record["kind"] == kind);
    records
}

fn count(shop: &Shop, kind: &str, field: &str, value: &str) -> usize {
    let of_kind = records(shop, kind);
    of_kind.iter().filter(|record| record[field] == value).count()
}

fn succeeded(shop: &Shop) -> usize {
    count(shop, "backup", "outcome", "succeeded")
}

#[test]
fn it_backs_up_and_restore_tests_by_schedule_and_a_restart_repeats_nothing() {
    let shop = Shop::open();
    let daemon = scheduled(&shop, "every 1s", Some("after every backup"));
    let running = start(&daemon);
    wait_for("several backups and a passed restore test", || {
        succeeded(&shop) >= 3 && count(&shop, "restore_test", "verdict", "passed") >= 1
    });
    stop(running);
    assert_eq!(records(&shop, "backup")[0]["trigger"], "schedule");
    assert_eq!(records(&shop, "restore_test")[0]["trigger"], "after_backup");
    let counts = shop.status().json()["counts"].clone();
    assert_eq!(
        counts["backups"],
        succeeded(&shop),
        "what was told and what is there"
    );

    // The backup of a target that is new shows when the daemon had its chance.
    let before = succeeded(&shop);
    let again = scheduled(&shop, "every 1h", None)
        .target("other", &shop.database.url())
        .target_without("restore_test");
    let running = start(&again);
    wait_for("the other target's backup", || succeeded(&shop) > before);
    stop(running);
    let newest = records(&shop, "backup").pop().unwrap();
    assert_eq!(
        (newest["target"].as_str(), succeeded(&shop)),
        (Some("other"), before + 1)
    );
}

#[test]
fn what_was_due_while_it_was_down_is_made_up_for_once() {
    let shop = Shop::open();
    shop.backup();
    wait_for("the slots to pass", || {
        shop.status().json()["exposure_seconds"].as_f64() > Some(3.0)
    });
    let running = start(&scheduled(&shop, "every 2s", None));
    wait_for("two more backups", || succeeded(&shop) >= 3);
    let log = stop(running);
    let triggers: Vec<Value> = records(&shop, "backup")
        .iter()
        .map(|one| one["trigger"].clone())
        .collect();
    assert_eq!(triggers[..3], ["command", "catch_up", "schedule"]);
    assert!(log.contains("backup of shop: "), "{log}");
}

#[test]
fn a_backup_waits_neither_for_a_restore_test_nor_for_another_targets_one() {
    let shop = Shop::open();
    let daemon = scheduled(&shop, "every 1s", Some("after every backup")).pause_at("restore-data");
    let mut running = start(&daemon);
    running.wait_until_paused("restore-data");
    let before = succeeded(&shop);
    wait_for("backups during the restore test", || {
        succeeded(&shop) >= before + 2
    });
    assert_eq!(records(&shop, "restore_test").len(), 0);
    running.resume();
    wait_for("the restore test", || records(&shop, "restore_test").len() == 1);
    stop(running);
}

#[test]
fn the_first_signal_cancels_and_records_what_runs_and_removes_the_scratch() {
    let shop = Shop::open();
    let daemon = scheduled(&shop, "every 1h", Some("after every backup")).pause_at("restore-data");
    let mut running = start(&daemon);
    running.wait_until_paused("restore-data");
    assert_eq!(shop.scratches().len(), 1);
    let log = stop(running);
    assert!(log.contains("stopped"), "{log}");
    let test = records(&shop, "restore_test").pop().unwrap();
    assert_eq!(
        (&test["verdict"], &test["cancelled"]),
        (&"could-not-run".into(), &true.into())
    );
    assert!(shop.scratches().is_empty());
    // It was somebody's wish, and does not count: the next start runs it at once.
    let running = start(&scheduled(&shop, "every 1h", Some("after every backup")));
    wait_for("the restore test", || {
        count(&shop, "restore_test", "verdict", "passed") == 1
    });
    stop(running);
    assert_eq!(succeeded(&shop), 1);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let shop = Shop::open();
    let daemon = scheduled(&shop, "every 1h", None).pause_at("before-manifest");
    let mut running = start(&daemon);
    running.wait_until_paused("before-manifest");
    running.terminate();
    running.terminate();
    running.wait().expect_code(143);
}

#[test]
fn a_run_that_was_killed_is_recorded_at_the_next_start_and_tried_again() {
    let shop = Shop::open();
    let daemon = scheduled(&shop, "every 1s", None).pause_at("before-manifest");
    let mut running = start(&daemon);
    running.wait_until_paused("before-manifest");
    running.kill9();
    running.wait().expect_code(137);
    let (running, address) = start_with_pages(scheduled(&shop, "every 1s", None));
    wait_for("the record of it, and a backup", || {
        records(&shop, "interrupted").len() == 1 && succeeded(&shop) >= 1
    });
    let interrupted = "ernstfall_backups_total{result=\"interrupted\",target=\"shop\"}";
    wait_for("its count", || sample(&address, interrupted) == Some(1.0));
    stop(running);
    assert_eq!(records(&shop, "interrupted")[0]["task"], "backup");
}

#[test]
fn a_run_past_its_deadline_is_given_up_recorded_and_told() {
    let shop = Shop::open();
    let daemon = scheduled(&shop, "every 1h", None)
        .target_key("timeouts", "{ backup = \"1s\" }")
        .pause_at("before-manifest");
    let mut running = start(&daemon);
    running.wait_for_stderr("given up after 1s, which is its deadline", LIMIT);
    wait_for("the record", || records(&shop, "backup").len() == 1);
    stop(running);
    let record = records(&shop, "backup").pop().unwrap();
    assert_eq!(record["outcome"], "failed");
    assert!(record["reason"].as_str().unwrap().contains("1s"), "{record}");
    let objects = shop.target_directory().join("backups");
    assert_eq!(
        crate::shop::subdirectories(&objects),
        [] as [std::path::PathBuf; 0]
    );
}

#[test]
fn a_source_that_is_away_fails_each_run_and_the_next_one_after_its_return_succeeds() {
    let mut shop = Shop::open();
    let running = start(&scheduled(&shop, "every 1s", None));
    wait_for("a backup", || succeeded(&shop) >= 1);
    shop.cluster.crash();
    wait_for("failures", || count(&shop, "backup", "outcome", "failed") >= 2);
    shop.cluster.restart();
    let before = succeeded(&shop);
    wait_for("a backup after the return", || succeeded(&shop) > before);
    stop(running);
}

#[test]
fn a_repository_that_is_away_is_survived_and_gets_its_records_when_it_returns() {
    let shop = Shop::open();
    let (here, away) = (
        shop.directory.join("repository"),
        shop.directory.join("unmounted"),
    );
    let running = start(&scheduled(&shop, "every 1s", None));
    wait_for("a backup", || succeeded(&shop) >= 1);
    fs::rename(&here, &away).unwrap();
    wait_for("failures", || count(&shop, "backup", "outcome", "failed") >= 2);
    assert!(!here.exists(), "no new repository is made where one was");
    fs::rename(&away, &here).unwrap();
    let before = succeeded(&shop);
    wait_for("a backup after the return", || succeeded(&shop) > before);
    stop(running);
    let local = records(&shop, "backup").len();
    let stored = files_below(&here.join("records"));
    assert_eq!(stored, local, "every record is in the repository");
}

fn files_below(directory: &Path) -> usize {
    let chains = fs::read_dir(directory).unwrap();
    chains
        .map(|chain| fs::read_dir(chain.unwrap().path()).unwrap().count())
        .sum()
}

#[test]
fn a_source_that_does_not_exist_does_not_keep_it_from_starting() {
    let shop = Shop::open();
    let daemon = scheduled(&shop, "every 1s", None)
        .target("gone", "postgresql://nobody@127.0.0.1:1/gone")
        .target_without("restore_test");
    let running = start(&daemon);
    wait_for("one to fail and the other to succeed", || {
        succeeded(&shop) >= 1 && count(&shop, "backup", "outcome", "failed") >= 1
    });
    stop(running);
}

#[test]
fn a_changed_configuration_is_taken_and_a_wrong_one_is_not() {
    let shop = Shop::open();
    let mut running = start(&scheduled(&shop, "every 1h", None));
    wait_for("the first backup", || succeeded(&shop) == 1);
    let wrong = [
        (scheduled(&shop, "every now and then", None), "no usable interval"),
        (
            scheduled(&shop, "every 1s", None).key("state_dir", "\"elsewhere\""),
            "needs a restart",
        ),
    ];
    for (configuration, reason) in wrong {
        running.reload(&configuration);
        running.wait_for_stderr(reason, LIMIT);
        assert!(running.stderr().contains("the configuration stays as it was"));
    }
    running.reload(&scheduled(&shop, "every 1s", None));
    running.wait_for_stderr("the configuration was read again", LIMIT);
    wait_for("backups by the new schedule", || succeeded(&shop) >= 3);
    stop(running);
}

#[test]
fn a_reload_neither_ends_a_run_nor_lets_another_begin_beside_it() {
    let shop = Shop::open();
    let daemon = scheduled(&shop, "every 1h", None).pause_at("before-manifest");
    let mut running = start(&daemon);
    running.wait_until_paused("before-manifest");
    running.reload(&scheduled(&shop, "every 1s", None));
    running.wait_for_stderr("the configuration was read again", LIMIT);
    running.resume();
    wait_for("the old run, and then new ones", || succeeded(&shop) >= 3);
    stop(running);
    assert_eq!(
        count(&shop, "backup", "outcome", "succeeded"),
        records(&shop, "backup").len()
    );
}

#[test]
fn two_daemons_do_not_share_a_state_directory() {
    let shop = Shop::open();
    let daemon = scheduled(&shop, "every 1h", None);
    let running = start(&daemon);
    let second = daemon.run(["run"]).expect_code(1);
    assert!(
        second.stderr.contains("another `ernstfall run` uses"),
        "{}",
        second.stderr
    );
    stop(running);
}

#[test]
fn while_somebody_backs_up_by_hand_it_does_not_and_that_backup_counts() {
    let shop = Shop::open();
    let mut by_hand = shop
        .ernstfall()
        .pause_at("before-manifest")
        .spawn(["backup", "shop"]);
    by_hand.wait_until_paused("before-manifest");
    let daemon = scheduled(&shop, "every 1h", None)
        .target("other", &shop.database.url())
        .target_without("restore_test");
    let running = start(&daemon);
    wait_for("the other target's backup", || succeeded(&shop) == 1);
    by_hand.resume();
    by_hand.wait().expect_code(0);
    stop(running);
    let targets: Vec<Value> = records(&shop, "backup")
        .iter()
        .map(|one| one["target"].clone())
        .collect();
    assert_eq!(targets, ["other", "shop"]);
}

#[test]
fn retention_is_applied_without_being_asked_for() {
    let shop = Shop::open();
    let ids = [shop.backup(), shop.backup(), shop.backup()];
    let daemon = scheduled(&shop, "every 1h", None).target_key("retention", "{ last = 1 }");
    let running = start(&daemon);
    wait_for("a prune", || records(&shop, "prune").len() == 1);
    stop(running);
    let there: Vec<bool> = ids.iter().map(|id| shop.manifest_file(id).exists()).collect();
    assert_eq!(there, [false, false, true]);
}

/// One sample of the daemon's metrics, as its text.
fn sample(address: &str, name: &str) -> Option<f64> {
    let text = get(address, "/metrics");
    let line = text
        .lines()
        .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Started with pages, and where they are.
fn start_with_pages(daemon: Ernstfall) -> (Running, String) {
    let running = start(&daemon.tables("[http]\nlisten = \"127.0.0.1:0\"\n"));
    let log = running.stderr();
    let (_, after) = log.split_once("metrics and status at ").unwrap();
    let address = after.lines().next().unwrap().trim().to_owned();
    (running, address)
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: ernstfall\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn metrics_are_right_after_a_start_and_follow_what_others_do() {
    let shop = Shop::open();
    let first = shop.backup();
    let second = shop.backup();
    let (running, address) = start_with_pages(scheduled(&shop, "every 1h", None));
    let point = |id: &str| {
        let at = shop.manifest(id)["recovery_point"]["at"]
            .as_str()
            .unwrap()
            .to_owned();
        let at: chrono::DateTime<chrono::Utc> = at.parse().unwrap();
        at.timestamp_millis() as f64 / 1000.0
    };
    let recovery_point = || {
        sample(
            &address,
            "ernstfall_recovery_point_timestamp_seconds{target=\"shop\"}",
        )
    };
    let is = |id: &str| recovery_point().is_some_and(|found| (found - point(id)).abs() < 0.01);
    wait_for("the newest recovery point", || is(&second));
    assert_eq!(
        sample(
            &address,
            "ernstfall_backups_total{result=\"succeeded\",target=\"shop\"}"
        ),
        Some(0.0)
    );

    // A backup by hand, in another process.
    let third = shop.backup();
    wait_for("the recovery point of a run by hand", || is(&third));
    assert_eq!(
        sample(
            &address,
            "ernstfall_backups_total{result=\"succeeded\",target=\"shop\"}"
        ),
        Some(1.0)
    );

    // One that is found bad is no recovery point any more, nor is the one before it.
    for id in [&third, &second] {
        let data = shop.manifest(id)["data"][0].clone();
        crate::shop::overwrite(&shop.object_file(&data), b"damaged");
        let restore_test = shop.ernstfall().run(["restore-test", "shop", "--backup", id]);
        restore_test.expect_code(3);
    }
    wait_for("the recovery point to fall back", || is(&first));
    assert_eq!(
        sample(
            &address,
            "ernstfall_restore_tests_total{target=\"shop\",verdict=\"failed\"}"
        ),
        Some(2.0)
    );
    let status: Value = serde_json::from_str(&get(&address, "/api/v1/status")).unwrap();
    let by_command = shop.status().json();
    let told = &status["targets"][0]["status"];
    for key in [
        "recovery_point",
        "problems",
        "counts",
        "newest_backup",
        "proven_backup",
    ] {
        assert_eq!(told[key], by_command[key], "{key}");
    }
    stop(running);
}

#[test]
fn an_address_that_is_taken_is_an_error_at_once() {
    let shop = Shop::open();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("[http]\nlisten = \"{}\"\n", taken.local_addr().unwrap());
    let output = scheduled(&shop, "every 1h", None)
        .tables(&listen)
        .run(["run"])
        .expect_code(1);
    assert!(output.stderr.contains("in use"), "{}", output.stderr);
    assert_eq!(records(&shop, "backup").len(), 0);
}

#[test]
fn a_heartbeat_is_written_found_in_backups_and_goes_on_after_the_source_was_away() {
    let mut shop = Shop::open();
    let daemon = |every: &str| scheduled(&shop, "every 1s", None).target_key("heartbeat", every);
    let slower = daemon("\"2s\"").tables("[http]\nlisten = \"127.0.0.1:0\"\n");
    let (running, address) = start_with_pages(daemon("\"1s\""));
    let beat = || sample(&address, "ernstfall_heartbeat_timestamp_seconds{target=\"shop\"}");
    wait_for("a heartbeat", || beat().is_some());
    let in_backup = || {
        let manifests = fs::read_dir(shop.target_directory().join("manifests"))
            .into_iter()
            .flatten();
        let mut read = manifests.map(|entry| fs::read(entry.unwrap().path()).unwrap());
        read.any(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap()["heartbeat"].is_string())
    };
    wait_for("a backup with a heartbeat in it", in_backup);
    shop.cluster.crash();
    let before = beat();
    running.reload(&slower);
    let interval = "ernstfall_heartbeat_interval_seconds{target=\"shop\"}";
    wait_for("the other interval", || sample(&address, interval) == Some(2.0));
    let last = beat();
    assert!(last >= before, "a reload forgets no heartbeat that has stopped");
    shop.cluster.restart();
    wait_for("a later heartbeat", || beat() > last);
    stop(running);
    let rows = shop
        .database
        .query_one_text("select count(*)::text from ernstfall.heartbeat");
    assert_eq!(rows, "1");
}

/// Somebody who accepts connections, and never says a word.
fn hole() -> (std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    (listener, endpoint)
}

#[test]
fn a_repository_that_hangs_delays_no_stop() {
    let shop = Shop::open();
    let (_listener, endpoint) = hole();
    let repository = format!(
        "url = \"s3://bucket/prefix\"\nendpoint = {endpoint:?}\npath_style = true\naccess_key_id = \"a\"\nsecret_access_key = \"b\""
    );
    let daemon = scheduled(&shop, "every 1h", None)
        .target_key("retention", "{ last = 5 }")
        .repository(&repository);
    let mut running = start(&daemon);
    running.wait_for_stderr("backup of shop: begins", LIMIT);
    running.wait_for_stderr("prune of shop: begins", LIMIT);
    stop(running);
    let record = records(&shop, "backup").pop().unwrap();
    assert_eq!(record["outcome"], "cancelled", "{record}");
}

#[test]
fn a_secret_that_hangs_holds_up_nobody_else() {
    let shop = Shop::open();
    let mut daemon = scheduled(&shop, "every 1s", None);
    for name in ["first", "second", "third"] {
        daemon = daemon
            .target(name, "host=unused")
            .target_key("url", "{ command = [\"sleep\", \"20\"] }")
            .target_without("restore_test");
    }
    let (running, address) = start_with_pages(daemon.key("limits.max_backups", "4"));
    wait_for("backups of the other target", || succeeded(&shop) >= 3);
    get(&address, "/healthz");
    assert_eq!(
        count(&shop, "backup", "outcome", "failed"),
        0,
        "the others still wait"
    );
    running.terminate();
    running.terminate();
    running.wait().expect_code(143);
}

#[test]
fn what_cannot_be_recorded_is_told_and_not_taken_for_done() {
    let shop = Shop::open();
    let (running, address) = start_with_pages(scheduled(&shop, "every 1s", None));
    wait_for("a backup", || succeeded(&shop) >= 1);
    assert_eq!(sample(&address, "ernstfall_journal_up"), Some(1.0));
    let runs = shop.directory.join("state/runs");
    let modes =
        |mode| fs::set_permissions(&runs, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    modes(0o500);
    wait_for("the journal to be called out of order", || {
        sample(&address, "ernstfall_journal_up") == Some(0.0)
    });
    modes(0o700);
    wait_for("it to be in order again", || {
        sample(&address, "ernstfall_journal_up") == Some(1.0)
    });
    stop(running);
}

#[test]
fn what_a_killed_restore_test_left_goes_also_while_the_repository_is_away() {
    let shop = Shop::open();
    shop.backup();
    let test = shop.ernstfall().pause_at("restore-data");
    let mut test = test.spawn(["restore-test", "shop"]);
    test.wait_until_paused("restore-data");
    test.kill9();
    test.wait().expect_code(137);
    assert_eq!(shop.scratches().len(), 1);
    fs::rename(
        shop.directory.join("repository"),
        shop.directory.join("unmounted"),
    )
    .unwrap();
    let running = start(&scheduled(&shop, "every 1h", None));
    wait_for("the record of it", || records(&shop, "interrupted").len() == 1);
    assert!(shop.scratches().is_empty());
    stop(running);
}
