//! The clock of a source, as far as it is known how it differs from ours.

use chrono::{DateTime, TimeDelta, Utc};

/// A century: more is no clock, and no date that can be counted with.
const MOST_SECONDS: f64 = 100.0 * 365.0 * 86_400.0;

/// Our clock, moved to the source's as far as the skew is known.
pub fn source_clock(now: DateTime<Utc>, clock_skew_seconds: Option<f64>) -> DateTime<Utc> {
    let skew = clock_skew_seconds.filter(|skew| skew.abs() <= MOST_SECONDS);
    now + TimeDelta::milliseconds((skew.unwrap_or(0.0) * 1000.0).round() as i64)
}
