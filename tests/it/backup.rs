//! A backup holds what the source held: seen by restoring it, and compared by means that are not the product's.

use serde_json::Value;

use super::support::cluster::Cluster;
use super::support::database::Database;
use super::support::directory::TestDir;
use super::support::ernstfall::Ernstfall;
use super::support::evidence::{content, last_record, stored};

/// The scratch server's sandbox is another test's business.
const SCRATCH: &str = "[scratch]\nisolation = \"best-effort\"";

const VARIED: &str = r#"
create type mood as enum ('sad', 'happy');
create domain positive as int check (value > 0);
create type pair as (a int, b text);
create table kinds (id int generated always as identity primary key, small smallint, big bigint, exact numeric,
    real_ real, double_ double precision, money_ money, text_ text, char_ char(5), bytes bytea, at timestamptz,
    span interval, day date, flag boolean, mood_ mood, positive_ positive, pair_ pair, list int[], words text[],
    range_ int4range, document jsonb, old_document json, markup xml, address inet, bits bit varying, id_ uuid,
    point_ point, search tsvector, class regclass,
    halved bigint generated always as (big / 2) stored);
insert into kinds (small, big, exact, real_, double_, money_, text_, char_, bytes, at, span, day, flag, mood_,
    positive_, pair_, list, words, range_, document, old_document, markup, address, bits, id_, point_, search, class)
values (1, 9223372036854775807, 'NaN', 'NaN', 'Infinity', 12.34, E'tab\there\\.', 'a', '\x00ff0a', 'infinity',
    '1 year -2 days 3 hours', '0044-03-15 BC', true, 'happy', 1, row(1, E'x\ny'), '{1,NULL,3}',
    array['NULL', null, '', 'a"b', 'c\d'], '[1,10)', '{"a": [1, null]}', '{"b" : 1}', '<a>ä</a>', '::1/64', b'101',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '(0.1,1e300)', 'a fat cat', 'pg_class'),
  (-1, -9223372036854775808, 1e-1000, '-Infinity', 5e-324, -0.01, '', null, '', '-infinity', '-1 month', 'infinity',
    false, 'sad', null, row(null, null), '{}', '{}', 'empty', 'null', '"x"', '', '10.0.0.1', '', null, null, '', null);
insert into kinds default values;
create unique index kinds_big on kinds (big);
insert into kinds (big, class) values (5, 'kinds_big');

create table control_characters (code int primary key, alone text, amid text);
insert into control_characters select i, chr(i), 'a' || chr(i) || 'b' from generate_series(1, 160) i;
create table escapes (value text);
insert into escapes values ('\.'), ('\N'), (null), (''), (E'\\.\n\\.'), (E'\\'), (E'\r\n'), (E'\n'), ('\x41');
create table "empty" (a int, b text);
create table no_columns ();
insert into no_columns select from generate_series(1, 7);
create table all_generated (a int generated always as (42) stored, b text generated always as ('x') stored);
insert into all_generated select from generate_series(1, 3);
create table late_columns (a int, gone text, b text);
insert into late_columns select i, 'gone', 'b' || i from generate_series(1, 10) i;
alter table late_columns drop column gone, add column c text default 'added later';

create table parent (a int);
create table child (b int) inherits (parent);
insert into parent values (1), (2);
insert into child values (3, 4);
create table parts (at date, v int) partition by range (at);
create table parts_2026 partition of parts for values from ('2026-01-01') to ('2027-01-01');
create table parts_rest partition of parts default;
insert into parts select date '2026-12-01' + i, i from generate_series(0, 60) i;
create unlogged table unlogged_ (a int);
insert into unlogged_ values (1);

create schema "Ä %s ""quoted"" \ ' space";
create table "Ä %s ""quoted"" \ ' space"."two
lines	tab" ("co""lumn" int, "%n" text, "größe" int, "select" int, "a\b" int generated always as (1) stored);
insert into "Ä %s ""quoted"" \ ' space"."two
lines	tab" values (1, 'x', 2, 3), (4, E'\n', 5, 6);
create sequence "Ä %s ""quoted"" \ ' space"."seq'uence" increment by -7 start -3;
select nextval('"Ä %s ""quoted"" \ '' space"."seq''uence"');
create sequence never_called start 5;
create sequence far increment by 1000 cache 10;
select setval('far', 123456789, true);

