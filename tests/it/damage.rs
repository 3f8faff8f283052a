//! Stored backups that were damaged: found by a restore test, named, and no recovery point any more.

use std::fs;

use serde_json::Value;

use crate::shop::{Shop, overwrite};

/// What happens to a stored object.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Deleted,
    CutAtSixtyPercent,
    OneByteFlipped,
    AnothersBytes,
}

const DAMAGES: [Damage; 4] = [
    Damage::Deleted,
    Damage::CutAtSixtyPercent,
    Damage::OneByteFlipped,
    Damage::AnothersBytes,
];

fn damage(file: &std::path::Path, damage: Damage, other: &[u8]) {
    let mut bytes = fs::read(file).unwrap();
    match damage {
        Damage::Deleted => return fs::remove_file(file).unwrap(),
        Damage::CutAtSixtyPercent => bytes.truncate(bytes.len() * 6 / 10),
        Damage::OneByteFlipped => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        Damage::AnothersBytes => bytes = other.to_vec(),
    }
    overwrite(file, &bytes);
}

/// Makes every object of the next backup another one than before.
const CHANGE: &str = "
    create role newcomer;
    grant select on orders to newcomer;
    update customers set note = 'changed';
    update orders set placed = placed + interval '1 hour';
    update audit set entry = entry || ', changed';
    select nextval('invoice_numbers');
    select lo_put(4711, 0, 'LARGE')";

/// Damages one object in each way; the restore test says that the backup is bad, and which object.
fn is_found(select: impl Fn(&Value) -> &Value) {
    let shop = Shop::open();
    let before = shop.manifest(&shop.backup());
    shop.database.execute(CHANGE);
    let id = shop.backup();
    let manifest = shop.manifest(&id);
    let object = select(&manifest);
    let file = shop.object_file(object);
    let whole = fs::read(&file).unwrap();
    // As valid in itself as its own.
    let other = fs::read(shop.object_file(select(&before))).unwrap();
    assert_ne!(whole, other);
    for kind in DAMAGES {
        damage(&file, kind, &other);
        let record = shop.restore_test().expect_code(3).json();
        assert_eq!(record["verdict"], "failed", "{kind:?}: {record:#}");
        let reason = record["reason"].as_str().unwrap();
        assert!(
            reason.contains(object["key"].as_str().unwrap()),
            "{kind:?}: {reason}"
        );
        assert_eq!(record["backup"], id.as_str());
        assert!(shop.scratches().is_empty());
        if file.exists() {
            overwrite(&file, &whole);
        } else {
            fs::write(&file, &whole).unwrap();
            crate::support::account::Account::unprivileged().own(&file);
        }
    }
    shop.restore_test().expect_code(0);
}

#[test]
fn a_damaged_data_object_is_found() {
    is_found(|manifest| &manifest["data"][0]);
}

#[test]
fn a_damaged_object_of_large_objects_is_found() {
    is_found(|manifest| &manifest["large_objects"][0]);
}

#[test]
fn a_damaged_description_of_the_contents_is_found() {
    is_found(|manifest| &manifest["contents"]);
}

#[test]
fn a_damaged_schema_is_found() {
    is_found(|manifest| &manifest["schema"]);
}

#[test]
fn damaged_roles_are_found() {
    is_found(|manifest| &manifest["roles"]);
}

#[test]
fn damaged_sequences_are_found() {
    is_found(|manifest| &manifest["sequences"]);
}

#[test]
fn a_backup_whose_manifest_is_gone_does_not_exist() {
    let shop = Shop::open();
    let (first, second) = (shop.backup(), shop.backup());
    fs::remove_file(shop.manifest_file(&second)).unwrap();
    let record = shop.restore_test().expect_code(0).json();
    assert_eq!(record["backup"], first.as_str());
    let status = shop.status().json();
    assert_eq!(status["newest_backup"]["id"], first.as_str());
    assert_eq!(status["counts"]["backups"], 1);
    fs::remove_file(shop.manifest_file(&first)).unwrap();
    let record = shop.restore_test().expect_code(1).json();
    assert_eq!(record["verdict"], "could-not-run");
    assert!(
        record["reason"].as_str().unwrap().contains("no backup of shop"),
        "{record:#}"
    );
    let status = shop.status().expect_code(1).json();
    assert_eq!(status["recovery_point"], Value::Null);
    assert_eq!(status["exposure_seconds"], Value::Null);
}

