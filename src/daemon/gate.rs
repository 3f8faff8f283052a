//! How many runs of a kind may go on at once. Whoever waits gets in in the order of asking.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Cloned handles are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    permits: Arc<Semaphore>,
    limit: Arc<Mutex<u32>>,
}

/// One run's place; given back when dropped.
#[derive(Debug)]
pub struct Pass {
    _permit: OwnedSemaphorePermit,
}

impl Gate {
    pub fn new(limit: u32) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limit as usize)),
            limit: Arc::new(Mutex::new(limit)),
        }
    }

    /// Waits for a place. Each loop asks for one at a time, so that the queue is as long as there are loops.
    pub async fn enter(&self) -> Pass {
        match Arc::clone(&self.permits).acquire_owned().await {
            Ok(permit) => Pass { _permit: permit },
            // The semaphore is never closed.
            Err(_closed) => std::future::pending().await,
        }
    }

    /// Changes the limit. Runs under way go on; where fewer may go on than do, none begins until enough have ended.
    pub fn set_limit(&self, limit: u32) {
        let before = {
            let mut current = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, limit)
        };
        if let Some(more) = limit.checked_sub(before) {
            self.permits.add_permits(more as usize);
            return;
        }
        let fewer = before - limit;
        let permits = Arc::clone(&self.permits);
        tokio::spawn(async move {
            if let Ok(taken) = permits.acquire_many_owned(fewer).await {
                taken.forget();
            }
        });
    }
}
