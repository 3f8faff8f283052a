//! Objects in memory: for tests, and gone with the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use crate::store::error::{Error, ErrorKind, Operation};
use crate::store::key::Key;
use crate::store::{Freed, Listed, Store};

/// A store that forgets.
#[derive(Debug, Default)]
pub struct Memory {
    objects: Mutex<BTreeMap<Key, (Bytes, DateTime<Utc>)>>,
}

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, (Bytes, DateTime<Utc>)>> {
        // The map is whole after every statement, so a panic elsewhere cannot have broken it.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, operation: Operation, key: &Key, kind: ErrorKind) -> Error {
        Error::new(operation, Some(key), self.describe(), kind)
    }
}

#[async_trait]
impl Store for Memory {
    async fn put_new(&self, key: &Key, bytes: Bytes) -> Result<(), Error> {
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Err(self.error(Operation::Put, key, ErrorKind::AlreadyExists));
        }
        objects.insert(key.clone(), (bytes, Utc::now()));
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<Bytes, Error> {
        match self.objects().get(key) {
            Some((bytes, _)) => Ok(bytes.clone()),
            None => Err(self.error(Operation::Get, key, ErrorKind::NotFound)),
        }
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, Error> {
        let objects = self.objects();
        let inside = objects.iter().filter(|(key, _)| key.is_in(folder));
        Ok(inside
            .map(|(key, (bytes, modified))| Listed {
                key: key.clone(),
                size_bytes: bytes.len() as u64,
                modified: *modified,
            })
            .collect())
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>, Error> {
        let objects = self.objects();
        let inside = objects.keys().filter(|key| key.is_in(folder));
        let names = inside.filter_map(|key| {
            let below = key.as_str()[folder.len()..].trim_start_matches('/');
            Some(below.split_once('/')?.0.to_owned())
        });
        let names: BTreeSet<String> = names.collect();
        Ok(names.into_iter().collect())
    }

    async fn delete(&self, key: &Key) -> Result<Freed, Error> {
        let removed = self.objects().remove(key);
        Ok(Freed {
            bytes: removed.map_or(0, |(bytes, _)| bytes.len() as u64),
            kept: None,
        })
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
