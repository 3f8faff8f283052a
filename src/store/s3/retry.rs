//! How often and how long a request is tried.

use std::future::Future;
use std::time::Duration;

use super::failure::Failure;

/// With the waits below, a server that is out of reach is given up after some seconds.
const ATTEMPTS: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// What a request may take beside its body.
const BASE_TIME: Duration = Duration::from_secs(60);
/// Slower than this, a body of some megabytes is better sent anew.
const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 10;
/// Of a body whose length is not known before; each of its pieces has a limit of its own.
pub(super) const WHOLE_BODY_TIME: Duration = Duration::from_secs(3600);

/// How long one attempt may take that sends so many bytes.
pub(super) fn time_for(bytes: u64) -> Duration {
    BASE_TIME + Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND)
}

/// Tries again what failed for reasons that pass, with growing waits; `limit` is for each attempt.
pub(super) async fn retrying<T, F>(limit: Duration, call: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    retrying_after(FIRST_WAIT, limit, call).await
}

async fn retrying_after<T, F>(
    first_wait: Duration,
    limit: Duration,
    call: impl Fn() -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut attempt = 1;
    loop {
        let result = tokio::time::timeout(limit, call()).await;
        let failure = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::transient(format!("it took longer than {} s", limit.as_secs())),
        };
        if !failure.is_transient() || attempt == ATTEMPTS {
            return Err(failure.after(attempt));
        }
        tracing::info!("attempt {attempt} failed, trying again: {}", failure.reason);
        tokio::time::sleep(wait_after(attempt, first_wait)).await;
        attempt += 1;
    }
}

/// Doubles from one attempt to the next; up to a half is cut off by chance, so that many clients do not come as one.
fn wait_after(attempt: u32, first_wait: Duration) -> Duration {
    let mut random = [0];
    // Without randomness the waits are whole, which does no harm.
    let _ = getrandom::fill(&mut random);
    let share = 1.0 - f64::from(random[0]) / 512.0;
    first_wait.saturating_mul(1 << (attempt - 1)).mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::ErrorKind;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn what_passes_is_tried_again_and_given_up_in_the_end() {
        let calls = AtomicU32::new(0);
        let failing_until = |good: u32| {
            let calls = &calls;
            calls.store(0, Ordering::Relaxed);
            retrying_after(
                Duration::from_millis(1),
                Duration::from_secs(60),
                move || async move {
                    match calls.fetch_add(1, Ordering::Relaxed) + 1 {
                        call if call >= good => Ok(call),
                        _ => Err(Failure::transient("slow down")),
                    }
                },
            )
        };
        assert_eq!(failing_until(3).await.unwrap(), 3);
        let given_up = failing_until(100).await.unwrap_err();
        assert_eq!(calls.load(Ordering::Relaxed), ATTEMPTS);
        assert!(given_up.reason.contains("6 attempts"), "{}", given_up.reason);
    }

    #[tokio::test]
    async fn what_does_not_pass_is_tried_once_and_what_hangs_is_cut_off() {
        let calls = AtomicU32::new(0);
        let denied = retrying(Duration::from_secs(1), || async {
            calls.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(Failure::of_kind(ErrorKind::PermissionDenied, "no"))
        });
        assert!(denied.await.is_err());
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        let (wait, limit) = (Duration::from_millis(1), Duration::from_millis(10));
        let hanging = retrying_after(wait, limit, std::future::pending::<Result<(), Failure>>);
        let message = hanging.await.unwrap_err().reason;
        assert!(message.contains("took longer than"), "{message}");
    }

    #[test]
    fn larger_bodies_have_more_time_and_waits_grow() {
        assert_eq!(time_for(0), BASE_TIME);
        assert_eq!(time_for(64 << 20), BASE_TIME + Duration::from_secs(1024));
        for attempt in 1..ATTEMPTS {
            let longest = FIRST_WAIT * (1 << (attempt - 1));
            let wait = wait_after(attempt, FIRST_WAIT);
            assert!(wait <= longest && wait >= longest / 2, "{attempt}: {wait:?}");
        }
    }
}
