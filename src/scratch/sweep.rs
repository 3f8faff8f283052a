//! Removes scratches whose maker was killed. Only directories with our owner file whose lock is free.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::place::{self, ProcessId};

/// Killing is quick; a process that hangs in the kernel is left to the next sweep.
const PATIENCE: Duration = Duration::from_secs(5);

/// A scratch that was left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// The run that it was made for.
    pub run: String,
    pub path: PathBuf,
    /// Why it is still there, when it could not be removed.
    pub problem: Option<String>,
}

/// Ends and removes what is left below a base, and below the short directory that stands in for it. Kept
/// scratches and those of living processes are left alone.
pub fn sweep(base: &Path) -> Vec<Swept> {
    let base = base.canonicalize().unwrap_or_else(|_| base.to_path_buf());
    let mut swept = Vec::new();
    for base in [place::fallback_base(&base), base] {
        let entries = fs::read_dir(&base).into_iter().flatten().flatten();
        for directory in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            swept.extend(sweep_one(&directory.path()));
        }
    }
    swept
}

fn sweep_one(directory: &Path) -> Option<Swept> {
    let owner = place::read_owner(directory)?;
    if owner.kept {
        return None;
    }
    // Held until the directory is gone, so that two sweeps do not meet.
    let _lock = place::lock(directory).ok()?;
    if let Some(server) = &owner.server {
        end(server);
    }
    let problem = remove_directory(directory).err().map(|error| error.to_string());
    Some(Swept {
        run: owner.run,
        path: directory.to_path_buf(),
        problem,
    })
}

/// Kills the sandbox's supervisor; everything inside dies with it.
fn end(server: &ProcessId) {
    let until = Instant::now() + PATIENCE;
    while server.is_alive() && Instant::now() < until {
        kill(Pid::from_raw(server.number), Signal::SIGKILL).ok();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Removes a scratch directory. Dying processes may still be making files: an "is not empty" is tried again.
pub(super) fn remove_directory(directory: &Path) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match fs::remove_dir_all(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::place::Place;

    #[test]
    fn only_scratches_without_a_living_maker_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let living = Place::claim(root.path(), "living", None).unwrap();
        let dead = Place::claim(root.path(), "dead", None).unwrap();
        let mut kept = Place::claim(root.path(), "kept", None).unwrap();
        kept.owner.kept = true;
        kept.write_owner().unwrap();
        let foreign = root.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        let (dead_path, kept_path) = (dead.directory.clone(), kept.directory.clone());
        drop((dead, kept));
        let swept = sweep(root.path());
        assert_eq!(swept.len(), 1, "{swept:?}");
        assert_eq!((swept[0].run.as_str(), &swept[0].problem), ("dead", &None));
        assert!(!dead_path.exists() && kept_path.exists() && foreign.exists() && living.directory.exists());
    }
}
