//! Where objects live: whole objects under keys, added once and never changed.
//!
//! A store knows nothing of backups. It asks of a backend only what a directory and a bucket both give.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

pub mod key;
pub mod error;
pub mod directory;
pub mod memory;
pub mod faulty;
pub(crate) mod durable;
pub(crate) mod random;
#[cfg(test)]
mod contract_tests;

pub use error::{Error, ErrorKind, Operation};
pub use key::{InvalidKey, Key};

/// A place for objects. `contract_tests` says what each backend must do.
#[async_trait]
pub trait Store: Send + Sync {
    /// Creates an object: whole and durable, or not at all. What exists is never replaced, not even by equal bytes.
    ///
    /// A caller that stops waiting does not stop the write: the object may appear a little later.
    async fn put_new(&self, key: &Key, bytes: Bytes) -> Result<(), Error>;

    async fn get(&self, key: &Key) -> Result<Bytes, Error>;

    /// Every object in the folder and below, sorted by key; the empty folder means all. No such folder: nothing.
    async fn list(&self, folder: &str) -> Result<Vec<Listed>, Error>;

    /// Removes an object, with all its versions where the store keeps some; one that is not there is removed already.
    async fn delete(&self, key: &Key) -> Result<Freed, Error>;

    /// Where this is, for messages; never with a secret.
    fn describe(&self) -> String;
}

/// An object that a listing found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub key: Key,
    pub size_bytes: u64,
    pub modified: DateTime<Utc>,
}

/// What removing an object gave back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Space that is free now; an object that was not there frees none.
    pub bytes: u64,
    /// Why the object's space stays taken although it is gone from every listing: versions that may not be removed.
    pub kept: Option<String>,
}

/// Opens the store that a URL names: `file:///path`, or a plain absolute path. Nothing is created yet.
pub fn open(url: &str) -> Result<Arc<dyn Store>, Error> {
    Ok(Arc::new(directory::Directory::new(directory_of(url)?)))
}

fn directory_of(url: &str) -> Result<PathBuf, Error> {
    // Only the scheme is shown: what follows may hold a secret.
    let refuse = |shown: &str, hint: &str| {
        Err(Error::new(
            Operation::Open,
            None,
            format!("repository `{shown}`"),
            ErrorKind::Other,
        )
        .with_hint(hint))
    };
    if url.starts_with('/') && !url.contains('\0') {
        return Ok(PathBuf::from(url));
    }
    let Some((scheme, rest)) = url.split_once("://") else {
        return refuse(
            &url.escape_debug().to_string(),
            "give an absolute path, or a URL such as file:///var/lib/ernstfall/repository",
        );
    };
    match scheme {
        "file" => {}
        "s3" => {
            return refuse(
                "s3://…",
                "S3 repositories are not supported by this version; use a directory: file:///path",
            );
        }
        other => {
            let shown = format!("{}://…", other.escape_debug());
            return refuse(&shown, "only directories are supported: use file:///path");
        }
    }
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    match percent_decoded(path) {
        Some(path) if path.starts_with('/') && !path.contains('\0') => Ok(PathBuf::from(path)),
        _ => refuse(
            "file://…",
            "a file URL needs an absolute path and no host: file:///path, three slashes",
        ),
    }
}

/// The text with `%20` and the like resolved; `None` when that is no text.
fn percent_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            decoded.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_named_by_file_urls_and_absolute_paths() {
        for (url, path) in [
            ("/srv/backups", "/srv/backups"),
            ("file:///srv/backups", "/srv/backups"),
            ("file://localhost/srv", "/srv"),
            ("file:///srv/my%20backups", "/srv/my backups"),
        ] {
            assert_eq!(directory_of(url).unwrap(), PathBuf::from(path), "{url}");
        }
    }

    #[test]
    fn what_is_no_directory_is_refused_with_advice_and_without_its_secrets() {
        for url in [
            "s3://key:hunter2@bucket/x",
            "https://u:hunter2@host/x",
            "file://hunter2/x",
            "file://%2",
            "file://%zz",
            "file:///%00",
        ] {
            let message = directory_of(url).unwrap_err().to_string();
            assert!(message.contains("file:///"), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
        assert!(
            directory_of("backups")
                .unwrap_err()
                .to_string()
                .contains("absolute path")
        );
        assert!(
            directory_of("s3://b")
                .unwrap_err()
                .to_string()
                .contains("not supported by this version")
        );
    }
}
