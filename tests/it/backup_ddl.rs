//! DDL that commits, or waits, while a backup is taken: the rows are there or the backup is started over, and the
//! application's statements get through.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::support::cluster::Cluster;
use super::support::database::{Database, Session};
use super::support::directory::TestDir;
use super::support::ernstfall::{Ernstfall, Running};
use super::support::evidence::{
    content, expect_nothing_stored, last_record, stored, wait_for_lock, wait_until_gone,
};

/// Each leaves other rows behind than it found, so that rows lost can never look like rows truncated.
const STATEMENTS: &[(&str, &str)] = &[
    ("truncate", "truncate t; insert into t values (100, 'after')"),
    (
        "drop and create",
        "drop table t; create table t (id int, note text); insert into t values (100, 'after')",
    ),
    ("change of type", "alter table t alter column id type bigint"),
    (
        "change of type without a rewrite",
        "alter table t alter column note type varchar",
    ),
    (
        "column with a volatile default",
        "alter table t add column extra double precision default random()",
    ),
    (
        "column with a constant default",
        "alter table t add column extra int default 7",
    ),
    ("dropped column", "alter table t drop column note"),
    ("renamed column", "alter table t rename column note to remark"),
    (
        "swapped columns",
        "alter table t add column other text default 'o'; alter table t rename column note to x; \
         alter table t rename column other to note; alter table t rename column x to other",
    ),
    ("set unlogged", "alter table t set unlogged"),
    (
        "swap by rename",
        "create table fresh (id int, note text); insert into fresh values (100, 'after'); \
         alter table t rename to stale; alter table fresh rename to t",
    ),
    (
        "moved to another schema",
        "create schema attic; alter table t set schema attic",
    ),
    (
        "replaced by a partitioned table",
        "alter table t rename to t_rest; create table t (id int, note text) partition by range (id); \
         alter table t attach partition t_rest default",
    ),
    (
        "replaced by a view",
        "alter table t rename to t_rest; create view t as select * from t_rest",
    ),
    ("replaced by a sequence", "drop table t; create sequence t"),
    ("vacuum full", "vacuum full t"),
    ("cluster", "cluster t using t_id"),
];

/// Two tests share them, so that none takes long.
const HALF: usize = STATEMENTS.len() / 2;

const TABLE: &str = "create table t (id int, note text); create index t_id on t (id);
    insert into t select i, 'note ' || i from generate_series(1, 500) i; ";

fn product(directory: &TestDir, database: &Database) -> Ernstfall {
    Ernstfall::new(directory)
        .target("shop", &database.url())
        .tables("[scratch]\nisolation = \"best-effort\"")
}

/// Runs a statement that is expected to wait.
fn in_background(database: &Database, sql: &str) -> JoinHandle<()> {
    let (session, sql) = (database.session(), sql.to_owned());
    thread::spawn(move || session.execute(&sql))
}

fn expect_copy(cluster: &Cluster, ernstfall: &Ernstfall, expected: &[String], told: &str) {
    let copy = cluster.database("copy");
    ernstfall
        .run(["restore", "shop", "--to", &copy.socket_url()])
        .expect_code(0);
    assert_eq!(content(&copy), expected, "{told}");
}

fn start(ernstfall: &Ernstfall, point: &str) -> Running {
    let mut running = ernstfall.spawn(["backup"]);
    running.wait_until_paused(point);
    running
}

/// Lets the backup end well; its record.
fn finish(ernstfall: &Ernstfall, running: Running) -> Value {
    running.wait().expect_code(0);
    last_record(ernstfall, "backup")
}

/// What the exporter waits for while other tables are not locked yet: names come in order.
fn gate(source: &Database) -> Session {
    source.execute("create table gate (id int)");
    let gate = source.session();
    gate.execute("begin; lock table gate in access exclusive mode");
    gate
}

/// Listed, and not locked yet, although the transaction that takes the snapshot has begun.
fn while_locks_are_taken(statements: &[(&str, &str)]) {
    let cluster = Cluster::start();
    for (told, sql) in statements {
        let source = cluster.database("shop");
        source.execute(TABLE);
        let gate = gate(&source);
        let directory = TestDir::new("ddl");
        let ernstfall = product(&directory, &source);
        let running = ernstfall.spawn(["backup"]);
        wait_for_lock(&source, "LOCK TABLE%gate%");
        source.execute(sql);
        gate.execute("commit");
        finish(&ernstfall, running);
        expect_copy(&cluster, &ernstfall, &content(&source), told);
    }
}

#[test]
fn ddl_while_the_locks_are_taken_loses_no_row() {
    while_locks_are_taken(&STATEMENTS[..HALF]);
}

