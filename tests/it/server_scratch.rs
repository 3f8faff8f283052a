//! Restore tests on a server that the operator named: what is proven first, what is made there, and that it goes.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::connections::{PGBOUNCER, Pooler};
use crate::json;
use crate::shop::{LIMIT, Shop, mismatches, wait_for};
use crate::support::cluster::{Cluster, PASSWORD, SUPERUSER};
use crate::support::database::Database;
use crate::support::directory::TestDir;
use crate::support::ernstfall::Ernstfall;
use crate::support::key::{Key, encryption, identity_file};
use crate::support::proxy::Proxy;
use crate::support::skip::require;

const PREFIX: &str = "ernstfall_scratch_";

/// A shop, and another server for its restore tests.
struct Given {
    shop: Shop,
    server: Cluster,
}

impl Given {
    fn open() -> Self {
        Self {
            shop: Shop::open(),
            server: Cluster::builder().other_system().start(),
        }
    }

    /// The product with the shop as its target, restoring into this server.
    fn ernstfall(&self) -> Ernstfall {
        self.restoring_to(&self.server.maintenance().url())
    }

    fn restoring_to(&self, url: &str) -> Ernstfall {
        self.shop.ernstfall().tables(&scratch(url))
    }

    fn restore_test(&self, code: i32) -> Value {
        let output = self.ernstfall().run(["restore-test", "shop", "--json"]);
        output.expect_code(code).json()
    }

    /// The copy of a restore test that is paused.
    fn copy(&self) -> Database {
        let databases = scratch_databases(&self.server);
        let [name] = databases.as_slice() else {
            panic!("expected one scratch database, found {databases:?}");
        };
        self.server.existing_database(name)
    }

    fn assert_nothing_left(&self) {
        self.assert_nothing_left_but(&["postgres"]);
    }

    fn assert_nothing_left_but(&self, expected_roles: &[&str]) {
        assert_eq!(scratch_databases(&self.server), [""; 0]);
        assert_eq!(roles(&self.server), expected_roles, "the roles are gone");
    }
}

fn scratch(url: &str) -> String {
    format!("[scratch]\nkind = \"server\"\nurl = {url:?}\nisolation = \"none\"\n")
}

fn scratch_databases(server: &Cluster) -> Vec<String> {
    column(
        server,
        &format!("select datname from pg_database where starts_with(datname, '{PREFIX}') order by 1"),
    )
}

fn roles(server: &Cluster) -> Vec<String> {
    column(
        server,
        "select rolname from pg_roles where rolname !~ '^pg_' order by 1",
    )
}

fn column(server: &Cluster, sql: &str) -> Vec<String> {
    let rows = server.maintenance().query_rows(sql);
    rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
}

fn reason(record: &Value) -> &str {
    record["reason"].as_str().unwrap()
}

fn findings(record: &Value) -> String {
    record["verification"]["findings"].to_string()
}

/// Asserts that the test was refused before anything was made on the server, and says why.
fn refused(given: &Given, url: &str, server: &Cluster) -> String {
    let before = (scratch_databases(server), roles(server));
    let output = given
        .restoring_to(url)
        .run(["restore-test", "shop", "--json"])
        .expect_code(1);
    let record = output.json();
    assert_eq!(record["verdict"], "could-not-run");
    assert_eq!(record["scratch"], Value::Null);
    assert_eq!((scratch_databases(server), roles(server)), before);
    reason(&record).to_owned()
}

