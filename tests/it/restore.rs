//! `restore --to`: the real thing, into databases of running servers; broken off in each phase, and continued.

use std::os::unix::fs::symlink;

use serde_json::Value;

use crate::shop::{Shop, content, wait_for};
use crate::support::cluster::Cluster;
use crate::support::database::Database;

/// Both hold the same, by other means than the product's own comparison.
#[track_caller]
fn assert_equal(restored: &Database, source: &Database) {
    assert_eq!(content(restored), content(source));
    let named = |database: &Database| database.dump_schema().replace(database.name(), "NAME");
    let (restored, source) = (named(restored), named(source));
    if restored != source {
        let differs = restored
            .lines()
            .zip(source.lines())
            .find(|(one, other)| one != other);
        panic!("the schemas differ first at {differs:?}:\n{restored}\n---\n{source}");
    }
}

/// Whatever a user could have made there.
fn objects(database: &Database) -> Vec<Vec<Option<String>>> {
    database.query_rows(
        "select nspname, relname, relkind::text from pg_class c join pg_namespace n on n.oid = relnamespace
          where nspname !~ '^pg_' and nspname <> 'information_schema'
          union all select nspname, null, null from pg_namespace where nspname !~ '^pg_'
          union all select extname, extversion, 'extension' from pg_extension
          union all select rolname, null, 'role' from pg_roles order by 1, 2, 3",
    )
}

#[test]
fn a_backup_is_restored_beside_its_source_and_is_equal() {
    let shop = Shop::open();
    shop.backup();
    let empty = shop.cluster.database("restored");
    let output = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &empty.socket_url(), "--json"])
        .expect_code(0);
    let record = output.json();
    assert_eq!(
        (&record["outcome"], &record["reason"]),
        (&"succeeded".into(), &Value::Null)
    );
    assert!(
        record["verification"]["mismatches"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    assert_equal(&empty, &shop.database);
    let last = shop.records();
    let last = &last.as_array().unwrap().last().unwrap()["record"];
    assert_eq!((&last["kind"], &last["id"]), (&"restore".into(), &record["id"]));
    // Sequences and identities go on where they stood.
    assert_eq!(empty.query_one_text("select nextval('invoice_numbers')"), "43");
    assert_eq!(
        empty.query_one_text("insert into orders (customer, cents) values (1, 1) returning id"),
        "501"
    );
    assert_eq!(
        empty.query_one_text("select count(*) from audit"),
        "501",
        "the trigger works"
    );
}

#[test]
fn a_backup_is_restored_on_another_server_with_the_roles_that_it_lacks() {
    let shop = Shop::open();
    shop.database
        .execute("alter role clerk set work_mem = '3MB'; grant shop_owner to clerk");
    shop.backup();
    let other = Cluster::start();
    let empty = other.database("restored");
    // One role is there already, and is kept as it is.
    other
        .maintenance()
        .execute("create role clerk nologin connection limit 7");
    shop.ernstfall()
        .environment("PGPASSWORD", crate::support::cluster::PASSWORD)
        .run([
            "restore",
            "shop",
            "--to",
            &format!(
                "postgresql://postgres@127.0.0.1:{}/{}",
                other.port(),
                empty.name()
            ),
        ])
        .expect_code(0);
    assert_equal(&empty, &shop.database);
    let role = |name: &str| {
        other.maintenance().query_one_text(&format!(
            "select rolcanlogin || ' ' || rolconnlimit || ' ' || coalesce(rolconfig::text, '') from pg_roles where rolname = '{name}'"
        ))
    };
    assert_eq!(role("clerk"), "false 7 ");
    assert_eq!(role("shop_owner"), "false -1 ");
    let member = "select count(*) from pg_auth_members where roleid = 'shop_owner'::regrole and member = 'clerk'::regrole";
    assert_eq!(other.maintenance().query_one_text(member), "1");
}

#[test]
fn a_plan_lists_the_steps_and_changes_nothing() {
    let shop = Shop::open();
    let id = shop.backup();
    let other = Cluster::start();
    let empty = other.database("restored");
    let before = objects(&empty);
    let records = shop.records();
    let output = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &empty.socket_url(), "--plan"])
        .expect_code(0);
    for part in [
        id.as_str(),
        "1.",
        "create the roles",
        "load 1050 rows of 4 tables",
        "compare every table",
    ] {
        assert!(output.stdout.contains(part), "{part}: {}", output.stdout);
    }
    let plan = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &empty.socket_url(), "--plan", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(
        (&plan["backup"], &plan["continues"]),
        (&id.as_str().into(), &false.into())
    );
    assert_eq!(plan["lacking"], serde_json::json!([]));
    assert_eq!(plan["steps"].as_array().unwrap().len(), 7);
    assert_eq!(plan["roles"], serde_json::json!(["clerk", "shop_owner"]));
    assert_eq!(objects(&empty), before);
    assert_eq!(shop.records(), records);
}

