//! `scrub`: every stored object is read back, without the source and without a restore.

use std::fs;

use serde_json::Value;

use crate::shop::{Shop, overwrite};
use crate::support::ernstfall::Output;

/// Nothing of the source can be had.
fn scrub(shop: &Shop) -> Output {
    shop.ernstfall()
        .target_key("url", "{ env = \"NOT_SET_ANYWHERE\" }")
        .run(["scrub", "shop", "--json"])
}

#[test]
fn whole_backups_pass_and_prove_no_restore() {
    let shop = Shop::open();
    let ids = [shop.backup(), shop.backup()];
    let record = scrub(&shop).expect_code(0).json();
    assert_eq!(
        (&record["verdict"], &record["reason"]),
        (&"passed".into(), &Value::Null)
    );
    for (scrubbed, id) in record["backups"].as_array().unwrap().iter().zip(&ids) {
        let manifest = shop.manifest(id);
        assert_eq!(
            (&scrubbed["backup"], &scrubbed["verdict"]),
            (&id.as_str().into(), &"passed".into())
        );
        assert_eq!(scrubbed["bytes"], manifest["totals"]["stored_bytes"]);
    }
    let only = shop
        .ernstfall()
        .run(["scrub", "shop", "--backup", &ids[0], "--json"])
        .expect_code(0)
        .json();
    assert_eq!(only["backups"].as_array().unwrap().len(), 1);
    let status = shop.status().expect_code(1).json();
    assert_eq!(status["problems"], serde_json::json!(["never restore-tested"]));
    assert_eq!(status["proven_backup"], Value::Null);
}

#[test]
fn a_backup_that_is_found_bad_is_no_recovery_point_until_it_is_whole_again() {
    let shop = Shop::open();
    let (first, second) = (shop.backup(), shop.backup());
    shop.restore_test().expect_code(0);
    let object = shop.manifest(&second)["data"][0].clone();
    let file = shop.object_file(&object);
    let whole = fs::read(&file).unwrap();
    for damage in [Some(b"damaged".as_slice()), None] {
        match damage {
            Some(bytes) => overwrite(&file, bytes),
            None => fs::remove_file(&file).unwrap(),
        }
        let record = scrub(&shop).expect_code(3).json();
        assert_eq!(record["verdict"], "failed");
        assert_eq!(record["backups"][0]["verdict"], "passed");
        let faults = record["backups"][1]["faults"].as_array().unwrap();
        assert_eq!(faults.len(), 1, "{record:#}");
        assert!(
            faults[0]
                .as_str()
                .unwrap()
                .contains(object["key"].as_str().unwrap())
        );
        let status = shop.status().expect_code(3).json();
        let point = &shop.manifest(&first)["recovery_point"];
        assert_eq!(&status["recovery_point"], point, "{status:#}");
        let problem = status["problems"][0].as_str().unwrap();
        assert!(
            problem.contains("was found bad by scrub") && problem.contains(&first),
            "{problem}"
        );
    }
    fs::write(&file, &whole).unwrap();
    crate::support::account::Account::unprivileged().own(&file);
    scrub(&shop).expect_code(0);
    let status = shop.status().expect_code(0).json();
    assert_eq!(status["recovery_point"], shop.manifest(&second)["recovery_point"]);
    assert_eq!(status["proven_backup"], second.as_str());
}

#[test]
fn a_damaged_manifest_is_a_bad_backup_and_one_of_a_newer_version_is_not() {
    let shop = Shop::open();
    let id = shop.backup();
    let whole = fs::read(shop.manifest_file(&id)).unwrap();
    overwrite(&shop.manifest_file(&id), &whole[..whole.len() / 2]);
    let record = scrub(&shop).expect_code(3).json();
    assert_eq!(record["backups"][0]["backup"], id.as_str());
    overwrite(&shop.manifest_file(&id), br#"{"format": 7, "anything": "else"}"#);
    let record = scrub(&shop).expect_code(1).json();
    let reason = record["reason"].as_str().unwrap();
    assert!(
        reason.contains("format 7") && reason.contains("update ernstfall"),
        "{reason}"
    );
    let record = shop.restore_test().expect_code(1).json();
    assert_eq!(record["verdict"], "could-not-run", "{record:#}");
    assert!(
        record["reason"].as_str().unwrap().contains("format 7"),
        "{record:#}"
    );
}

#[test]
fn nothing_to_read_back_is_not_passed() {
    let shop = Shop::open();
    shop.backup();
    let other = shop.ernstfall().target("other", &shop.database.url());
    let record = other.run(["scrub", "other", "--json"]).expect_code(1).json();
    assert_eq!(record["verdict"], "could-not-run");
    let unknown = shop
        .ernstfall()
        .run(["scrub", "shop", "--backup", "20200101T000000Z-0000"])
        .expect_code(1);
    assert!(unknown.stdout.contains("list backups"), "{}", unknown.stdout);
}
