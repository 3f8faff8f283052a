//! Every encoding and every kind of locale that a database can have.

use crate::shop::{Shop, mismatches};
use crate::support::database::Database;
use crate::support::ernstfall::Ernstfall;

/// Encodings of a server, each with letters that it has and ASCII lacks. SQL_ASCII and MULE_INTERNAL have tests of their own.
const ENCODINGS: &[(&str, &str)] = &[
    ("UTF8", "äß€日本😀"),
    ("EUC_CN", "中文数据"),
    ("EUC_JIS_2004", "日本語表"),
    ("EUC_JP", "日本語表"),
    ("EUC_KR", "한국어"),
    ("EUC_TW", "中文資料"),
    ("ISO_8859_5", "Привет"),
    ("ISO_8859_6", "عربي"),
    ("ISO_8859_7", "Ελλάδα"),
    ("ISO_8859_8", "שלום"),
    ("KOI8R", "Привет"),
    ("KOI8U", "Їжак"),
    ("LATIN1", "äßçø"),
    ("LATIN2", "łőčž"),
    ("LATIN3", "ħĝŭ"),
    ("LATIN4", "āęķ"),
    ("LATIN5", "ğışİ"),
    ("LATIN6", "ŋđŧ"),
    ("LATIN7", "āčęė"),
    ("LATIN8", "ŵŷḃ"),
    ("LATIN9", "€šžœ"),
    ("LATIN10", "ăâșț"),
    ("WIN866", "Привет"),
    ("WIN874", "ไทย"),
    ("WIN1250", "łőčž"),
    ("WIN1251", "Привет"),
    ("WIN1252", "€äß"),
    ("WIN1253", "Ελλάδα"),
    ("WIN1254", "ğışİ"),
    ("WIN1255", "שלום"),
    ("WIN1256", "عربي"),
    ("WIN1257", "āčęė"),
    ("WIN1258", "ăđơư"),
];

/// Tables, columns, sequences and rows in those letters. `%` stands for them.
const SQL: &str = "
    create schema \"% schema\";
    create table \"% schema\".\"%\" (id int primary key, \"%\" text constraint \"% is short\" check (length(\"%\") < 99), note text);
    insert into \"% schema\".\"%\" values (1, '%', 'plain'), (2, E'%\\t%\\n\\\\%', null), (3, '', '%');
    create index \"% index\" on \"% schema\".\"%\" (upper(\"%\"));
    create sequence \"% schema\".\"% sequence\" start 7;
    create type \"% schema\".\"% enum\" as enum ('%', 'b');
    create view \"% schema\".\"% view\" as select \"%\" as \"as %\" from \"% schema\".\"%\" where note <> '%';
    create function \"% schema\".\"% function\"(\"%\" text default '%') returns text language sql as 'select ''%''';
    comment on table \"% schema\".\"%\" is '%';
    select lo_from_bytea(0, '%'::text::bytea);
";

/// Bytes above ASCII, which the server takes without a question.
const BYTES: &str = "
    create table plain (id int primary key, content text);
    insert into plain values (1, convert_from('\\xe4fc', getdatabaseencoding())), (2, 'ascii');
";

fn make(shop: &Shop, options: &str) -> Database {
    let database = shop.cluster.database("encoded");
    let maintenance = shop.cluster.maintenance();
    maintenance.execute(&format!("drop database {}", database.name()));
    maintenance.execute(&format!(
        "create database {} template template0 {options}",
        database.name()
    ));
    database
}

/// Each target has one backup, and its restore test passes.
#[track_caller]
fn all_pass(ernstfall: &Ernstfall, targets: usize) {
    ernstfall.run(["backup"]).expect_code(0);
    let output = ernstfall.run(["restore-test", "--json"]);
    let records = output.json();
    let records = records.as_array().unwrap();
    assert_eq!(records.len(), targets);
    for record in records {
        assert_eq!(record["verdict"], "passed", "{record:#}");
        assert!(mismatches(record).is_empty());
        assert!(record["verification"]["rows"].as_u64().unwrap() > 1, "{record:#}");
    }
    output.expect_code(0);
}