#[test]
fn nothing_is_restored_over_data() {
    let shop = Shop::open();
    shop.backup();
    for (made, named) in [
        ("create table kept (id int)", "public.kept"),
        (
            "create function kept() returns int language sql as 'select 1'",
            "function public.kept",
        ),
        ("create schema kept", "schema kept"),
        ("create type kept as enum ('a')", "type public.kept"),
        ("select lo_from_bytea(99, 'kept')", "large object 99"),
        ("create view kept as select 1", "public.kept"),
        (
            "create operator public.### (leftarg = int, rightarg = int, function = int4pl)",
            "###",
        ),
        ("create text search dictionary kept (template = simple)", "kept"),
        ("create collation kept from \"C\"", "kept"),
        ("create cast (text as int) with inout", "cast"),
        ("create foreign data wrapper kept", "kept"),
    ] {
        let taken = shop.cluster.database("taken");
        taken.execute(made);
        for plan in [true, false] {
            let url = taken.socket_url();
            let output = if plan {
                shop.ernstfall().run(["restore", "shop", "--to", &url, "--plan"])
            } else {
                shop.ernstfall().run(["restore", "shop", "--to", &url])
            };
            assert_eq!(output.code(), 1, "{made}: {}", output.stderr);
            assert!(
                output.stderr.contains("is not empty"),
                "{made}: {}",
                output.stderr
            );
            assert!(output.stderr.contains(named), "{made}: {}", output.stderr);
        }
        let marked = "select count(*) from pg_namespace where nspname = 'ernstfall_restore'";
        assert_eq!(taken.query_one_text(marked), "0");
    }
}

#[test]
fn the_source_itself_is_refused() {
    let shop = Shop::open();
    shop.backup();
    let before = content(&shop.database);
    let url = shop.database.socket_url();
    for start_over in [false, true] {
        let output = if start_over {
            shop.ernstfall()
                .run(["restore", "shop", "--to", &url, "--start-over"])
        } else {
            shop.ernstfall().run(["restore", "shop", "--to", &url])
        };
        let output = output.expect_code(1);
        assert!(output.stderr.contains("is not empty"), "{}", output.stderr);
    }
    assert_eq!(content(&shop.database), before);
}

#[test]
fn an_extension_alone_is_no_data() {
    let shop = Shop::open();
    shop.backup();
    let empty = shop.cluster.database("restored");
    empty.execute("create extension hstore; create extension pg_trgm");
    let output = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &empty.socket_url(), "--json"]);
    // What the source does not have is told, and nobody's extension is dropped for it.
    let record = output.json();
    assert_ne!(record["outcome"], "cancelled");
    assert_eq!(content(&empty), content(&shop.database));
    assert_eq!(
        empty.query_one_text("select count(*) from pg_extension where extname in ('hstore', 'pg_trgm')"),
        "2"
    );
}

#[test]
fn a_password_on_the_command_line_is_refused_and_not_repeated() {
    let shop = Shop::open();
    shop.backup();
    let empty = shop.cluster.database("restored");
    let port = shop.cluster.port();
    let name = empty.name();
    for url in [
        format!("postgresql://postgres:hunter2secret@127.0.0.1:{port}/{name}"),
        format!("host=127.0.0.1 port={port} user=postgres password=hunter2secret dbname={name}"),
        format!("postgresql://postgres@127.0.0.1:{port}/{name}?password=hunter2secret"),
        format!("postgresql://postgres:hunter2secret@127.0.0.1:notaport/{name}"),
        format!("postgresql://postgres:hunter2secret@127.0.0.1:{port}/{name}?nonsense=1"),
        "host=127.0.0.1 password=hunter2secret nonsense=1".to_owned(),
    ] {
        let output = shop
            .ernstfall()
            .run(["restore", "shop", "--to", &url])
            .expect_code(2);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(!said.contains("hunter2secret"), "{said}");
    }
    let url = format!("postgresql://postgres:hunter2secret@127.0.0.1:{port}/{name}");
    let output = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &url])
        .expect_code(2);
    for part in ["PGPASSWORD", ".pgpass", "--to"] {
        assert!(output.stderr.contains(part), "{}", output.stderr);
    }
    assert_eq!(shop.records().as_array().unwrap().len(), 1, "only the backup");
}

