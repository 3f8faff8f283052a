//! What the daemon knows of runs and backups: records of this machine within a second, the repository's after each run
//! and every minute. Jobs decide by it when they are due; metrics, pages and alerts show it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::cli::exit::Failure;
use crate::cli::setup::Setup;
use crate::journal::{History, Journal, RunStart, Task};
use crate::model::agenda::{End, PastRun};
use crate::model::record::{Entry, Outcome, Record, RestoreTestRecord, Verdict};
use crate::model::target_name::TargetName;
use crate::observe::measures::Counted;
use crate::observe::window::{Forgotten, trim};
use crate::repository::{Error as RepositoryError, Manifests, Repository};

/// Runs of one task and target, by their start.
pub(super) type RunsBy = BTreeMap<(TargetName, Task), Vec<PastRun>>;

/// Replaced as a whole; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Known {
    pub(super) history: Arc<History>,
    pub(super) runs: Arc<RunsBy>,
    pub(super) manifests: BTreeMap<TargetName, Arc<Manifests>>,
    pub(super) running: Vec<RunStart>,
    pub(super) repository_seen_at: Option<DateTime<Utc>>,
    pub(super) repository_fault: Option<String>,
    /// Why the journal on this machine could not be read the last time.
    unread: Option<String>,
    /// Why the last run left no record.
    unwritten: Option<String>,
    pub(super) forgotten: Arc<Forgotten>,
    pub(super) counted: Arc<BTreeMap<TargetName, Counted>>,
    /// Whole chains were read while the repository's backups were known.
    pub(super) has_all_records: bool,
    /// The newest record of each chain that was read.
    read: BTreeMap<String, u64>,
    /// By which look each target's manifests are known: a slow look must not undo a later one.
    looks: BTreeMap<TargetName, u64>,
}

/// How much of the records is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chains {
    /// All of them, and whether any is missing or changed.
    Whole,
    New,
}

enum Records {
    All(History),
    Some(Vec<Entry>),
}

/// Who looks, and what was seen.
pub(super) struct Watcher {
    known: Mutex<Known>,
    looks: Mutex<u64>,
    changed: watch::Sender<()>,
}

impl Watcher {
    pub(super) fn new() -> Self {
        Self {
            known: Mutex::default(),
            looks: Mutex::default(),
            changed: watch::channel(()).0,
        }
    }

    pub(super) fn known(&self) -> Known {
        self.lock().clone()
    }

    /// Tells of each change that may make something due.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Runs of a task and target, as recorded.
    pub(super) fn runs(&self, target: &TargetName, task: Task) -> Vec<PastRun> {
        let key = (target.clone(), task);
        self.lock().runs.get(&key).cloned().unwrap_or_default()
    }

    /// What was recorded here since the last look, by any process. Names the targets that it is about.
    pub(super) fn look_here(&self, journal: &Journal) -> Result<Vec<TargetName>, crate::journal::Error> {
        let chain = journal.chain();
        let last = self.lock().last_read(chain);
        let (mut new, running) = (journal.entries_after(last)?, journal.running()?);
        let mut known = self.lock();
        // Another look may have come first.
        let last = known.last_read(chain);
        new.retain(|entry| entry.sequence > last);
        let targets: Vec<TargetName> = new
            .iter()
            .filter_map(|entry| entry.record.target().cloned())
            .collect();
        let changed = !new.is_empty() || known.running != running;
        known.running = running;
        known.count(&new);
        known.add(new);
        drop(known);
        if changed {
            self.changed.send_replace(());
        }
        Ok(targets)
    }

    /// All that this machine recorded, and what runs on it, for a start without a repository.
    pub(super) fn look_at_journal(&self, journal: &Journal) -> Result<(), crate::journal::Error> {
        let (history, running) = (journal.history()?, journal.running()?);
        let mut known = self.lock();
        known.take(history);
        known.running = running;
        drop(known);
        self.changed.send_replace(());
        Ok(())
    }

    /// The backups of one target, as the repository shows them now.
    pub(super) async fn look_at(&self, repository: &Repository, target: &TargetName) {
        let look = self.begin_look();
        match repository.manifests(target).await {
            Ok(manifests) => {
                self.lock().place(target, manifests, look);
                self.changed.send_replace(());
            }
            Err(error) => self.note_fault(crate::ops::chain(&error)),
        }
    }

