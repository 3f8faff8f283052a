//! Which backups exist, and what their manifests say. A manifest is checked before it is believed: whoever
//! can write to the repository must not make us read or delete anything outside the target's backups.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::model::backup_id::BackupId;
use crate::model::manifest::{FORMAT, Manifest};
use crate::model::target_name::TargetName;
use crate::repository::{Error, Repository, format_of, keys, to_json};
use crate::store::Key;

/// The backups of one target.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Manifests {
    /// By recovery point, the newest last.
    pub readable: Vec<Manifest>,
    /// Stored where manifests are, and of no use.
    pub unreadable: Vec<Unreadable>,
}

impl Manifests {
    /// The backups that there are by the names of manifests, also of those that are of no use.
    pub fn ids(&self) -> BTreeSet<&BackupId> {
        let readable = self.readable.iter().map(|manifest| &manifest.id);
        let unreadable = self.unreadable.iter().filter_map(|one| one.backup.as_ref());
        readable.chain(unreadable).collect()
    }
}

/// A manifest that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    pub key: Key,
    /// Whose manifest it is by its name; absent where that is no backup's.
    pub backup: Option<BackupId>,
    pub reason: String,
    /// Not damaged: a newer version wrote it, in this format.
    pub newer_format: Option<u64>,
}

impl Unreadable {
    fn new(key: Key, backup: Option<BackupId>, reason: impl Into<String>) -> Self {
        Self {
            key,
            backup,
            reason: reason.into(),
            newer_format: None,
        }
    }

    /// The error for whoever needs just this manifest.
    pub fn error(&self, location: String) -> Error {
        match self.newer_format {
            Some(found) => Error::NewerFormat {
                what: format!("`{}` in {location}", self.key),
                found,
                known: FORMAT,
            },
            None => Error::Unreadable {
                key: self.key.to_string(),
                location,
                reason: self.reason.clone(),
            },
        }
    }
}

impl Manifests {
    pub fn newest(&self) -> Option<&Manifest> {
        self.readable.last()
    }

    /// The newest one, as far as this moment can tell. What is dated in the future was taken by a wrong clock, or this one is
    /// wrong: then it counts as of when it was by what is known of the clock. Without that it counts only where there is no
    /// other, else it would be taken for the newest until its time has come.
    pub fn newest_at(&self, now: DateTime<Utc>) -> Option<&Manifest> {
        let ahead = |one: &&Manifest| one.recovery_point.is_in_the_future(now);
        let dated = self.readable.iter().rfind(|one| !ahead(one));
        let known = self
            .readable
            .iter()
            .filter(|one| ahead(one) && !one.is_of_unknown_time(now));
        known
            .chain(dated)
            .max_by_key(|one| one.recovery_point_on_our_clock())
            .or_else(|| self.newest())
    }

    /// The newest one whose recovery point is not after this moment.
    pub fn newest_before(&self, moment: DateTime<Utc>) -> Option<&Manifest> {
        let mut newest_first = self.readable.iter().rev();
        newest_first.find(|manifest| manifest.recovery_point.at <= moment)
    }
}

impl Repository {
    /// Every backup of the target; what cannot be read is told apart, what cannot be reached is an error.
    pub async fn manifests(&self, target: &TargetName) -> Result<Manifests, Error> {
        let folder = keys::manifests_folder(target);
        let listed = self.store.list(&folder).await?;
        let mut manifests = Manifests::default();
        // One that was pruned since it was listed is not among them.
        for (key, bytes) in self.read_listed(&folder, listed).await? {
            match read_manifest(target, &key, &bytes) {
                Ok(manifest) => manifests.readable.push(manifest),
                Err(unreadable) => manifests.unreadable.push(unreadable),
            }
        }
        manifests
            .readable
            .sort_by(|one, other| one.order().cmp(&other.order()));
        Ok(manifests)
    }

    pub async fn manifest(&self, target: &TargetName, id: &BackupId) -> Result<Manifest, Error> {
        let key = keys::manifest_key(target, id);
        let Some(bytes) = self.find(&key).await? else {
            return Err(Error::NoBackup {
                target: target.clone(),
                id: id.clone(),
            });
        };
        read_manifest(target, &key, &bytes).map_err(|unreadable| unreadable.error(self.location()))
    }

    /// Makes the backup exist: the last thing that a backup does.
    ///
    /// Not retried: an error may come from a put that did succeed, and only a look at the repository tells.
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        let key = keys::manifest_key(&manifest.target, &manifest.id);
        if let Some(reason) = fault(&manifest.target, &manifest.id, manifest) {
            return Err(Error::Unreadable {
                key: key.to_string(),
                location: self.location(),
                reason,
            });
        }
        self.confirm().await?;
        self.put_or_compare(&key, to_json(&key, manifest)?).await
    }
}

