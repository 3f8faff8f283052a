//! Every kind of object that PostgreSQL has: backed up, restore-tested, and restored on another server, where both sides
//! are compared by PostgreSQL's own programs and by plain queries, never by the product.

use std::process::Command;

use crate::recovery_by_hand::{require_tools, shell};
use crate::restore::broken;
use crate::shop::{Shop, mismatches};
use crate::support::account::Account;
use crate::support::cluster::Cluster;
use crate::support::database::{Database, Session};
use crate::support::ernstfall::Ernstfall;
use crate::support::key::{Key, encryption};
use crate::support::process::run_or_panic;
use crate::support::skip::require;

const TABLES: &str = include_str!("everything/tables.sql");
const VALUES: &str = include_str!("everything/values.sql");
const CODE: &str = include_str!("everything/code.sql");
const OBJECTS: &str = include_str!("everything/objects.sql");
const RIGHTS: &str = include_str!("everything/rights.sql");
const NAMES: &str = include_str!("everything/names.sql");

/// What the parts need besides PostgreSQL's own packages.
macro_rules! require_languages {
    ($cluster:expr) => {
        for language in ["plperlu", "plpython3u"] {
            let sql = format!("select count(*) from pg_available_extensions where name = '{language}'");
            require!(
                $cluster.maintenance().query_one_text(&sql) == "1",
                "{language} is not installed: run `make test`"
            );
        }
    };
}

/// Backs the database up, proves the backup, restores it on another server, and compares the two there.
#[track_caller]
fn proves(shop: &Shop) -> (Cluster, Database) {
    proves_with(shop, &shop.ernstfall())
}

#[track_caller]
fn proves_with(shop: &Shop, ernstfall: &Ernstfall) -> (Cluster, Database) {
    ernstfall.run(["backup", "shop"]).expect_code(0);
    let output = ernstfall.run(["restore-test", "shop", "--json"]);
    let record = output.json();
    assert_eq!(record["verdict"], "passed", "{record:#}");
    assert!(mismatches(&record).is_empty());
    output.expect_code(0);
    let other = Cluster::builder().setting("max_connections", "60").start();
    // A database of the same name: the schema dump may name it.
    let restored = other.database("shop");
    assert_eq!(restored.name(), shop.database.name());
    ernstfall
        .run(["restore", "shop", "--to", &restored.socket_url(), "--json"])
        .expect_code(0);
    assert_same("roles", &roles(&shop.database), &roles(&restored));
    assert_same("schema", &schema(&shop.database), &schema(&restored));
    assert_same("content", &content(&shop.database), &content(&restored));
    assert_same("catalogue", &catalogue(&shop.database), &catalogue(&restored));
    (other, restored)
}

/// The same by hand: encrypted, and restored by the commands of its own guide.
#[track_caller]
fn proves_by_hand(shop: &Shop) {
    let key = Key::new();
    let ernstfall = shop.ernstfall().tables(&encryption(&[&key], None));
    let output = ernstfall.run(["backup", "shop", "--json"]).expect_code(0);
    let id = output.json()["backup"].as_str().unwrap().to_owned();
    let other = Cluster::builder().setting("max_connections", "60").start();
    let mut shell = shell(shop, &id, &other);
    shell.env("DATABASE", shop.database.name());
    shell.env("IDENTITY", key.file(&shop.directory));
    run_or_panic(Account::unprivileged().run_as(&mut shell));
    let restored = other.existing_database(shop.database.name());
    assert_same("roles", &roles(&shop.database), &roles(&restored));
    assert_same("schema", &schema(&shop.database), &schema(&restored));
    assert_same("content", &content(&shop.database), &content(&restored));
    assert_same("catalogue", &catalogue(&shop.database), &catalogue(&restored));
}

/// Names the first line that differs.
#[track_caller]
fn assert_same(what: &str, source: &[String], restored: &[String]) {
    assert!(!source.is_empty(), "there is nothing to compare of the {what}");
    for number in 0..source.len().max(restored.len()) {
        let (one, other) = (source.get(number), restored.get(number));
        let before = &source[number.saturating_sub(3).min(source.len())..number.min(source.len())];
        assert_eq!(one, other, "{what}, line {number}, after {before:#?}");
    }
}