create view totals as select at, sum(v) as v from parts group by at;
create materialized view filled as select count(*) as n from parts;
create materialized view unfilled as select 1 as n with no data;
create function shout() returns trigger language plpgsql as $$ begin new.v = 999; return new; end $$;
create table triggered (v int, constraint positive_v check (v > 0));
insert into triggered values (1), (2);
create trigger shout before insert on triggered for each row execute function shout();
create table one (id int primary key, other int);
create table other (id int primary key, one int references one deferrable);
alter table one add foreign key (other) references other deferrable;
insert into one values (1, null);
insert into other values (1, 1);
update one set other = 1;
create table big (id int primary key, filler text);
insert into big select i, repeat(md5(i::text), 10) from generate_series(1, 20000) i;
create table wide (v text);
insert into wide select string_agg(md5(i::text), '') from generate_series(1, 100000) i;
comment on table big is E'it''s big\nreally';
select lo_from_bytea(0, '\x0001ff5c0a'), lo_from_bytea(0, ''), lo_from_bytea(0, decode(repeat('ab', 1000000), 'hex'));
"#;

fn product(directory: &TestDir, database: &Database) -> Ernstfall {
    Ernstfall::new(directory)
        .target("shop", &database.url())
        .tables(SCRATCH)
}

/// Backs up, has the product test the backup, restores it into `copy` and compares the two by itself.
fn expect_round_trip(ernstfall: &Ernstfall, source: &Database, copy: &Database) -> Value {
    let backup = ernstfall.run(["--json", "backup", "shop"]).expect_code(0).json();
    let tested = ernstfall.run(["--json", "restore-test", "shop"]).expect_code(0);
    assert_eq!(tested.json()["verdict"], "passed", "{}", tested.stdout);
    ernstfall
        .run(["restore", "shop", "--to", &copy.socket_url()])
        .expect_code(0);
    assert_eq!(content(copy), content(source));
    backup
}

#[test]
fn varied_content_comes_back_as_it_was_with_one_worker_and_with_four() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(VARIED);
    for jobs in ["1", "4"] {
        let directory = TestDir::new("backup");
        let ernstfall = product(&directory, &source).target_key("jobs", jobs);
        let copy = cluster.database("copy");
        let backup = expect_round_trip(&ernstfall, &source, &copy);
        assert_eq!(backup["totals"]["large_objects"], 3);
        assert_eq!(backup["attempts"], 1);
        // The databases that the copies are made in are nobody's targets.
        let mut findings = backup["findings"].as_array().unwrap().iter();
        assert!(
            findings.all(|finding| finding["subject"] == "databases"),
            "{backup:#}"
        );
        assert_eq!(copy.dump_schema(), source.dump_schema());
        assert_eq!(copy.query_one_text("select count(*) from no_columns"), "7");
        assert_eq!(copy.query_one_text("select nextval('never_called')"), "5");
        let own_rows = "select count(*) from only parent";
        assert_eq!(copy.query_one_text(own_rows), "2", "a parent's own rows only");
    }
}

#[test]
fn empty_database_comes_back_empty() {
    let cluster = Cluster::start();
    let (source, copy) = (cluster.database("shop"), cluster.database("copy"));
    let directory = TestDir::new("backup");
    let backup = expect_round_trip(&product(&directory, &source), &source, &copy);
    assert_eq!(backup["totals"]["tables"], 0);
}

