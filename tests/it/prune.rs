//! Retention and prune: what goes, what stays and why, and that several machines and sudden ends do no harm.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::json::{assert_fits, schema};
use crate::shop::{Shop, overwrite};
use crate::support::account::Account;
use crate::support::ernstfall::{Ernstfall, Output};

const HOUR: Duration = Duration::from_secs(3600);
const LAST_ONE: &str = "{ last = 1 }";

/// The product, with a retention.
fn keeping(shop: &Shop, retention: &str) -> Ernstfall {
    shop.ernstfall().target_key("retention", retention)
}

/// The same on another machine: with another state directory.
fn elsewhere(shop: &Shop, retention: &str) -> Ernstfall {
    let state = shop.directory.join("state-of-another-machine");
    keeping(shop, retention).key("state_dir", &format!("{:?}", state.display().to_string()))
}

fn prune(ernstfall: &Ernstfall) -> Output {
    ernstfall.run(["prune", "shop", "--json"])
}

fn plan(ernstfall: &Ernstfall) -> Value {
    ernstfall
        .run(["prune", "shop", "--plan", "--json"])
        .expect_code(0)
        .json()
}

/// What the plan says of each backup: `keep` or `remove`, in the order of their recovery points.
fn fates(plan: &Value) -> Vec<(String, bool)> {
    let backups = plan["backups"].as_array().unwrap();
    let fate = |one: &Value| {
        (
            one["backup"].as_str().unwrap().to_owned(),
            one["keep"].as_bool().unwrap(),
        )
    };
    backups.iter().map(fate).collect()
}

/// Every file below a directory, with its content.
fn files(of: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(of).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            found.insert(path, bytes);
        }
    }
    found
}

/// Makes everything below a directory so much older than now.
fn age(below: &Path, by: Duration) {
    for path in files(below).keys() {
        set_age(path, by);
    }
}

fn set_age(file: &Path, by: Duration) {
    let opened = File::options().append(true).open(file).unwrap();
    opened.set_modified(SystemTime::now() - by).unwrap();
}

fn objects(shop: &Shop, id: &str) -> PathBuf {
    shop.target_directory().join("backups").join(id)
}

fn tombstones(shop: &Shop, id: &str) -> PathBuf {
    shop.target_directory().join("removed").join(id)
}