#[test]
fn a_backup_passes_on_another_server_and_leaves_nothing_there() {
    let given = Given::open();
    given
        .shop
        .database
        .execute("alter database shop_1 set work_mem = '7MB'; comment on database shop_1 is 'the shop'");
    given.shop.backup();
    let record = given.restore_test(0);
    json::assert_fits(&json::schema("restore-test.schema.json"), &record);
    assert_eq!(
        (&record["verdict"], &record["reason"]),
        (&"passed".into(), &Value::Null)
    );
    assert_eq!(record["verification"]["rows"], 50 + 500 + 500);
    let facts = &record["scratch"];
    assert_eq!(
        (&facts["kind"], &facts["isolated"]),
        (&"server".into(), &false.into())
    );
    assert_eq!(
        (&facts["layers"], &facts["probe"]),
        (&Value::Array(vec![]), &Value::Array(vec![]))
    );
    let basis = record["objectives"]["rto"]["basis"].as_str().unwrap();
    assert!(
        basis.starts_with("measured on a scratch server (PostgreSQL "),
        "{basis}"
    );
    assert!(
        basis.contains(&format!("127.0.0.1:{}", given.server.port())),
        "{basis}"
    );
    assert!(!record.to_string().contains("correct-horse"));
    assert!(findings(&record).contains("database comment"), "{record:#}");
    let phases: Vec<_> = record["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| &phase["name"])
        .collect();
    assert!(phases.contains(&&"durable".into()), "{phases:?}");
    given.assert_nothing_left();
}

#[test]
fn the_source_itself_is_refused_by_whatever_address_and_database() {
    let given = Given::open();
    given.shop.backup();
    let source = &given.shop.cluster;
    let proxy = Proxy::before(source);
    for url in [
        given.shop.database.url(),
        given.shop.database.socket_url(),
        source.maintenance().url(),
        proxy.url(&source.maintenance()),
    ] {
        let reason = refused(&given, &url, source);
        assert!(
            reason
                .contains("the scratch server is the source (a lock taken on the one is seen on the other)"),
            "{reason}"
        );
        assert!(reason.contains("set scratch.url to another server"), "{reason}");
    }
}

#[test]
fn a_physical_copy_of_the_source_is_refused() {
    let given = Given::open();
    given.shop.backup();
    // Made of the same files as the source.
    let copy = Cluster::start();
    let reason = refused(&given, &copy.maintenance().url(), &copy);
    assert!(reason.contains("both have the system identifier"), "{reason}");
}

#[test]
fn a_source_that_is_away_does_not_stop_the_test_where_its_recorded_identifier_differs() {
    let mut given = Given::open();
    given.shop.backup();
    given.shop.cluster.crash();
    let record = given.restore_test(0);
    assert_eq!(record["verdict"], "passed");
    assert!(
        findings(&record).contains("the source was not reached"),
        "{record:#}"
    );
    given.assert_nothing_left();
    let copy = Cluster::start();
    let reason = refused(&given, &copy.maintenance().url(), &copy);
    assert!(reason.contains("both have the system identifier"), "{reason}");
}

#[test]
fn a_source_that_is_away_and_hides_its_identifier_refuses_the_test() {
    let mut given = Given::open();
    let hide = "revoke execute on function pg_control_system() from public";
    given.shop.database.execute(&format!(
        "{hide}; create role keeper login password 'k'; grant pg_read_all_data to keeper;
         select lo_unlink(oid) from pg_largeobject_metadata"
    ));
    let url = given.shop.database.url_as("keeper", "k");
    let scratch = scratch(&given.server.maintenance().url());
    let ernstfall = || {
        Ernstfall::new(&given.shop.directory)
            .target("shop", &url)
            .tables(&scratch)
    };
    ernstfall().run(["backup", "shop"]).expect_code(0);
    // While the source is there, a lock proves it.
    let record = ernstfall()
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(record["verdict"], "passed");
    given.shop.cluster.crash();
    let record = Ernstfall::new(&given.shop.directory)
        .target("shop", &url)
        .tables(&scratch)
        .run(["restore-test", "shop", "--json"])
        .expect_code(1)
        .json();
    assert_eq!(record["verdict"], "could-not-run");
    assert!(
        reason(&record).contains("it is not proven that the scratch server is another one than the source"),
        "{record:#}"
    );
    given.assert_nothing_left();
}

#[test]
fn what_a_killed_test_left_is_dropped_by_the_next() {
    let given = Given::open();
    given.shop.backup();
    for point in ["restore-schema", "restore-verify"] {
        let mut running = given.ernstfall().pause_at(point).spawn(["restore-test", "shop"]);
        running.wait_until_paused(point);
        let left = scratch_databases(&given.server);
        assert_eq!(left.len(), 1, "{left:?}");
        running.kill9();
        running.wait().expect_code(137);
        wait_for("the killed test's sessions to end", || {
            column(
                &given.server,
                "select count(*)::text from pg_stat_activity where application_name like 'ernstfall %' or datname like 'ernstfall%'",
            ) == ["0"]
        });
        assert_eq!(scratch_databases(&given.server), left);
        let record = given.restore_test(0);
        assert!(
            findings(&record).contains(&format!("removed the scratch database {}", left[0])),
            "{record:#}"
        );
        given.assert_nothing_left();
    }
}

#[test]
fn a_database_with_our_prefix_and_without_our_marker_is_never_touched() {
    let given = Given::open();
    let maintenance = given.server.maintenance();
    let somebodys = [
        format!("{PREFIX}of_somebody"),
        format!("{PREFIX}with_a_comment"),
        format!("{PREFIX}with_anothers_marker"),
    ];
    for name in &somebodys {
        maintenance.execute(&format!("create database {name}"));
    }
    maintenance.execute(&format!(
        "comment on database {} is 'made by ernstfall'",
        somebodys[1]
    ));
    // A marker that was copied from another database.
    let marker = "{\"program\":\"ernstfall\",\"kind\":\"scratch_database\",\"name\":\"ernstfall_scratch_x\",\
                  \"run\":\"r\",\"host\":\"h\",\"state_dir\":\"s\",\"started_at\":\"2026-01-01T00:00:00Z\"}";
    maintenance.execute(&format!("comment on database {} is '{marker}'", somebodys[2]));
    maintenance.execute(
        "create role ernstfall_scratch_role; comment on role ernstfall_scratch_role is 'made by ernstfall'",
    );
    given.shop.backup();
    let record = given.restore_test(0);
    assert_eq!(scratch_databases(&given.server), somebodys);
    assert_eq!(roles(&given.server), ["ernstfall_scratch_role", "postgres"]);
    assert!(
        findings(&record).contains("has our prefix and not our marker: it is left alone"),
        "{record:#}"
    );
}

#[test]
fn the_database_and_the_roles_of_a_living_test_are_left_alone_by_another() {
    let given = Given::open();
    // Nothing in the database depends on this one.
    let group = "create role members_only; grant members_only to clerk";
    given.shop.database.execute(group);
    given.shop.backup();
    let mut running = given
        .ernstfall()
        .pause_at("restore-verify")
        .spawn(["restore-test", "shop", "--json"]);
    running.wait_until_paused("restore-verify");
    let living = scratch_databases(&given.server);
    // Another program, with a state of its own, that names another database of the same server.
    let directory = TestDir::new("second");
    let maintenance = given.server.database("maintenance");
    let second = Ernstfall::new(&directory)
        .repository(&format!(
            "url = \"file://{}\"",
            given.shop.directory.join("repository").display()
        ))
        .target("shop", &given.shop.database.url())
        .tables(&scratch(&maintenance.url()));
    second.run(["restore-test", "shop"]).expect_code(0);
    assert_eq!(scratch_databases(&given.server), living);
    assert_eq!(
        roles(&given.server),
        ["clerk", "members_only", "postgres", "shop_owner"]
    );
    running.resume();
    let record = running.wait().expect_code(0).json();
    assert_eq!(record["verdict"], "passed");
    given.assert_nothing_left();
}

#[test]
fn a_terminated_test_drops_its_database_at_once() {
    let given = Given::open();
    given.shop.backup();
    for point in [
        "restore-provision",
        "restore-roles",
        "before-object",
        "restore-verify",
    ] {
        let mut running = given
            .ernstfall()
            .pause_at(point)
            .spawn(["restore-test", "shop", "--json"]);
        running.wait_until_paused(point);
        running.terminate();
        let record = running.wait().expect_code(143).json();
        assert_eq!(record["verdict"], "could-not-run", "{point}");
        assert!(reason(&record).contains("cancelled"), "{record:#}");
        given.assert_nothing_left();
    }
}

#[test]
fn a_test_terminated_while_its_database_is_made_waits_for_it_and_drops_it() {
    let given = Given::open();
    given.shop.backup();
    let in_the_way = given.server.maintenance().session();
    in_the_way.execute("begin; lock table pg_database in share mode");
    let mut running = given.ernstfall().spawn(["restore-test", "shop", "--json"]);
    let waiting = "select count(*)::text from pg_stat_activity
                    where query like 'CREATE DATABASE%' and wait_event_type = 'Lock'";
    wait_for("the database to be waited for", || {
        column(&given.server, waiting) == ["1"]
    });
    running.terminate();
    running.wait_for_stderr("stopping and cleaning up", LIMIT);
    in_the_way.execute("commit");
    let record = running.wait().expect_code(143).json();
    assert!(reason(&record).contains("cancelled"), "{record:#}");
    given.assert_nothing_left();
}

#[test]
fn a_changed_row_in_the_copy_is_found_and_the_copy_is_dropped_all_the_same() {
    let given = Given::open();
    given.shop.backup();
    let mut running = given
        .ernstfall()
        .pause_at("restore-verify")
        .spawn(["restore-test", "shop", "--json"]);
    running.wait_until_paused("restore-verify");
    given
        .copy()
        .execute("update customers set note = '' where id = 17");
    running.resume();
    let record = running.wait().expect_code(3).json();
    assert_eq!(record["verdict"], "failed");
    let found = mismatches(&record);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("table public.customers: "), "{found:?}");
    given.assert_nothing_left();
}

