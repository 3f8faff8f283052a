//! Clocks of several machines, and what is known of how they differ.

use chrono::{DateTime, TimeDelta, Utc};

/// Clocks differ a little: what is later than now by more than this was dated by a wrong one, or ours is wrong.
pub const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// A century: more is no clock, and no date that can be counted with.
const MOST_SECONDS: f64 = 100.0 * 365.0 * 86_400.0;

/// Our clock, moved to the source's as far as the skew is known.
pub fn source_clock(now: DateTime<Utc>, clock_skew_seconds: Option<f64>) -> DateTime<Utc> {
    let skew = clock_skew_seconds.filter(|skew| skew.abs() <= MOST_SECONDS);
    let skew = TimeDelta::milliseconds((skew.unwrap_or(0.0) * 1000.0).round() as i64);
    // What a repository holds may be of any year.
    now.checked_add_signed(skew).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples::time;

    #[test]
    fn a_skew_moves_the_clock_unless_no_clock_could_have_it() {
        assert_eq!(
            source_clock(time(0), Some(-1.5)),
            time(0) - TimeDelta::milliseconds(1500)
        );
        for no_skew in [None, Some(f64::MAX), Some(f64::MIN), Some(MOST_SECONDS + 1.0)] {
            assert_eq!(source_clock(time(0), no_skew), time(0), "{no_skew:?}");
        }
        let last = DateTime::<Utc>::MAX_UTC;
        assert_eq!(source_clock(last, Some(1.0)), last);
    }
}
