//! What must not happen: a good backup called bad, half a backup left behind, a secret told, something left out in
//! silence, two restores in one database.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::shop::{LIMIT, Shop, content, wait_for};
use crate::support::cluster::Cluster;
use crate::support::ernstfall::Ernstfall;
use crate::support::evidence::{
    expect_nothing_stored, expect_nowhere, files, last_record, stored, wait_for_lock, wait_until_gone,
};

/// Kind and name of everything that a record says is not covered.
fn not_covered(record: &Value) -> Vec<(&str, &str)> {
    let entries = record["not_covered"].as_array().unwrap();
    entries
        .iter()
        .map(|one| (one["kind"].as_str().unwrap(), one["name"].as_str().unwrap()))
        .collect()
}

/// A restore into this place is refused, and nothing is said against the backup.
fn expect_environment_at_fault(shop: &Shop, ernstfall: &Ernstfall, to: &str, told: &str) {
    let output = ernstfall
        .run(["restore", "shop", "--to", to, "--json"])
        .expect_code(1);
    let record = output.json();
    assert_eq!(
        (&record["outcome"], &record["verdict"]),
        (&"failed".into(), &"could-not-run".into()),
        "{record:#}"
    );
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.contains(told), "{told}: {reason}");
    assert_eq!(last_record(&shop.ernstfall(), "restore")["id"], record["id"]);
}

#[test]
fn a_restore_with_a_wrong_password_says_nothing_against_the_backup() {
    let shop = Shop::open();
    shop.backup();
    let empty = shop.cluster.database("restored");
    let to = format!(
        "postgresql://postgres@127.0.0.1:{}/{}",
        shop.cluster.port(),
        empty.name()
    );
    let ernstfall = shop.ernstfall().environment("PGPASSWORD", "not-the-password");
    expect_environment_at_fault(&shop, &ernstfall, &to, "password authentication failed");
}

#[test]
fn a_restore_into_an_unknown_database_says_nothing_against_the_backup() {
    let shop = Shop::open();
    shop.backup();
    let to = shop.cluster.existing_database("nowhere").socket_url();
    expect_environment_at_fault(&shop, &shop.ernstfall(), &to, "\"nowhere\" does not exist");
}

#[test]
fn a_restore_by_a_role_with_too_few_rights_says_nothing_against_the_backup() {
    let shop = Shop::open();
    shop.backup();
    let other = Cluster::start();
    for cluster in [&shop.cluster, &other] {
        cluster.maintenance().execute("create role guest login");
    }
    // It may create nothing there.
    let foreign = shop.cluster.database("foreign").socket_url_as("guest");
    expect_environment_at_fault(&shop, &shop.ernstfall(), &foreign, "permission denied");
    // It may create everything but roles, and gives nothing away.
    for (cluster, told) in [(&shop.cluster, "role \""), (&other, "role shop_owner is missing")] {
        let own = cluster.database("own");
        cluster
            .maintenance()
            .execute(&format!("alter database \"{}\" owner to guest", own.name()));
        let to = own.socket_url_as("guest");
        expect_environment_at_fault(&shop, &shop.ernstfall(), &to, told);
    }
}

/// After a backup that was terminated: all of it is there, or nothing.
fn expect_all_or_nothing(shop: &Shop) {
    let ernstfall = shop.ernstfall();
    if stored(&ernstfall, "shop", "manifests").is_empty() {
        expect_nothing_stored(&ernstfall, "shop");
        assert_eq!(last_record(&ernstfall, "backup")["outcome"], "cancelled");
    } else {
        assert_eq!(last_record(&ernstfall, "backup")["outcome"], "succeeded");
        shop.restore_test().expect_code(0);
    }
    wait_until_gone(&shop.database);
}

