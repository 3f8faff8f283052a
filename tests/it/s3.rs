//! The whole program on an S3 bucket: every command, every fault of a server, every clear error.

use std::time::Duration;

use serde_json::Value;

use crate::shop::{Shop, content, wait_for};
use crate::support::account::Account;
use crate::support::ernstfall::{Ernstfall, Output};
use crate::support::s3::{ADMIN, BUCKET, Conditions, Fault, READER, S3Server, User, WRITER};
use crate::support::tls::{CA, LOCAL_NAMES, make_certificates};

/// A shop whose backups are in a bucket.
struct Place {
    shop: Shop,
    server: S3Server,
}

impl Place {
    fn open() -> Self {
        Self {
            shop: Shop::open(),
            server: S3Server::start(),
        }
    }

    fn ernstfall(&self) -> Ernstfall {
        self.with(&self.server.repository_lines())
    }

    fn with(&self, lines: &str) -> Ernstfall {
        // Without this a missing key would be looked for at the machine's own provider.
        let ernstfall = self.shop.ernstfall().repository(lines);
        ernstfall.environment("AWS_EC2_METADATA_DISABLED", "true")
    }

    fn backup(&self) -> String {
        let record = self
            .ernstfall()
            .run(["backup", "shop", "--json"])
            .expect_code(0)
            .json();
        record["backup"].as_str().expect("an id").to_owned()
    }

    fn restore_test(&self) -> Output {
        self.ernstfall().run(["restore-test", "shop", "--json"])
    }

    fn keys_with(&self, part: &str) -> Vec<String> {
        let keys = self.server.keys();
        keys.into_iter().filter(|key| key.contains(part)).collect()
    }

    fn manifest(&self, id: &str) -> Value {
        let key = format!("targets/shop/manifests/{id}.json");
        serde_json::from_slice(&self.server.object(&key).bytes.unwrap()).unwrap()
    }
}

/// Changes between two backups, so that these differ.
const MORE: &str = "insert into orders (customer, cents) values (1, 99)";

#[test]
fn backup_restore_test_restore_and_status_work_on_a_bucket() {
    let place = Place::open();
    everything_works(&place.shop, &|| place.ernstfall());
    assert_eq!(place.keys_with("/manifests/").len(), 1);
}

#[test]
#[ignore = "needs a server: make test-ceph"]
fn backup_restore_test_restore_and_status_work_on_a_real_bucket() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    for bucket in variable("ERNSTFALL_TEST_S3_BUCKETS").split(',') {
        let shop = Shop::open();
        let lines = format!(
            "url = \"s3://{bucket}/whole-{}\"\nendpoint = {:?}\npath_style = true\naccess_key_id = {:?}\nsecret_access_key = {:?}",
            std::process::id(),
            variable("ERNSTFALL_TEST_S3_ENDPOINT"),
            variable("ERNSTFALL_TEST_S3_KEY"),
            variable("ERNSTFALL_TEST_S3_SECRET")
        );
        everything_works(&shop, &|| shop.ernstfall().repository(&lines));
        let ernstfall = shop.ernstfall().repository(&lines);
        ernstfall.run(["check"]).expect_code(0);
        // What a killed backup stored goes, with all its versions where these may go.
        let mut running = ernstfall.pause_at("before-manifest").spawn(["backup", "shop"]);
        running.wait_until_paused("before-manifest");
        running.kill9();
        running.wait().expect_code(137);
        let next = shop
            .ernstfall()
            .repository(&lines)
            .run(["backup", "shop"])
            .expect_code(0);
        assert!(next.stderr.contains("had been interrupted"), "{}", next.stderr);
    }
}

