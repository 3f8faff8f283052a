//! The heartbeat row in the source: written where it may be, found again in the copy, and in nobody's way.

use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::heart::Beating;
use crate::json::{assert_fits, schema};
use crate::shop::{Shop, content, mismatches, wait_for};
use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::ernstfall::Ernstfall;
use crate::support::evidence::wait_until_gone;
use crate::support::proxy::Proxy;

const CONNECTIONS: &str =
    "select count(*) from pg_stat_activity where application_name = 'ernstfall heartbeat'";

fn written_at(database: &Database) -> DateTime<Utc> {
    let text = database.query_one_text(
        "select to_char(written_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from ernstfall.heartbeat",
    );
    text.parse().unwrap()
}

fn schemas(database: &Database) -> String {
    database.query_one_text("select count(*) from pg_namespace where nspname = 'ernstfall'")
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn the_row_says_when_it_was_written_by_the_sources_clock_and_the_table_explains_itself() {
    let shop = shop();
    let mut beating = Beating::at(&shop.database.url());
    let first = beating.beat();
    assert_eq!(first.written_at, written_at(&shop.database));
    let second = beating.beat();
    assert!(second.written_at > first.written_at);
    assert_eq!(second.written_at, written_at(&shop.database));
    // One machine has one clock.
    assert!(second.clock_skew_seconds.abs() < 5.0, "{second:?}");
    let row = "select target || '|' || every || '|' || writer || '|' || host from ernstfall.heartbeat";
    assert_eq!(
        shop.database.query_one_text(row),
        "shop|00:00:01|here|host of here"
    );
    let told = "select obj_description('ernstfall'::regnamespace, 'pg_namespace') || obj_description('ernstfall.heartbeat'::regclass, 'pg_class')";
    assert!(shop.database.query_one_text(told).contains("ernstfall"));
}

#[test]
fn a_thousand_beats_leave_the_table_on_one_page_and_the_index_untouched() {
    let shop = shop();
    let mut beating = Beating::at(&shop.database.url());
    for _ in 0..1000 {
        beating.beat();
    }
    let size = "select pg_relation_size('ernstfall.heartbeat') / current_setting('block_size')::int";
    assert_eq!(shop.database.query_one_text(size), "1");
    // Counted when the session that wrote ends, if not before.
    drop(beating);
    wait_until_gone(&shop.database);
    let warm = "select n_tup_upd - n_tup_hot_upd from pg_stat_user_tables where relname = 'heartbeat' and n_tup_upd > 0";
    wait_for("the statistics", || !shop.database.query_rows(warm).is_empty());
    assert_eq!(shop.database.query_one_text(warm), "0");
}

#[test]
fn a_short_heartbeat_keeps_its_connection_and_a_long_one_lets_the_source_sleep() {
    let shop = shop();
    let url = shop.database.url();
    let mut short = Beating::at(&url);
    short.beat();
    let server_process = "select pid from pg_stat_activity where application_name = 'ernstfall heartbeat'";
    let before = shop.database.query_one_text(server_process);
    short.beat();
    assert_eq!(shop.database.query_one_text(server_process), before);
    drop(short);
    wait_until_gone(&shop.database);
    let mut long = Beating::of("shop", &url, "here", Duration::from_secs(60));
    long.beat();
    wait_for("the connection to end", || {
        shop.database.query_one_text(CONNECTIONS) == "0"
    });
}

#[test]
fn a_source_without_heartbeat_is_only_read_and_one_with_it_is_written_in_that_row_alone() {
    let shop = Shop::open();
    let everything = |database: &Database| (content(database), database.dump_schema());
    let before = everything(&shop.database);
    let id = shop.backup();
    shop.restore_test().expect_code(0);
    assert_eq!(everything(&shop.database), before);
    assert_eq!(shop.manifest(&id)["heartbeat"], Value::Null);
    assert_eq!(schemas(&shop.database), "0");
    let mut beating = Beating::at(&shop.database.url());
    beating.beat();
    beating.beat();
    let without_heartbeat = (
        content(&shop.database),
        shop.database.dump_schema_without("ernstfall"),
    );
    assert_eq!(without_heartbeat, before);
    let tables = "select string_agg(relname || ' ' || relkind::text, ', ' order by relname) from pg_class
                   where relnamespace = 'ernstfall'::regnamespace";
    assert_eq!(
        shop.database.query_one_text(tables),
        "heartbeat r, heartbeat_pkey i"
    );
}

#[test]
fn the_heartbeat_of_a_backup_is_in_its_manifest_and_found_again_in_the_copy() {
    let shop = Shop::open();
    let beat = Beating::at(&shop.database.url()).beat();
    let id = shop.backup();
    Beating::at(&shop.database.url()).beat();
    let manifest = shop.manifest(&id);
    assert_fits(&schema("manifest.schema.json"), &manifest);
    assert_eq!(time(&manifest["heartbeat"]), beat.written_at);
    // The source takes the writes itself, so that its snapshot is exact.
    assert_eq!(manifest["recovery_point"]["basis"], "snapshot");
    assert!(time(&manifest["recovery_point"]["at"]) >= beat.written_at);
    let record = shop.restore_test().expect_code(0).json();
    assert_fits(&schema("restore-test.schema.json"), &record);
    assert_eq!(time(&record["heartbeat_at"]), beat.written_at);
}

#[test]
fn a_copy_that_has_another_heartbeat_than_the_backup_is_a_mismatch() {
    let shop = Shop::open();
    Beating::at(&shop.database.url()).beat();
    shop.backup();
    let running = shop.paused_before_comparison();
    shop.copy()
        .execute("update ernstfall.heartbeat set written_at = '2026-01-02 03:04:05+00'");
    running.resume();
    let record = running.wait().expect_code(3).json();
    let told = mismatches(&record);
    assert!(
        told.iter()
            .any(|one| one.starts_with("heartbeat shop: ") && one.ends_with("/ 2026-01-02T03:04:05.000000Z")),
        "{told:?}"
    );
    assert_eq!(record["heartbeat_at"], "2026-01-02T03:04:05Z");
}

#[test]
fn a_heartbeat_that_is_excluded_or_somebody_elses_is_no_evidence_and_no_harm() {
    let shop = Shop::open();
    Beating::at(&shop.database.url()).beat();
    for key in ["exclude", "exclude_data"] {
        let ernstfall = shop.ernstfall().target_key(key, "[\"ernstfall.heartbeat\"]");
        let output = ernstfall.run(["backup", "shop", "--json"]).expect_code(0);
        let id = output.json()["backup"].as_str().unwrap().to_owned();
        assert_eq!(shop.manifest(&id)["heartbeat"], Value::Null, "{key}");
        ernstfall.run(["restore-test", "shop"]).expect_code(0);
    }
    shop.database.execute(
        "drop table ernstfall.heartbeat;
         create table ernstfall.heartbeat (target text, written_at int); insert into ernstfall.heartbeat values ('shop', 1)",
    );
    let id = shop.backup();
    assert_eq!(shop.manifest(&id)["heartbeat"], Value::Null);
    let record = shop.restore_test().expect_code(0).json();
    assert_eq!(record["heartbeat_at"], Value::Null);
}

#[test]
fn a_heartbeat_later_than_its_snapshot_is_a_finding() {
    let shop = Shop::open();
    Beating::at(&shop.database.url()).beat();
    shop.database
        .execute("update ernstfall.heartbeat set written_at = clock_timestamp() + interval '1 hour'");
    let record = shop
        .ernstfall()
        .run(["backup", "shop", "--json"])
        .expect_code(0)
        .json();
    let findings = record["findings"].as_array().unwrap();
    let about = findings.iter().find(|one| one["subject"] == "heartbeat");
    let message = about.expect("a finding")["message"].as_str().unwrap();
    assert!(message.contains("is not believed"), "{message}");
}

#[test]
fn a_source_that_restarts_or_loses_the_table_between_beats_is_written_again() {
    let mut shop = shop();
    let mut beating = Beating::at(&shop.database.url());
    let first = beating.beat();
    shop.cluster.restart();
    let second = beating.beat();
    assert!(second.written_at > first.written_at);
    for lost in ["drop table ernstfall.heartbeat", "drop schema ernstfall cascade"] {
        shop.database.execute(lost);
        let beat = beating.beat();
        assert_eq!(beat.written_at, written_at(&shop.database), "{lost}");
    }
    shop.cluster.crash();
    let told = beating.refusal();
    assert!(told.contains("connect"), "{told}");
    shop.cluster.restart();
    beating.beat();
}

#[test]
fn many_that_make_the_table_at_once_all_beat() {
    let shop = shop();
    let url = shop.database.url();
    let mut threads = Vec::new();
    for number in 0..8 {
        let url = url.clone();
        threads.push(thread::spawn(move || {
            Beating::of(&format!("shop-{number}"), &url, "here", Duration::from_secs(1)).beat()
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(
        shop.database
            .query_one_text("select count(*) from ernstfall.heartbeat"),
        "8"
    );
}

#[test]
fn a_source_that_hangs_costs_a_beat_and_nothing_else() {
    let shop = shop();
    let limit = Duration::from_secs(2);
    let mut beating = Beating::at(&shop.database.url()).within(limit);
    beating.beat();
    let blocker = shop.database.session();
    blocker.execute("begin; lock table ernstfall.heartbeat in access exclusive mode");
    let began = Instant::now();
    let told = beating.refusal();
    assert!(told.contains("no answer within 2s"), "{told}");
    assert!(began.elapsed() < Duration::from_secs(30));
    blocker.execute("rollback");
    beating.beat();
    // Without a limit of ours the server's own ends the wait, and says for what.
    let mut patient = Beating::at(&shop.database.url());
    blocker.execute("begin; lock table ernstfall.heartbeat in access exclusive mode");
    let told = patient.refusal();
    assert!(told.contains("lock timeout"), "{told}");
}

#[test]
fn a_connection_that_breaks_under_a_heartbeat_is_opened_again() {
    let shop = shop();
    let proxy = Proxy::before(&shop.cluster);
    let mut beating = Beating::at(&proxy.url(&shop.database));
    beating.beat();
    proxy.cut();
    beating.beat();
}

#[test]
fn a_row_that_another_installation_keeps_is_told_and_not_fought_over() {
    let shop = shop();
    let url = shop.database.url();
    let mut theirs = Beating::of("shop", &url, "there", Duration::from_secs(1));
    let mut ours = Beating::at(&url);
    theirs.beat();
    let told = ours.refusal();
    assert!(
        told.contains("host of there") && told.contains("of one name in one database"),
        "{told}"
    );
    theirs.beat();
    let silent = |interval: &str| {
        shop.database.execute(&format!(
            "update ernstfall.heartbeat set written_at = clock_timestamp() - interval '{interval}'"
        ));
    };
    silent("50 seconds");
    ours.refusal();
    silent("2 minutes");
    ours.beat();
    let told = theirs.refusal();
    assert!(told.contains("host of here"), "{told}");
}

#[test]
fn a_role_that_may_not_write_is_told_how_to_get_the_right() {
    let shop = shop();
    shop.database.execute("create role reader login password 'reads'");
    let url = shop.database.url_as("reader", "reads");
    let told = Beating::at(&url).refusal();
    assert!(
        told.contains("may not make the table") && told.contains("ernstfall grants shop"),
        "{told}"
    );
    Beating::at(&shop.database.url()).beat();
    shop.database.execute(
        "grant usage on schema ernstfall to reader; grant select, insert on ernstfall.heartbeat to reader",
    );
    let told = Beating::at(&url).refusal();
    assert!(
        told.contains("may not write the table") && told.contains("ernstfall grants shop"),
        "{told}"
    );
    shop.database
        .execute("grant update on ernstfall.heartbeat to reader; delete from ernstfall.heartbeat");
    Beating::at(&url).beat();
}

#[test]
fn a_database_that_is_set_read_only_is_not_written() {
    let shop = shop();
    let name = shop.database.name();
    shop.cluster.maintenance().execute(&format!(
        "alter database {name} set default_transaction_read_only = on"
    ));
    let told = Beating::at(&shop.database.url()).refusal();
    assert!(told.contains("default_transaction_read_only"), "{told}");
    assert_eq!(schemas(&shop.database), "0");
}

/// A database with something in it.
fn shop() -> Shop {
    let shop = Shop::empty();
    shop.database.execute("create table things (id int)");
    shop
}

/// A server whose changes can be subscribed to.
fn publisher() -> Shop {
    let shop = Shop::on(Cluster::builder().setting("wal_level", "logical").start());
    shop.database.execute("create table things (id int primary key)");
    shop
}

#[test]
fn a_publication_of_all_tables_is_seen_before_anything_is_made_and_its_subscriber_keeps_running() {
    let shop = publisher();
    let orders = "create table orders (id int primary key)";
    shop.database
        .execute(&format!("{orders}; create publication everything for all tables"));
    let subscriber = shop.cluster.database("subscriber");
    subscriber.execute("create table things (id int primary key)");
    subscriber.execute(orders);
    // Within one server, the slot is made apart, or creating the subscription would wait for itself.
    shop.database
        .execute("select pg_create_logical_replication_slot('shop_slot', 'pgoutput')");
    subscriber.execute(&format!(
        "create subscription shop connection '{}' publication everything with (create_slot = false, slot_name = shop_slot)",
        shop.database.socket_url()
    ));
    let told = Beating::at(&shop.database.url()).refusal();
    assert!(
        told.contains("the publication everything carries ernstfall.heartbeat")
            && told.contains("switch the heartbeat off"),
        "{told}"
    );
    assert_eq!(schemas(&shop.database), "0");
    shop.database.execute("insert into orders values (1)");
    wait_for("the subscriber to follow", || {
        subscriber.query_one_text("select count(*) from orders") == "1"
    });
    subscriber.execute("alter subscription shop disable");
    subscriber.execute("alter subscription shop set (slot_name = none)");
    subscriber.execute("drop subscription shop");
}

#[test]
fn a_publication_of_the_schema_or_of_the_table_is_refused_and_one_of_other_tables_is_not() {
    let shop = publisher();
    let url = shop.database.url();
    shop.database
        .execute("create table orders (id int primary key); create publication others for table orders");
    shop.database
        .execute("create schema ernstfall; create publication ours for tables in schema ernstfall");
    let told = Beating::at(&url).refusal();
    assert!(told.contains("the publication ours carries"), "{told}");
    let tables = "select count(*) from pg_class where relname = 'heartbeat'";
    assert_eq!(shop.database.query_one_text(tables), "0");
    shop.database.execute("drop publication ours");
    Beating::at(&url).beat();
    let mut kept = Beating::at(&url);
    kept.beat();
    let mut before = written_at(&shop.database);
    for kind in [
        "tables in schema ernstfall",
        "table ernstfall.heartbeat",
        "all tables",
    ] {
        shop.database
            .execute(&format!("create publication ours for {kind}"));
        // One that has beaten before sees it too, at once.
        for told in [kept.refusal(), Beating::at(&url).refusal()] {
            assert!(
                told.contains("the publication ours carries") && told.contains("drop the schema ernstfall"),
                "{kind}: {told}"
            );
        }
        shop.database.execute("drop publication ours");
        assert_eq!(written_at(&shop.database), before);
        before = kept.beat().written_at;
    }
}

/// The lines of `check` about the heartbeat: result and message.
fn checked(ernstfall: &Ernstfall) -> Vec<(String, String)> {
    let lines = ernstfall.run(["check", "shop", "--json"]).json();
    let lines = lines.as_array().unwrap().iter();
    let about = lines.filter(|line| line["subject"].as_str().unwrap().starts_with("heartbeat"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    about
        .map(|line| {
            (
                text(&line["result"]),
                text(&line["message"]) + " -> " + &text(&line["remedy"]),
            )
        })
        .collect()
}

#[track_caller]
fn expect_line(ernstfall: &Ernstfall, result: &str, told: &str) {
    let lines = checked(ernstfall);
    assert!(
        matches!(lines.as_slice(), [(found, message)] if found == result && message.contains(told)),
        "expected {result}: {told}; found {lines:#?}"
    );
}

#[test]
fn check_says_how_the_heartbeat_stands() {
    let shop = publisher();
    assert_eq!(checked(&shop.ernstfall()), []);
    let on = shop.ernstfall().target_key("heartbeat", "\"1s\"");
    expect_line(&on, "warning", "the first makes the table");
    shop.database
        .execute("create publication everything for all tables");
    expect_line(&on, "failed", "the publication everything carries");
    shop.database.execute("drop publication everything");
    shop.database.execute("create role reader login password 'reads'");
    let reader = Ernstfall::new(&shop.directory)
        .target("shop", &shop.database.url_as("reader", "reads"))
        .target_key("heartbeat", "\"1s\"");
    expect_line(&reader, "failed", "ernstfall grants shop");
    let url = shop.database.url();
    Beating::at(&url).beat();
    expect_line(&on, "warning", "host of here, every 1 s: another installation");
    let chain = std::fs::read_to_string(shop.directory.join("state/chain")).unwrap();
    shop.database.execute("delete from ernstfall.heartbeat");
    expect_line(&on, "warning", "none was written yet");
    Beating::of("shop", &url, chain.trim(), Duration::from_secs(1)).beat();
    expect_line(&on, "ok", "s ago by host of");
    let excluded = shop
        .ernstfall()
        .target_key("heartbeat", "\"1s\"")
        .target_key("exclude", "[\"ernstfall.*\"]");
    assert!(checked(&excluded)[0].1.contains("leaves ernstfall.heartbeat out"));
    shop.database
        .execute("update ernstfall.heartbeat set written_at = clock_timestamp() - interval '5 minutes'");
    expect_line(&on, "warning", "start `ernstfall run`");
    let elsewhere = |url: &str| {
        let value = format!("{{ every = \"1s\", url = {url:?} }}");
        shop.ernstfall().target_key("heartbeat", &value)
    };
    let other = shop.cluster.database("other");
    expect_line(&elsewhere(&other.url()), "failed", "no backup would hold it");
    let stranger = Cluster::builder().other_system().start();
    stranger
        .maintenance()
        .execute(&format!("create database {}", shop.database.name()));
    let same_name = stranger.existing_database(shop.database.name());
    expect_line(&elsewhere(&same_name.url()), "failed", "system identifier");
    let secret = "{ every = \"1s\", url = { env = \"NOT_THERE\" } }";
    let without = shop.ernstfall().target_key("heartbeat", secret);
    expect_line(&without, "failed", "NOT_THERE");
}

#[test]
fn an_empty_database_is_not_written_so_that_a_backup_can_be_restored_into_it() {
    let shop = Shop::open();
    Beating::at(&shop.database.url()).beat();
    shop.backup();
    let empty = shop.cluster.database("restored");
    let mut beating = Beating::at(&empty.url());
    let told = beating.refusal();
    assert!(told.contains("the database is empty"), "{told}");
    let paused = shop.ernstfall().pause_at("restore-finish");
    let mut running = paused.spawn(["restore", "shop", "--to", &empty.socket_url()]);
    running.wait_until_paused("restore-finish");
    let told = beating.refusal();
    assert!(told.contains("is being restored"), "{told}");
    running.resume();
    // It beats all along, into the comparison too; the row that it would write is another than the backup's.
    wait_for("the restore to be over", || beating.try_beat().is_ok());
    running.wait().expect_code(0);
}

#[test]
fn a_heartbeat_that_is_switched_off_and_dropped_is_no_loss_of_content() {
    let shop = Shop::open();
    Beating::at(&shop.database.url()).beat();
    shop.backup();
    shop.database.execute("drop schema ernstfall cascade");
    let id = shop.backup();
    assert_eq!(shop.manifest(&id)["shrank"], Value::Null);
}
