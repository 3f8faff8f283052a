//! What is left out of a backup (`exclude`) or of a restore test (`scratch.skip_extensions`) goes with whatever
//! depends on it, each by name; all the rest is there, proven, and can be restored.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::recovery_by_hand::{require_tools, shell};
use crate::restore_test::{installation_with_a_script, installation_with_an_extension};
use crate::shop::{Shop, content, mismatches};
use crate::support::account::Account;
use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::directory::TestDir;
use crate::support::ernstfall::Ernstfall;
use crate::support::process::run_or_panic;

/// Of everything that can hang on a table `secret`, and beside each one that does not.
const HANGING: &str = "
    create table secret (id serial primary key, kind int unique, note text);
    comment on table secret is 'nobody is to see it';
    create view names as select id, note from secret;
    comment on view names is 'seen through';
    create view short_names as select id from names;
    create materialized view counts as select count(*) from short_names;
    create unique index counts_once on counts (count);
    create table orders (id int primary key, secret int constraint of_secret references secret, cents int);
    comment on constraint of_secret on orders is 'where it came from';
    create index orders_by_cents on orders (cents);
    create table branches (city text) inherits (secret);
    create table cities (id int primary key, secret int) partition by range (id);
    create table cities_low partition of cities for values from (0) to (10);
    create table cities_high partition of cities for values from (10) to (20);
    create table visits (id int, city int constraint of_city references cities);
    create function of_row(one secret) returns int language plpgsql as $$begin return one.id; end$$;
    create function all_rows() returns bigint language sql begin atomic select count(*) from secret; end;
    grant execute on function all_rows() to public;
    create function apart() returns int language sql as 'select 1';
    create function of_state(int, secret) returns int language sql as 'select $1';
    create aggregate total (secret) (sfunc = of_state, stype = int);
    create table guarded (id int);
    alter table guarded enable row level security;
    create policy by_secret on guarded using (exists (select from secret s where s.id = guarded.id));
    create policy by_id on guarded using (id > 0);
    create rule copied as on insert to guarded do also insert into secret (note) values ('from a rule');
    create rule kept as on delete to guarded do also select 1;
    create trigger same before update on secret for each row execute function suppress_redundant_updates_trigger();
    create trigger same before update on orders for each row execute function suppress_redundant_updates_trigger();
    create publication news for table secret, orders;
    create statistics related on id, kind from secret;
    create statistics unrelated on id, cents from orders;
    create table holders (id int, one secret);
    create table lists (id int, many secret[]);
    create type pair as (one secret, other int);
    create domain single as secret;
    insert into secret (kind, note) select n, 'note ' || n from generate_series(1, 20) n;
    insert into orders select n, n, n * 100 from generate_series(1, 20) n;
    insert into cities select n, n from generate_series(0, 19) n;
    insert into visits select n, n from generate_series(0, 19) n;
    insert into holders values (1, (1, 2, 'three'));
    insert into guarded values (7);
    refresh materialized view counts;
";

/// A source in which `secret` is excluded, and one partition.
fn source() -> Shop {
    let shop = Shop::empty();
    shop.database.execute(HANGING);
    shop
}

const EXCLUDE: &str = "[\"public.secret\", \"public.cities_high\"]";

fn excluding(shop: &Shop) -> Ernstfall {
    shop.ernstfall().target_key("exclude", EXCLUDE)
}

/// Kind, name and reason of what a record says is not covered, but for what each database has (passwords).
fn not_covered(record: &Value) -> BTreeSet<(String, String, String)> {
    let text = |one: &Value, key: &str| one[key].as_str().unwrap().to_owned();
    let entries = record["not_covered"].as_array().unwrap();
    entries
        .iter()
        .map(|one| (text(one, "kind"), text(one, "name"), text(one, "reason")))
        .collect()
}

fn named(kind: &str, name: &str, reason: &str) -> (String, String, String) {
    (kind.to_owned(), name.to_owned(), reason.to_owned())
}

