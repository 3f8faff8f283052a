//! The record of every run: first on this machine, then in the repository. Records are never changed.
//!
//! Each record holds the hash of the one before, so that a missing or changed one is seen. The files here are
//! small and the locks short, so that these calls block; only what speaks to the repository is async.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::model::record::{Entry, Record};
use crate::repository::{Repository, keys, sha256_hex};
use crate::store::durable::{make_directories, write_new, write_over};
use crate::store::random::random_hexadecimal;

pub mod error;
pub mod run;
pub mod history;
mod places;
mod reading;

pub use error::Error;
pub use history::{ChainProblem, Elsewhere, History};
pub use run::{InterruptedRun, Run, RunId, RunStart, Task};

/// The journal in one state directory.
#[derive(Clone, Debug)]
pub struct Journal {
    state_dir: PathBuf,
    chain: String,
}

impl Journal {
    /// Opens the journal in this directory, which is made when missing, for the owner only.
    pub fn open(state_dir: impl Into<PathBuf>) -> Result<Self, Error> {
        let state_dir = state_dir.into();
        make_directories(&state_dir).map_err(Error::io("make the directory", &state_dir))?;
        let mut journal = Self {
            state_dir,
            chain: String::new(),
        };
        journal.chain = journal.read_or_begin_chain()?;
        for folder in [journal.chain_folder(&journal.chain), journal.runs_folder()] {
            make_directories(&folder).map_err(Error::io("make the directory", &folder))?;
        }
        Ok(journal)
    }

    /// Which chain this journal writes.
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// Adds a record, durably. Writers in other processes wait for each other.
    pub fn append(&self, record: Record) -> Result<Entry, Error> {
        let _lock = self.lock()?;
        let folder = self.chain_folder(&self.chain);
        let last = sequences_in(&folder)?.last().copied();
        let previous_sha256 = match last {
            Some(sequence) => Some(sha256_hex(&self.read_stored(&self.chain, sequence)?)),
            None => None,
        };
        let entry = Entry {
            chain: self.chain.clone(),
            sequence: last.map_or(1, |sequence| sequence + 1),
            previous_sha256,
            record,
        };
        let mut bytes = serde_json::to_vec_pretty(&entry).map_err(Error::Encode)?;
        bytes.push(b'\n');
        let path = folder.join(keys::record_name(entry.sequence));
        write_new(&self.temporary_folder(), &path, &bytes).map_err(Error::io("write the record", &path))?;
        Ok(entry)
    }