#[test]
fn a_kept_copy_stays_and_the_way_to_it_is_said() {
    let given = Given::open();
    given.shop.backup();
    let output = given
        .ernstfall()
        .run(["restore-test", "shop", "--keep-scratch"])
        .expect_code(0);
    let kept = given.copy();
    assert_eq!(kept.query_one_text("select count(*) from orders"), "500");
    assert!(
        output
            .stderr
            .contains(&format!("psql -h 127.0.0.1 -p {}", given.server.port())),
        "{}",
        output.stderr
    );
    let drop = format!("DROP DATABASE \"{}\" WITH (FORCE)", kept.name());
    assert!(output.stderr.contains(&drop), "{}", output.stderr);
    given.restore_test(0);
    assert_eq!(
        scratch_databases(&given.server),
        [kept.name()],
        "no sweep takes it"
    );
    given.server.maintenance().execute(&drop);
    given.restore_test(0);
    given.assert_nothing_left();
}

#[test]
fn roles_that_were_there_keep_what_they_have_and_get_nothing() {
    let given = Given::open();
    given.shop.database.execute(
        "create role readers; create role boss login; grant readers to clerk; grant shop_owner to boss;
         grant shop_owner to clerk; grant select on orders to readers; grant select on audit to boss",
    );
    given.shop.backup();
    given
        .server
        .maintenance()
        .execute("create role readers; create role boss login; comment on role boss is 'of this server'");
    let memberships = "select format('%s in %s', m.member::regrole, m.roleid::regrole) from pg_auth_members m
                        where m.member >= 16384 order by 1";
    let mut running = given
        .ernstfall()
        .pause_at("restore-verify")
        .spawn(["restore-test", "shop", "--json"]);
    running.wait_until_paused("restore-verify");
    assert_eq!(column(&given.server, memberships), ["clerk in shop_owner"]);
    let logins = "select rolname from pg_roles where rolcanlogin order by 1";
    assert_eq!(
        column(&given.server, logins),
        ["boss", "postgres"],
        "what was made cannot log in"
    );
    running.resume();
    let record = running.wait().expect_code(0).json();
    let findings = findings(&record);
    for left_out in [
        "GRANT \\\"readers\\\" TO \\\"clerk\\\"",
        "GRANT \\\"shop_owner\\\" TO \\\"boss\\\"",
    ] {
        assert!(findings.contains(left_out), "{left_out} in {findings}");
    }
    assert_eq!(roles(&given.server), ["boss", "postgres", "readers"]);
    assert_eq!(
        given
            .server
            .maintenance()
            .query_one_text("select shobj_description('boss'::regrole, 'pg_authid')"),
        "of this server"
    );
}

