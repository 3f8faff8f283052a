//! A run under way: a file that says so, and a lock that ends with its process. What a killed run leaves is
//! the file without the lock; the next start finds it and records it.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::journal::{Error, Journal, names_in};
use crate::model::backup_id::BackupId;
use crate::model::record::{Entry, FORMAT, InterruptedRecord, Record};
use crate::model::target_name::TargetName;
use crate::store::durable::{Temporary, parent, sync_directory};

/// A run's name: when it started, in UTC, and a random suffix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(BackupId);

impl RunId {
    pub fn new(now: DateTime<Utc>) -> Result<Self, Error> {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(|error| Error::Random(io::Error::other(error)))?;
        // The same shape as a backup's id, and with it the same checks.
        Ok(Self(BackupId::new(now, u16::from_ne_bytes(random))))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    Backup,
    RestoreTest,
    Restore,
    Scrub,
    Prune,
}

impl Task {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::RestoreTest => "restore_test",
            Self::Restore => "restore",
            Self::Scrub => "scrub",
            Self::Prune => "prune",
        }
    }
}

/// What is known of a run from its beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStart {
    pub id: RunId,
    pub task: Task,
    pub target: TargetName,
    /// The backup that the run makes or reads, as soon as it is known.
    pub backup: Option<BackupId>,
    pub started_at: DateTime<Utc>,
    pub pid: u32,
}

/// A run under way. Dropped without `finish`, it is found as interrupted.
#[derive(Debug)]
pub struct Run {
    journal: Journal,
    start: RunStart,
    path: PathBuf,
    /// The lock on the file at `path`.
    lock: File,
}

/// A run whose process is gone. Held, so that no other process records it too.
#[derive(Debug)]
pub struct InterruptedRun {
    pub start: RunStart,
    path: PathBuf,
    _lock: File,
}

impl Journal {
    /// Notes that a run has begun.
    pub fn start_run(&self, start: RunStart) -> Result<Run, Error> {
        let path = self.run_path(&start.id);
        let temporary = self.locked_temporary(&start, &path)?;
        let note = || {
            let lock = temporary.file().try_clone()?;
            temporary.publish_new(&path)?;
            Ok(lock)
        };
        let lock = note().map_err(Error::io("note the run in", &path))?;
        Ok(Run {
            journal: self.clone(),
            start,
            path,
            lock,
        })
    }

    /// The runs that ended without a word: killed, or the machine went down.
    pub fn interrupted(&self) -> Result<Vec<InterruptedRun>, Error> {
        let mut names = names_in(&self.runs_folder())?;
        names.retain(|name| name.ends_with(".json"));
        names.sort();
        let mut interrupted = Vec::new();
        for name in names {
            let path = self.runs_folder().join(name);
            let Some(lock) = try_lock(&path).map_err(Error::io("look at the run in", &path))? else {
                continue;
            };
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            let start = serde_json::from_slice(&bytes).map_err(|fault| Error::Unreadable {
                path: path.clone(),
                reason: fault.to_string(),
            })?;
            interrupted.push(InterruptedRun {
                start,
                path,
                _lock: lock,
            });
        }
        Ok(interrupted)
    }

    /// The runs under way, in this process and in others.
    pub fn running(&self) -> Result<Vec<RunStart>, Error> {
        let mut running = Vec::new();
        for name in names_in(&self.runs_folder())? {
            let path = self.runs_folder().join(name);
            let is_locked = match File::open(&path) {
                Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
                Err(_) => false,
            };
            // One that ends just now has no file any more, and runs no more.
            if let (true, Ok(bytes)) = (is_locked, fs::read(&path)) {
                running.extend(serde_json::from_slice::<RunStart>(&bytes).ok());
            }
        }
        running.sort_by_key(|start| start.started_at);
        Ok(running)
    }

    /// Records an interrupted run with what was removed of its traces. Nothing when it had recorded its own end.
    pub fn settle(
        &self,
        run: InterruptedRun,
        removed: Vec<String>,
        now: DateTime<Utc>,
    ) -> Result<Option<Entry>, Error> {
        let start = &run.start;
        let id = start.id.to_string();
        // It may have been killed between its record and the removal of its file.
        let mut recorded = false;
        self.read(&mut |entry| recorded |= entry.record.id() == id)?;
        let entry = if recorded {
            None
        } else {
            Some(self.append(Record::Interrupted(InterruptedRecord {
                format: FORMAT,
                id,
                target: start.target.clone(),
                task: start.task.as_str().to_owned(),
                backup: start.backup.clone(),
                started_at: start.started_at,
                found_at: now,
                removed,
            }))?)
        };
        remove(&run.path)?;
        Ok(entry)
    }

    fn run_path(&self, id: &RunId) -> PathBuf {
        self.runs_folder().join(format!("{id}.json"))
    }