#[test]
fn more_ddl_while_the_locks_are_taken_loses_no_row() {
    while_locks_are_taken(&STATEMENTS[HALF..]);
}

/// Not listed yet, so that the table is locked only once the snapshot shows it.
fn before_new_tables_are_locked(statements: &[(&str, &str)]) {
    let cluster = Cluster::start();
    for (told, sql) in statements {
        let source = cluster.database("shop");
        let gate = gate(&source);
        let directory = TestDir::new("ddl");
        let ernstfall = product(&directory, &source).pause_at("after-look");
        let mut running = ernstfall.spawn(["backup"]);
        wait_for_lock(&source, "LOCK TABLE%gate%");
        source.execute(TABLE);
        gate.execute("commit");
        running.wait_until_paused("after-look");
        source.execute(sql);
        running.resume();
        finish(&ernstfall, running);
        expect_copy(&cluster, &ernstfall, &content(&source), told);
    }
}

#[test]
fn ddl_between_the_snapshot_and_the_locks_of_new_tables_loses_no_row() {
    before_new_tables_are_locked(&STATEMENTS[..HALF]);
}

#[test]
fn more_ddl_between_the_snapshot_and_the_locks_of_new_tables_loses_no_row() {
    before_new_tables_are_locked(&STATEMENTS[HALF..]);
}

#[test]
fn schema_that_is_gone_or_replaced_between_listing_and_locking_starts_the_backup_over() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(
        "create schema old; create table old.orders as select 1 as id; create table kept as select 2 as id",
    );
    let directory = TestDir::new("ddl");
    let ernstfall = product(&directory, &source).pause_at("after-list");
    let running = start(&ernstfall, "after-list");
    source.execute("alter schema old rename to new");
    running.resume();
    assert_eq!(finish(&ernstfall, running)["attempts"], 2);
    expect_copy(&cluster, &ernstfall, &content(&source), "renamed schema");
}

/// The locks are held: what is waiting behind them is not seen in the backup, and gets through after it.
#[test]
fn ddl_on_a_table_that_waits_to_be_copied_has_to_wait_and_the_backup_holds_the_rows() {
    let cluster = Cluster::start();
    for (told, sql) in [
        ("truncate", "truncate t"),
        ("drop", "drop table t"),
        ("type", "alter table t alter column id type bigint"),
        ("swap", "alter table t rename to stale"),
    ] {
        let source = cluster.database("shop");
        source.execute(TABLE);
        let (before, schema) = (content(&source), source.dump_schema());
        let directory = TestDir::new("ddl");
        let ernstfall = product(&directory, &source)
            .target_key("jobs", "2")
            .pause_at("before-table");
        let running = start(&ernstfall, "before-table");
        let ddl = in_background(&source, sql);
        wait_for_lock(&source, sql);
        running.resume();
        assert_eq!(finish(&ernstfall, running)["attempts"], 1, "{told}");
        ddl.join().unwrap();
        let after = (content(&source), source.dump_schema());
        assert_ne!(after, (before.clone(), schema), "{told} got through");
        expect_copy(&cluster, &ernstfall, &before, told);
    }
}

#[test]
fn pg_dump_behind_a_queued_alter_table_is_bounded_and_the_backup_starts_over() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(TABLE);
    let directory = TestDir::new("ddl");
    let ernstfall = product(&directory, &source)
        .target_key("lock_timeout", "\"1s\"")
        .pause_at("after-export");
    let running = start(&ernstfall, "after-export");
    let ddl = in_background(&source, "alter table t add column extra float default random()");
    wait_for_lock(&source, "alter table t%");
    running.resume();
    let record = finish(&ernstfall, running);
    ddl.join().unwrap();
    assert_eq!(record["attempts"], 2, "{record:#}");
    expect_copy(&cluster, &ernstfall, &content(&source), "queued ALTER");
    assert_eq!(stored(&ernstfall, "shop", "manifests").len(), 1);
    let data = stored(&ernstfall, "shop", "backups");
    let id = record["backup"].as_str().unwrap();
    assert!(
        data.iter().all(|path| path.to_string_lossy().contains(id)),
        "{data:?}"
    );
}

