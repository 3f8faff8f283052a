//! What the daemon runs by schedule: the tasks of the commands, each for one target.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::cli::each_target::{Around, Task as OfTarget, run_once};
use crate::cli::exit::Failure;
use crate::cli::progress;
use crate::cli::prune;
use crate::cli::setup::Setup;
use crate::config;
use crate::daemon::Job;
use crate::journal::{Error as JournalError, History, Task};
use crate::model::agenda::{self, Due, End, NewestBackup, PastRun, Why};
use crate::model::manifest::Manifest;
use crate::model::record::{Outcome, Record, RestoreTestRecord, Trigger, Verdict};
use crate::model::schedule::Schedule;
use crate::model::verdicts::Verdicts;
use crate::ops;
use crate::ops::backup::Options as BackupOptions;
use crate::ops::context::{Context, Deadline, Halt};
use crate::ops::restore::Choice;
use crate::ops::restore_test::{Afterwards, Options as TestOptions};
use crate::repository::OtherIdentity;

use super::known::{Chains, Watcher};
use super::look::{look_here, settle};
use super::past::{end_of_run, end_of_test};

/// What all jobs of one target share.
pub(super) struct Common {
    pub(super) setup: Arc<Setup>,
    pub(super) watcher: Arc<Watcher>,
    pub(super) target: config::Target,
    pub(super) task: Task,
    pub(super) schedule: Schedule,
    /// Since when this is wanted.
    pub(super) since: DateTime<Utc>,
    pub(super) name: String,
    /// The last run that left no record: there was nothing to do, or the journal could not be written.
    pub(super) unrecorded: Mutex<Option<PastRun>>,
}

/// A job of the task that `Work` does.
pub(super) struct Scheduled<Work> {
    pub(super) common: Common,
    pub(super) work: Work,
}

/// What is done when a job is due.
#[async_trait]
pub(super) trait Work: Send + Sync {
    /// The configured deadline.
    fn timeout(&self, target: &config::Target) -> Option<Duration>;

    async fn work(&self, common: &Common, trigger: Trigger, deadline: Duration) -> Result<End, JournalError>;
}

pub(super) struct Backup;
pub(super) struct RestoreTest;
pub(super) struct Prune;

#[async_trait]
impl<W: Work> Job for Scheduled<W> {
    fn name(&self) -> &str {
        &self.common.name
    }

    fn due(&self, now: DateTime<Utc>) -> Option<Due> {
        self.common.due(now)
    }

    fn deadline(&self) -> Duration {
        agenda::deadline(self.work.timeout(&self.common.target), &self.common.runs())
    }

    fn is_running_elsewhere(&self) -> bool {
        let (common, this_process) = (&self.common, std::process::id());
        let running = common.watcher.known().running;
        running
            .iter()
            .any(|run| run.task == common.task && run.target == common.target.name && run.pid != this_process)
    }

    async fn run(&self, why: Why, deadline: Duration) {
        let common = &self.common;
        let started_at = Utc::now();
        let trigger = match why {
            Why::Schedule => Trigger::Schedule,
            Why::CatchUp => Trigger::CatchUp,
            Why::Retry => Trigger::Retry,
            Why::AfterBackup => Trigger::AfterBackup,
        };
        tracing::info!("{}: begins", common.name);
        let end = self.work.work(common, trigger, deadline).await;
        common
            .watcher
            .note_unwritten(end.as_ref().err().map(|error| ops::chain(error)));
        let end = end.unwrap_or_else(|error| {
            tracing::error!(
                "{}: its record could not be kept: {}",
                common.name,
                ops::chain(&error)
            );
            End::CouldNotRun
        });
        let ended = PastRun {
            started_at,
            ended_at: Utc::now(),
            end,
        };
        common.see_the_end(ended).await;
    }

    async fn clear_away(&self) {
        let at = Utc::now();
        let settled = tokio::select! {
            // What lies on this machine is removed at once, before the repository is asked for anything.
            biased;
            settled = settle(&self.common.setup) => settled,
            () = self.common.setup.signals.cancel.cancelled() => Ok(()),
        };
        if let Err(failure) = settled {
            tracing::error!("{}: {}", self.common.name, ops::chain(failure.error.as_ref()));
        }
        let ended = PastRun {
            started_at: at,
            ended_at: at,
            end: End::CouldNotRun,
        };
        self.common.see_the_end(ended).await;
    }
}

