//! What every store does, whatever it is made of: one suite, run over all of them.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ernstfall::model::secret::Secret;
use ernstfall::store::directory::Directory;
use ernstfall::store::faulty::Faulty;
use ernstfall::store::memory::Memory;
use ernstfall::store::s3::{Bucket, Credentials, Settings};
use ernstfall::store::{ErrorKind, Key, Store};
use futures_util::{StreamExt, stream};

use crate::support::full_disk::FullDisk;
use crate::support::s3::{ADMIN, BUCKET, Conditions, Fault, PREFIX, READER, S3Server, User, WRITER};
use crate::support::skip::require;

/// More than two pages of a bucket's listing.
const MANY: usize = 2_500;

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn put(store: &dyn Store, text: &str, bytes: &'static str) {
    store.put_new(&key(text), Bytes::from(bytes)).await.unwrap();
}

async fn keys(store: &dyn Store, folder: &str) -> Vec<String> {
    let listed = store.list(folder).await.unwrap();
    listed.iter().map(|object| object.key.to_string()).collect()
}

async fn keeps_the_contract(store: Arc<dyn Store>) {
    an_object_reads_back_whole(&*store).await;
    what_exists_is_never_replaced(&*store).await;
    if puts_are_conditional(&*store).await {
        of_many_writers_one_wins(store.clone()).await;
    }
    listings_are_recursive_sorted_and_by_folder(&*store).await;
    keys_may_have_spaces_and_letters_of_all_kinds(&*store).await;
    a_folder_of_many_objects_is_listed_whole(&*store).await;
    what_is_deleted_is_gone_and_deleting_twice_is_no_fault(&*store).await;
    errors_name_operation_key_and_place(&*store).await;
}