/// A table is copied while DDL on it waits; the watcher looks every few seconds.
fn wait_behind_the_copy(on_blocked_ddl: &str) -> (i32, Value, Duration) {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(TABLE);
    let directory = TestDir::new("ddl");
    let ernstfall = product(&directory, &source)
        .target_key("on_blocked_ddl", &format!("{on_blocked_ddl:?}"))
        .pause_at("before-table");
    let mut running = start(&ernstfall, "before-table");
    let ddl = in_background(&source, "alter table t add column extra float default random()");
    let pid = wait_for_lock(&source, "alter table t%");
    let began = std::time::Instant::now();
    if on_blocked_ddl == "continue" {
        // The product says nothing on its way; what it asks the server is seen there.
        let seen = "select 1 from pg_stat_activity where application_name = 'ernstfall backup guard' \
                    and query like '%pg_blocking_pids%' and state = 'idle'";
        super::support::evidence::wait_for("the backup looks who waits", || {
            !source.query_rows(seen).is_empty()
        });
        running.resume();
    } else {
        running.wait_for_stderr("gave way", Duration::from_secs(15));
    }
    let output = running.wait();
    let took = began.elapsed();
    ddl.join().unwrap();
    wait_until_gone(&source);
    let record = last_record(&ernstfall, "backup");
    let told = format!("{record}");
    assert!(
        told.contains(&format!("pid {pid} waited")) && told.contains("alter table t add column"),
        "{record:#}"
    );
    if on_blocked_ddl == "abort" {
        expect_nothing_stored(&ernstfall, "shop");
    }
    (output.code(), record, took)
}

#[test]
fn alter_table_that_queues_behind_a_copy_is_a_finding_when_the_backup_continues() {
    let (code, record, _) = wait_behind_the_copy("continue");
    assert_eq!(code, 0);
    assert_eq!(record["outcome"], "succeeded");
    assert_eq!(record["findings"][0]["severity"], "warning");
    assert_eq!(record["findings"][0]["subject"], "public.t");
}

#[test]
fn alter_table_that_queues_behind_a_copy_gets_through_when_the_backup_gives_way() {
    let (code, record, took) = wait_behind_the_copy("abort");
    assert_eq!(code, 1);
    assert_eq!(record["outcome"], "failed");
    assert!(
        record["reason"].as_str().unwrap().contains("gave way"),
        "{record:#}"
    );
    assert!(took < Duration::from_secs(12), "{took:?}");
}

#[test]
fn table_locked_by_somebody_else_fails_the_backup_in_time_and_names_the_blocker() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(TABLE);
    let blocker = source.session();
    blocker.execute("begin; lock table t in access exclusive mode");
    let pid = blocker.backend_pid();
    blocker.execute("select 'a secret' as the_blocker_was_here");
    let directory = TestDir::new("ddl");
    let ernstfall = product(&directory, &source).target_key("lock_timeout", "\"2s\"");
    let output = ernstfall.run(["backup"]).expect_code(1);
    assert!(output.elapsed < Duration::from_secs(10), "{:?}", output.elapsed);
    for told in [
        format!("pid {pid} "),
        "the_blocker_was_here".to_owned(),
        "lock_timeout".to_owned(),
    ] {
        assert!(output.stderr.contains(&told), "{told}: {}", output.stderr);
    }
    assert!(!output.stderr.contains("a secret"), "{}", output.stderr);
    expect_nothing_stored(&ernstfall, "shop");
    let record = last_record(&ernstfall, "backup");
    assert_eq!(record["outcome"], "failed");
    blocker.execute("rollback");
    ernstfall.run(["backup"]).expect_code(0);
}

const SCHEMA: &str = "create table t (id int, note text); insert into t values (1, 'one');
    create view v as select id from t; create function f() returns int language sql as 'select 1';
    create sequence s; create type mood as enum ('sad'); ";

/// What no lock holds still while pg_dump reads it.
const UNLOCKABLE: &[(&str, &str)] = &[
    (
        "replaced view",
        "create or replace view v as select id, note from t",
    ),
    ("dropped view", "drop view v"),
    (
        "replaced function",
        "create or replace function f() returns int language sql as 'select 2'",
    ),
    ("dropped function", "drop function f()"),
    ("dropped sequence", "drop sequence s"),
    ("altered sequence", "alter sequence s increment by 5"),
];

#[test]
fn view_function_or_sequence_that_changes_before_pg_dump_starts_the_backup_over() {
    changes_start_the_backup_over("after-export");
}

#[test]
fn view_function_or_sequence_that_changes_while_pg_dump_runs_starts_the_backup_over() {
    changes_start_the_backup_over("before-schema-check");
}

fn changes_start_the_backup_over(point: &str) {
    let cluster = Cluster::start();
    for (told, sql) in UNLOCKABLE {
        let source = cluster.database("shop");
        source.execute(SCHEMA);
        let directory = TestDir::new("ddl");
        let ernstfall = product(&directory, &source).pause_at(point);
        let running = start(&ernstfall, point);
        source.execute(sql);
        running.resume();
        let output = running.wait();
        assert_eq!(output.code(), 0, "{told}: {}", output.stderr);
        let record = last_record(&ernstfall, "backup");
        assert_eq!(record["attempts"], 2, "{told}: {record:#}");
        let copy = cluster.database("copy");
        ernstfall
            .run(["restore", "shop", "--to", &copy.socket_url()])
            .expect_code(0);
        assert_eq!(copy.dump_schema(), source.dump_schema(), "{told}");
    }
}

