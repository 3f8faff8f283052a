//! Restore tests that are killed or stopped in each phase: nothing stays behind, and nothing goes unrecorded.

use std::fs;

use crate::shop::{Shop, descendants, is_alive, subdirectories, wait_for};

/// Kills a restore test at a fault point, and runs the next command.
fn leaves_nothing(point: &str) {
    let shop = Shop::open();
    let id = shop.backup();
    let mut running = shop.ernstfall().pause_at(point).spawn(["restore-test", "shop"]);
    running.wait_until_paused(point);
    let started = descendants(running.pid());
    let scratches = shop.scratches();
    if point != "restore-provision" {
        assert!(!started.is_empty(), "there is a server to be left behind");
        assert_eq!(scratches.len(), 1);
    }
    running.kill9();
    running.wait().expect_code(137);
    wait_for("the scratch server to end with its maker", || {
        !started.iter().any(is_alive)
    });
    // Any command that works finds it; one that needs no scratch of its own is quick.
    let next = shop
        .ernstfall()
        .run(["restore-test", "shop", "--backup", "20000101T000000Z-0000"])
        .expect_code(1);
    assert!(next.stderr.contains("had been interrupted"), "{}", next.stderr);
    assert!(shop.scratches().is_empty(), "{:?}", shop.scratches());
    assert!(subdirectories(&shop.directory.join("state/work")).is_empty());
    let records = shop.records();
    let records = records.as_array().unwrap();
    let interrupted: Vec<_> = records
        .iter()
        .map(|entry| &entry["record"])
        .filter(|record| record["kind"] == "interrupted")
        .collect();
    let [record] = interrupted.as_slice() else {
        panic!("{records:#?}")
    };
    assert_eq!(
        (&record["task"], &record["target"]),
        (&"restore_test".into(), &"shop".into())
    );
    if point != "restore-provision" {
        assert_eq!(record["backup"], id.as_str());
        let removed = record["removed"].to_string();
        assert!(removed.contains(scratches[0].to_str().unwrap()), "{removed}");
    }
    let status = shop.status().expect_code(1).json();
    assert_eq!(status["counts"]["runs_interrupted"], 1);
    assert_eq!(status["recovery_point"], shop.manifest(&id)["recovery_point"]);
}

macro_rules! killed_at {
    ($($test:ident: $point:literal,)+) => {$(
        #[test]
        fn $test() {
            leaves_nothing($point);
        }
    )+};
}

killed_at! {
    a_restore_test_killed_while_provisioning_leaves_nothing: "restore-provision",
    a_restore_test_killed_at_the_roles_leaves_nothing: "restore-roles",
    a_restore_test_killed_at_the_schema_leaves_nothing: "restore-schema",
    a_restore_test_killed_before_the_rows_leaves_nothing: "restore-data",
    a_restore_test_killed_between_rows_leaves_nothing: "before-object",
    a_restore_test_killed_at_the_indexes_leaves_nothing: "restore-indexes",
    a_restore_test_killed_while_finishing_leaves_nothing: "restore-finish",
    a_restore_test_killed_before_it_is_durable_leaves_nothing: "restore-durable",
    a_restore_test_killed_at_the_checks_leaves_nothing: "restore-checks",
    a_restore_test_killed_before_the_comparison_leaves_nothing: "restore-verify",
}

#[test]
fn a_terminated_restore_test_cleans_up_at_once_and_says_that_it_was_cancelled() {
    let shop = Shop::open();
    let id = shop.backup();
    for point in ["restore-provision", "restore-data", "restore-verify"] {
        let mut running = shop
            .ernstfall()
            .pause_at(point)
            .spawn(["restore-test", "shop", "--json"]);
        running.wait_until_paused(point);
        let started = descendants(running.pid());
        running.terminate();
        let record = running.wait().expect_code(143).json();
        assert_eq!(record["verdict"], "could-not-run");
        assert!(
            record["reason"].as_str().unwrap().contains("cancelled"),
            "{record:#}"
        );
        assert!(!started.iter().any(is_alive), "what it started ended before it");
        assert!(shop.scratches().is_empty());
        assert!(subdirectories(&shop.directory.join("state/work")).is_empty());
        let records = shop.records();
        let last = &records.as_array().unwrap().last().unwrap()["record"];
        assert_eq!(
            (&last["kind"], &last["id"]),
            (&"restore_test".into(), &record["id"])
        );
    }
    let status = shop.status().json();
    assert_eq!(status["recovery_point"], shop.manifest(&id)["recovery_point"]);
    assert_eq!(status["counts"]["runs_interrupted"], 0);
}

#[test]
fn ctrl_c_ends_a_restore_test_with_code_130() {
    let shop = Shop::open();
    shop.backup();
    let mut running = shop
        .ernstfall()
        .pause_at("restore-indexes")
        .spawn(["restore-test", "shop"]);
    running.wait_until_paused("restore-indexes");
    running.interrupt();
    running.wait().expect_code(130);
    assert!(shop.scratches().is_empty());
}

#[test]
fn a_living_restore_test_is_left_alone_by_the_next_command() {
    let shop = Shop::open();
    shop.backup();
    let running = shop.paused_before_comparison();
    let scratches = shop.scratches();
    shop.ernstfall()
        .run(["restore-test", "shop", "--backup", "20000101T000000Z-0000"])
        .expect_code(1);
    assert_eq!(shop.scratches(), scratches);
    assert!(fs::metadata(scratches[0].join("run/.s.PGSQL.5432")).is_ok());
    running.resume();
    running.wait().expect_code(0);
    assert!(shop.scratches().is_empty());
}
