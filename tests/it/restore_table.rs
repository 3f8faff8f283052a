//! `restore --table`: single tables brought back beside the live ones, into the source database itself and into others.

use std::fs;

use serde_json::Value;

use crate::shop::{Shop, overwrite, wait_for};
use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::ernstfall::Output;

/// Restores tables of the shop into the schema `recovered` of a database.
fn restore<const N: usize>(shop: &Shop, to: &Database, more: [&str; N]) -> Output {
    restore_to(shop, &to.socket_url(), more)
}

fn restore_to<const N: usize>(shop: &Shop, url: &str, more: [&str; N]) -> Output {
    shop.ernstfall().run_all(&arguments(url, &more))
}

fn arguments<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec![
        "restore",
        "shop",
        "--to",
        url,
        "--into-schema",
        "recovered",
        "--json",
    ];
    arguments.extend(more);
    arguments
}

/// All rows of a relation as the server writes them, in an order of their own.
fn rows(database: &Database, relation: &str) -> Vec<String> {
    let rows = database.query_rows(&format!(
        "select t::text collate \"C\" from {relation} t order by 1"
    ));
    rows.into_iter().flatten().flatten().collect()
}

/// What pg_dump says of everything but the schema `recovered`, and the rows of all tables elsewhere.
fn elsewhere(database: &Database) -> (String, Vec<String>) {
    let tables = database.query_rows(
        "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = relnamespace
          where relkind in ('r', 'm') and nspname !~ '^pg_|^information_schema$|^recovered$' order by 1",
    );
    let content = tables.into_iter().flatten().flatten().flat_map(|name| {
        let mut found = rows(database, &name);
        found.insert(0, name);
        found
    });
    (database.dump_schema_without("recovered"), content.collect())
}

/// What a person or a program is told.
fn told(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr)
}

fn has_schema(database: &Database) -> bool {
    database.query_one_text("select count(*) from pg_namespace where nspname = 'recovered'") != "0"
}

fn strings(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap())
        .collect()
}

