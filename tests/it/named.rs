//! What no dump holds and nobody would miss until a recovery: named, each by kind and name.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::restore_test::installation_with_a_script;
use crate::shop::Shop;
use crate::support::cluster::Cluster;
use crate::support::directory::TestDir;
use crate::support::ernstfall::Ernstfall;
use crate::support::programs::Programs;

/// What a record says is not covered, as `kind name`, each once.
fn named(record: &Value) -> BTreeSet<String> {
    let entries = record["not_covered"].as_array().unwrap();
    let text = |entry: &Value| {
        format!(
            "{} {}",
            entry["kind"].as_str().unwrap(),
            entry["name"].as_str().unwrap()
        )
    };
    let named: BTreeSet<String> = entries.iter().map(text).collect();
    assert_eq!(named.len(), entries.len(), "one is named twice: {entries:#?}");
    named
}

fn reason<'a>(record: &'a Value, name: &str) -> &'a str {
    let mut entries = record["not_covered"].as_array().unwrap().iter();
    let entry = entries.find(|entry| entry["name"] == name);
    entry.expect(name)["reason"].as_str().unwrap()
}

fn texts(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// The product as an ordinary role that may read everything.
fn as_reader(shop: &Shop) -> Ernstfall {
    shop.database
        .execute("create role saver login bypassrls password 'saving'; grant pg_read_all_data to saver");
    Ernstfall::new(&shop.directory).target("shop", &shop.database.url_as("saver", "saving"))
}

/// Records of a backup that succeeds and of a restore test that passes.
fn passes(ernstfall: &Ernstfall) -> (Value, Value) {
    let backup = ernstfall.run(["backup", "shop", "--json"]).expect_code(0).json();
    let tested = ernstfall
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(tested["verdict"], "passed", "{tested:#}");
    (backup, tested["verification"].clone())
}

/// Something of every kind, also of those that the server does not note as the extension's.
const OF_THE_EXTENSION: &str = "
    create table book (id int, line text); select pg_catalog.pg_extension_config_dump('book', '');
    create index book_line on book (line); create index book_gone on book (id);
    create table note (id serial primary key, text text default 'none' not null check (text <> ''));
    alter table note enable row level security; create policy own on note using (id > 0);
    create rule keep as on delete to note do instead nothing; comment on column note.text is 'of the extension';
    create function checked() returns trigger language plpgsql as 'begin return new; end';
    create trigger checked before insert on note for each row execute function checked();
    create function greet(name text) returns text language sql as $$ select 'hello ' || name $$;
    create function part(name text) returns text language sql as $$ select 'bye ' || name $$;
    create aggregate joined(text) (sfunc = textcat, stype = text);
    create type mood as enum ('good'); create type pair as (a int, b int);
    create domain word as text check (value <> '');
    create view all_notes as select id from note; create text search dictionary plain (template = simple);
    create statistics of_note on id, text from note;";

#[test]
fn what_is_changed_of_an_extensions_objects_is_named_and_what_it_makes_itself_is_not() {
    let directory = TestDir::new("programs");
    let programs = installation_with_a_script(&directory, "shop_book", OF_THE_EXTENSION);
    std::fs::copy(Programs::newest().path("pg_restore"), programs.path("pg_restore")).unwrap();
    let bin_dir = format!("{:?}", programs.path("").display().to_string());
    let shop = Shop::on(Cluster::builder().programs(programs).start());
    shop.database.execute("create extension shop_book");
    // The sandbox shows none of that installation's files, which lie beside the test's.
    let open = "[scratch]\nisolation = \"none\"\n";
    let ernstfall = as_reader(&shop).key("bin_dir", &bin_dir).tables(open);
    let untouched = texts(&["table rows public.note"]);
    let (_, tested) = passes(&ernstfall);
    assert_eq!(named(&tested), untouched, "{tested:#}");

    shop.database.execute(
        "create role keeper; create table mine (id int primary key); alter extension shop_book add table mine;
         create index late on book (id, line); drop index book_gone; alter table book add constraint small check (id < 9);
         create trigger again after insert on note for each row execute function checked();
         create rule quiet as on update to book do instead nothing; create policy late on note using (true);
         alter table note force row level security; alter table book replica identity full;
         alter table note add column extra int; alter table note alter text set default 'some';
         comment on column note.id is 'mine'; comment on function part(text) is 'mine'; alter function part(text) owner to keeper;
         create or replace function greet(name text) returns text language sql as $$ select 'hi ' || name $$;
         alter type mood add value 'bad'; alter domain word add constraint short check (length(value) < 9);
         alter type pair add attribute c int; create publication changes for table note;
         create or replace view all_notes as select id from note where id > 1;
         alter text search dictionary plain (accept = false)",
    );
    let (_, tested) = passes(&ernstfall);
    let changed: BTreeSet<String> = named(&tested).difference(&untouched).cloned().collect();
    let expected = texts(&[
        "table rows public.mine",
        "table public.mine",
        "index public.late",
        "index public.book_gone",
        "table constraint small on public.book",
        "trigger again on public.note",
        "rule quiet on public.book",
        "policy late on public.note",
        "table public.note",
        "table public.book",
        "table column public.note.extra",
        "table column public.note.text",
        "table column public.note.id",
        "function public.part(pg_catalog.text)",
        "function public.greet(pg_catalog.text)",
        "type public.mood",
        "domain constraint short on public.word",
        "composite type column public.pair.c",
        "publication relation public.note in publication changes",
        "view public.all_notes",
        "text search dictionary public.plain",
    ]);
    assert_eq!(changed, expected);
    for (name, said) in [
        ("public.late", "was added to an object of the extension shop_book"),
        ("public.book_gone", "was removed"),
        ("public.part(pg_catalog.text)", "(comment, owner)"),
        ("public.greet(pg_catalog.text)", "(definition)"),
        ("public.note.text", "(default)"),
        ("public.note", "(forced row security)"),
    ] {
        let entries = tested["not_covered"].as_array().unwrap();
        let one = |entry: &Value| entry["name"] == name && entry["reason"].as_str().unwrap().contains(said);
        assert!(entries.iter().any(one), "{name}: {said}: {entries:#?}");
    }
}

#[test]
fn of_extensions_that_nobody_has_touched_nothing_is_named() {
    let has_cron = Cluster::start()
        .maintenance()
        .query_one_text("select count(*) from pg_available_extensions where name = 'pg_cron'");
    let mut builder = Cluster::builder();
    if has_cron == "1" {
        builder = builder
            .setting("shared_preload_libraries", "pg_cron")
            .setting("cron.database_name", "shop_1");
    }
    let shop = Shop::on(builder.start());
    // Whatever is installed here, with what it needs; translations between languages and types aside.
    let names = shop.database.query_rows(
        "select quote_ident(name) from pg_available_extensions where name <> 'plpgsql' order by name",
    );
    for name in names.into_iter().filter_map(|mut row| row.remove(0)) {
        shop.database
            .execute(&format!("create extension if not exists {name} cascade"));
    }
    let made = shop.database.query_one_text(
        "select count(*) from pg_extension where extname in ('hstore', 'postgres_fdw', 'unaccent')",
    );
    assert_eq!(made, "3");
    let (backup, tested) = passes(&shop.ernstfall());
    assert_eq!(named(&backup), BTreeSet::new());
    assert_eq!(named(&tested), BTreeSet::new(), "{tested:#}");
}

#[test]
fn changes_of_an_extension_of_another_version_are_unknown_and_said_to_be() {
    let shop = Shop::empty();
    shop.database
        .execute("create extension hstore; comment on type hstore is 'mine'");
    let id = shop.backup();
    let tested = shop.restore_test().expect_code(0).json();
    assert_eq!(named(&tested["verification"]), texts(&["type public.hstore"]));
    shop.edit_contents(&id, |contents| {
        let mut extensions = contents["extensions"].as_array_mut().unwrap().iter_mut();
        extensions.find(|one| one["name"] == "hstore").unwrap()["version"] = "0.1".into();
    });
    let tested = shop.restore_test().expect_code(0).json();
    assert_eq!(named(&tested["verification"]), BTreeSet::new());
    let findings = tested["verification"]["findings"].to_string();
    assert!(
        findings.contains("whether its objects were changed is unknown"),
        "{findings}"
    );
}

#[test]
fn what_somebody_has_made_in_the_systems_schemas_is_named_once() {
    let shop = Shop::empty();
    let session = shop.database.session();
    session.execute("set allow_system_table_mods = on");
    session.execute(
        "create table rooms (id int); create view pg_catalog.of_rooms as select id from public.rooms;
         create table information_schema.kept (id serial primary key); insert into information_schema.kept default values;
         create table pg_catalog.lines (line text); create view pg_catalog.seen as select line from pg_catalog.lines;
         create index own on pg_catalog.pg_class (relpages);
         create function pg_catalog.shout(text) returns text language sql as 'select upper($1)';
         create type information_schema.mood as enum ('good'); create type pg_catalog.span as range (subtype = text);
         create operator pg_catalog.!!! (rightarg = text, function = pg_catalog.shout);
         create collation pg_catalog.plain from \"C\"",
    );
    let ernstfall = as_reader(&shop).target_key("exclude", "[\"public.rooms\"]");
    let (backup, tested) = passes(&ernstfall);
    let expected = texts(&[
        "table public.rooms",
        "view pg_catalog.of_rooms",
        "table information_schema.kept",
        "sequence information_schema.kept_id_seq",
        "table pg_catalog.lines",
        "view pg_catalog.seen",
        "index pg_catalog.own",
        "function pg_catalog.shout(pg_catalog.text)",
        "type information_schema.mood",
        "type pg_catalog.span",
        "operator pg_catalog.!!!(NONE,pg_catalog.text)",
        "collation pg_catalog.plain",
    ]);
    assert_eq!(named(&backup), expected);
    assert_eq!(named(&tested), expected);
    assert_eq!(
        reason(&backup, "information_schema.kept"),
        "pg_dump never dumps what lies in information_schema"
    );
    assert!(reason(&backup, "pg_catalog.of_rooms").contains("exclude"));
}

#[test]
fn what_of_the_database_is_kept_by_the_server_is_named() {
    let cluster = Cluster::builder().setting("wal_level", "logical").start();
    let shop = Shop::on(cluster);
    let other = shop.cluster.database("other");
    let slot = |name: &str| format!("select pg_create_logical_replication_slot('{name}', 'pgoutput')");
    other.execute(&slot("elsewhere"));
    shop.database.execute(&slot("shipping"));
    let name = shop.database.name();
    shop.database.execute(&format!(
        "create role maker; grant create on database \"{name}\" to maker; grant all on schema public to maker;
         alter database \"{name}\" is_template true; set role maker; create extension hstore;
         reset role; create extension citext"
    ));
    let (backup, tested) = passes(&as_reader(&shop));
    let expected = texts(&[
        "logical replication slot shipping",
        &format!("mark of the database {name} is a template"),
        "owner of an extension hstore: maker",
    ]);
    assert_eq!(named(&backup), expected);
    assert_eq!(named(&tested), expected);
}
