//! Sizes and rates as people write them: "8MiB", "100MB", "100MB/s".
//!
//! `MB` is a million bytes, `MiB` is 1024 × 1024: the two are never mixed up in silence.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Largest first, so that what is shown uses the largest unit that is exact.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("B", 1),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

/// So many bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteRate(ByteSize);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ByteSizeError {
    #[error("{0:?} is not a size: write a number and a unit, such as \"8MiB\" or \"100MB\"")]
    NotASize(String),
    #[error("{0:?} is not a rate: write a size for each second, such as \"100MB/s\"")]
    NotARate(String),
}

impl ByteSize {
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

impl ByteRate {
    pub const fn from_bytes_per_second(bytes: u64) -> Self {
        Self(ByteSize(bytes))
    }

    pub const fn as_bytes_per_second(self) -> u64 {
        self.0.0
    }
}

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || ByteSizeError::NotASize(text.to_owned());
        let trimmed = text.trim();
        let end_of_number = trimmed
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end_of_number);
        let unit = unit.trim();
        let bytes_per_unit = UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .map(|(_, bytes)| *bytes)
            .ok_or_else(fault)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        // Twelve places keep the arithmetic below inside u128, and are finer than a byte of a terabyte.
        if whole.is_empty() || fraction.len() > 12 || number.ends_with('.') {
            return Err(fault());
        }
        let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| fault())?);
        let scaled: u128 = format!("{whole}{fraction}").parse().map_err(|_| fault())?;
        let bytes = scaled.checked_mul(u128::from(bytes_per_unit)).ok_or_else(fault)? / scale;
        u64::try_from(bytes).map(Self).map_err(|_| fault())
    }
}

impl FromStr for ByteRate {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || ByteSizeError::NotARate(text.to_owned());
        let size = text.trim().strip_suffix("/s").ok_or_else(fault)?;
        size.parse().map(Self).map_err(|_| fault())
    }
}

impl TryFrom<String> for ByteSize {
    type Error = ByteSizeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl TryFrom<String> for ByteRate {
    type Error = ByteSizeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

impl From<ByteRate> for String {
    fn from(rate: ByteRate) -> Self {
        rate.to_string()
    }
}

impl fmt::Display for ByteSize {
    /// Exact: the largest unit of which the size is a whole number.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS
            .iter()
            .find(|(_, bytes)| self.0 >= *bytes && self.0.is_multiple_of(*bytes));
        let (unit, bytes) = exact.copied().unwrap_or(("B", 1));
        formatter.pad(&format!("{}{unit}", self.0 / bytes))
    }
}

impl fmt::Display for ByteRate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&format!("{}/s", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decimal_and_binary_units_differ() {
        assert_eq!("100MB".parse::<ByteSize>().unwrap().as_bytes(), 100_000_000);
        assert_eq!("8MiB".parse::<ByteSize>().unwrap().as_bytes(), 8 << 20);
        assert_eq!("1.5 kB".parse::<ByteSize>().unwrap().as_bytes(), 1500);
        assert_eq!(
            "100MB/s".parse::<ByteRate>().unwrap().as_bytes_per_second(),
            100_000_000
        );
        assert_eq!("100MB/s".parse::<ByteRate>().unwrap().to_string(), "100MB/s");
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in [
            "",
            "100",
            "MB",
            "1.MB",
            "-1MB",
            "1..5MB",
            "99999999999TB",
            "1MB/s",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text:?} was taken");
        }
        assert!("100MB".parse::<ByteRate>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_as_the_same(bytes in any::<u64>()) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse::<ByteSize>().unwrap(), ByteSize(bytes));
        }
    }
}
