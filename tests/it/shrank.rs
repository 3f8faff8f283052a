//! Content that shrank since the last backup: found, told, kept safe until somebody says that it was meant.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::shop::{Shop, overwrite};
use crate::support::ernstfall::Ernstfall;

/// The findings of a backup taken now, about content that shrank: severity and message.
fn findings(ernstfall: &Ernstfall) -> (String, Vec<(String, String)>) {
    let record = ernstfall.run(["backup", "shop", "--json"]).expect_code(0).json();
    let findings = record["findings"].as_array().unwrap().iter();
    let about_content = findings.filter(|finding| finding["subject"] == "content shrank");
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let told = about_content.map(|finding| (text(finding, "severity"), text(finding, "message")));
    (record["backup"].as_str().unwrap().to_owned(), told.collect())
}

fn elsewhere(shop: &Shop) -> Ernstfall {
    let state = shop.directory.join("state-of-another-machine");
    shop.ernstfall()
        .key("state_dir", &format!("{:?}", state.display().to_string()))
}

fn note(shop: &Shop) -> std::path::PathBuf {
    shop.directory.join("state/contents/shop.json")
}

fn problems(shop: &Shop) -> Vec<String> {
    let status = shop.status().json();
    let problems = status["problems"].as_array().unwrap().iter();
    problems
        .map(|problem| problem.as_str().unwrap().to_owned())
        .filter(|problem| problem.contains("is gone since"))
        .collect()
}

