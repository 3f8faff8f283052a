//! Databases that nobody backs up.

use serde_json::Value;

use crate::shop::Shop;
use crate::support::ernstfall::Ernstfall;

fn about_databases(record: &Value) -> Vec<&str> {
    let findings = record["findings"].as_array().unwrap();
    let about = findings
        .iter()
        .filter(|finding| finding["subject"] == "databases");
    about
        .map(|finding| finding["message"].as_str().unwrap())
        .collect()
}

#[test]
fn a_database_of_the_server_that_no_target_covers_is_a_finding_until_one_does() {
    let shop = Shop::open();
    let (added, later) = (shop.cluster.database("crm"), shop.cluster.database("billing"));
    shop.database.execute("create database pattern is_template true");
    shop.database
        .execute("create database closed allow_connections false");
    let record = shop
        .ernstfall()
        .run(["backup", "shop", "--json"])
        .expect_code(0)
        .json();
    let mut names = [added.name(), later.name()];
    names.sort_unstable();
    let expected = format!(
        "no target covers these databases of the server: {}",
        names.join(", ")
    );
    assert_eq!(about_databases(&record), [expected]);
    assert_eq!(record["uncovered_databases"], 2);

    // A target that has no backup yet covers its database all the same.
    let both = shop.ernstfall().target("crm", &added.url());
    let record = both.run(["backup", "shop", "--json"]).expect_code(0).json();
    let expected = format!("no target covers these databases of the server: {}", later.name());
    assert_eq!(about_databases(&record), [expected]);

    // So does one of another host that shares the repository.
    let elsewhere = Ernstfall::new(&shop.directory).target("billing", &later.socket_url());
    elsewhere.run(["backup", "billing"]).expect_code(0);
    let record = both.run(["backup", "shop", "--json"]).expect_code(0).json();
    assert_eq!(about_databases(&record), Vec::<&str>::new());
}

#[test]
fn the_database_postgres_is_worth_a_word_only_when_there_is_something_in_it() {
    let shop = Shop::open();
    let quiet = shop
        .ernstfall()
        .run(["backup", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(about_databases(&quiet), Vec::<&str>::new());
    shop.cluster
        .maintenance()
        .execute("create table forgotten as select repeat('x', 1000) as x from generate_series(1, 5000)");
    let record = shop
        .ernstfall()
        .run(["backup", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(
        about_databases(&record),
        ["no target covers these databases of the server: postgres"]
    );
}
