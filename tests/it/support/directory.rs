//! Directories for tests: short paths (Unix sockets end at 107 bytes), reachable by the test user even when the
//! checkout is not, removed on drop, and swept by the next run when a test was killed.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Once};

use super::account::Account;

/// Where everything of this user's test runs lies; shared by all checkouts and processes.
pub(crate) fn base() -> &'static Path {
    static BASE: LazyLock<PathBuf> = LazyLock::new(|| {
        let uid = nix::unistd::geteuid().as_raw();
        let path = PathBuf::from(format!("/tmp/ernstfall-test-{uid}"));
        match fs::create_dir(&path) {
            Ok(()) => fs::set_permissions(&path, Permissions::from_mode(0o711)).unwrap(),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
            Err(error) => panic!("create {}: {error}", path.display()),
        }
        let found = fs::symlink_metadata(&path).unwrap();
        assert!(
            found.is_dir() && found.uid() == uid,
            "{} belongs to somebody else",
            path.display()
        );
        path
    });
    &BASE
}

/// A directory of one test, owned by the unprivileged account. A locked file beside it says that it is in use.
pub(crate) struct TestDir {
    path: PathBuf,
    lock_path: PathBuf,
    _lock: File,
}

impl TestDir {
    pub(crate) fn new(kind: &str) -> Self {
        static SWEPT: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        SWEPT.call_once(|| sweep(base()));
        loop {
            let name = format!(
                "{kind}-{}-{}",
                std::process::id(),
                NUMBER.fetch_add(1, Ordering::Relaxed)
            );
            let lock_path = base().join(format!("{name}.lock"));
            let Ok(lock) = File::create_new(&lock_path) else {
                continue;
            };
            lock.lock().unwrap();
            // Another run's sweep may have taken the file between its making and its lock.
            if !is_same_file(&lock, &lock_path) {
                continue;
            }
            let path = base().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
            Account::unprivileged().own(&path);
            return Self {
                path,
                lock_path,
                _lock: lock,
            };
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file that the unprivileged account owns and nobody else reads.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        Account::unprivileged().own(&path);
        path
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if std::env::var_os("ERNSTFALL_TEST_KEEP").is_some() {
            eprintln!("kept {} until the next test run", self.path.display());
            return;
        }
        remove(&self.path, &self.lock_path);
    }
}

/// Removes what killed tests left: directories whose lock nobody holds.
pub(crate) fn sweep(base: &Path) {
    for entry in fs::read_dir(base).unwrap().flatten() {
        let lock_path = entry.path();
        if lock_path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let Ok(lock) = File::open(&lock_path) else {
            continue;
        };
        if lock.try_lock().is_ok() && is_same_file(&lock, &lock_path) {
            remove(&lock_path.with_extension(""), &lock_path);
        }
    }
}

/// Unmounts, removes, and gives up the name last, so that what could not be removed is found again.
fn remove(path: &Path, lock_path: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for mounted in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(mounted).starts_with(path) {
            let _ = nix::mount::umount2(mounted, nix::mount::MntFlags::MNT_DETACH);
        }
    }
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            eprintln!("left for the next run to remove: {}: {error}", path.display());
        }
        _ => drop(fs::remove_file(lock_path)),
    }
}

fn is_same_file(open: &File, path: &Path) -> bool {
    let open = open.metadata().unwrap();
    fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (open.dev(), open.ino()))
}

#[test]
fn directory_goes_with_its_owner_and_sweep_spares_those_in_use() {
    let outer = TestDir::new("sweep");
    fs::create_dir(outer.join("left")).unwrap();
    fs::write(outer.join("left/file"), "left by a killed test").unwrap();
    fs::write(outer.join("left.lock"), "").unwrap();
    fs::create_dir(outer.join("used")).unwrap();
    let used = File::create_new(outer.join("used.lock")).unwrap();
    used.lock().unwrap();
    sweep(outer.path());
    assert!(!outer.join("left").exists() && !outer.join("left.lock").exists());
    assert!(outer.join("used").exists() && outer.join("used.lock").exists());
    let path = outer.path().to_owned();
    drop(outer);
    assert!(!path.exists());
}
