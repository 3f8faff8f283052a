//! The clock of a source, as far as it is known how it differs from ours.

use chrono::{DateTime, TimeDelta, Utc};

/// Our clock, moved to the source's as far as the skew is known.
pub fn source_clock(now: DateTime<Utc>, clock_skew_seconds: Option<f64>) -> DateTime<Utc> {
    let skew = clock_skew_seconds.unwrap_or(0.0) * 1000.0;
    now + TimeDelta::milliseconds(skew.round() as i64)
}
