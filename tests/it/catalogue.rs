//! What a difference between source and copy means: the backup is bad, something worth knowing, or unknown.

use serde_json::Value;

use crate::shop::{Shop, mismatches};

/// Changes the copy inside a restore test just before it is compared; returns exit code and record.
fn changed(shop: &Shop, sql: &str) -> (i32, Value) {
    let running = shop.paused_before_comparison();
    let copy = shop.copy().session();
    copy.execute("set allow_system_table_mods = on");
    copy.execute(sql);
    running.resume();
    let output = running.wait();
    (output.code(), output.json())
}

fn findings(record: &Value) -> Vec<String> {
    let findings = record["verification"]["findings"].as_array().unwrap();
    let text = |finding: &Value| {
        format!(
            "{}: {}",
            finding["subject"].as_str().unwrap(),
            finding["message"].as_str().unwrap()
        )
    };
    findings.iter().map(text).collect()
}

fn assert_each(found: &[String], expected: &[&str]) {
    for expected in expected {
        assert!(
            found.iter().any(|one| one.starts_with(expected)),
            "{expected} is not in {found:#?}"
        );
    }
}

#[test]
fn states_that_a_dump_does_not_show_make_the_backup_bad_one_line_for_each_object() {
    let shop = Shop::open();
    shop.database.execute(
        "create function nothing() returns event_trigger language plpgsql as 'begin end';
         create event trigger watch on ddl_command_end execute function nothing();
         create rule quiet as on delete to audit do nothing;
         create policy own on customers for select to clerk using (true); alter table customers enable row level security;
         alter table customers cluster on customers_pkey;
         create publication changes for table audit;
         create statistics pairs on customer, cents from orders;
         create function twice(int) returns int language sql immutable as 'select $1 * 2'",
    );
    shop.backup();
    let (code, record) = changed(
        &shop,
        "update pg_index set indisvalid = false where indexrelid = 'orders_by_customer'::regclass;
         update pg_constraint set convalidated = false where conname = 'orders_customer_fkey';
         update pg_index set indisclustered = false where indexrelid = 'customers_pkey'::regclass;
         update pg_class set relispopulated = false where relname = 'totals';
         alter event trigger watch disable;
         alter table audit disable rule quiet;
         alter policy own on customers to public;
         alter table customers disable row level security;
         alter table orders replica identity full;
         alter table orders enable replica trigger note_order;
         alter function twice(int) owner to clerk;
         revoke execute on function twice(int) from public;
         grant usage on schema public to clerk with grant option;
         alter publication changes drop table audit;
         drop statistics pairs; create table added (id int)",
    );
    assert_eq!(code, 3);
    assert_each(
        &mismatches(&record),
        &[
            "index public.orders_by_customer: valid; in tablespace of the database / missing",
            "constraint orders_customer_fkey on public.orders: valid / not valid",
            "index public.customers_pkey: clustered / nothing more",
            "materialized view public.totals: populated / not populated",
            "event trigger watch: enabled on ddl_command_end / disabled on ddl_command_end",
            "rule quiet on public.audit: enabled / disabled",
            "policy own on public.customers: to clerk / to PUBLIC",
            "table public.customers: row security / nothing more",
            "table public.orders: nothing more / replica identity full",
            "trigger note_order on public.orders: enabled / enabled in replicas",
            "function public.twice(integer): owner postgres; grants PUBLIC EXECUTE, postgres EXECUTE / owner clerk; grants clerk EXECUTE",
            "schema public: grants ",
            "publication of table changes: public.audit: published / missing",
            "statistics public.pairs: ",
            "table public.added: no such object / owner postgres; grants ",
        ],
    );
}

#[test]
fn versions_of_extensions_and_collations_are_worth_knowing_and_no_more() {
    let shop = Shop::open();
    shop.database.execute("create extension hstore");
    shop.backup();
    let (code, record) = changed(
        &shop,
        "update pg_extension set extversion = '0.1' where extname = 'hstore';
         update pg_database set datcollversion = '1.0' where datname = current_database()",
    );
    assert_eq!((code, &record["verdict"]), (0, &"passed".into()), "{record:#}");
    assert_each(
        &findings(&record),
        &[
            "extension hstore: version 1.8 in the source, 0.1 in the copy",
            "collation version: ",
        ],
    );
}

#[test]
fn in_another_major_version_rows_count_and_everything_else_is_unknown() {
    let shop = Shop::open();
    let id = shop.backup();
    // As a backup of the version before: nothing else of it is different.
    shop.edit_contents(&id, |contents| {
        let version = contents["database"]["server_version_num"].as_i64().unwrap();
        contents["database"]["server_version_num"] = (version - 10_000).into();
    });
    let (code, record) = changed(&shop, "alter table audit owner to clerk; drop view open_orders");
    assert_eq!((code, &record["verdict"]), (0, &"passed".into()), "{record:#}");
    assert_each(
        &findings(&record),
        &[
            "table public.audit: unknown whether it is the same",
            "view public.open_orders: unknown whether it is the same",
        ],
    );
    let (code, record) = changed(
        &shop,
        "update customers set name = 'other' where id = 1; select setval('invoice_numbers', 1);
         select lo_put(4712, 0, 'O')",
    );
    assert_eq!(code, 3);
    assert_each(
        &mismatches(&record),
        &[
            "table public.customers: ",
            "sequence public.invoice_numbers: ",
            "large objects all: ",
        ],
    );
}

#[test]
fn a_lost_owner_of_a_large_object_and_a_lost_extension_make_the_backup_bad() {
    let shop = Shop::open();
    shop.database.execute("create extension hstore");
    shop.backup();
    let (code, record) = changed(
        &shop,
        "alter large object 4711 owner to clerk; drop extension hstore",
    );
    assert_eq!(code, 3);
    assert_each(
        &mismatches(&record),
        &["large objects all: ", "extension hstore: 1.8 / not installed"],
    );
}
