//! Copies of small immutable objects on this machine, so that ten thousand manifests are fetched once and not each time.
//!
//! A copy counts only while the listing shows the same size and time for the object. One file holds the copies of one
//! folder, a line each. It may be removed at any time; whatever is wrong with it only costs a fetch.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::repository::aside;
use crate::store::Listed;
use crate::store::durable::{make_directories, parent};

/// So many lines too much are not worth a new file.
const MOST_STALE_LINES: usize = 100;

/// Bytes of the file: few, since each thread that ever read one keeps as many.
const READ_AT_ONCE: usize = 1 << 16;

/// Where the copies are.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    directory: PathBuf,
}

/// One copied object.
#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    size_bytes: u64,
    modified: DateTime<Utc>,
    text: String,
}

/// What becomes of the copies that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    Keep,
    Forget,
}

/// The copies of one folder, as they were read.
#[derive(Default)]
pub(super) struct Copies {
    by_key: HashMap<String, Line>,
    /// Also those that a later one replaced.
    lines: usize,
}

impl Copies {
    /// The copy of an object that is as it was listed.
    pub(super) fn take(&mut self, listed: &Listed) -> Option<Bytes> {
        let line = self.by_key.get(listed.key.as_str())?;
        let same = line.size_bytes == listed.size_bytes
            && line.modified == listed.modified
            && line.text.len() as u64 == listed.size_bytes;
        let line = same.then(|| self.by_key.remove(listed.key.as_str())).flatten()?;
        Some(Bytes::from(line.text))
    }

    /// Whether most copies are of objects that are there no longer.
    pub(super) fn are_stale(&self, objects: usize) -> bool {
        self.lines > 2 * objects + MOST_STALE_LINES
    }
}

impl Cache {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Nothing where there are none, or none that can be read.
    pub(super) async fn read(&self, folder: &str) -> Copies {
        let path = self.path(folder);
        let read = aside(move || read(&path)).await;
        read.unwrap_or_default()
    }

    /// Keeps copies of these objects, beside those there are or in their place.
    pub(super) async fn keep(&self, folder: &str, objects: Vec<(Listed, Bytes)>, others: Others) {
        let path = self.path(folder);
        let keep = move || {
            if others == Others::Forget {
                fs::remove_file(&path)?;
            }
            append(&path, &objects)
        };
        let kept = aside(keep).await;
        if let Ok(Err(error)) = kept {
            tracing::debug!("the copies of {folder} are not kept: {error}");
        }
    }

    fn path(&self, folder: &str) -> PathBuf {
        self.directory.join(format!("{folder}.jsonl"))
    }
}

fn read(path: &Path) -> Copies {
    let mut copies = Copies::default();
    let Ok(file) = File::open(path) else {
        return copies;
    };
    for line in BufReader::with_capacity(READ_AT_ONCE, file).split(b'\n') {
        let Ok(line) = line else { break };
        copies.lines += usize::from(!line.is_empty());
        // A line that a killed process broke off is of no use, and the next ones are.
        if let Ok(line) = serde_json::from_slice::<Line>(&line) {
            copies.by_key.insert(line.key.clone(), line);
        }
    }
    copies
}

/// Adds lines at the end, in one write, so that two processes do not mix theirs.
fn append(path: &Path, objects: &[(Listed, Bytes)]) -> io::Result<()> {
    // The last line may have been broken off.
    let mut text = b"\n".to_vec();
    for (listed, bytes) in objects {
        // What is no text is damaged, and not worth a copy.
        let Ok(content) = std::str::from_utf8(bytes) else {
            continue;
        };
        let line = Line {
            key: listed.key.to_string(),
            size_bytes: listed.size_bytes,
            modified: listed.modified,
            text: content.to_owned(),
        };
        serde_json::to_writer(&mut text, &line)?;
        text.push(b'\n');
    }
    make_directories(parent(path))?;
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::keys;
    use crate::repository::test_support::{id, manifest, memory_repository, target};
    use crate::store::{Operation, Store};

    #[tokio::test]
    async fn a_manifest_is_fetched_once_unless_it_was_changed_or_its_copy_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        let (repository, faulty) = memory_repository().await;
        let repository = repository.cached_in(folder.path());
        let reads = async || {
            let before = faulty.calls(Operation::Get);
            let manifests = repository.manifests(&target()).await.unwrap();
            let found: Vec<_> = manifests.readable.iter().map(|one| one.id.clone()).collect();
            (
                found,
                manifests.unreadable.len(),
                faulty.calls(Operation::Get) - before,
            )
        };
        for number in 0..3 {
            repository.put_manifest(&manifest(number)).await.unwrap();
        }
        let all = vec![id(0), id(1), id(2)];
        assert_eq!(reads().await, (all.clone(), 0, 3));
        assert_eq!(reads().await, (all.clone(), 0, 0));

        let key = keys::manifest_key(&target(), &id(1));
        let whole = faulty.get(&key).await.unwrap();
        faulty.delete(&key).await.unwrap();
        assert_eq!(reads().await, (vec![id(0), id(2)], 0, 0));
        faulty.put_new(&key, Bytes::from("damaged")).await.unwrap();
        assert_eq!(reads().await, (vec![id(0), id(2)], 1, 1));
        faulty.delete(&key).await.unwrap();
        faulty.put_new(&key, whole).await.unwrap();
        assert_eq!(reads().await, (all.clone(), 0, 1));

        let path = folder
            .path()
            .join(repository.id())
            .join("targets/shop/manifests.jsonl");
        let copies = fs::read(&path).unwrap();
        fs::write(&path, &copies[..copies.len() - 20]).unwrap();
        assert_eq!(reads().await, (all.clone(), 0, 1));
        assert_eq!(
            reads().await,
            (all.clone(), 0, 0),
            "what follows a broken line counts"
        );
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(reads().await, (all, 0, 3), "a copy is never needed");
    }

    #[tokio::test]
    async fn copies_of_what_is_gone_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let (repository, faulty) = memory_repository().await;
        let repository = repository.cached_in(folder.path());
        for number in 0..200 {
            repository.put_manifest(&manifest(number)).await.unwrap();
        }
        repository.manifests(&target()).await.unwrap();
        for number in 0..190 {
            faulty
                .delete(&keys::manifest_key(&target(), &id(number)))
                .await
                .unwrap();
        }
        let path = folder
            .path()
            .join(repository.id())
            .join("targets/shop/manifests.jsonl");
        let before = path.metadata().unwrap().len();
        assert_eq!(repository.manifests(&target()).await.unwrap().readable.len(), 10);
        assert!(path.metadata().unwrap().len() < before / 10);
    }
}