fn terminated_at(point: &str) {
    let shop = Shop::open();
    let mut running = shop.ernstfall().pause_at(point).spawn(["backup", "shop"]);
    running.wait_until_paused(point);
    running.terminate();
    running.wait().expect_code(143);
    expect_all_or_nothing(&shop);
    shop.backup();
    shop.restore_test().expect_code(0);
}

#[test]
fn a_backup_terminated_before_its_manifest_leaves_all_or_nothing() {
    terminated_at("before-manifest");
}

#[test]
fn a_backup_terminated_after_its_manifest_leaves_all_or_nothing() {
    terminated_at("after-manifest");
}

/// Where exactly the signal comes, chance decides: so there are several rounds.
#[test]
fn a_backup_terminated_while_its_last_objects_are_stored_leaves_all_or_nothing() {
    let shop = Shop::open();
    let repository = shop.directory.join("repository/targets/shop");
    for round in 0..12_u32 {
        let mut running = shop
            .ernstfall()
            .pause_at("before-manifest")
            .spawn(["backup", "shop"]);
        running.wait_until_paused("before-manifest");
        let awaited = if round % 2 == 0 {
            "/schema"
        } else {
            "/contents.json"
        };
        running.resume();
        let deadline = Instant::now() + LIMIT;
        let begun = |path: &PathBuf| path.to_string_lossy().contains(awaited);
        // No pause between two looks: the last objects follow each other within milliseconds.
        while !files(&repository).iter().any(begun) {
            assert!(Instant::now() < deadline, "no {awaited} in round {round}");
        }
        running.terminate();
        let output = running.wait();
        assert!([0, 143].contains(&output.code()), "{}", output.stderr);
        expect_all_or_nothing(&shop);
        for part in ["manifests", "backups"] {
            let _ = fs::remove_dir_all(repository.join(part));
        }
    }
}

#[test]
fn rows_that_break_the_rules_of_their_own_source_are_blamed_on_it() {
    let shop = Shop::open();
    shop.database.execute(
        "create table noise (id int primary key, text text);
         insert into noise select n, md5(n::text) from generate_series(1, 300000) n;
         create index noise_1 on noise (text); create index noise_2 on noise (md5(text));
         create index noise_3 on noise (md5(text || id)); create index noise_4 on noise (md5('x' || text))",
    );
    shop.database.execute(
        "set session_replication_role = replica; insert into orders (customer, cents) values (999, 1)",
    );
    shop.backup();
    let output = shop
        .ernstfall()
        .target_key("jobs", "4")
        .run(["restore-test", "shop", "--json"])
        .expect_code(3);
    let record = output.json();
    assert_eq!(record["verdict"], "failed");
    let reason = record["reason"].as_str().unwrap();
    for part in ["the source's own rows violate it", "orders_customer_fkey"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert!(shop.scratches().is_empty());
}

#[test]
fn a_table_with_a_sequence_of_its_own_can_be_excluded() {
    let shop = Shop::empty();
    shop.database.execute(
        "create table kept (id int); insert into kept values (1);
         create table cache (id int generated by default as identity, note text);
         create table cache_2 (id serial, note text);
         insert into cache (note) values ('a'); insert into cache_2 (note) values ('b')",
    );
    let ernstfall = shop
        .ernstfall()
        .target_key("exclude", "[\"public.cache\", \"public.cache_2\"]");
    let record = ernstfall.run(["backup", "--json", "shop"]).expect_code(0).json();
    for name in ["public.cache", "public.cache_2"] {
        assert!(not_covered(&record).contains(&("table", name)), "{record:#}");
    }
    let record = ernstfall
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(record["verdict"], "passed");
    assert!(
        not_covered(&record["verification"]).contains(&("table", "public.cache")),
        "{record:#}"
    );
}

#[test]
fn grants_on_large_objects_are_equal_whichever_role_came_first() {
    let shop = Shop::empty();
    shop.database.execute(
        "create role zed; create role amy; create role mia;
         select lo_from_bytea(7001, 'shared');
         grant select, update on large object 7001 to zed, amy;
         grant select on large object 7001 to mia with grant option;
         set role mia; grant select on large object 7001 to amy; reset role",
    );
    shop.backup();
    let record = shop.restore_test().expect_code(0).json();
    assert_eq!(record["verdict"], "passed", "{record:#}");
}

#[test]
fn more_large_objects_than_a_transaction_can_lock_are_restored() {
    let shop = Shop::on(Cluster::builder().setting("max_connections", "20").start());
    shop.database.execute(
        "create role keeper; set role keeper; select count(lo_create(10000 + n)) from generate_series(1, 3000) n",
    );
    let id = shop.backup();
    let manifest = shop.manifest(&id).to_string();
    let count = manifest.matches("/large-objects/").count();
    assert!(count >= 2, "{count} objects: {manifest}");
    let to = shop.cluster.database("restored");
    shop.ernstfall()
        .run(["restore", "shop", "--to", &to.socket_url()])
        .expect_code(0);
    assert_eq!(content(&to), content(&shop.database));
    let kept = "select count(*) from pg_largeobject_metadata where lomowner = 'keeper'::regrole";
    assert_eq!(to.query_one_text(kept), "3000");
}

#[test]
fn a_second_restore_into_the_same_database_is_refused_while_the_first_goes_on() {
    let shop = Shop::open();
    shop.backup();
    let to = shop.cluster.database("restored");
    let url = to.socket_url();
    let mut first = shop
        .ernstfall()
        .pause_at("restore-schema")
        .spawn(["restore", "shop", "--to", &url]);
    first.wait_until_paused("restore-schema");
    let holder = to.query_one_text(
        "select pid from pg_locks where locktype = 'advisory' and granted
            and database = (select oid from pg_database where datname = current_database())",
    );
    let second = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &url])
        .expect_code(1);
    assert!(
        second.stderr.contains(&format!("pid {holder}")),
        "{holder}: {}",
        second.stderr
    );
    let over = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &url, "--start-over"])
        .expect_code(1);
    assert!(over.stderr.contains(&format!("pid {holder}")), "{}", over.stderr);
    first.resume();
    first.wait().expect_code(0);
    assert_eq!(content(&to), content(&shop.database));
}

