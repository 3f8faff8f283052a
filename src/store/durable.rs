//! Files that are either there, whole and on the disk, or not there at all.
//!
//! Everything is written under a temporary name first, in a folder of the same file system. What a dead
//! process left there is harmless: nothing reads it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::random::random_hexadecimal;

/// Temporary files of this process that could not be removed: the next write into the same folder tries again.
static LEFT_BEHIND: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A written and synced file that has no lasting name yet; dropped without one, it is removed.
pub(crate) struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    /// Writes the bytes to a new file in the folder, which is made when missing.
    pub(crate) fn write(folder: &Path, bytes: &[u8]) -> io::Result<Self> {
        make_directories(folder)?;
        Self::write_in(folder, bytes)
    }

    /// The same in a folder that must be there.
    pub(crate) fn write_in(folder: &Path, bytes: &[u8]) -> io::Result<Self> {
        remove_left_behind(folder);
        let path = folder.join(format!("{}-{}", std::process::id(), random_hexadecimal::<8>()?));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let mut temporary = Self { path, file };
        temporary.file.write_all(bytes)?;
        temporary.file.sync_all()?;
        Ok(temporary)
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name; `AlreadyExists` when that is taken.
    pub(crate) fn publish_new(self, path: &Path) -> io::Result<()> {
        match std::fs::hard_link(&self.path, path) {
            Err(error) if has_no_hard_links(&error) => rename_new(&self.path, path)?,
            linked => linked?,
        }
        sync_directory(parent(path))
    }

    /// Gives the file its name in place of whatever has it, and hands it over still open.
    pub(crate) fn publish_over(self, path: &Path) -> io::Result<File> {
        std::fs::rename(&self.path, path)?;
        sync_directory(parent(path))?;
        self.file.try_clone()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        remove_or_note(&self.path);
    }
}

/// A file that was renamed is gone already. One that cannot be removed now is a leftover that nothing reads.
fn remove_or_note(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        left_behind().push(path.to_owned());
    }
}

fn remove_left_behind(folder: &Path) {
    // Only what is in this folder: another one may hang.
    let here: Vec<PathBuf> = left_behind()
        .extract_if(.., |path| parent(path) == folder)
        .collect();
    here.iter().for_each(|path| remove_or_note(path));
}

fn left_behind() -> MutexGuard<'static, Vec<PathBuf>> {
    LEFT_BEHIND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Creates a file with these bytes, whole and durable; `AlreadyExists` when there is one.
pub(crate) fn write_new(temporary_folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    Temporary::write(temporary_folder, bytes)?.publish_new(path)
}

/// Puts a file with these bytes in the place of the old one, at once and durably.
pub(crate) fn write_over(temporary_folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    Temporary::write(temporary_folder, bytes)?.publish_over(path)?;
    Ok(())
}

/// Makes the directory and those above it, for the owner only and durably.
pub(crate) fn make_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    make_directories(parent(path))?;
    make_directory(path)
}

fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_directory(parent(path)),
        // Another writer was quicker.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the directories between this one, which must be there, and a path below it.
pub(crate) fn make_directories_below(root: &Path, path: &Path) -> io::Result<()> {
    if path == root || path.is_dir() {
        return Ok(());
    }
    make_directories_below(root, parent(path))?;
    make_directory(path)
}

pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    match File::open(path)?.sync_all() {
        // Some network and user-space file systems know no sync of a directory, and need none.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

/// The directory that holds the path; a bare name lies in the working directory.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

fn has_no_hard_links(error: &io::Error) -> bool {
    [libc::EPERM, libc::EOPNOTSUPP, libc::ENOSYS]
        .into_iter()
        .any(|code| error.raw_os_error() == Some(code))
}

/// For file systems without hard links: the other call that never replaces.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    Ok(renameat2(
        AT_FDCWD,
        from,
        AT_FDCWD,
        to,
        RenameFlags::RENAME_NOREPLACE,
    )?)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn rename_new(_from: &Path, _to: &Path) -> io::Result<()> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this file system has no hard links; use another one",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_file_never_replaces_one_and_leaves_no_temporary_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (temporary, path) = (folder.path().join("tmp"), folder.path().join("file"));
        write_new(&temporary, &path, b"first").unwrap();
        let error = write_new(&temporary, &path, b"second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(temporary.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_temporary_that_could_not_be_removed_goes_with_the_next_write() {
        let folder = tempfile::tempdir().unwrap();
        let temporary = Temporary::write(folder.path(), b"bytes").unwrap();
        let path = temporary.path.clone();
        // What is a directory now cannot be removed as a file, by no user.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        drop(temporary);
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, b"bytes").unwrap();
        drop(Temporary::write(folder.path(), b"more").unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn the_way_without_hard_links_never_replaces_either() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::write(&from, b"second").unwrap();
        std::fs::write(&to, b"first").unwrap();
        assert_eq!(
            rename_new(&from, &to).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        std::fs::remove_file(&to).unwrap();
        rename_new(&from, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), b"second");
    }

    #[test]
    fn writing_over_replaces_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_over(folder.path(), &path, b"a").unwrap();
        write_over(folder.path(), &path, b"b").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"b");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
