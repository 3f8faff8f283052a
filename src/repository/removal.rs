//! Taking backups away: first the manifest, long after it the objects. Only what a listing shows below a backup's own
//! folder is ever deleted; what a manifest names is never believed for that.
//!
//! When a manifest goes, a tombstone stays, so that the moment is known to whoever goes on: the store dates it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::backup_id::BackupId;
use crate::model::manifest::FORMAT;
use crate::model::target_name::TargetName;
use crate::repository::{Error, Repository, keys, to_json};
use crate::store::{Freed, Key, Listed};

/// What is stored of one target, as one listing shows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    /// Backups that have a manifest, readable or not.
    pub manifests: BTreeMap<BackupId, Listed>,
    /// What lies in the folder of each backup, with a manifest or without.
    pub objects: BTreeMap<BackupId, Vec<Listed>>,
    pub tombstones: BTreeMap<BackupId, Vec<Listed>>,
    /// What lies among these and belongs to no backup: it is none of ours.
    pub foreign: Vec<Key>,
    /// The youngest of all.
    pub youngest: Option<Listed>,
}

/// What is left of a backup whose manifest was removed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tombstone {
    pub format: u32,
    pub id: BackupId,
    pub target: TargetName,
    /// On the clock of the machine that removed it; how long ago it was, the store's own date tells.
    pub removed_at: DateTime<Utc>,
    pub reason: String,
    /// What lay in the backup's folder then.
    pub objects: Vec<TombstoneObject>,
    /// As it was stored: put back in its place while the objects are there, the backup exists again.
    pub manifest: serde_json::Value,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct TombstoneObject {
    pub key: String,
    pub size_bytes: u64,
}

impl Tombstone {
    pub fn new(
        target: &TargetName,
        id: &BackupId,
        removed_at: DateTime<Utc>,
        reason: &str,
        objects: &[Listed],
        manifest: serde_json::Value,
    ) -> Self {
        let object = |listed: &Listed| TombstoneObject {
            key: listed.key.to_string(),
            size_bytes: listed.size_bytes,
        };
        Self {
            format: FORMAT,
            id: id.clone(),
            target: target.clone(),
            removed_at,
            reason: reason.to_owned(),
            objects: objects.iter().map(object).collect(),
            manifest,
        }
    }
}

impl Repository {
    /// Everything that is stored of the target now.
    pub async fn inventory(&self, target: &TargetName) -> Result<Inventory, Error> {
        let listed = self.store.list(&keys::target_folder(target)).await?;
        let mut inventory = Inventory {
            youngest: listed.iter().max_by_key(|object| object.modified).cloned(),
            ..Inventory::default()
        };
        for object in listed {
            if let Some(id) = keys::id_of_manifest_key(target, &object.key) {
                inventory.manifests.insert(id, object);
            } else if let Some(id) = keys::id_of_object_key(target, &object.key) {
                inventory.objects.entry(id).or_default().push(object);
            } else if let Some(id) = keys::id_of_tombstone_key(target, &object.key) {
                inventory.tombstones.entry(id).or_default().push(object);
            } else if object.key.is_in(&keys::backups_folder(target)) {
                inventory.foreign.push(object.key);
            }
        }
        Ok(inventory)
    }

    /// Whether the backup exists now.
    pub async fn has_manifest(&self, target: &TargetName, id: &BackupId) -> Result<bool, Error> {
        Ok(self.find(&keys::manifest_key(target, id)).await?.is_some())
    }

    /// A manifest as it is stored; nothing where there is none.
    pub async fn stored_manifest(
        &self,
        target: &TargetName,
        id: &BackupId,
    ) -> Result<Option<serde_json::Value>, Error> {
        let key = keys::manifest_key(target, id);
        let Some(bytes) = self.find(&key).await? else {
            return Ok(None);
        };
        let read = serde_json::from_slice(&bytes).map_err(|fault| Error::Unreadable {
            key: key.to_string(),
            location: self.location(),
            reason: fault.to_string(),
        })?;
        Ok(Some(read))
    }