impl Common {
    fn due(&self, now: DateTime<Utc>) -> Option<Due> {
        let runs = self.runs();
        match &self.schedule {
            // Nothing to restore or to remove: that there is no backup, the backups' own runs tell.
            _ if self.task != Task::Backup && self.watcher.known().has_no_backup(&self.target.name) => None,
            Schedule::AfterEveryBackup => agenda::after_backup(self.newest_backup(&runs, now), &runs, now),
            clock if runs.is_empty() => agenda::by_the_clock(clock, &runs, self.possible_since(), now),
            clock => agenda::by_the_clock(clock, &runs, self.since, now),
        }
    }

    /// Since when there was anything to do: no slot was missed before the first backup.
    fn possible_since(&self) -> DateTime<Utc> {
        let known = self.watcher.known();
        let manifests = known.manifests.get(&self.target.name);
        let first = manifests.and_then(|manifests| manifests.readable.first());
        match first.filter(|_| self.task != Task::Backup) {
            Some(first) => self.since.max(taken_at(&known.history, first)),
            None => self.since,
        }
    }

    /// As recorded, and the one that was not.
    fn runs(&self) -> Vec<PastRun> {
        let mut runs = self.watcher.runs(&self.target.name, self.task);
        let unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = *unrecorded {
            runs.push(run);
            runs.sort_by_key(|run| run.started_at);
        }
        runs
    }

    /// The backup that a test would choose now.
    fn newest_backup(&self, tests: &[PastRun], now: DateTime<Utc>) -> Option<NewestBackup> {
        let known = self.watcher.known();
        let manifests = known.manifests.get(&self.target.name)?;
        let verdicts = Verdicts::of(&self.target.name, known.history.iter());
        let tested = |id| verdicts.last_test_at(id).is_some() || verdicts.is_bad(id);
        let finished_at = |manifest| taken_at(&known.history, manifest);
        let newest = manifests.newest_at(now)?;
        // Backups from before restore tests were asked for were never missed.
        let last_test = tests.iter().rfind(|test| test.end != End::Cancelled);
        let before = manifests
            .readable
            .iter()
            .filter(|one| one.order() < newest.order());
        let passed_over = before.filter(|manifest| {
            last_test.is_some_and(|test| finished_at(manifest) > test.started_at) && !tested(&manifest.id)
        });
        Some(NewestBackup {
            finished_at: finished_at(newest),
            tested: tested(&newest.id),
            passed_over: passed_over.count() as u64,
        })
    }

    /// Looks at what has come of a run, so that nothing is decided by what was before.
    async fn see_the_end(&self, run: PastRun) {
        look_here(&self.watcher, &self.setup);
        let looking = async {
            if let Ok(repository) = self.setup.repository().await {
                self.watcher.look_at(&repository, &self.target.name).await;
            }
        };
        // Whoever is to stop need not see any more.
        tokio::select! {
            () = looking => {}
            () = self.setup.signals.cancel.cancelled() => {}
        }
        let runs = self.watcher.runs(&self.target.name, self.task);
        let recorded = runs.iter().any(|one| one.started_at >= run.started_at);
        let mut unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        *unrecorded = (!recorded).then_some(run);
    }

    fn around(&self, deadline: Duration) -> Around {
        Around {
            display: progress::logged(&self.target.name),
            deadline: Some(deadline),
            settle: false,
        }
    }

    fn log(&self, failure: Option<&Failure>, said: &str, good: bool, reason: Option<&str>) {
        let reason = match failure {
            Some(failure) => Some(ops::chain(failure.error.as_ref())),
            None => reason.map(str::to_owned),
        };
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        if good {
            tracing::info!("{}: {said}{reason}", self.name);
        } else {
            tracing::error!("{}: {said}{reason}", self.name);
        }
    }
}

/// When a backup was complete, on the clock of the machine that took it, as restore tests are timed too. The manifest's
/// own time is the source's, which may be far ahead.
fn taken_at(history: &History, manifest: &Manifest) -> DateTime<Utc> {
    let recorded = history.iter().rev().find_map(|entry| match &entry.record {
        Record::Backup(record) if record.backup.as_ref() == Some(&manifest.id) => Some(record.finished_at),
        _ => None,
    });
    recorded.unwrap_or(manifest.finished_at)
}

#[async_trait]
impl Work for Backup {
    fn timeout(&self, target: &config::Target) -> Option<Duration> {
        BackupOptions::deadline(target)
    }

