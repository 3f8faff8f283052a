//! All records that can be had, of this machine and of others, and whether their chains are whole.
//!
//! There may be years of them: they are handed on one by one, and whoever listens keeps what is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::journal::reading::Reading;
use crate::journal::{Error, Journal, read_counter, sequences_in};
use crate::model::record::Entry;
use crate::model::target_name::TargetName;
use crate::repository::records::RecordPlace;
use crate::repository::{Repository, keys};

const LOST: &str = "it was delivered to the repository and is there no longer; to deliver all records again, remove the files delivered.* below";
const SET_BACK: &str = "the repository has more records of this chain than this machine: the state directory was set back; move the file `chain` away, so that a new chain begins, in";
const FORKED: &str = "the repository has other records of this chain than this machine: the state directory was copied or set back; move the file `chain` away, so that a new chain begins, in";

/// Records, and what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// By the time the run ended. Shared, and not copied: there are many, and several look at them at once.
    pub entries: Vec<Arc<Entry>>,
    pub problems: Vec<ChainProblem>,
}

/// A record that is missing, changed or unreadable.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ChainProblem {
    pub chain: String,
    pub sequence: u64,
    pub reason: String,
    /// When the next run of the chain ended whose record can be read: what was lost had been said by then. `None` where
    /// there is no such record.
    #[serde(skip)]
    pub noticed_at: Option<DateTime<Utc>>,
}

/// Records of other machines that came since the last look.
#[derive(Debug, Default)]
pub struct Elsewhere {
    pub entries: Vec<Arc<Entry>>,
    /// Whether they follow those that were read before. Else a look at whole chains says what is wrong.
    pub in_order: bool,
    /// The last record of this machine when they were looked for.
    pub last_here: u64,
}

/// Which records there are, by chain; of years of them too.
type Places = BTreeMap<String, BTreeSet<u64>>;

/// Who hears records: those of one chain in its order, and one chain after the other.
pub type Listener<'a> = dyn FnMut(Arc<Entry>) + Send + 'a;

impl History {
    /// Collects what is heard.
    fn of(mut entries: Vec<Arc<Entry>>, problems: Vec<ChainProblem>) -> Self {
        // Stable, so that records of the same moment stay in their chain's order.
        entries.sort_by_key(|entry| entry.record.finished_at());
        Self { entries, problems }
    }

    /// The records themselves.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter().map(Arc::as_ref)
    }
}

impl Journal {
    /// The records on this machine.
    pub fn history(&self) -> Result<History, Error> {
        let mut entries = Vec::new();
        let problems = self.read(&mut |entry| entries.push(entry))?;
        Ok(History::of(entries, problems))
    }

    /// The records in the repository, of every machine, and those here that are not delivered yet.
    pub async fn history_with(&self, repository: &Repository) -> Result<History, Error> {
        let mut entries = Vec::new();
        let problems = self
            .read_with(repository, &mut |entry| entries.push(entry))
            .await?;
        Ok(History::of(entries, problems))
    }

    /// The same of what is about one target, and what is wrong with any record: of years, no more is held at once.
    pub async fn history_of_target(
        &self,
        repository: &Repository,
        target: &TargetName,
    ) -> Result<History, Error> {
        let mut entries = Vec::new();
        let mut listener = |entry: Arc<Entry>| {
            if entry.record.target() == Some(target) {
                entries.push(entry);
            }
        };
        let problems = self.read_with(repository, &mut listener).await?;
        Ok(History::of(entries, problems))
    }

    /// Hands on the records on this machine, and tells what is wrong with them.
    pub fn read(&self, listener: &mut Listener<'_>) -> Result<Vec<ChainProblem>, Error> {
        let mut reading = Reading::new(listener);
        for (chain, sequences) in self.places()? {
            for sequence in sequences {
                let bytes = self.read_stored(&chain, sequence)?;
                reading.hear(&chain, sequence, bytes.into());
            }
        }
        Ok(reading.problems())
    }

