//! All records that can be had, of this machine and of others, and whether their chains are whole.

use std::collections::BTreeMap;

use crate::journal::{Error, Journal, sequences_in};
use crate::model::record::Entry;
use crate::repository::records::RecordPlace;
use crate::repository::{Repository, sha256_hex};

/// Stored records by chain and sequence, as bytes.
type Stored = BTreeMap<RecordPlace, Vec<u8>>;

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

    /// The records in the repository, of every machine, and those here that are not delivered yet.
    pub async fn history_with(&self, repository: &Repository) -> Result<History, Error> {
        let mut stored = self.stored()?;
        let places = repository.record_places().await.map_err(Error::Repository)?;
        // What is here need not be fetched: there may be years of it.
        let elsewhere = places
            .into_iter()
            .filter(|place| !stored.contains_key(place))
            .collect();
        let fetched = repository
            .read_records(elsewhere)
            .await
            .map_err(Error::Repository)?;
        stored.extend(fetched.into_iter().map(|(place, bytes)| (place, bytes.to_vec())));
        Ok(read(&stored))
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

/// The records in the repository alone, for a machine without a journal.
pub async fn history_of(repository: &Repository) -> Result<History, Error> {
    let places = repository.record_places().await.map_err(Error::Repository)?;
    let fetched = repository.read_records(places).await.map_err(Error::Repository)?;
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
}