    /// All of the repository: backups, and the records of every machine; whole chains, or only what is new in them.
    pub(super) async fn look_everywhere(
        &self,
        setup: &Setup,
        repository: &Repository,
        journal: &Journal,
        chains: Chains,
    ) {
        let look = self.begin_look();
        let mut seen = Vec::new();
        for target in &setup.config.targets {
            match repository.manifests(&target.name).await {
                Ok(manifests) => seen.push((target.name.clone(), manifests)),
                Err(error) => return self.note_fault(crate::ops::chain(&error)),
            }
        }
        let read = self.lock().read.clone();
        let records = match chains {
            Chains::Whole => journal.history_with(repository).await.map(Records::All),
            Chains::New => journal
                .entries_elsewhere(repository, &read)
                .await
                .map(Records::Some),
        };
        let records = match records {
            Ok(records) => records,
            Err(error) => return self.note_fault(crate::ops::chain(&error)),
        };
        let mut known = self.lock();
        for (target, manifests) in seen {
            known.place(&target, manifests, look);
        }
        match records {
            Records::All(history) => {
                known.take_newer(history, journal.chain());
                known.has_all_records = true;
            }
            Records::Some(entries) => known.add(entries),
        }
        known.repository_seen_at = Some(Utc::now());
        if known.repository_fault.take().is_some() {
            tracing::info!("the repository can be reached again");
        }
        drop(known);
        self.changed.send_replace(());
    }

    /// There is no repository yet: nothing is backed up, and that is no fault of anything.
    pub(super) fn see_nothing(&self, setup: &Setup) {
        let look = self.begin_look();
        let mut known = self.lock();
        for target in &setup.config.targets {
            known.place(&target.name, Manifests::default(), look);
        }
        known.repository_seen_at = Some(Utc::now());
        known.repository_fault = None;
    }

    pub(super) fn note_fault(&self, fault: String) {
        let mut known = self.lock();
        if known.repository_fault.as_ref() != Some(&fault) {
            tracing::warn!("the repository cannot be looked at: {fault}");
        }
        known.repository_fault = Some(fault);
    }

    /// Whether the journal could be read.
    pub(super) fn note_unread(&self, fault: Option<String>) {
        let mut known = self.lock();
        match (&known.unread, &fault) {
            (before, Some(fault)) if before.as_ref() != Some(fault) => {
                tracing::error!("read the journal: {fault}");
            }
            (Some(_), None) => tracing::info!("the journal can be read again"),
            _ => {}
        }
        known.unread = fault;
    }

    /// Whether a run could be recorded.
    pub(super) fn note_unwritten(&self, fault: Option<String>) {
        self.lock().unwritten = fault;
    }

    /// Forgets targets that are configured no longer.
    pub(super) fn keep_only(&self, setup: &Setup) {
        let configured = |name: &TargetName| setup.config.target(name.as_str()).is_some();
        let mut known = self.lock();
        known.manifests.retain(|name, _| configured(name));
        known.looks.retain(|name, _| configured(name));
    }

