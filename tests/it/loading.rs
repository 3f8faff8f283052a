//! Rows that do not simply go back into the table that they came from: partitions that move, computed columns,
//! tablespaces, values that cannot be sent.

use serde_json::Value;

use crate::restore_test::installation_with_a_script;
use crate::shop::{Shop, content, mismatches};
use crate::support::cluster::Cluster;
use crate::support::directory::TestDir;
use crate::support::programs::Programs;

/// Names of what a record says is not covered, by kind.
fn not_covered(record: &Value, kind: &str) -> Vec<String> {
    let entries = record["not_covered"].as_array().unwrap();
    let of_kind = entries.iter().filter(|entry| entry["kind"] == kind);
    of_kind
        .map(|entry| entry["name"].as_str().unwrap().to_owned())
        .collect()
}

fn findings(record: &Value) -> Vec<String> {
    let findings = record["verification"]["findings"].as_array().unwrap();
    findings
        .iter()
        .map(|finding| {
            format!(
                "{}: {}",
                finding["subject"].as_str().unwrap(),
                finding["message"].as_str().unwrap()
            )
        })
        .collect()
}

fn passes(shop: &Shop) -> Value {
    shop.backup();
    let record = shop.restore_test().expect_code(0).json();
    assert_eq!(record["verdict"], "passed", "{record:#}");
    record
}

#[test]
fn rows_hashed_by_an_enum_are_loaded_through_their_partitioned_table() {
    let shop = Shop::empty();
    shop.database.execute(
        "create type colour as enum ('red', 'green', 'blue', 'white', 'black');
         create type pair as (shade colour, depth int);
         create table paint (id int, colour colour, note text) partition by hash (colour);
         create table wood (id int, pairs pair[]) partition by list (id);
         create table wood_1 partition of wood for values in (1) partition by hash (pairs);
         create table wood_2 partition of wood default;",
    );
    for number in 0..8 {
        shop.database.execute(&format!(
            "create table paint_{number} partition of paint for values with (modulus 8, remainder {number});
             create table wood_1_{number} partition of wood_1 for values with (modulus 8, remainder {number})"
        ));
    }
    shop.database.execute(
        "insert into paint select n, (enum_range(null::colour))[1 + n % 5], 'x' from generate_series(1, 500) n;
         insert into wood select n % 2, array[row((enum_range(null::colour))[1 + n % 5], n)::pair]
           from generate_series(1, 500) n",
    );
    // Types made anew get other oids, and these decide which partition a row belongs to.
    shop.database.execute("insert into paint select * from paint");
    let record = passes(&shop);
    assert_eq!(record["verification"]["rows"], 1500);
    let before = partition_counts(&shop.database);
    let running = shop.paused_before_comparison();
    let after = partition_counts(&shop.copy());
    assert_ne!(before, after, "the rows moved, or this test shows nothing");
    // One row less in whatever partition it has come to.
    shop.copy()
        .execute("delete from paint where ctid = (select ctid from paint limit 1) and id = (select id from paint limit 1)");
    running.resume();
    let record = running.wait().expect_code(3).json();
    let found = mismatches(&record);
    assert!(
        found.len() == 1 && found[0].starts_with("table public.paint: 1000 rows / "),
        "{found:#?}"
    );
}

fn partition_counts(database: &crate::support::database::Database) -> Vec<String> {
    let rows = database
        .query_rows("select tableoid::regclass || ' ' || count(*) from paint group by tableoid order by 1");
    rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
}