/// Everything that depends on `secret`, as the record names it.
fn what_goes() -> BTreeSet<(String, String, String)> {
    let itself = "the target's `exclude` leaves it out";
    let with_secret = "it depends on public.secret, which the target's `exclude` leaves out";
    let dependents = [
        ("aggregate", "public.total(public.secret)"),
        ("foreign key", "of_secret on public.orders"),
        ("function", "public.all_rows()"),
        ("function", "public.of_row(public.secret)"),
        ("function", "public.of_state(integer,public.secret)"),
        ("materialized view", "public.counts"),
        ("policy", "by_secret on public.guarded"),
        ("publication relation", "public.branches in publication news"),
        ("publication relation", "public.secret in publication news"),
        ("rule", "copied on public.guarded"),
        ("sequence", "public.secret_id_seq"),
        ("statistics object", "public.related"),
        ("table", "public.branches"),
        ("table", "public.holders"),
        ("table", "public.lists"),
        ("trigger", "same on public.secret"),
        ("type", "public.pair"),
        ("type", "public.single"),
        ("view", "public.names"),
        ("view", "public.short_names"),
    ];
    let dependents = dependents.map(|(kind, name)| named(kind, name, with_secret));
    let excluded = ["public.secret", "public.cities_high"].map(|name| named("table", name, itself));
    // Rows of that partition may be referred to.
    let of_partition = named(
        "foreign key",
        "of_city on public.visits",
        "it depends on public.cities_high, which the target's `exclude` leaves out",
    );
    let all = dependents.into_iter().chain(excluded);
    all.chain([of_partition]).collect()
}

/// Names of what a user made there, as the server's own catalogue has them.
fn objects(database: &Database) -> Vec<String> {
    let rows = database.query_rows(
        "select distinct i.type || ' ' || i.identity from pg_depend d,
                lateral pg_identify_object(d.classid, d.objid, 0) i
          where d.objid >= 16384 and i.type not in ('toast table', 'index') and i.schema is distinct from 'pg_toast'
            and i.identity not like '%RI_ConstraintTrigger%' order by 1",
    );
    rows.into_iter().flatten().flatten().collect()
}

/// What stays when `secret` and the partition are dropped with whatever depends on them: the server's own judgement.
fn expected(shop: &Shop) -> Database {
    let copy = format!("{}_dropped", shop.database.name());
    shop.cluster.maintenance().execute(&format!(
        "create database {copy} template {}",
        shop.database.name()
    ));
    let copy = shop.cluster.existing_database(&copy);
    // Instead of whole tables, CASCADE drops columns; and it drops no partition whose rows are referred to.
    copy.execute(
        "drop table holders, lists; drop type pair; alter table visits drop constraint of_city; drop table secret cascade; drop table cities_high cascade",
    );
    copy
}

#[test]
fn what_depends_on_an_excluded_table_is_left_out_with_it_and_each_is_named() {
    let shop = source();
    let ernstfall = excluding(&shop);
    let record = ernstfall.run(["backup", "shop", "--json"]).expect_code(0).json();
    assert_eq!(not_covered(&record), what_goes());
    let tested = ernstfall
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(tested["verdict"], "passed", "{:?}", mismatches(&tested));
    assert_eq!(not_covered(&tested["verification"]), what_goes());
    let status = ernstfall.run(["status", "shop", "--json"]).json();
    assert_eq!(status["not_covered"], what_goes().len());
}

#[test]
fn what_stays_beside_an_excluded_table_is_restored_as_the_server_itself_would_leave_it() {
    let shop = source();
    let ernstfall = excluding(&shop);
    ernstfall.run(["backup", "shop"]).expect_code(0);
    let other = Cluster::start();
    let to = other.database("restored");
    let record = ernstfall
        .run(["restore", "shop", "--to", &to.socket_url(), "--json"])
        .expect_code(0)
        .json();
    assert_eq!(not_covered(&record["verification"]), what_goes());
    let expected = expected(&shop);
    assert_eq!(objects(&to), objects(&expected));
    assert_eq!(content(&to), content(&expected));
    assert_eq!(
        to.dump_schema().replace(to.name(), "NAME"),
        expected.dump_schema().replace(expected.name(), "NAME")
    );
}