fn read_manifest(target: &TargetName, key: &Key, bytes: &[u8]) -> Result<Manifest, Unreadable> {
    let Some(id) = keys::id_of_manifest_key(target, key) else {
        return Err(Unreadable::new(key.clone(), None, "its name is no backup id"));
    };
    let unreadable = |reason: String| Unreadable::new(key.clone(), Some(id.clone()), reason);
    let format = format_of(bytes).map_err(unreadable)?;
    if format > u64::from(FORMAT) {
        let reason =
            format!("it has format {format}, and this version reads up to {FORMAT}: update ernstfall");
        return Err(Unreadable {
            newer_format: Some(format),
            ..unreadable(reason)
        });
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|fault| unreadable(fault.to_string()))?;
    match fault(target, &id, &manifest) {
        None => Ok(manifest),
        Some(reason) => Err(unreadable(reason)),
    }
}

/// What is wrong with a manifest, if anything.
fn fault(target: &TargetName, id: &BackupId, manifest: &Manifest) -> Option<String> {
    if manifest.format != FORMAT {
        return Some(format!(
            "it has format {}, which there never was",
            manifest.format
        ));
    }
    if manifest.target != *target || manifest.id != *id {
        return Some(format!(
            "it describes backup {} of target `{}` and does not belong here",
            manifest.id, manifest.target
        ));
    }
    let folder = keys::backups_folder(target);
    for object in manifest.objects() {
        match Key::new(object.key.as_str()) {
            Err(invalid) => return Some(invalid.to_string()),
            Ok(key) if !key.is_in(&folder) => {
                return Some(format!(
                    "it names the object `{key}`, which is not among the target's backups"
                ));
            }
            Ok(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::manifest::RecoveryPointBasis;
    use crate::repository::test_support::{id, manifest, memory_repository, target, time};
    use crate::store::{ErrorKind, Operation, Store};

    #[test]
    fn of_what_is_dated_in_the_future_the_newest_is_found_by_what_is_known_of_the_clock() {
        const HOUR: i64 = 3600;
        // Which of these is the newest at this hour: the hour that a backup tells, and how many hours its clock was ahead.
        let newest = |backups: &[(i64, f64)], hour: i64| {
            let backup = |(told, ahead): &(i64, f64)| {
                let mut backup = manifest(*told);
                backup.clock_skew_seconds = Some(ahead * 3600.0);
                backup
            };
            let manifests = Manifests {
                readable: backups.iter().map(backup).collect(),
                unreadable: Vec::new(),
            };
            let newest = manifests.newest_at(time(hour * HOUR));
            newest.map(|newest| (newest.recovery_point.at - time(0)).num_hours())
        };
        assert_eq!(newest(&[(12, 2.0), (13, 2.0)], 11), Some(13), "always ahead");
        assert_eq!(
            newest(&[(10, 0.0), (99, 88.0)], 11),
            Some(99),
            "ahead since the last"
        );
        assert_eq!(
            newest(&[(10, 0.0), (12, 0.0), (99, 88.0)], 12),
            Some(12),
            "set right"
        );
        assert_eq!(newest(&[(10, 0.0), (99, 0.0)], 11), Some(10), "nobody knows why");
        assert_eq!(newest(&[(10, 0.0), (11, -5.0)], 11), Some(11), "behind");
        assert_eq!(
            newest(&[(99, f64::MAX), (10, f64::MIN)], 11),
            Some(10),
            "no time at all"
        );
        let mut replayed = manifest(99);
        replayed.clock_skew_seconds = Some(88.0 * 3600.0);
        replayed.recovery_point.basis = RecoveryPointBasis::Replay;
        assert!(
            replayed.is_of_unknown_time(time(11 * HOUR)),
            "by the primary's clock"
        );
        let mut by_a_machine_ahead = manifest(11);
        by_a_machine_ahead.clock_skew_seconds = Some(-5.0 * 3600.0);
        assert!(!by_a_machine_ahead.is_of_unknown_time(time(12 * HOUR)));
    }

    #[tokio::test]
    async fn backups_are_sorted_by_recovery_point_and_found_by_it() {
        let (repository, _) = memory_repository().await;
        for number in [2, 0, 1] {
            repository.put_manifest(&manifest(number)).await.unwrap();
        }
        let ids: Vec<BackupId> = repository
            .manifests(&target())
            .await
            .unwrap()
            .readable
            .iter()
            .map(|m| m.id.clone())
            .collect();
        assert_eq!(ids, [id(0), id(1), id(2)]);
        let manifests = repository.manifests(&target()).await.unwrap();
        assert_eq!(manifests.newest().map(|m| &m.id), Some(&id(2)));
        let before = |moment| manifests.newest_before(moment).map(|m| m.id.clone());
        let second = manifest(1).recovery_point.at;
        assert_eq!(before(second), Some(id(1)));
        assert_eq!(before(second - chrono::TimeDelta::seconds(1)), Some(id(0)));
        assert_eq!(before(time(-100_000)), None);
        let at = |moment| manifests.newest_at(moment).map(|m| m.id.clone());
        assert_eq!(at(second), Some(id(1)), "the one after it lies in the future");
        assert_eq!(at(time(-100_000)), Some(id(2)), "all of them do");
        assert!(matches!(
            repository.manifest(&target(), &id(7)).await,
            Err(Error::NoBackup { .. })
        ));
        assert_eq!(repository.manifest(&target(), &id(1)).await.unwrap(), manifest(1));
    }

    #[tokio::test]
    async fn what_cannot_be_believed_is_told_apart_and_hides_no_other_backup() {
        let (repository, faulty) = memory_repository().await;
        repository.put_manifest(&manifest(0)).await.unwrap();
        let hostile = |change: fn(&mut Manifest)| {
            let mut manifest = manifest(9);
            change(&mut manifest);
            serde_json::to_vec(&manifest).unwrap()
        };
        let bad = [
            b"{".to_vec(),
            br#"{"format": 2}"#.to_vec(),
            hostile(|manifest| manifest.format = 0),
            hostile(|manifest| manifest.id = id(3)),
            hostile(|manifest| manifest.target = "other".parse().unwrap()),
            hostile(|manifest| manifest.data[0].key = "../../etc/passwd".to_owned()),
            hostile(|manifest| manifest.data[0].key = "targets/other/backups/x".to_owned()),
            hostile(|manifest| manifest.contents.key = "targets/shop/manifests/x.json".to_owned()),
        ];
        let number_of_bad = bad.len();
        for (number, bytes) in bad.into_iter().enumerate() {
            let key = keys::manifest_key(&target(), &id(if number < 3 { 20 + number as i64 } else { 9 }));
            faulty.delete(&key).await.unwrap();
            faulty.put_new(&key, Bytes::from(bytes)).await.unwrap();
            let manifests = repository.manifests(&target()).await.unwrap();
            assert_eq!(manifests.readable, [manifest(0)], "bad manifest {number}");
            assert!(
                manifests
                    .unreadable
                    .iter()
                    .any(|unreadable| unreadable.key == key),
                "{number}"
            );
        }
        assert!(number_of_bad > 0);
        faulty
            .put_new(
                &Key::new("targets/shop/manifests/notes.txt").unwrap(),
                Bytes::from("x"),
            )
            .await
            .unwrap();
        let manifests = repository.manifests(&target()).await.unwrap();
        assert!(
            manifests
                .unreadable
                .iter()
                .any(|unreadable| unreadable.reason.contains("no backup id"))
        );
        assert!(
            manifests
                .unreadable
                .iter()
                .any(|unreadable| unreadable.reason.contains("update ernstfall"))
        );
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_reached_is_no_empty_repository() {
        let (repository, faulty) = memory_repository().await;
        repository.put_manifest(&manifest(0)).await.unwrap();
        for operation in [Operation::List, Operation::Get] {
            faulty.fail_nth(operation, 1, ErrorKind::PermissionDenied);
            assert!(matches!(
                repository.manifests(&target()).await,
                Err(Error::Store(_))
            ));
        }
    }

    #[tokio::test]
    async fn a_manifest_is_put_once_and_a_lost_answer_is_settled_by_looking() {
        let (repository, faulty) = memory_repository().await;
        let mut changed = manifest(0);
        changed.totals.rows += 1;
        repository.put_manifest(&manifest(0)).await.unwrap();
        repository.put_manifest(&manifest(0)).await.unwrap();
        assert!(matches!(
            repository.put_manifest(&changed).await,
            Err(Error::Conflict { .. })
        ));
        let puts = faulty.calls(Operation::Put);
        faulty.fail_nth(Operation::Put, 1, ErrorKind::Transient);
        assert!(repository.put_manifest(&manifest(1)).await.is_err());
        assert_eq!(faulty.calls(Operation::Put), puts + 1);
        let mut hostile = manifest(2);
        hostile.data[0].key = "/etc/passwd".to_owned();
        assert!(repository.put_manifest(&hostile).await.is_err());
    }
}
