//! Durations as people write them: "90s", "30m", "1h30m", "7d".

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const SECONDS_PER_DAY: u64 = 86_400;

/// Ten thousand days: far beyond any sensible setting, far below where date arithmetic overflows.
const MAX_SECONDS: u64 = 10_000 * SECONDS_PER_DAY;

/// A duration that is read and shown with units. Zero is a value; who cannot use zero calls [`HumanDuration::is_zero`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HumanDuration(Duration);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HumanDurationError {
    #[error(
        "{0:?} is not a duration: write numbers with units, such as \"90s\", \"30m\", \"1h30m\" or \"7d\""
    )]
    NotADuration(String),
    #[error("{0:?} is too long: the longest duration is 10000 days")]
    TooLong(String),
}

impl HumanDuration {
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn as_duration(self) -> Duration {
        self.0
    }

    pub fn as_seconds(self) -> f64 {
        self.0.as_secs_f64()
    }

    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for HumanDuration {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<HumanDuration> for Duration {
    fn from(duration: HumanDuration) -> Self {
        duration.0
    }
}

impl FromStr for HumanDuration {
    type Err = HumanDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let duration = humantime::parse_duration(text.trim())
            .map_err(|_| HumanDurationError::NotADuration(text.to_owned()))?;
        if duration.as_secs() > MAX_SECONDS {
            return Err(HumanDurationError::TooLong(text.to_owned()));
        }
        Ok(Self(duration))
    }
}

impl TryFrom<String> for HumanDuration {
    type Error = HumanDurationError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HumanDuration> for String {
    fn from(duration: HumanDuration) -> Self {
        duration.to_string()
    }
}

impl fmt::Display for HumanDuration {
    /// Exact and compact: what is shown can be read back as the same duration.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let nanoseconds = u64::from(self.0.subsec_nanos());
        let parts = [
            (seconds / SECONDS_PER_DAY, "d"),
            (seconds % SECONDS_PER_DAY / 3600, "h"),
            (seconds % 3600 / 60, "m"),
            (seconds % 60, "s"),
            (nanoseconds / 1_000_000, "ms"),
            (nanoseconds % 1_000_000 / 1000, "us"),
            (nanoseconds % 1000, "ns"),
        ];
        let mut text = String::new();
        for (count, unit) in parts {
            if count > 0 {
                text.push_str(&format!("{count}{unit}"));
            }
        }
        if text.is_empty() {
            text.push_str("0s");
        }
        formatter.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_shown_compactly() {
        for (written, shown) in [
            ("90s", "1m30s"),
            ("30m", "30m"),
            ("1h30m", "1h30m"),
            ("1h 30m", "1h30m"),
            ("7d", "7d"),
            ("1w", "7d"),
            ("250ms", "250ms"),
            ("0s", "0s"),
        ] {
            assert_eq!(written.parse::<HumanDuration>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in ["", "30", "h", "-5m", "5 parsecs", "20000d"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_as_the_same(seconds in 0..MAX_SECONDS, nanoseconds in 0u32..1_000_000_000) {
            let duration = HumanDuration(Duration::new(seconds, nanoseconds));
            prop_assert_eq!(duration.to_string().parse::<HumanDuration>().unwrap(), duration);
        }
    }
}