/// What pg_dumpall says of the roles; passwords are not in a backup.
fn roles(database: &Database) -> Vec<String> {
    let mut command = Command::new("pg_dumpall");
    command.args([
        "--roles-only",
        "--no-role-passwords",
        "--dbname",
        &database.socket_url(),
    ]);
    let dump = run_or_panic(&mut command);
    let is_noise = |line: &str| line.is_empty() || line.starts_with("--") || line.contains("restrict ");
    dump.lines()
        .filter(|line| !is_noise(line))
        .map(str::to_owned)
        .collect()
}

/// What pg_dump says. It writes the roles of a policy as it finds them in the catalogue.
fn schema(database: &Database) -> Vec<String> {
    let sorted = |line: &str| {
        let mut words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        words.sort_unstable();
        words.join(" ")
    };
    let tidy = |line: &str| match line.starts_with("CREATE POLICY ") {
        true => sorted(line),
        false => line.to_owned(),
    };
    database.dump_schema().lines().map(tidy).collect()
}

/// A session in which the same value is the same text, whatever the database says.
fn session(database: &Database) -> Session {
    let session = database.session();
    session.execute(
        "set statement_timeout = 0; set idle_session_timeout = 0; set default_transaction_read_only = off; set row_security = on; set search_path = pg_catalog; set datestyle = 'ISO, YMD';
         set intervalstyle = postgres; set timezone = 'UTC'; set extra_float_digits = 3; set bytea_output = hex;
         set standard_conforming_strings = on; set quote_all_identifiers = off; set client_encoding = 'UTF8'",
    );
    session
}

/// Rows by their text, sequences, large objects.
fn content(database: &Database) -> Vec<String> {
    let session = session(database);
    let relations = session.query_rows(
        "select format('%I.%I', nspname, relname), relkind::text, relispopulated::text
           from pg_class c join pg_namespace n on n.oid = relnamespace
          where relkind in ('r', 'm', 'S') and nspname !~ '^pg_' and nspname <> 'information_schema'
          order by nspname collate \"C\", relname collate \"C\"",
    );
    let mut found = Vec::new();
    for relation in relations {
        let [Some(name), Some(kind), Some(populated)] = relation.as_slice() else {
            panic!("{relation:?}")
        };
        let query = match (kind.as_str(), populated.as_str()) {
            ("S", _) => format!("select last_value || ' ' || is_called from {name}"),
            (_, "true") => format!(
                "select count(*) || ' ' || coalesce(md5(string_agg(md5(t::text), '' order by md5(t::text) collate \"C\")), '')
                   from only {name} t"
            ),
            _ => continue,
        };
        found.push(format!("{name}: {}", session.query_one_text(&query)));
    }
    found.push(session.query_one_text(
        "select 'large objects: ' || coalesce(string_agg(concat_ws(' ', oid, pg_get_userbyid(lomowner), array(select unnest(lomacl)::text order by 1), md5(lo_get(oid)),
                obj_description(oid, 'pg_largeobject')), E'\\n' order by oid), '')
           from pg_largeobject_metadata",
    ));
    found
}

