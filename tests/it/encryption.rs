//! Encrypted backups: nothing of them is readable without a key, any of several keys reads them, and a key that is
//! wrong or missing says nothing of the backup.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::recovery_by_hand::require_tools;
use crate::shop::{Shop, content, hex, overwrite};
use crate::support::cluster::Cluster;
use crate::support::ernstfall::{Ernstfall, Output};
use crate::support::key::{Key, encryption, identity_file};
use crate::support::process::run_or_panic;

/// The shop's target, encrypted to these, with an identity as TOML.
fn encrypted(shop: &Shop, recipients: &[&Key], identity: Option<&str>) -> Ernstfall {
    shop.ernstfall().tables(&encryption(recipients, identity))
}

/// The same with the key's own file as the identity.
fn with_key(shop: &Shop, key: &Key) -> Ernstfall {
    encrypted(shop, &[key], Some(&identity_file(&key.file(&shop.directory))))
}

fn backup(ernstfall: &Ernstfall) -> String {
    let output = ernstfall.run(["backup", "shop", "--json"]).expect_code(0);
    output.json()["backup"].as_str().unwrap().to_owned()
}

fn restore_test(ernstfall: &Ernstfall, id: &str) -> Output {
    ernstfall.run(["restore-test", "shop", "--backup", id, "--json"])
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// Whether a text stands in any file below a folder, compressed or not.
fn stands_in(folder: &Path, text: &str) -> bool {
    let contains = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    files(folder).iter().any(|path| {
        let bytes = fs::read(path).unwrap();
        contains(&bytes) || zstd::decode_all(bytes.as_slice()).is_ok_and(|clear| contains(&clear))
    })
}

fn decrypt(file: &Path, key: &Path) -> String {
    let mut age = Command::new("sh");
    age.args(["-c", "age --decrypt --identity \"$0\" \"$1\" | zstd -dcq"]);
    run_or_panic(age.arg(key).arg(file))
}

/// The scram hash of a role.
fn password_of(database: &crate::support::database::Database, role: &str) -> String {
    database.query_one_text(&format!(
        "select rolpassword from pg_authid where rolname = '{role}'"
    ))
}

#[test]
fn an_encrypted_backup_is_proven_and_restored_and_nothing_of_it_is_readable_without_the_key() {
    require_tools!();
    let (shop, key) = (Shop::open(), Key::new());
    shop.database
        .execute("alter role clerk password 'correct-horse'; insert into audit values ('unmistakable row')");
    let hash = password_of(&shop.database, "clerk");
    assert!(hash.starts_with("SCRAM-SHA-256$"));
    let ernstfall = with_key(&shop, &key);
    let id = backup(&ernstfall);
    let manifest = shop.manifest(&id);
    assert_eq!(
        manifest["encryption"]["recipients"],
        serde_json::json!([key.public])
    );
    for path in files(&shop.target_directory().join("backups").join(&id)) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let is_encrypted = fs::read(&path).unwrap().starts_with(b"age-encryption.org/v1\n");
        assert_eq!(
            name != "RECOVERY.md",
            name.ends_with(".zst.age") && is_encrypted,
            "{name}"
        );
    }
    let test = restore_test(&ernstfall, &id).expect_code(0).json();
    assert_eq!(test["verdict"], "passed", "{test:#}");
    let other = Cluster::start();
    let restored = other.database("shop");
    let to = restored.socket_url();
    ernstfall.run(["restore", "shop", "--to", &to]).expect_code(0);
    assert_eq!(content(&restored), content(&shop.database));
    assert_eq!(password_of(&restored, "clerk"), hash);
    let tables = [
        "restore",
        "shop",
        "--to",
        &to,
        "--table",
        "orders",
        "--into-schema",
        "recovered",
    ];
    ernstfall.run(tables).expect_code(0);
    assert_eq!(
        restored.query_one_text("select count(*) from recovered.orders"),
        "500"
    );
    for secret in [
        "unmistakable row",
        "customers",
        "invoice_numbers",
        "shop_owner",
        &hash,
        key.secret(),
    ] {
        assert!(
            !stands_in(&shop.directory.join("repository"), secret),
            "{secret} is in the repository"
        );
    }
    for secret in [&hash, key.secret()] {
        assert!(
            !stands_in(&shop.directory.join("state"), secret),
            "{secret} is in the journal"
        );
        assert!(!shop.cluster.log().contains(secret) && !other.log().contains(secret));
    }
    // It is there, for whoever has the key.
    let roles = decrypt(&shop.object_file(&manifest["roles"]), &key.file(&shop.directory));
    assert!(roles.contains(&hash), "{roles}");
}