    /// Locked before it has its name, so that nobody ever sees the file of a living run without a lock.
    fn locked_temporary(&self, start: &RunStart, path: &Path) -> Result<Temporary, Error> {
        let bytes = serde_json::to_vec_pretty(start).map_err(Error::Encode)?;
        let write = || {
            let temporary = Temporary::write(&self.temporary_folder(), &bytes)?;
            temporary.file().lock()?;
            Ok(temporary)
        };
        write().map_err(Error::io("note the run in", path))
    }
}

impl Run {
    pub fn id(&self) -> &RunId {
        &self.start.id
    }

    /// Notes which backup this is about, so that an interrupted one can be cleared away.
    pub fn note_backup(&mut self, id: &BackupId) -> Result<(), Error> {
        self.start.backup = Some(id.clone());
        let temporary = self.journal.locked_temporary(&self.start, &self.path)?;
        // The old file's lock is let go only after the new file has its place.
        self.lock = temporary
            .publish_over(&self.path)
            .map_err(Error::io("note the backup in", &self.path))?;
        Ok(())
    }

    /// Records how the run ended.
    pub fn finish(self, record: Record) -> Result<Entry, Error> {
        let entry = self.journal.append(record)?;
        remove(&self.path)?;
        Ok(entry)
    }
}

/// The lock on a file, when its holder is gone; nothing while it lives or when the file goes meanwhile.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // A living run replaces its file: then this lock is on the old one, and says nothing.
    let same_file = match fs::metadata(path) {
        Ok(metadata) => metadata.ino() == file.metadata()?.ino(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    Ok(same_file.then_some(file))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(Error::io("remove", path))?,
    }
    sync_directory(parent(path)).map_err(Error::io("sync", parent(path)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::record::{BackupRecord, Outcome, Trigger};
    use crate::repository::test_support::{id, target, time};

    /// The record of the nth backup.
    pub(crate) fn backup_record(number: i64) -> Record {
        Record::Backup(BackupRecord {
            format: FORMAT,
            id: BackupId::new(time(number), number as u16).to_string(),
            target: target(),
            environment: None,
            owner: None,
            trigger: Trigger::Command,
            outcome: Outcome::Succeeded,
            reason: None,
            backup: Some(id(number)),
            started_at: time(number),
            finished_at: time(number + 1),
            recovery_point: None,
            clock_skew_seconds: None,
            attempts: 1,
            phases: Vec::new(),
            totals: None,
            not_covered: Vec::new(),
            uncovered_databases: None,
            findings: Vec::new(),
        })
    }

    fn start() -> RunStart {
        RunStart {
            id: RunId::new(time(0)).unwrap(),
            task: Task::Backup,
            target: target(),
            backup: None,
            started_at: time(0),
            pid: std::process::id(),
        }
    }

    fn record_of(id: &RunId) -> Record {
        match backup_record(0) {
            Record::Backup(record) => Record::Backup(BackupRecord {
                id: id.to_string(),
                ..record
            }),
            other => other,
        }
    }

    #[test]
    fn a_run_that_finishes_leaves_its_record_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let mut run = journal.start_run(start()).unwrap();
        assert!(journal.interrupted().unwrap().is_empty());
        run.note_backup(&id(1)).unwrap();
        assert!(journal.interrupted().unwrap().is_empty());
        assert_eq!(journal.running().unwrap()[0].backup, Some(id(1)));
        let record = record_of(run.id());
        assert_eq!(run.finish(record.clone()).unwrap().record, record);
        assert!(journal.running().unwrap().is_empty());
        assert!(journal.interrupted().unwrap().is_empty());
    }

    #[test]
    fn a_run_that_was_killed_is_found_once_and_recorded_with_its_backup() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let mut run = journal.start_run(start()).unwrap();
        run.note_backup(&id(1)).unwrap();
        drop(run);
        let mut found = journal.interrupted().unwrap();
        assert!(
            journal.interrupted().unwrap().is_empty(),
            "another process must not take it too"
        );
        let found = found.remove(0);
        assert_eq!(found.start.backup, Some(id(1)));
        let entry = journal
            .settle(found, vec!["a".to_owned()], time(9))
            .unwrap()
            .unwrap();
        let Record::Interrupted(record) = entry.record else {
            panic!("{entry:?}")
        };
        assert_eq!((record.backup, record.task.as_str()), (Some(id(1)), "backup"));
        assert_eq!((record.found_at, record.removed), (time(9), vec!["a".to_owned()]));
        assert!(journal.interrupted().unwrap().is_empty());
    }

    #[test]
    fn a_run_killed_just_after_its_record_is_not_recorded_twice() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let run = journal.start_run(start()).unwrap();
        journal.append(record_of(run.id())).unwrap();
        drop(run);
        let found = journal.interrupted().unwrap().remove(0);
        assert_eq!(journal.settle(found, Vec::new(), time(9)).unwrap(), None);
        assert_eq!(journal.history().unwrap().entries.len(), 1);
        assert!(journal.interrupted().unwrap().is_empty());
    }
}
