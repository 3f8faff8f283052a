//! Which objects make a backup, and which backups exist: a backup exists if and only if its manifest does.
//!
//! Objects are added and removed, never changed. What is read back is checked before it is believed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinError;

use crate::model::manifest::FORMAT;
use crate::store::random::random_hexadecimal;
use crate::store::{self, Key, Listed, Store};

pub mod keys;
mod cache;
pub mod error;
pub mod targets;
pub mod manifests;
pub mod objects;
pub mod records;
pub mod removal;
#[cfg(test)]
pub(crate) mod test_support;

use cache::{Cache, Others};

pub use error::{Error, ReadError};
pub use manifests::{Manifests, Unreadable};
pub use objects::sha256_hex;
pub use removal::{Inventory, Tombstone};
pub use targets::{OtherIdentity, TargetIdentity};

/// A repository that is there and that this version understands.
#[derive(Clone)]
pub struct Repository {
    store: Arc<dyn Store>,
    id: String,
    /// Absent: everything is fetched each time.
    cache: Option<Cache>,
}

/// Reads under way at once: enough to hide a bucket's latency, few enough to be polite.
const READS_AT_ONCE: usize = 16;

/// `ernstfall.json`: what the repository says of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    format: u32,
    id: String,
    created_at: DateTime<Utc>,
}

/// Read before the rest, so that a newer format is named and not called damage.
#[derive(Deserialize)]
struct FormatOnly {
    format: u64,
}

