//! Files of a restore: pg_restore wants its archive and its lists on disk.

use std::path::Path;

use crate::ops::context::Context;
use crate::ops::work_directory::WorkDirectory;

use super::RestoreError;

/// The directory of a run's own; it is removed with the value.
pub(in crate::ops) fn work_directory(context: &Context, name: &str) -> Result<WorkDirectory, RestoreError> {
    WorkDirectory::create(&context.state_dir, name)
        .map_err(failed("make a work directory in", &context.state_dir))
}

pub(in crate::ops) async fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), RestoreError> {
    tokio::fs::write(path, bytes).await.map_err(failed("write", path))
}

pub(super) async fn read(path: &Path) -> Result<Vec<u8>, RestoreError> {
    tokio::fs::read(path).await.map_err(failed("read", path))
}

fn failed(tried: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> RestoreError {
    let path = path.display().to_string();
    move |source| RestoreError::File { tried, path, source }
}