/// States that a dump shows nothing of, or shows only by an order that may be chance.
fn catalogue(database: &Database) -> Vec<String> {
    const QUERIES: &[&str] = &[
        // The session's search path has only the system's schema, so every other name is qualified.
        "select 'settings', setrole::regrole, unnest(setconfig) from pg_db_role_setting
          where setdatabase in (0, (select oid from pg_database where datname = current_database()))",
        "select 'index', indexrelid::regclass, indrelid::regclass, indisvalid, indisready, indislive, indisunique, indisclustered,
                indisreplident, indimmediate, indnullsnotdistinct from pg_index where indexrelid >= 16384 and indrelid::regclass::text !~ 'pg_toast'",
        "select 'trigger', tgrelid::regclass, tgname, tgenabled, tgparentid <> 0 from pg_trigger where not tgisinternal",
        "select 'rule', ev_class::regclass, rulename, ev_enabled from pg_rewrite where oid >= 16384",
        "select 'event trigger', evtname, evtenabled, evttags, evtowner::regrole from pg_event_trigger",
        "select 'constraint', conrelid::regclass, contypid::regtype, conname, contype, convalidated, condeferrable, condeferred,
                contype = 'c' and connoinherit from pg_constraint where oid >= 16384",
        "select 'class', oid::regclass, relkind, relpersistence, relreplident, relrowsecurity, relforcerowsecurity, relispartition,
                array(select unnest(reloptions) order by 1), relowner::regrole, relhastriggers, relispopulated, array(select unnest(relacl)::text order by 1) from pg_class
          where oid >= 16384 and relkind <> 't' and relnamespace::regnamespace::text !~ '^pg_'",
        // The server's own mark of a column's age (since 15.20) stands among the options, and no dump has it.
        "select 'column', attrelid::regclass, row_number() over (partition by attrelid order by attnum), attname, atttypid::regtype, atttypmod,
                attstorage, attcompression, attstattarget,
                (select array_agg(option) from unnest(attoptions) option where option !~ '^pg_attver='), attidentity, attgenerated, attinhcount, attislocal, attacl, attnotnull
           from pg_attribute join pg_class c on c.oid = attrelid
          where attrelid >= 16384 and attnum > 0 and not attisdropped and relkind not in ('i', 'I', 't')",
        "select 'function', oid::regprocedure, prosecdef, proleakproof, provolatile, proparallel, procost, prorows, proconfig, proacl,
                proowner::regrole, md5(prosrc), md5(pg_get_function_sqlbody(oid)) from pg_proc where oid >= 16384",
        "select 'type', oid::regtype, typtype, typcategory, typisdefined, typdefault, typcollation::regcollation, typacl, typowner::regrole
           from pg_type where oid >= 16384 and typnamespace::regnamespace::text !~ '^pg_' and typrelid = 0",
        "select 'schema', nspname, nspowner::regrole, nspacl from pg_namespace where nspname !~ '^pg_'",
        "select 'default privileges', defaclrole::regrole, defaclnamespace::regnamespace, defaclobjtype, defaclacl from pg_default_acl",
        "select 'extension', extname, extversion, extowner::regrole, extnamespace::regnamespace from pg_extension",
        "select 'subscription', subname, subenabled and false, subconninfo, subslotname, subpublications, subowner::regrole from pg_subscription",
        "select 'collation', collname, collprovider, collisdeterministic, collcollate, collctype, colliculocale from pg_collation where oid >= 16384",
        "select 'enum', enumtypid::regtype, row_number() over (partition by enumtypid order by enumsortorder), enumlabel from pg_enum",
        "select 'statistics', stxrelid::regclass, stxname, stxkind, stxstattarget, stxowner::regrole from pg_statistic_ext",
        "select 'policy', polrelid::regclass, polname, polcmd, polpermissive, array(select role::regrole::text from unnest(polroles) role order by 1) from pg_policy",
        "select 'inheritance', inhrelid::regclass, inhparent::regclass, inhseqno from pg_inherits where inhrelid >= 16384",
        // That of the schema public comes with the database.
        "select 'comment', (select pg_describe_object(classoid, objoid, objsubid)), description from pg_description
          where objoid >= 16384 and description <> 'standard public schema'",
        "select 'role comment', objoid::regrole, description from pg_shdescription where classoid = 'pg_authid'::regclass",
        "select 'mapping', srvname, usename, array(select unnest(umoptions) order by 1) from pg_user_mappings",
        "select 'operator', oid::regoperator, oprcode, oprrest, oprjoin, oprcom::regoperator, oprnegate::regoperator, oprcanhash, oprcanmerge from pg_operator where oid >= 16384",
    ];
    let session = session(database);
    QUERIES
        .iter()
        .flat_map(|query| {
            let rows = session.query_rows(query);
            let mut lines: Vec<String> = rows
                .iter()
                .map(|row| {
                    row.iter()
                        .map(|value| format!("{value:?}"))
                        .collect::<Vec<_>>()
                        .join(" ")
                })
                .collect();
            lines.sort();
            lines
        })
        .collect()
}

/// A source that holds these parts.
fn shop_with(parts: &[&str]) -> Shop {
    let shop = Shop::on(
        Cluster::builder()
            .setting("wal_level", "logical")
            .setting("max_locks_per_transaction", "512")
            .start(),
    );
    for part in parts {
        shop.database.execute(part);
    }
    shop
}

#[test]
fn tables_of_every_kind_come_back_with_every_row_and_state() {
    proves(&shop_with(&[TABLES]));
}

#[test]
fn values_of_every_type_come_back_as_they_were() {
    proves(&shop_with(&[VALUES]));
}

#[test]
fn functions_triggers_rules_and_event_triggers_come_back_and_do_not_fire() {
    let shop = Shop::empty();
    require_languages!(shop.cluster);
    shop.database.execute(CODE);
    proves(&shop);
}

