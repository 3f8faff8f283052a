//! The repository: may we write there, read it back and remove it, and does it keep what we count on?

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::repository::{Error as RepositoryError, Repository};
use crate::store::durable::make_directories;
use crate::store::random::random_hexadecimal;
use crate::store::{Error, ErrorKind, Key, Store};

use super::machine::{private, space};
use super::{CheckLine, Lines};

const PROBE: &[u8] = b"a probe of `ernstfall check`; it may be removed";

/// Whether objects can be stored, read back and removed, and what repository this is. `directory`: where it is one.
pub async fn repository(
    store: Arc<dyn Store>,
    directory: Option<&Path>,
) -> (Vec<CheckLine>, Option<Repository>) {
    let mut lines = Lines::of("repository");
    let made = directory.filter(|directory| !directory.exists());
    // The first backup makes it; an object in a folder of it does not.
    let ready = made.map_or(Ok(()), make_directories);
    match ready {
        Ok(()) => probe(store.as_ref(), &mut lines).await,
        Err(error) => lines.failed(
            "access",
            format!("make the directory {}: {error}", store.describe()),
            "make it yourself, for this user, or correct `repository.url`",
        ),
    }
    if let Some(made) = made {
        // Only when it is empty, as it was.
        let _kept = std::fs::remove_dir(made);
    }
    let repository = contents(store, &mut lines).await;
    if let Some(directory) = directory.filter(|directory| directory.is_dir()) {
        private(directory, &mut lines);
        space(directory, &mut lines);
    }
    (lines.lines, repository)
}

async fn contents(store: Arc<dyn Store>, lines: &mut Lines) -> Option<Repository> {
    match Repository::open(store).await {
        Ok(repository) => {
            lines.ok("contents", format!("repository {} in format 1", repository.id()));
            return Some(repository);
        }
        Err(RepositoryError::NoRepository { .. }) => {
            lines.ok("contents", "empty: the first backup makes a repository here");
        }
        Err(RepositoryError::Store(error)) => refused(lines, "contents", &error),
        Err(error) => {
            let remedy = "choose an empty place for `repository.url`, or use the version that wrote this one";
            lines.failed("contents", crate::ops::chain(&error), remedy);
        }
    }
    None
}

/// Stores an object outside of `targets/` and `records/`, where nothing looks for backups or records; and tries on it
/// what backups, restore tests and prune do.
async fn probe(store: &dyn Store, lines: &mut Lines) {
    let key = random_hexadecimal::<8>().map(|name| Key::new(format!("check/{name}")));
    let Ok(Ok(key)) = key else {
        lines.failed(
            "access",
            "no random name for a probe object",
            "look at /dev/urandom",
        );
        return;
    };
    if let Err(error) = store.put_new(&key, Bytes::from_static(PROBE)).await {
        refused(lines, "access", &error);
        return;
    }
    read_back(store, &key, lines).await;
    replacing(store, &key, lines).await;
    removal(store, &key, lines).await;
}

async fn read_back(store: &dyn Store, key: &Key, lines: &mut Lines) {
    match store.get(key).await {
        Ok(bytes) if bytes == PROBE => {
            lines.ok(
                "access",
                format!("{}: stored a probe object and read it back", store.describe()),
            );
        }
        Ok(_) => lines.failed(
            "access",
            format!(
                "the probe object `{key}` in {} came back changed",
                store.describe()
            ),
            "look for what changes objects on the way: a proxy, or a fault of the storage",
        ),
        // Enough for backups: what is read here is written by others.
        Err(error) if error.kind == ErrorKind::PermissionDenied => lines.warning(
            "access",
            format!(
                "stored a probe object, and may not read it back: {}",
                crate::ops::chain(&error)
            ),
            "enough for backups; to restore or restore-test from here, set `repository.read`",
        ),
        Err(error) => refused(lines, "access", &error),
    }
}

/// A put must not replace: that is how two backups at the same moment are kept apart, and how a manifest is put once.
async fn replacing(store: &dyn Store, key: &Key, lines: &mut Lines) {
    let abilities = match store.abilities(key).await {
        Ok(abilities) => abilities,
        Err(error) => return refused(lines, "replacing", &error),
    };
    if abilities.conditional_puts {
        lines.ok("replacing", "an object that exists is not replaced");
    } else {
        lines.warning(
            "replacing",
            "the server does not honour conditional puts (If-None-Match): a put is a look whether the object is there, and then a put",
            "let only one host back up each target, so that no two write the same object at the same moment",
        );
    }
    match abilities.keeps_versions {
        Some(true) => lines.ok(
            "versions",
            "the bucket keeps old versions: what is removed is removed with all its versions",
        ),
        Some(false) => {}
        None => lines.ok(
            "versions",
            "these credentials may not ask whether the bucket keeps old versions (s3:GetBucketVersioning)",
        ),
    }
}

async fn removal(store: &dyn Store, key: &Key, lines: &mut Lines) {
    match store.delete(key).await {
        Ok(freed) => match freed.kept {
            None => lines.ok("removal", "the probe object is removed, and its space is free"),
            Some(kept) => lines.warning(
                "removal",
                format!("what is removed still takes space: {kept}"),
                "let the host that prunes list and remove versions (s3:ListBucketVersions, s3:DeleteObjectVersion), or have a lifecycle rule remove old versions; locked ones go when their lock ends",
            ),
        },
        Err(error) if error.kind == ErrorKind::PermissionDenied => lines.warning(
            "removal",
            format!("`{key}` stays: {}", crate::ops::chain(&error)),
            "enough for backups; `ernstfall prune` frees space only from a host whose credentials may delete",
        ),
        Err(error) => refused(lines, "removal", &error),
    }
}

fn refused(lines: &mut Lines, subject: &str, error: &Error) {
    let remedy = "give the user that runs ernstfall the right to write there, or correct `repository.url`";
    let remedy = error.hint.clone().unwrap_or_else(|| remedy.to_owned());
    lines.failed(subject, crate::ops::chain(error), remedy);
}
