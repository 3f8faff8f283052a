//! Where objects live: whole objects under keys, added once and never changed.
//!
//! A store knows nothing of backups. It asks of a backend only what a directory and a bucket both give.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

pub mod key;
pub mod error;
pub mod directory;
pub mod memory;
pub mod faulty;
pub mod s3;
pub(crate) mod durable;
pub(crate) mod random;

pub use error::{Error, ErrorKind, Operation};
pub use key::{InvalidKey, Key};

/// A place for objects. `tests/it/store_contract.rs` says what each backend must do.
#[async_trait]
pub trait Store: Send + Sync {
    /// Creates an object: whole and durable, or not at all. What exists is never replaced, not even by equal bytes.
    ///
    /// A caller that stops waiting does not stop the write: the object may appear a little later.
    async fn put_new(&self, key: &Key, bytes: Bytes) -> Result<(), Error>;

    async fn get(&self, key: &Key) -> Result<Bytes, Error>;

    /// Every object in the folder and below, sorted by key; the empty folder means all. No such folder: nothing.
    async fn list(&self, folder: &str) -> Result<Vec<Listed>, Error>;

    /// Of such a listing what is wanted: for a folder with so much in it that no more may be held at once.
    async fn list_only(&self, folder: &str, wanted: Wanted) -> Result<Vec<Listed>, Error> {
        let mut listed = self.list(folder).await?;
        listed.retain(|object| wanted(&object.key));
        Ok(listed)
    }

    /// The names of the folders that lie directly in this one and hold objects, sorted. What lies in them is not listed.
    async fn folders(&self, folder: &str) -> Result<Vec<String>, Error>;

    /// Removes an object, with all its versions where the store keeps some; one that is not there is removed already.
    async fn delete(&self, key: &Key) -> Result<Freed, Error>;

    /// Where this is, for messages; never with a secret.
    fn describe(&self) -> String;

    /// What this place does where places differ, tried on an object that is there and need not stay as it is.
    async fn abilities(&self, probe: &Key) -> Result<Abilities, Error> {
        let again = self.put_new(probe, Bytes::new()).await;
        match again {
            Err(error) if !error.is_already_exists() => Err(error),
            again => Ok(Abilities {
                conditional_puts: again.is_err(),
                keeps_versions: Some(false),
            }),
        }
    }
}

/// Whether an object is of use; asked once for each.
pub type Wanted = Arc<dyn Fn(&Key) -> bool + Send + Sync>;

/// What a place does with objects, where places differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// Whether of two puts at the same moment only one succeeds; else a put is a look whether it is there, and then a put.
    pub conditional_puts: bool,
    /// Whether what was deleted is kept as an old version; absent where that may not be asked.
    pub keeps_versions: Option<bool>,
}

/// An object that a listing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: Key,
    pub size_bytes: u64,
    pub modified: DateTime<Utc>,
}

/// What removing an object gave back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Space that is free now; an object that was not there frees none.
    pub bytes: u64,
    /// Why the object's space stays taken although it is gone from every listing: versions that may not be removed.
    pub kept: Option<String>,
}