    async fn work(&self, common: &Common, trigger: Trigger, deadline: Duration) -> Result<End, JournalError> {
        let options = BackupOptions {
            trigger,
            other_identity: OtherIdentity::Refuse,
        };
        let around = common.around(deadline);
        let (record, failure) = run_once(&common.setup, &common.target, &options, around).await?;
        let said = match record.outcome {
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::Cancelled => "was cancelled",
        };
        let end = end_of_run(record.outcome);
        let good = end != End::CouldNotRun;
        common.log(failure.as_ref(), said, good, record.reason.as_deref());
        Ok(end)
    }
}

#[async_trait]
impl Work for RestoreTest {
    fn timeout(&self, target: &config::Target) -> Option<Duration> {
        TestOptions::deadline(target)
    }

    async fn work(&self, common: &Common, trigger: Trigger, deadline: Duration) -> Result<End, JournalError> {
        let options = TestOptions {
            trigger,
            choice: Choice::Newest,
            afterwards: Afterwards::Remove,
        };
        let around = common.around(deadline);
        let (record, failure) = run_once(&common.setup, &common.target, &options, around).await?;
        let said = said_of(&record);
        let good = record.verdict == Verdict::Passed && !record.objectives.missed();
        common.log(
            failure.as_ref(),
            &said,
            good || record.cancelled,
            record.reason.as_deref(),
        );
        Ok(end_of_test(&record))
    }
}

fn said_of(record: &RestoreTestRecord) -> String {
    let mut said = record.verdict.as_str().to_owned();
    for (name, objective) in [("RPO", &record.objectives.rpo), ("RTO", &record.objectives.rto)] {
        if let (Some(actual), Some(_)) = (objective.actual_seconds, objective.objective_seconds) {
            said.push_str(&format!(
                ", {name} {} ({actual:.0} s)",
                objective.verdict.as_str()
            ));
        }
    }
    said
}

#[async_trait]
impl Work for Prune {
    fn timeout(&self, _target: &config::Target) -> Option<Duration> {
        None
    }

    async fn work(&self, common: &Common, trigger: Trigger, deadline: Duration) -> Result<End, JournalError> {
        let setup = &common.setup;
        let deadline = Deadline::after(deadline);
        let begun = tokio::select! {
            begun = begin_prune(common) => begun,
            halt = Halt::wait(&setup.signals.cancel, Some(deadline)) => Err(Failure::operation(halt)),
        };
        let (mut context, known) = match begun {
            Ok(begun) => begun,
            // Without a repository there is nothing to remove; backups tell that it is gone.
            Err(failure) => {
                let cancelled = setup.signals.cancel.is_cancelled();
                common.log(Some(&failure), "could not run", cancelled, None);
                return Ok(if cancelled {
                    End::Cancelled
                } else {
                    End::CouldNotRun
                });
            }
        };
        context.deadline = Some(deadline);
        let settings = ops::prune::Settings {
            known,
            ..prune::settings(&common.target)
        };
        let record = ops::prune::prune(&context, &settings, trigger).await?;
        setup.deliver(&context).await;
        let Some(record) = record else {
            common.log(None, "nothing to remove", true, None);
            return Ok(End::Done);
        };
        let said = match record.outcome {
            Outcome::Succeeded => format!("removed {} backups", record.removed.len()),
            Outcome::Failed => "failed".to_owned(),
            Outcome::Cancelled => "was cancelled".to_owned(),
        };
        let end = end_of_run(record.outcome);
        common.log(None, &said, end == End::Done, record.reason.as_deref());
        Ok(end)
    }
}

/// The surroundings of a prune, and the records that it decides by where they are known here.
async fn begin_prune(common: &Common) -> Result<(Context, Option<Arc<History>>), Failure> {
    let (setup, watcher, target) = (&common.setup, &common.watcher, &common.target.name);
    let repository = setup.repository().await?;
    let context = setup.context(repository, setup.journal()?, progress::logged(target));
    let (repository, journal) = (&context.repository, &context.journal);
    let mut known = watcher.for_retention(repository, journal, target).await;
    if known.is_none() {
        // Of years of records, a look holds no more than what still says something.
        watcher
            .look_everywhere(setup, repository, journal, Chains::Whole)
            .await;
        known = watcher.for_retention(repository, journal, target).await;
    }
    Ok((context, known))
}
