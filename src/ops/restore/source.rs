//! Choosing a backup, and reading its parts.

use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::encryption::Identities;
use crate::model::backup_id::BackupId;
use crate::model::clocks::{CLOCK_TOLERANCE, source_clock};
use crate::model::contents::Contents;
use crate::model::manifest::{Manifest, Object, RecoveryPointBasis};
use crate::model::target_name::TargetName;
use crate::ops::keys::Keys;
use crate::ops::packing::Unpacker;
use crate::repository::{Manifests, Repository, Unreadable};

use super::RestoreError;
use super::left_out::LeftOut;

/// Which backup is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Newest,
    Exactly(BackupId),
    /// The newest whose recovery point is not after this.
    Before(DateTime<Utc>),
}

/// A backup with its description read.
pub(in crate::ops) struct Backup {
    pub(in crate::ops) reader: Reader,
    pub(in crate::ops) manifest: Manifest,
    /// Cut down to what is restored.
    pub(in crate::ops) contents: Arc<Contents>,
    pub(in crate::ops) left_out: LeftOut,
}

impl Backup {
    pub(in crate::ops) async fn new(
        reader: Reader,
        manifest: Manifest,
        contents: Contents,
    ) -> Result<Self, RestoreError> {
        Ok(Self {
            left_out: LeftOut::of_backup(&reader, &manifest).await?,
            reader,
            manifest,
            contents: Arc::new(contents),
        })
    }
}

/// Finds the backup that is to be restored.
pub(in crate::ops) async fn locate(
    repository: &Repository,
    target: &TargetName,
    choice: &Choice,
    now: DateTime<Utc>,
) -> Result<Manifest, RestoreError> {
    let id = match choice {
        Choice::Exactly(id) => Some(id.clone()),
        Choice::Newest => {
            let manifests = repository.manifests(target).await?;
            let newest = unless_damaged(repository, &manifests, manifests.newest_at(now), None)?;
            refuse_the_future(&manifests, newest, now)?;
            newest.map(|newest| newest.id.clone())
        }
        Choice::Before(time) => {
            let manifests = repository.manifests(target).await?;
            let newest = manifests.newest_before(*time);
            unless_damaged(repository, &manifests, newest, Some(*time))?.map(|newest| newest.id.clone())
        }
    };
    read(repository, target, id).await
}

/// Finds the backup that is to be tested: the newest at this moment, for nobody is there to be asked which one that is.
pub(in crate::ops) async fn locate_for_test(
    repository: &Repository,
    target: &TargetName,
    choice: &Choice,
    now: DateTime<Utc>,
) -> Result<Manifest, RestoreError> {
    if *choice != Choice::Newest {
        return locate(repository, target, choice, now).await;
    }
    let manifests = repository.manifests(target).await?;
    let newest = manifests.newest_at(now);
    // Ids are by the source's clock. Where that was measured, one that is damaged and of a time to come is not the newest.
    let skew = newest
        .filter(|newest| newest.recovery_point.basis == RecoveryPointBasis::Snapshot)
        .and_then(|newest| newest.clock_skew_seconds);
    let until = skew.map(|skew| source_clock(now, Some(skew)).max(now) + CLOCK_TOLERANCE);
    let newest = unless_damaged(repository, &manifests, newest, until)?;
    read(repository, target, newest.map(|newest| newest.id.clone())).await
}

async fn read(
    repository: &Repository,
    target: &TargetName,
    id: Option<BackupId>,
) -> Result<Manifest, RestoreError> {
    let id = id.ok_or_else(|| RestoreError::NoBackup(target.to_string(), repository.location()))?;
    // As it is stored now: the choice may come from a copy of it on this machine.
    Ok(repository.manifest(target, &id).await?)
}