fn everything_works(shop: &Shop, ernstfall: &dyn Fn() -> Ernstfall) {
    let backup = ernstfall()
        .run(["backup", "shop", "--json"])
        .expect_code(0)
        .json();
    let test = ernstfall()
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(
        (&test["verdict"], &test["backup"]),
        (&"passed".into(), &backup["backup"]),
        "{test:#}"
    );
    let status = ernstfall()
        .run(["status", "shop", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(status["recovery_point"], backup["recovery_point"]);
    let copy = shop.cluster.database("recovered");
    ernstfall()
        .run(["restore", "shop", "--to", &copy.socket_url()])
        .expect_code(0);
    assert_eq!(content(&copy), content(&shop.database));
    // What ran on one host is known on another that has nothing but the configuration.
    let other = shop.directory.join("other").display().to_string();
    let elsewhere = ernstfall().key("state_dir", &format!("{other:?}"));
    let records = elsewhere.run(["list", "records", "--json"]).expect_code(0).json();
    assert_eq!(records.as_array().unwrap().len(), 3, "{records:#}");
}

#[test]
fn faults_that_pass_do_not_make_a_run_fail() {
    let place = Place::open();
    place
        .server
        .fail("PutObject", "/data/", 2, Fault::error(503, "SlowDown"));
    place.server.fail(
        "PutObject",
        "contents.json",
        1,
        Fault::error(500, "InternalError"),
    );
    place.server.fail(
        "PutObject",
        "schema.dump",
        1,
        Fault::error(409, "ConditionalRequestConflict"),
    );
    place.server.fail("PutObject", "roles.sql", 1, Fault::LoseAnswer);
    place
        .server
        .fail("PutObject", "/manifests/", 1, Fault::LoseAnswer);
    place.server.fail("PutObject", "records/", 1, Fault::LoseAnswer);
    place.server.fail("GetObject", "/data/", 1, Fault::CutBody);
    place
        .server
        .fail("GetObject", "contents.json", 2, Fault::error(503, "SlowDown"));
    place
        .server
        .fail("ListObjectsV2", "", 1, Fault::error(503, "ServiceUnavailable"));
    let id = place.backup();
    assert_eq!(
        place.keys_with("/manifests/"),
        [format!("targets/shop/manifests/{id}.json")]
    );
    let test = place.restore_test().expect_code(0).json();
    assert_eq!(test["backup"], id.as_str());
    assert_eq!(place.server.faults_left(), 0);
    let records = place
        .ernstfall()
        .run(["list", "records", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(records.as_array().unwrap().len(), 2, "{records:#}");
}

#[test]
fn a_server_without_conditional_puts_takes_backups_all_the_same() {
    let place = Place::open();
    place.server.set_conditions(Conditions::Refused);
    place.backup();
    place.restore_test().expect_code(0);
}

#[test]
fn what_a_killed_backup_stored_is_removed_with_all_its_versions() {
    let place = Place::open();
    place.server.keep_versions();
    let mut running = place
        .ernstfall()
        .pause_at("before-manifest")
        .spawn(["backup", "shop"]);
    running.wait_until_paused("before-manifest");
    running.kill9();
    running.wait().expect_code(137);
    let left = place.keys_with("/backups/");
    assert!(!left.is_empty() && place.keys_with("/manifests/").is_empty());
    let output = place.ernstfall().run(["backup", "shop", "--json"]).expect_code(0);
    assert!(
        output.stderr.contains("had been interrupted"),
        "{}",
        output.stderr
    );
    let now = place.server.keys();
    assert!(left.iter().all(|key| !now.contains(key)), "{left:?} {now:?}");
    assert_eq!(place.server.versions(), now.len(), "old versions stayed");
}

/// Prunes all but the newest backup, and what is left of it two days later; the record of that.
fn prune_in_two_steps(place: &Place) -> Value {
    let prune = || {
        let keeping = place.ernstfall().target_key("retention", "{ last = 1 }");
        keeping.run(["prune", "shop", "--json"]).expect_code(0).json()
    };
    let first = prune();
    assert_eq!(first["removed"].as_array().unwrap().len(), 1, "{first:#}");
    place.server.age(std::time::Duration::from_secs(48 * 3600));
    prune()
}

#[test]
fn what_prune_removes_is_gone_with_all_its_versions_and_the_freed_space_is_told() {
    let place = Place::open();
    place.server.keep_versions();
    let (old, new) = (place.backup(), place.backup());
    let stored = place.manifest(&old)["totals"]["stored_bytes"].clone();
    let record = prune_in_two_steps(&place);
    assert!(place.keys_with(&old).is_empty());
    assert!(!place.keys_with(&new).is_empty());
    assert_eq!(
        place.server.versions(),
        place.server.keys().len(),
        "old versions stayed"
    );
    // The tombstone takes some bytes more.
    assert!(record["freed_bytes"].as_u64() > stored.as_u64(), "{record:#}");
    assert_eq!(record["kept"], serde_json::json!([]));
    place.restore_test().expect_code(0);
}

#[test]
fn versions_that_may_not_be_removed_are_told_and_count_as_no_freed_space() {
    let place = Place::open();
    place.server.keep_versions();
    let old = place.backup();
    place.backup();
    let before = place.server.versions();
    place.server.lock_versions();
    let record = prune_in_two_steps(&place);
    assert!(place.keys_with(&old).is_empty());
    assert_eq!(record["freed_bytes"], 0, "{record:#}");
    let kept = record["kept"].as_array().unwrap();
    assert!(
        kept.iter()
            .any(|line| line.as_str().unwrap().contains("may not be removed")),
        "{record:#}"
    );
    assert!(place.server.versions() >= before, "what is locked stays");
    place.restore_test().expect_code(0);
}

#[test]
fn a_backup_whose_put_fails_for_good_fails_and_leaves_nothing() {
    let place = Place::open();
    place.server.fail(
        "PutObject",
        "contents.json",
        1,
        Fault::error(403, "QuotaExceeded"),
    );
    let output = place.ernstfall().run(["backup", "shop"]).expect_code(1);
    assert!(
        output.stderr.contains("no space left") && output.stderr.contains("quota"),
        "{}",
        output.stderr
    );
    assert!(place.keys_with("/backups/").is_empty() && place.keys_with("/manifests/").is_empty());
    place.backup();
}

#[test]
fn a_bucket_that_hangs_in_the_middle_of_a_backup_delays_no_stop() {
    let place = Place::open();
    place
        .server
        .fail("PutObject", "contents.json", 1000, Fault::NoAnswer);
    place.server.fail("PutObject", "records/", 1000, Fault::NoAnswer);
    let running = place
        .ernstfall()
        .deadline(Duration::from_secs(60))
        .spawn(["backup", "shop"]);
    wait_for("the bucket hangs", || place.server.faults_left() < 2000);
    running.interrupt();
    let output = running.wait().expect_code(130);
    assert!(
        output.stderr.contains("stay behind") && output.stderr.contains("prune"),
        "{}",
        output.stderr
    );
    place.server.mend();
    let listed = place.ernstfall().run(["list", "records", "--json"]).json();
    let record = &listed[0]["record"];
    assert_eq!(record["outcome"], "cancelled", "{listed:#}");
    place.backup();
}

#[test]
fn a_damaged_object_in_the_bucket_makes_the_backup_bad() {
    let place = Place::open();
    let first = place.backup();
    place.shop.database.execute(MORE);
    let id = place.backup();
    let manifest = place.manifest(&id);
    let key = manifest["data"][0]["key"].as_str().unwrap();
    let mut bytes = place.server.object(key).bytes.unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    place.server.overwrite(key, &bytes);
    let test = place.restore_test().expect_code(3).json();
    assert_eq!(test["verdict"], "failed");
    assert!(test["reason"].as_str().unwrap().contains(key), "{test:#}");
    let status = place.ernstfall().run(["status", "shop", "--json"]).json();
    assert_eq!(status["recovery_point"], place.manifest(&first)["recovery_point"]);
}

#[test]
fn a_bucket_out_of_reach_says_nothing_against_a_backup() {
    let place = Place::open();
    place.backup();
    for (fault, told) in [
        (Fault::error(503, "SlowDown"), "SlowDown"),
        (Fault::error(403, "AccessDenied"), "allow s3:GetObject"),
        (Fault::error(400, "ExpiredToken"), "get new ones"),
    ] {
        place.server.fail("GetObject", "/data/", 1000, fault);
        let test = place.restore_test().expect_code(1).json();
        assert_eq!(test["verdict"], "could-not-run", "{test:#}");
        assert!(test["reason"].as_str().unwrap().contains(told), "{test:#}");
        place.server.mend();
    }
    place.restore_test().expect_code(0);
    let lines = place.server.repository_lines();
    let (shop, server) = (place.shop, place.server);
    drop(server);
    let ernstfall = shop.ernstfall().repository(&lines);
    for command in ["backup", "restore-test", "status"] {
        let output = ernstfall.run([command, "shop"]).expect_code(1);
        assert!(
            output.stderr.contains("nobody listens at http://127.0.0.1"),
            "{}",
            output.stderr
        );
    }
}

#[test]
fn each_refusal_says_the_next_step_and_no_secret() {
    let place = Place::open();
    place.backup();
    let skewed = Fault::error(403, "RequestTimeTooSkewed");
    let elsewhere = Fault::Error {
        code: "PermanentRedirect",
        status: 301,
        message: "The bucket you are attempting to access must be addressed using the specified endpoint",
        region: Some("eu-central-1"),
    };
    for (fault, hints) in [
        (skewed, ["clock says", "timedatectl"]),
        (
            elsewhere,
            ["the region eu-central-1", "repository.region = \"eu-central-1\""],
        ),
        (Fault::error(400, "ExpiredToken"), ["expired", "get new ones"]),
        (
            Fault::error(403, "AccessDenied"),
            ["allow s3:GetObject", "s3:ListBucket"],
        ),
    ] {
        place.server.fail("GetObject", "ernstfall.json", 1, fault);
        refuses(&place.ernstfall(), hints);
    }
    let stranger = User {
        key: "stranger",
        ..ADMIN
    };
    refuses(
        &place.with(&place.server.lines_of(stranger)),
        ["InvalidAccessKeyId", "correct `access_key_id`"],
    );
    let forger = User {
        secret: "hunter2-of-forger",
        ..ADMIN
    };
    refuses(
        &place.with(&place.server.lines_of(forger)),
        ["SignatureDoesNotMatch", "correct `secret_access_key`"],
    );
    let lines = place.server.repository_lines();
    let no_bucket = lines.replace(&format!("s3://{BUCKET}"), "s3://elsewhere");
    refuses(&place.with(&no_bucket), ["no bucket `elsewhere`", "create it"]);
    let no_host = lines.replace(&place.server.endpoint(), "http://no-such-host.invalid");
    refuses(
        &place.with(&no_host),
        ["no-such-host.invalid is not known", "repository.endpoint"],
    );
    let without_keys: String = lines
        .lines()
        .filter(|line| !line.contains("_key"))
        .map(|line| format!("{line}\n"))
        .collect();
    refuses(
        &place.with(&without_keys),
        ["no credentials were found", "access_key_id"],
    );
}

fn refuses(ernstfall: &Ernstfall, hints: [&str; 2]) {
    let output = ernstfall.run(["status", "shop"]).expect_code(1);
    for hint in hints {
        assert!(output.stderr.contains(hint), "{hint}: {}", output.stderr);
    }
    assert!(!output.stderr.contains("hunter2"), "{}", output.stderr);
}

#[test]
fn the_standard_chain_finds_credentials_in_the_environment_and_in_a_file() {
    let place = Place::open();
    let lines = place.server.repository_lines();
    let without_keys: String = lines
        .lines()
        .filter(|line| !line.contains("_key"))
        .map(|line| format!("{line}\n"))
        .collect();
    let ernstfall = place
        .with(&without_keys)
        .environment("AWS_ACCESS_KEY_ID", ADMIN.key)
        .environment("AWS_SECRET_ACCESS_KEY", ADMIN.secret);
    ernstfall.run(["backup", "shop"]).expect_code(0);
    let text = format!(
        "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        ADMIN.key, ADMIN.secret
    );
    let file = place.shop.directory.write("credentials", text);
    let ernstfall = place
        .with(&without_keys)
        .environment("AWS_SHARED_CREDENTIALS_FILE", file);
    ernstfall.run(["restore-test", "shop"]).expect_code(0);
}

#[test]
fn a_host_that_may_only_write_backs_up_and_another_restores() {
    let place = Place::open();
    let writer = place.with(&place.server.lines_of(WRITER));
    let id = writer.run(["backup", "shop", "--json"]).expect_code(0).json()["backup"].clone();
    // The second one finds the repository, the target and the records of the first.
    writer.run(["backup", "shop"]).expect_code(0);
    let status = writer.run(["status", "shop", "--json"]).json();
    assert_eq!(status["problems"].as_array().unwrap().len(), 1, "{status:#}");
    let denied = writer
        .run(["restore-test", "shop", "--json"])
        .expect_code(1)
        .json();
    assert_eq!(denied["verdict"], "could-not-run");
    assert!(
        denied["reason"].as_str().unwrap().contains("allow s3:GetObject"),
        "{denied:#}"
    );
    let both = place.with(&place.server.lines_of_two(WRITER, READER));
    both.run(["restore-test", "shop", "--backup", id.as_str().unwrap()])
        .expect_code(0);
    both.run(["backup", "shop"]).expect_code(0);
}

#[test]
fn a_failed_backup_of_a_host_that_may_not_delete_says_what_stays() {
    let place = Place::open();
    place.server.fail(
        "PutObject",
        "contents.json",
        1,
        Fault::error(403, "QuotaExceeded"),
    );
    let output = place
        .with(&place.server.lines_of(WRITER))
        .run(["backup", "shop"])
        .expect_code(1);
    assert!(
        output.stderr.contains("stay behind") && output.stderr.contains("prune"),
        "{}",
        output.stderr
    );
    assert!(
        output.stderr.contains("allow s3:DeleteObject"),
        "{}",
        output.stderr
    );
    assert!(!place.keys_with("/backups/").is_empty() && place.keys_with("/manifests/").is_empty());
}

#[test]
fn check_tells_what_the_bucket_and_the_credentials_allow() {
    let place = Place::open();
    let line = |ernstfall: &Ernstfall, subject: &str| {
        let lines = ernstfall.run(["check", "--json"]).json();
        let found = lines
            .as_array()
            .unwrap()
            .iter()
            .find(|line| line["area"] == "repository" && line["subject"] == subject);
        found
            .unwrap_or_else(|| panic!("no {subject} in {lines:#}"))
            .clone()
    };
    let admin = place.ernstfall();
    admin.run(["check"]).expect_code(0);
    assert!(place.server.keys().is_empty(), "{:?}", place.server.keys());
    for subject in ["access", "replacing", "removal"] {
        assert_eq!(line(&admin, subject)["result"], "ok", "{subject}");
    }
    for conditions in [Conditions::Ignored, Conditions::Refused] {
        place.server.set_conditions(conditions);
        let line = line(&admin, "replacing");
        assert_eq!(line["result"], "warning", "{conditions:?}: {line}");
        assert!(
            line["message"]
                .as_str()
                .unwrap()
                .contains("does not honour conditional puts"),
            "{line}"
        );
    }
    place.server.set_conditions(Conditions::Honoured);
    let writer = place.with(&place.server.lines_of(WRITER));
    writer.run(["check"]).expect_code(0);
    for (subject, remedy) in [("access", "repository.read"), ("removal", "prune")] {
        let line = line(&writer, subject);
        assert_eq!(line["result"], "warning", "{line}");
        assert!(line["remedy"].as_str().unwrap().contains(remedy), "{line}");
    }
    let both = place.with(&place.server.lines_of_two(WRITER, READER));
    assert_eq!(line(&both, "access")["result"], "ok");
    place.server.keep_versions();
    assert!(
        line(&admin, "versions")["message"]
            .as_str()
            .unwrap()
            .contains("with all its versions")
    );
    place.server.lock_versions();
    assert!(
        line(&admin, "removal")["message"]
            .as_str()
            .unwrap()
            .contains("still takes space")
    );
}

#[test]
fn a_server_with_an_authority_of_its_own_is_trusted_once_that_is_named() {
    let place = Place::open();
    let certificates = place.shop.directory.join("certificates");
    std::fs::create_dir(&certificates).unwrap();
    Account::unprivileged().own(&certificates);
    make_certificates(&certificates, LOCAL_NAMES);
    let endpoint = place.server.tls_endpoint(&certificates);
    let lines = place
        .server
        .repository_lines()
        .replace(&place.server.endpoint(), &endpoint);
    refuses(&place.with(&lines), ["is not trusted", "repository.ca_file"]);
    let authority = certificates.join(CA).display().to_string();
    let trusting = place.with(&format!("{lines}\nca_file = {authority:?}"));
    trusting.run(["backup", "shop"]).expect_code(0);
    trusting.run(["restore-test", "shop"]).expect_code(0);
}

#[test]
fn ten_thousand_backups_are_one_listing_and_fetched_once() {
    const BACKUPS: u64 = 10_000;
    let place = Place::open();
    let id = place.backup();
    let manifest = place.manifest(&id).to_string();
    let (_, suffix) = id.split_once('-').unwrap();
    let begin: chrono::DateTime<chrono::Utc> = "2020-01-01T00:00:00Z".parse().unwrap();
    for number in 1..BACKUPS {
        let at = begin + chrono::TimeDelta::minutes(30 * number as i64);
        let earlier = format!("{}-{suffix}", at.format("%Y%m%dT%H%M%SZ"));
        let mut manifest: Value = serde_json::from_str(&manifest.replace(&id, &earlier)).unwrap();
        manifest["recovery_point"]["at"] = at.to_rfc3339().into();
        let key = format!("targets/shop/manifests/{earlier}.json");
        place.server.put(&key, serde_json::to_vec(&manifest).unwrap());
    }
    let requests = || ["ListObjectsV2", "GetObject"].map(|operation| place.server.requests(operation));
    let status = || {
        let before = requests();
        let status = place.ernstfall().run(["status", "shop", "--json"]).json();
        assert_eq!(status["counts"]["backups"], BACKUPS);
        assert_eq!(status["newest_backup"]["id"], id.as_str());
        let after = requests();
        [after[0] - before[0], after[1] - before[1]]
    };
    let [_, fetched] = status();
    assert!(fetched >= BACKUPS - 1, "{fetched}");
    // Pages of a thousand manifests, one page of records; the repository's description, and a record to compare.
    let again = status();
    assert!(again[0] <= BACKUPS / 1000 + 1 && again[1] <= 3, "{again:?}");
}