    fn begin_look(&self) -> u64 {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        *looks += 1;
        *looks
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens the repository to look at it; `None`: there is none yet.
pub(super) async fn open(setup: &Setup) -> Result<Option<Repository>, Failure> {
    match setup.repository().await {
        Ok(repository) => Ok(Some(repository)),
        Err(failure) => {
            let error = failure.error.downcast_ref::<RepositoryError>();
            let none = matches!(error, Some(RepositoryError::NoRepository { .. }));
            let location = setup.store()?.describe();
            let expected = setup.journal()?.repository_at(&location);
            match (none, expected.map_err(Failure::operation)?) {
                (true, None) => Ok(None),
                (true, Some(id)) => {
                    let file = setup.journal()?.place_file(&location);
                    Err(Failure::operation(crate::cli::setup::gone(&id, &location, &file)))
                }
                (false, _) => Err(failure),
            }
        }
    }
}

impl Known {
    /// Why runs are not recorded, or not seen.
    pub(super) fn journal_fault(&self) -> Option<String> {
        self.unwritten.clone().or_else(|| self.unread.clone())
    }

    /// The repository was seen, and holds no backup of this target. Where it was not seen, nobody knows.
    pub(super) fn has_no_backup(&self, target: &TargetName) -> bool {
        let manifests = self.manifests.get(target);
        self.repository_seen_at.is_some()
            && manifests
                .is_none_or(|manifests| manifests.readable.is_empty() && manifests.unreadable.is_empty())
    }

    fn place(&mut self, target: &TargetName, manifests: Manifests, look: u64) {
        if self.looks.get(target).is_none_or(|last| *last < look) {
            self.looks.insert(target.clone(), look);
            self.manifests.insert(target.clone(), Arc::new(manifests));
        }
    }

    /// What was recorded here while the history was read stays.
    fn take_newer(&mut self, mut history: History, chain: &str) {
        let last = last_of(&history.entries, chain);
        let meanwhile = |entry: &&Entry| entry.chain == chain && entry.sequence > last;
        let later: Vec<Entry> = self.history.entries.iter().filter(meanwhile).cloned().collect();
        history.entries.extend(later);
        self.take(history);
    }

    /// A history of all records there are.
    fn take(&mut self, history: History) {
        self.keep(history, Forgotten::new());
    }

    /// Records that are not known yet.
    fn add(&mut self, new: Vec<Entry>) {
        if new.is_empty() {
            return;
        }
        let mut history = History::clone(&self.history);
        history.entries.extend(new);
        self.keep(history, Forgotten::clone(&self.forgotten));
    }

    fn keep(&mut self, mut history: History, mut forgotten: Forgotten) {
        for entry in &history.entries {
            let read = self.read.entry(entry.chain.clone()).or_default();
            *read = entry.sequence.max(*read);
        }
        history.entries.sort_by_key(|entry| entry.record.finished_at());
        history.entries = trim(history.entries, &self.manifests, &mut forgotten);
        self.forgotten = Arc::new(forgotten);
        self.runs = Arc::new(runs_by(&history.entries));
        self.history = Arc::new(history);
    }

    /// What this machine recorded while the daemon runs.
    fn count(&mut self, new: &[Entry]) {
        let mut counted = BTreeMap::clone(&self.counted);
        for entry in new {
            if let Some(target) = entry.record.target() {
                counted.entry(target.clone()).or_default().note(&entry.record);
            }
        }
        self.counted = Arc::new(counted);
    }

    fn last_read(&self, chain: &str) -> u64 {
        self.read.get(chain).copied().unwrap_or(0)
    }
}

fn last_of(entries: &[Entry], chain: &str) -> u64 {
    let of_chain = entries.iter().filter(|entry| entry.chain == chain);
    of_chain.map(|entry| entry.sequence).max().unwrap_or(0)
}

fn runs_by(entries: &[Entry]) -> RunsBy {
    let mut runs = RunsBy::new();
    for entry in entries {
        if let Some((task, run)) = past_run(&entry.record) {
            if let Some(target) = entry.record.target() {
                runs.entry((target.clone(), task)).or_default().push(run);
            }
        }
    }
    runs.values_mut()
        .for_each(|runs| runs.sort_by_key(|run| run.started_at));
    runs
}

/// What the end of a backup or a prune means for the schedule.
pub(super) fn end_of_run(outcome: Outcome) -> End {
    match outcome {
        Outcome::Succeeded => End::Done,
        Outcome::Failed => End::CouldNotRun,
        Outcome::Cancelled => End::Cancelled,
    }
}

/// The same of a restore test: a bad backup is a result like any other.
pub(super) fn end_of_test(record: &RestoreTestRecord) -> End {
    match record.verdict {
        Verdict::Passed | Verdict::Failed => End::Done,
        Verdict::CouldNotRun if record.cancelled => End::Cancelled,
        Verdict::CouldNotRun => End::CouldNotRun,
    }
}

/// What a record means for the schedule; nothing for what no schedule runs.
fn past_run(record: &Record) -> Option<(Task, PastRun)> {
    let (task, started_at, end) = match record {
        Record::Backup(record) => (Task::Backup, record.started_at, end_of_run(record.outcome)),
        Record::Prune(record) => (Task::Prune, record.started_at, end_of_run(record.outcome)),
        Record::RestoreTest(record) => (Task::RestoreTest, record.started_at, end_of_test(record)),
        Record::Interrupted(record) => {
            let scheduled = [Task::Backup, Task::RestoreTest, Task::Prune];
            let task = scheduled.into_iter().find(|task| task.as_str() == record.task)?;
            (task, record.started_at, End::CouldNotRun)
        }
        Record::Restore(_)
        | Record::Scrub(_)
        | Record::Acknowledgement(_)
        | Record::AlertDelivery(_)
        | Record::AlertTest(_) => return None,
    };
    let ended_at = record.finished_at();
    Some((
        task,
        PastRun {
            started_at,
            ended_at,
            end,
        },
    ))
}