#[test]
fn event_triggers_that_fire_always_do_not_stop_a_restore() {
    let shop = shop_with(&[
        TABLES,
        "select lo_from_bytea(7, 'large');
         create role owner_of_large; alter large object 7 owner to owner_of_large; grant select on large object 7 to public;
         create function refuse() returns event_trigger language plpgsql as
             $$begin raise exception 'no ddl here: %', tg_tag; end$$;
         create event trigger ordinary_start on ddl_command_start execute function refuse();
         create event trigger ordinary_end on ddl_command_end execute function refuse();
         create event trigger ordinary_drop on sql_drop execute function refuse();
         create event trigger \"Always start\" on ddl_command_start execute function refuse();
         create event trigger always_drop on sql_drop execute function refuse();
         create event trigger replica_end on ddl_command_end execute function refuse();
         alter event trigger \"Always start\" enable always;
         alter event trigger always_drop enable always;
         alter event trigger replica_end enable replica;",
    ]);
    proves(&shop);
}

#[test]
fn objects_that_few_databases_have_come_back_and_subscriptions_arrive_disabled() {
    let shop = shop_with(&[OBJECTS]);
    let (_other, restored) = proves(&shop);
    let enabled = "select count(*) from pg_subscription where subenabled";
    assert_eq!(shop.database.query_one_text(enabled), "1");
    assert_eq!(restored.query_one_text(enabled), "0");
}

#[test]
fn roles_owners_grants_and_policies_come_back() {
    proves(&shop_with(&[RIGHTS]));
}

#[test]
fn names_of_any_spelling_come_back() {
    proves(&shop_with(&[NAMES]));
}

#[test]
fn everything_in_one_database_comes_back() {
    let shop = shop_with(&[TABLES, VALUES, OBJECTS, RIGHTS, NAMES]);
    require_languages!(shop.cluster);
    // Its event triggers would refuse the others.
    shop.database.execute(CODE);
    proves(&shop);
}

#[test]
fn everything_in_one_database_comes_back_by_hand_from_an_encrypted_backup() {
    require_tools!();
    let shop = shop_with(&[TABLES, VALUES, OBJECTS, RIGHTS, NAMES]);
    require_languages!(shop.cluster);
    shop.database.execute(CODE);
    proves_by_hand(&shop);
}

#[test]
fn hostile_settings_of_the_database_do_not_stop_a_restore_by_hand() {
    require_tools!();
    let shop = shop_with(&[TABLES, VALUES, EVIL]);
    let name = shop.database.name().to_owned();
    shop.database.execute(&HOSTILE.replace('%', &name));
    proves_by_hand(&shop);
}

#[test]
fn a_restore_of_everything_that_broke_starts_over_in_a_database_that_it_has_emptied() {
    let shop = shop_with(&[TABLES, OBJECTS, RIGHTS, NAMES]);
    shop.ernstfall().run(["backup", "shop"]).expect_code(0);
    let other = Cluster::builder().setting("max_connections", "60").start();
    let restored = other.database("shop");
    broken(&shop, &restored, "restore-finish");
    shop.ernstfall()
        .run(["restore", "shop", "--to", &restored.socket_url(), "--start-over"])
        .expect_code(0);
    assert_same("schema", &schema(&shop.database), &schema(&restored));
    assert_same("content", &content(&shop.database), &content(&restored));
    assert_same("catalogue", &catalogue(&shop.database), &catalogue(&restored));
}

/// Settings that change what is read, written or allowed. `%` stands for the database's name.
const HOSTILE: &str = "
    alter database % set default_transaction_read_only = on;
    alter database % set default_transaction_isolation = 'serializable';
    alter database % set default_transaction_deferrable = on;
    alter database % set DateStyle = 'German, DMY';
    alter database % set IntervalStyle = 'sql_standard';
    alter database % set TimeZone = 'Asia/Kathmandu';
    alter database % set extra_float_digits = -3;
    alter database % set bytea_output = 'escape';
    alter database % set standard_conforming_strings = off;
    alter database % set escape_string_warning = off;
    alter database % set quote_all_identifiers = on;
    alter database % set row_security = off;
    alter database % set array_nulls = off;
    alter database % set xmloption = 'document';
    alter database % set xmlbinary = 'hex';
    alter database % set client_encoding = 'LATIN1';
    alter database % set lc_monetary = 'de_DE.utf8';
    alter database % set lc_numeric = 'de_DE.utf8';
    alter database % set lc_time = 'de_DE.utf8';
    alter database % set lc_messages = 'de_DE.utf8';
    alter database % set default_toast_compression = 'lz4';
    alter database % set transform_null_equals = on;
    alter database % set statement_timeout = '900ms';
    alter database % set lock_timeout = '1ms';
    alter database % set idle_in_transaction_session_timeout = '900ms';
    alter database % set idle_session_timeout = '900ms';
    alter database % set search_path = evil, pg_catalog;
    alter database % set plpgsql.variable_conflict = 'use_column';
    alter database % set check_function_bodies = off;
    alter database % set synchronize_seqscans = on;
    alter database % set session_replication_role = 'replica';
    alter database % set default_table_access_method = 'no_such_method';
    alter database % set default_tablespace = 'no_such_tablespace';
    alter database % set temp_tablespaces = 'no_such_tablespace';
    alter database % set enable_seqscan = off;
    alter database % set work_mem = '64kB';