async fn an_object_reads_back_whole(store: &dyn Store) {
    let big = Bytes::from((0..20_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>());
    store.put_new(&key("whole/big"), big.clone()).await.unwrap();
    assert_eq!(store.get(&key("whole/big")).await.unwrap(), big);
    put(store, "whole/empty", "").await;
    assert!(store.get(&key("whole/empty")).await.unwrap().is_empty());
    assert!(store.get(&key("whole/none")).await.unwrap_err().is_not_found());
    let listed = store.list("whole").await.unwrap();
    let sizes: Vec<u64> = listed.iter().map(|object| object.size_bytes).collect();
    assert_eq!(sizes, [20_000_000, 0]);
}

async fn what_exists_is_never_replaced(store: &dyn Store) {
    put(store, "once/a", "first").await;
    for bytes in ["first", "second"] {
        let error = store
            .put_new(&key("once/a"), Bytes::from(bytes))
            .await
            .unwrap_err();
        assert!(error.is_already_exists(), "{error}");
    }
    assert_eq!(store.get(&key("once/a")).await.unwrap(), "first");
}

/// Where they are not, a put is a look and a put, and two at the same moment may both succeed.
async fn puts_are_conditional(store: &dyn Store) -> bool {
    let probe = key("abilities/probe");
    put(store, "abilities/probe", "probe").await;
    let abilities = store.abilities(&probe).await.unwrap();
    store.delete(&probe).await.unwrap();
    eprintln!("{}: {abilities:?}", store.describe());
    abilities.conditional_puts
}

async fn of_many_writers_one_wins(store: Arc<dyn Store>) {
    let writers: Vec<_> = (0..8)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                store
                    .put_new(&key("race/deep/a"), Bytes::from(vec![n; 1000]))
                    .await
            })
        })
        .collect();
    let mut won = Vec::new();
    for (n, writer) in writers.into_iter().enumerate() {
        match writer.await.unwrap() {
            Ok(()) => won.push(n as u8),
            Err(error) => assert!(error.is_already_exists(), "{error}"),
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!(store.get(&key("race/deep/a")).await.unwrap(), vec![won[0]; 1000]);
}

async fn listings_are_recursive_sorted_and_by_folder(store: &dyn Store) {
    for text in ["list/b", "list/a/2", "list/a/1", "listing/c"] {
        put(store, text, "xy").await;
    }
    let listed = store.list("list").await.unwrap();
    assert_eq!(keys(store, "list").await, ["list/a/1", "list/a/2", "list/b"]);
    assert!(listed.iter().all(|object| object.size_bytes == 2));
    assert!(store.list("lis").await.unwrap().is_empty());
    assert!(store.list("list/a/none").await.unwrap().is_empty());
    let wanted: ernstfall::store::Wanted = Arc::new(|key| key.as_str().ends_with('2'));
    let only = store.list_only("list", wanted).await.unwrap();
    assert_eq!(only, [listed[1].clone()]);
    assert_eq!(store.folders("list").await.unwrap(), ["a"]);
    assert!(store.folders("list/a").await.unwrap().is_empty());
    assert!(store.folders("lis").await.unwrap().is_empty());
    let top = store.folders("").await.unwrap();
    assert!(
        ["list", "listing"]
            .iter()
            .all(|name| top.contains(&(*name).to_owned())),
        "{top:?}"
    );
    let all = store.list("").await.unwrap();
    assert!(all.iter().any(|object| object.key.as_str() == "listing/c"));
}

async fn keys_may_have_spaces_and_letters_of_all_kinds(store: &dyn Store) {
    let odd = [
        "odd/a b",
        "odd/a+b",
        "odd/a%20b",
        "odd/grüße&<x>",
        "odd/日本 語",
        "odd/=?#;:@'\"!",
    ];
    for text in odd {
        put(store, text, "odd").await;
    }
    let mut expected = odd.map(str::to_owned);
    expected.sort();
    assert_eq!(keys(store, "odd").await, expected);
    for text in odd {
        assert_eq!(store.get(&key(text)).await.unwrap(), "odd", "{text}");
        assert_eq!(store.delete(&key(text)).await.unwrap().bytes, 3, "{text}");
    }
    assert!(keys(store, "odd").await.is_empty());
}

async fn a_folder_of_many_objects_is_listed_whole(store: &dyn Store) {
    let expected: Vec<String> = (0..MANY).map(|n| format!("many/{n:05}")).collect();
    let puts = stream::iter(expected.clone()).map(|text| async move {
        store.put_new(&key(&text), Bytes::from("x")).await.unwrap();
    });
    puts.buffer_unordered(16).collect::<Vec<()>>().await;
    assert_eq!(keys(store, "many").await, expected);
}

async fn what_is_deleted_is_gone_and_deleting_twice_is_no_fault(store: &dyn Store) {
    put(store, "delete/a", "four").await;
    put(store, "delete/ab", "stays").await;
    let freed = store.delete(&key("delete/a")).await.unwrap();
    assert_eq!((freed.bytes, freed.kept), (4, None));
    assert!(store.get(&key("delete/a")).await.unwrap_err().is_not_found());
    assert_eq!(keys(store, "delete").await, ["delete/ab"]);
    let again = store.delete(&key("delete/a")).await.unwrap();
    assert_eq!((again.bytes, again.kept), (0, None));
    put(store, "delete/a", "again").await;
    assert_eq!(store.delete(&key("delete/a")).await.unwrap().bytes, 5);
}

async fn errors_name_operation_key_and_place(store: &dyn Store) {
    let message = store.get(&key("errors/none")).await.unwrap_err().to_string();
    assert!(message.starts_with("read `errors/none` in "), "{message}");
    assert!(message.contains(&store.describe()), "{message}");
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    let store = Arc::new(Memory::new());
    assert!(puts_are_conditional(&*store).await);
    keeps_the_contract(store).await;
}

#[tokio::test]
async fn a_directory_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Directory::new(folder.path()));
    assert!(puts_are_conditional(&*store).await);
    keeps_the_contract(store).await;
}

