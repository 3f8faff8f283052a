//! Saying that a sharp loss of content was meant, so that the backup before it need not be kept for it.

use chrono::{DateTime, Utc};

use crate::journal::{Error as JournalError, RunId};
use crate::model::backup_id::BackupId;
use crate::model::record::{FORMAT, Record};
use crate::model::target_name::TargetName;
use crate::model::upkeep::{AcknowledgementRecord, acknowledged};
use crate::ops::context::Context;
use crate::repository::Error as RepositoryError;

/// What somebody says.
#[derive(Clone, Debug)]
pub struct Statement {
    pub target: TargetName,
    /// The backup that carries the finding.
    pub backup: BackupId,
    /// The account and machine it is said from.
    pub by: String,
    pub reason: Option<String>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Acknowledged {
    Now(AcknowledgementRecord),
    /// Somebody has said so before.
    Already,
}

#[derive(Debug, thiserror::Error)]
pub enum AcknowledgeError {
    /// There is nothing to be acknowledged in it.
    #[error(
        "no loss of content was found in backup {backup} of target {target}: {}",
        open_losses(open)
    )]
    NoLoss {
        target: TargetName,
        backup: BackupId,
        /// The backups with a loss that nobody has acknowledged.
        open: Vec<BackupId>,
    },
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("keep the journal")]
    Journal(#[from] JournalError),
}

fn open_losses(open: &[BackupId]) -> String {
    if open.is_empty() {
        return "there is no backup with one that is not acknowledged".to_owned();
    }
    let ids: Vec<&str> = open.iter().map(BackupId::as_str).collect();
    format!("one was found, and is not acknowledged, in {}", ids.join(", "))
}

/// Records the statement in the journal; the caller delivers it.
pub async fn acknowledge(context: &Context, statement: Statement) -> Result<Acknowledged, AcknowledgeError> {
    let Statement {
        target,
        backup,
        by,
        reason,
    } = statement;
    let manifests = context.repository.manifests(&target).await?.readable;
    let history = context.journal.history_with(&context.repository).await?;
    let known = acknowledged(&target, history.iter());
    if known.contains(&backup) {
        return Ok(Acknowledged::Already);
    }
    let with_loss = manifests.iter().filter(|manifest| manifest.shrank.is_some());
    let open: Vec<BackupId> = with_loss
        .map(|manifest| manifest.id.clone())
        .filter(|id| !known.contains(id))
        .collect();
    if !open.contains(&backup) {
        return Err(AcknowledgeError::NoLoss { target, backup, open });
    }
    let at: DateTime<Utc> = (context.clock)();
    let record = AcknowledgementRecord {
        format: FORMAT,
        id: RunId::new(at)?.to_string(),
        target,
        backup,
        at,
        by,
        reason,
    };
    context.journal.append(Record::Acknowledgement(record.clone()))?;
    Ok(Acknowledged::Now(record))
}