#[test]
fn second_backup_stands_beside_the_first_and_each_restores_its_own_moment() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute("create table orders (id int); insert into orders values (1)");
    let directory = TestDir::new("backup");
    let ernstfall = product(&directory, &source);
    let first = ernstfall.run(["--json", "backup", "shop"]).expect_code(0).json();
    let old = content(&source);
    source.execute("insert into orders values (2); create table late (id int)");
    ernstfall.run(["backup"]).expect_code(0);
    let ids: Vec<_> = stored(&ernstfall, "shop", "manifests");
    assert_eq!(ids.len(), 2, "{ids:?}");
    let copy = cluster.database("copy");
    let id = first["backup"].as_str().unwrap();
    ernstfall
        .run(["restore", "shop", "--backup", id, "--to", &copy.socket_url()])
        .expect_code(0);
    assert_eq!(content(&copy), old);
    let newest = cluster.database("copy");
    ernstfall
        .run(["restore", "shop", "--to", &newest.socket_url()])
        .expect_code(0);
    assert_eq!(content(&newest), content(&source));
}

/// A database of another encoding.
fn encoded(cluster: &Cluster, name: &str, encoding: &str) -> Database {
    cluster.maintenance().execute(&format!(
        "create database {name} encoding '{encoding}' lc_collate 'C' lc_ctype 'C' template template0"
    ));
    cluster.existing_database(name)
}

#[test]
fn latin1_database_with_names_and_rows_beyond_ascii_comes_back() {
    let cluster = Cluster::start();
    let (source, copy) = (
        encoded(&cluster, "source", "LATIN1"),
        encoded(&cluster, "copy", "LATIN1"),
    );
    source.execute(
        "create schema \"straße\"; create sequence \"straße\".\"zähler\"; select nextval('\"straße\".\"zähler\"');
         create table \"straße\".\"größe\" (\"länge\" int default nextval('\"straße\".\"zähler\"'), \"wört\" text,
            \"ümläut\" text generated always as (upper(\"wört\")) stored);
         insert into \"straße\".\"größe\" (\"wört\") select chr(i) || '\\' || chr(i) from generate_series(1, 255) i
            where i not between 128 and 159;
         create view \"straße\".\"übersicht\" as select 'ä' as \"ö\";
         comment on table \"straße\".\"größe\" is 'fünf';
         create table plain (a text); insert into plain values ('é')",
    );
    let directory = TestDir::new("backup");
    let url = source.url();
    let ernstfall = Ernstfall::new(&directory).target("shop", &url).tables(SCRATCH);
    expect_round_trip(&ernstfall, &source, &copy);
    let found = copy.query_one_text("select \"wört\" from \"straße\".\"größe\" where \"wört\" ~ 'ÿ'");
    assert_eq!(found, "ÿ\\ÿ");
}

#[test]
fn bytes_that_are_no_text_in_an_sql_ascii_database_come_back() {
    let cluster = Cluster::start();
    let (source, copy) = (
        encoded(&cluster, "source", "SQL_ASCII"),
        encoded(&cluster, "copy", "SQL_ASCII"),
    );
    source.execute(
        "create table bytes (a text, \"größe\" text);
         insert into bytes select convert_from(decode(lpad(to_hex(i), 2, '0'), 'hex'), 'SQL_ASCII'), 'x'
            from generate_series(1, 255) i;
         insert into bytes select convert_from('\\xc328e228a1ff5c2e', 'SQL_ASCII'), null",
    );
    let directory = TestDir::new("backup");
    expect_round_trip(&product(&directory, &source), &source, &copy);
}