#[test]
fn a_materialised_view_sees_the_rows_that_the_policy_shows_its_owner() {
    let shop = Shop::empty();
    shop.database.execute(
        "create role keeper; create role watcher;
         create table secrets (id int, note text);
         insert into secrets select n, 'note ' || n from generate_series(1, 20) n;
         alter table secrets owner to keeper; alter table secrets enable row level security;
         create policy late on secrets for select to watcher using (id > 15);
         grant select on secrets to watcher; grant create on schema public to watcher;
         create materialized view seen as select * from secrets with no data;
         alter materialized view seen owner to watcher;
         refresh materialized view seen",
    );
    assert_eq!(shop.database.query_one_text("select count(*) from seen"), "5");
    shop.backup();
    let record = shop.restore_test().expect_code(0).json();
    assert_eq!(record["verdict"], "passed", "{record:#}");
    let to = shop.cluster.database("restored");
    shop.ernstfall()
        .run(["restore", "shop", "--to", &to.socket_url()])
        .expect_code(0);
    assert_eq!(to.query_one_text("select count(*) from seen"), "5");
}

#[test]
fn what_a_dump_leaves_out_without_a_word_is_named() {
    let shop = Shop::empty();
    shop.database.execute(
        "create role saver login password 'saving'; grant pg_read_all_data to saver;
         create foreign data wrapper wrapper; create server far foreign data wrapper wrapper;
         create user mapping for postgres server far options (password 'mapped');
         create role seller login; create table sold (id int); alter table sold owner to seller;
         create table twice (id int); insert into twice values (1), (1);
         alter role all set work_mem = '5MB'",
    );
    let failed = shop
        .database
        .session()
        .try_execute("create unique index concurrently broken on twice (id)");
    assert!(failed.is_err());
    let ernstfall = Ernstfall::new(&shop.directory).target("shop", &shop.database.url_as("saver", "saving"));
    let record = ernstfall.run(["backup", "shop", "--json"]).expect_code(0).json();
    for expected in [
        ("user mapping options", "far for postgres"),
        ("index", "public.broken"),
        ("password", "seller"),
        ("setting of all roles", "work_mem"),
    ] {
        assert!(
            not_covered(&record).contains(&expected),
            "{expected:?}: {record:#}"
        );
    }
    let record = ernstfall
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(record["verdict"], "passed");
    assert!(not_covered(&record["verification"]).contains(&("index", "public.broken")));
}