/// A shop whose objects all belong to a role that an ordinary one may make.
fn ordinary_shop() -> Given {
    let shop = Shop::empty();
    shop.database.execute(
        "create role keeper; create role clerk login bypassrls;
         alter database shop_1 owner to keeper;
         set role keeper;
         create table orders (id int primary key, cents int);
         insert into orders select n, n from generate_series(1, 100) n;
         create materialized view totals as select sum(cents) as cents from orders;
         grant select on orders to clerk",
    );
    Given {
        shop,
        server: Cluster::builder().other_system().start(),
    }
}

#[test]
fn an_ordinary_role_that_creates_databases_and_roles_is_enough() {
    let given = ordinary_shop();
    given.shop.backup();
    given
        .server
        .maintenance()
        .execute("create role tester login createdb createrole password 't'");
    let url = given.server.maintenance().url_as("tester", "t");
    let record = given
        .restoring_to(&url)
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(record["verdict"], "passed", "{record:#}");
    assert!(findings(&record).contains("may not run CHECKPOINT"), "{record:#}");
    assert_eq!(scratch_databases(&given.server), [""; 0]);
    assert_eq!(roles(&given.server), ["postgres", "tester"]);
}

#[test]
fn a_server_whose_first_superuser_is_called_otherwise_serves_as_well() {
    let given = Given::open();
    given.shop.backup();
    let maintenance = given.server.maintenance();
    maintenance.execute("create role tester superuser login password 't'");
    let url = maintenance.url_as("tester", "t");
    let tester = maintenance.session_as("tester");
    tester.execute("alter role postgres rename to landlord");
    let record = given
        .restoring_to(&url)
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(record["verdict"], "passed", "{record:#}");
    assert_eq!(
        tester.query_one_text(
            "select string_agg(rolname, ' ' order by rolname) from pg_roles where rolname !~ '^pg_'"
        ),
        "landlord tester"
    );
}