#[test]
fn settings_of_the_database_that_change_how_values_are_read_and_written_do_no_harm() {
    let cluster = Cluster::start();
    let (source, copy) = (cluster.database("shop"), cluster.database("copy"));
    source.execute(VARIED);
    source.execute(
        "create schema evil; create table evil.pg_class (a int); insert into evil.pg_class values (1)",
    );
    for setting in [
        "datestyle = 'German, DMY'",
        "intervalstyle = 'sql_standard'",
        "timezone = 'Asia/Kathmandu'",
        "standard_conforming_strings = off",
        "quote_all_identifiers = on",
        "search_path = evil, pg_catalog",
        "array_nulls = off",
        "bytea_output = escape",
        "extra_float_digits = -10",
        "row_security = off",
        "xmlbinary = hex",
        "xmloption = document",
        "lock_timeout = '1ms'",
        "idle_in_transaction_session_timeout = '1ms'",
        "default_transaction_isolation = 'serializable'",
        "default_transaction_deferrable = on",
        "client_min_messages = 'debug5'",
        "default_transaction_read_only = on",
    ] {
        // The copy has them before anything is loaded, too.
        for name in [source.name(), copy.name()] {
            let sql = format!("alter database {name} set {setting}");
            cluster.maintenance().execute(&sql);
        }
    }
    let directory = TestDir::new("backup");
    let ernstfall = product(&directory, &source);
    expect_round_trip(&ernstfall, &source, &copy);
    let settings = "select unnest(setconfig) from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase \
                    where s.setrole = 0 and d.datname = ";
    let of = |database: &Database| {
        let sql = format!("{settings}'{}' order by 1", database.name());
        cluster.maintenance().query_rows(&sql)
    };
    assert_eq!(of(&copy), of(&source));
}

#[test]
fn rows_committed_after_the_snapshot_are_not_in_the_backup_and_those_before_are() {
    let cluster = Cluster::start();
    let (source, copy) = (cluster.database("shop"), cluster.database("copy"));
    source.execute("create table orders (id int); insert into orders values (1)");
    let open = source.session();
    open.execute("begin; insert into orders values (2)");
    let directory = TestDir::new("backup");
    let ernstfall = product(&directory, &source).pause_at("after-export");
    let before = content(&source);
    let mut running = ernstfall.spawn(["backup"]);
    running.wait_until_paused("after-export");
    open.execute("commit");
    source.execute("insert into orders values (3); delete from orders where id = 1");
    running.resume();
    running.wait().expect_code(0);
    let record = last_record(&ernstfall, "backup");
    assert_eq!(record["attempts"], 1);
    ernstfall
        .run(["restore", "shop", "--to", &copy.socket_url()])
        .expect_code(0);
    assert_eq!(content(&copy), before);
}

#[test]
fn second_backup_of_a_target_is_refused_while_one_runs_and_another_target_is_not() {
    let cluster = Cluster::start();
    let (source, other) = (cluster.database("shop"), cluster.database("office"));
    source.execute("create table orders (id int)");
    let (one, two) = (TestDir::new("backup"), TestDir::new("backup"));
    let first = product(&one, &source).pause_at("after-export");
    let mut running = first.spawn(["backup"]);
    running.wait_until_paused("after-export");
    let sql = "select pid from pg_stat_activity where application_name = 'ernstfall backup guard'";
    let holder = source.query_one_text(sql);
    let second = product(&two, &source).target("office", &other.url());
    let refused = second.run(["backup", "shop"]).expect_code(1);
    assert!(
        refused.stderr.contains("another backup of shop is running")
            && refused.stderr.contains(&format!("pid {holder}")),
        "{}",
        refused.stderr
    );
    assert_eq!(last_record(&second, "backup")["outcome"], "failed");
    second.run(["backup", "office"]).expect_code(0);
    running.resume();
    running.wait().expect_code(0);
    second.run(["backup", "shop"]).expect_code(0);
}

#[test]
fn backup_of_another_source_under_the_same_name_is_refused_until_it_is_adopted() {
    let cluster = Cluster::start();
    let (source, other) = (cluster.database("shop"), cluster.database("shop"));
    other.execute("create table other (id int)");
    let directory = TestDir::new("backup");
    product(&directory, &source).run(["backup"]).expect_code(0);
    let moved = product(&directory, &other);
    let refused = moved.run(["backup"]).expect_code(1);
    assert!(refused.stderr.contains("--adopt"), "{}", refused.stderr);
    assert_eq!(stored(&moved, "shop", "manifests").len(), 1);
    moved.run(["backup", "--adopt"]).expect_code(0);
    moved.run(["backup"]).expect_code(0);
    assert_eq!(stored(&moved, "shop", "manifests").len(), 3);
    product(&directory, &source).run(["backup"]).expect_code(1);
}