";

/// Functions, operators and tables that would be taken for the system's by whoever does not say which he means.
const EVIL: &str = "
    create schema evil;
    create table evil.pg_class (oid oid, relname name, relkind \"char\", relnamespace oid);
    create view evil.pg_database as select 1 as nothing;
    create function evil.current_database() returns name language sql as 'select ''another''::name';
    create function evil.quote_ident(text) returns text language sql as 'select ''evil''';
    create function evil.format(text, variadic text[]) returns text language sql as 'select ''evil''';
    create function evil.equal(text, text) returns boolean language sql as 'select false';
    create function evil.equal(oid, oid) returns boolean language sql as 'select false';
    create function evil.unnest(anyarray) returns setof text language sql as 'select ''evil''';
    create function evil.count(\"any\") returns bigint language internal as 'window_row_number' window;
    create operator evil.= (leftarg = text, rightarg = text, function = evil.equal);
    create operator evil.= (leftarg = oid, rightarg = oid, function = evil.equal);
    create type evil.text as (nothing int);
    create materialized view public.slow as select pg_sleep(1.2)::text;
";

#[test]
fn settings_of_the_database_that_are_hostile_change_nothing() {
    let shop = shop_with(&[TABLES, VALUES, EVIL]);
    let name = shop.database.name().to_owned();
    shop.database.execute(&HOSTILE.replace('%', &name));
    proves(&shop);
}

#[test]
fn settings_of_the_role_that_are_hostile_change_nothing() {
    let shop = shop_with(&[TABLES, VALUES, EVIL]);
    shop.database
        .execute("create role operator superuser login password 'till'; alter schema evil owner to operator");
    shop.database
        .execute(&HOSTILE.replace("database %", "role operator"));
    let ernstfall = Ernstfall::new(&shop.directory).target("shop", &shop.database.url_as("operator", "till"));
    proves_with(&shop, &ernstfall);
}

/// Such as stand in a server's own configuration, which no copy has.
#[test]
fn settings_of_the_server_that_change_how_definitions_are_written_change_nothing() {
    let cluster = Cluster::builder()
        .setting("timezone", "Europe/Berlin")
        .setting("DateStyle", "German")
        .setting("IntervalStyle", "iso_8601")
        .setting("extra_float_digits", "-3")
        .setting("bytea_output", "escape")
        .setting("quote_all_identifiers", "on")
        .setting("lc_monetary", "de_DE.UTF-8")
        .setting("xmloption", "document");
    let shop = Shop::on(cluster.start());
    shop.database.execute(
        "create table moments (at timestamptz default '2026-07-01 12:00:00+00', day date default '2026-07-13',
             took interval default '1 day 02:03:04', weight float8 default 0.1::float8, key bytea default '\\x00ff5c',
             price money default 1234.5, content xml default '<a/>', check (at > '2000-01-01 00:00:00+00'))
             partition by range (at);
         create table moments_2026 partition of moments for values from ('2026-01-01 00:00:00+00') to ('2027-01-01 00:00:00+00');
         insert into moments default values;
         create index at_a_moment on moments_2026 (day) where at > '2026-03-29 01:00:00+00';
         create view since as select * from moments where at >= '2026-10-25 00:30:00+00' and took < '1 hour';
         create function with_default(timestamptz default '2026-01-01 00:00:00+00') returns int language sql as 'select 1'",
    );
    shop.backup();
    let output = shop.restore_test();
    let record = output.json();
    assert_eq!(record["verdict"], "passed", "{record:#}");
    output.expect_code(0);
}
