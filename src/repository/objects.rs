//! The objects of a backup: put with their SHA-256, and believed only when it is found again.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::model::backup_id::BackupId;
use crate::model::manifest::{Manifest, Object};
use crate::model::target_name::TargetName;
use crate::repository::{Error, ReadError, Repository, aside, keys};
use crate::store::Key;

impl Repository {
    /// Stores an object of a backup under its name there: `contents.json.zst`, `data/7.sql.zst`, …
    pub async fn put_object(
        &self,
        target: &TargetName,
        id: &BackupId,
        name: &str,
        bytes: Bytes,
    ) -> Result<Object, Error> {
        let key = keys::object_key(target, id, name)?;
        let object = Object {
            key: key.to_string(),
            size_bytes: bytes.len() as u64,
            sha256: hash(bytes.clone()).await,
        };
        self.put_or_compare(&key, bytes).await?;
        Ok(object)
    }

    /// Reads an object, and gives it only when size and SHA-256 are those that the manifest tells.
    pub async fn read_object(&self, object: &Object) -> Result<Bytes, ReadError> {
        let damaged = |found: String| ReadError::Damaged {
            key: object.key.escape_debug().to_string(),
            location: self.location(),
            expected: size_and_hash(object.size_bytes, &object.sha256),
            found,
        };
        let key = Key::new(object.key.as_str()).map_err(|invalid| damaged(invalid.to_string()))?;
        let bytes = match self.store.get(&key).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return Err(self.missing(&key).await),
            Err(error) => return Err(error.into()),
        };
        let size_bytes = bytes.len() as u64;
        let sha256 = hash(bytes.clone()).await;
        if size_bytes == object.size_bytes && sha256 == object.sha256 {
            Ok(bytes)
        } else {
            Err(damaged(size_and_hash(size_bytes, &sha256)))
        }
    }

    /// Missing from a repository that is there is the backup's fault; a repository that is gone is not.
    async fn missing(&self, key: &Key) -> ReadError {
        match self.store.get(&keys::repository_key()).await {
            Ok(_) => ReadError::Missing {
                key: key.to_string(),
                location: self.location(),
            },
            Err(error) => ReadError::Unreachable(error),
        }
    }

    /// Whether everything that a manifest names is stored, in its size: somebody may have removed what seemed to belong
    /// to no backup, while the backup was still taken.
    pub async fn confirm_objects(&self, manifest: &Manifest) -> Result<(), Error> {
        let listed = self
            .store
            .list(&keys::backup_folder(&manifest.target, &manifest.id))
            .await?;
        let sizes: BTreeMap<&str, u64> = listed
            .iter()
            .map(|object| (object.key.as_str(), object.size_bytes))
            .collect();
        let gone = manifest
            .objects()
            .find(|object| sizes.get(object.key.as_str()) != Some(&object.size_bytes));
        match gone {
            None => Ok(()),
            Some(object) => Err(Error::ObjectGone {
                key: object.key.clone(),
                location: self.location(),
            }),
        }
    }

    /// Removes the objects of a backup that was never completed, and tells which; refuses when it has a manifest.
    pub async fn remove_unfinished(&self, target: &TargetName, id: &BackupId) -> Result<Vec<Key>, Error> {
        if self.find(&keys::manifest_key(target, id)).await?.is_some() {
            return Err(Error::BackupExists {
                target: target.clone(),
                id: id.clone(),
            });
        }
        let listed = self.store.list(&keys::backup_folder(target, id)).await?;
        let mut removed = Vec::with_capacity(listed.len());
        for object in listed {
            self.store.delete(&object.key).await?;
            removed.push(object.key);
        }
        Ok(removed)
    }
}

fn size_and_hash(size_bytes: u64, sha256: &str) -> String {
    format!("{size_bytes} bytes with SHA-256 {}", sha256.escape_debug())
}

/// Objects are megabytes, and hashing them in place would hold up everything else on the thread.
async fn hash(bytes: Bytes) -> String {
    let again = bytes.clone();
    let hashed = aside(move || sha256_hex(&bytes)).await;
    // Only a runtime that is shutting down refuses; then it holds up nothing.
    hashed.unwrap_or_else(|_| sha256_hex(&again))
}

/// The SHA-256 of bytes, as lower-case hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::test_support::{id, manifest, memory_repository, target};
    use crate::store::faulty::Damage;
    use crate::store::{ErrorKind, Operation};

    #[test]
    fn the_digest_is_sha_256() {
        assert_eq!(
            sha256_hex(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[tokio::test]
    async fn damage_and_loss_are_the_backups_fault_and_an_unreachable_store_is_not() {
        let (repository, faulty) = memory_repository().await;
        let put = |name: &'static str| {
            let repository = repository.clone();
            async move {
                repository
                    .put_object(&target(), &id(0), name, Bytes::from("rows"))
                    .await
                    .unwrap()
            }
        };
        let good = put("data/1").await;
        assert_eq!(repository.read_object(&good).await.unwrap(), "rows");

        faulty.fail_nth(Operation::Get, 1, ErrorKind::PermissionDenied);
        let error = repository.read_object(&good).await.unwrap_err();
        assert!(matches!(error, ReadError::Unreachable(_)) && !error.means_bad_backup());

        for (name, damage) in [("data/2", Damage::Flip), ("data/3", Damage::Truncate)] {
            let object = put(name).await;
            faulty.damage_reads(name, damage);
            let error = repository.read_object(&object).await.unwrap_err();
            assert!(
                matches!(error, ReadError::Damaged { .. }) && error.means_bad_backup(),
                "{error}"
            );
            assert!(error.to_string().contains(&object.sha256), "{error}");
        }

        repository
            .store
            .delete(&Key::new(good.key.as_str()).unwrap())
            .await
            .unwrap();
        assert!(matches!(
            repository.read_object(&good).await,
            Err(ReadError::Missing { .. })
        ));
        repository.store.delete(&keys::repository_key()).await.unwrap();
        assert!(matches!(
            repository.read_object(&good).await,
            Err(ReadError::Unreachable(_))
        ));
    }

    #[tokio::test]
    async fn a_put_whose_answer_was_lost_may_be_repeated_but_nothing_is_changed() {
        let (repository, _) = memory_repository().await;
        let put = |bytes: &'static str| {
            let repository = repository.clone();
            async move {
                repository
                    .put_object(&target(), &id(0), "data/1", Bytes::from(bytes))
                    .await
            }
        };
        let first = put("rows").await.unwrap();
        assert_eq!(put("rows").await.unwrap(), first);
        assert!(matches!(put("other").await, Err(Error::Conflict { .. })));
        assert_eq!(repository.read_object(&first).await.unwrap(), "rows");
    }

    #[tokio::test]
    async fn only_objects_without_a_manifest_are_removed() {
        let (repository, _) = memory_repository().await;
        for number in [0, 1] {
            let name = format!("data/{number}");
            repository
                .put_object(&target(), &id(number), &name, Bytes::from("rows"))
                .await
                .unwrap();
        }
        repository.put_manifest(&manifest(0)).await.unwrap();
        let refused = repository.remove_unfinished(&target(), &id(0)).await;
        assert!(matches!(refused, Err(Error::BackupExists { .. })));
        let removed = repository.remove_unfinished(&target(), &id(1)).await.unwrap();
        assert_eq!(removed.len(), 1);
        assert!(
            repository
                .remove_unfinished(&target(), &id(1))
                .await
                .unwrap()
                .is_empty()
        );
    }
}
