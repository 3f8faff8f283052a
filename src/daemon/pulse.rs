//! Whether every loop still turns. The service manager is told so only while all do: a process that hangs is
//! restarted, and its runs are found and recorded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Each loop turns far more often than this, also while its job runs.
const SILENCE: Duration = Duration::from_secs(60);

/// The pulses of all loops.
#[derive(Clone, Debug, Default)]
pub struct Pulses(Arc<Mutex<Beats>>);

#[derive(Debug, Default)]
struct Beats {
    next: u64,
    last: HashMap<u64, (String, Instant)>,
}

/// One loop's pulse; a loop that has ended is not missed.
#[derive(Debug)]
pub struct Pulse {
    id: u64,
    pulses: Pulses,
}

impl Pulses {
    /// The pulse of a new loop.
    pub fn begin(&self, name: &str) -> Pulse {
        let mut beats = self.lock();
        beats.next += 1;
        let id = beats.next;
        beats.last.insert(id, (name.to_owned(), Instant::now()));
        Pulse {
            id,
            pulses: self.clone(),
        }
    }

    /// The loops that have not turned for too long.
    pub fn silent(&self) -> Vec<String> {
        let beats = self.lock();
        let silent = beats.last.values().filter(|(_, last)| last.elapsed() > SILENCE);
        silent.map(|(name, _)| name.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Beats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pulse {
    /// The loop has turned.
    pub fn beat(&self) {
        if let Some((_, last)) = self.pulses.lock().last.get_mut(&self.id) {
            *last = Instant::now();
        }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.pulses.lock().last.remove(&self.id);
    }
}
