//! A directory of a run's own, for what PostgreSQL's programs want as files: the schema archive, a password file.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where they are, below the state directory.
const FOLDER: &str = "work";

/// Removed with everything in it when dropped. What a killed run leaves is removed when it is recorded.
#[derive(Debug)]
pub(super) struct WorkDirectory(PathBuf);

impl WorkDirectory {
    /// Makes the directory, for its owner only.
    pub(super) fn create(state_dir: &Path, run_id: &str) -> std::io::Result<Self> {
        let path = path_of(state_dir, run_id);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        // What cannot be removed now is removed with the next interrupted run, and harms nobody until then.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes what a killed run left, and says whether there was anything.
pub(super) fn remove_left_behind(state_dir: &Path, run_id: &str) -> std::io::Result<Option<PathBuf>> {
    let path = path_of(state_dir, run_id);
    match std::fs::remove_dir_all(&path) {
        Ok(()) => Ok(Some(path)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn path_of(state_dir: &Path, run_id: &str) -> PathBuf {
    state_dir.join(FOLDER).join(run_id)
}
