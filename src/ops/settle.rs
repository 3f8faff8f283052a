//! What a killed process left behind: found at the next start, removed and recorded.

use std::path::PathBuf;

use crate::journal::Error as JournalError;
use crate::ops::context::Context;
use crate::ops::work_directory;
use crate::scratch;

/// Removes scratch clusters, work directories and objects of unfinished backups whose process is gone, and records
/// each interrupted run. Returns what was found, one line each.
pub async fn settle(context: &Context, scratch_directories: &[PathBuf]) -> Result<Vec<String>, JournalError> {
    let mut swept = Vec::new();
    for directory in scratch_directories {
        swept.extend(scratch::sweep(directory));
    }
    let mut lines: Vec<String> = swept
        .iter()
        .map(|one| format!("removed the scratch cluster {}", one.path.display()))
        .collect();
    for interrupted in context.journal.interrupted()? {
        let start = interrupted.start.clone();
        let run_id = start.id.to_string();
        let mut removed: Vec<String> = swept
            .iter()
            .filter(|one| one.run == run_id)
            .map(|one| one.path.display().to_string())
            .collect();
        match work_directory::remove_left_behind(&context.state_dir, &run_id) {
            Ok(path) => removed.extend(path.map(|path| path.display().to_string())),
            Err(error) => context
                .progress
                .note(&format!("the files of run {run_id} stay behind: {error}")),
        }
        if let (crate::journal::Task::Backup, Some(backup)) = (start.task, &start.backup) {
            match context.repository.remove_unfinished(&start.target, backup).await {
                Ok(keys) => removed.extend(keys.iter().map(ToString::to_string)),
                // It was killed after its manifest: then it is a backup like any other.
                Err(crate::repository::Error::BackupExists { .. }) => {}
                Err(error) => context
                    .progress
                    .note(&format!("objects of backup {backup} stay behind: {error}")),
            }
        }
        lines.push(format!(
            "{} of {} ({run_id}) had been interrupted",
            start.task.as_str(),
            start.target
        ));
        context.journal.settle(interrupted, removed, (context.clock)())?;
    }
    Ok(lines)
}