#[tokio::test]
async fn a_faulty_store_without_faults_keeps_the_contract() {
    keeps_the_contract(Arc::new(Faulty::new(Arc::new(Memory::new())))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_the_contract() {
    let server = S3Server::start();
    let store = Arc::new(Bucket::new(settings(&server, ADMIN)));
    assert!(puts_are_conditional(&*store).await);
    keeps_the_contract(store).await;
    assert!(server.requests("ListObjectsV2") > 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_without_prefix_keeps_the_contract() {
    let server = S3Server::start();
    let settings = Settings {
        prefix: String::new(),
        ..settings(&server, ADMIN)
    };
    keeps_the_contract(Arc::new(Bucket::new(settings))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_versions_keeps_the_contract_and_frees_space() {
    let server = S3Server::start();
    server.keep_versions();
    let store = Bucket::new(settings(&server, ADMIN));
    keeps_the_contract(Arc::new(store)).await;
    // Every version that was deleted is gone: what is left is what is listed.
    assert_eq!(server.versions(), server.keys().len());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server: make test-ceph"]
async fn a_real_bucket_keeps_the_contract() {
    for (number, settings) in real_buckets().into_iter().enumerate() {
        let prefix = format!("contract-{number}-{}", std::process::id());
        keeps_the_contract(Arc::new(Bucket::new(Settings { prefix, ..settings }))).await;
    }
}

/// Set by `make test-ceph`: endpoint, access key, secret, and buckets separated by commas.
fn real_buckets() -> Vec<Settings> {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let endpoint = variable("ERNSTFALL_TEST_S3_ENDPOINT");
    let (key, secret) = (
        variable("ERNSTFALL_TEST_S3_KEY"),
        variable("ERNSTFALL_TEST_S3_SECRET"),
    );
    let buckets = variable("ERNSTFALL_TEST_S3_BUCKETS");
    let bucket = |name: &str| Settings {
        bucket: name.to_owned(),
        endpoint: Some(endpoint.clone()),
        path_style: true,
        checksums: true,
        credentials: Some(Credentials {
            access_key_id: Secret::new(key.clone()),
            secret_access_key: Secret::new(secret.clone()),
            session_token: None,
        }),
        ..Settings::default()
    };
    buckets.split(',').map(bucket).collect()
}

fn settings(server: &S3Server, user: User) -> Settings {
    Settings {
        bucket: BUCKET.to_owned(),
        prefix: PREFIX.to_owned(),
        endpoint: Some(server.endpoint()),
        path_style: true,
        checksums: true,
        credentials: Some(credentials(user)),
        ..Settings::default()
    }
}

fn credentials(user: User) -> Credentials {
    Credentials {
        access_key_id: Secret::new(user.key),
        secret_access_key: Secret::new(user.secret),
        session_token: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_sent_with_its_checksum_and_as_the_settings_say() {
    let server = S3Server::start();
    let plain = Bucket::new(Settings {
        checksums: false,
        ..settings(&server, ADMIN)
    });
    put(&plain, "plain", "abc").await;
    let stored = server.object("plain");
    assert_eq!(
        (stored.checksum_sha256, stored.storage_class, stored.encryption),
        (None, None, None)
    );
    let special = Bucket::new(Settings {
        storage_class: Some("STANDARD_IA".to_owned()),
        server_side_encryption: Some("aws:kms".to_owned()),
        kms_key_id: Some("key-7".to_owned()),
        ..settings(&server, ADMIN)
    });
    put(&special, "special", "abc").await;
    let stored = server.object("special");
    let checksum = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";
    assert_eq!(stored.checksum_sha256.as_deref(), Some(checksum));
    assert_eq!(stored.storage_class.as_deref(), Some("STANDARD_IA"));
    assert_eq!(stored.encryption.as_deref(), Some("aws:kms"));
    assert_eq!(stored.kms_key_id.as_deref(), Some("key-7"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again() {
    let server = S3Server::start();
    let store = Bucket::new(settings(&server, ADMIN));
    server.fail("PutObject", "", 2, Fault::error(503, "SlowDown"));
    server.fail(
        "PutObject",
        "",
        1,
        Fault::error(409, "ConditionalRequestConflict"),
    );
    server.fail("GetObject", "", 2, Fault::CutBody);
    server.fail("ListObjectsV2", "", 1, Fault::error(500, "InternalError"));
    put(&store, "a", "four").await;
    assert_eq!(store.get(&key("a")).await.unwrap(), "four");
    assert_eq!(keys(&store, "").await, ["a"]);
    assert_eq!(server.faults_left(), 0);
    assert_eq!(server.requests("PutObject"), 4);
    // What does not pass is given up at once.
    server.fail("GetObject", "", 9, Fault::error(403, "AccessDenied"));
    let before = server.requests("GetObject");
    assert_eq!(
        store.get(&key("a")).await.unwrap_err().kind,
        ErrorKind::PermissionDenied
    );
    assert_eq!(server.requests("GetObject"), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_whose_answer_was_lost_is_found_to_exist() {
    let server = S3Server::start();
    let store = Bucket::new(settings(&server, ADMIN));
    server.fail("PutObject", "", 1, Fault::LoseAnswer);
    let error = store.put_new(&key("a"), Bytes::from("mine")).await.unwrap_err();
    assert!(error.is_already_exists(), "{error}");
    assert_eq!(store.get(&key("a")).await.unwrap(), "mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_conditional_puts_gets_plain_ones_after_a_look() {
    let server = S3Server::start();
    server.set_conditions(Conditions::Refused);
    let store = Bucket::new(settings(&server, ADMIN));
    put(&store, "a", "first").await;
    let again = store.put_new(&key("a"), Bytes::from("second")).await.unwrap_err();
    assert!(again.is_already_exists(), "{again}");
    assert_eq!(store.get(&key("a")).await.unwrap(), "first");
    // The refusal is remembered: one refused put, one plain one, and none for what was there.
    assert_eq!(server.requests("PutObject"), 2);
    assert!(!store.abilities(&key("a")).await.unwrap().conditional_puts);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_versions_whose_server_ignores_conditions_keeps_the_contract_but_for_races() {
    let server = S3Server::start();
    server.keep_versions();
    server.set_conditions(Conditions::Ignored);
    let store = Arc::new(Bucket::new(settings(&server, ADMIN)));
    assert!(!puts_are_conditional(&*store).await);
    keeps_the_contract(store).await;
    assert_eq!(server.versions(), server.keys().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn space_that_cannot_be_freed_is_told_and_the_object_is_gone() {
    let server = S3Server::start();
    server.keep_versions();
    server.lock_versions();
    let store = Bucket::new(settings(&server, ADMIN));
    put(&store, "locked", "four").await;
    let freed = store.delete(&key("locked")).await.unwrap();
    let kept = freed.kept.expect("a reason");
    assert_eq!(freed.bytes, 0);
    assert!(
        kept.contains("4 bytes") && kept.contains("AccessDenied"),
        "{kept}"
    );
    assert!(store.get(&key("locked")).await.unwrap_err().is_not_found());
    assert_eq!((server.keys().len(), server.versions()), (0, 1));
    // Where versions may not even be listed, the answer to the removal tells that one is kept.
    let store = Bucket::new(settings(&server, ADMIN));
    put(&store, "unseen", "four").await;
    server.fail("ListObjectVersions", "", 1, Fault::error(403, "AccessDenied"));
    let kept = store
        .delete(&key("unseen"))
        .await
        .unwrap()
        .kept
        .expect("a reason");
    assert!(kept.contains("may not be listed"), "{kept}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_write_and_credentials_that_read_are_used_each_for_its_own() {
    let server = S3Server::start();
    let both = Bucket::new(Settings {
        read_credentials: Some(credentials(READER)),
        ..settings(&server, WRITER)
    });
    put(&both, "targets/shop/backups/x/data", "rows").await;
    assert_eq!(
        both.get(&key("targets/shop/backups/x/data")).await.unwrap(),
        "rows"
    );
    let writer = Bucket::new(settings(&server, WRITER));
    let denied = writer
        .get(&key("targets/shop/backups/x/data"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        denied.contains("allow s3:GetObject") && denied.contains("s3:ListBucket"),
        "{denied}"
    );
    let denied = both
        .delete(&key("targets/shop/backups/x/data"))
        .await
        .unwrap_err();
    assert_eq!(denied.kind, ErrorKind::PermissionDenied);
    assert!(denied.to_string().contains("allow s3:Delete"), "{denied}");
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_keys_in_the_bucket_are_passed_over() {
    let server = S3Server::start();
    let whole = Bucket::new(Settings {
        prefix: "team".to_owned(),
        ..settings(&server, ADMIN)
    });
    put(&whole, "ab/beside", "x").await;
    let store = Bucket::new(settings(&server, ADMIN));
    put(&store, "mine", "x").await;
    assert_eq!(keys(&store, "").await, ["mine"]);
}

#[tokio::test]
async fn a_full_disk_is_an_error_with_advice_and_leaves_nothing() {
    require!(FullDisk::is_possible(), "only root can mount a small file system");
    let disk = FullDisk::of_megabytes(2);
    let store = Directory::new(disk.path());
    put(&store, "small", "x").await;
    let error = store
        .put_new(&key("folder/large"), Bytes::from(vec![7; 4 << 20]))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NoSpace);
    assert!(error.to_string().contains("bytes free"), "{error}");
    assert_eq!(keys(&store, "").await, ["small"]);
    assert_eq!(files_below(&disk.path().join(".tmp")), 0);
    put(&store, "folder/still-works", "x").await;
}

fn files_below(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}