/// The files of records in the repository, wherever they are.
fn record_files(shop: &Shop) -> Vec<PathBuf> {
    let mut found = files(&shop.directory.join("repository"));
    found.retain(|path| path.components().any(|part| part.as_os_str() == "records"));
    assert!(!found.is_empty());
    found
}

#[test]
fn a_setting_that_differs_is_told_without_its_value() {
    const SECRET: &str = "hunter2hunter2";
    let shop = Shop::open();
    let set = |value: &str| {
        format!(
            "alter database \"{}\" set app.secret = '{value}'; alter role clerk in database \"{0}\" set app.secret = '{value}'",
            shop.database.name()
        )
    };
    shop.database.execute(&set(SECRET));
    shop.backup();
    let running = shop.paused_before_comparison();
    shop.copy().execute(&set(&format!("changed-{SECRET}")));
    running.resume();
    let output = running.wait().expect_code(3);
    let record = output.json();
    assert_eq!(record["verdict"], "failed");
    assert!(
        record["reason"].as_str().unwrap().contains("app.secret"),
        "{record:#}"
    );
    let told = output.stdout + &output.stderr + &shop.records().to_string();
    assert!(!told.contains(SECRET), "{told}");
    expect_nowhere(SECRET, &shop.directory.join("state"));
    for path in record_files(&shop) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(!text.contains(SECRET), "{}: {text}", path.display());
    }
}

#[test]
fn a_database_with_nothing_but_a_composite_type_is_not_empty() {
    let shop = Shop::open();
    shop.backup();
    let taken = shop.cluster.database("taken");
    taken.execute("create type pair as (a int, b int)");
    let output = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &taken.socket_url()])
        .expect_code(1);
    for part in ["is not empty", "public.pair"] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    let marked = "select count(*) from pg_namespace where nspname = 'ernstfall_restore'";
    assert_eq!(taken.query_one_text(marked), "0");
}

#[test]
fn a_backup_that_gives_way_has_the_server_stop_reading() {
    let shop = Shop::empty();
    // Ten gigabytes to read, of which the server keeps little.
    shop.database.execute(
        "create table long (id int, text text); insert into long values (1, repeat('x', 20000000));
         insert into long select n, text from long, generate_series(2, 500) n",
    );
    let ernstfall = shop.ernstfall().target_key("on_blocked_ddl", "\"abort\"");
    let running = ernstfall.spawn(["backup", "shop"]);
    let reading = "select pid from pg_stat_activity where application_name = 'ernstfall backup worker'
                      and state = 'active' and query like 'COPY%'";
    wait_for("a worker to read", || {
        !shop.database.query_rows(reading).is_empty()
    });
    let session = shop.database.session();
    let ddl = thread::spawn(move || session.execute("alter table long add column extra float default 1"));
    wait_for_lock(&shop.database, "alter table long%");
    let began = Instant::now();
    let output = running.wait().expect_code(1);
    ddl.join().unwrap();
    wait_until_gone(&shop.database);
    let took = began.elapsed();
    assert!(output.stderr.contains("gave way"), "{}", output.stderr);
    assert!(took < Duration::from_secs(15), "{took:?}");
    expect_nothing_stored(&ernstfall, "shop");
}
