//! What the daemon knows of runs and backups: records of this machine within a second, the repository's after each run
//! and every minute. Jobs decide by it when they are due; metrics, pages and alerts show it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::watch;

use crate::cli::setup::Setup;
use crate::journal::{ChainProblem, Elsewhere, History, Journal, RunStart, Task};
use crate::model::agenda::PastRun;
use crate::model::backup_id::BackupId;
use crate::model::record::Entry;
use crate::model::target_name::TargetName;
use crate::observe::measures::Counted;
use crate::observe::window::{Forgotten, trim};
use crate::repository::{Manifests, Repository};

use super::past::{RunsBy, runs_by};
use super::whole::Whole;

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
    /// Whole chains were read while the repository's backups were known, and nothing was seen since that records may
    /// speak of which were let go of.
    pub(super) has_all_records: bool,
    /// How often that came into doubt: also while all was read again.
    doubts: u64,
    /// The newest record of each chain that was read.
    read: BTreeMap<String, u64>,
    /// The newest record of this machine's chain that `counted` speaks of, or that was there before.
    counted_to: (String, u64),
    looks: BTreeMap<TargetName, Look>,
    /// Targets of which this machine has recorded something since their backups were looked at.
    to_look_at: BTreeSet<TargetName>,
}

/// The last look at the backups of a target.
#[derive(Clone)]
struct Look {
    /// A slow look must not undo a later one.
    number: u64,
    /// The newest backup that was ever seen.
    newest: Option<BackupId>,
}

/// How much of the records is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chains {
    /// All of them, and whether any is missing or changed.
    Whole,
    New,
}

enum Records {
    All(Whole),
    New(Elsewhere),
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

    /// What was recorded here since the last look, by any process.
    pub(super) fn look_here(&self, journal: &Journal) -> Result<(), crate::journal::Error> {
        let chain = journal.chain();
        let last = self.lock().last_read(chain);
        let (mut new, running) = (journal.entries_after(last)?, journal.running()?);
        let mut known = self.lock();
        // Another look may have come first.
        let last = known.last_read(chain);
        new.retain(|entry| entry.sequence > last);
        let changed = !new.is_empty() || known.running != running;
        known.running = running;
        known.add(new);
        drop(known);
        if changed {
            self.changed.send_replace(());
        }
        Ok(())
    }

    /// The targets whose backups are to be looked at, for whoever does that now.
    pub(super) fn to_look_at(&self) -> BTreeSet<TargetName> {
        std::mem::take(&mut self.lock().to_look_at)
    }

    /// All that this machine recorded, and what runs on it, for a start without a repository.
    pub(super) fn look_at_journal(&self, journal: &Journal) -> Result<(), crate::journal::Error> {
        let (whole, running) = (Whole::here(journal)?, journal.running()?);
        let mut known = self.lock();
        let last = whole.read.get(journal.chain()).copied().unwrap_or(0);
        known.counted_to = (journal.chain().to_owned(), last);
        known.take(whole, &BTreeMap::new());
        known.running = running;
        drop(known);
        self.changed.send_replace(());
        Ok(())
    }

    /// The backups of one target, as the repository shows them now.
    pub(super) async fn look_at(&self, repository: &Repository, target: &TargetName) {
        let look = self.begin_look();
        self.lock().to_look_at.remove(target);
        match repository.manifests(target).await {
            Ok(manifests) => {
                self.lock().place(target, Arc::new(manifests), look);
                self.changed.send_replace(());
            }
            Err(error) => self.note_fault(crate::ops::chain(&error)),
        }
    }