#[test]
fn a_damaged_newest_manifest_is_reported_and_no_older_backup_tested_in_its_place() {
    let shop = Shop::open();
    let (first, second) = (shop.backup(), shop.backup());
    let file = shop.manifest_file(&second);
    let whole = fs::read(&file).unwrap();
    let other = fs::read(shop.manifest_file(&first)).unwrap();
    for kind in [Damage::CutAtSixtyPercent, Damage::AnothersBytes] {
        damage(&file, kind, &other);
        let output = shop.restore_test().expect_code(3);
        let record = output.json();
        assert_eq!(record["verdict"], "failed", "{kind:?}: {record:#}");
        assert!(
            record["reason"].as_str().unwrap().contains(&second),
            "{kind:?}: {record:#}"
        );
        let status = shop.status();
        assert_ne!(status.code(), 0);
        let status = status.json();
        let problems = status["problems"].to_string();
        assert!(problems.contains(&second), "{problems}");
        assert_eq!(status["recovery_point"], shop.manifest(&first)["recovery_point"]);
        // The one before can still be had, by its name.
        let record = shop
            .ernstfall()
            .run(["restore-test", "shop", "--backup", &first, "--json"])
            .expect_code(0)
            .json();
        assert_eq!(record["backup"], first.as_str());
        overwrite(&file, &whole);
    }
    // A flipped digit of a hash leaves a manifest that can be read, and an object that does not fit it.
    let mut manifest = shop.manifest(&second);
    let hash = manifest["data"][0]["sha256"].as_str().unwrap();
    let flipped = format!("{}{}", if hash.starts_with('0') { '1' } else { '0' }, &hash[1..]);
    manifest["data"][0]["sha256"] = flipped.into();
    overwrite(&file, &serde_json::to_vec(&manifest).unwrap());
    let record = shop.restore_test().expect_code(3).json();
    assert_eq!(
        (&record["verdict"], &record["backup"]),
        (&"failed".into(), &second.as_str().into())
    );
}

#[test]
fn a_real_restore_does_not_fall_back_to_an_older_backup_in_silence() {
    let shop = Shop::open();
    let (first, second) = (shop.backup(), shop.backup());
    overwrite(&shop.manifest_file(&second), b"{}");
    let empty = shop.cluster.database("empty");
    let ernstfall = shop.ernstfall();
    let output = ernstfall
        .run(["restore", "shop", "--to", &empty.socket_url()])
        .expect_code(3);
    assert!(output.stderr.contains(&second), "{}", output.stderr);
    assert_eq!(
        empty.query_one_text("select count(*) from pg_namespace where nspname ~ 'ernstfall'"),
        "0"
    );
    ernstfall
        .run(["restore", "shop", "--to", &empty.socket_url(), "--backup", &first])
        .expect_code(0);
}

#[test]
fn junk_beside_the_manifests_is_never_taken_for_the_newest_backup() {
    let shop = Shop::open();
    let id = shop.backup();
    let manifests = shop.target_directory().join("manifests");
    let manifest = fs::read(shop.manifest_file(&id)).unwrap();
    for name in [
        "latest.json",
        "29991231T235959Z-ffff.json.sha256",
        "29991231T235959Z-zzzz.json",
    ] {
        fs::write(manifests.join(name), &manifest).unwrap();
        crate::support::account::Account::unprivileged().own(&manifests.join(name));
    }
    let data = shop.target_directory().join("backups/29991231T235959Z-ffff");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("contents.json.zst"), "junk").unwrap();
    for path in [&data, &data.join("contents.json.zst")] {
        crate::support::account::Account::unprivileged().own(path);
    }
    let record = shop.restore_test().expect_code(0).json();
    assert_eq!(record["backup"], id.as_str());
    assert_eq!(shop.status().json()["newest_backup"]["id"], id.as_str());
}