#[test]
fn passwords_are_stored_only_encrypted_and_only_where_they_can_be_read() {
    require_tools!();
    let (shop, key) = (Shop::open(), Key::new());
    shop.database.execute(
        "alter role clerk password 'correct-horse';
         create role reader login password 'reader'; create role poor_reader login password 'reader';
         grant select on large object 4711, 4712 to reader, poor_reader;
         grant pg_read_all_data to reader;
         grant select on all tables in schema public to poor_reader;
         grant select on all sequences in schema public to poor_reader",
    );
    let hash = password_of(&shop.database, "clerk");
    let passwords = |output: &Output| -> Vec<(String, String)> {
        let record = output.json();
        let all = record["not_covered"].as_array().unwrap().clone();
        let passwords = all.iter().filter(|one| one["kind"] == "password");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        passwords
            .map(|one| (text(&one["name"]), text(&one["reason"])))
            .collect()
    };
    let clear = shop.ernstfall().run(["backup", "shop", "--json"]).expect_code(0);
    assert!(!stands_in(&shop.directory.join("repository"), &hash));
    let told = passwords(&clear);
    assert!(told.iter().any(|(name, _)| name == "clerk"), "{told:?}");
    assert!(
        told.iter()
            .all(|(_, reason)| reason.contains("without encryption")),
        "{told:?}"
    );
    let encrypted_by = |url: &str| {
        let ernstfall = Ernstfall::new(&shop.directory).target("shop", url);
        ernstfall
            .tables(&encryption(&[&key], None))
            .run(["backup", "shop", "--json"])
            .expect_code(0)
    };
    // pg_read_all_data may read them as well as a superuser.
    for url in [shop.database.url(), shop.database.url_as("reader", "reader")] {
        assert_eq!(passwords(&encrypted_by(&url)), []);
    }
    let told = passwords(&encrypted_by(&shop.database.url_as("poor_reader", "reader")));
    assert!(told.iter().any(|(name, _)| name == "clerk"), "{told:?}");
    assert!(
        told.iter().all(|(_, reason)| reason.contains("may not read it")),
        "{told:?}"
    );
}

/// Every way in which the key of a backup is not there, with what is said of it.
fn keyless(shop: &Shop, key: &Key) -> Vec<(Ernstfall, String)> {
    let stranger = Key::new();
    let write = |name: &str, text: &str| identity_file(&shop.directory.write(name, text));
    let unreadable = shop.directory.write("unreadable.key", &key.text);
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o000)).unwrap();
    let identities = [
        (None, "no identity is configured".to_owned()),
        (Some(write("other.key", &stranger.text)), stranger.public.clone()),
        (
            Some(identity_file(Path::new("/nowhere/age.key"))),
            "/nowhere/age.key".to_owned(),
        ),
        (Some(identity_file(&unreadable)), "unreadable.key".to_owned()),
        (
            Some(write("empty.key", "# nothing here\n")),
            "no secret key".to_owned(),
        ),
        (
            Some(write("public.key", &key.public)),
            "is a public key".to_owned(),
        ),
        (
            Some(write("locked.key", "age-encryption.org/v1\n-> scrypt x 18\n")),
            "passphrase".to_owned(),
        ),
        (Some("{ env = \"NOT_SET\" }".to_owned()), "NOT_SET".to_owned()),
        (
            Some("{ command = [\"false\"] }".to_owned()),
            "false gave no secret".to_owned(),
        ),
    ];
    let ernstfall = |identity: Option<String>| encrypted(shop, &[key], identity.as_deref());
    identities
        .map(|(identity, told)| (ernstfall(identity), told))
        .into()
}