    /// The same with the records in the repository, of every machine.
    pub async fn read_with(
        &self,
        repository: &Repository,
        listener: &mut Listener<'_>,
    ) -> Result<Vec<ChainProblem>, Error> {
        // In this order: what another process writes and delivers meanwhile must seem to be missing nowhere.
        let counted = read_counter(&self.counter_path(&self.chain, repository))?;
        let delivered = delivered(repository).await?;
        let here = self.places()?;
        let forked = self.forked_chains(repository, &delivered, &here).await?;
        let mut reading = Reading::new(listener);
        self.compare_our_chain(counted, &delivered, &here, &mut reading);
        if forked.contains(&self.chain) {
            let last = last_of(&here, &self.chain).max(last_of(&delivered, &self.chain));
            reading.note(&self.chain, last, self.told(FORKED));
        }
        let chains: BTreeSet<&String> = here.keys().chain(delivered.keys()).collect();
        for chain in chains {
            let ours = here.get(chain).cloned().unwrap_or_default();
            let fetched = match delivered.get(chain) {
                // What is here need not be fetched, unless something else is there under its name.
                Some(there) if forked.contains(chain) => fetch(repository, chain, there.clone()).await?,
                Some(there) => fetch(repository, chain, there - &ours).await?,
                None => Vec::new(),
            };
            self.read_chain(chain, fetched, &ours, &mut reading)?;
        }
        Ok(reading.problems())
    }

    /// One chain, of which some records were fetched and some are here.
    fn read_chain(
        &self,
        chain: &str,
        fetched: Vec<(RecordPlace, Bytes)>,
        here: &BTreeSet<u64>,
        reading: &mut Reading<'_>,
    ) -> Result<(), Error> {
        let mut fetched: BTreeMap<u64, Bytes> = fetched
            .into_iter()
            .map(|((_, sequence), bytes)| (sequence, bytes))
            .collect();
        let sequences: BTreeSet<u64> = here.iter().chain(fetched.keys()).copied().collect();
        for sequence in sequences {
            let there = fetched.remove(&sequence);
            let ours = match &there {
                Some(_) if !here.contains(&sequence) => None,
                _ => Some(Bytes::from(self.read_stored(chain, sequence)?)),
            };
            // What is only here under a number that is taken there says something all the same.
            if let (Some(ours), Some(there)) = (&ours, &there)
                && ours != there
            {
                reading.hear_apart(ours);
            }
            if let Some(bytes) = there.or(ours) {
                reading.hear(chain, sequence, bytes);
            }
        }
        Ok(())
    }