impl Repository {
    /// Opens the repository in this store; fails with a next step where there is none.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, Error> {
        match store.get(&keys::repository_key()).await {
            Ok(bytes) => {
                let id = read_description(&bytes, &store.describe())?.id;
                Ok(Self {
                    store,
                    id,
                    cache: None,
                })
            }
            Err(error) if error.is_not_found() => Err(Error::NoRepository {
                location: store.describe(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the repository in this store, and makes it at first use. Of two who make it at once, one wins.
    pub async fn open_or_create(store: Arc<dyn Store>, now: DateTime<Utc>) -> Result<Self, Error> {
        match Self::open(store.clone()).await {
            Err(Error::NoRepository { .. }) => {}
            opened => return opened,
        }
        let description = Description {
            format: FORMAT,
            id: random_hexadecimal::<16>().map_err(Error::Random)?,
            created_at: now,
        };
        let key = keys::repository_key();
        match store.put_new(&key, to_json(&key, &description)?).await {
            Err(error) if !error.is_already_exists() => Err(error.into()),
            _ => Self::open(store).await,
        }
    }

    /// Keeps copies of manifests and records in this directory of ours, a folder for each repository.
    pub fn cached_in(mut self, directory: &Path) -> Self {
        self.cache = Some(Cache::new(directory.join(&self.id)));
        self
    }

    /// Whether it is still there and the same: where the disk of a directory was unmounted, what is put lands beside it.
    pub async fn confirm(&self) -> Result<(), Error> {
        let found = Self::open(self.store.clone()).await?;
        if found.id == self.id {
            return Ok(());
        }
        Err(Error::Foreign {
            location: self.location(),
            reason: "it has become another repository meanwhile".to_owned(),
        })
    }

    /// What tells this repository from every other, wherever it is moved.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it is, for messages.
    pub fn location(&self) -> String {
        self.store.describe()
    }

    /// Creates an object; equal bytes stored already are as good, for a put whose answer was lost.
    async fn put_or_compare(&self, key: &Key, bytes: Bytes) -> Result<(), Error> {
        match self.store.put_new(key, bytes.clone()).await {
            Err(error) if error.is_already_exists() => {}
            result => return Ok(result?),
        }
        if self.store.get(key).await? == bytes {
            Ok(())
        } else {
            Err(Error::Conflict {
                key: key.to_string(),
                location: self.location(),
            })
        }
    }

    /// Small objects of a folder that were listed, in the same order; one that is gone since is left out.
    async fn read_listed(
        &self,
        folder: &str,
        listed: Vec<Listed>,
    ) -> Result<Vec<(Key, Bytes)>, store::Error> {
        let mut copies = match &self.cache {
            Some(cache) => cache.read(folder).await,
            None => cache::Copies::default(),
        };
        let stale = copies.are_stale(listed.len());
        let looked_up: Vec<(Listed, Option<Bytes>)> = listed
            .into_iter()
            .map(|listed| {
                let copy = copies.take(&listed);
                (listed, copy)
            })
            .collect();
        let read: Vec<(Listed, Option<Bytes>, bool)> = stream::iter(looked_up)
            .map(|(listed, copy)| async move {
                let fetched = copy.is_none();
                let bytes = match copy {
                    Some(bytes) => Some(bytes),
                    None => self.find(&listed.key).await?,
                };
                Ok::<_, store::Error>((listed, bytes, fetched))
            })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        let there = read.iter().filter_map(|(listed, bytes, fetched)| {
            let bytes = bytes.as_ref()?;
            (*fetched || stale).then(|| (listed.clone(), bytes.clone()))
        });
        let to_keep: Vec<(Listed, Bytes)> = there.collect();
        if let (Some(cache), false) = (&self.cache, to_keep.is_empty()) {
            let others = if stale { Others::Forget } else { Others::Keep };
            cache.keep(folder, to_keep, others).await;
        }
        Ok(read
            .into_iter()
            .filter_map(|(listed, bytes, _)| Some((listed.key, bytes?)))
            .collect())
    }

    /// The object, or nothing where there is none.
    async fn find(&self, key: &Key) -> Result<Option<Bytes>, store::Error> {
        match self.store.get(key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn read_description(bytes: &[u8], location: &str) -> Result<Description, Error> {
    let foreign = |reason: String| Error::Foreign {
        location: location.to_owned(),
        reason,
    };
    let format = format_of(bytes).map_err(|reason| foreign(format!("`ernstfall.json`: {reason}")))?;
    if format > u64::from(FORMAT) {
        return Err(Error::NewerFormat {
            what: format!("the repository at {location}"),
            found: format,
            known: FORMAT,
        });
    }
    let description: Description =
        serde_json::from_slice(bytes).map_err(|fault| foreign(format!("`ernstfall.json`: {fault}")))?;
    let is_id = description.id.len() == 32 && description.id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if description.format != FORMAT || !is_id {
        return Err(foreign("`ernstfall.json` has no valid format and id".to_owned()));
    }
    Ok(description)
}

/// The format that a JSON object says it has, or why it says none.
fn format_of(bytes: &[u8]) -> Result<u64, String> {
    serde_json::from_slice::<FormatOnly>(bytes)
        .map(|only| only.format)
        .map_err(|fault| fault.to_string())
}

/// Indented, and with a line feed at the end: these files are read by people too.
fn to_json<T: Serialize>(key: &Key, value: &T) -> Result<Bytes, Error> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|source| Error::Encode {
        what: key.to_string(),
        source,
    })?;
    bytes.push(b'\n');
    Ok(Bytes::from(bytes))
}

/// So much hashing and reading of copies one process does at once. Each thread that ever did some stays, with memory of its
/// own, as with the file work of a directory.
static ASIDE: Semaphore = Semaphore::const_new(4);

/// Does what takes its time where it holds up nothing else.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    let turn = ASIDE.acquire().await;
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::test_support::time;
    use crate::store::memory::Memory;

    async fn store_with(description: &'static str) -> Arc<dyn Store> {
        let store = Arc::new(Memory::new());
        store
            .put_new(&keys::repository_key(), Bytes::from(description))
            .await
            .unwrap();
        store
    }

    #[tokio::test]
    async fn a_repository_is_made_once_and_keeps_its_id() {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let message = Repository::open(store.clone()).await.err().unwrap().to_string();
        assert!(
            message.contains("no repository at memory: take a first backup"),
            "{message}"
        );
        let (one, other) = tokio::join!(
            Repository::open_or_create(store.clone(), time(0)),
            Repository::open_or_create(store.clone(), time(1)),
        );
        let id = one.unwrap().id().to_owned();
        assert_eq!(other.unwrap().id(), id);
        assert_eq!(Repository::open(store).await.unwrap().id(), id);
        assert_eq!(id.len(), 32);
    }

    #[tokio::test]
    async fn a_newer_format_is_refused_by_name_and_a_foreign_file_as_such() {
        let newer = store_with(r#"{"format": 7, "anything": true}"#).await;
        let message = Repository::open_or_create(newer, time(0))
            .await
            .err()
            .unwrap()
            .to_string();
        assert!(
            message.contains("format 7") && message.contains("update ernstfall"),
            "{message}"
        );
        for foreign in [
            "",
            "hello",
            "[]",
            "{}",
            r#"{"format": 1}"#,
            r#"{"format": 0, "id": "x", "created_at": "2026-01-01T00:00:00Z"}"#,
        ] {
            let opened = Repository::open_or_create(store_with(foreign).await, time(0)).await;
            assert!(matches!(opened, Err(Error::Foreign { .. })), "{foreign}");
        }
    }
}