#[test]
fn a_transaction_mode_pooler_is_refused_as_a_scratch_server() {
    require!(Path::new(PGBOUNCER).is_file(), "pgbouncer is not installed");
    let given = Given::open();
    given.shop.backup();
    let pooler = Pooler::before(&given.server, "transaction");
    let url = given
        .server
        .maintenance()
        .url_at(pooler.port, SUPERUSER, PASSWORD);
    let output = given.restoring_to(&url).run(["restore-test", "shop", "--json"]);
    let record = output.expect_code(1).json();
    assert_eq!(record["verdict"], "could-not-run");
    assert!(reason(&record).contains("transaction-mode pooler"), "{record:#}");
    given.assert_nothing_left();
}

#[test]
fn missing_rights_are_named_with_what_gives_them() {
    let given = ordinary_shop();
    given.shop.backup();
    given
        .server
        .maintenance()
        .execute("create role tester login password 't'");
    let url = given.server.maintenance().url_as("tester", "t");
    let record = given
        .restoring_to(&url)
        .run(["restore-test", "shop", "--json"])
        .expect_code(1)
        .json();
    assert_eq!(record["verdict"], "could-not-run");
    for part in [
        "ALTER ROLE \"tester\" CREATEDB",
        "ALTER ROLE \"tester\" CREATEROLE",
        "keeper is missing",
    ] {
        assert!(reason(&record).contains(part), "{part} in {record:#}");
    }
    assert_eq!(scratch_databases(&given.server), [""; 0]);
}

#[test]
fn a_database_that_could_not_be_marked_is_not_made() {
    let given = ordinary_shop();
    given.shop.backup();
    // It may give a database to the owner, and may not do to it then what only its owner may.
    given.server.maintenance().execute(
        "create role keeper; create role clerk; create role tester login createdb createrole noinherit password 't';
         grant keeper to tester",
    );
    let url = given.server.maintenance().url_as("tester", "t");
    let record = given
        .restoring_to(&url)
        .run(["restore-test", "shop", "--json"])
        .expect_code(1)
        .json();
    assert_eq!(record["verdict"], "could-not-run");
    for part in [
        "belongs to keeper",
        "GRANT \"keeper\" TO \"tester\"",
        "ALTER ROLE \"tester\" INHERIT",
    ] {
        assert!(reason(&record).contains(part), "{part} in {record:#}");
    }
    assert_eq!(scratch_databases(&given.server), [""; 0]);
    assert_eq!(roles(&given.server), ["clerk", "keeper", "postgres", "tester"]);
}

#[test]
fn a_subscription_in_the_copy_does_not_keep_it_from_being_dropped() {
    let given = Given::open();
    given.shop.database.execute(
        "create subscription feed connection 'host=127.0.0.1 port=1 dbname=nowhere' publication p with (connect = false)",
    );
    given.shop.backup();
    given.restore_test(0);
    given.assert_nothing_left();
}

