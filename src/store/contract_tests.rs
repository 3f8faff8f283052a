//! What every store does, whatever it is made of: one suite, run over all of them.

use std::sync::Arc;

use bytes::Bytes;

use crate::store::directory::Directory;
use crate::store::faulty::Faulty;
use crate::store::memory::Memory;
use crate::store::{Key, Store};

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

async fn put(store: &dyn Store, text: &str, bytes: &'static str) {
    store.put_new(&key(text), Bytes::from(bytes)).await.unwrap();
}

async fn keeps_the_contract(store: Arc<dyn Store>) {
    an_object_reads_back_whole(&*store).await;
    what_exists_is_never_replaced(&*store).await;
    of_many_writers_one_wins(store.clone()).await;
    listings_are_recursive_sorted_and_by_folder(&*store).await;
    what_is_deleted_is_gone_and_deleting_twice_is_no_fault(&*store).await;
    errors_name_operation_key_and_place(&*store).await;
}

async fn an_object_reads_back_whole(store: &dyn Store) {
    let big = Bytes::from((0..3_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>());
    store.put_new(&key("whole/big"), big.clone()).await.unwrap();
    assert_eq!(store.get(&key("whole/big")).await.unwrap(), big);
    put(store, "whole/empty", "").await;
    assert!(store.get(&key("whole/empty")).await.unwrap().is_empty());
    assert!(store.get(&key("whole/none")).await.unwrap_err().is_not_found());
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
    let keys: Vec<&str> = listed.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["list/a/1", "list/a/2", "list/b"]);
    assert!(listed.iter().all(|object| object.size_bytes == 2));
    assert!(store.list("lis").await.unwrap().is_empty());
    assert!(store.list("list/a/none").await.unwrap().is_empty());
    let all = store.list("").await.unwrap();
    assert!(all.iter().any(|object| object.key.as_str() == "listing/c"));
}

async fn what_is_deleted_is_gone_and_deleting_twice_is_no_fault(store: &dyn Store) {
    put(store, "delete/a", "x").await;
    let freed = store.delete(&key("delete/a")).await.unwrap();
    assert_eq!((freed.bytes, freed.kept), (1, None));
    assert!(store.get(&key("delete/a")).await.unwrap_err().is_not_found());
    assert!(store.list("delete").await.unwrap().is_empty());
    let again = store.delete(&key("delete/a")).await.unwrap();
    assert_eq!((again.bytes, again.kept), (0, None));
    put(store, "delete/a", "again").await;
}

async fn errors_name_operation_key_and_place(store: &dyn Store) {
    let message = store.get(&key("errors/none")).await.unwrap_err().to_string();
    assert!(message.starts_with("read `errors/none` in "), "{message}");
    assert!(message.contains(&store.describe()), "{message}");
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    keeps_the_contract(Arc::new(Memory::new())).await;
}

#[tokio::test]
async fn a_directory_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    keeps_the_contract(Arc::new(Directory::new(folder.path()))).await;
}

#[tokio::test]
async fn a_faulty_store_without_faults_keeps_the_contract() {
    keeps_the_contract(Arc::new(Faulty::new(Arc::new(Memory::new())))).await;
}
