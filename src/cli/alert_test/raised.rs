//! The test alert that the running daemon is to show: a file in the state directory, which the daemon looks for.

use std::io;
use std::path::{Path, PathBuf};

use crate::observe::gathered::RaisedTest;
use crate::store::durable::write_over;

const FILE: &str = "alert-test.json";

/// What is raised now; nothing also where that cannot be read, which whoever raised it notices.
pub(in crate::cli) fn raised(state_dir: &Path) -> Option<RaisedTest> {
    let bytes = std::fs::read(path(state_dir)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Has the daemon show it, in the place of any other.
pub(super) fn raise(state_dir: &Path, test: &RaisedTest) -> io::Result<()> {
    let bytes = serde_json::to_vec_pretty(test)?;
    write_over(&state_dir.join(".tmp"), &path(state_dir), &bytes)
}

/// Takes it away, unless it is another one by now.
pub(super) fn withdraw(state_dir: &Path, test: &RaisedTest) -> io::Result<()> {
    if raised(state_dir).is_none_or(|raised| raised.test != test.test) {
        return Ok(());
    }
    std::fs::remove_file(path(state_dir))
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}
