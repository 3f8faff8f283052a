//! No more than so many bytes a second from one source, over all connections of a backup.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::byte_size::ByteRate;

/// Shorter pauses are saved up: a timer has no finer grain than a millisecond.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// Shared by whoever reads from the source.
pub(super) struct Pace {
    rate: Option<ByteRate>,
    /// When all that was read so far would have come at exactly the rate.
    even_at: Mutex<Instant>,
}

impl Pace {
    /// Without a rate, as fast as it goes.
    pub(super) fn new(rate: Option<ByteRate>) -> Self {
        Self {
            rate,
            even_at: Mutex::new(Instant::now()),
        }
    }

    /// Counts what was read. The reader is to pause until the moment that comes back, if one does.
    pub(super) fn note(&self, bytes: u64) -> Option<Instant> {
        let rate = self.rate?.as_bytes_per_second().max(1);
        let now = Instant::now();
        let mut even_at = self.even_at.lock().unwrap_or_else(PoisonError::into_inner);
        // What a slow time left unused is not made up for by a burst.
        *even_at = (*even_at).max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        (*even_at > now + SHORTEST_PAUSE).then_some(*even_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(pace: &Pace, pieces: u64, bytes: u64) {
        for _ in 0..pieces {
            if let Some(until) = pace.note(bytes) {
                tokio::time::sleep_until(until).await;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn readers_share_the_rate_and_time_that_was_not_used_is_lost() {
        let began = Instant::now();
        let pace = Pace::new(Some(ByteRate::from_bytes_per_second(1_000_000)));
        tokio::join!(
            read(&pace, 1000, 1000),
            read(&pace, 3, 500_000),
            read(&pace, 0, 0)
        );
        let took = began.elapsed().as_secs_f64();
        assert!((2.48..2.52).contains(&took), "{took}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        read(&pace, 4, 500_000).await;
        let took = began.elapsed().as_secs_f64();
        assert!((1.98..2.02).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nobody_waits() {
        assert_eq!(Pace::new(None).note(u64::MAX), None);
    }
}