    /// Puts what the repository does not have yet there, in order, and tells how many that were.
    ///
    /// On an error nothing is lost: the records stay here, and the next call goes on with them.
    pub async fn deliver(&self, repository: &Repository) -> Result<u64, Error> {
        let mut delivered = 0;
        for chain in self.chains()? {
            let delivery = self.deliver_chain(&chain, repository).await;
            match delivery {
                Ok(count) => delivered += count,
                // This was told while the chain was ours, and a new one was begun for it.
                Err(Error::ChainForked { sequence, .. }) if chain != self.chain => {
                    self.take_over(&chain, sequence)?;
                    delivered += self.deliver_chain(&self.chain, repository).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(delivered)
    }

    /// Moves records that have lost their numbers in an old chain to the end of ours, so that they are delivered too.
    fn take_over(&self, chain: &str, from: u64) -> Result<(), Error> {
        for sequence in sequences_in(&self.chain_folder(chain))? {
            if sequence < from {
                continue;
            }
            let path = self.chain_folder(chain).join(keys::record_name(sequence));
            let bytes = self.read_stored(chain, sequence)?;
            let entry: Entry = serde_json::from_slice(&bytes).map_err(|fault| Error::Unreadable {
                path: path.clone(),
                reason: fault.to_string(),
            })?;
            // It may have been killed between the two steps.
            let mut is_ours = false;
            self.read(&mut |ours| {
                is_ours |= ours.chain == self.chain && ours.record.id() == entry.record.id();
            })?;
            if !is_ours {
                self.append(entry.record)?;
            }
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }

    async fn deliver_chain(&self, chain: &str, repository: &Repository) -> Result<u64, Error> {
        let counter = self.counter_path(chain, repository);
        let done = read_counter(&counter)?;
        let mut delivered = 0;
        for sequence in sequences_in(&self.chain_folder(chain))? {
            if sequence <= done {
                continue;
            }
            if delivered == 0 {
                repository.confirm().await.map_err(Error::Deliver)?;
            }
            let bytes = Bytes::from(self.read_stored(chain, sequence)?);
            repository
                .put_record(chain, sequence, bytes)
                .await
                .map_err(|error| self.delivery_error(error, chain, sequence))?;
            write_over(
                &self.temporary_folder(),
                &counter,
                sequence.to_string().as_bytes(),
            )
            .map_err(Error::io("write the counter", &counter))?;
            delivered += 1;
        }
        Ok(delivered)
    }

    fn delivery_error(&self, error: crate::repository::Error, chain: &str, sequence: u64) -> Error {
        match error {
            crate::repository::Error::Conflict { .. } => Error::ChainForked {
                chain: chain.to_owned(),
                sequence,
                chain_file: self.chain_file(),
            },
            other => Error::Deliver(other),
        }
    }

    /// The chain's name is made once. Of two processes that make it, one wins.
    fn read_or_begin_chain(&self) -> Result<String, Error> {
        let path = self.chain_file();
        if !path.exists() {
            let name = random_hexadecimal::<16>().map_err(Error::Random)?;
            match write_new(&self.temporary_folder(), &path, name.as_bytes()) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("write", &path)(error));
                }
                _ => {}
            }
        }
        let name = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let name = name.trim();
        if name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(name.to_owned())
        } else {
            Err(Error::Unreadable {
                path,
                reason: "it should hold 32 hexadecimal digits".to_owned(),
            })
        }
    }

    /// The chains on this machine: ours, and those before it.
    fn chains(&self) -> Result<Vec<String>, Error> {
        let mut chains = Vec::new();
        for name in names_in(&self.records_folder())? {
            if self.chain_folder(&name).is_dir() {
                chains.push(name);
            }
        }
        chains.sort();
        Ok(chains)
    }

    fn read_stored(&self, chain: &str, sequence: u64) -> Result<Vec<u8>, Error> {
        let path = self.chain_folder(chain).join(keys::record_name(sequence));
        fs::read(&path).map_err(Error::io("read the record", &path))
    }