#[test]
fn rows_whose_partition_a_collation_decides_are_loaded_through_their_partitioned_table() {
    let shop = Shop::empty();
    shop.database.execute(
        "create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         create collation german (provider = icu, locale = 'de-DE');
         create table word (w text collate blind) partition by hash (w);
         create table word_0 partition of word for values with (modulus 2, remainder 0);
         create table word_1 partition of word for values with (modulus 2, remainder 1);
         create table name (n text collate german) partition by range (n);
         create table name_a partition of name for values from (minvalue) to ('m');
         create table name_m partition of name for values from ('m') to (maxvalue);
         create table plain (n text collate \"C\") partition by range (n);
         create table plain_a partition of plain for values from (minvalue) to ('m');
         insert into word values ('a'), ('A'), ('b'), ('ß'); insert into name values ('Ärger'), ('Zorn');
         insert into plain values ('a')",
    );
    let id = shop.backup();
    let mut loaded = Vec::new();
    shop.edit_contents(&id, |contents| {
        for table in contents["tables"].as_array().unwrap() {
            let partitions = table["partitions"].as_array().map_or(0, Vec::len);
            loaded.push(format!("{} {partitions}", table["name"].as_str().unwrap()));
        }
    });
    loaded.sort();
    assert_eq!(loaded, ["name 2", "plain_a 0", "word 2"]);
    shop.restore_test().expect_code(0);
}

#[test]
fn a_partition_without_rows_in_the_backup_may_receive_those_of_others() {
    let shop = Shop::empty();
    shop.database.execute(
        "create type colour as enum ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h');
         create table paint (id int, colour colour) partition by hash (colour);
         create table paint_0 partition of paint for values with (modulus 2, remainder 0);
         create table paint_1 partition of paint for values with (modulus 2, remainder 1);
         insert into paint select n, (enum_range(null::colour))[1 + n % 8] from generate_series(1, 80) n",
    );
    let ernstfall = shop
        .ernstfall()
        .target_key("exclude_data", "[\"public.paint_1\"]");
    let backup = ernstfall.run(["backup", "shop", "--json"]).expect_code(0).json();
    assert_eq!(not_covered(&backup, "table rows"), ["public.paint_1"]);
    ernstfall.run(["restore-test", "shop"]).expect_code(0);
}

#[test]
fn generated_columns_are_computed_anew_and_a_difference_is_a_finding() {
    let shop = Shop::empty();
    shop.database.execute(
        "create function started(int) returns text immutable language sql
             as $$ select $1 || ' ' || pg_postmaster_start_time()::text $$;
         create table steady (a int, b text, c text generated always as (b || '\t' || a) stored, d int);
         create table shifty (a int, c text generated always as (public.started(a)) stored);
         create table only_generated (c text generated always as ('c' || 1) stored);
         insert into steady (a, b, d) select n, e'tab\\tand \\\\ back\\nslash' || n, n from generate_series(1, 100) n;
         insert into steady (a, b, d) values (null, '', 1), (1, null, null);
         insert into shifty (a) select generate_series(1, 10);
         insert into only_generated default values; insert into only_generated default values",
    );
    let record = passes(&shop);
    assert_eq!(record["verification"]["rows"], 102 + 10 + 2);
    let found = findings(&record);
    let about: Vec<&String> = found
        .iter()
        .filter(|one| one.contains("do not reproduce"))
        .collect();
    assert!(
        about.len() == 1
            && about[0].starts_with("table public.shifty: its generated columns (c text generated)"),
        "{found:#?}"
    );
}

#[test]
fn a_row_that_the_server_cannot_send_fails_the_backup_by_name_until_it_is_left_out() {
    let shop = Shop::empty();
    // As hexadecimal it would be longer than any value can be.
    shop.database.execute(
        "create table huge (id int, value bytea);
         insert into huge select n, '\\x00' from generate_series(1, 7) n;
         insert into huge select 8, string_agg(piece, '')
           from (select decode(repeat('00', 1048576), 'hex') as piece from generate_series(1, 512)) p
         having length(string_agg(piece, '')) > 0;
         insert into huge values (9, '\\x01'); create table small (id int); insert into small values (1)",
    );
    let output = shop.ernstfall().run(["backup", "shop"]).expect_code(1);
    let said = output.stderr;
    assert!(
        said.contains("public.huge") && said.contains("ctid (0,8)") && said.contains("exclude_data"),
        "{said}"
    );
    let ernstfall = shop.ernstfall().target_key("exclude_data", "[\"public.huge\"]");
    ernstfall.run(["backup", "shop"]).expect_code(0);
    ernstfall.run(["restore-test", "shop"]).expect_code(0);
}

#[test]
fn tablespaces_are_mapped_in_scratch_and_demanded_or_given_up_in_a_real_restore() {
    let shop = Shop::empty();
    let session = shop.database.session();
    session.execute("set allow_in_place_tablespaces = on");
    session.execute("create tablespace \"fast disk\" location ''");
    session.execute(
        "create table here (id int primary key using index tablespace \"fast disk\");
         create table there (id int) tablespace \"fast disk\";
         create table split (id int) partition by range (id) tablespace \"fast disk\";
         create table split_1 partition of split for values from (0) to (10);
         create materialized view seen tablespace \"fast disk\" as select * from there;
         insert into here select generate_series(1, 10); insert into there select generate_series(1, 10);
         insert into split select generate_series(1, 9); refresh materialized view seen",
    );
    passes(&shop);
    let running = shop.paused_before_comparison();
    shop.copy().execute("alter table there set tablespace pg_default");
    running.resume();
    let found = mismatches(&running.wait().expect_code(3).json());
    assert!(
        found.iter().any(|one| one
            .starts_with("table public.there: in tablespace fast disk / in tablespace of the database")),
        "{found:#?}"
    );

    let other = Cluster::start();
    let to = other.database("again");
    let url = to.url();
    let output = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &to.socket_url()])
        .expect_code(1);
    let said = output.stderr;
    assert!(
        said.contains("tablespace fast disk") && said.contains("--no-tablespaces"),
        "{said} {url}"
    );
    shop.ernstfall()
        .run(["restore", "shop", "--to", &to.socket_url(), "--no-tablespaces"])
        .expect_code(0);
    assert_eq!(content(&to), content(&shop.database));
}