#[test]
fn a_backup_with_an_excluded_table_can_be_restored_by_hand() {
    require_tools!();
    let shop = source();
    let output = excluding(&shop).run(["backup", "shop", "--json"]).expect_code(0);
    let id = output.json()["backup"].as_str().unwrap().to_owned();
    let other = Cluster::start();
    let mut shell = shell(&shop, &id, &other);
    run_or_panic(Account::unprivileged().run_as(&mut shell));
    let restored = other.existing_database("restored");
    let expected = expected(&shop);
    assert_eq!(content(&restored), content(&expected));
    assert_eq!(
        restored.dump_schema().replace("restored", "NAME"),
        expected.dump_schema().replace(expected.name(), "NAME")
    );
}

#[test]
fn a_list_is_stored_only_where_pg_dump_could_not_leave_everything_out() {
    let shop = Shop::empty();
    shop.database
        .execute("create table kept (id int); create table cache (id serial primary key)");
    let backup = |ernstfall: &Ernstfall| {
        let output = ernstfall.run(["backup", "shop", "--json"]).expect_code(0);
        shop.manifest(output.json()["backup"].as_str().unwrap())
    };
    let ernstfall = shop.ernstfall().target_key("exclude", "[\"public.cache\"]");
    assert!(backup(&ernstfall)["schema_list"].is_null());
    shop.database
        .execute("create function of_cache(cache) returns int language sql as 'select 1'");
    let manifest = backup(&ernstfall);
    let list = fs::read(shop.object_file(&manifest["schema_list"])).unwrap();
    let list = String::from_utf8(zstd::decode_all(list.as_slice()).unwrap()).unwrap();
    assert!(
        list.contains("TABLE public kept") && !list.contains("of_cache"),
        "{list}"
    );
}

#[test]
fn a_role_without_any_right_on_what_is_left_out_can_back_up() {
    let shop = source();
    let role = "create role saver login password 'saves'";
    shop.database.execute(role);
    shop.database.execute(
        "grant select on orders, cities, cities_low, visits, guarded to saver; alter role saver bypassrls;
         revoke all on secret, names, short_names, counts, branches, holders, lists, cities_high from public",
    );
    let ernstfall = Ernstfall::new(&shop.directory)
        .target("shop", &shop.database.url_as("saver", "saves"))
        .target_key("exclude", EXCLUDE);
    ernstfall.run(["backup", "shop"]).expect_code(0);
    let record = ernstfall
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(record["verdict"], "passed");
}

#[test]
fn a_backup_does_not_wait_for_what_it_leaves_out() {
    let shop = Shop::empty();
    shop.database.execute(
        "create table secret (id serial primary key); create view names as select id from secret;
         create table branches () inherits (secret); create table holders (one secret);
         create table orders (secret int references secret)",
    );
    let other = shop.database.session();
    other.execute("begin; lock table secret, branches, holders in access exclusive mode");
    let ernstfall = shop
        .ernstfall()
        .target_key("exclude", "[\"public.secret\"]")
        .target_key("lock_timeout", "\"1s\"");
    ernstfall.run(["backup", "shop"]).expect_code(0);
    other.execute("rollback");
    ernstfall.run(["restore-test", "shop"]).expect_code(0);
}

#[test]
fn check_and_backup_leave_out_the_same() {
    let shop = Shop::empty();
    shop.database.execute(
        "create table secret (id int primary key); create view names as select id from secret;
         create table orders (secret int constraint of_secret references secret)",
    );
    let ernstfall = shop.ernstfall().target_key("exclude", "[\"public.secret\"]");
    let checked = ernstfall.run(["check", "shop", "--json"]).stdout;
    let record = ernstfall.run(["backup", "shop", "--json"]).expect_code(0).json();
    let names: Vec<_> = not_covered(&record).into_iter().collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for (kind, name, reason) in names {
        let told = format!("{kind} {name} ({reason})");
        assert!(checked.contains(&told), "{told}: {checked}");
    }
}