    /// Held while a record gets its number.
    fn lock(&self) -> Result<File, Error> {
        let path = self.state_dir.join("journal.lock");
        let lock = || {
            let file = File::options().create(true).append(true).open(&path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(Error::io("lock", &path))
    }

    fn chain_file(&self) -> PathBuf {
        self.state_dir.join("chain")
    }

    fn records_folder(&self) -> PathBuf {
        self.state_dir.join("records")
    }

    fn chain_folder(&self, chain: &str) -> PathBuf {
        self.records_folder().join(chain)
    }

    /// Counted for each repository, so that a new one gets all records.
    fn counter_path(&self, chain: &str, repository: &Repository) -> PathBuf {
        self.chain_folder(chain)
            .join(format!("delivered.{}", repository.id()))
    }

    fn runs_folder(&self) -> PathBuf {
        self.state_dir.join("runs")
    }

    fn temporary_folder(&self) -> PathBuf {
        self.state_dir.join(".tmp")
    }
}

/// The sequences of the records in a chain's folder, in order.
fn sequences_in(folder: &Path) -> Result<Vec<u64>, Error> {
    let sequence = |entry: fs::DirEntry| -> Option<u64> {
        let name = entry.file_name();
        name.to_str()?.strip_suffix(".json")?.parse().ok()
    };
    let read = || {
        let mut sequences: Vec<u64> = Vec::new();
        for entry in fs::read_dir(folder)? {
            sequences.extend(sequence(entry?));
        }
        sequences.sort_unstable();
        Ok(sequences)
    };
    read().map_err(Error::io("read the directory", folder))
}

fn names_in(folder: &Path) -> Result<Vec<String>, Error> {
    let read = || {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    };
    read().map_err(Error::io("read the directory", folder))
}

/// A counter that is missing or of no use means that all is delivered again, which changes nothing.
fn read_counter(path: &Path) -> Result<u64, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().unwrap_or(0)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::io("read the counter", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::run::tests::backup_record;
    use crate::repository::test_support::memory_repository;
    use crate::store::{ErrorKind, Operation, Store};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    #[test]
    fn records_are_numbered_and_hold_the_hash_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("state");
        let journal = Journal::open(&state_dir).unwrap();
        let first = journal.append(backup_record(0)).unwrap();
        let again = Journal::open(&state_dir).unwrap();
        let second = again.append(backup_record(1)).unwrap();
        assert_eq!((first.sequence, second.sequence), (1, 2));
        assert_eq!((first.previous_sha256, &first.chain), (None, &second.chain));
        let stored = state_dir
            .join("records")
            .join(journal.chain())
            .join("00000001.json");
        assert_eq!(
            second.previous_sha256,
            Some(sha256_hex(&fs::read(stored).unwrap()))
        );
        assert_eq!(journal.history().unwrap().entries.len(), 2);
        assert_eq!(state_dir.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn parallel_writers_break_no_chain() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let path = folder.path();
                scope.spawn(move || {
                    let journal = Journal::open(path).unwrap();
                    for number in 0..5 {
                        journal.append(backup_record(writer * 10 + number)).unwrap();
                    }
                });
            }
        });
        let history = Journal::open(folder.path()).unwrap().history().unwrap();
        assert_eq!((history.entries.len(), history.problems), (20, Vec::new()));
    }

    #[tokio::test]
    async fn what_could_not_be_delivered_is_kept_and_delivered_later_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let (repository, faulty) = memory_repository().await;
        for number in 0..3 {
            journal.append(backup_record(number)).unwrap();
        }
        faulty.fail_nth(Operation::Put, 2, ErrorKind::NoSpace);
        assert!(matches!(
            journal.deliver(&repository).await,
            Err(Error::Deliver(_))
        ));
        assert_eq!(repository.stored_records(|_| true).await.unwrap().len(), 1);
        assert_eq!(journal.deliver(&repository).await.unwrap(), 2);
        assert_eq!(journal.deliver(&repository).await.unwrap(), 0);
        // A lost counter repeats the delivery, and changes nothing.
        fs::remove_file(journal.counter_path(journal.chain(), &repository)).unwrap();
        assert_eq!(journal.deliver(&repository).await.unwrap(), 3);
        assert_eq!(repository.stored_records(|_| true).await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a_state_directory_that_was_set_back_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let (repository, faulty) = memory_repository().await;
        journal.append(backup_record(0)).unwrap();
        let key = keys::record_key(journal.chain(), 1).unwrap();
        faulty.put_new(&key, Bytes::from("another record")).await.unwrap();
        let error = journal.deliver(&repository).await.unwrap_err();
        assert!(matches!(error, Error::ChainForked { sequence: 1, .. }), "{error}");
        // As the message advises: a new chain begins, and the old records are still known here.
        let before = journal.chain().to_owned();
        fs::remove_file(folder.path().join("chain")).unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        assert_ne!(journal.chain(), before);
        assert_eq!(journal.append(backup_record(1)).unwrap().sequence, 1);
        assert_eq!(journal.history().unwrap().entries.len(), 2);
        assert_eq!(journal.deliver(&repository).await.unwrap(), 2);
        // The record that had lost its number is delivered under another one, once.
        let ids = |entries: Vec<Arc<Entry>>| -> Vec<String> {
            entries.iter().map(|entry| entry.record.id().to_owned()).collect()
        };
        let all = [backup_record(0), backup_record(1)].map(|record| record.id().to_owned());
        assert_eq!(ids(journal.history().unwrap().entries), all);
        assert_eq!(journal.deliver(&repository).await.unwrap(), 0);
        let elsewhere = history::history_of(&repository).await.unwrap();
        assert_eq!(ids(elsewhere.entries), all);
    }
}