/// The kinds and outcomes of what was recorded, without backups and restore tests.
fn upkeep(shop: &Shop) -> Vec<Value> {
    let records = shop.records();
    let records = records.as_array().unwrap().iter();
    let kinds = ["prune", "interrupted"];
    records
        .map(|entry| entry["record"].clone())
        .filter(|record| kinds.contains(&record["kind"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_plan_says_what_would_go_and_why_and_touches_nothing() {
    let shop = Shop::open();
    let [first, second, third] = [shop.backup(), shop.backup(), shop.backup()];
    shop.restore_test().expect_code(0);
    let before = files(&shop.directory.join("repository"));
    let planned = plan(&keeping(&shop, LAST_ONE));
    assert_fits(&schema("prune-plan.schema.json"), &planned);
    assert_eq!(
        fates(&planned),
        [(first.clone(), false), (second, false), (third, true)]
    );
    assert_eq!(
        planned["backups"][2]["reasons"],
        serde_json::json!(["last 1 of 1", "newest", "newest that passed a restore test"])
    );
    let stored: u64 = [0, 1]
        .iter()
        .map(|place| planned["backups"][place]["stored_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(
        (&planned["free_later_bytes"], &planned["free_now_bytes"]),
        (&stored.into(), &0.into())
    );
    let text = keeping(&shop, LAST_ONE)
        .run(["prune", "--plan"])
        .expect_code(0)
        .stdout;
    let line = text.lines().find(|line| line.contains(&first)).unwrap();
    assert!(
        line.ends_with("remove  retention (last = 1) keeps it no longer"),
        "{text}"
    );
    assert_eq!(before, files(&shop.directory.join("repository")));
    assert_eq!(upkeep(&shop), [] as [Value; 0]);
}

#[test]
fn what_retention_keeps_no_longer_goes_at_once_and_its_objects_after_the_grace_time() {
    let shop = Shop::open();
    let [first, second, third] = [shop.backup(), shop.backup(), shop.backup()];
    shop.restore_test().expect_code(0);
    let product = keeping(&shop, LAST_ONE);
    let data = files(&objects(&shop, &first));
    let record = prune(&product).expect_code(0).json();
    assert_eq!(record["outcome"], "succeeded");
    let removed = record["removed"].to_string();
    assert!(
        removed.contains(&first) && removed.contains(&second) && !removed.contains(&third),
        "{removed}"
    );
    assert!(!shop.manifest_file(&first).exists() && !shop.manifest_file(&second).exists());
    assert_eq!(files(&objects(&shop, &first)), data, "its objects wait");
    // Nothing to do now, and nothing to record.
    assert_eq!(prune(&product).expect_code(0).json(), Value::Null);
    assert_eq!(upkeep(&shop).len(), 1);

    // Old objects are not enough: the removal too must be older than the grace time, and the other way round.
    age(&objects(&shop, &first), 25 * HOUR);
    age(&tombstones(&shop, &second), 25 * HOUR);
    let waiting = plan(&product)["leftovers"].as_array().unwrap().clone();
    assert!(waiting.len() == 2 && waiting.iter().all(|one| one["due"] == false));
    prune(&product).expect_code(0);
    assert_eq!(files(&objects(&shop, &first)).len(), data.len());
    age(&tombstones(&shop, &first), 25 * HOUR);
    let planned = plan(&product);
    assert_fits(&schema("prune-plan.schema.json"), &planned);
    // Backups of one second stand in no order.
    let leftovers = planned["leftovers"].as_array().unwrap();
    let of_first = leftovers
        .iter()
        .find(|one| one["backup"] == first.as_str())
        .unwrap();
    assert_eq!(of_first["due"], true);
    let record = prune(&product).expect_code(0).json();
    assert_eq!(record["objects"], data.len());
    let bytes: usize = data.values().map(Vec::len).sum();
    assert!(record["freed_bytes"].as_u64().unwrap() >= bytes as u64);
    assert!(!objects(&shop, &first).exists() && !tombstones(&shop, &first).exists());
    assert!(objects(&shop, &second).exists());
    shop.restore_test().expect_code(0);
    assert_eq!(shop.status().expect_code(0).json()["counts"]["backups"], 1);
}

#[test]
fn the_newest_backup_that_passed_a_restore_test_stays() {
    let shop = Shop::open();
    let proven = shop.backup();
    shop.restore_test().expect_code(0);
    let (between, newest) = (shop.backup(), shop.backup());
    prune(&keeping(&shop, LAST_ONE)).expect_code(0);
    assert!(shop.manifest_file(&proven).exists() && shop.manifest_file(&newest).exists());
    assert!(!shop.manifest_file(&between).exists());
}

#[test]
fn without_retention_nothing_is_ever_removed() {
    let shop = Shop::open();
    shop.backup();
    shop.backup();
    let left = objects(&shop, "20200101T000000Z-0000").join("data");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("1.sql.zst"), "rows").unwrap();
    age(&shop.target_directory(), 1000 * HOUR);
    let before = files(&shop.target_directory());
    let output = shop.ernstfall().run(["prune"]).expect_code(0);
    assert!(output.stdout.contains("has no `retention`"), "{}", output.stdout);
    assert_eq!(files(&shop.target_directory()), before);
    assert_eq!(upkeep(&shop), [] as [Value; 0]);
}

#[test]
fn a_retention_that_keeps_nothing_is_refused() {
    let shop = Shop::empty();
    for nothing in ["{}", "{ last = 0, yearly = 0 }"] {
        let output = keeping(&shop, nothing).run(["prune"]).expect_code(2);
        assert!(output.stderr.contains("keeps no backup"), "{}", output.stderr);
    }
}

#[test]
fn what_a_killed_backup_of_another_machine_left_goes_when_its_youngest_object_is_old() {
    let shop = Shop::open();
    shop.backup();
    let mut killed = shop
        .ernstfall()
        .pause_at("before-manifest")
        .spawn(["backup", "shop"]);
    killed.wait_until_paused("before-manifest");
    killed.kill9();
    killed.wait().expect_code(137);
    let product = elsewhere(&shop, LAST_ONE);
    let planned = plan(&product);
    let [left] = planned["leftovers"].as_array().unwrap().as_slice() else {
        panic!("{planned:#}")
    };
    assert_eq!((&left["removed_at"], &left["due"]), (&Value::Null, &false.into()));
    let folder = objects(&shop, left["backup"].as_str().unwrap());
    age(&folder, 25 * HOUR);
    let youngest = files(&folder).keys().next().unwrap().clone();
    set_age(&youngest, 23 * HOUR);
    assert_eq!(prune(&product).expect_code(0).json(), Value::Null);
    assert!(folder.exists());
    set_age(&youngest, 25 * HOUR);
    prune(&product).expect_code(0);
    assert!(!folder.exists());
    shop.restore_test().expect_code(0);
}

#[test]
fn a_backup_that_waits_for_its_manifest_survives_a_prune_elsewhere() {
    let shop = Shop::open();
    shop.backup();
    let mut backup = shop
        .ernstfall()
        .pause_at("before-manifest")
        .spawn(["backup", "shop", "--json"]);
    backup.wait_until_paused("before-manifest");
    let left = plan(&elsewhere(&shop, LAST_ONE));
    let folder = objects(&shop, left["leftovers"][0]["backup"].as_str().unwrap());
    age(&folder, 25 * HOUR);
    set_age(files(&folder).keys().next().unwrap(), HOUR);
    prune(&elsewhere(&shop, LAST_ONE)).expect_code(0);
    backup.resume();
    backup.wait().expect_code(0);
    shop.restore_test().expect_code(0);
}

#[test]
fn a_restore_test_that_has_begun_still_finds_a_backup_that_is_removed_meanwhile() {
    let shop = Shop::open();
    let old = shop.backup();
    shop.backup();
    let mut test = shop.ernstfall().pause_at("restore-provision").spawn([
        "restore-test",
        "shop",
        "--backup",
        &old,
        "--json",
    ]);
    test.wait_until_paused("restore-provision");
    // As old as objects can be: what protects them is that the removal is young.
    age(&objects(&shop, &old), 1000 * HOUR);
    for _ in 0..2 {
        prune(&elsewhere(&shop, LAST_ONE)).expect_code(0);
    }
    assert!(!shop.manifest_file(&old).exists());
    test.resume();
    assert_eq!(test.wait().expect_code(0).json()["verdict"], "passed");
}

#[test]
fn two_machines_that_prune_at_once_do_no_harm_and_report_no_errors() {
    let shop = Shop::open();
    let old = shop.backup();
    let newest = shop.backup();
    let product = keeping(&shop, LAST_ONE).pause_at("prune-decided");
    let mut slow = product.spawn(["prune", "shop", "--json"]);
    slow.wait_until_paused("prune-decided");
    prune(&elsewhere(&shop, LAST_ONE)).expect_code(0);
    slow.resume();
    let record = slow.wait().expect_code(0).json();
    assert_eq!(
        (&record["outcome"], &record["removed"]),
        (&"succeeded".into(), &serde_json::json!([]))
    );
    assert!(!shop.manifest_file(&old).exists() && shop.manifest_file(&newest).exists());
}

#[test]
fn objects_that_another_machine_removed_already_are_no_errors() {
    let shop = Shop::open();
    let old = shop.backup();
    let newest = shop.backup();
    prune(&keeping(&shop, LAST_ONE)).expect_code(0);
    age(&shop.target_directory(), 25 * HOUR);
    let mut slow = keeping(&shop, LAST_ONE)
        .pause_at("prune-before-data")
        .spawn(["prune", "shop", "--json"]);
    slow.wait_until_paused("prune-before-data");
    prune(&elsewhere(&shop, LAST_ONE)).expect_code(0);
    assert!(!objects(&shop, &old).exists());
    slow.resume();
    let record = slow.wait().expect_code(0).json();
    assert_eq!(
        (&record["outcome"], &record["freed_bytes"]),
        (&"succeeded".into(), &0.into())
    );
    assert!(shop.manifest_file(&newest).exists());
    shop.restore_test().expect_code(0);
}

#[test]
fn a_manifest_that_appears_before_the_objects_go_saves_them() {
    let shop = Shop::open();
    let old = shop.backup();
    shop.backup();
    let manifest = fs::read(shop.manifest_file(&old)).unwrap();
    prune(&keeping(&shop, LAST_ONE)).expect_code(0);
    age(&shop.target_directory(), 25 * HOUR);
    let mut slow = keeping(&shop, LAST_ONE)
        .pause_at("prune-before-data")
        .spawn(["prune", "shop"]);
    slow.wait_until_paused("prune-before-data");
    fs::write(shop.manifest_file(&old), &manifest).unwrap();
    fs::set_permissions(shop.manifest_file(&old), Permissions::from_mode(0o644)).unwrap();
    slow.resume();
    slow.wait().expect_code(0);
    assert!(objects(&shop, &old).exists());
    let test = ["restore-test", "shop", "--backup", &old];
    shop.ernstfall().run(test).expect_code(0);
}

/// Runs a prune that is killed at a fault point.
fn killed_at(shop: &Shop, point: &str) {
    let mut running = keeping(shop, LAST_ONE).pause_at(point).spawn(["prune", "shop"]);
    running.wait_until_paused(point);
    running.kill9();
    running.wait().expect_code(137);
}

#[test]
fn a_prune_that_is_killed_anywhere_is_finished_by_the_next_and_loses_no_grace_time() {
    let shop = Shop::open();
    let old = shop.backup();
    shop.backup();
    let product = keeping(&shop, LAST_ONE);
    killed_at(&shop, "prune-after-tombstone");
    assert!(shop.manifest_file(&old).exists(), "it still is a backup");
    let test = ["restore-test", "shop", "--backup", &old];
    shop.ernstfall().run(test).expect_code(0);
    shop.restore_test().expect_code(0);

    // More than are deleted at once, so that a run can be killed when some are gone.
    for number in 100..120 {
        let object = objects(&shop, &old).join(format!("data/{number}.sql.zst"));
        fs::write(object, "rows").unwrap();
    }
    // Days later, the note of that run is old, and the removal is new.
    age(&shop.target_directory(), 100 * HOUR);
    killed_at(&shop, "prune-after-manifest");
    assert!(!shop.manifest_file(&old).exists());
    let data = files(&objects(&shop, &old));
    assert_eq!(prune(&product).expect_code(0).json(), Value::Null);
    assert_eq!(files(&objects(&shop, &old)), data);

    age(&shop.target_directory(), 25 * HOUR);
    killed_at(&shop, "prune-before-data");
    killed_at(&shop, "prune-amid-data");
    let left = files(&objects(&shop, &old)).len();
    assert!(0 < left && left < data.len(), "{left} of {}", data.len());
    killed_at(&shop, "prune-after-data");
    assert!(!objects(&shop, &old).exists() && tombstones(&shop, &old).exists());
    prune(&product).expect_code(0);
    assert!(!tombstones(&shop, &old).exists());
    let kinds: Vec<Value> = upkeep(&shop)
        .iter()
        .map(|record| record["kind"].clone())
        .collect();
    let interrupted = kinds.iter().filter(|kind| *kind == "interrupted").count();
    assert_eq!((interrupted, kinds.len()), (5, 6), "{kinds:?}");
    shop.restore_test().expect_code(0);
}

#[test]
fn a_removed_backup_comes_back_from_its_tombstone_while_its_objects_are_there() {
    let shop = Shop::open();
    let old = shop.backup();
    shop.backup();
    let manifest = shop.manifest(&old);
    prune(&keeping(&shop, LAST_ONE)).expect_code(0);
    let tombstone = files(&tombstones(&shop, &old)).into_values().next().unwrap();
    let tombstone: Value = serde_json::from_slice(&tombstone).unwrap();
    assert_eq!(tombstone["manifest"], manifest);
    assert_eq!(tombstone["id"], old.as_str());
    let listed: u64 = tombstone["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|object| object["size_bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(listed, manifest["totals"]["stored_bytes"].as_u64().unwrap());
    fs::write(shop.manifest_file(&old), tombstone["manifest"].to_string()).unwrap();
    fs::set_permissions(shop.manifest_file(&old), Permissions::from_mode(0o644)).unwrap();
    let test = ["restore-test", "shop", "--backup", &old];
    shop.ernstfall().run(test).expect_code(0);
}

#[test]
fn what_a_manifest_names_is_never_believed_for_a_removal() {
    let shop = Shop::open();
    let (old, newest) = (shop.backup(), shop.backup());
    let (mut hostile, whole) = (shop.manifest(&old), shop.manifest(&newest));
    // As if the old backup's objects were those of the new one.
    hostile["data"] = whole["data"].clone();
    overwrite(&shop.manifest_file(&old), hostile.to_string().as_bytes());
    prune(&keeping(&shop, LAST_ONE)).expect_code(0);
    age(&shop.target_directory(), 25 * HOUR);
    prune(&keeping(&shop, LAST_ONE)).expect_code(0);
    assert!(!objects(&shop, &old).exists());
    shop.restore_test().expect_code(0);
}

#[test]
fn objects_that_another_backup_names_and_those_of_damaged_manifests_are_left_alone_and_named() {
    let shop = Shop::open();
    let [shared, damaged, hostile, newest] = [shop.backup(), shop.backup(), shop.backup(), shop.backup()];
    let mut manifest = shop.manifest(&newest);
    let borrowed = shop.manifest(&shared)["data"][0].clone();
    manifest["data"].as_array_mut().unwrap().push(borrowed);
    overwrite(&shop.manifest_file(&newest), manifest.to_string().as_bytes());
    let mut escaping = shop.manifest(&hostile);
    escaping["data"][0]["key"] = "../../../../etc/passwd".into();
    prune(&keeping(&shop, LAST_ONE)).expect_code(0);
    assert!(!shop.manifest_file(&shared).exists());
    // Before the objects go, somebody puts manifests back that are of no use.
    for (id, text) in [(&hostile, escaping.to_string()), (&damaged, "{".to_owned())] {
        fs::write(shop.manifest_file(id), text).unwrap();
        Account::unprivileged().own(&shop.manifest_file(id));
    }
    age(&shop.target_directory(), 25 * HOUR);
    let before = files(&shop.target_directory().join("backups"));
    let output = prune(&keeping(&shop, LAST_ONE)).expect_code(0);
    assert_eq!(files(&shop.target_directory().join("backups")), before);
    for (id, why) in [
        (&shared, "names them"),
        (&damaged, "left alone"),
        (&hostile, "left alone"),
    ] {
        let line = output.stderr.lines().find(|line| line.contains(id.as_str()));
        assert!(line.is_some_and(|line| line.contains(why)), "{}", output.stderr);
    }
}

#[test]
fn nothing_is_removed_beside_a_backup_of_a_newer_version() {
    let shop = Shop::open();
    let (old, newest) = (shop.backup(), shop.backup());
    let mut newer = shop.manifest(&newest);
    newer["format"] = 2.into();
    overwrite(&shop.manifest_file(&newest), newer.to_string().as_bytes());
    shop.backup();
    let output = prune(&keeping(&shop, LAST_ONE)).expect_code(1);
    assert!(output.stderr.contains("update ernstfall"), "{}", output.stderr);
    assert!(shop.manifest_file(&old).exists());
    assert_eq!(upkeep(&shop)[0]["outcome"], "failed");
    let status = shop.status().json()["problems"].to_string();
    assert!(status.contains("last prune"), "{status}");
}

#[test]
fn objects_from_the_future_say_that_a_clock_is_wrong_and_nothing_is_removed() {
    let shop = Shop::open();
    let (old, newest) = (shop.backup(), shop.backup());
    let opened = File::options()
        .append(true)
        .open(shop.manifest_file(&newest))
        .unwrap();
    opened
        .set_modified(SystemTime::now() + Duration::from_secs(600))
        .unwrap();
    for arguments in [vec!["prune", "shop"], vec!["prune", "shop", "--plan"]] {
        let output = keeping(&shop, LAST_ONE).run_all(&arguments).expect_code(1);
        assert!(output.stderr.contains("set the clock right"), "{}", output.stderr);
    }
    assert!(shop.manifest_file(&old).exists());
    // As far apart as clocks may be.
    opened
        .set_modified(SystemTime::now() + Duration::from_secs(200))
        .unwrap();
    prune(&keeping(&shop, LAST_ONE)).expect_code(0);
    assert!(!shop.manifest_file(&old).exists());
}

#[test]
fn without_the_right_to_delete_it_says_what_is_needed_and_what_was_done_is_recorded() {
    let shop = Shop::open();
    let old = shop.backup();
    shop.backup();
    let manifests = shop.target_directory().join("manifests");
    fs::set_permissions(&manifests, Permissions::from_mode(0o500)).unwrap();
    let output = keeping(&shop, LAST_ONE).run(["prune", "shop"]).expect_code(1);
    assert!(
        output.stderr.contains("right to list and to delete"),
        "{}",
        output.stderr
    );
    assert!(shop.manifest_file(&old).exists());
    assert_eq!(upkeep(&shop)[0]["outcome"], "failed");
    fs::set_permissions(&manifests, Permissions::from_mode(0o700)).unwrap();
    prune(&keeping(&shop, LAST_ONE)).expect_code(0);
    assert!(!shop.manifest_file(&old).exists());
}

#[test]
fn what_a_lost_record_may_have_spoken_of_is_kept() {
    let shop = Shop::open();
    let proven = shop.backup();
    shop.restore_test().expect_code(0);
    shop.backup();
    // The record of the restore test is lost, here and there.
    let states = [
        shop.directory.join("state/records"),
        shop.directory.join("repository/records"),
    ];
    for folder in &states {
        let is_it = |path: &PathBuf| path.ends_with("00000002.json");
        let path = files(folder).into_keys().find(is_it).unwrap();
        fs::remove_file(path).unwrap();
    }
    let product = keeping(&shop, LAST_ONE);
    let planned = plan(&product);
    let kept = planned["backups"][0]["reasons"].to_string();
    assert!(
        kept.contains("records that may speak of it are missing"),
        "{kept}"
    );
    let output = prune(&product).expect_code(0);
    assert!(output.stderr.contains("kept until"), "{}", output.stderr);
    assert!(shop.manifest_file(&proven).exists());
}

#[test]
fn a_signal_stops_a_prune_before_the_next_backup_and_the_record_says_what_was_done() {
    let shop = Shop::open();
    let old = shop.backup();
    shop.backup();
    let mut running = keeping(&shop, LAST_ONE)
        .pause_at("prune-decided")
        .spawn(["prune", "shop", "--json"]);
    running.wait_until_paused("prune-decided");
    running.terminate();
    running.wait_for_stderr("stopping", HOUR / 60);
    running.resume();
    let record = running.wait().expect_code(143).json();
    assert_eq!(record["outcome"], "cancelled");
    assert!(shop.manifest_file(&old).exists());
    prune(&keeping(&shop, LAST_ONE)).expect_code(0);
    assert!(!shop.manifest_file(&old).exists());
}
