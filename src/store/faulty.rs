//! A store that fails on demand, around one that works: how the tests break promises.
//!
//! Public, because tests of the whole program use it too. Nothing in the program itself makes one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::error::{Error, ErrorKind, Operation};
use crate::store::key::Key;
use crate::store::{Freed, Listed, Store, Wanted};

/// Passes every call on, but for those it was told to spoil.
pub struct Faulty {
    inner: Arc<dyn Store>,
    state: Mutex<State>,
}

/// What a spoiled read does to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The last byte is missing.
    Truncate,
    /// The lowest bit of the middle byte is turned.
    Flip,
}

#[derive(Default)]
struct State {
    calls: BTreeMap<Operation, u64>,
    failures: Vec<(Operation, u64, ErrorKind)>,
    damages: Vec<(String, Damage)>,
}

impl Faulty {
    /// Around this store; fails nothing until told to.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            state: Mutex::default(),
        }
    }

    /// Makes the nth call of the operation from now fail; 1 is the next one. The call does not reach the store.
    pub fn fail_nth(&self, operation: Operation, nth: u64, kind: ErrorKind) {
        let mut state = self.state();
        let call = state.calls.get(&operation).copied().unwrap_or(0) + nth;
        state.failures.push((operation, call, kind));
    }

    /// Spoils every read of keys that end so, from now on. What is stored stays whole.
    pub fn damage_reads(&self, key_ending: &str, damage: Damage) {
        self.state().damages.push((key_ending.to_owned(), damage));
    }

    /// How often an operation was called.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.state().calls.get(&operation).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, operation: Operation, key: Option<&Key>) -> Result<(), Error> {
        let mut state = self.state();
        let calls = state.calls.entry(operation).or_default();
        *calls += 1;
        let call = *calls;
        let planned = state
            .failures
            .iter()
            .find(|failure| failure.0 == operation && failure.1 == call);
        match planned {
            Some((_, _, kind)) => {
                Err(Error::new(operation, key, self.describe(), *kind).with_hint("made to fail"))
            }
            None => Ok(()),
        }
    }

    fn damage_to(&self, key: &Key) -> Option<Damage> {
        let state = self.state();
        let mut damages = state.damages.iter();
        damages
            .find(|(ending, _)| key.as_str().ends_with(ending.as_str()))
            .map(|(_, damage)| *damage)
    }
}

impl Damage {
    fn apply(self, bytes: Bytes) -> Bytes {
        match self {
            Self::Truncate => bytes.slice(..bytes.len().saturating_sub(1)),
            Self::Flip => {
                let mut changed = bytes.to_vec();
                let middle = changed.len() / 2;
                if let Some(byte) = changed.get_mut(middle) {
                    *byte ^= 1;
                }
                Bytes::from(changed)
            }
        }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn put_new(&self, key: &Key, bytes: Bytes) -> Result<(), Error> {
        self.count(Operation::Put, Some(key))?;
        self.inner.put_new(key, bytes).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, Error> {
        self.count(Operation::Get, Some(key))?;
        let bytes = self.inner.get(key).await?;
        Ok(match self.damage_to(key) {
            Some(damage) => damage.apply(bytes),
            None => bytes,
        })
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, Error> {
        self.count(Operation::List, None)?;
        self.inner.list(folder).await
    }

    async fn list_only(&self, folder: &str, wanted: Wanted) -> Result<Vec<Listed>, Error> {
        self.count(Operation::List, None)?;
        self.inner.list_only(folder, wanted).await
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>, Error> {
        self.count(Operation::List, None)?;
        self.inner.folders(folder).await
    }

    async fn delete(&self, key: &Key) -> Result<Freed, Error> {
        self.count(Operation::Delete, Some(key))?;
        self.inner.delete(key).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    #[tokio::test]
    async fn the_call_named_fails_and_no_other() {
        let store = Faulty::new(Arc::new(Memory::new()));
        store.fail_nth(Operation::Put, 2, ErrorKind::NoSpace);
        let keys: Vec<Key> = ["a", "b", "c"]
            .iter()
            .map(|text| Key::new(*text).unwrap())
            .collect();
        store.put_new(&keys[0], Bytes::from("x")).await.unwrap();
        let error = store.put_new(&keys[1], Bytes::from("x")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSpace);
        store.put_new(&keys[2], Bytes::from("x")).await.unwrap();
        assert!(store.get(&keys[1]).await.unwrap_err().is_not_found());
    }

    #[tokio::test]
    async fn reads_are_spoiled_and_the_store_is_not() {
        let inner = Arc::new(Memory::new());
        let key = Key::new("a/b").unwrap();
        inner.put_new(&key, Bytes::from("xyz")).await.unwrap();
        let store = Faulty::new(inner.clone());
        store.damage_reads("b", Damage::Flip);
        assert_eq!(store.get(&key).await.unwrap(), "xxz");
        assert_eq!(inner.get(&key).await.unwrap(), "xyz");
        assert_eq!(Damage::Truncate.apply(Bytes::from("xyz")), "xy");
    }
}