#[test]
fn rights_that_lack_are_all_named_before_anything_is_stored() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(
        "create role reader login password 'reads'; create schema hidden; create table hidden.inside (a int);
         create table open (a int); create table closed_1 (a int); create table closed_2 (a int);
         create sequence closed_sequence; grant select on open to reader;
         create table policed (a int); grant select on policed to reader; insert into policed values (1);
         alter table policed enable row level security; create policy none on policed using (false);
         select lo_from_bytea(4711, 'closed'), lo_from_bytea(4712, 'open'); grant select on large object 4712 to public",
    );
    let directory = TestDir::new("backup");
    let ernstfall = Ernstfall::new(&directory).target("shop", &source.url_as("reader", "reads"));
    let refused = ernstfall.run(["backup"]).expect_code(1);
    for name in [
        "hidden.inside",
        "public.closed_1",
        "public.closed_2",
        "public.closed_sequence",
        "GRANT pg_read_all_data TO \"reader\"",
        "row-level security would hide rows of public.policed",
        "BYPASSRLS",
        "GRANT SELECT ON LARGE OBJECT 4711 TO \"reader\";",
    ] {
        assert!(refused.stderr.contains(name), "{name}: {}", refused.stderr);
    }
    assert!(!refused.stderr.contains("public.open"), "{}", refused.stderr);
    assert_eq!(
        stored(&ernstfall, "shop", "").len(),
        0,
        "nothing of the target is stored"
    );
    assert_eq!(last_record(&ernstfall, "backup")["outcome"], "failed");
    // What the message advises is enough.
    source.execute("grant pg_read_all_data to reader; alter role reader bypassrls; grant select on large object 4711 to reader");
    ernstfall.run(["backup"]).expect_code(0);
}

#[test]
fn excluded_tables_and_rows_are_named_and_everything_else_is_there() {
    let cluster = Cluster::start();
    let (source, copy) = (cluster.database("shop"), cluster.database("copy"));
    source.execute(
        "create table orders (id int); insert into orders values (1); create table log (line text);
         insert into log values ('x'); create table \"Cache\" (v int); insert into \"Cache\" values (1)",
    );
    let directory = TestDir::new("backup");
    let ernstfall = product(&directory, &source)
        .target_key("exclude_data", "[\"public.log\"]")
        .target_key("exclude", "[\"public.Cache\"]");
    let record = ernstfall.run(["--json", "backup", "shop"]).expect_code(0).json();
    let names: Vec<_> = record["not_covered"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["kind"].as_str().unwrap(), one["name"].as_str().unwrap()))
        .collect();
    assert_eq!(names, [("table", "public.Cache"), ("table rows", "public.log")]);
    ernstfall.run(["restore-test"]).expect_code(0);
    ernstfall
        .run(["restore", "shop", "--to", &copy.socket_url()])
        .expect_code(0);
    assert_eq!(copy.query_one_text("select count(*) from orders"), "1");
    assert_eq!(copy.query_one_text("select count(*) from log"), "0");
    assert_eq!(
        copy.query_one_text("select coalesce(to_regclass('\"Cache\"')::text, 'gone')"),
        "gone"
    );
}

#[test]
fn rows_are_read_no_faster_than_allowed_over_all_workers() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(
        "create table one as select i, repeat('x', 990) from generate_series(1, 800) i;
         create table two as table one;
         create table three as table one;
         select lo_from_bytea(0, convert_to(repeat('y', 600000), 'UTF8'))",
    );
    let directory = TestDir::new("backup");
    let ernstfall = product(&directory, &source)
        .key("limits.max_rate", "\"1MB/s\"")
        .target_key("jobs", "3");
    ernstfall.run(["backup"]).expect_code(0);
    let record = last_record(&ernstfall, "backup");
    let phases = record["phases"].as_array().unwrap();
    let data = phases.iter().find(|phase| phase["name"] == "data").unwrap();
    let seconds = data["seconds"].as_f64().unwrap();
    // 2.4 MB of rows and 0.6 MB of large objects; without a limit a tenth of a second.
    assert!((2.9..).contains(&seconds), "{seconds} s");
}