#[test]
fn a_loss_is_told_by_name_and_stays_a_problem() {
    let shop = Shop::open();
    let (before, none) = findings(&shop.ernstfall());
    assert_eq!(none, []);
    shop.database
        .execute("drop table audit cascade; delete from orders where id > 200");
    let (loss, found) = findings(&shop.ernstfall());
    let [(severity, message)] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(severity, "warning");
    for part in [
        &format!("since backup {before}"),
        "table public.audit is gone (it had 500 rows)",
        "table public.orders has 200 rows left of 500",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let manifest = shop.manifest(&loss);
    assert_eq!(
        manifest["shrank"],
        json!({"since": before, "tables_gone": 1, "tables_halved": 1})
    );
    assert!(
        !manifest.to_string().contains("audit"),
        "the manifest names nothing"
    );
    crate::json::assert_fits(&crate::json::schema("manifest.schema.json"), &manifest);
    let told = problems(&shop);
    let [problem] = told.as_slice() else {
        panic!("{told:?}")
    };
    for part in [
        "public.orders has 200 rows left",
        &format!("ernstfall acknowledge shop {loss}"),
    ] {
        assert!(problem.contains(part), "{problem}");
    }
    // The next backup lost nothing more, and the problem stays.
    assert_eq!(findings(&shop.ernstfall()).1, []);
    assert_eq!(problems(&shop), told);
}

#[test]
fn the_backup_before_a_loss_is_kept_until_somebody_on_any_machine_says_that_it_was_meant() {
    let shop = Shop::open();
    let (before, _) = findings(&shop.ernstfall());
    shop.database.execute("delete from orders where id > 200");
    let (loss, _) = findings(&shop.ernstfall());
    let (newest, _) = findings(&shop.ernstfall());
    let keep_one = shop.ernstfall().target_key("retention", "{ last = 1 }");
    let pruned = keep_one.run(["prune", "shop", "--json"]).expect_code(0).json();
    assert_eq!(pruned, Value::Null);

    let refused = shop
        .ernstfall()
        .run(["acknowledge", "shop", &before])
        .expect_code(2);
    assert!(refused.stderr.contains(&loss), "{}", refused.stderr);
    let reason = ["--reason", "moved to the archive"];
    let said = elsewhere(&shop)
        .run(["acknowledge", "shop", &loss, reason[0], reason[1], "--json"])
        .expect_code(0)
        .json();
    assert_eq!(
        (&said["backup"], &said["reason"]),
        (&loss.as_str().into(), &reason[1].into())
    );
    assert!(said["by"].as_str().unwrap().contains('@'), "{said}");
    let again = shop
        .ernstfall()
        .run(["acknowledge", "shop", &loss])
        .expect_code(0);
    assert!(
        again.stdout.contains("was acknowledged before"),
        "{}",
        again.stdout
    );
    assert_eq!(problems(&shop), [""; 0]);
    let pruned = keep_one.run(["prune", "shop", "--json"]).expect_code(0).json();
    assert_eq!(pruned["removed"].as_array().unwrap().len(), 2);
    assert!(!shop.manifest_file(&before).exists());
    let none_left = shop
        .ernstfall()
        .run(["acknowledge", "shop", &newest])
        .expect_code(2);
    assert!(
        none_left.stderr.contains("there is no backup"),
        "{}",
        none_left.stderr
    );
}

#[test]
fn losses_one_after_the_other_each_keep_their_own_backup() {
    let shop = Shop::open();
    let (first, _) = findings(&shop.ernstfall());
    shop.database.execute("delete from orders where id > 200");
    let (second, _) = findings(&shop.ernstfall());
    shop.database.execute("delete from orders where id > 50");
    let (third, found) = findings(&shop.ernstfall());
    assert!(found[0].1.contains("50 rows left of 200"), "{found:?}");
    assert_eq!(problems(&shop).len(), 2);
    shop.ernstfall()
        .run(["acknowledge", "shop", &second])
        .expect_code(0);
    assert_eq!(problems(&shop).len(), 1);
    shop.ernstfall()
        .target_key("retention", "{ last = 1 }")
        .run(["prune"])
        .expect_code(0);
    assert!(!shop.manifest_file(&first).exists());
    assert!(shop.manifest_file(&second).exists() && shop.manifest_file(&third).exists());
}

#[test]
fn a_partition_that_goes_and_tables_that_are_left_out_or_may_shrink_are_no_loss() {
    let shop = Shop::open();
    shop.database.execute(
        "create table events (day int, what text) partition by range (day);
         create table events_1 partition of events for values from (1) to (2);
         create table events_2 partition of events for values from (2) to (3);
         create table events_3 partition of events for values from (3) to (4);
         insert into events select 1 + n % 3, 'x' from generate_series(1, 300) n;
         create table hashed (id int, what text) partition by hash (what);
         create table hashed_0 partition of hashed for values with (modulus 2, remainder 0);
         create table hashed_1 partition of hashed for values with (modulus 2, remainder 1);
         insert into hashed select n, 'x' || n from generate_series(1, 300) n;
         create table jobs as select generate_series(1, 100);
         create table log as select generate_series(1, 100);",
    );
    findings(&shop.ernstfall());
    shop.database
        .execute("drop table events_1; delete from jobs; delete from hashed where id > 200");
    let (_, found) = findings(
        &shop
            .ernstfall()
            .target_key("may_shrink", "[\"public.job*\"]")
            .target_key("exclude_data", "[\"public.log\"]")
            .target_key("exclude", "[\"public.nothing_in_it\", \"public.audit\"]"),
    );
    assert_eq!(found, []);
    shop.database.execute("drop table events_2");
    let (id, found) = findings(&shop.ernstfall());
    assert!(found.is_empty(), "half of it is left: {found:?}");
    shop.database.execute("delete from events");
    let (_, found) = findings(&shop.ernstfall());
    assert!(
        found[0].1.ends_with(&format!(
            "since backup {id}: table public.events has 0 rows left of 100"
        )),
        "{found:?}"
    );
}

#[test]
fn another_machine_reads_the_earlier_numbers_from_the_backup_and_unknown_is_no_alarm() {
    let shop = Shop::open();
    let (first, _) = findings(&shop.ernstfall());
    let mode = fs::metadata(note(&shop)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    shop.database.execute("delete from orders where id > 200");
    let (second, found) = findings(&elsewhere(&shop));
    assert!(found[0].1.contains("200 rows left of 500"), "{found:?}");
    shop.ernstfall()
        .run(["acknowledge", "shop", &second])
        .expect_code(0);

    // The second one's contents cannot be read: then the note that is here, of the first, has to do.
    let contents = shop.object_file(&shop.manifest(&second)["contents"]);
    overwrite(&contents, b"damaged");
    shop.database.execute("delete from orders where id > 20");
    let (third, found) = findings(&shop.ernstfall());
    assert!(found[0].1.contains("20 rows left of 500"), "{found:?}");
    assert_eq!(shop.manifest(&third)["shrank"]["since"], first.as_str());
    shop.ernstfall()
        .run(["acknowledge", "shop", &third])
        .expect_code(0);

    // A machine without a note, and nothing that it could read.
    overwrite(&shop.object_file(&shop.manifest(&third)["contents"]), b"damaged");
    shop.database.execute("delete from orders where id > 10");
    let state = shop.directory.join("without-a-note").display().to_string();
    let new_machine = shop.ernstfall().key("state_dir", &format!("{state:?}"));
    let (fourth, found) = findings(&new_machine);
    let [(severity, message)] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(severity, "info");
    assert!(message.starts_with("unknown whether content shrank"), "{message}");
    assert!(message.contains(&third), "{message}");
    assert_eq!(shop.manifest(&fourth)["shrank"], Value::Null);
    assert_eq!(problems(&shop), [""; 0]);

    // With a note of the newest backup, nothing need be read.
    overwrite(&shop.object_file(&shop.manifest(&fourth)["contents"]), b"damaged");
    shop.database.execute("delete from orders where id > 2");
    let (_, found) = findings(&new_machine);
    assert!(found[0].1.contains("2 rows left of 10"), "{found:?}");
}
