//! The state directory and the repository: may we write there, read it back, and is there room?

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::journal::Journal;
use crate::repository::{Error as RepositoryError, Repository};
use crate::store::random::random_hexadecimal;
use crate::store::{Error as StoreError, Key, Store};

use super::{CheckLine, Lines};

/// Journal and locks are small; with less than this even they may soon not fit.
const SPACE_WARNING_BYTES: u64 = 256 << 20;

/// Whether the journal can be kept. Makes the directory, as the first backup would.
pub fn state_directory(directory: &Path) -> Vec<CheckLine> {
    let mut lines = Lines::of("state");
    let shown = directory.display();
    if let Err(error) = Journal::open(directory) {
        lines.failed(
            "directory",
            crate::ops::chain(&error),
            format!("mkdir -p {shown} && chmod 700 {shown}, owned by the user that runs ernstfall; or set `state_dir`"),
        );
        return lines.lines;
    }
    match probe_file(directory) {
        Ok(()) => lines.ok("directory", format!("{shown} can be written")),
        Err(error) => lines.failed(
            "directory",
            format!("cannot write in {shown}: {error}"),
            format!("give {shown} to the user that runs ernstfall, or set `state_dir`"),
        ),
    }
    private(directory, &mut lines);
    space(directory, &mut lines);
    lines.lines
}

fn probe_file(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".check-{}", random_hexadecimal::<8>()?));
    let written = File::create_new(&path).and_then(|mut file| io::Write::write_all(&mut file, b"probe"));
    let removed = fs::remove_file(&path);
    written.and(removed)
}

fn private(directory: &Path, lines: &mut Lines) {
    let shown = directory.display();
    let Ok(found) = directory.metadata() else {
        return;
    };
    match found.permissions().mode() & 0o777 {
        mode if mode & 0o077 == 0 => lines.ok("permissions", format!("{shown} is private (mode {mode:04o})")),
        mode => lines.warning(
            "permissions",
            format!("others may look into {shown} (mode {mode:04o})"),
            format!("chmod 700 {shown}"),
        ),
    }
}

fn space(directory: &Path, lines: &mut Lines) {
    let shown = directory.display();
    match nix::sys::statvfs::statvfs(directory) {
        Ok(found) => {
            let free = found.blocks_available() * found.fragment_size();
            let message = format!("{} MB free in {shown}", free >> 20);
            if free < SPACE_WARNING_BYTES {
                lines.warning("space", message, "free some space, or move it to a larger disk");
            } else {
                lines.ok("space", message);
            }
        }
        Err(error) => lines.warning(
            "space",
            format!("cannot tell how much is free in {shown}: {error}"),
            format!("df {shown}"),
        ),
    }
}

/// Whether objects can be stored, read back and removed, and what repository this is. `directory`: where it is one.
pub async fn repository(
    store: Arc<dyn Store>,
    directory: Option<&Path>,
) -> (Vec<CheckLine>, Option<Repository>) {
    let mut lines = Lines::of("repository");
    match probe_object(store.as_ref()).await {
        Ok(()) => lines.ok(
            "access",
            format!("{}: stored, read and removed a probe object", store.describe()),
        ),
        Err(error) => {
            let message = crate::ops::chain(&error);
            let remedy =
                "give the user that runs ernstfall the right to write there, or correct `repository.url`";
            lines.failed(
                "access",
                message,
                error.hint.clone().unwrap_or_else(|| remedy.to_owned()),
            );
        }
    }
    let repository = match Repository::open(store.clone()).await {
        Ok(repository) => {
            lines.ok("contents", format!("repository {} in format 1", repository.id()));
            Some(repository)
        }
        Err(RepositoryError::NoRepository { .. }) => {
            lines.ok("contents", "empty: the first backup makes a repository here");
            None
        }
        // Its reason stands with the access already.
        Err(RepositoryError::Store(_)) => None,
        Err(error) => {
            let remedy = "choose an empty place for `repository.url`, or use the version that wrote this one";
            lines.failed("contents", crate::ops::chain(&error), remedy);
            None
        }
    };
    if let Some(directory) = directory.filter(|directory| directory.is_dir()) {
        private(directory, &mut lines);
        space(directory, &mut lines);
    }
    (lines.lines, repository)
}

/// Outside of `targets/` and `records/`, where nothing looks for backups or records.
async fn probe_object(store: &dyn Store) -> Result<(), StoreError> {
    let failed = |why: String| {
        StoreError::new(
            crate::store::Operation::Put,
            None,
            store.describe(),
            crate::store::ErrorKind::Other,
        )
        .with_source(io::Error::other(why))
    };
    let name = random_hexadecimal::<8>().map_err(|error| failed(error.to_string()))?;
    let key = Key::new(format!("check/{name}")).map_err(|error| failed(error.to_string()))?;
    let bytes = Bytes::from_static(b"a probe of `ernstfall check`; it may be removed");
    store.put_new(&key, bytes.clone()).await?;
    let read = store.get(&key).await;
    // Also what could not be read back must go.
    let removed = store.delete(&key).await;
    if read? != bytes {
        return Err(failed("the probe object came back changed".to_owned()));
    }
    removed.map(|_| ())
}