    /// The records as they are now, to decide by them which backups of a target may go. They do instead of all there
    /// are: what was let go of changes no such decision (see `window`). `None` where only reading all can tell.
    pub(super) async fn for_retention(
        &self,
        repository: &Repository,
        journal: &Journal,
        target: &TargetName,
    ) -> Option<Arc<History>> {
        self.look_at(repository, target).await;
        let read = self.lock().read.clone();
        let elsewhere = journal.entries_elsewhere(repository, &read).await.ok()?;
        self.look_here(journal).ok()?;
        let mut known = self.lock();
        let has_all_here = known.last_read(journal.chain()) >= elsewhere.last_here;
        known.hear(elsewhere);
        (known.has_all_records && has_all_here).then(|| Arc::clone(&known.history))
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
        let doubts = self.lock().doubts;
        let mut seen = BTreeMap::new();
        for target in &setup.config.targets {
            match repository.manifests(&target.name).await {
                Ok(manifests) => drop(seen.insert(target.name.clone(), Arc::new(manifests))),
                Err(error) => return self.note_fault(crate::ops::chain(&error)),
            }
        }
        let read = self.lock().read.clone();
        let records = match chains {
            Chains::Whole => Whole::everywhere(journal, repository, &seen)
                .await
                .map(Records::All),
            Chains::New => journal
                .entries_elsewhere(repository, &read)
                .await
                .map(Records::New),
        };
        let records = match records {
            Ok(records) => records,
            Err(error) => return self.note_fault(crate::ops::chain(&error)),
        };
        let mut known = self.lock();
        let undisturbed = known.doubts == doubts;
        for (target, manifests) in seen {
            known.place(&target, manifests, look);
        }
        match records {
            Records::All(whole) => {
                known.take(whole, &read);
                known.has_all_records = undisturbed;
            }
            Records::New(elsewhere) => known.hear(elsewhere),
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
            known.place(&target.name, Arc::default(), look);
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
        known.to_look_at.retain(configured);
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

    fn place(&mut self, target: &TargetName, manifests: Arc<Manifests>, look: u64) {
        let last = self.looks.get(target);
        if last.is_some_and(|last| last.number >= look) {
            return;
        }
        let newest = last.and_then(|last| last.newest.clone());
        let before = self.manifests.get(target).map(|before| before.ids());
        let ids = manifests.ids();
        // Of a target that is new, and of a backup that comes back or was copied here, records may have been let go of.
        let is_next = |id: &&BackupId| newest.as_ref().is_none_or(|newest| *id > newest);
        let follows = before.is_some_and(|before| ids.iter().all(|id| before.contains(id) || is_next(id)));
        if !follows {
            self.doubt();
        }
        let newest = ids.last().map(|id| BackupId::clone(id)).max(newest);
        self.looks.insert(target.clone(), Look { number: look, newest });
        self.manifests.insert(target.clone(), manifests);
    }

    /// All records there are. `before`: what was read of each chain when the reading of these began.
    fn take(&mut self, whole: Whole, before: &BTreeMap<String, u64>) {
        let last = |read: &BTreeMap<String, u64>, chain: &str| read.get(chain).copied().unwrap_or(0);
        // What was heard meanwhile, by another look, stays.
        let meanwhile = |entry: &&Arc<Entry>| {
            entry.sequence > last(before, &entry.chain) && entry.sequence > last(&whole.read, &entry.chain)
        };
        self.count(&whole.entries);
        let later: Vec<Arc<Entry>> = self.history.entries.iter().filter(meanwhile).cloned().collect();
        let Whole {
            mut entries,
            problems,
            forgotten,
            read,
        } = whole;
        entries.extend(later);
        for (chain, sequence) in read {
            self.note_read(chain, sequence);
        }
        self.keep(entries, problems, forgotten);
    }

    /// What came from other machines.
    fn hear(&mut self, elsewhere: Elsewhere) {
        if !elsewhere.in_order {
            self.doubt();
        }
        self.add(elsewhere.entries);
    }

    fn doubt(&mut self) {
        self.has_all_records = false;
        self.doubts += 1;
    }

    fn add(&mut self, mut new: Vec<Arc<Entry>>) {
        // Another look may have come first.
        new.retain(|entry| entry.sequence > self.last_read(&entry.chain));
        if new.is_empty() {
            return;
        }
        self.count(&new);
        for entry in &new {
            self.note_read(entry.chain.clone(), entry.sequence);
        }
        let mut entries = self.history.entries.clone();
        entries.extend(new);
        let problems = self.history.problems.clone();
        self.keep(entries, problems, Forgotten::clone(&self.forgotten));
    }

    fn keep(&mut self, entries: Vec<Arc<Entry>>, problems: Vec<ChainProblem>, mut forgotten: Forgotten) {
        let entries = trim(entries, &self.manifests, &mut forgotten);
        self.forgotten = Arc::new(forgotten);
        self.history = Arc::new(History { entries, problems });
        self.runs = Arc::new(runs_by(&self.history));
    }

    fn note_read(&mut self, chain: String, sequence: u64) {
        let read = self.read.entry(chain).or_default();
        *read = sequence.max(*read);
    }

    /// What this machine recorded while the daemon runs, each record once, by whichever look it is seen first.
    fn count(&mut self, entries: &[Arc<Entry>]) {
        let (chain, last) = self.counted_to.clone();
        let is_new = |entry: &&Arc<Entry>| entry.chain == chain && entry.sequence > last;
        let mut counted = BTreeMap::clone(&self.counted);
        for entry in entries.iter().filter(is_new) {
            self.counted_to.1 = entry.sequence.max(self.counted_to.1);
            if let Some(target) = entry.record.target() {
                self.to_look_at.insert(target.clone());
                counted.entry(target.clone()).or_default().note(&entry.record);
            }
        }
        self.counted = Arc::new(counted);
    }

    fn last_read(&self, chain: &str) -> u64 {
        self.read.get(chain).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record::Verdict::{Failed, Passed};
    use crate::model::samples::{entries, manifest, restore_test, target};
    use crate::repository::test_support::memory_repository;
    use crate::store::Store;

    fn backups(numbers: &[i64]) -> Arc<Manifests> {
        Arc::new(Manifests {
            readable: numbers.iter().map(|number| manifest(*number)).collect(),
            unreadable: Vec::new(),
        })
    }

    /// Whether all records are still known, after these looks at the backups that there are.
    fn has_all_after(looks: &[&[i64]]) -> bool {
        let mut known = Known::default();
        known.place(&target(), backups(&[1, 2]), 1);
        known.has_all_records = true;
        for (number, look) in (2..).zip(looks) {
            known.place(&target(), backups(look), number);
        }
        known.has_all_records
    }

    #[test]
    fn records_may_be_missing_of_backups_that_come_back_or_were_copied_here_and_of_new_targets() {
        assert!(has_all_after(&[&[1, 2], &[2], &[2, 3], &[3, 4, 5], &[], &[6]]));
        assert!(!has_all_after(&[&[2], &[1, 2]]));
        assert!(!has_all_after(&[&[0, 1, 2]]));
        assert!(!has_all_after(&[&[], &[2]]));
        let mut known = Known {
            has_all_records: true,
            ..Known::default()
        };
        known.place(&target(), backups(&[]), 1);
        assert!(!known.has_all_records);
    }

    #[tokio::test]
    async fn retention_decides_by_records_of_this_moment_or_reads_all() {
        let (repository, faulty) = memory_repository().await;
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [ours, theirs] = folders
            .each_ref()
            .map(|folder| Journal::open(folder.path()).unwrap());
        repository.put_manifest(&manifest(1)).await.unwrap();
        let watcher = Watcher::new();
        let asked = async || {
            let known = watcher.for_retention(&repository, &ours, &target()).await;
            known.map(|history| history.entries.len())
        };
        assert_eq!(asked().await, None, "nobody has read the chains yet");
        watcher.lock().has_all_records = true;
        ours.append(restore_test(1, Failed, 10)).unwrap();
        theirs.append(restore_test(1, Passed, 20)).unwrap();
        theirs.deliver(&repository).await.unwrap();
        assert_eq!(asked().await, Some(2));
        let broken = crate::repository::keys::record_key(theirs.chain(), 2).unwrap();
        faulty.put_new(&broken, bytes::Bytes::from("{")).await.unwrap();
        assert_eq!(asked().await, None, "a record cannot be read");

        watcher.lock().has_all_records = true;
        watcher.lock().note_read(theirs.chain().to_owned(), 2);
        assert_eq!(asked().await, Some(2));
        ours.append(restore_test(1, Failed, 30)).unwrap();
        ours.append(restore_test(1, Failed, 40)).unwrap();
        let lost = folders[0]
            .path()
            .join("records")
            .join(ours.chain())
            .join("00000002.json");
        std::fs::remove_file(lost).unwrap();
        assert_eq!(asked().await, None, "a record here is gone that nobody has read");
    }

    fn three_tests() -> Vec<Arc<Entry>> {
        let records = vec![
            restore_test(1, Passed, 10),
            restore_test(1, Failed, 20),
            restore_test(2, Passed, 30),
        ];
        entries(records).into_iter().map(Arc::new).collect()
    }

    #[test]
    fn what_is_heard_while_all_is_read_is_neither_lost_nor_doubled() {
        let all = three_tests();
        let mut known = Known::default();
        known.add(all[..1].to_vec());
        let before = known.read.clone();
        // Two looks find the same record.
        known.add(all[1..].to_vec());
        known.add(all[1..].to_vec());
        let whole = Whole {
            entries: all[..2].to_vec(),
            problems: Vec::new(),
            forgotten: Forgotten::new(),
            read: [("a".to_owned(), 2)].into(),
        };
        known.take(whole, &before);
        assert_eq!(known.history.entries, all);
    }

    #[test]
    fn a_record_is_counted_once_by_whichever_look_it_is_seen_first() {
        let all = three_tests();
        let mut known = Known {
            counted_to: (all[0].chain.clone(), 1),
            ..Known::default()
        };
        let whole = Whole {
            entries: all[..2].to_vec(),
            problems: Vec::new(),
            forgotten: Forgotten::new(),
            read: [(all[0].chain.clone(), 2)].into(),
        };
        known.take(whole, &BTreeMap::new());
        // Its backup may be newer than the listing.
        assert!(known.to_look_at.contains(&target()));
        known.add(all.clone());
        let counted = known.counted[&target()];
        assert_eq!(
            (counted.restore_tests_passed, counted.restore_tests_failed),
            (1, 1)
        );
    }
}
