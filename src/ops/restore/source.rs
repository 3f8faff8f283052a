//! Choosing a backup, and reading its parts.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::encryption::Identities;
use crate::model::backup_id::BackupId;
use crate::model::contents::Contents;
use crate::model::manifest::{Manifest, Object};
use crate::model::target_name::TargetName;
use crate::ops::keys::Keys;
use crate::ops::packing::Unpacker;
use crate::repository::{Repository, Unreadable};

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

/// Finds the backup in the repository.
pub(in crate::ops) async fn locate(
    repository: &Repository,
    target: &TargetName,
    choice: &Choice,
) -> Result<Manifest, RestoreError> {
    let missing = || RestoreError::NoBackup(target.to_string(), repository.location());
    let id = match choice {
        Choice::Exactly(id) => id.clone(),
        Choice::Newest => newest_until(repository, target, None)
            .await?
            .ok_or_else(missing)?,
        Choice::Before(time) => newest_until(repository, target, Some(*time))
            .await?
            .ok_or_else(missing)?,
    };
    // As it is stored now: the choice may come from a copy of it on this machine.
    Ok(repository.manifest(target, &id).await?)
}

/// The newest backup up to a moment. A damaged manifest must not make an older backup the newest in silence: whoever
/// wants that one names it.
async fn newest_until(
    repository: &Repository,
    target: &TargetName,
    moment: Option<DateTime<Utc>>,
) -> Result<Option<BackupId>, RestoreError> {
    let manifests = repository.manifests(target).await?;
    let newest = match moment {
        Some(moment) => manifests.newest_before(moment),
        None => manifests.newest(),
    };
    // Ids begin with the time, and sort by it; those of the moment's own second count as not after it.
    let last = moment.map(|moment| BackupId::new(moment, u16::MAX));
    let damaged = manifests
        .unreadable
        .iter()
        .filter_map(|unreadable| Some((unreadable.backup.as_ref()?, unreadable)));
    let newest_damaged = damaged
        .filter(|(id, _)| last.as_ref().is_none_or(|last| *id <= last))
        .max_by_key(|(id, _)| *id);
    match (newest_damaged, newest) {
        (Some((id, unreadable)), newest) if newest.is_none_or(|newest| newest.id.second() <= id.second()) => {
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
        _ => Ok(newest.map(|newest| newest.id.clone())),
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
