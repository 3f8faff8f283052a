//! A small file system, to see what happens when it is full.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::account::{Account, is_root};
use super::directory::TestDir;

/// A tmpfs of a few MB, unmounted on drop; what a killed test leaves mounted is unmounted by the next run's sweep.
pub(crate) struct FullDisk {
    path: PathBuf,
    _directory: TestDir,
}

impl FullDisk {
    /// Only root can mount where both the test and the product see it; a test asks first:
    /// `require!(FullDisk::is_possible(), "only root can mount a small file system")`.
    pub(crate) fn is_possible() -> bool {
        is_root()
    }

    pub(crate) fn of_megabytes(megabytes: u32) -> Self {
        let directory = TestDir::new("full-disk");
        let path = directory.join("disk");
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={megabytes}m,mode=0700");
        mount(
            Some("tmpfs"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .unwrap_or_else(|error| panic!("mount a tmpfs at {}: {error}", path.display()));
        Account::unprivileged().own(&path);
        Self {
            path,
            _directory: directory,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
    }
}

#[cfg(test)]
mod tests {
    use super::super::skip::require;
    use super::*;

    #[test]
    fn full_disk_takes_a_little_and_then_refuses() {
        require!(FullDisk::is_possible(), "only root can mount a small file system");
        let disk = FullDisk::of_megabytes(2);
        std::fs::write(disk.path().join("fits"), vec![0; 1 << 20]).unwrap();
        let error = std::fs::write(disk.path().join("does-not"), vec![0; 4 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        let path = disk.path().to_owned();
        drop(disk);
        assert!(!path.exists());
    }
}
