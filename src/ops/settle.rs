//! What a killed process left behind: found at the next start, removed and recorded.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

use crate::journal::{Error as JournalError, InterruptedRun, Journal, Task};
use crate::ops::context::Context;
use crate::ops::work_directory;
use crate::scratch;

/// Removes scratch clusters, work directories and objects of unfinished backups whose process is gone, and records
/// each interrupted run. Returns what was found, one line each.
pub async fn settle(context: &Context, scratch_directories: &[PathBuf]) -> Result<Vec<String>, JournalError> {
    let here = Here {
        journal: &context.journal,
        state_dir: &context.state_dir,
        now: (context.clock)(),
    };
    let mut lines = settle_here(&here, scratch_directories)?;
    for interrupted in context.journal.interrupted()? {
        let mut removed = Vec::new();
        if let Some(backup) = &interrupted.start.backup {
            match context
                .repository
                .remove_unfinished(&interrupted.start.target, backup)
                .await
            {
                Ok(keys) => removed.extend(keys.iter().map(ToString::to_string)),
                // It was killed after its manifest: then it is a backup like any other.
                Err(crate::repository::Error::BackupExists { .. }) => {}
                Err(error) => context
                    .progress
                    .note(&format!("objects of backup {backup} stay behind: {error}")),
            }
        }
        here.record(interrupted, removed, &mut lines)?;
    }
    Ok(lines)
}

/// What is found and recorded without a repository.
pub struct Here<'a> {
    pub journal: &'a Journal,
    pub state_dir: &'a Path,
    pub now: DateTime<Utc>,
}

/// The same on this machine alone, for a repository that is out of reach: of backups that had begun to store objects,
/// the rest waits for it.
pub fn settle_here(here: &Here<'_>, scratch_directories: &[PathBuf]) -> Result<Vec<String>, JournalError> {
    let mut swept = Vec::new();
    for directory in scratch_directories {
        swept.extend(scratch::sweep(directory));
    }
    let mut lines: Vec<String> = swept
        .iter()
        .map(|one| format!("removed the scratch cluster {}", one.path.display()))
        .collect();
    for interrupted in here.journal.interrupted()? {
        let run_id = interrupted.start.id.to_string();
        let mut removed: Vec<String> = swept
            .iter()
            .filter(|one| one.run == run_id)
            .map(|one| one.path.display().to_string())
            .collect();
        match work_directory::remove_left_behind(here.state_dir, &run_id) {
            Ok(path) => removed.extend(path.map(|path| path.display().to_string())),
            Err(error) => lines.push(format!("the files of run {run_id} stay behind: {error}")),
        }
        let stores_objects = interrupted.start.task == Task::Backup && interrupted.start.backup.is_some();
        if !stores_objects {
            here.record(interrupted, removed, &mut lines)?;
        }
    }
    Ok(lines)
}

impl Here<'_> {
    fn record(
        &self,
        interrupted: InterruptedRun,
        removed: Vec<String>,
        lines: &mut Vec<String>,
    ) -> Result<(), JournalError> {
        let start = &interrupted.start;
        lines.push(format!(
            "{} of {} ({}) had been interrupted",
            start.task.as_str(),
            start.target,
            start.id
        ));
        self.journal.settle(interrupted, removed, self.now)?;
        Ok(())
    }
}
