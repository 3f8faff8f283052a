//! What acts by itself in the source lies still in its copy: jobs, subscriptions, event triggers, archiving.

use std::net::TcpListener;

use crate::shop::{Shop, wait_for};
use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::skip::require;

/// Jobs that pg_cron has run, and rows that they left.
fn runs(database: &Database) -> (u32, u32) {
    let count = |table: &str| {
        let text = database.query_one_text(&format!("select count(*) from {table}"));
        text.parse().unwrap()
    };
    (count("cron.job_run_details"), count("public.ticks"))
}

#[test]
fn jobs_of_pg_cron_are_in_the_copy_and_do_not_run() {
    let plain = Cluster::start();
    let sql = "select count(*) from pg_available_extensions where name = 'pg_cron'";
    require!(
        plain.maintenance().query_one_text(sql) == "1",
        "pg_cron is not installed: run `make test`"
    );
    drop(plain);
    let cluster = Cluster::builder()
        .setting("shared_preload_libraries", "pg_cron")
        .setting("cron.database_name", "shop_1")
        .setting("cron.use_background_workers", "on")
        .start();
    let mut shop = Shop::on(cluster);
    shop.database.execute(
        "create extension pg_cron; create table ticks (at timestamptz default clock_timestamp());
         select cron.schedule('at start', '@reboot', 'insert into public.ticks default values');
         select cron.schedule('each minute', '* * * * *', 'insert into public.ticks default values')",
    );
    // A new start is what such a job waits for: the copy has one too.
    shop.cluster.restart();
    wait_for("the job to run in the source", || runs(&shop.database).1 > 0);
    shop.database.execute("update cron.job set active = false");
    wait_for("the source to be quiet", || {
        let running = "select count(*) from cron.job_run_details where end_time is null";
        shop.database.query_one_text(running) == "0"
    });
    shop.database
        .execute("update cron.job set active = true where jobname = 'at start'");
    shop.backup();
    let before = runs(&shop.database);
    let running = shop.paused_before_comparison();
    let copy = shop.copy();
    assert_eq!(
        copy.query_one_text(
            "select string_agg(jobname || ' ' || active, ', ' order by jobname) from cron.job"
        ),
        "at start true, each minute false"
    );
    // Its scheduler has started, and knows the job: it begins its log with that.
    let launcher = "select count(*) from pg_stat_activity where backend_type = 'pg_cron launcher' and wait_event is not null";
    wait_for("the scheduler of the copy", || {
        copy.query_one_text(launcher) == "1"
    });
    let details = copy.query_rows("select * from cron.job_run_details");
    assert_eq!(runs(&copy), before, "a job ran in the copy: {details:?}");
    running.resume();
    running.wait().expect_code(0);
    assert_eq!(runs(&shop.database), before);
}

#[test]
fn event_triggers_and_triggers_of_the_source_do_not_fire_while_the_copy_is_made() {
    let shop = Shop::open();
    shop.database.execute(
        "create table fired (what text);
         create function note_ddl() returns event_trigger language plpgsql as
             $$begin insert into public.fired values (tg_event || ' ' || tg_tag); end$$;
         create event trigger at_start on ddl_command_start execute function note_ddl();
         create event trigger at_end on ddl_command_end execute function note_ddl();
         create event trigger at_drop on sql_drop execute function note_ddl();
         alter event trigger at_end enable always;
         alter event trigger at_drop enable replica",
    );
    shop.database
        .execute("create table made (id int); drop table made; refresh materialized view totals");
    let fired = "select count(*) from fired";
    let (before, audited) = (shop.database.query_one_text(fired), "select count(*) from audit");
    assert!(
        before.parse::<u32>().unwrap() > 4,
        "they fire in the source: {before}"
    );
    shop.backup();
    let running = shop.paused_before_comparison();
    let copy = shop.copy();
    assert_eq!(copy.query_one_text(fired), before);
    assert_eq!(
        copy.query_one_text(audited),
        shop.database.query_one_text(audited)
    );
    running.resume();
    running.wait().expect_code(0);
}

#[test]
fn a_subscription_of_the_source_connects_to_nobody_from_its_copies() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let shop = Shop::on(Cluster::builder().setting("wal_level", "logical").start());
    shop.database.execute(&format!(
        "create table received (id int primary key);
         create subscription orders connection 'host=127.0.0.1 port={port} dbname=none connect_timeout=2'
             publication orders with (connect = false, slot_name = 'orders')"
    ));
    shop.backup();
    let reached = || listener.incoming().take_while(Result::is_ok).count();
    assert_eq!(reached(), 0, "it was made without connecting");
    let running = shop.paused_before_comparison();
    let enabled = "select count(*) from pg_subscription where subenabled";
    assert_eq!(shop.copy().query_one_text(enabled), "0");
    running.resume();
    running.wait().expect_code(0);
    let other = Cluster::start();
    let restored = other.database("restored");
    shop.ernstfall()
        .run(["restore", "shop", "--to", &restored.socket_url()])
        .expect_code(0);
    assert_eq!(restored.query_one_text(enabled), "0");
    assert_eq!(reached(), 0, "a copy connected");
    // The listener hears a subscription that is enabled.
    shop.database.execute("alter subscription orders enable");
    wait_for("the subscription of the source to connect", || reached() > 0);
}

#[test]
fn what_alter_system_set_in_the_source_does_not_act_in_the_copy() {
    let shop = Shop::on(Cluster::builder().setting("archive_mode", "on").start());
    let written = shop.directory.join("archived");
    let maintenance = shop.cluster.maintenance();
    let command = format!("touch {}", written.display());
    // Not in a transaction, so one by one.
    maintenance.execute(&format!("alter system set archive_command = '{command}'"));
    maintenance.execute("select pg_reload_conf()");
    shop.database
        .execute("create table noted (id int); select pg_switch_wal()");
    wait_for("the source to archive", || written.exists());
    shop.backup();
    let running = shop.paused_before_comparison();
    let copy = shop.copy();
    assert_eq!(copy.query_one_text("show archive_mode"), "off");
    assert_eq!(copy.query_one_text("show archive_command"), "(disabled)");
    let workers = "select coalesce(string_agg(backend_type, ', '), '') from pg_stat_activity
                    where backend_type ~ 'archiver|logical replication|walsender|walreceiver'";
    assert_eq!(copy.query_one_text(workers), "");
    assert_eq!(copy.query_one_text("show listen_addresses"), "");
    running.resume();
    running.wait().expect_code(0);
}
