//! Objects as files below one directory.
//!
//! An object appears whole and on the disk, or not at all; a file that exists is never replaced.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use tokio::sync::Semaphore;

use crate::store::durable::{Temporary, make_directories, make_directories_below, parent, sync_directory};
use crate::store::error::{Error, ErrorKind, Operation};
use crate::store::key::Key;
use crate::store::{Freed, Listed, Store, Wanted};

/// Where files are written before they get their name; no key can name it.
const TEMPORARY_FOLDER: &str = ".tmp";
/// A temporary file this old belongs to no living write: objects are written in minutes.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 3600);
/// Links may be followed, so a loop of them must end; our keys have at most six segments.
const DEEPEST: usize = 16;
/// A delete in another process may remove the folder that was just made; it does so once, not for ever.
const PUT_ATTEMPTS: u32 = 3;

/// So much file work one process does at once in one directory. More makes no disk faster, and each thread that ever did
/// some stays, with memory of its own: a burst of work would be paid for as long as a daemon runs. Not the runtime's
/// limit of blocking threads, which what hangs here would use up for everything else.
const WORK_AT_ONCE: usize = 8;

/// The turns at each directory that this process has used. Each has its own: one that hangs holds up no other.
static TURNS: Mutex<BTreeMap<PathBuf, Arc<Semaphore>>> = Mutex::new(BTreeMap::new());

/// A directory as a store.
#[derive(Clone, Debug)]
pub struct Directory {
    root: Arc<PathBuf>,
    turns: Arc<Semaphore>,
}

impl Directory {
    /// The store below this absolute path; made with the first object.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Semaphore::new(WORK_AT_ONCE));
        let turns = Arc::clone(turns.entry(root.clone()).or_insert_with(new));
        Self {
            root: Arc::new(root),
            turns,
        }
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Runs blocking file work where it holds up nothing else.
    async fn blocking<T, F>(&self, operation: Operation, subject: &str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Directory) -> io::Result<T> + Send + 'static,
    {
        let directory = self.clone();
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let joined = tokio::task::spawn_blocking(move || {
            // Its turn ends with the work, also where nobody waits for that any more.
            let _turn = turn;
            work(&directory)
        });
        joined
            .await
            .unwrap_or_else(|ended| Err(io::Error::other(ended)))
            .map_err(|source| self.error(operation, subject, source))
    }

    fn error(&self, operation: Operation, subject: &str, source: io::Error) -> Error {
        let kind = ErrorKind::of_io(&source);
        let mut error = Error::new(operation, None, self.describe(), kind);
        error.key = (!subject.is_empty()).then(|| subject.to_owned());
        error.hint = match kind {
            ErrorKind::NoSpace => Some(self.space_hint()),
            ErrorKind::PermissionDenied => {
                Some("check owner and mode, and that it is not mounted read-only".to_owned())
            }
            _ => None,
        };
        error.with_source(source)
    }

    fn space_hint(&self) -> String {
        let advice = "free some, enlarge it, or choose another place for the repository";
        match nix::sys::statvfs::statvfs(self.root.as_path()) {
            Ok(facts) => {
                // The types of these differ between platforms.
                #[allow(clippy::useless_conversion)]
                let free =
                    u64::from(facts.blocks_available()).saturating_mul(u64::from(facts.fragment_size()));
                format!(
                    "the file system of {} has {free} bytes free: {advice}",
                    self.root.display()
                )
            }
            Err(_) => format!("the file system of {} is full: {advice}", self.root.display()),
        }
    }
}

