//! The clock of a source, as far as it is known how it differs from ours.

use chrono::{DateTime, TimeDelta, Utc};

/// Our clock, moved to the source's as far as the skew is known, and is one.
pub fn source_clock(now: DateTime<Utc>, clock_skew_seconds: Option<f64>) -> DateTime<Utc> {
    let milliseconds = clock_skew_seconds.map(|skew| (skew * 1000.0).round() as i64);
    let skew = milliseconds.and_then(TimeDelta::try_milliseconds);
    skew.and_then(|skew| now.checked_add_signed(skew)).unwrap_or(now)
}