#[test]
fn a_backup_from_a_source_whose_clock_was_ahead_is_not_taken_for_the_newest_in_silence() {
    let shop = Shop::open();
    let (first, second) = (shop.backup(), shop.backup());
    // The second, as if the clock had been wrong.
    let future = "29991231T235959Z-ffff";
    let mut manifest = shop.manifest(&second);
    assert!(manifest["clock_skew_seconds"].is_f64(), "{manifest:#}");
    manifest["id"] = future.into();
    manifest["recovery_point"]["at"] = "2999-12-31T23:59:59Z".into();
    let file = shop.manifest_file(future);
    fs::rename(shop.manifest_file(&second), &file).unwrap();
    overwrite(&file, &serde_json::to_vec(&manifest).unwrap());

    let record = shop.restore_test().expect_code(0).json();
    assert_eq!(record["backup"], first.as_str());
    assert_eq!(shop.status().json()["newest_backup"]["id"], first.as_str());
    let passed = shop
        .ernstfall()
        .run(["restore-test", "shop", "--backup", future, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(passed["objectives"]["rpo"]["verdict"], "unknown", "{passed:#}");
    let empty = shop.cluster.database("empty");
    let url = empty.socket_url();
    let restore = ["restore", "shop", "--to", &url];
    for output in [
        shop.ernstfall().run(restore),
        shop.ernstfall().run(["restore", "shop", "--to", &url, "--plan"]),
    ] {
        let refusal = output.expect_code(1).stderr;
        for part in [future, &first, "--backup"] {
            assert!(refusal.contains(part), "{refusal}");
        }
    }
    shop.ernstfall()
        .run(["restore", "shop", "--to", &url, "--backup", &first])
        .expect_code(0);
    // Nor is it what the next backup is compared with: nothing is gone since the first.
    shop.database.execute("CREATE TABLE later AS SELECT 1 AS one");
    let third = shop.backup();
    shop.database.execute("DROP TABLE later");
    let fourth = shop.backup();
    assert_eq!(shop.manifest(&fourth)["shrank"]["since"], third.as_str());
}

#[test]
fn a_backup_found_bad_is_no_recovery_point_any_more_and_could_not_run_changes_nothing() {
    let shop = Shop::open();
    let (first, second) = (shop.backup(), shop.backup());
    shop.ernstfall()
        .run(["restore-test", "shop", "--backup", &first])
        .expect_code(0);
    let status = shop.status().expect_code(0).json();
    assert_eq!(status["recovery_point"], shop.manifest(&second)["recovery_point"]);
    // A test that cannot run says nothing of the backup.
    let nowhere = shop.directory.write("no-directory", "");
    shop.ernstfall()
        .tables(&format!(
            "[scratch]\ndirectory = {:?}\n",
            nowhere.display().to_string()
        ))
        .run(["restore-test", "shop"])
        .expect_code(1);
    let status = shop.status().expect_code(1).json();
    assert_eq!(status["last_restore_test"]["verdict"], "could-not-run");
    assert_eq!(status["newest_backup"]["verdict"], Value::Null);
    assert_eq!(status["recovery_point"], shop.manifest(&second)["recovery_point"]);
    assert_eq!(status["proven_backup"], first.as_str());
    // A bad one does.
    let file = shop.object_file(&shop.manifest(&second)["data"][0]);
    fs::remove_file(file).unwrap();
    shop.restore_test().expect_code(3);
    let status = shop.status().expect_code(3).json();
    assert_eq!(status["newest_backup"]["verdict"], "failed");
    assert_eq!(status["recovery_point"], shop.manifest(&first)["recovery_point"]);
    let first_at: chrono::DateTime<chrono::Utc> = shop.manifest(&first)["recovery_point"]["at"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let age = (chrono::Utc::now() - first_at).as_seconds_f64();
    let exposure = status["exposure_seconds"].as_f64().unwrap();
    assert!(
        exposure <= age + 1.0 && exposure > age - 5.0,
        "{exposure} and not about {age}"
    );
    assert_eq!(status["counts"]["backups_found_bad"], 1);
}

#[test]
fn a_backup_whose_object_was_removed_while_it_was_taken_does_not_come_to_exist() {
    let shop = Shop::open();
    let mut running = shop
        .ernstfall()
        .pause_at("before-manifest")
        .spawn(["backup", "shop", "--json"]);
    running.wait_until_paused("before-manifest");
    let stored = crate::support::evidence::files(&shop.target_directory());
    let data = stored
        .iter()
        .find(|path| path.to_string_lossy().contains("/data/"));
    fs::remove_file(data.expect("rows are stored")).unwrap();
    running.resume();
    let record = running.wait().expect_code(1).json();
    let reason = record["reason"].as_str().unwrap();
    assert!(
        reason.contains("is there no longer: something removed it meanwhile"),
        "{reason}"
    );
    assert_eq!(shop.status().expect_code(1).json()["counts"]["backups"], 0);
}