    /// The records that were written here after this one, in order, up to the first that is missing. Their folder is not
    /// listed: it holds years of them, and a daemon asks each second.
    pub fn entries_after(&self, mut sequence: u64) -> Result<Vec<Arc<Entry>>, Error> {
        let mut entries = Vec::new();
        loop {
            sequence += 1;
            let path = self.chain_folder(&self.chain).join(keys::record_name(sequence));
            let bytes = match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(entries),
                read => read.map_err(Error::io("read the record", &path))?,
            };
            let entry = serde_json::from_slice(&bytes).map_err(|fault| Error::Unreadable {
                path,
                reason: fault.to_string(),
            })?;
            entries.push(Arc::new(entry));
        }
    }

    /// The records of other machines in the repository, after those that were read already, by chain.
    pub async fn entries_elsewhere(
        &self,
        repository: &Repository,
        read: &BTreeMap<String, u64>,
    ) -> Result<Elsewhere, Error> {
        let before = read.clone();
        let is_new =
            move |(chain, sequence): &RecordPlace| before.get(chain).is_none_or(|last| sequence > last);
        let stored = repository.stored_records(is_new).await;
        let stored = stored.map_err(Error::Repository)?;
        let here = sequences_in(&self.chain_folder(&self.chain))?;
        let last_here = here.last().copied().unwrap_or(0);
        let mut last = read.clone();
        let of_ours = last.entry(self.chain.clone()).or_default();
        *of_ours = last_here.max(*of_ours);
        let mut elsewhere = Elsewhere {
            entries: Vec::new(),
            in_order: true,
            last_here,
        };
        for record in stored {
            let (chain, sequence) = record.place;
            let last = last.entry(chain.clone()).or_default();
            if sequence <= *last {
                continue;
            }
            elsewhere.in_order &= sequence == *last + 1;
            *last = sequence;
            let bytes = repository.read_record(&chain, sequence).await;
            let bytes = bytes.map_err(Error::Repository)?;
            let entry = bytes.and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).ok());
            let is_it = |entry: &Entry| entry.chain == chain && entry.sequence == sequence;
            // Ours are read here; more of them there than here are those of a copy of this state directory.
            elsewhere.in_order &= chain != self.chain && entry.as_ref().is_some_and(is_it);
            elsewhere
                .entries
                .extend(entry.filter(|_| chain != self.chain).map(Arc::new));
        }
        Ok(elsewhere)
    }

    /// What is wrong between the chain that is written here and its copy in the repository, to which records up to
    /// `counted` were delivered.
    fn compare_our_chain(&self, counted: u64, delivered: &Places, here: &Places, reading: &mut Reading<'_>) {
        let none = BTreeSet::new();
        let there = delivered.get(&self.chain).unwrap_or(&none);
        let here = here.get(&self.chain).unwrap_or(&none);
        for sequence in here
            .range(..=counted)
            .filter(|sequence| !there.contains(sequence))
        {
            reading.note(&self.chain, *sequence, self.told(LOST));
        }
        if let Some(last) = there.last().filter(|last| Some(*last) > here.last()) {
            reading.note(&self.chain, *last, self.told(SET_BACK));
        }
    }

    /// Chains of which the repository holds other records than this machine under the same numbers. Each record holds
    /// the hash of the one before, so the last that both have speaks for all.
    async fn forked_chains(
        &self,
        repository: &Repository,
        delivered: &Places,
        here: &Places,
    ) -> Result<BTreeSet<String>, Error> {
        let mut forked = BTreeSet::new();
        for (chain, there) in delivered {
            let common = here.get(chain).and_then(|here| here.intersection(there).last());
            let Some(sequence) = common else { continue };
            let there = repository
                .read_record(chain, *sequence)
                .await
                .map_err(Error::Repository)?;
            let here = self.read_stored(chain, *sequence)?;
            if there.is_some_and(|there| there != here) {
                forked.insert(chain.clone());
            }
        }
        Ok(forked)
    }

    fn told(&self, reason: &str) -> String {
        format!("{reason} {}", self.state_dir.display())
    }

    /// Which records are here.
    fn places(&self) -> Result<Places, Error> {
        let mut places = Places::new();
        for chain in self.chains()? {
            let sequences = sequences_in(&self.chain_folder(&chain))?;
            places.insert(chain, sequences.into_iter().collect());
        }
        Ok(places)
    }
}

/// Which records are in the repository.
async fn delivered(repository: &Repository) -> Result<Places, Error> {
    let places = Arc::new(Mutex::new(Places::new()));
    let noted = Arc::clone(&places);
    let note = move |place: &RecordPlace| {
        let mut places = noted.lock().unwrap_or_else(PoisonError::into_inner);
        places.entry(place.0.clone()).or_default().insert(place.1);
        false
    };
    repository.stored_records(note).await.map_err(Error::Repository)?;
    let mut places = places.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *places))
}

/// These records of a chain, as far as they are still there.
async fn fetch(
    repository: &Repository,
    chain: &str,
    wanted: BTreeSet<u64>,
) -> Result<Vec<(RecordPlace, Bytes)>, Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let is_wanted = move |place: &RecordPlace| wanted.contains(&place.1);
    let records = repository.stored_records_of(chain, is_wanted).await;
    let fetched = repository
        .read_records(chain, records.map_err(Error::Repository)?)
        .await;
    fetched.map_err(Error::Repository)
}

/// The greatest number in the chain; 0 where there is none.
fn last_of(places: &Places, chain: &str) -> u64 {
    let last = places.get(chain).and_then(BTreeSet::last);
    last.copied().unwrap_or(0)
}