#[test]
fn what_no_backup_can_hold_is_named() {
    let cluster = Cluster::builder()
        .setting("max_prepared_transactions", "5")
        .start();
    let shop = Shop::on(cluster);
    shop.database.execute(
        "create table parent (id int primary key); create table child (id int references parent);
         alter table child disable trigger all",
    );
    let temporary = shop.database.session();
    temporary.execute("create temporary table basket (id int)");
    let prepared = shop.database.session();
    prepared.execute("begin; insert into parent values (7); prepare transaction 'half done'");
    let record = shop
        .ernstfall()
        .run(["backup", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(not_covered(&record, "prepared transaction"), ["half done"]);
    let temporary = not_covered(&record, "temporary table");
    assert!(
        temporary.len() == 1 && temporary[0].ends_with(".basket"),
        "{temporary:?}"
    );
    assert_eq!(
        not_covered(&record, "disabled triggers of a foreign key"),
        ["child_id_fkey on public.child"]
    );
    assert_eq!(shop.status().json()["not_covered_objects"], record["not_covered"]);
    let restored = shop.restore_test().expect_code(0).json();
    assert_eq!(restored["verification"]["not_covered"], record["not_covered"]);
}

#[test]
fn a_materialised_view_over_a_foreign_table_is_left_empty_and_named() {
    let shop = Shop::empty();
    let (socket, port) = (
        shop.cluster.socket_directory().display().to_string(),
        shop.cluster.port(),
    );
    // Committed first: the foreign server is another session.
    shop.database.execute(
        "create extension postgres_fdw; create table here (id int); insert into here values (1), (2)",
    );
    shop.database.execute(&format!(
        "create server self foreign data wrapper postgres_fdw options (host '{socket}', port '{port}', dbname '{name}');
         create user mapping for current_user server self options (user 'postgres');
         create foreign table there (id int) server self options (table_name 'here');
         create view over as select id from there;
         create materialized view cached as select id from over;
         create materialized view cached_again as select id from cached;
         create materialized view own as select id from here;
         refresh materialized view cached; refresh materialized view cached_again; refresh materialized view own",
        name = shop.database.name(),
    ));
    let record = passes(&shop);
    let named = |kind| {
        let entries = record["verification"]["not_covered"].as_array().unwrap().iter();
        let names = entries
            .filter(|entry| entry["kind"] == kind)
            .map(|entry| entry["name"].as_str().unwrap());
        names.collect::<Vec<_>>()
    };
    assert_eq!(named("foreign table rows"), ["public.there"]);
    assert_eq!(
        named("materialized view rows"),
        ["public.cached", "public.cached_again"]
    );
}

#[test]
fn of_an_extensions_tables_the_rows_that_it_calls_the_users_come_back() {
    let directory = TestDir::new("programs");
    let script = "
        create table setting (name text primary key, value text, own boolean not null default true);
        insert into setting values ('seed', 'of the extension', false);
        select pg_catalog.pg_extension_config_dump('setting', 'where own');
        create table journal (line text); select pg_catalog.pg_extension_config_dump('journal', '');
        create table fixed (line text); insert into fixed values ('of the extension');";
    let programs = installation_with_a_script(&directory, "shop_settings", script);
    std::fs::copy(Programs::newest().path("pg_restore"), programs.path("pg_restore")).unwrap();
    let bin_dir = format!("{:?}", programs.path("").display().to_string());
    let shop = Shop::on(Cluster::builder().programs(programs).start());
    shop.database.execute(
        "create extension shop_settings; insert into setting values ('mine', 'of the user');
         update setting set value = 'changed' where name = 'seed';
         insert into journal values ('a line'); insert into fixed values ('of the user')",
    );
    // The sandbox shows none of that installation's files, which lie beside the test's.
    let open = "[scratch]\nisolation = \"none\"\n";
    let ernstfall = || shop.ernstfall().key("bin_dir", &bin_dir).tables(open);
    let backup = ernstfall()
        .run(["backup", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(not_covered(&backup, "table rows"), ["public.fixed"]);
    let mut running = ernstfall()
        .pause_at("restore-verify")
        .spawn(["restore-test", "shop", "--json"]);
    running.wait_until_paused("restore-verify");
    let rows = |sql: &str| shop.copy().query_one_text(sql);
    assert_eq!(
        rows("select string_agg(name || ' ' || value, ', ' order by name) from setting"),
        "mine of the user, seed of the extension"
    );
    assert_eq!(rows("select string_agg(line, ', ') from journal"), "a line");
    assert_eq!(
        rows("select string_agg(line, ', ') from fixed"),
        "of the extension"
    );
    running.resume();
    let record = running.wait().expect_code(0).json();
    assert_eq!(record["verdict"], "passed");
}
