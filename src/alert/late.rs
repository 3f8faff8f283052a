//! What a channel needs and can only be had at some cost, such as its secrets: fetched when it is first used.

use std::sync::Arc;

use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;

use super::channel::Failure;

/// Fetched once. A failure is not kept: what was out of reach a moment ago may be there for the next message.
pub struct Late<T> {
    fetch: Arc<dyn Fn() -> Result<T, Failure> + Send + Sync>,
    fetched: OnceCell<T>,
    /// Outlives a delivery that was cut off, so that a password manager slower than one delivery still gets to its end.
    under_way: Mutex<Option<JoinHandle<Result<T, Failure>>>>,
}

impl<T: Send + 'static> Late<T> {
    /// `fetch` may block: it runs where it holds up nothing else.
    pub fn new(fetch: impl Fn() -> Result<T, Failure> + Send + Sync + 'static) -> Self {
        Self {
            fetch: Arc::new(fetch),
            fetched: OnceCell::new(),
            under_way: Mutex::new(None),
        }
    }

    /// Takes as long as fetching does, at the first time.
    ///
    /// # Errors
    /// It cannot be had now.
    pub async fn get(&self) -> Result<&T, Failure> {
        self.fetched.get_or_try_init(|| self.wait()).await
    }

    async fn wait(&self) -> Result<T, Failure> {
        let mut under_way = self.under_way.lock().await;
        let task = under_way.get_or_insert_with(|| {
            let fetch = Arc::clone(&self.fetch);
            tokio::task::spawn_blocking(move || fetch())
        });
        let fetched = task.await;
        *under_way = None;
        // It panicked, or the daemon stops.
        fetched.map_err(|error| Failure::may_pass(error.to_string()))?
    }
}
