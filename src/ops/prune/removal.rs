//! Removing what a plan says: tombstone, manifest; and long after that objects, tombstone.

use std::collections::BTreeMap;
use std::future::{self, Future};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt, stream};
use tokio::time::timeout;

use crate::journal::RunId;
use crate::model::upkeep::PrunedBackup;
use crate::ops::context::{CLEAN_UP_AFTER_SIGNAL, Context, Halt};
use crate::ops::fault_point::pause;
use crate::repository::{Error as RepositoryError, Tombstone};
use crate::store::{Freed, Listed};

use super::PruneError;
use super::plan::{Leftover, Plan, PlannedBackup};

/// Backups that are removed at once. Each asks for one thing after the other, so this hides a bucket's latency.
const BACKUPS_AT_ONCE: usize = 4;
/// Objects of one backup that are deleted at once.
const DELETES_AT_ONCE: usize = 8;
/// How many objects go by before the progress says so.
const TELL_EVERY: u64 = 1000;

/// What was done so far, whether or not all will be.
#[derive(Debug, Default)]
pub(super) struct Done {
    pub(super) removed: Vec<PrunedBackup>,
    pub(super) objects: u64,
    pub(super) freed_bytes: u64,
    /// How many objects take space still, by the reason.
    kept: BTreeMap<String, u64>,
}

/// One run that removes things.
pub(super) struct Removal<'a> {
    context: &'a Context,
    plan: &'a Plan,
    run: &'a RunId,
    /// Nothing more is begun.
    halted: AtomicBool,
    done: Mutex<Done>,
}

impl<'a> Removal<'a> {
    pub(super) fn new(context: &'a Context, plan: &'a Plan, run: &'a RunId) -> Self {
        Self {
            context,
            plan,
            run,
            halted: AtomicBool::new(false),
            done: Mutex::default(),
        }
    }