#[test]
fn a_key_that_is_missing_or_wrong_is_could_not_run_and_names_the_keys() {
    require_tools!();
    let (shop, key) = (Shop::open(), Key::new());
    let id = backup(&encrypted(&shop, &[&key], None));
    let empty = shop.cluster.database("empty");
    let to = empty.socket_url();
    for (ernstfall, told) in keyless(&shop, &key) {
        let record = restore_test(&ernstfall, &id).expect_code(1).json();
        assert_eq!(record["verdict"], "could-not-run", "{record:#}");
        let reason = record["reason"].as_str().unwrap();
        assert!(reason.contains(&told) && reason.contains(&key.public), "{reason}");
        assert!(!reason.contains("SECRET-KEY-1Q"), "{reason}");
        assert!(shop.scratches().is_empty());
        let plan = ernstfall
            .run(["restore", "shop", "--to", &to, "--plan"])
            .expect_code(1);
        assert!(
            plan.stderr.contains(&told) && plan.stderr.contains(&key.public),
            "{}",
            plan.stderr
        );
        let tables = [
            "restore",
            "shop",
            "--to",
            &to,
            "--table",
            "orders",
            "--into-schema",
            "recovered",
        ];
        for restore in [&["restore", "shop", "--to", &to][..], &tables] {
            let output = ernstfall.run_all(restore).expect_code(1);
            assert!(output.stderr.contains(&told), "{}", output.stderr);
        }
        assert_eq!(
            empty.query_one_text("select count(*) from pg_namespace where oid >= 16384"),
            "0"
        );
    }
    // It says nothing of the backup.
    let status = shop.status().json();
    assert_eq!(status["newest_backup"]["verdict"], Value::Null);
    assert_eq!(status["recovery_point"], shop.manifest(&id)["recovery_point"]);
    restore_test(&with_key(&shop, &key), &id).expect_code(0);
}

#[test]
fn status_lists_and_check_work_without_the_identity() {
    require_tools!();
    let (shop, key) = (Shop::open(), Key::new());
    let id = backup(&encrypted(&shop, &[&key], None));
    for (ernstfall, told) in keyless(&shop, &key) {
        let status = ernstfall.run(["status", "shop", "--json"]).json();
        assert_eq!(status["newest_backup"]["id"], id.as_str());
        assert_eq!(status["counts"]["backups"], 1);
        let backups = ernstfall
            .run(["list", "backups", "shop", "--json"])
            .expect_code(0);
        assert!(backups.stdout.contains(&id));
        ernstfall.run(["list", "records", "--json"]).expect_code(0);
        let lines = ernstfall.run(["check", "--json"]).json();
        let about = |subject: &str| {
            let mut lines = lines.as_array().unwrap().iter();
            lines
                .find(|line| line["subject"] == subject)
                .cloned()
                .unwrap_or_default()
        };
        let expected = if told.starts_with("no identity") {
            "warning"
        } else {
            "failed"
        };
        assert_eq!(about("recipients")["result"], "ok", "{lines:#}");
        assert_eq!(about("identity")["result"], expected, "{told}: {lines:#}");
        assert_eq!(about("decryption")["result"], expected, "{told}: {lines:#}");
        assert_eq!(about("last backup")["result"], "ok");
    }
}

/// An identity that notes every time that it is fetched.
fn noted(shop: &Shop, key: &Key) -> (String, PathBuf) {
    let notes = shop.directory.write("fetched", "");
    let script = format!(
        "echo once >> {}; cat {}",
        notes.display(),
        key.file(&shop.directory).display()
    );
    (format!("{{ command = [\"sh\", \"-c\", {script:?}] }}"), notes)
}

#[test]
fn the_identity_is_fetched_only_for_what_is_encrypted_and_once_a_run() {
    require_tools!();
    let (shop, key) = (Shop::open(), Key::new());
    let (identity, notes) = noted(&shop, &key);
    let fetched = || fs::read_to_string(&notes).unwrap().lines().count();
    let ernstfall = encrypted(&shop, &[&key], Some(&identity)).target("again", &shop.database.url());
    ernstfall.run(["backup"]).expect_code(0);
    ernstfall.run(["status"]);
    ernstfall.run(["list", "backups"]).expect_code(0);
    assert_eq!(fetched(), 0);
    ernstfall.run(["restore-test"]).expect_code(0);
    assert_eq!(fetched(), 1);
    ernstfall.run(["check"]).expect_code(0);
    assert_eq!(fetched(), 2);
}