/// The names under `not_restored`.
fn left(record: &Value) -> Vec<&str> {
    let left = record["tables"]["not_restored"].as_array().unwrap();
    left.iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[test]
fn deleted_rows_come_back_beside_the_live_table_of_the_source_itself() {
    let shop = Shop::open();
    let before = rows(&shop.database, "orders");
    let id = shop.backup();
    shop.database
        .execute("delete from orders where id % 2 = 0; update orders set cents = 1 where id < 100");
    let untouched = elsewhere(&shop.database);
    let record = restore(&shop, &shop.database, ["--table", "public.orders"])
        .expect_code(0)
        .json();
    assert_eq!(
        (&record["outcome"], &record["verdict"]),
        (&"succeeded".into(), &"passed".into())
    );
    assert_eq!(record["verification"]["rows"], 500);
    assert_eq!(record["tables"]["schema"], "recovered");
    assert_eq!(record["tables"]["tables"][0]["rows"], 500);
    assert_eq!(left(&record), ["orders_customer_fkey of public.orders"]);
    assert_eq!(elsewhere(&shop.database), untouched);
    // Stored columns come first, so the columns are named.
    let named = "(select id, customer, state, cents, euros, placed from recovered.orders)";
    assert_eq!(rows(&shop.database, named), before);
    shop.database.execute(
        "insert into orders (id, customer, state, cents, placed) overriding system value
         select id, customer, state, cents, placed from recovered.orders r
          where not exists (select from orders o where o.id = r.id)",
    );
    assert_eq!(shop.database.query_one_text("select count(*) from orders"), "500");
    let comment = shop
        .database
        .query_one_text("select obj_description('recovered'::regnamespace)");
    for part in [id.as_str(), "recovery point", "tables of shop"] {
        assert!(comment.contains(part), "{comment}");
    }
    let last = shop.records();
    let last = &last.as_array().unwrap().last().unwrap()["record"];
    assert_eq!(
        (&last["kind"], &last["tables"]),
        (&"restore".into(), &record["tables"])
    );
}

#[test]
fn primary_keys_constraints_and_indexes_are_there_and_used() {
    let shop = Shop::open();
    shop.database.execute(
        "create extension btree_gist;
         alter table customers add constraint \"one; name\" unique (name) deferrable initially deferred;
         create unique index by_note on customers (lower(coalesce(note, 'public.customers; --' || id))) where id > 0;
         create index covering on customers using btree (id desc nulls last) include (name) with (fillfactor = 70);
         alter table customers cluster on covering;
         create table stays (room int, during int4range, exclude using gist (room with =, during with &&));
         insert into stays values (1, '[1,5)'), (1, '[5,9)')",
    );
    shop.backup();
    shop.database
        .execute("drop table orders cascade; drop table customers, stays");
    let record = restore(
        &shop,
        &shop.database,
        ["--table", "customers", "--table", "stays", "--table", "orders"],
    )
    .expect_code(0)
    .json();
    assert_eq!(
        left(&record),
        [
            "ALTER TABLE public.customers CLUSTER ON covering;",
            "orders_customer_fkey of public.orders"
        ]
    );
    let definitions = shop.database.query_rows(
        "select indexdef from pg_indexes where schemaname = 'recovered' order by indexname collate \"C\"",
    );
    let definitions: Vec<String> = definitions.into_iter().flatten().flatten().collect();
    assert_eq!(
        definitions,
        [
            "CREATE UNIQUE INDEX by_note ON recovered.customers USING btree (lower(COALESCE(note, ('public.customers; --'::text || id)))) WHERE (id > 0)",
            "CREATE INDEX covering ON recovered.customers USING btree (id DESC NULLS LAST) INCLUDE (name) WITH (fillfactor='70')",
            "CREATE UNIQUE INDEX customers_pkey ON recovered.customers USING btree (id)",
            "CREATE UNIQUE INDEX \"one; name\" ON recovered.customers USING btree (name)",
            "CREATE INDEX orders_by_customer ON recovered.orders USING btree (customer)",
            "CREATE UNIQUE INDEX orders_pkey ON recovered.orders USING btree (id)",
            "CREATE INDEX stays_room_during_excl ON recovered.stays USING gist (room, during)",
        ]
    );
    let plan = shop
        .database
        .query_rows("explain select * from recovered.orders where id = 7");
    assert!(plan[0][0].as_ref().unwrap().contains("orders_pkey"), "{plan:?}");
    let refused = shop
        .database
        .session()
        .try_execute("insert into recovered.stays values (1, '[2,3)')");
    assert_eq!(refused.unwrap_err().code().unwrap().code(), "23P01");
}

/// Columns of many kinds, and names that nobody should have chosen.
const ODD: &str = "create domain cents as bigint check (value >= 0);
     create type \"Mood \"\"x\" as enum ('a b', 'c');
     create type pair as (a int, b text);
     create collation german (provider = icu, locale = 'de', deterministic = false);
     create schema \"Sch.ema\";
     create function public.twice(bigint) returns bigint immutable language sql as 'select $1 * 2';
     create table \"Sch.ema\".\"a.\"\"b\n'; drop table x; -- ../../é\" (
         \"i d\" bigint generated always as identity primary key,
         \"mo\"\"od\" \"Mood \"\"x\" not null, price cents, pairs pair[],
         \"text\" varchar(7) collate german, c text collate \"C\",
         double bigint generated always as (public.twice(price)) stored not null,
         line text generated always as ('$;' || c) stored);
     create index \"ind;ex \"\"\n\" on \"Sch.ema\".\"a.\"\"b\n'; drop table x; -- ../../é\" (\"mo\"\"od\", (c || ';\n--\n'));
     create table \"*\" (id int);
     create table nothing ();
     insert into nothing default values;
     insert into \"*\" values (1);
     insert into \"Sch.ema\".\"a.\"\"b\n'; drop table x; -- ../../é\" (\"mo\"\"od\", price, pairs, \"text\", c)
         select 'a b', n, array[row(n, 'x,\"y')::pair, null], 'ä', E'\\\\ \\n ' || n from generate_series(1, 100) n";

#[test]
fn generated_identity_enum_domain_and_collated_columns_come_back_in_whatever_name_they_have() {
    let shop = Shop::empty();
    shop.database.execute(ODD);
    shop.backup();
    let odd = "\"Sch.ema\".\"a.\"\"b\n'; drop table x; -- ../../é\"";
    let columns = "\"i d\", \"mo\"\"od\", price, pairs, \"text\", c, double, line";
    let before = rows(&shop.database, &format!("(select {columns} from {odd})"));
    let definition = "select string_agg(format('%s %s %s %s', attname, format_type(atttypid, atttypmod), attnotnull,
            attcollation::regcollation), '|' order by attname) from pg_attribute where attnum > 0 and attrelid = ";
    let original = shop
        .database
        .query_one_text(&format!("{definition} '{}'::regclass", odd.replace('\'', "''")));
    let untouched = elsewhere(&shop.database);
    let plain = "Sch.ema.a.\"b\n'; drop table x; -- ../../é";
    let record = restore(
        &shop,
        &shop.database,
        [
            "--table",
            plain,
            "--table",
            "\"public\".\"*\"",
            "--table",
            "nothing",
        ],
    )
    .expect_code(0)
    .json();
    assert_eq!(record["tables"]["tables"].as_array().unwrap().len(), 3);
    assert_eq!(elsewhere(&shop.database), untouched);
    let recovered = odd.replace("\"Sch.ema\"", "recovered");
    assert_eq!(
        rows(&shop.database, &format!("(select {columns} from {recovered})")),
        before
    );
    let restored = shop.database.query_one_text(&format!(
        "{definition} '{}'::regclass",
        recovered.replace('\'', "''")
    ));
    assert_eq!(restored, original);
    assert_eq!(rows(&shop.database, "recovered.\"*\""), ["(1)"]);
    assert_eq!(
        shop.database
            .query_one_text("select count(*) from recovered.nothing"),
        "1"
    );
    let indexes = "select count(*) from pg_indexes where schemaname = ";
    assert_eq!(
        shop.database.query_one_text(&format!("{indexes} 'recovered'")),
        "2"
    );
    shop.database.execute("drop schema recovered cascade");
    // In quotes it is a name to the letter; without, a pattern where no table is called so.
    let plan = restore(&shop, &shop.database, ["--table", "public.n*", "--plan"])
        .expect_code(0)
        .json();
    assert_eq!(plan["tables"]["tables"][0]["name"], "nothing");
}

