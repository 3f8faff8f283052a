//! The records of runs: kept while the repository is out of reach, delivered later, the same on every machine.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::shop::{Shop, overwrite};
use crate::support::account::Account;
use crate::support::ernstfall::Ernstfall;

/// The same configuration on another machine: a state directory that knows nothing yet.
fn another_machine(shop: &Shop, name: &str) -> Ernstfall {
    let state = shop.directory.join(name).display().to_string();
    shop.ernstfall().key("state_dir", &format!("{state:?}"))
}

/// A file stands where the repository was: it cannot be reached, and none can be made in its place.
fn out_of_reach(shop: &Shop) -> PathBuf {
    let (repository, away) = (shop.directory.join("repository"), shop.directory.join("away"));
    fs::rename(&repository, &away).unwrap();
    fs::write(&repository, "a file").unwrap();
    away
}

fn back_in_reach(shop: &Shop, away: PathBuf) {
    let repository = shop.directory.join("repository");
    fs::remove_file(&repository).unwrap();
    fs::rename(away, repository).unwrap();
}

fn outcomes(records: &Value) -> Vec<(&str, &str)> {
    records
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let record = &entry["record"];
            let result = record["outcome"].as_str().or(record["verdict"].as_str());
            (record["kind"].as_str().unwrap(), result.unwrap())
        })
        .collect()
}

#[test]
fn runs_without_their_repository_are_recorded_here_and_delivered_later() {
    let shop = Shop::open();
    shop.backup();
    let away = out_of_reach(&shop);
    let failed = shop
        .ernstfall()
        .run(["backup", "shop", "--json"])
        .expect_code(1)
        .json();
    assert_eq!(
        (&failed["outcome"], &failed["backup"]),
        (&"failed".into(), &Value::Null)
    );
    let not_run = shop.restore_test().expect_code(1).json();
    assert_eq!(not_run["verdict"], "could-not-run");
    let scrubbed = shop
        .ernstfall()
        .run(["scrub", "shop", "--json"])
        .expect_code(1)
        .json();
    assert_eq!(scrubbed["verdict"], "could-not-run");
    for record in [&failed, &not_run, &scrubbed] {
        let reason = record["reason"].as_str().unwrap();
        assert!(reason.contains("repository"), "{reason}");
    }
    back_in_reach(&shop, away);
    shop.backup();
    let elsewhere = another_machine(&shop, "elsewhere");
    let records = elsewhere.run(["list", "records", "--json"]).expect_code(0).json();
    assert_eq!(
        outcomes(&records),
        [
            ("backup", "succeeded"),
            ("backup", "failed"),
            ("restore_test", "could-not-run"),
            ("scrub", "could-not-run"),
            ("backup", "succeeded")
        ]
    );
}

#[test]
fn a_backup_whose_address_cannot_be_had_is_recorded() {
    let shop = Shop::open();
    shop.backup();
    let nameless = shop
        .ernstfall()
        .target_key("url", "{ env = \"NOT_SET_ANYWHERE\" }");
    let record = nameless.run(["backup", "shop", "--json"]).expect_code(1).json();
    assert_eq!(record["outcome"], "failed");
    assert!(record["reason"].as_str().unwrap().contains("NOT_SET_ANYWHERE"));
    let status = shop.status().expect_code(1).json();
    assert_eq!(status["counts"]["backup_runs_failed"], 1);
}

/// What changes while the clock goes on.
fn without_ages(mut status: Value) -> Value {
    status["exposure_seconds"] = Value::Null;
    status["rpo"]["actual_seconds"] = Value::Null;
    status
}

#[test]
fn a_new_machine_with_the_same_configuration_shows_the_same_status() {
    let shop = Shop::open();
    shop.database.execute("create unlogged table scratchpad (id int)");
    shop.backup();
    shop.restore_test().expect_code(0);
    let damaged = shop.backup();
    let file = shop.object_file(&shop.manifest(&damaged)["data"][0]);
    overwrite(&file, b"damaged");
    shop.restore_test().expect_code(3);
    let here = without_ages(shop.status().expect_code(3).json());
    let elsewhere = another_machine(&shop, "elsewhere");
    for look in ["the first", "from its copies"] {
        let there = elsewhere.run(["status", "shop", "--json"]).expect_code(3).json();
        assert_eq!(without_ages(there), here, "{look}");
    }
    assert_eq!(here["counts"]["restore_tests_failed"], 1);
    let listed = |ernstfall: &Ernstfall| ernstfall.run(["list", "records", "--json"]).expect_code(0).json();
    assert_eq!(listed(&elsewhere), listed(&shop.ernstfall()));
}

