//! All records that can be had, of this machine and of others, and whether their chains are whole.
//!
//! There may be years of them: they are handed on one by one, and whoever listens keeps what is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::journal::{Error, Journal, read_counter, sequences_in};
use crate::model::record::Entry;
use crate::repository::records::{RecordPlace, StoredRecord};
use crate::repository::{Repository, keys, sha256_hex};

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
}

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

    /// Hands on the records on this machine, and tells what is wrong with them.
    pub fn read(&self, listener: &mut Listener<'_>) -> Result<Vec<ChainProblem>, Error> {
        let mut reading = Reading::new(listener);
        for (chain, sequence) in self.places()? {
            let bytes = self.read_stored(&chain, sequence)?;
            reading.hear(&chain, sequence, bytes.into());
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
        let delivered = repository.stored_records().await.map_err(Error::Repository)?;
        let here = self.places()?;
        let forked = self.forked_chains(repository, &delivered, &here).await?;
        let mut reading = Reading::new(listener);
        self.compare_our_chain(counted, &delivered, &here, &mut reading);
        if forked.contains(&self.chain) {
            let there = delivered.iter().map(|record| &record.place);
            let last = last_of(here.iter().chain(there), &self.chain);
            reading.note(&self.chain, last, self.told(FORKED));
        }
        // What is here need not be fetched, there may be years of it; unless something else is there under its name.
        let mut elsewhere: BTreeMap<String, Vec<StoredRecord>> = BTreeMap::new();
        for record in delivered {
            if forked.contains(&record.place.0) || !here.contains(&record.place) {
                elsewhere.entry(record.place.0.clone()).or_default().push(record);
            }
        }
        let chains: BTreeSet<&String> = here
            .iter()
            .map(|place| &place.0)
            .chain(elsewhere.keys())
            .collect();
        let chains: Vec<String> = chains.into_iter().cloned().collect();
        for chain in chains {
            let records = elsewhere.remove(&chain).unwrap_or_default();
            let fetched = repository
                .read_records(&chain, records)
                .await
                .map_err(Error::Repository)?;
            self.read_chain(&chain, fetched, &here, &mut reading)?;
        }
        Ok(reading.problems())
    }

    /// One chain, of which some records were fetched and some are here.
    fn read_chain(
        &self,
        chain: &str,
        fetched: Vec<(RecordPlace, Bytes)>,
        here: &BTreeSet<RecordPlace>,
        reading: &mut Reading<'_>,
    ) -> Result<(), Error> {
        let mut fetched: BTreeMap<u64, Bytes> = fetched
            .into_iter()
            .map(|((_, sequence), bytes)| (sequence, bytes))
            .collect();
        let of_chain = here.range((chain.to_owned(), 0)..=(chain.to_owned(), u64::MAX));
        let sequences: BTreeSet<u64> = of_chain
            .map(|(_, sequence)| *sequence)
            .chain(fetched.keys().copied())
            .collect();
        for sequence in sequences {
            let there = fetched.remove(&sequence);
            let ours = match &there {
                Some(_) if !here.contains(&(chain.to_owned(), sequence)) => None,
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

    /// The records that were written here after this one, in order.
    pub fn entries_after(&self, sequence: u64) -> Result<Vec<Arc<Entry>>, Error> {
        let later = sequences_in(&self.chain_folder(&self.chain))?
            .into_iter()
            .filter(|one| *one > sequence);
        let read = |sequence| {
            let bytes = self.read_stored(&self.chain, sequence)?;
            let read = serde_json::from_slice(&bytes).map(Arc::new);
            read.map_err(|fault| Error::Unreadable {
                path: self.chain_folder(&self.chain).join(keys::record_name(sequence)),
                reason: fault.to_string(),
            })
        };
        later.map(read).collect()
    }

    /// The records of other machines in the repository, after those that were read already, by chain.
    pub async fn entries_elsewhere(
        &self,
        repository: &Repository,
        read: &BTreeMap<String, u64>,
    ) -> Result<Elsewhere, Error> {
        let stored = repository.stored_records().await.map_err(Error::Repository)?;
        let ours = sequences_in(&self.chain_folder(&self.chain))?;
        let mut last = read.clone();
        let of_ours = last.entry(self.chain.clone()).or_default();
        *of_ours = ours.last().copied().unwrap_or(0).max(*of_ours);
        let mut elsewhere = Elsewhere {
            entries: Vec::new(),
            in_order: true,
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
    fn compare_our_chain(
        &self,
        counted: u64,
        delivered: &[StoredRecord],
        here: &BTreeSet<RecordPlace>,
        reading: &mut Reading<'_>,
    ) {
        let there: BTreeSet<u64> = delivered
            .iter()
            .filter(|record| record.place.0 == self.chain)
            .map(|record| record.place.1)
            .collect();
        let lost = here.iter().filter(|(chain, sequence)| {
            *chain == self.chain && *sequence <= counted && !there.contains(sequence)
        });
        lost.for_each(|(_, sequence)| reading.note(&self.chain, *sequence, self.told(LOST)));
        if let Some(last) = there.last().filter(|last| **last > last_of(here, &self.chain)) {
            reading.note(&self.chain, *last, self.told(SET_BACK));
        }
    }

    /// Chains of which the repository holds other records than this machine under the same numbers. Each record holds
    /// the hash of the one before, so the last that both have speaks for all.
    async fn forked_chains(
        &self,
        repository: &Repository,
        delivered: &[StoredRecord],
        here: &BTreeSet<RecordPlace>,
    ) -> Result<BTreeSet<String>, Error> {
        let mut last_common = BTreeMap::new();
        for record in delivered {
            if here.contains(&record.place) {
                last_common.insert(&record.place.0, record.place.1);
            }
        }
        let mut forked = BTreeSet::new();
        for (chain, sequence) in last_common {
            let there = repository
                .read_record(chain, sequence)
                .await
                .map_err(Error::Repository)?;
            let here = self.read_stored(chain, sequence)?;
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
    fn places(&self) -> Result<BTreeSet<RecordPlace>, Error> {
        let mut places = BTreeSet::new();
        for chain in self.chains()? {
            let sequences = sequences_in(&self.chain_folder(&chain))?;
            places.extend(sequences.into_iter().map(|sequence| (chain.clone(), sequence)));
        }
        Ok(places)
    }
}

/// The greatest number in the chain; 0 where there is none.
fn last_of<'a>(places: impl IntoIterator<Item = &'a RecordPlace>, chain: &str) -> u64 {
    let of_chain = places.into_iter().filter(|place| place.0 == chain);
    of_chain.map(|place| place.1).max().unwrap_or(0)
}

/// Chains as they are read, record by record in their order.
struct Reading<'a> {
    listener: &'a mut Listener<'a>,
    /// The record before, as it is stored.
    before: Option<(RecordPlace, Bytes)>,
    problems: Vec<ChainProblem>,
    /// Problems, of which nothing was heard since.
    open: BTreeMap<RecordPlace, Vec<String>>,
}

impl<'a> Reading<'a> {
    fn new(listener: &'a mut Listener<'a>) -> Self {
        Self {
            listener,
            before: None,
            problems: Vec::new(),
            open: BTreeMap::new(),
        }
    }

    fn note(&mut self, chain: &str, sequence: u64, reason: impl Into<String>) {
        let of_place = self.open.entry((chain.to_owned(), sequence)).or_default();
        of_place.push(reason.into());
    }

    /// The next record of this chain, or the first.
    fn hear(&mut self, chain: &str, sequence: u64, bytes: Bytes) {
        let before = self.before.take().filter(|(place, _)| place.0 == chain);
        let expected = before.as_ref().map_or(1, |(place, _)| place.1 + 1);
        let gap = sequence != expected;
        if gap {
            let last = sequence.saturating_sub(1);
            self.note(
                chain,
                sequence,
                format!("records {expected} to {last} before it are missing"),
            );
        }
        match serde_json::from_slice::<Entry>(&bytes) {
            Err(fault) => self.note(
                chain,
                sequence,
                format!("it cannot be read: {fault}; a newer ernstfall may have written it"),
            ),
            Ok(entry) => {
                if (entry.chain.as_str(), entry.sequence) != (chain, sequence) {
                    let says = format!("it says it is record {} of chain {}", entry.sequence, entry.chain);
                    self.note(chain, sequence, says);
                }
                let hash = before.map(|(_, bytes)| sha256_hex(&bytes));
                if !gap && entry.previous_sha256 != hash {
                    let reason = "the record before it is not the one that it was written after";
                    self.note(chain, sequence, reason);
                }
                self.notice(chain, sequence, entry.record.finished_at());
                (self.listener)(Arc::new(entry));
            }
        }
        self.before = Some(((chain.to_owned(), sequence), bytes));
    }

    /// A record that is no part of the chain as it is read.
    fn hear_apart(&mut self, bytes: &Bytes) {
        if let Ok(entry) = serde_json::from_slice::<Entry>(bytes) {
            (self.listener)(Arc::new(entry));
        }
    }

    /// What was lost up to this record had been said when its run ended.
    fn notice(&mut self, chain: &str, sequence: u64, at: DateTime<Utc>) {
        let up_to = (chain.to_owned(), 0)..=(chain.to_owned(), sequence);
        for (place, reasons) in self.open.extract_if(up_to, |_, _| true) {
            self.problems.extend(problems_at(&place, reasons, Some(at)));
        }
    }

    /// What is wrong, by chain and number.
    fn problems(mut self) -> Vec<ChainProblem> {
        for (place, reasons) in std::mem::take(&mut self.open) {
            self.problems.extend(problems_at(&place, reasons, None));
        }
        // Stable: of one record, in the order in which they were found.
        self.problems
            .sort_by(|one, other| (&one.chain, one.sequence).cmp(&(&other.chain, other.sequence)));
        self.problems
    }
}

fn problems_at(
    (chain, sequence): &RecordPlace,
    reasons: Vec<String>,
    noticed_at: Option<DateTime<Utc>>,
) -> impl Iterator<Item = ChainProblem> {
    reasons.into_iter().map(move |reason| ChainProblem {
        chain: chain.clone(),
        sequence: *sequence,
        reason,
        noticed_at,
    })
}

/// The records in the repository alone, as a machine without a journal would see them.
#[cfg(test)]
pub(super) async fn history_of(repository: &Repository) -> Result<History, Error> {
    let records = repository.stored_records().await.map_err(Error::Repository)?;
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
        let places = journal.places().unwrap().into_iter();
        let whole: Stored = places
            .map(|place| {
                let bytes = journal.read_stored(&place.0, place.1).unwrap();
                (place, bytes.into())
            })
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