    /// Does what the plan says, and stops at a safe point when told to: no repository that hangs may hold that up.
    pub(super) async fn carry_out_in_time(&self) -> Result<(), PruneError> {
        let mut work = std::pin::pin!(self.carry_out());
        let halt = tokio::select! {
            result = &mut work => return result,
            halt = self.context.halted() => halt,
        };
        self.halted.store(true, Ordering::Relaxed);
        match timeout(CLEAN_UP_AFTER_SIGNAL, work).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(halt.into()),
        }
    }

    async fn carry_out(&self) -> Result<(), PruneError> {
        pause("prune-decided").await;
        let confirmed = self.context.repository.confirm().await;
        confirmed.map_err(|error| self.failed(error))?;
        let backups: Vec<&PlannedBackup> = self.plan.backups.iter().filter(|one| !one.keep).collect();
        self.tell(backups.len(), &format!("removing {} backups", backups.len()));
        self.each(backups, BACKUPS_AT_ONCE, |backup| self.remove_backup(backup))
            .await?;
        let due: Vec<&Leftover> = self.plan.leftovers.iter().filter(|one| one.due).collect();
        let objects: u64 = due.iter().map(|leftover| leftover.objects).sum();
        self.tell(
            due.len(),
            &format!("removing {objects} objects that belong to no backup"),
        );
        self.each(due, BACKUPS_AT_ONCE, |leftover| self.remove_leftover(leftover))
            .await
    }

    /// What was done, and what stays and takes space, one line each.
    pub(super) fn into_done(self) -> (Done, Vec<String>) {
        let mut done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let kept = std::mem::take(&mut done.kept);
        let mut lines: Vec<String> = kept
            .iter()
            .map(|(reason, count)| format!("{count} objects take space still: {reason}"))
            .collect();
        lines.extend(self.plan.waiting(&done.removed));
        (done, lines)
    }

    /// Makes a backup exist no longer, unless somebody else was quicker.
    async fn remove_backup(&self, backup: &PlannedBackup) -> Result<(), PruneError> {
        let (repository, target, id) = (&self.context.repository, &self.plan.target, &backup.backup);
        let stored = repository.stored_manifest(target, id).await;
        let Some(manifest) = stored.map_err(|error| self.failed(error))? else {
            return Ok(());
        };
        let objects = self.plan.inventory.objects.get(id);
        let reason = backup.reasons.join("; ");
        let tombstone = Tombstone::new(
            target,
            id,
            (self.context.clock)(),
            &reason,
            objects.map_or(&[], Vec::as_slice),
            manifest,
        );
        let put = repository.put_tombstone(&tombstone, &self.run.to_string()).await;
        put.map_err(|error| self.failed(error))?;
        pause("prune-after-tombstone").await;
        let freed = repository.delete_manifest(target, id).await;
        self.done().add(freed.map_err(|error| self.failed(error))?);
        self.done().removed.push(PrunedBackup {
            backup: id.clone(),
            reason,
        });
        pause("prune-after-manifest").await;
        Ok(())
    }

    /// Removes what is left of a backup; the tombstones last, so that a run that is killed here can be finished.
    async fn remove_leftover(&self, leftover: &Leftover) -> Result<(), PruneError> {
        let (inventory, id) = (&self.plan.inventory, &leftover.backup);
        pause("prune-before-data").await;
        let exists = self.context.repository.has_manifest(&self.plan.target, id).await;
        if exists.map_err(|error| self.failed(error))? {
            return Ok(());
        }
        let objects = inventory.objects.get(id).into_iter().flatten();
        self.each(objects.collect(), DELETES_AT_ONCE, async |object| {
            self.delete(object).await?;
            let objects = {
                let mut done = self.done();
                done.objects += 1;
                done.objects
            };
            if objects.is_multiple_of(TELL_EVERY) {
                self.tell(1, &format!("{objects} objects removed"));
            }
            pause("prune-amid-data").await;
            Ok(())
        })
        .await?;
        pause("prune-after-data").await;
        let tombstones = inventory.tombstones.get(id).into_iter().flatten();
        self.each(tombstones.collect(), DELETES_AT_ONCE, |tombstone| {
            self.delete(tombstone)
        })
        .await
    }

    async fn delete(&self, object: &Listed) -> Result<(), PruneError> {
        let freed = self.context.repository.delete_listed(object).await;
        self.done().add(freed.map_err(|error| self.failed(error))?);
        Ok(())
    }

    /// Does the work for each, several at once. After a failure or when it is to end nothing new is begun, and what is
    /// under way is waited for.
    async fn each<I, W>(&self, items: Vec<I>, at_once: usize, work: impl Fn(I) -> W) -> Result<(), PruneError>
    where
        W: Future<Output = Result<(), PruneError>>,
    {
        let (stop, begun, all) = (AtomicBool::new(false), AtomicUsize::new(0), items.len());
        let go_on = |_: &I| {
            let ended = stop.load(Ordering::Relaxed) || self.halted.load(Ordering::Relaxed);
            future::ready(!ended)
        };
        let begin = |item| {
            begun.fetch_add(1, Ordering::Relaxed);
            work(item)
        };
        let items = stream::iter(items).take_while(go_on).map(begin);
        let mut results = std::pin::pin!(items.buffer_unordered(at_once));
        let mut failure = None;
        while let Some(result) = results.next().await {
            if let Err(error) = result {
                stop.store(true, Ordering::Relaxed);
                failure.get_or_insert(error);
            }
        }
        match failure {
            Some(error) => Err(error),
            None if begun.load(Ordering::Relaxed) < all => Err(PruneError::Halted(Halt::Signal)),
            None => Ok(()),
        }
    }

    fn tell(&self, count: usize, phase: &str) {
        if count > 0 {
            self.context.progress.phase(phase);
        }
    }

    fn failed(&self, error: RepositoryError) -> PruneError {
        PruneError::of(&self.plan.target, error)
    }

    fn done(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Done {
    fn add(&mut self, freed: Freed) {
        self.freed_bytes += freed.bytes;
        if let Some(reason) = freed.kept {
            *self.kept.entry(reason).or_default() += 1;
        }
    }
}