fn record_file(shop: &Shop, nth: usize) -> PathBuf {
    let chains = fs::read_dir(shop.directory.join("repository/records")).unwrap();
    let chain = chains.map(|entry| entry.unwrap().path()).next().unwrap();
    chain.join(format!("{nth:08}.json"))
}

fn problems(status: &Value) -> Vec<String> {
    let problems = status["problems"].as_array().unwrap().iter();
    problems
        .map(|problem| problem.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_record_that_was_changed_or_removed_in_the_repository_is_a_problem() {
    let shop = Shop::open();
    shop.backup();
    shop.restore_test().expect_code(0);
    shop.backup();
    shop.status().expect_code(0);
    let elsewhere = another_machine(&shop, "elsewhere");
    elsewhere.run(["status"]).expect_code(0);

    let file = record_file(&shop, 2);
    let whole = fs::read(&file).unwrap();
    let forged = String::from_utf8(whole.clone())
        .unwrap()
        .replace("\"verdict\": \"passed\"", "\"verdict\": \"failed\"");
    assert_ne!(forged.as_bytes(), whole);
    overwrite(&file, forged.as_bytes());
    let status = elsewhere.run(["status", "shop", "--json"]).expect_code(1).json();
    let told = "the record before it is not the one that it was written after";
    assert!(
        problems(&status).iter().any(|problem| problem.contains(told)),
        "{status:#}"
    );

    fs::remove_file(&file).unwrap();
    let status = elsewhere.run(["status", "shop", "--json"]).expect_code(1).json();
    assert!(
        problems(&status)
            .iter()
            .any(|problem| problem.contains("records 2 to 2 before it are missing")),
        "{status:#}"
    );
    // The machine that wrote it has it still, and knows that it was delivered.
    let status = shop.status().expect_code(1).json();
    assert!(
        problems(&status)
            .iter()
            .any(|problem| problem.contains("it was delivered to the repository and is there no longer")),
        "{status:#}"
    );
    fs::write(&file, &whole).unwrap();
    Account::unprivileged().own(&file);
    shop.status().expect_code(0);
    elsewhere.run(["status"]).expect_code(0);
}

#[test]
fn a_state_directory_that_was_copied_is_a_problem_and_hides_no_verdict() {
    let shop = Shop::open();
    let id = shop.backup();
    let copy = shop.directory.join("copied");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&shop.directory.join("state"), &copy])
        .status();
    assert!(copied.unwrap().success());
    Account::unprivileged().own(&copy);
    overwrite(&shop.object_file(&shop.manifest(&id)["data"][0]), b"damaged");
    shop.restore_test().expect_code(3);
    // The copy has a record of its own under the number that the repository gave to another one.
    let twin = another_machine(&shop, "copied");
    let run = twin.run(["backup", "shop"]).expect_code(0);
    assert!(run.stderr.contains("was copied or set back"), "{}", run.stderr);
    let status = twin.run(["status", "shop", "--json"]).expect_code(1).json();
    assert!(
        problems(&status)
            .iter()
            .any(|problem| problem.contains("other records of this chain")),
        "{status:#}"
    );
    assert_eq!(status["counts"]["restore_tests_failed"], 1, "{status:#}");
    assert_eq!(status["counts"]["backup_runs_succeeded"], 2, "{status:#}");
}

#[test]
fn an_empty_place_where_a_repository_was_is_no_place_for_a_new_one() {
    let shop = Shop::open();
    shop.backup();
    let (repository, away) = (shop.directory.join("repository"), shop.directory.join("away"));
    fs::rename(&repository, &away).unwrap();
    let refused = shop.ernstfall().run(["backup", "shop"]).expect_code(1);
    assert!(
        refused.stderr.contains("is there no longer: mount its disk"),
        "{}",
        refused.stderr
    );
    let check = shop.ernstfall().run(["check"]).expect_code(1);
    assert!(check.stdout.contains("is there no longer"), "{}", check.stdout);
    let _ = fs::remove_dir_all(&repository);
    fs::rename(&away, &repository).unwrap();
    shop.backup();
    // As it is advised, where that is meant.
    fs::rename(&repository, &away).unwrap();
    fs::remove_dir_all(shop.directory.join("state/repositories")).unwrap();
    shop.backup();
}