#[test]
fn new_objects_and_other_sessions_temporary_ones_do_not_start_the_backup_over() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(SCHEMA);
    let session = source.session();
    session
        .execute("create temporary table mine (id serial); create temporary view mine_too as select 1 as a");
    let directory = TestDir::new("ddl");
    let ernstfall = product(&directory, &source).pause_at("before-schema-check");
    let before = content(&source);
    let running = start(&ernstfall, "before-schema-check");
    source.execute("create table late (id serial); create view later as select 1 as a; select nextval('s')");
    session.execute("drop view mine_too; drop table mine");
    running.resume();
    assert_eq!(finish(&ernstfall, running)["attempts"], 1);
    expect_copy(&cluster, &ernstfall, &before, "new objects");
}

/// The lock table of this server has no room for a lock on every table.
fn cramped() -> Cluster {
    Cluster::builder()
        .setting("max_locks_per_transaction", "10")
        .setting("max_connections", "12")
        .start()
}

fn many_tables(database: &Database, count: u32) {
    // One by one: the locks of one transaction would not fit.
    let session = database.session();
    for number in 0..count {
        session.execute(&format!("create table many_{number} as select {number} as id"));
    }
}

#[test]
fn server_without_room_for_all_locks_is_backed_up_and_the_record_says_how() {
    let cluster = cramped();
    let source = cluster.database("shop");
    many_tables(&source, 200);
    let directory = TestDir::new("ddl");
    let ernstfall = product(&directory, &source).target_key("jobs", "2");
    ernstfall.run(["backup"]).expect_code(0);
    let record = last_record(&ernstfall, "backup");
    let finding = record["findings"][0]["message"].as_str().unwrap().to_owned();
    assert!(finding.contains("max_locks_per_transaction"), "{finding}");
    assert_eq!(record["totals"]["rows"], 200);
    ernstfall.run(["restore-test"]).expect_code(0);
}

#[test]
fn ddl_before_a_copy_that_no_lock_held_back_loses_no_row() {
    before_a_copy_without_locks(&STATEMENTS[..HALF]);
}

#[test]
fn more_ddl_before_a_copy_that_no_lock_held_back_loses_no_row() {
    before_a_copy_without_locks(&STATEMENTS[HALF..]);
}

fn before_a_copy_without_locks(statements: &[(&str, &str)]) {
    let cluster = cramped();
    for (told, sql) in statements {
        let source = cluster.database("shop");
        source.execute(TABLE);
        many_tables(&source, 40);
        let directory = TestDir::new("ddl");
        let ernstfall = product(&directory, &source)
            .target_key("jobs", "1")
            .pause_at("before-table");
        let running = start(&ernstfall, "before-table");
        let before = content(&source);
        source.execute(sql);
        running.resume();
        let output = running.wait();
        let record = last_record(&ernstfall, "backup");
        if output.code() == 0 {
            // Of the snapshot of the first attempt, or of the one of the second.
            let moved = record["attempts"] != 1;
            let expected = if moved { content(&source) } else { before };
            expect_copy(&cluster, &ernstfall, &expected, told);
        } else {
            assert_eq!(
                (output.code(), &record["outcome"]),
                (1, &Value::from("failed")),
                "{told}"
            );
            expect_nothing_stored(&ernstfall, "shop");
        }
    }
}

/// pg_dump and the reading of sequences would wait for as long as the other transaction lasts.
#[test]
fn view_or_sequence_locked_by_somebody_else_fails_the_backup_in_time() {
    let cluster = Cluster::start();
    for (sql, told) in [
        ("begin; drop view v", "held a conflicting lock"),
        ("begin; drop sequence s", "lock timeout"),
    ] {
        let source = cluster.database("shop");
        source.execute(SCHEMA);
        let other = source.session();
        other.execute(sql);
        let directory = TestDir::new("ddl");
        let ernstfall = product(&directory, &source).target_key("lock_timeout", "\"1s\"");
        let output = ernstfall.run(["backup"]).expect_code(1);
        assert!(output.elapsed < Duration::from_secs(15), "{:?}", output.elapsed);
        assert!(output.stderr.contains(told), "{told}: {}", output.stderr);
        expect_nothing_stored(&ernstfall, "shop");
        other.execute("rollback");
        wait_until_gone(&source);
        ernstfall.run(["backup"]).expect_code(0);
    }
}