#[test]
fn before_picks_the_newest_backup_that_is_not_later() {
    let shop = Shop::open();
    let first = shop.backup();
    let expected = content(&shop.database);
    shop.database.execute("delete from audit");
    let second = shop.backup();
    let at = |id: &str| {
        shop.manifest(id)["recovery_point"]["at"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let empty = shop.cluster.database("restored");
    let plan = |time: &str| {
        shop.ernstfall().run([
            "restore",
            "shop",
            "--to",
            &empty.socket_url(),
            "--before",
            time,
            "--plan",
            "--json",
        ])
    };
    assert_eq!(
        plan(&at(&second)).expect_code(0).json()["backup"],
        second.as_str()
    );
    assert_eq!(plan(&at(&first)).expect_code(0).json()["backup"], first.as_str());
    let earlier =
        at(&first).parse::<chrono::DateTime<chrono::Utc>>().unwrap() - chrono::TimeDelta::milliseconds(1);
    plan(&earlier.to_rfc3339().replace("+00:00", "Z")).expect_code(1);
    let between =
        at(&second).parse::<chrono::DateTime<chrono::Utc>>().unwrap() - chrono::TimeDelta::milliseconds(1);
    let between = between.to_rfc3339().replace("+00:00", "Z");
    shop.ernstfall()
        .run([
            "restore",
            "shop",
            "--to",
            &empty.socket_url(),
            "--before",
            &between,
        ])
        .expect_code(0);
    assert_eq!(content(&empty), expected);
}

#[test]
fn what_the_destination_lacks_is_said_at_once_before_anything_is_touched() {
    let shop = Shop::open();
    let id = shop.backup();
    shop.edit_contents(&id, |contents| {
        contents["extensions"]
            .as_array_mut()
            .unwrap()
            .push(serde_json::json!(
                {"name": "no_such_thing", "schema": "public", "version": "1.0"}
            ));
        contents["database"]["server_version_num"] = 160_001.into();
        contents["database"]["server_version"] = "16.1".into();
    });
    // Programs that say they are new enough for such a source.
    let programs = shop.programs_that_say("16.1");
    symlink("/bin/true", programs.join("psql")).unwrap();
    shop.cluster
        .maintenance()
        .execute("create database narrow template template0 encoding 'LATIN1' locale 'C'");
    shop.cluster
        .maintenance()
        .execute("create role guest login; alter database narrow owner to guest");
    let narrow = shop.cluster.existing_database("narrow");
    shop.edit_contents(&id, |contents| {
        contents["roles"]
            .as_array_mut()
            .unwrap()
            .push("nobody_here".into())
    });
    let before = objects(&narrow);
    let bin_dir = format!("{:?}", programs.path().display().to_string());
    let ernstfall = shop.ernstfall().key("bin_dir", &bin_dir);
    let url = narrow.socket_url_as("guest");
    let plan = ernstfall
        .run(["restore", "shop", "--to", &url, "--plan", "--json"])
        .expect_code(1)
        .json();
    let lacking = plan["lacking"].as_array().unwrap();
    let lacking: Vec<&str> = lacking.iter().filter_map(Value::as_str).collect();
    for part in [
        "encoding is LATIN1, and the backup's UTF8",
        "older than the source's 16.1",
        "the extension no_such_thing 1.0",
        "the role nobody_here is missing",
    ] {
        assert!(
            lacking.iter().any(|lack| lack.contains(part)),
            "{part}: {lacking:#?}"
        );
    }
    assert_eq!(lacking.len(), 4, "{lacking:#?}");
    let record = ernstfall
        .run(["restore", "shop", "--to", &url, "--json"])
        .expect_code(1)
        .json();
    assert_eq!(record["outcome"], "failed");
    for lack in lacking {
        assert!(record["reason"].as_str().unwrap().contains(lack), "{record:#}");
    }
    assert_eq!(objects(&narrow), before);
}

/// A shop whose backup has several data objects.
fn large_shop() -> Shop {
    let shop = Shop::open();
    shop.database.execute(
        "create table noise (id int primary key, text text);
         insert into noise select n, (select string_agg(md5(n::text || m), '') from generate_series(1, 32) m)
           from generate_series(1, 30000) n",
    );
    let id = shop.backup();
    let objects = shop.manifest(&id)["data"].as_array().unwrap().len();
    assert!(
        objects >= 3,
        "{objects} data objects are too few for what is tried"
    );
    shop
}

/// Breaks a restore off at a fault point. What it had noted as loaded by then is returned.
pub(crate) fn broken(shop: &Shop, to: &Database, point: &str) -> String {
    let mut running = shop
        .ernstfall()
        .pause_at(point)
        .spawn(["restore", "shop", "--to", &to.socket_url()]);
    running.wait_until_paused(point);
    running.kill9();
    running.wait().expect_code(137);
    wait_for("the server to notice", || {
        to.query_one_text(
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                and backend_type = 'client backend' and application_name ~ 'ernstfall|pg_restore'
                and application_name <> 'ernstfall-test'",
        ) == "0"
    });
    to.query_one_text("select count(*) from ernstfall_restore.step where name like 'object %'")
}

fn continues_after(point: &str) {
    let shop = Shop::open();
    shop.backup();
    let to = shop.cluster.database("restored");
    broken(&shop, &to, point);
    let plan = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &to.socket_url(), "--plan", "--json"])
        .expect_code(0);
    assert_eq!(plan.json()["continues"], true);
    assert!(plan.stderr.contains("had been interrupted"), "{}", plan.stderr);
    shop.ernstfall()
        .run(["restore", "shop", "--to", &to.socket_url()])
        .expect_code(0);
    assert_equal(&to, &shop.database);
    let records = shop.records();
    let kinds: Vec<&Value> = records
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["record"]["kind"])
        .collect();
    assert_eq!(kinds, ["backup", "interrupted", "restore"]);
}

