//! What several unit tests need: a repository in memory, and backups that look real.

use std::sync::Arc;

pub(crate) use crate::model::samples::{id, manifest, target, time};
use crate::repository::Repository;
use crate::store::faulty::Faulty;
use crate::store::memory::Memory;

/// An empty repository, and the store below it, to be made faulty.
pub(crate) async fn memory_repository() -> (Repository, Arc<Faulty>) {
    let store = Arc::new(Faulty::new(Arc::new(Memory::new())));
    let repository = Repository::open_or_create(store.clone(), time(0)).await.unwrap();
    (repository, store)
}
