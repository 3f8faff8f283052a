//! All records that can be had, of this machine and of others, and whether their chains are whole.

use std::collections::{BTreeMap, BTreeSet};

use crate::journal::{Error, Journal, read_counter, sequences_in};
use crate::model::record::Entry;
use crate::repository::records::{RecordPlace, StoredRecord};
use crate::repository::{Repository, keys, sha256_hex};

/// Stored records by chain and sequence, as bytes.
type Stored = BTreeMap<RecordPlace, Vec<u8>>;

const LOST: &str = "it was delivered to the repository and is there no longer; to deliver all records again, remove the files delivered.* below";
const SET_BACK: &str = "the repository has more records of this chain than this machine: the state directory was set back; move the file `chain` away, so that a new chain begins, in";
const FORKED: &str = "the repository has other records of this chain than this machine: the state directory was copied or set back; move the file `chain` away, so that a new chain begins, in";

/// Records, and what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// By the time the run ended.
    pub entries: Vec<Entry>,
    pub problems: Vec<ChainProblem>,
}

/// A record that is missing, changed or unreadable.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ChainProblem {
    pub chain: String,
    pub sequence: u64,
    pub reason: String,
}

impl Journal {
    /// The records on this machine.
    pub fn history(&self) -> Result<History, Error> {
        Ok(read(&self.stored()?))
    }

