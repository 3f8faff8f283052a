//! Prometheus and Alertmanager as plain processes, and somebody whom alerts reach.

use std::path::PathBuf;

/// The program, where it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}