#[test]
fn a_scratch_server_that_is_away_stops_the_test_and_not_the_backup() {
    let mut given = Given::open();
    given.server.crash();
    given.ernstfall().run(["backup", "shop"]).expect_code(0);
    let record = given.restore_test(1);
    assert_eq!(record["verdict"], "could-not-run");
    assert!(
        reason(&record).starts_with("on the scratch server: "),
        "{record:#}"
    );
    // Nor does a secret that is not there.
    let unset = "[scratch]\nkind = \"server\"\nurl = { env = \"NOT_SET_ANYWHERE\" }\nisolation = \"none\"\n";
    let ernstfall = given.shop.ernstfall().tables(unset);
    ernstfall.run(["backup", "shop"]).expect_code(0);
    let output = ernstfall.run(["restore-test", "shop", "--json"]).expect_code(1);
    assert!(
        reason(&output.json()).contains("NOT_SET_ANYWHERE"),
        "{}",
        output.stdout
    );
}

#[test]
fn a_scratch_server_without_isolation_written_out_is_a_fault_with_its_place() {
    let given = Given::open();
    let url = given.server.maintenance().url();
    let ernstfall = given
        .shop
        .ernstfall()
        .tables(&format!("[scratch]\nkind = \"server\"\nurl = {url:?}\n"));
    let output = ernstfall.run(["restore-test", "shop"]).expect_code(2);
    let text = fs::read_to_string(ernstfall.configuration_file()).unwrap();
    let line = 1 + text.lines().position(|line| line == "[scratch]").unwrap();
    assert!(
        output.stderr.contains(&format!("{line}:1: scratch.isolation: ")),
        "{}",
        output.stderr
    );
    assert!(
        output.stderr.contains("isolation = \"none\""),
        "{}",
        output.stderr
    );
}

#[test]
fn check_looks_at_the_scratch_server() {
    let given = Given::open();
    given.shop.backup();
    given.restore_test(0);
    let scratch_lines = |ernstfall: Ernstfall, code| -> Vec<(String, String)> {
        let lines = ernstfall.run(["check", "--json"]).expect_code(code).json();
        let lines = lines.as_array().unwrap().iter();
        let of_scratch = lines.filter(|line| line["subject"].as_str().unwrap().starts_with("scratch"));
        of_scratch
            .map(|line| (line["result"].as_str().unwrap().to_owned(), line.to_string()))
            .collect()
    };
    let good = scratch_lines(given.ernstfall(), 0);
    let text = format!("{good:?}");
    for part in [
        "may create databases",
        "not the source",
        "not isolated",
        "extensions",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(good.iter().all(|(result, _)| result == "ok"), "{good:?}");

    let same = scratch_lines(given.restoring_to(&given.shop.database.url()), 1);
    assert!(
        same.iter()
            .any(|(result, line)| result == "failed" && line.contains("the scratch server is the source")),
        "{same:?}"
    );
    given
        .server
        .maintenance()
        .execute("create role tester login password 't'");
    let url = given.server.maintenance().url_as("tester", "t");
    let weak = scratch_lines(given.restoring_to(&url), 1);
    assert!(
        weak.iter()
            .any(|(result, line)| result == "failed" && line.contains("CREATEDB")),
        "{weak:?}"
    );
    let away = scratch_lines(given.restoring_to("postgresql://x:y@127.0.0.1:1/postgres"), 1);
    assert!(away.iter().any(|(result, _)| result == "failed"), "{away:?}");
    given.assert_nothing_left_but(&["postgres", "tester"]);
}

#[test]
fn password_hashes_of_the_source_never_reach_a_server_that_the_operator_named() {
    crate::recovery_by_hand::require_tools!();
    let given = Given {
        shop: Shop::open(),
        server: Cluster::builder()
            .other_system()
            .setting("log_statement", "all")
            .start(),
    };
    given
        .shop
        .database
        .execute("alter role clerk password 'correct-horse'");
    let hash = "select rolpassword from pg_authid where rolname = 'clerk'";
    let hash = given.shop.database.query_one_text(hash);
    let key = Key::new();
    let identity = identity_file(&key.file(&given.shop.directory));
    let ernstfall = given.ernstfall().tables(&encryption(&[&key], Some(&identity)));
    ernstfall.run(["backup", "shop"]).expect_code(0);
    ernstfall.run(["restore-test", "shop"]).expect_code(0);
    let log = given.server.log();
    assert!(
        log.contains("CREATE ROLE \"clerk\"") && !log.contains(&hash),
        "{log}"
    );
}