#[test]
fn a_restore_killed_before_the_schema_continues() {
    continues_after("restore-schema");
}

#[test]
fn a_restore_killed_before_the_rows_continues() {
    continues_after("restore-data");
}

#[test]
fn a_restore_killed_before_the_indexes_continues() {
    continues_after("restore-indexes");
}

#[test]
fn a_restore_killed_before_the_rest_continues() {
    continues_after("restore-finish");
}

/// Continues a broken restore up to where it notes this step, a number of them being noted already, and kills it there.
fn killed_while_noting(shop: &Shop, to: &Database, step: &str, noted: u32) {
    to.execute(&format!(
        "create function ernstfall_restore.wait() returns trigger language plpgsql as $$begin
             if new.name like '{step}' and {noted} = (select count(*) from ernstfall_restore.step where name like '{step}') then
                 perform pg_advisory_xact_lock(1);
             end if;
             return new;
         end$$;
         create trigger wait before insert on ernstfall_restore.step for each row execute function ernstfall_restore.wait();
         alter table ernstfall_restore.step enable always trigger wait"
    ));
    let session = to.session();
    session.execute("select pg_advisory_lock(1)");
    let running = shop
        .ernstfall()
        .spawn(["restore", "shop", "--to", &to.socket_url(), "--jobs", "1"]);
    let waiting = "select count(*) from pg_stat_activity where wait_event = 'advisory'";
    wait_for("the restore to note the step", || {
        to.query_one_text(waiting) == "1"
    });
    running.kill9();
    running.wait().expect_code(137);
    session.execute("select pg_advisory_unlock(1)");
    wait_for("the server to notice", || session.query_one_text(waiting) == "0");
    session.execute("drop trigger wait on ernstfall_restore.step");
    let count = format!("select count(*) from ernstfall_restore.step where name like '{step}'");
    assert_eq!(to.query_one_text(&count), noted.to_string());
}

#[test]
fn a_restore_killed_between_rows_loads_no_object_twice() {
    let shop = large_shop();
    let to = shop.cluster.database("restored");
    assert_eq!(broken(&shop, &to, "before-object"), "0");
    // The second object is loaded and not noted yet: so it must not be in.
    killed_while_noting(&shop, &to, "object %", 1);
    shop.ernstfall()
        .run(["restore", "shop", "--to", &to.socket_url()])
        .expect_code(0);
    assert_equal(&to, &shop.database);
}