    /// Says that a backup is about to go. Every run says so under its own name: a tombstone that an earlier run left
    /// before it was killed is older than the removal.
    pub async fn put_tombstone(&self, tombstone: &Tombstone, run: &str) -> Result<(), Error> {
        let key = keys::tombstone_key(&tombstone.target, &tombstone.id, run)?;
        self.put_or_compare(&key, to_json(&key, tombstone)?).await
    }

    /// From now on the backup does not exist.
    pub async fn delete_manifest(&self, target: &TargetName, id: &BackupId) -> Result<Freed, Error> {
        Ok(self.store.delete(&keys::manifest_key(target, id)).await?)
    }

    /// Removes an object that an inventory showed; one that is gone already frees nothing.
    pub async fn delete_listed(&self, object: &Listed) -> Result<Freed, Error> {
        Ok(self.store.delete(&object.key).await?)
    }

    /// The target's newest backup, by the names of the manifests alone: these may be listed where they may not be read.
    /// Several where they are of one second, for then the names do not tell. One later than `last` counts only where there
    /// is no other.
    pub async fn newest_ids(&self, target: &TargetName, last: DateTime<Utc>) -> Result<Vec<BackupId>, Error> {
        let listed = self.store.list(&keys::manifests_folder(target)).await?;
        let ids = listed
            .iter()
            .filter_map(|object| keys::id_of_manifest_key(target, &object.key));
        let mut ids: Vec<BackupId> = ids.collect();
        let last = BackupId::new(last, u16::MAX);
        let present = ids.iter().filter(|id| **id <= last).max();
        if let Some(newest) = present.or_else(|| ids.iter().max()).cloned() {
            ids.retain(|id| id.second() == newest.second());
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::repository::test_support::{id, manifest, memory_repository, target, time};
    use crate::store::Store;

    #[tokio::test]
    async fn an_inventory_tells_what_belongs_to_which_backup_and_what_to_none() {
        let (repository, store) = memory_repository().await;
        repository.put_manifest(&manifest(1)).await.unwrap();
        for key in [
            "targets/shop/backups/notes/x",
            "targets/shop/target.json",
            "targets/shopping/backups/20270115T080000Z-0000/x",
        ] {
            let key = Key::new(key).unwrap();
            store.put_new(&key, Bytes::from("x")).await.unwrap();
        }
        for name in ["contents.json.zst", "data/1.sql.zst"] {
            repository
                .put_object(&target(), &id(2), name, Bytes::from("rows"))
                .await
                .unwrap();
        }
        let tombstone = Tombstone::new(&target(), &id(3), time(0), "why", &[], serde_json::Value::Null);
        repository.put_tombstone(&tombstone, "one-run").await.unwrap();
        repository.put_tombstone(&tombstone, "other-run").await.unwrap();
        let inventory = repository.inventory(&target()).await.unwrap();
        assert_eq!(inventory.manifests.keys().collect::<Vec<_>>(), [&id(1)]);
        assert_eq!(inventory.objects.keys().collect::<Vec<_>>(), [&id(2)]);
        assert_eq!(inventory.objects[&id(2)].len(), 2);
        assert_eq!(inventory.tombstones[&id(3)].len(), 2);
        assert_eq!(
            inventory.foreign,
            [Key::new("targets/shop/backups/notes/x").unwrap()]
        );
        let (day_after, day_before) = (time(24 * 3600), time(-24 * 3600));
        repository.put_manifest(&manifest(48)).await.unwrap();
        let newest = repository.newest_ids(&target(), day_after).await.unwrap();
        assert_eq!(newest, [id(1)], "the other lies in the future");
        let newest = repository.newest_ids(&target(), day_before).await.unwrap();
        assert_eq!(newest, [id(48)], "both do");
        assert!(repository.has_manifest(&target(), &id(1)).await.unwrap());
        repository.delete_manifest(&target(), &id(1)).await.unwrap();
        assert!(!repository.has_manifest(&target(), &id(1)).await.unwrap());
    }
}