/// The records in the repository alone, as a machine without a journal would see them.
#[cfg(test)]
pub(super) async fn history_of(repository: &Repository) -> Result<History, Error> {
    let records = repository
        .stored_records(|_| true)
        .await
        .map_err(Error::Repository)?;
    let mut stored = BTreeMap::new();
    for record in records {
        let chain = record.place.0.clone();
        let fetched = repository.read_records(&chain, vec![record]).await;
        stored.extend(fetched.map_err(Error::Repository)?);
    }
    Ok(tests::read(&stored))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::run::tests::backup_record;
    use crate::repository::test_support::memory_repository;
    use crate::store::{Operation, Store};

    /// Stored records by chain and sequence, as bytes.
    type Stored = BTreeMap<RecordPlace, Bytes>;

    pub(super) fn read(stored: &Stored) -> History {
        let mut entries = Vec::new();
        let mut listener = |entry| entries.push(entry);
        let mut reading = Reading::new(&mut listener);
        for ((chain, sequence), bytes) in stored {
            reading.hear(chain, *sequence, bytes.clone());
        }
        let problems = reading.problems();
        History::of(entries, problems)
    }

    #[tokio::test]
    async fn records_of_several_machines_are_merged_by_time() {
        let (repository, _) = memory_repository().await;
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let journals = folders
            .each_ref()
            .map(|folder| Journal::open(folder.path()).unwrap());
        for number in 0..4 {
            journals[number as usize % 2]
                .append(backup_record(number))
                .unwrap();
        }
        journals[0].deliver(&repository).await.unwrap();
        let times = |history: &History| -> Vec<_> {
            history.entries.iter().map(|e| e.record.finished_at()).collect()
        };
        let all: Vec<_> = (0..4).map(|number| backup_record(number).finished_at()).collect();
        let merged = journals[1].history_with(&repository).await.unwrap();
        assert_eq!((times(&merged), merged.problems), (all.clone(), Vec::new()));
        let delivered = history_of(&repository).await.unwrap();
        assert_eq!(times(&delivered), [all[0], all[2]]);
    }

    #[test]
    fn a_changed_missing_or_unreadable_record_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        for number in 0..5 {
            journal.append(backup_record(number)).unwrap();
        }
        let bytes = |sequence: u64| Bytes::from(journal.read_stored(journal.chain(), sequence).unwrap());
        let whole: Stored = (1..=5)
            .map(|sequence| ((journal.chain().to_owned(), sequence), bytes(sequence)))
            .collect();
        assert!(read(&whole).problems.is_empty());
        let place = |sequence| (journal.chain().to_owned(), sequence);
        let problems_after = |change: &dyn Fn(&mut Stored)| -> Vec<u64> {
            let mut stored = whole.clone();
            change(&mut stored);
            read(&stored)
                .problems
                .iter()
                .map(|problem| problem.sequence)
                .collect()
        };
        assert_eq!(problems_after(&|stored| drop(stored.remove(&place(2)))), [3]);
        assert_eq!(problems_after(&|stored| drop(stored.remove(&place(1)))), [2]);
        assert_eq!(
            problems_after(&|stored| {
                let changed = [&stored[&place(3)][..], b" "].concat();
                stored.insert(place(3), changed.into());
            }),
            [4]
        );
        assert_eq!(
            problems_after(&|stored| drop(stored.insert(place(2), Bytes::from("{")))),
            [2, 3]
        );
        let noticed = |problem: &ChainProblem| problem.noticed_at;
        let mut stored = whole.clone();
        stored.insert(place(2), Bytes::from("{"));
        stored.insert(place(5), Bytes::from("{"));
        assert_eq!(
            read(&stored).problems.iter().map(noticed).collect::<Vec<_>>(),
            [Some(backup_record(2).finished_at()); 2]
                .into_iter()
                .chain([None])
                .collect::<Vec<_>>(),
            "what record 2 said was said before record 3; of what record 5 said, nothing tells"
        );
        let copy = whole[&place(4)].clone();
        assert_eq!(
            problems_after(&|stored| drop(stored.insert(place(2), copy.clone()))),
            [2, 2, 3]
        );
    }

    fn reasons(history: &History) -> Vec<&str> {
        let reasons = history.problems.iter();
        reasons.map(|problem| problem.reason.as_str()).collect()
    }

    #[tokio::test]
    async fn a_record_that_is_gone_from_the_repository_is_seen_and_can_be_delivered_again() {
        let (repository, faulty) = memory_repository().await;
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        for number in 0..3 {
            journal.append(backup_record(number)).unwrap();
        }
        journal.deliver(&repository).await.unwrap();
        faulty
            .delete(&crate::repository::keys::record_key(journal.chain(), 3).unwrap())
            .await
            .unwrap();
        let history = journal.history_with(&repository).await.unwrap();
        assert_eq!((history.entries.len(), history.problems[0].sequence), (3, 3));
        assert!(reasons(&history)[0].contains("delivered.*"), "{history:?}");
        std::fs::remove_file(journal.counter_path(journal.chain(), &repository)).unwrap();
        journal.deliver(&repository).await.unwrap();
        let history = journal.history_with(&repository).await.unwrap();
        assert_eq!(history.problems, []);
    }

    #[tokio::test]
    async fn a_state_directory_that_was_copied_or_set_back_is_seen_and_hides_no_record() {
        let (repository, _) = memory_repository().await;
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let ours = Journal::open(folders[0].path()).unwrap();
        ours.append(backup_record(0)).unwrap();
        // A copy of the state directory, which goes on by itself.
        std::fs::copy(ours.chain_file(), folders[1].path().join("chain")).unwrap();
        let theirs = Journal::open(folders[1].path()).unwrap();
        theirs.append(backup_record(0)).unwrap();
        for number in 1..4 {
            theirs.append(backup_record(number)).unwrap();
        }
        theirs.deliver(&repository).await.unwrap();

        let behind = ours.history_with(&repository).await.unwrap();
        assert_eq!((behind.entries.len(), behind.problems.len()), (4, 1));
        assert!(reasons(&behind)[0].contains("was set back"), "{behind:?}");

        ours.append(backup_record(7)).unwrap();
        let forked = ours.history_with(&repository).await.unwrap();
        assert!(
            reasons(&forked)
                .iter()
                .any(|reason| reason.contains("other records")),
            "{forked:?}"
        );
        let ids: Vec<&str> = forked.entries.iter().map(|entry| entry.record.id()).collect();
        let all = [0, 1, 2, 3, 7].map(backup_record);
        assert_eq!(ids, all.each_ref().map(|record| record.id()));

        // As it is advised: a new chain begins, and nothing is hidden.
        std::fs::remove_file(ours.chain_file()).unwrap();
        let anew = Journal::open(folders[0].path()).unwrap();
        anew.append(backup_record(8)).unwrap();
        let history = anew.history_with(&repository).await.unwrap();
        assert_eq!((history.entries.len(), history.problems), (6, Vec::new()));
    }

    #[tokio::test]
    async fn new_records_elsewhere_are_in_order_or_it_is_told_that_they_are_not() {
        let (repository, faulty) = memory_repository().await;
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [ours, theirs] = folders
            .each_ref()
            .map(|folder| Journal::open(folder.path()).unwrap());
        for number in 0..3 {
            theirs.append(backup_record(number)).unwrap();
        }
        ours.append(backup_record(7)).unwrap();
        theirs.deliver(&repository).await.unwrap();
        ours.deliver(&repository).await.unwrap();
        let after = async |sequence: u64| {
            let read = [(theirs.chain().to_owned(), sequence)].into();
            let elsewhere = ours.entries_elsewhere(&repository, &read).await.unwrap();
            (elsewhere.entries.len(), elsewhere.in_order)
        };
        assert_eq!(
            [after(0).await, after(1).await, after(3).await],
            [(3, true), (2, true), (0, true)]
        );
        let put = async |chain: &str, sequence, text: &'static str| {
            let key = keys::record_key(chain, sequence).unwrap();
            faulty.put_new(&key, Bytes::from(text)).await.unwrap();
        };
        put(theirs.chain(), 4, "{").await;
        assert_eq!([after(3).await, after(4).await], [(0, false), (0, true)]);
        faulty
            .delete(&keys::record_key(theirs.chain(), 2).unwrap())
            .await
            .unwrap();
        assert_eq!(after(1).await, (1, false));
        // Somebody else writes our chain.
        put(ours.chain(), 2, "{}").await;
        assert_eq!(after(4).await, (0, false));
    }

    #[tokio::test]
    async fn delivered_records_are_fetched_once() {
        let (repository, faulty) = memory_repository().await;
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let journal = Journal::open(folders[0].path()).unwrap();
        for number in 0..5 {
            journal.append(backup_record(number)).unwrap();
        }
        journal.deliver(&repository).await.unwrap();
        let repository = repository.cached_in(&folders[1].path().join("cache"));
        let elsewhere = Journal::open(folders[1].path()).unwrap();
        let first = elsewhere.history_with(&repository).await.unwrap();
        let reads = faulty.calls(Operation::Get);
        assert_eq!(elsewhere.history_with(&repository).await.unwrap(), first);
        assert_eq!((first.entries.len(), faulty.calls(Operation::Get)), (5, reads));
    }
}