/// What the clocks tell of the newest backup must agree with what the dates tell: a person decides otherwise.
fn refuse_the_future(
    manifests: &Manifests,
    newest: Option<&Manifest>,
    now: DateTime<Utc>,
) -> Result<(), RestoreError> {
    let (Some(dated), Some(newest)) = (manifests.newest(), newest) else {
        return Ok(());
    };
    let others = if dated.id != newest.id {
        format!("the newest of the others is {}", newest.id)
    } else if newest.is_of_unknown_time(now) && !manifests.unreadable.is_empty() {
        "the manifests of others cannot be read".to_owned()
    } else {
        return Ok(());
    };
    Err(RestoreError::Refused(format!(
        "which backup is the newest is not known: {} is dated later than the clock of this machine ({}), so one of the clocks was wrong, and {others}: name the one you want with --backup",
        dated.id,
        now.to_rfc3339_opts(SecondsFormat::Secs, true)
    )))
}

/// The newest backup up to a moment. A damaged manifest must not make an older backup the newest in silence: whoever
/// wants that one names it.
fn unless_damaged<'a>(
    repository: &Repository,
    manifests: &Manifests,
    newest: Option<&'a Manifest>,
    until: Option<DateTime<Utc>>,
) -> Result<Option<&'a Manifest>, RestoreError> {
    // Ids begin with the time, and sort by it; those of the moment's own second count as not after it.
    let last = until.map(|moment| BackupId::new(moment, u16::MAX));
    let damaged = manifests
        .unreadable
        .iter()
        .filter_map(|unreadable| Some((unreadable.backup.as_ref()?, unreadable)));
    let newest_damaged = damaged
        .filter(|(id, _)| last.as_ref().is_none_or(|last| *id <= last))
        .max_by_key(|(id, _)| *id);
    match newest_damaged {
        Some((id, unreadable)) if newest.is_none_or(|newest| newest.id.second() <= id.second()) => {
            let instead = newest.map_or_else(
                || "and there is no backup before it".to_owned(),
                |newest| format!("and the backup before it is {}: name it with --backup", newest.id),
            );
            let unreadable = Unreadable {
                reason: format!("{} ({instead})", unreadable.reason),
                ..unreadable.clone()
            };
            Err(unreadable.error(repository.location()).into())
        }
        _ => Ok(newest),
    }
}

/// Reads the objects of one backup: checked, decrypted, decompressed.
#[derive(Clone)]
pub(in crate::ops) struct Reader {
    repository: Arc<Repository>,
    /// `None` where the backup is stored in the clear.
    identities: Option<Arc<Identities>>,
}

impl Reader {
    /// Finds what reads this backup.
    ///
    /// # Errors
    /// When it is encrypted, and no identity that fits is to be had.
    pub(in crate::ops) async fn open(
        keys: &Keys,
        repository: &Arc<Repository>,
        manifest: &Manifest,
    ) -> Result<Self, RestoreError> {
        Ok(Self {
            repository: Arc::clone(repository),
            identities: keys.for_backup(manifest).await?,
        })
    }

    /// Fetches an object, checked against its size and SHA-256, and begins to unpack it.
    pub(in crate::ops) async fn object(&self, object: &Object) -> Result<Unpacker, RestoreError> {
        let bytes = self.repository.read_object(object).await?;
        let unpacker = Unpacker::new(&object.key, bytes, self.identities.as_deref());
        unpacker.map_err(|error| damaged(object, &error))
    }

    /// Reads a small object whole.
    pub(in crate::ops) async fn read(&self, object: &Object) -> Result<Vec<u8>, RestoreError> {
        let text = self.object(object).await?.read_all();
        text.map_err(|error| damaged(object, &error))
    }