    /// The records that were written here after this one, in order.
    pub fn entries_after(&self, sequence: u64) -> Result<Vec<Entry>, Error> {
        let later = sequences_in(&self.chain_folder(&self.chain))?
            .into_iter()
            .filter(|one| *one > sequence);
        let read = |sequence| {
            let bytes = self.read_stored(&self.chain, sequence)?;
            serde_json::from_slice(&bytes).map_err(|fault| Error::Unreadable {
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
    ) -> Result<Vec<Entry>, Error> {
        let stored = repository.stored_records().await.map_err(Error::Repository)?;
        let is_new = |chain: &String, sequence| {
            *chain != self.chain && read.get(chain).is_none_or(|last| sequence > *last)
        };
        let mut entries = Vec::new();
        for record in stored {
            let (chain, sequence) = record.place;
            if !is_new(&chain, sequence) {
                continue;
            }
            let bytes = repository.read_record(&chain, sequence).await;
            // One that cannot be read is told when whole chains are looked at.
            let entry = bytes
                .map_err(Error::Repository)?
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            entries.extend(entry);
        }
        Ok(entries)
    }

    /// The records in the repository, of every machine, and those here that are not delivered yet.
    pub async fn history_with(&self, repository: &Repository) -> Result<History, Error> {
        // In this order: what another process writes and delivers meanwhile must seem to be missing nowhere.
        let counted = read_counter(&self.counter_path(&self.chain, repository))?;
        let delivered = repository.stored_records().await.map_err(Error::Repository)?;
        let mut stored = self.stored()?;
        let mut problems = self.problems_of_our_chain(counted, &delivered, &stored);
        let forked = self.forked_chains(repository, &delivered, &stored).await?;
        // What is here need not be fetched, there may be years of it; unless something else is there under its name.
        let elsewhere = delivered
            .into_iter()
            .filter(|record| forked.contains(&record.place.0) || !stored.contains_key(&record.place))
            .collect();
        let fetched = repository
            .read_records(elsewhere)
            .await
            .map_err(Error::Repository)?;
        let mut undelivered = Stored::new();
        for (place, bytes) in fetched {
            let here = stored.insert(place.clone(), bytes.to_vec());
            if let Some(here) = here.filter(|here| *here != bytes) {
                undelivered.insert(place, here);
            }
        }
        if forked.contains(&self.chain) {
            problems.push(self.problem(last_of(&stored, &self.chain), FORKED));
        }
        let mut history = read(&stored);
        history.entries.extend(
            undelivered
                .values()
                .filter_map(|bytes| serde_json::from_slice::<Entry>(bytes).ok()),
        );
        history.problems.extend(problems);
        history.entries.sort_by_key(|entry| entry.record.finished_at());
        Ok(history)
    }

    /// What is wrong between the chain that is written here and its copy in the repository, to which records up to
    /// `counted` were delivered.
    fn problems_of_our_chain(
        &self,
        counted: u64,
        delivered: &[StoredRecord],
        stored: &Stored,
    ) -> Vec<ChainProblem> {
        let there: BTreeSet<u64> = delivered
            .iter()
            .filter(|record| record.place.0 == self.chain)
            .map(|record| record.place.1)
            .collect();
        let here = stored
            .keys()
            .filter(|(chain, sequence)| *chain == self.chain && *sequence <= counted);
        let mut problems: Vec<ChainProblem> = here
            .filter(|(_, sequence)| !there.contains(sequence))
            .map(|(_, sequence)| self.problem(*sequence, LOST))
            .collect();
        if let Some(last) = there.last().filter(|last| **last > last_of(stored, &self.chain)) {
            problems.push(self.problem(*last, SET_BACK));
        }
        problems
    }

    /// Chains of which the repository holds other records than this machine under the same numbers. Each record holds
    /// the hash of the one before, so the last that both have speaks for all.
    async fn forked_chains(
        &self,
        repository: &Repository,
        delivered: &[StoredRecord],
        stored: &Stored,
    ) -> Result<BTreeSet<String>, Error> {
        let mut last_common = BTreeMap::new();
        for record in delivered {
            if let Some(bytes) = stored.get(&record.place) {
                last_common.insert(&record.place.0, (record.place.1, bytes));
            }
        }
        let mut forked = BTreeSet::new();
        for (chain, (sequence, here)) in last_common {
            let there = repository
                .read_record(chain, sequence)
                .await
                .map_err(Error::Repository)?;
            if there.is_some_and(|there| there != *here) {
                forked.insert(chain.clone());
            }
        }
        Ok(forked)
    }

    fn problem(&self, sequence: u64, reason: &str) -> ChainProblem {
        ChainProblem {
            chain: self.chain.clone(),
            sequence,
            reason: format!("{reason} {}", self.state_dir.display()),
        }
    }

    fn stored(&self) -> Result<Stored, Error> {
        let mut stored = Stored::new();
        for chain in self.chains()? {
            for sequence in sequences_in(&self.chain_folder(&chain))? {
                let bytes = self.read_stored(&chain, sequence)?;
                stored.insert((chain.clone(), sequence), bytes);
            }
        }
        Ok(stored)
    }
}

/// The greatest number in the chain; 0 where there is none.
fn last_of(stored: &Stored, chain: &str) -> u64 {
    let of_chain = stored.keys().filter(|place| place.0 == chain);
    of_chain.map(|place| place.1).max().unwrap_or(0)
}

/// The records in the repository alone, as a machine without a journal would see them.
#[cfg(test)]
pub(super) async fn history_of(repository: &Repository) -> Result<History, Error> {
    let records = repository.stored_records().await.map_err(Error::Repository)?;
    let fetched = repository
        .read_records(records)
        .await
        .map_err(Error::Repository)?;
    let stored = fetched
        .into_iter()
        .map(|(place, bytes)| (place, bytes.to_vec()))
        .collect();
    Ok(read(&stored))
}

fn read(stored: &Stored) -> History {
    let mut history = History::default();
    let mut before: Option<(&RecordPlace, &Vec<u8>)> = None;
    for (place, bytes) in stored {
        let previous = before.filter(|(previous, _)| previous.0 == place.0);
        let mut problem = |reason: String| {
            history.problems.push(ChainProblem {
                chain: place.0.clone(),
                sequence: place.1,
                reason,
            });
        };
        let expected = previous.map_or(1, |(previous, _)| previous.1 + 1);
        let gap = place.1 != expected;
        if gap {
            problem(format!(
                "records {expected} to {} before it are missing",
                place.1.saturating_sub(1)
            ));
        }
        match serde_json::from_slice::<Entry>(bytes) {
            Err(fault) => problem(format!(
                "it cannot be read: {fault}; a newer ernstfall may have written it"
            )),
            Ok(entry) => {
                if (entry.chain.as_str(), entry.sequence) != (place.0.as_str(), place.1) {
                    problem(format!(
                        "it says it is record {} of chain {}",
                        entry.sequence, entry.chain
                    ));
                }
                let hash = previous.map(|(_, bytes)| sha256_hex(bytes));
                if !gap && entry.previous_sha256 != hash {
                    problem("the record before it is not the one that it was written after".to_owned());
                }
                history.entries.push(entry);
            }
        }
        before = Some((place, bytes));
    }
    // Stable, so that records of the same moment stay in their chain's order.
    history.entries.sort_by_key(|entry| entry.record.finished_at());
    history
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::run::tests::backup_record;
    use crate::repository::test_support::memory_repository;
    use crate::store::{Operation, Store};

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
        let whole = journal.stored().unwrap();
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
            problems_after(&|stored| stored.get_mut(&place(3)).unwrap().push(b' ')),
            [4]
        );
        assert_eq!(
            problems_after(&|stored| drop(stored.insert(place(2), b"{".to_vec()))),
            [2, 3]
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