#[test]
fn a_partitioned_table_comes_back_as_its_partitions_and_a_view() {
    let shop = Shop::empty();
    shop.database.execute(
        "create schema parts;
         create table measurements (at date not null, value int, twice int generated always as (value * 2) stored)
             partition by range (at);
         create table parts.m2025 partition of measurements for values from ('2025-01-01') to ('2026-01-01');
         create table m2026 (value int, note int, at date not null, twice int generated always as (value * 2) stored);
         alter table m2026 drop column note;
         alter table measurements attach partition m2026 for values from ('2026-01-01') to ('2027-01-01');
         create table left_out partition of measurements default;
         create index by_value on measurements (value);
         insert into measurements select date '2025-12-01' + n, n from generate_series(1, 60) n;
         insert into left_out values ('1999-01-01', 1)",
    );
    shop.ernstfall()
        .target_key("exclude_data", "[\"public.left_out\"]")
        .run(["backup", "shop"])
        .expect_code(0);
    let before = rows(
        &shop.database,
        "(select at, value, twice from measurements where at > '2000-01-01')",
    );
    let url = shop.database.socket_url();
    let record = restore_to(&shop, &url, ["--table", "public.measurements"])
        .expect_code(0)
        .json();
    assert_eq!(
        record["tables"]["views"],
        serde_json::json!([{"schema": "public", "name": "measurements"}])
    );
    assert_eq!(left(&record), ["public.left_out"]);
    assert_eq!(
        rows(
            &shop.database,
            "(select at, value, twice from recovered.measurements)"
        ),
        before
    );
    assert_eq!(
        shop.database
            .query_one_text("select count(*) from recovered.m2025"),
        "30"
    );
    let kinds = "select string_agg(relname || ' ' || relkind::text, ', ' order by relname) from pg_class
                  where relnamespace = 'recovered'::regnamespace";
    assert_eq!(
        shop.database.query_one_text(kinds),
        "m2025 r, m2025_value_idx i, m2026 r, m2026_value_idx i, measurements v"
    );
    shop.database.execute("drop schema recovered cascade");
    restore_to(&shop, &url, ["--table", "m2025"]).expect_code(0);
    assert_eq!(
        shop.database
            .query_one_text("select count(*) from recovered.m2025"),
        "30"
    );
}

#[test]
fn a_partitioned_table_whose_rows_may_move_comes_back_as_one_table() {
    let shop = Shop::empty();
    shop.database.execute(
        "create type kind as enum ('a', 'b', 'c');
         create table events (id int, kind kind not null, primary key (id, kind)) partition by hash (kind);
         create table events_0 partition of events for values with (modulus 2, remainder 0);
         create table events_1 partition of events for values with (modulus 2, remainder 1);
         insert into events select n, (array['a', 'b', 'c']::kind[])[1 + n % 3] from generate_series(1, 90) n",
    );
    shop.backup();
    let refused = restore(&shop, &shop.database, ["--table", "public.events_0"]).expect_code(1);
    assert!(
        told(&refused).contains("ask for public.events"),
        "{}",
        told(&refused)
    );
    restore(&shop, &shop.database, ["--table", "public.ev*"]).expect_code(0);
    assert_eq!(
        rows(&shop.database, "recovered.events"),
        rows(&shop.database, "events")
    );
    let keys =
        "select count(*) from pg_constraint where contype = 'p' and conrelid = 'recovered.events'::regclass";
    assert_eq!(shop.database.query_one_text(keys), "1");
}

