//! The SQL that `ernstfall grants` prints, run as it is: enough for everything, and for nothing else.

use std::process::Command;

use serde_json::Value;

use crate::heart::Beating;
use crate::shop::{Shop, content};
use crate::support::database::Database;
use crate::support::ernstfall::Ernstfall;
use crate::support::process::run_or_panic;

/// What a role finds hard to read: other schemas and owners, row-level security, large objects, sequences, no grants.
const HARD: &str = "
    create role app; create role \"other app\" nologin;
    create schema private authorization app; create schema \"Odd one\" authorization \"other app\";
    set role app;
    create table private.secrets (id int primary key, secret text);
    create sequence private.numbers; select nextval('private.numbers');
    insert into private.secrets values (1, 'a'), (2, 'b');
    alter table private.secrets enable row level security;
    create policy nobody on private.secrets using (false);
    create materialized view private.summary as select count(*) from private.secrets;
    select lo_from_bytea(5001, 'of the application');
    set role \"other app\";
    create table \"Odd one\".\"a \"\"table\"\"\" (id int); insert into \"Odd one\".\"a \"\"table\"\"\" values (7);
    reset role;
";

/// Made by others when the grants were given already.
const LATER: &str = "
    set role app; create table private.later (id serial); insert into private.later default values;
    set role \"other app\"; create table \"Odd one\".later (id int); insert into \"Odd one\".later values (1);
    reset role; grant create on database \"DATABASE\" to app; set role app; create schema later;
    create table later.later (id int); insert into later.later values (1); reset role;
";

fn ernstfall(shop: &Shop) -> Ernstfall {
    Ernstfall::new(&shop.directory)
        .target("shop", &shop.database.url_as("backup", "secret"))
        .target_key("heartbeat", "\"1s\"")
}

/// Runs a script as an administrator does.
fn run_sql(shop: &Shop, script: &str) {
    let file = shop.directory.write("grants.sql", script);
    let mut command = Command::new(shop.cluster.programs().path("psql"));
    command
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(file);
    run_or_panic(command.arg(shop.database.socket_url()));
}

/// Everything works for exactly this role: backup, heartbeat, restore test.
fn expect_enough(shop: &Shop, ernstfall: &Ernstfall) {
    Beating::at(&shop.database.url_as("backup", "secret")).beat();
    let record = ernstfall.run(["backup", "shop", "--json"]).expect_code(0).json();
    let not_covered = record["not_covered"].as_array().unwrap();
    assert!(
        not_covered.iter().all(|one| one["kind"] == "password"),
        "{not_covered:?}"
    );
    let test = ernstfall
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert!(test["heartbeat_at"].is_string(), "{test:#}");
    let copy = shop.cluster.database("copy");
    ernstfall
        .run(["restore", "shop", "--to", &copy.socket_url()])
        .expect_code(0);
    assert_eq!(content(&copy), content(&shop.database));
    let secrets = "select string_agg(secret, ',' order by id) from private.secrets";
    assert_eq!(copy.query_one_text(secrets), "a,b");
}

