//! The demo's directory: made private, removed whole.

use std::cell::RefCell;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::store::random::random_hexadecimal;

/// The path of a Unix socket ends at 107 bytes, and what lies below takes the rest.
const LONGEST_BASE: usize = 40;

pub(super) struct Place {
    path: PathBuf,
    /// Where scratch servers really are, when the server's user may not enter our own directory.
    scratch_base: RefCell<Option<PathBuf>>,
}

impl Place {
    pub(super) fn make() -> anyhow::Result<Self> {
        let temporary = std::env::temp_dir();
        let base = if temporary.as_os_str().len() <= LONGEST_BASE {
            temporary
        } else {
            PathBuf::from("/tmp")
        };
        let path = base.join(format!("ernstfall-demo-{}", random_hexadecimal::<4>()?));
        // Root hands its servers to a user that has to pass through; what is in it is closed to others.
        let mode = if nix::unistd::geteuid().is_root() {
            0o711
        } else {
            0o700
        };
        let make = || {
            DirBuilder::new().mode(0o700).create(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        };
        make().with_context(|| {
            format!(
                "make {}: set TMPDIR to a directory that can be written",
                path.display()
            )
        })?;
        Ok(Self {
            path,
            scratch_base: RefCell::new(None),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    pub(super) fn repository(&self) -> PathBuf {
        self.path.join("repository")
    }

    /// For the source and for the copies.
    pub(super) fn scratch(&self) -> PathBuf {
        self.path.join("scratch")
    }

    /// Remembers where a scratch was really made.
    pub(super) fn note_scratch_base(&self, scratch: &Path) {
        self.scratch_base.replace(scratch.parent().map(Path::to_owned));
    }

    pub(super) fn remove(&self) -> anyhow::Result<()> {
        if let Some(base) = self
            .scratch_base
            .take()
            .filter(|base| !base.starts_with(&self.path))
        {
            // Only when it is empty: otherwise it is not ours alone.
            let _ = fs::remove_dir(base);
        }
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error)
                .with_context(|| format!("remove the demo's directory: rm -r {}", self.path.display())),
            _ => Ok(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A panic, too, leaves nothing: after `keep` or `remove` there is no more to do.
        if std::thread::panicking() {
            let _ = self.remove();
        }
    }
}
