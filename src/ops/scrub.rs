//! Scrub: read every stored object back and compare it with its manifest. It needs no key, and proves no restore.

use futures_util::{StreamExt, stream};

use crate::journal::{Error as JournalError, Task};
use crate::model::backup_id::BackupId;
use crate::model::manifest::{Manifest, Object};
use crate::model::record::{FORMAT, Record, Trigger, Verdict};
use crate::model::target_name::TargetName;
use crate::model::upkeep::{ScrubRecord, ScrubbedBackup};
use crate::ops::context::{Context, Halt};
use crate::repository::{Error as RepositoryError, Manifests, ReadError, Unreadable};

/// Objects in memory at once; each has 64 MiB and a row at most.
const READS_AT_ONCE: usize = 4;

/// What the caller wants of this scrub.
#[derive(Clone, Debug)]
pub struct Options {
    pub trigger: Trigger,
    /// Only this one; `None`: all.
    pub backup: Option<BackupId>,
}

/// Why a scrub could not come to its end.
#[derive(Debug, thiserror::Error)]
enum ScrubError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error("target `{0}` has no backup yet: there is nothing to read back")]
    NoBackup(TargetName),
    #[error(transparent)]
    Halted(#[from] Halt),
}

/// Reads the target's backups back. The record is in the journal when this returns.
///
/// # Errors
/// Only where no record could be kept; a scrub that finds damage or cannot run is a record.
pub async fn scrub(
    context: &Context,
    target: &TargetName,
    options: &Options,
) -> Result<ScrubRecord, JournalError> {
    let started_at = (context.clock)();
    let run = context.start_run(Task::Scrub, target, started_at)?;
    let mut backups = Vec::new();
    let work = perform(context, target, options, &mut backups);
    let result = tokio::select! {
        result = work => result,
        halt = context.halted() => Err(halt.into()),
    };
    let (verdict, reason) = judge(&result, &backups);
    let record = ScrubRecord {
        format: FORMAT,
        id: run.id().to_string(),
        target: target.clone(),
        trigger: options.trigger,
        verdict,
        reason,
        started_at,
        finished_at: (context.clock)(),
        backups,
    };
    run.finish(Record::Scrub(record.clone()))?;
    Ok(record)
}

async fn perform(
    context: &Context,
    target: &TargetName,
    options: &Options,
    backups: &mut Vec<ScrubbedBackup>,
) -> Result<(), ScrubError> {
    let Manifests {
        mut readable,
        mut unreadable,
    } = context.repository.manifests(target).await?;
    if let Some(id) = &options.backup {
        // As it is stored now; and an error where there is none.
        match context.repository.manifest(target, id).await {
            Ok(manifest) => readable = vec![manifest],
            Err(RepositoryError::Unreadable { .. }) => readable.clear(),
            Err(error) => return Err(error.into()),
        }
        unreadable.retain(|one| one.backup.as_ref() == Some(id));
    }
    if readable.is_empty() && unreadable.is_empty() {
        return Err(ScrubError::NoBackup(target.clone()));
    }
    backups.extend(unreadable.iter().filter_map(of_unreadable));
    context
        .progress
        .expect_bytes(readable.iter().map(|manifest| manifest.totals.stored_bytes).sum());
    for manifest in readable {
        let scrubbed = read_back(context, &manifest).await;
        let unreachable = scrubbed.verdict == Verdict::CouldNotRun;
        // Objects of a backup that was pruned meanwhile may be gone: then it says nothing.
        let pruned = scrubbed.verdict != Verdict::Passed
            && matches!(
                context.repository.manifest(target, &manifest.id).await,
                Err(RepositoryError::NoBackup { .. })
            );
        if !pruned {
            backups.push(scrubbed);
        }
        // The others could not be reached either, each after as many tries.
        if unreachable {
            break;
        }
    }
    Ok(())
}

/// A damaged manifest is a bad backup; one of a newer version is not.
fn of_unreadable(unreadable: &Unreadable) -> Option<ScrubbedBackup> {
    Some(ScrubbedBackup {
        backup: unreadable.backup.clone()?,
        verdict: match unreadable.newer_format {
            Some(_) => Verdict::CouldNotRun,
            None => Verdict::Failed,
        },
        objects: 0,
        bytes: 0,
        faults: vec![format!("{}: {}", unreadable.key, unreadable.reason)],
    })
}

async fn read_back(context: &Context, manifest: &Manifest) -> ScrubbedBackup {
    let objects: Vec<Object> = manifest.objects().cloned().collect();
    let repository = &context.repository;
    let mut reads = stream::iter(objects)
        .map(|object| async move { (repository.read_object(&object).await, object) })
        .buffer_unordered(READS_AT_ONCE);
    let mut scrubbed = ScrubbedBackup {
        backup: manifest.id.clone(),
        verdict: Verdict::Passed,
        objects: 0,
        bytes: 0,
        faults: Vec::new(),
    };
    while let Some((read, object)) = reads.next().await {
        scrubbed.objects += 1;
        match read {
            Ok(bytes) => {
                scrubbed.bytes += bytes.len() as u64;
                context.progress.rows(0, object.size_bytes);
            }
            Err(error) => {
                scrubbed.faults.push(crate::ops::chain(&error));
                if error.means_bad_backup() {
                    scrubbed.verdict = Verdict::Failed;
                } else if let (Verdict::Passed, ReadError::Unreachable(_)) = (scrubbed.verdict, &error) {
                    scrubbed.verdict = Verdict::CouldNotRun;
                    break;
                }
            }
        }
    }
    scrubbed.faults.sort();
    scrubbed
}

fn judge(result: &Result<(), ScrubError>, backups: &[ScrubbedBackup]) -> (Verdict, Option<String>) {
    let with = |verdict| backups.iter().filter(move |scrubbed| scrubbed.verdict == verdict);
    let first = |scrubbed: &ScrubbedBackup| {
        let fault = scrubbed.faults.first().cloned().unwrap_or_default();
        format!("backup {}: {fault}", scrubbed.backup)
    };
    if let Some(bad) = with(Verdict::Failed).next() {
        let more = match with(Verdict::Failed).count() - 1 {
            0 => String::new(),
            more => format!("; and {more} more bad backups"),
        };
        return (Verdict::Failed, Some(first(bad) + &more));
    }
    match (result, with(Verdict::CouldNotRun).next()) {
        (Err(error), _) => (Verdict::CouldNotRun, Some(crate::ops::chain(error))),
        (Ok(()), Some(unread)) => (Verdict::CouldNotRun, Some(first(unread))),
        (Ok(()), None) => (Verdict::Passed, None),
    }
}