/// What the role may change, by what the server says of every object.
fn writable(database: &Database) -> Vec<String> {
    let rows = database.query_rows(
        "select p.privilege || ' ' || c.oid::regclass from pg_class c,
                (values ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')) p(privilege)
          where c.relkind in ('r', 'p', 'v', 'm', 'f') and has_table_privilege('backup', c.oid, p.privilege)
            and c.relnamespace <> 'pg_catalog'::regnamespace
         union all select 'sequence ' || oid::regclass from pg_class
          where relkind = 'S' and (has_sequence_privilege('backup', oid, 'UPDATE') or has_sequence_privilege('backup', oid, 'USAGE'))
         union all select 'create in ' || nspname from pg_namespace where has_schema_privilege('backup', oid, 'CREATE')
         union all select 'create schemas' where has_database_privilege('backup', current_database(), 'CREATE')
         union all select 'attribute ' || rolname from pg_roles
          where rolname = 'backup' and (rolsuper or rolcreaterole or rolcreatedb or rolreplication)
         order by 1",
    );
    rows.into_iter().flatten().flatten().collect()
}

fn expect_no_more(shop: &Shop) {
    let only = ["INSERT ernstfall.heartbeat", "UPDATE ernstfall.heartbeat"];
    assert_eq!(writable(&shop.database), only);
    let session = shop.database.session_as("backup");
    for denied in [
        "insert into orders (customer, cents) values (1, 1)",
        "update private.secrets set secret = ''",
        "delete from ernstfall.heartbeat",
        "drop table ernstfall.heartbeat",
        "create table ernstfall.mine (id int)",
        "create table public.mine (id int)",
        "create schema mine",
        "select lo_put(5001, 0, 'x')",
        "select lo_unlink(5001)",
        "set role app",
    ] {
        let refused = session.try_execute(denied).expect_err(denied);
        assert_eq!(refused.code().expect(denied).code(), "42501", "{denied}");
    }
}

fn shop_with_hard_cases() -> Shop {
    let shop = Shop::open();
    shop.database.execute(HARD);
    shop
}

fn make_later_tables(shop: &Shop) {
    shop.database
        .execute(&LATER.replace("DATABASE", shop.database.name()));
}

#[test]
fn the_printed_sql_is_enough_for_everything_and_lets_the_role_write_nothing_but_the_heartbeat() {
    let shop = shop_with_hard_cases();
    let ernstfall = ernstfall(&shop);
    // The role is not there yet, so that nobody can ask the server.
    let first = ernstfall.run(["grants", "shop"]).expect_code(0);
    assert!(first.stdout.contains("assumed"), "{}", first.stdout);
    assert!(first.stderr.contains("--server-version"), "{}", first.stderr);
    assert!(!first.stdout.contains("secret"), "{}", first.stdout);
    run_sql(&shop, &first.stdout);
    shop.database.execute("alter role backup password 'secret'");
    let second = ernstfall.run(["grants", "shop"]).expect_code(0);
    let major = shop.cluster.programs().major;
    let told = format!("PostgreSQL {major} (as the server says)");
    assert!(
        second.stdout.replace("\n-- ", " ").contains(&told),
        "{}",
        second.stdout
    );
    run_sql(&shop, &second.stdout);
    make_later_tables(&shop);
    expect_enough(&shop, &ernstfall);
    expect_no_more(&shop);
}

#[test]
fn the_sql_for_a_server_without_pg_read_all_data_is_enough_too() {
    let shop = shop_with_hard_cases();
    let ernstfall = ernstfall(&shop);
    let printed = ernstfall
        .run(["grants", "shop", "--server-version", "13"])
        .expect_code(0);
    assert!(
        !printed.stdout.contains("GRANT pg_read_all_data"),
        "{}",
        printed.stdout
    );
    run_sql(&shop, &printed.stdout);
    run_sql(&shop, &printed.stdout);
    shop.database.execute("alter role backup password 'secret'");
    make_later_tables(&shop);
    expect_enough(&shop, &ernstfall);
    expect_no_more(&shop);
}

#[test]
fn each_right_that_lacks_is_told_by_check_with_grants_as_the_remedy() {
    let shop = shop_with_hard_cases();
    let ernstfall = ernstfall(&shop);
    run_sql(&shop, &ernstfall.run(["grants", "shop"]).expect_code(0).stdout);
    shop.database.execute("alter role backup password 'secret'");
    let failed = || -> Vec<Value> {
        let lines = ernstfall.run(["check", "shop", "--json"]).json();
        let lines = lines.as_array().unwrap().clone();
        lines
            .into_iter()
            .filter(|line| line["result"] == "failed")
            .collect()
    };
    assert_eq!(failed(), Vec::<Value>::new());
    for (taken, back) in [
        (
            "revoke pg_read_all_data from backup",
            "grant pg_read_all_data to backup",
        ),
        ("alter role backup nobypassrls", "alter role backup bypassrls"),
        (
            "revoke select on large object 5001 from backup",
            "grant select on large object 5001 to backup",
        ),
        (
            "revoke update on ernstfall.heartbeat from backup",
            "grant update on ernstfall.heartbeat to backup",
        ),
    ] {
        shop.database.execute(taken);
        let lines = failed();
        assert!(
            lines.iter().any(|line| line["remedy"]
                .as_str()
                .is_some_and(|remedy| remedy.contains("ernstfall grants"))),
            "{taken}: {lines:#?}"
        );
        shop.database.execute(back);
    }
    assert_eq!(failed(), Vec::<Value>::new());
}

#[test]
fn names_are_quoted_and_another_role_can_be_named() {
    let shop = Shop::empty();
    let product = Ernstfall::new(&shop.directory).target("shop", &shop.database.url());
    let role = "odd \"role\" $ernstfall$ O'Neill";
    let printed = product.run(["grants", "shop", "--role", role]).expect_code(0);
    run_sql(&shop, &printed.stdout);
    let found = "select rolname from pg_roles where rolname like 'odd%' and rolcanlogin and pg_has_role(oid, 'pg_read_all_data', 'USAGE')";
    assert_eq!(shop.database.query_one_text(found), role);
    let facts = product
        .run(["grants", "shop", "--role", role, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(facts["role"], role);
    assert_eq!(facts["basis"], "server");
    assert_eq!(facts["not_reached"], Value::Null);
    assert!(facts["grants"].as_array().unwrap().len() > 4, "{facts:#}");
    // Nothing of the heartbeat where it is off.
    let schemas = "select count(*) from pg_namespace where nspname = 'ernstfall'";
    assert_eq!(shop.database.query_one_text(schemas), "0");
}

#[test]
fn the_heartbeats_table_is_not_made_where_a_publication_would_carry_it() {
    let shop = Shop::empty();
    shop.database
        .execute("create publication everything for all tables");
    let printed = ernstfall(&shop).run(["grants", "shop"]).expect_code(0);
    let file = shop.directory.write("grants.sql", &printed.stdout);
    let mut command = Command::new(shop.cluster.programs().path("psql"));
    command
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(file);
    let output = command.arg(shop.database.socket_url()).output().unwrap();
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("would carry the heartbeat"), "{told}");
    let schemas = "select count(*) from pg_namespace where nspname = 'ernstfall'";
    assert_eq!(shop.database.query_one_text(schemas), "0");
}