#[test]
fn databases_of_every_encoding_are_backed_up_and_come_back() {
    let shop = Shop::empty();
    let limit = std::time::Duration::from_secs(600);
    let mut ernstfall = Ernstfall::new(&shop.directory).deadline(limit);
    for (encoding, letters) in ENCODINGS {
        let database = make(&shop, &format!("encoding '{encoding}' locale 'C'"));
        database.execute(&SQL.replace('%', letters));
        ernstfall = ernstfall.target(&encoding.to_lowercase().replace('_', "-"), &database.url());
    }
    let bytes = make(&shop, "encoding 'SQL_ASCII' locale 'C'");
    bytes.execute(BYTES);
    ernstfall = ernstfall.target("sql-ascii", &bytes.url());
    all_pass(&ernstfall, ENCODINGS.len() + 1);
}

/// Nothing converts between it and the encoding in which clients speak: it must not look backed up.
#[test]
fn a_database_in_mule_internal_is_refused_with_the_reason() {
    let shop = Shop::empty();
    let database = make(&shop, "encoding 'MULE_INTERNAL' locale 'C'");
    let ernstfall = Ernstfall::new(&shop.directory).target("mule", &database.url());
    let output = ernstfall.run(["backup"]).expect_code(1);
    assert!(output.stderr.contains("MULE_INTERNAL"), "{}", output.stderr);
    assert!(
        !ernstfall
            .repository_directory()
            .join("targets/mule/manifests")
            .exists()
    );
}

#[test]
fn locales_of_libc_and_icu_are_those_of_the_source_in_the_copy() {
    let shop = Shop::empty();
    let kinds = [
        ("libc", "encoding 'UTF8' locale 'de_DE.utf8'"),
        ("mixed", "encoding 'UTF8' lc_collate 'tr_TR.utf8' lc_ctype 'C'"),
        ("latin", "encoding 'LATIN9' locale 'de_DE@euro'"),
        (
            "icu",
            "encoding 'UTF8' locale 'C.UTF-8' locale_provider icu icu_locale 'de-AT-u-co-phonebk'",
        ),
    ];
    let mut ernstfall = Ernstfall::new(&shop.directory);
    let mut orders = std::collections::BTreeSet::new();
    const LOCALE: &str = "select concat_ws(' ', datlocprovider, datcollate, datctype, daticulocale, pg_encoding_to_char(encoding))
                            from pg_database where datname = current_database()";
    const ORDER: &str = "select string_agg(name, ' ' order by name) from sorted";
    for (name, options) in kinds {
        let database = make(&shop, options);
        database.execute(
            "create table sorted (name text primary key, number int); create unique index on sorted (lower(name));
             insert into sorted values ('Ärger', 1), ('Az', 2), ('Affe', 3), ('Zebra', 4), ('zoo', 5), ('i', 6), ('Ist', 7);
             create table parts (name text) partition by range (name);
             create table parts_a partition of parts for values from (minvalue) to ('Ö');
             create table parts_o partition of parts for values from ('Ö') to (maxvalue);
             insert into parts select name from sorted",
        );
        // What the copy says of itself must be what the source says.
        let checks = [("locale", LOCALE), ("order", ORDER)].map(|(check, sql)| {
            let expect = database.query_one_text(sql);
            format!("{{ name = {check:?}, sql = {sql:?}, expect = {expect:?} }}")
        });
        orders.insert(database.query_one_text(ORDER));
        ernstfall = ernstfall
            .target(name, &database.url())
            .target_key("check", &format!("[{}]", checks.join(", ")));
    }
    assert!(orders.len() > 2, "the locales sort differently: {orders:?}");
    all_pass(&ernstfall, kinds.len());
}
