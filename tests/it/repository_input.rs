//! What others put into a repository: refused by name, believed in nothing, and never followed out of it.

use std::fs;

use serde_json::Value;

use crate::shop::{Shop, overwrite};
use crate::support::account::Account;

fn put(shop: &Shop, name: &str, text: &str) {
    let path = shop.directory.join("repository").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    let mut owned = path.as_path();
    while owned != shop.directory.path() {
        Account::unprivileged().own(owned);
        owned = owned.parent().unwrap();
    }
}

#[test]
fn a_place_with_somebody_elses_description_is_left_alone() {
    for (text, told) in [
        (r#"{"name": "not ours"}"#, "is no repository of ours"),
        ("", "is no repository of ours"),
        (
            r#"{"format": 7, "id": "x"}"#,
            "has format 7, and this version reads up to 1: update ernstfall",
        ),
    ] {
        let shop = Shop::empty();
        put(&shop, "ernstfall.json", text);
        for command in ["backup", "restore-test", "scrub", "status", "check"] {
            let run = shop.ernstfall().run([command]).expect_code(1);
            let said = run.stdout.clone() + &run.stderr;
            assert!(said.contains(told), "{command}: {said}");
        }
        let left = crate::support::evidence::files(&shop.directory.join("repository"));
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(fs::read_to_string(&left[0]).unwrap(), text);
    }
}

/// A newest backup whose manifest was changed; what is said of it, by all who read it.
fn expect_refused(edit: impl Fn(&mut Value), told: &str) {
    let shop = Shop::open();
    let first = shop.backup();
    let second = shop.backup();
    let mut manifest = shop.manifest(&second);
    edit(&mut manifest);
    overwrite(
        &shop.manifest_file(&second),
        &serde_json::to_vec(&manifest).unwrap(),
    );
    let record = shop.restore_test().expect_code(3).json();
    assert_eq!(record["verdict"], "failed", "{record:#}");
    let status = shop.status().json();
    let target = shop.cluster.database("empty");
    let restore = shop
        .ernstfall()
        .run(["restore", "shop", "--to", &target.socket_url()])
        .expect_code(3);
    let scrub = shop.ernstfall().run(["scrub", "shop"]).expect_code(3);
    for said in [
        record.to_string(),
        status.to_string(),
        restore.stderr,
        scrub.stdout,
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    // The other backup is as good as before.
    assert_eq!(status["newest_backup"]["id"], first.as_str());
    let named = shop.ernstfall().run(["restore-test", "shop", "--backup", &first]);
    named.expect_code(0);
}

#[test]
fn keys_that_lead_out_of_the_target_are_refused_wherever_they_stand() {
    let hostile = |place: fn(&mut Value) -> &mut Value, key: &'static str, told: &str| {
        expect_refused(|manifest| *place(manifest) = key.into(), told);
    };
    hostile(
        |manifest| &mut manifest["data"][0]["key"],
        "../../../etc/passwd",
        "begins with a dot",
    );
    hostile(
        |manifest| &mut manifest["schema"]["key"],
        "/etc/passwd",
        "empty segment",
    );
    hostile(
        |manifest| &mut manifest["roles"]["key"],
        "targets/shop/backups/a\nb",
        "control character",
    );
    hostile(
        |manifest| &mut manifest["contents"]["key"],
        "targets/other/backups/x",
        "not among the target's backups",
    );
}

#[test]
fn a_manifest_of_objects_that_are_not_there_is_a_bad_backup() {
    let shop = Shop::open();
    let id = shop.backup();
    fs::remove_dir_all(shop.target_directory().join("backups").join(&id)).unwrap();
    let record = shop.restore_test().expect_code(3).json();
    assert_eq!(record["verdict"], "failed");
    assert!(
        record["reason"].as_str().unwrap().contains("is missing"),
        "{record:#}"
    );
    let scrub = shop
        .ernstfall()
        .run(["scrub", "shop", "--json"])
        .expect_code(3)
        .json();
    let faults = scrub["backups"][0]["faults"].as_array().unwrap();
    assert!(faults.len() > 4, "each is named: {scrub:#}");
    let status = shop.status().expect_code(3).json();
    assert_eq!(status["recovery_point"], Value::Null);
}

#[test]
fn files_of_others_in_the_repository_are_neither_touched_nor_taken_for_ours() {
    let shop = Shop::open();
    let id = shop.backup();
    for name in [
        "notes.txt",
        "targets/shop/notes.txt",
        "records/notes.txt",
        "targets/shop/backups/notes.txt",
    ] {
        put(&shop, name, "somebody's");
    }
    shop.restore_test().expect_code(0);
    let status = shop.status().expect_code(0).json();
    assert_eq!(status["newest_backup"]["id"], id.as_str());
    put(&shop, "targets/shop/manifests/notes.txt", "somebody's");
    let status = shop.status().expect_code(1).json();
    assert!(
        status["problems"][0]
            .as_str()
            .unwrap()
            .contains("its name is no backup id"),
        "{status:#}"
    );
}