#[test]
fn a_default_inside_a_table_that_stays_needs_what_is_excluded_and_is_refused() {
    let shop = Shop::empty();
    shop.database.execute(
        "create table secret (id serial primary key);
         create table orders (id int default nextval('secret_id_seq'), cents int);
         insert into orders (cents) values (1)",
    );
    let ernstfall = shop.ernstfall().target_key("exclude", "[\"public.secret\"]");
    let output = ernstfall.run(["backup", "shop"]).expect_code(1);
    for part in [
        "default value for public.orders.id needs public.secret",
        "exclude_data",
    ] {
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    // What the message advises is enough.
    let both = shop
        .ernstfall()
        .target_key("exclude", "[\"public.secret\", \"public.orders\"]");
    both.run(["backup", "shop"]).expect_code(0);
    both.run(["restore-test", "shop"]).expect_code(0);
}

/// Of everything that can need the extension hstore, and beside each one that does not.
const NEEDING: &str = "
    create extension hstore; create extension citext; create extension btree_gist;
    comment on extension hstore is 'key and value';
    create table goods (id serial primary key, tags hstore, name citext);
    comment on table goods is 'with tags';
    create table orders (id int primary key, goods int constraint of_goods references goods, a text, b text);
    create index by_pair on orders using gin (hstore(a, b));
    create index by_a on orders (a);
    create function keys_of(tags hstore) returns text[] language sql as 'select public.akeys($1)';
    create function apart() returns int language sql as 'select 1';
    create view tagged as select id, tags from goods;
    create materialized view counts as select count(*) from tagged;
    create domain short_tags as hstore check (array_length(public.akeys(value), 1) < 3);
    create type tag_range as range (subtype = hstore, subtype_opclass = btree_hstore_ops);
    create table with_default (id int, tags text default hstore('a', 'b')::text);
    create table parts (id int, tags hstore) partition by range (id);
    create table parts_low partition of parts for values from (0) to (10);
    create function noted() returns trigger language plpgsql as $$begin return new; end$$;
    create trigger noted after update on goods for each row execute function noted();
    create table places (id int, word text) partition by range (id);
    create table places_low partition of places for values from (0) to (10);
    create trigger said after update on places for each row when (hstore('a', new.word) ? 'b') execute function noted();
    create trigger noted after update on orders for each row execute function noted();
    create table rooms (id int primary key, room int, during int4range,
        constraint not_twice exclude using gist (room with =, during with &&));
    create table names (name citext primary key);
    create sequence invoice_numbers;
    insert into goods (tags, name) select hstore('n', n::text), 'Name' from generate_series(1, 20) n;
    insert into orders select n, n, 'a', 'b' from generate_series(1, 20) n;
    insert into with_default (id) values (1);
    insert into parts values (1, 'a=>b');
    insert into rooms values (1, 1, '[1,2)'), (2, 1, '[2,3)');
    insert into names values ('One');
    refresh materialized view counts;
    select setval('invoice_numbers', 42);
";

/// Everything that needs hstore, as the record names it.
fn what_needs_hstore() -> BTreeSet<(String, String, String)> {
    let itself = "scratch.skip_extensions leaves it out";
    let needs = "it needs the extension hstore, which scratch.skip_extensions leaves out";
    let objects = [
        ("constraint", "of_goods on public.orders"),
        ("domain", "public.short_tags"),
        ("function", "public.keys_of(tags public.hstore)"),
        ("index", "public.by_pair"),
        ("materialized view", "public.counts"),
        ("partitioned table", "public.parts"),
        ("range type", "public.tag_range"),
        ("sequence", "public.goods_id_seq"),
        ("table", "public.goods"),
        ("table", "public.parts_low"),
        ("table", "public.with_default"),
        ("trigger", "noted on public.goods"),
        ("trigger", "said on public.places"),
        ("view", "public.tagged"),
    ];
    let objects = objects.map(|(kind, name)| named(kind, name, needs));
    objects
        .into_iter()
        .chain([named("extension", "hstore", itself)])
        .collect()
}

#[test]
fn what_needs_a_skipped_extension_is_left_out_of_the_copy_and_each_is_named() {
    let shop = Shop::empty();
    shop.database.execute(NEEDING);
    shop.backup();
    let ernstfall = shop
        .ernstfall()
        .target_key("scratch.skip_extensions", "[\"hstore\", \"of_another_target\"]");
    let mut running = ernstfall
        .pause_at("restore-verify")
        .spawn(["restore-test", "shop", "--json"]);
    running.wait_until_paused("restore-verify");
    let copy = shop.copy();
    let exists =
        |name: &str| copy.query_one_text(&format!("select (to_regclass('{name}') is not null)::text"));
    assert_eq!(exists("goods"), "false");
    assert_eq!(exists("goods_id_seq"), "false");
    for (table, rows) in [("orders", "20"), ("rooms", "2"), ("names", "1")] {
        assert_eq!(
            copy.query_one_text(&format!("select count(*) from {table}")),
            rows
        );
    }
    assert_eq!(
        copy.query_one_text("select string_agg(extname, ' ' order by extname) from pg_extension"),
        "btree_gist citext plpgsql"
    );
    running.resume();
    let record = running.wait().expect_code(0).json();
    assert_eq!(record["verdict"], "passed", "{:?}", mismatches(&record));
    assert_eq!(not_covered(&record["verification"]), what_needs_hstore());
    // Without the key everything is restored, of the same backup.
    let record = shop.restore_test().expect_code(0).json();
    assert_eq!(not_covered(&record["verification"]), BTreeSet::new());
}

#[test]
fn a_constraint_whose_index_needs_a_skipped_extension_is_left_out() {
    let shop = Shop::empty();
    shop.database.execute(NEEDING);
    shop.backup();
    let record = shop
        .ernstfall()
        .tables("[scratch]\nskip_extensions = [\"btree_gist\"]\n")
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(record["verdict"], "passed", "{:?}", mismatches(&record));
    let names: Vec<_> = not_covered(&record["verification"]).into_iter().collect();
    let names: Vec<_> = names
        .iter()
        .map(|(kind, name, _)| (kind.as_str(), name.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("constraint", "not_twice on public.rooms"),
            ("extension", "btree_gist")
        ]
    );
}

#[test]
fn a_difference_in_what_stays_is_still_seen_beside_a_skipped_extension() {
    let shop = Shop::empty();
    shop.database.execute(NEEDING);
    shop.backup();
    let ernstfall = shop
        .ernstfall()
        .target_key("scratch.skip_extensions", "[\"hstore\"]");
    let mut running = ernstfall
        .pause_at("restore-verify")
        .spawn(["restore-test", "shop", "--json"]);
    running.wait_until_paused("restore-verify");
    shop.copy()
        .execute("delete from orders where id = 7; create table goods (id int); drop function apart()");
    running.resume();
    let record = running.wait().expect_code(3).json();
    let told = mismatches(&record).join("\n");
    for part in [
        "table public.orders: 20 rows / 19 rows",
        "public.goods",
        "public.apart()",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn a_restore_test_runs_without_an_extension_that_this_machine_lacks_when_told_so() {
    let directory = TestDir::new("programs");
    let programs = installation_with_an_extension(&directory, "shop_tools");
    let shop = Shop::on(Cluster::builder().programs(programs).start());
    shop.database.execute(
        "create extension shop_tools;
         create table kept (id int); insert into kept values (1);
         create table priced (id int, price int default from_elsewhere()); insert into priced values (1)",
    );
    shop.backup();
    let record = shop.restore_test().expect_code(1).json();
    assert_eq!(record["verdict"], "could-not-run", "{record:#}");
    let ernstfall = shop
        .ernstfall()
        .target_key("scratch.skip_extensions", "[\"shop_tools\"]");
    let record = ernstfall
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(record["verdict"], "passed", "{:?}", mismatches(&record));
    assert_eq!(record["verification"]["tables"], 1);
    let misses = |ernstfall: &Ernstfall| {
        let checked = ernstfall.run(["check", "shop", "--json"]);
        checked.stdout.contains("not installed here: shop_tools")
    };
    assert!(misses(&shop.ernstfall()) && !misses(&ernstfall));
    let names: Vec<_> = not_covered(&record["verification"]).into_iter().collect();
    let names: Vec<_> = names
        .iter()
        .map(|(kind, name, _)| (kind.as_str(), name.as_str()))
        .collect();
    assert_eq!(names, [("extension", "shop_tools"), ("table", "public.priced")]);
}

#[test]
fn rows_of_a_skipped_extensions_own_tables_are_left_out_as_well() {
    let directory = TestDir::new("programs");
    let programs = installation_with_a_script(&directory, "shop_tools", OF_EXTENSION);
    let shop = Shop::on(Cluster::builder().programs(programs).start());
    shop.database.execute(
        "create extension shop_tools; insert into settings (name) values ('one'), ('two');
         create table kept (id int); insert into kept values (1)",
    );
    shop.backup();
    let ernstfall = shop
        .ernstfall()
        .target_key("scratch.skip_extensions", "[\"shop_tools\"]");
    let record = ernstfall
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(record["verdict"], "passed", "{:?}", mismatches(&record));
    let names: Vec<_> = not_covered(&record["verification"]).into_iter().collect();
    let names: Vec<_> = names.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(names, ["shop_tools", "public.settings", "public.settings_id_seq"]);
}

/// A table of an extension whose rows a dump has to keep.
const OF_EXTENSION: &str = "
    create table settings (id serial, name text);
    select pg_extension_config_dump('settings', '');
    select pg_extension_config_dump('settings_id_seq', '');";

#[test]
fn an_extension_can_be_skipped_of_a_backup_that_excludes_tables() {
    let shop = Shop::empty();
    shop.database.execute(NEEDING);
    shop.database.execute(
        "create function of_rooms(rooms) returns int language sql as 'select 1';
         create function of_orders(orders) returns int language sql as 'select 1'",
    );
    let ernstfall = shop
        .ernstfall()
        .target_key("exclude", "[\"public.rooms\"]")
        .target_key("scratch.skip_extensions", "[\"hstore\"]");
    ernstfall.run(["backup", "shop"]).expect_code(0);
    let record = ernstfall
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(record["verdict"], "passed", "{:?}", mismatches(&record));
    let names = not_covered(&record["verification"]);
    let excluded = names.iter().filter(|(_, _, reason)| reason.contains("exclude"));
    assert_eq!(excluded.count(), 2, "{names:?}");
    assert!(names.is_superset(&what_needs_hstore()), "{names:?}");
}

#[test]
fn a_function_whose_text_needs_a_skipped_extension_says_nothing_against_the_backup() {
    let shop = Shop::empty();
    shop.database.execute(
        "create extension hstore;
         create function keys() returns text language plpgsql as
             $$begin return (public.hstore('a', '1') -> 'a')::text; end$$;
         create materialized view seen as select public.keys() as key; refresh materialized view seen",
    );
    shop.backup();
    let ernstfall = shop
        .ernstfall()
        .target_key("scratch.skip_extensions", "[\"hstore\"]");
    let record = ernstfall
        .run(["restore-test", "shop", "--json"])
        .expect_code(1)
        .json();
    assert_eq!(record["verdict"], "could-not-run");
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.contains("skip_extensions leaves out (hstore)"), "{reason}");
    shop.restore_test().expect_code(0);
}