#[test]
fn an_inherited_child_is_a_table_of_its_own_and_is_named_when_it_was_not_asked_for() {
    let shop = Shop::empty();
    shop.database.execute(
        "create table parent (id int); create table child (more text) inherits (parent);
         insert into parent values (1); insert into child values (2, 'x')",
    );
    shop.backup();
    let record = restore(&shop, &shop.database, ["--table", "parent"])
        .expect_code(0)
        .json();
    assert_eq!(left(&record), ["public.child"]);
    assert_eq!(rows(&shop.database, "recovered.parent"), ["(1)"]);
    shop.database.execute("drop schema recovered cascade");
    let record = restore(&shop, &shop.database, ["--table", "parent", "--table", "ch*"])
        .expect_code(0)
        .json();
    assert!(left(&record).is_empty());
    assert_eq!(rows(&shop.database, "recovered.parent"), ["(1)"]);
    assert_eq!(rows(&shop.database, "recovered.child"), ["(2,x)"]);
}

#[test]
fn only_objects_with_rows_of_the_tables_are_read() {
    let shop = Shop::open();
    shop.database.execute(
        "create table noise (id int primary key, text text);
         insert into noise select n, (select string_agg(md5(n::text || m), '') from generate_series(1, 32) m)
           from generate_series(1, 30000) n",
    );
    let id = shop.backup();
    let contents = shop.contents(&id);
    let noise = contents["tables"]
        .as_array()
        .unwrap()
        .iter()
        .position(|table| table["name"] == "noise");
    let chunks = contents["chunks"].as_array().unwrap();
    let of_noise: Vec<&str> = chunks
        .iter()
        .filter(|chunk| chunk["table"].as_u64() == noise.map(|place| place as u64))
        .map(|chunk| chunk["object"].as_str().unwrap())
        .collect();
    let shared = chunks.iter().any(|chunk| {
        chunk["table"].as_u64() != noise.map(|place| place as u64)
            && of_noise.contains(&chunk["object"].as_str().unwrap())
    });
    assert!(of_noise.len() >= 2, "{of_noise:?}");
    let others: Vec<Value> = shop.manifest(&id)["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|object| !of_noise.contains(&object["key"].as_str().unwrap()))
        .cloned()
        .collect();
    assert!(shared || !others.is_empty());
    for object in others {
        fs::remove_file(shop.object_file(&object)).unwrap();
    }
    let plan = restore(&shop, &shop.database, ["--table", "noise", "--plan"])
        .expect_code(0)
        .json();
    assert_eq!(
        plan["objects"],
        of_noise.iter().collect::<std::collections::BTreeSet<_>>().len()
    );
    let to = shop.cluster.database("other");
    restore(&shop, &to, ["--table", "noise", "--jobs", "3"]).expect_code(0);
    assert_eq!(to.query_one_text("select count(*) from recovered.noise"), "30000");
}

#[test]
fn a_plan_lists_everything_and_changes_nothing() {
    let shop = Shop::open();
    let id = shop.backup();
    let before = (elsewhere(&shop.database), shop.records());
    let plan = restore(&shop, &shop.database, ["--table", "public.*", "--plan"])
        .expect_code(0)
        .json();
    assert_eq!(
        (&plan["backup"], &plan["rows"]),
        (&id.as_str().into(), &1050.into())
    );
    assert_eq!(plan["tables"]["tables"].as_array().unwrap().len(), 4);
    assert_eq!(
        strings(&plan["indexes"]),
        [
            "primary key customers_pkey on public.customers",
            "primary key orders_pkey on public.orders",
            "index orders_by_customer on public.orders"
        ]
    );
    assert!(plan["never_brought"].to_string().contains("policies"));
    assert!(plan["stored_bytes"].as_u64().unwrap() > 0 && plan["bytes"].as_u64().unwrap() > 0);
    assert!(!has_schema(&shop.database));
    assert_eq!((elsewhere(&shop.database), shop.records()), before);
}

#[test]
fn plan_and_result_are_told_to_people_as_well() {
    let shop = Shop::open();
    shop.backup();
    let url = shop.database.socket_url();
    let mut arguments = vec![
        "restore",
        "shop",
        "--to",
        &url,
        "--table",
        "orders",
        "--into-schema",
        "recovered",
    ];
    let told = |arguments: &[&str], parts: &[&str]| {
        let text = shop.ernstfall().run_all(arguments).expect_code(0).stdout;
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
    };
    arguments.push("--plan");
    told(
        &arguments,
        &[
            "into the schema recovered of",
            "public.orders",
            "1. make the schema recovered with 1 tables and 0 views",
            "to build: index orders_by_customer on public.orders",
            "not brought: triggers",
            "not restored: foreign key orders_customer_fkey of public.orders",
        ],
    );
    arguments.pop();
    told(
        &arguments,
        &[
            "restored and compared: 500 rows of 1 tables",
            "public.orders: 500 rows in recovered.orders",
            "not restored: foreign key orders_customer_fkey of public.orders",
        ],
    );
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_made() {
    let shop = Shop::open();
    shop.database
        .execute("create schema other; create table other.orders (id int); create table other.customers ()");
    shop.backup();
    for (tables, said) in [
        (
            vec!["--table", "public.ordres"],
            "no table public.ordres; there is public.orders",
        ),
        (vec!["--table", "nowhere"], "`--table '*' --plan` lists"),
        (
            vec!["--table", "orders"],
            "say which of other.orders, public.orders",
        ),
        (
            vec!["--table", "*.orders"],
            "have one name and cannot lie in one schema",
        ),
    ] {
        let url = shop.database.socket_url();
        for plan in [true, false] {
            let mut arguments = arguments(&url, &tables);
            arguments.extend(plan.then_some("--plan"));
            let output = shop.ernstfall().run_all(&arguments).expect_code(1);
            assert!(told(&output).contains(said), "{tables:?}: {}", told(&output));
        }
    }
    let url = shop.database.socket_url();
    for wrong in [
        vec!["restore", "shop", "--to", &url, "--table", "orders"],
        vec!["restore", "shop", "--to", &url, "--into-schema", "recovered"],
        vec![
            "restore",
            "shop",
            "--to",
            &url,
            "--table",
            "a",
            "--into-schema",
            "b",
            "--no-tablespaces",
        ],
    ] {
        shop.ernstfall().run_all(&wrong).expect_code(2);
    }
    assert!(!has_schema(&shop.database));
}

#[test]
fn a_schema_that_exists_is_refused_whatever_it_holds() {
    let shop = Shop::open();
    shop.backup();
    shop.database.execute("create schema recovered");
    let before = elsewhere(&shop.database);
    for more in [None, Some("--start-over"), Some("--plan")] {
        for schema in [
            "recovered",
            "public",
            "pg_catalog",
            "pg_own",
            "information_schema",
            "ernstfall_restore",
            "",
        ] {
            let url = shop.database.socket_url();
            let mut arguments = vec![
                "restore",
                "shop",
                "--to",
                &url,
                "--table",
                "audit",
                "--into-schema",
                schema,
            ];
            arguments.extend(more);
            let output = shop.ernstfall().run_all(&arguments).expect_code(1);
            let said = told(&output).contains("exists in") || told(&output).contains("reserved");
            assert!(said, "{schema}: {}", told(&output));
        }
    }
    assert_eq!(elsewhere(&shop.database), before);
    assert_eq!(
        shop.database
            .query_one_text("select obj_description('recovered'::regnamespace) is null"),
        "t"
    );
}

#[test]
fn a_database_in_which_a_whole_restore_has_not_ended_is_refused() {
    let shop = Shop::open();
    shop.backup();
    let to = shop.cluster.database("broken");
    to.execute(
        "create schema ernstfall_restore; create table ernstfall_restore.step as select 'backup b1' as name",
    );
    let refused = restore(&shop, &to, ["--table", "audit"]).expect_code(1);
    assert!(
        told(&refused).contains("unfinished restore of the whole backup b1"),
        "{}",
        told(&refused)
    );
}

#[test]
fn a_schema_of_any_name_is_made_and_removed_again() {
    let shop = Shop::open();
    shop.backup();
    let schema = "Re\"covered'\n; drop schema public -- ../../é";
    let url = shop.database.socket_url();
    let arguments = [
        "restore",
        "shop",
        "--to",
        &url,
        "--table",
        "public.*",
        "--into-schema",
        schema,
        "--start-over",
        "--json",
    ];
    let mut running = shop.ernstfall().pause_at("restore-indexes").spawn(arguments);
    running.wait_until_paused("restore-indexes");
    running.kill9();
    running.wait().expect_code(137);
    let named = format!("nspname = '{}'", schema.replace('\'', "''"));
    let held = "select count(*) from pg_locks where locktype = 'advisory'";
    wait_for("the server to notice", || {
        shop.database.query_one_text(held) == "0"
    });
    let record = shop.ernstfall().run(arguments).expect_code(0).json();
    assert_eq!(record["tables"]["schema"], schema);
    let tables =
        "select count(*) from pg_class c join pg_namespace n on n.oid = relnamespace where relkind = 'r' and";
    assert_eq!(shop.database.query_one_text(&format!("{tables} {named}")), "4");
    assert_eq!(
        shop.database.query_one_text("select count(*) from public.orders"),
        "500"
    );
}

#[test]
fn what_the_database_lacks_is_said_at_once_before_anything_is_made() {
    let shop = Shop::open();
    shop.database.execute(
        "create extension hstore; create collation german (provider = icu, locale = 'de');
         create table odd (h hstore, t text collate german, s state, p point)",
    );
    let id = shop.backup();
    shop.edit_contents(&id, |contents| {
        contents["database"]["server_version_num"] = 990_001.into();
        contents["database"]["server_version"] = "99.1".into();
    });
    let maintenance = shop.cluster.maintenance();
    maintenance.execute("create database plain template template0 encoding 'SQL_ASCII' locale 'C'");
    maintenance.execute("create role guest login; revoke create on database plain from guest");
    let to = shop.cluster.existing_database("plain");
    // Programs that say they can read such an archive.
    let programs = shop.programs_that_say("99.1");
    let ernstfall = shop
        .ernstfall()
        .key("bin_dir", &format!("{:?}", programs.path().display().to_string()));
    let url = to.socket_url_as("guest");
    let mut arguments = arguments(&url, &["--table", "odd"]);
    let record = ernstfall.run_all(&arguments).expect_code(1).json();
    arguments.push("--plan");
    let plan = ernstfall.run_all(&arguments).expect_code(1).json();
    let lacking = strings(&plan["lacking"]);
    let expected = [
        "older than the source's 99.1",
        "GRANT CREATE ON DATABASE plain TO guest",
        "encoding is SQL_ASCII",
        "the type public.hstore is missing, for column h of odd (of the source's extensions this database lacks hstore in schema public)",
        "the type public.state is missing",
        "the collation public.german is missing, for column t of odd",
    ];
    for part in expected {
        assert!(
            lacking.iter().any(|lack| lack.contains(part)),
            "{part}: {lacking:#?}"
        );
        assert!(
            record["reason"].as_str().unwrap().contains(part),
            "{part}: {record:#}"
        );
    }
    assert_eq!(lacking.len(), expected.len(), "{lacking:#?}");
    assert!(!has_schema(&to));
}

#[test]
fn rows_are_converted_into_another_encoding_and_compared_as_they_were() {
    let shop = Shop::empty();
    let maintenance = shop.cluster.maintenance();
    maintenance.execute("create database western template template0 encoding 'LATIN1' locale 'C'");
    let source = shop.cluster.existing_database("western");
    source.execute(
        "create table \"grün\" (\"größe\" text primary key); create index \"schön\" on \"grün\" ((\"größe\" || 'ß'));
         insert into \"grün\" select 'ä' || n from generate_series(1, 50) n",
    );
    let ernstfall = crate::support::ernstfall::Ernstfall::new(&shop.directory).target("shop", &source.url());
    ernstfall.run(["backup", "shop"]).expect_code(0);
    let url = shop.database.socket_url();
    let arguments = arguments(&url, &["--table", "grün"]);
    ernstfall.run_all(&arguments).expect_code(0);
    assert_eq!(
        rows(&shop.database, "recovered.\"grün\""),
        rows(&source, "\"grün\"")
    );
    let indexes =
        "select string_agg(indexname, ' ' order by indexname) from pg_indexes where schemaname = 'recovered'";
    assert_eq!(shop.database.query_one_text(indexes), "grün_pkey schön");
}

#[test]
fn an_ordinary_role_restores_under_hostile_settings_while_writes_go_on() {
    let shop = Shop::open();
    // One row of it takes longer than the role's statements may.
    shop.database.execute(
        "create function late(int) returns int immutable language plpgsql
             as $$begin perform pg_sleep(1); return $1; end$$;
         create table slow (id int, late int generated always as (public.late(id)) stored);
         insert into slow values (1)",
    );
    shop.backup();
    shop.database.execute(&format!(
        "create role keeper login; grant create on database \"{0}\" to keeper;
         alter database \"{0}\" set default_transaction_read_only = on;
         alter role keeper set statement_timeout = '700ms'; alter role keeper set search_path = nonsense;
         alter role keeper set datestyle = 'german'",
        shop.database.name()
    ));
    let url = shop.database.socket_url_as("keeper");
    let mut running = shop
        .ernstfall()
        .pause_at("restore-data")
        .spawn_all(&arguments(&url, &["--table", "orders", "--table", "slow"]));
    running.wait_until_paused("restore-data");
    // Nothing of the live tables is locked, not even against being dropped.
    let live = shop.database.session();
    live.execute("set default_transaction_read_only = off");
    live.execute(
        "set lock_timeout = '1s';
         insert into orders (customer, cents) values (1, 1); alter table orders add column more int",
    );
    running.resume();
    let record = running.wait().expect_code(0).json();
    assert_eq!(record["verification"]["rows"], 501);
    let owner = "select nspowner::regrole from pg_namespace where nspname = 'recovered'";
    assert_eq!(shop.database.query_one_text(owner), "keeper");
    assert_eq!(shop.database.query_one_text("select count(*) from orders"), "501");
    assert_eq!(
        shop.database.query_one_text("select count(*) from audit"),
        "501",
        "no trigger fired for the copy"
    );
}

fn removed_when_terminated_at(point: &str) {
    let shop = Shop::open();
    shop.backup();
    let before = elsewhere(&shop.database);
    let url = shop.database.socket_url();
    let mut running = shop
        .ernstfall()
        .pause_at(point)
        .spawn_all(&arguments(&url, &["--table", "public.*"]));
    running.wait_until_paused(point);
    running.terminate();
    let record = running.wait().expect_code(143).json();
    assert_eq!(
        (&record["outcome"], &record["verdict"]),
        (&"cancelled".into(), &"could-not-run".into())
    );
    assert_eq!(record["reason"], "cancelled by a signal");
    assert!(!has_schema(&shop.database));
    assert_eq!(elsewhere(&shop.database), before);
}

#[test]
fn a_restore_terminated_before_the_rows_removes_its_schema() {
    removed_when_terminated_at("restore-data");
}

#[test]
fn a_restore_terminated_before_the_comparison_removes_its_schema() {
    removed_when_terminated_at("restore-verify");
}

#[test]
fn a_restore_terminated_while_an_index_is_built_cancels_that_and_removes_its_schema() {
    let shop = Shop::open();
    shop.database.execute(
        "create function slow(int) returns int immutable language plpgsql
             as $$begin perform pg_advisory_xact_lock_shared(7); return $1; end$$;
         create index slowly on nothing_in_it (slow(id)); insert into nothing_in_it values (1)",
    );
    shop.backup();
    let blocker = shop.database.session();
    blocker.execute("select pg_advisory_lock(7)");
    let url = shop.database.socket_url();
    let running = shop
        .ernstfall()
        .spawn_all(&arguments(&url, &["--table", "nothing_in_it"]));
    wait_for("the index to be built", || {
        blocker.query_one_text("select count(*) from pg_stat_activity where wait_event = 'advisory'") == "1"
    });
    running.terminate();
    let record = running.wait().expect_code(143).json();
    assert_eq!(record["reason"], "cancelled by a signal");
    assert!(!has_schema(&shop.database));
}

/// Leaves an unfinished schema behind.
fn killed(shop: &Shop) {
    let url = shop.database.socket_url();
    let mut running = shop
        .ernstfall()
        .pause_at("restore-indexes")
        .spawn_all(&arguments(&url, &["--table", "public.*"]));
    running.wait_until_paused("restore-indexes");
    // Meanwhile nobody else restores into the same schema.
    let other = restore(shop, &shop.database, ["--table", "audit", "--start-over"]).expect_code(1);
    assert!(
        told(&other).contains("another restore into the schema recovered"),
        "{}",
        told(&other)
    );
    running.kill9();
    running.wait().expect_code(137);
    wait_for("the server to notice", || {
        shop.database
            .query_one_text("select count(*) from pg_locks where locktype = 'advisory'")
            == "0"
    });
}

#[test]
fn a_killed_restore_leaves_its_marker_and_starts_over() {
    let shop = Shop::open();
    let id = shop.backup();
    let before = elsewhere(&shop.database);
    killed(&shop);
    assert!(has_schema(&shop.database));
    let refused = restore(&shop, &shop.database, ["--table", "orders"]).expect_code(1);
    for part in ["has not ended", id.as_str(), "--start-over"] {
        assert!(told(&refused).contains(part), "{part}: {}", told(&refused));
    }
    let plan = restore(
        &shop,
        &shop.database,
        ["--table", "orders", "--start-over", "--plan"],
    )
    .expect_code(0)
    .json();
    assert!(strings(&plan["steps"])[0].contains("remove what a broken restore left"));
    restore(&shop, &shop.database, ["--table", "orders", "--start-over"]).expect_code(0);
    assert_eq!(
        shop.database
            .query_one_text("select count(*) from recovered.orders"),
        "500"
    );
    let tables = "select string_agg(relname, ' ') from pg_class where relkind = 'r' and relnamespace = 'recovered'::regnamespace";
    assert_eq!(shop.database.query_one_text(tables), "orders");
    assert_eq!(elsewhere(&shop.database), before);
    // What is finished is nobody's to remove.
    restore(&shop, &shop.database, ["--table", "orders", "--start-over"]).expect_code(1);
}

#[test]
fn starting_over_removes_nothing_that_somebody_else_has_made() {
    let shop = Shop::open();
    shop.backup();
    killed(&shop);
    shop.database.execute("create table recovered.mine (id int); create function recovered.f() returns int language sql as 'select 1'");
    let refused = restore(&shop, &shop.database, ["--table", "orders", "--start-over"]).expect_code(1);
    for part in ["table recovered.mine", "function recovered.f()"] {
        assert!(told(&refused).contains(part), "{part}: {}", told(&refused));
    }
    shop.database.execute("drop table recovered.mine; drop function recovered.f(); create view public.used as select * from recovered.orders");
    let refused = restore(&shop, &shop.database, ["--table", "orders", "--start-over"]).expect_code(1);
    assert!(
        told(&refused).contains("view public.used depends on"),
        "{}",
        told(&refused)
    );
    assert_eq!(
        shop.database
            .query_one_text("select count(*) from recovered.orders"),
        "500"
    );
    shop.database.execute("drop view public.used");
    restore(&shop, &shop.database, ["--table", "orders", "--start-over"]).expect_code(0);
}

#[test]
fn a_damaged_data_object_is_a_bad_backup_and_leaves_nothing() {
    let shop = Shop::open();
    let id = shop.backup();
    let object = shop.manifest(&id)["data"][0].clone();
    let file = shop.object_file(&object);
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    overwrite(&file, &bytes);
    let before = elsewhere(&shop.database);
    let record = restore(&shop, &shop.database, ["--table", "public.*"])
        .expect_code(3)
        .json();
    assert_eq!(
        (&record["outcome"], &record["verdict"]),
        (&"failed".into(), &"failed".into())
    );
    assert!(
        record["reason"]
            .as_str()
            .unwrap()
            .contains(object["key"].as_str().unwrap()),
        "{record:#}"
    );
    assert!(!has_schema(&shop.database));
    assert_eq!(elsewhere(&shop.database), before);
}

#[test]
fn a_table_that_comes_back_otherwise_is_told_and_does_not_stay() {
    let shop = Shop::open();
    let id = shop.backup();
    shop.edit_contents(&id, |contents| {
        let tables = contents["tables"].as_array_mut().unwrap();
        let audit = tables.iter_mut().find(|table| table["name"] == "audit").unwrap();
        audit["fingerprint"]["hash"] = "0".repeat(32).into();
    });
    let record = restore(&shop, &shop.database, ["--table", "audit"])
        .expect_code(3)
        .json();
    let mismatch = &record["verification"]["mismatches"][0];
    assert_eq!(
        (&mismatch["kind"], &mismatch["name"]),
        (&"table".into(), &"recovered.audit".into())
    );
    assert!(!has_schema(&shop.database));
}

#[test]
fn another_database_s_types_functions_and_objects_make_no_backup_bad() {
    let shop = Shop::open();
    shop.database.execute(
        "create function half(int) returns int immutable language sql as 'select $1 / 2';
         create table halves (id int, half int generated always as (public.half(id)) stored);
         create table indexed (id int primary key); create index halved on indexed (public.half(id));
         insert into indexed values (1);
         create table naming (id int, what regclass); insert into naming values (1, 'orders')",
    );
    shop.backup();
    restore(&shop, &shop.database, ["--table", "naming", "--table", "halves"]).expect_code(0);
    let to = Cluster::start();
    let to = to.database("other");
    to.execute("create type state as enum ('new')");
    for (table, said) in [
        (
            "orders",
            "a type, a domain or the encoding of this database is another",
        ),
        (
            "halves",
            "generated columns (half = public.half(id)) need all that they call",
        ),
        ("naming", "its rows name an object"),
    ] {
        let record = restore(&shop, &to, ["--table", table]).expect_code(1).json();
        assert_eq!(
            (&record["outcome"], &record["verdict"]),
            (&"failed".into(), &"could-not-run".into())
        );
        assert!(record["reason"].as_str().unwrap().contains(said), "{record:#}");
        assert!(!has_schema(&to), "{table}");
    }
    // Rows that are whole are not kept away for an index.
    let record = restore(&shop, &to, ["--table", "indexed"]).expect_code(0).json();
    assert_eq!(left(&record), ["halved on public.indexed"]);
    assert!(
        record["verification"]["findings"]
            .to_string()
            .contains("function public.half(integer) does not exist")
    );
    assert_eq!(
        to.query_one_text("select string_agg(indexname, ' ') from pg_indexes where schemaname = 'recovered'"),
        "indexed_pkey"
    );
}

#[test]
fn a_database_that_publishes_all_its_tables_is_refused() {
    let shop = Shop::open();
    shop.backup();
    shop.database
        .execute("create publication everything for all tables");
    let output = shop
        .ernstfall()
        .run([
            "restore",
            "shop",
            "--to",
            &shop.database.socket_url(),
            "--table",
            "customers",
            "--into-schema",
            "back",
        ])
        .expect_code(1);
    assert!(
        output.stderr.contains("publishes all its tables (everything)"),
        "{}",
        output.stderr
    );
}