#[test]
fn a_restore_killed_among_large_objects_makes_none_twice() {
    let shop = Shop::open();
    shop.backup();
    let to = shop.cluster.database("restored");
    broken(&shop, &to, "restore-finish");
    killed_while_noting(&shop, &to, "large objects %", 0);
    shop.ernstfall()
        .run(["restore", "shop", "--to", &to.socket_url()])
        .expect_code(0);
    assert_equal(&to, &shop.database);
}

#[test]
fn start_over_removes_only_what_the_restore_made() {
    let shop = Shop::open();
    shop.backup();
    let to = shop.cluster.database("restored");
    to.execute("create schema tools; drop schema tools; create extension hstore");
    broken(&shop, &to, "restore-finish");
    let plan = shop
        .ernstfall()
        .run([
            "restore",
            "shop",
            "--to",
            &to.socket_url(),
            "--plan",
            "--start-over",
            "--json",
        ])
        .expect_code(0)
        .json();
    assert_eq!(plan["steps"][0], "remove what the broken restore left");
    shop.ernstfall().run([
        "restore",
        "shop",
        "--to",
        &to.socket_url(),
        "--start-over",
        "--json",
    ]);
    assert_eq!(content(&to), content(&shop.database));
    assert_eq!(
        to.query_one_text("select count(*) from pg_extension where extname = 'hstore'"),
        "1"
    );
    let other = shop.cluster.database("clean");
    broken(&shop, &other, "restore-indexes");
    shop.ernstfall()
        .run(["restore", "shop", "--to", &other.socket_url(), "--start-over"])
        .expect_code(0);
    assert_equal(&other, &shop.database);
}

#[test]
fn another_backup_than_the_unfinished_one_is_refused_unless_it_starts_over() {
    let shop = Shop::open();
    let first = shop.backup();
    let to = shop.cluster.database("restored");
    broken(&shop, &to, "restore-indexes");
    shop.database.execute("delete from audit");
    let second = shop.backup();
    let url = to.socket_url();
    let output = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &url, "--backup", &second])
        .expect_code(1);
    for part in [first.as_str(), "--start-over", "unfinished"] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    // Without a name it goes on with the one that it began.
    let plan = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &url, "--plan", "--json"]);
    assert_eq!(plan.expect_code(0).json()["backup"], first.as_str());
    shop.ernstfall()
        .run([
            "restore",
            "shop",
            "--to",
            &url,
            "--backup",
            &second,
            "--start-over",
        ])
        .expect_code(0);
    assert_equal(&to, &shop.database);
}

#[test]
fn a_terminated_restore_says_so_and_can_go_on() {
    let shop = Shop::open();
    shop.backup();
    let to = shop.cluster.database("restored");
    let mut running = shop.ernstfall().pause_at("restore-indexes").spawn([
        "restore",
        "shop",
        "--to",
        &to.socket_url(),
        "--json",
    ]);
    running.wait_until_paused("restore-indexes");
    running.terminate();
    assert_eq!(running.wait().expect_code(143).json()["outcome"], "cancelled");
    shop.ernstfall()
        .run(["restore", "shop", "--to", &to.socket_url()])
        .expect_code(0);
    assert_equal(&to, &shop.database);
}

#[test]
fn what_was_there_before_the_restore_is_refused_or_put_back_as_it_was() {
    let shop = Shop::open();
    shop.backup();
    let settled = shop.cluster.database("settled");
    settled.execute("alter default privileges grant select on tables to clerk");
    let output = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &settled.socket_url()])
        .expect_code(1);
    assert!(
        output.stderr.contains("default privileges of postgres"),
        "{}",
        output.stderr
    );

    let to = shop.cluster.database("restored");
    to.execute(
        "alter schema public owner to shop_owner; comment on schema public is 'ours'; grant create on schema public to clerk",
    );
    let public = || {
        to.query_one_text(
            "select nspowner::regrole || ' ' || nspacl::text || ' ' || obj_description(oid, 'pg_namespace')
               from pg_namespace where nspname = 'public'",
        )
    };
    let before = public();
    broken(&shop, &to, "restore-finish");
    // As an emptying that was broken off leaves it.
    to.execute("drop schema public cascade");
    shop.ernstfall().run([
        "restore",
        "shop",
        "--to",
        &to.socket_url(),
        "--start-over",
        "--json",
    ]);
    assert_eq!(content(&to), content(&shop.database));
    let owner = before.split(' ').next().unwrap();
    assert!(public().starts_with(owner), "{before} / {}", public());
}