    /// Reads the description of what is in the backup.
    pub(in crate::ops) async fn contents(&self, manifest: &Manifest) -> Result<Contents, RestoreError> {
        let text = self.read(&manifest.contents).await?;
        let contents: Contents =
            serde_json::from_slice(&text).map_err(|error| damaged(&manifest.contents, &error))?;
        let known = |chunk: &crate::model::contents::Chunk| {
            chunk.table < contents.tables.len()
                && manifest.data.iter().any(|object| object.key == chunk.object)
        };
        match contents.chunks.iter().find(|chunk| !known(chunk)) {
            Some(chunk) => Err(RestoreError::Damaged {
                object: manifest.contents.key.clone(),
                what: format!("it names {}, which the manifest does not", chunk.object),
            }),
            None => Ok(contents),
        }
    }

    /// Reads a script whose every line is a statement, or a comment.
    pub(in crate::ops) async fn statements(&self, object: &Object) -> Result<Vec<String>, RestoreError> {
        let text = String::from_utf8(self.read(object).await?).map_err(|error| damaged(object, &error))?;
        Ok(text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with("--"))
            .map(str::to_owned)
            .collect())
    }
}

fn damaged(object: &Object, error: &dyn std::error::Error) -> RestoreError {
    RestoreError::Damaged {
        object: object.key.clone(),
        what: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::keys;
    use crate::repository::test_support::{id, manifest, memory_repository, target, time};
    use crate::store::Store;

    const HOUR: i64 = 3600;

    #[tokio::test]
    async fn of_what_lies_in_the_future_a_test_takes_nothing_and_a_restore_asks() {
        let (repository, _) = memory_repository().await;
        for number in [1, 2, 48] {
            repository.put_manifest(&manifest(number)).await.unwrap();
        }
        let tested = async |hour: i64| {
            let now = time(hour * HOUR);
            let found = locate_for_test(&repository, &target(), &Choice::Newest, now).await;
            found.unwrap().id
        };
        assert_eq!(tested(1).await, id(1));
        assert_eq!(tested(3).await, id(2));
        assert_eq!(tested(48).await, id(48), "its time has come");
        assert_eq!(tested(0).await, id(48), "all lie in the future");

        let restored = async |choice: Choice, hour: i64| {
            let found = locate(&repository, &target(), &choice, time(hour * HOUR)).await;
            found
                .map(|manifest| manifest.id)
                .map_err(|error| error.to_string())
        };
        let refusal = restored(Choice::Newest, 3).await.unwrap_err();
        for part in [id(48).to_string(), id(2).to_string(), "--backup".to_owned()] {
            assert!(refusal.contains(&part), "{refusal}");
        }
        assert_eq!(restored(Choice::Exactly(id(48)), 3).await, Ok(id(48)));
        assert_eq!(restored(Choice::Before(time(2 * HOUR)), 3).await, Ok(id(2)));
        assert_eq!(restored(Choice::Newest, 48).await, Ok(id(48)));
        assert_eq!(restored(Choice::Newest, 0).await, Ok(id(48)));
    }

    #[tokio::test]
    async fn a_damaged_manifest_is_told_although_another_lies_in_the_future() {
        let (repository, store) = memory_repository().await;
        repository.put_manifest(&manifest(48)).await.unwrap();
        let damaged = keys::manifest_key(&target(), &id(2));
        store.put_new(&damaged, "{}".into()).await.unwrap();
        let now = time(3 * HOUR);
        let tested = locate_for_test(&repository, &target(), &Choice::Newest, now).await;
        assert_eq!(tested.unwrap().id, id(48), "it is the only one that can be read");
        let told = async || {
            let restored = locate(&repository, &target(), &Choice::Newest, now).await;
            restored.unwrap_err().to_string()
        };
        let refusal = told().await;
        assert!(refusal.contains("cannot be read"), "{refusal}");
        repository.put_manifest(&manifest(1)).await.unwrap();
        let refusal = told().await;
        assert!(refusal.contains(damaged.as_str()), "{refusal}");
        let tested = locate_for_test(&repository, &target(), &Choice::Newest, now).await;
        assert!(tested.unwrap_err().to_string().contains(damaged.as_str()));
    }
}