#[test]
fn recipients_change_from_the_next_backup_on_and_old_backups_stay_readable() {
    require_tools!();
    let (shop, old, new, spare) = (Shop::open(), Key::new(), Key::new(), Key::new());
    let clear = backup(&shop.ernstfall());
    let first = backup(&encrypted(&shop, &[&old], None));
    let second = backup(&encrypted(&shop, &[&new, &spare], None));
    let both = format!("# both\n\n{}\n# the old one\n{}", new.text, old.text);
    let both = identity_file(&shop.directory.write("both.key", both));
    let with_both = encrypted(&shop, &[&new, &spare], Some(&both));
    for id in [&clear, &first, &second] {
        restore_test(&with_both, id).expect_code(0);
    }
    let spare_alone = encrypted(
        &shop,
        &[&new, &spare],
        Some(&identity_file(&spare.file(&shop.directory))),
    );
    restore_test(&spare_alone, &second).expect_code(0);
    let refused = restore_test(&spare_alone, &first).expect_code(1).json();
    let reason = refused["reason"].as_str().unwrap();
    assert!(
        reason.contains(&old.public) && reason.contains(&spare.public),
        "{reason}"
    );
    let lines = spare_alone.run(["check", "--json"]).expect_code(0).json();
    let older = lines
        .as_array()
        .unwrap()
        .iter()
        .find(|line| line["subject"] == "older backups");
    let older = older.expect("a line about older backups");
    assert!(
        older["result"] == "warning" && older["message"].to_string().contains(&old.public),
        "{older:#}"
    );
    // And back to the clear.
    let last = backup(&shop.ernstfall());
    assert_eq!(shop.manifest(&last)["encryption"], Value::Null);
    restore_test(&shop.ernstfall(), &last).expect_code(0);
    let lines = shop.ernstfall().run(["check", "--json"]).expect_code(0).json();
    let warned = lines.as_array().unwrap().iter().find(|line| {
        line["subject"] == "encryption"
            && line["result"] == "warning"
            && line["message"].to_string().contains(&second)
    });
    assert!(warned.is_some(), "{lines:#}");
}

/// Writes other bytes for an object, and a manifest that says that they are right.
fn replace(shop: &Shop, id: &str, bytes: &[u8]) {
    let mut manifest = shop.manifest(id);
    overwrite(&shop.object_file(&manifest["data"][0]), bytes);
    manifest["data"][0]["size_bytes"] = bytes.len().into();
    manifest["data"][0]["sha256"] = hex(&Sha256::digest(bytes)).into();
    overwrite(&shop.manifest_file(id), &serde_json::to_vec(&manifest).unwrap());
}

#[test]
fn an_encrypted_object_that_is_damaged_or_another_ones_is_found_and_named() {
    require_tools!();
    let (shop, key, stranger) = (Shop::open(), Key::new(), Key::new());
    let ernstfall = with_key(&shop, &key);
    let id = backup(&ernstfall);
    let of_stranger = backup(&encrypted(&shop, &[&stranger], None));
    let object = shop.manifest(&id)["data"][0].clone();
    let file = shop.object_file(&object);
    let whole = fs::read(&file).unwrap();
    let manifest = fs::read(shop.manifest_file(&id)).unwrap();
    let other = fs::read(shop.object_file(&shop.manifest(&of_stranger)["data"][0])).unwrap();
    let clear = fs::read(shop.object_file(&shop.manifest(&backup(&shop.ernstfall()))["data"][0])).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let is_bad = |what: &str| {
        let record = restore_test(&ernstfall, &id).expect_code(3).json();
        assert_eq!(record["verdict"], "failed", "{what}: {record:#}");
        let reason = record["reason"].as_str().unwrap();
        assert!(
            reason.contains(object["key"].as_str().unwrap()),
            "{what}: {reason}"
        );
    };
    for (what, bytes) in [
        ("cut", &whole[..whole.len() - 20]),
        ("cut in the header", &whole[..50]),
        ("flipped", &flipped),
        ("of another key", &other),
        ("in the clear", &clear),
        ("empty", &[]),
    ] {
        // Size and SHA-256 are made to fit: the key fits too, and the object does not decrypt.
        replace(&shop, &id, bytes);
        is_bad(what);
        overwrite(&shop.manifest_file(&id), &manifest);
    }
    overwrite(&file, &other);
    is_bad("of another key, as the manifest tells");
    overwrite(&file, &whole);
    restore_test(&ernstfall, &id).expect_code(0);
}
