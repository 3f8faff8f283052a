//! The key of every object of repository format 1. What is released is read for ever.

use crate::model::backup_id::BackupId;
use crate::model::target_name::TargetName;
use crate::store::{InvalidKey, Key};

/// The name of a backup's recovery guide, to be given to `object_key`.
pub const RECOVERY_GUIDE: &str = "RECOVERY.md";
pub const TARGETS_FOLDER: &str = "targets";
pub const RECORDS_FOLDER: &str = "records";

/// Everything that is stored of a target.
pub fn target_folder(target: &TargetName) -> String {
    format!("{TARGETS_FOLDER}/{target}")
}

/// What the repository says of itself.
pub fn repository_key() -> Key {
    checked("ernstfall.json".to_owned())
}

/// Whom a target's backups are of. The first is `target.json`; each adoption adds `target.2.json` and so on.
pub fn target_key(target: &TargetName, adoption: u32) -> Key {
    if adoption <= 1 {
        checked(format!("targets/{target}/target.json"))
    } else {
        checked(format!("targets/{target}/target.{adoption}.json"))
    }
}

pub fn manifests_folder(target: &TargetName) -> String {
    format!("targets/{target}/manifests")
}

pub fn manifest_key(target: &TargetName, id: &BackupId) -> Key {
    checked(format!("targets/{target}/manifests/{id}.json"))
}

/// The id of the backup whose manifest this is the key of.
pub fn id_of_manifest_key(target: &TargetName, key: &Key) -> Option<BackupId> {
    let name = key
        .as_str()
        .strip_prefix(&manifests_folder(target))?
        .strip_prefix('/')?;
    name.strip_suffix(".json")?.parse().ok()
}

/// Everything that the target's manifests may name lies in here.
pub fn backups_folder(target: &TargetName) -> String {
    format!("targets/{target}/backups")
}

pub fn backup_folder(target: &TargetName, id: &BackupId) -> String {
    format!("targets/{target}/backups/{id}")
}

/// An object of a backup, by its name there: `contents.json.zst`, `data/7.sql.zst`, …
pub fn object_key(target: &TargetName, id: &BackupId, name: &str) -> Result<Key, InvalidKey> {
    Key::new(format!("{}/{name}", backup_folder(target, id)))
}

/// The id of the backup in whose folder this object lies.
pub fn id_of_object_key(target: &TargetName, key: &Key) -> Option<BackupId> {
    let path = key
        .as_str()
        .strip_prefix(&backups_folder(target))?
        .strip_prefix('/')?;
    path.split_once('/')?.0.parse().ok()
}

/// What stays when a backup is removed; each run that removes it leaves its own.
pub fn tombstone_key(target: &TargetName, id: &BackupId, run: &str) -> Result<Key, InvalidKey> {
    Key::new(format!("targets/{target}/removed/{id}/{run}.json"))
}

/// The id of the backup whose tombstone this is the key of.
pub fn id_of_tombstone_key(target: &TargetName, key: &Key) -> Option<BackupId> {
    let path = key.as_str().strip_prefix(&format!("targets/{target}/removed/"))?;
    let (id, name) = path.split_once('/')?;
    name.ends_with(".json").then(|| id.parse().ok()).flatten()
}

pub fn record_key(chain: &str, sequence: u64) -> Result<Key, InvalidKey> {
    Key::new(format!("{RECORDS_FOLDER}/{chain}/{}", record_name(sequence)))
}

/// The file name of a record, the same in the journal and in the repository.
pub fn record_name(sequence: u64) -> String {
    format!("{sequence:08}.json")
}

/// The chain and sequence that a record's key tells.
pub fn record_of_key(key: &Key) -> Option<(String, u64)> {
    let rest = key.as_str().strip_prefix(RECORDS_FOLDER)?.strip_prefix('/')?;
    let (chain, name) = rest.split_once('/')?;
    let digits = name.strip_suffix(".json")?;
    let all_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all_digits
        .then(|| digits.parse().ok())
        .flatten()
        .map(|sequence| (chain.to_owned(), sequence))
}

fn checked(text: String) -> Key {
    Key::new(text).expect("target names and backup ids have only characters that keys allow")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_one_that_is_documented() {
        let target: TargetName = "shop".parse().unwrap();
        let id: BackupId = "20261122T031500Z-7f3a".parse().unwrap();
        assert_eq!(repository_key().as_str(), "ernstfall.json");
        assert_eq!(target_key(&target, 1).as_str(), "targets/shop/target.json");
        assert_eq!(target_key(&target, 2).as_str(), "targets/shop/target.2.json");
        let manifest = manifest_key(&target, &id);
        assert_eq!(
            manifest.as_str(),
            "targets/shop/manifests/20261122T031500Z-7f3a.json"
        );
        assert_eq!(id_of_manifest_key(&target, &manifest), Some(id.clone()));
        let object = object_key(&target, &id, "data/7.sql.zst").unwrap();
        assert_eq!(
            object.as_str(),
            "targets/shop/backups/20261122T031500Z-7f3a/data/7.sql.zst"
        );
        assert!(object_key(&target, &id, "../x").is_err());
        assert_eq!(id_of_object_key(&target, &object), Some(id.clone()));
        assert_eq!(id_of_object_key(&target, &manifest), None);
        let tombstone = tombstone_key(&target, &id, "20261124T031500Z-00aa").unwrap();
        assert_eq!(
            tombstone.as_str(),
            "targets/shop/removed/20261122T031500Z-7f3a/20261124T031500Z-00aa.json"
        );
        assert_eq!(id_of_tombstone_key(&target, &tombstone), Some(id.clone()));
        assert_eq!(id_of_tombstone_key(&target, &object), None);
        let record = record_key("ab", 12).unwrap();
        assert_eq!(record.as_str(), "records/ab/00000012.json");
        assert_eq!(record_of_key(&record), Some(("ab".to_owned(), 12)));
        assert_eq!(record_of_key(&Key::new("records/ab/x.json").unwrap()), None);
    }
}