#[async_trait]
impl Store for Directory {
    async fn put_new(&self, key: &Key, bytes: Bytes) -> Result<(), Error> {
        let path = self.path(key);
        self.blocking(Operation::Put, key.as_str(), move |directory| {
            put(&directory.root, &path, &bytes)
        })
        .await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, Error> {
        let path = self.path(key);
        self.blocking(Operation::Get, key.as_str(), move |_| {
            fs::read(path).map(Bytes::from)
        })
        .await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, Error> {
        self.list_only(folder, Arc::new(|_| true)).await
    }

    async fn list_only(&self, folder: &str, wanted: Wanted) -> Result<Vec<Listed>, Error> {
        if !folder.is_empty() {
            Key::new(folder).map_err(|invalid| {
                Error::new(Operation::List, None, self.describe(), ErrorKind::Other).with_source(invalid)
            })?;
        }
        let within = folder.to_owned();
        self.blocking(Operation::List, folder, move |directory| {
            // A repository whose whole directory is gone (a disk not mounted) must not look like an empty one.
            fs::metadata(directory.root.as_path())?;
            let mut found = Vec::new();
            collect(&directory.root, &within, DEEPEST, &wanted, &mut found)?;
            found.sort_by(|one, other| one.key.cmp(&other.key));
            Ok(found)
        })
        .await
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>, Error> {
        let within = folder.to_owned();
        self.blocking(Operation::List, folder, move |directory| {
            fs::metadata(directory.root.as_path())?;
            folders_in(&directory.root.join(within))
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<Freed, Error> {
        let path = self.path(key);
        self.blocking(Operation::Delete, key.as_str(), move |directory| {
            remove(&directory.root, &path)
        })
        .await
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}

fn put(root: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    // Only an object at the top begins a store. What belongs into a folder of one must not begin another where the
    // store was, and now is not: a disk that was unmounted.
    if parent(path) == root {
        make_directories(root)?;
    }
    let folder = root.join(TEMPORARY_FOLDER);
    remove_leftovers(&folder);
    let mut attempt = 1;
    loop {
        make_directories_below(root, parent(path))?;
        make_directories_below(root, &folder)?;
        match Temporary::write_in(&folder, bytes)?.publish_new(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempt < PUT_ATTEMPTS => attempt += 1,
            result => return result,
        }
    }
}

/// Removes what writers that died long ago left behind. What cannot be removed does no harm but take space.
fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified
            .ok()
            .and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age > LEFTOVER_AGE) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Gathers the files of a folder and those below it. Links are followed: a target may live on another disk.
fn collect(
    root: &Path,
    folder: &str,
    depth: usize,
    wanted: &Wanted,
    found: &mut Vec<Listed>,
) -> io::Result<()> {
    let entries = match fs::read_dir(root.join(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let text = if folder.is_empty() {
            name
        } else {
            format!("{folder}/{name}")
        };
        // What is no key was put there by somebody else: temporary files, `.snapshot`, and the like.
        let Ok(key) = Key::new(text) else { continue };
        let is_file = entry.file_type()?.is_file();
        if is_file && !wanted(&key) {
            continue;
        }
        let metadata = match fs::metadata(entry.path()) {
            // Deleted since the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        // What is no file by itself is a link to one.
        if metadata.is_file() && (is_file || wanted(&key)) {
            let modified = DateTime::from(metadata.modified()?);
            let size_bytes = metadata.len();
            found.push(Listed {
                key,
                size_bytes,
                modified,
            });
        } else if metadata.is_dir() {
            if depth == 0 {
                return Err(io::Error::other(format!(
                    "folders nested too deep at {key}: a loop of links?"
                )));
            }
            collect(root, key.as_str(), depth - 1, wanted, found)?;
        }
    }
    Ok(())
}

/// Also those that hold nothing: a folder that is emptied goes a moment later.
fn folders_in(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().into_string().ok();
        // A link may lead to a folder.
        let is_folder = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir());
        names.extend(name.filter(|name| is_folder && Key::new(name.as_str()).is_ok()));
    }
    names.sort();
    Ok(names)
}

fn remove(root: &Path, path: &Path) -> io::Result<Freed> {
    // A link frees only itself: what it leads to is somebody else's.
    let bytes = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Freed::default()),
        metadata => metadata?.len(),
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Freed::default()),
        removed => removed?,
    }
    match sync_directory(parent(path)) {
        // A delete beside this one took the last file, and the folder with it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        synced => synced?,
    }
    // Pruned backups would otherwise leave their empty folders for ever. The first one in use ends it.
    let mut folder = parent(path);
    while folder != root && folder.starts_with(root) && fs::remove_dir(folder).is_ok() {
        folder = parent(folder);
    }
    Ok(Freed { bytes, kept: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::os::unix::fs::PermissionsExt;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[tokio::test]
    async fn files_and_folders_are_for_the_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("new/repository");
        let store = Directory::new(&root);
        for name in ["description", "a/b"] {
            store.put_new(&key(name), Bytes::from("x")).await.unwrap();
        }
        let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(root.join("a/b")), 0o600);
        assert_eq!(
            [mode(root.clone()), mode(root.join("a")), mode(root.join(".tmp"))],
            [0o700; 3]
        );
    }

    #[tokio::test]
    async fn a_failed_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = Directory::new(folder.path());
        store.put_new(&key("a"), Bytes::from("x")).await.unwrap();
        // A file stands where a folder would have to be.
        assert!(store.put_new(&key("a/b"), Bytes::from("y")).await.is_err());
        assert_eq!(fs::read_dir(folder.path().join(".tmp")).unwrap().count(), 0);
        assert_eq!(store.list("").await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn leftovers_of_dead_writers_are_never_listed_and_go_when_old() {
        let folder = tempfile::tempdir().unwrap();
        let temporary = folder.path().join(".tmp");
        fs::create_dir(&temporary).unwrap();
        fs::write(temporary.join("young"), b"x").unwrap();
        let old = fs::File::create(temporary.join("old")).unwrap();
        old.set_modified(SystemTime::now() - 2 * LEFTOVER_AGE).unwrap();
        let store = Directory::new(folder.path());
        assert!(store.list("").await.unwrap().is_empty());
        store.put_new(&key("a"), Bytes::from("x")).await.unwrap();
        assert!(temporary.join("young").exists());
        assert!(!temporary.join("old").exists());
    }

    #[tokio::test]
    async fn a_directory_that_is_gone_is_not_made_anew_by_what_belongs_into_it() {
        let outer = tempfile::tempdir().unwrap();
        let store = Directory::new(outer.path().join("store"));
        let put = async |name: &str| store.put_new(&key(name), Bytes::from("bytes")).await;
        assert!(put("folder/object").await.unwrap_err().is_not_found());
        assert!(!outer.path().join("store").exists());
        put("description").await.unwrap();
        put("folder/object").await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_that_is_gone_is_an_error_and_not_an_empty_store() {
        let folder = tempfile::tempdir().unwrap();
        let store = Directory::new(folder.path().join("not-mounted"));
        assert!(store.list("targets").await.unwrap_err().is_not_found());
    }

    #[tokio::test]
    async fn empty_folders_go_with_their_last_object() {
        let folder = tempfile::tempdir().unwrap();
        let store = Directory::new(folder.path());
        store.put_new(&key("a/b/c"), Bytes::from("x")).await.unwrap();
        store.put_new(&key("a/d"), Bytes::from("x")).await.unwrap();
        store.delete(&key("a/b/c")).await.unwrap();
        assert!(!folder.path().join("a/b").exists());
        assert!(folder.path().join("a/d").exists());
    }

    #[tokio::test]
    async fn many_deletes_at_once_do_not_trip_over_each_others_folders() {
        let folder = tempfile::tempdir().unwrap();
        let store = Directory::new(folder.path());
        for round in 0..20 {
            let keys: Vec<Key> = (0..8)
                .map(|number| key(&format!("a/b/{round}/{number}")))
                .collect();
            for key in &keys {
                store.put_new(key, Bytes::from("x")).await.unwrap();
            }
            let deletes = keys.iter().map(|key| store.delete(key));
            for deleted in futures_util::future::join_all(deletes).await {
                assert_eq!(deleted.unwrap().bytes, 1);
            }
        }
        assert!(!folder.path().join("a").exists());
    }

    #[tokio::test]
    async fn work_that_hangs_takes_turns_and_holds_up_no_other_directory() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [hangs, works] = folders.each_ref().map(|folder| Directory::new(folder.path()));
        let (answer, answers) = std::sync::mpsc::channel::<()>();
        let answers = Arc::new(Mutex::new(answers));
        for _ in 0..WORK_AT_ONCE {
            let answers = Arc::clone(&answers);
            let hanging = hangs.blocking(Operation::Get, "a", move |_| {
                answers.lock().unwrap().recv().map_err(io::Error::other)
            });
            // Nobody waits any more, and the work goes on.
            assert!(hanging.now_or_never().is_none());
        }
        let again = Directory::new(folders[0].path());
        let name = key("a");
        let mut waits = again.get(&name);
        assert!((&mut waits).now_or_never().is_none() && again.turns.available_permits() == 0);
        works.put_new(&name, Bytes::from("x")).await.unwrap();
        answer.send(()).unwrap();
        assert!(waits.await.unwrap_err().is_not_found());
        drop(answer);
    }

    #[test]
    fn a_full_disk_names_the_place_and_what_is_free() {
        let store = Directory::new("/");
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        let message = store.error(Operation::Put, "a", full).to_string();
        assert!(
            message.contains("no space left") && message.contains("bytes free"),
            "{message}"
        );
    }
}
