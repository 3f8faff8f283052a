//! The name of a target, as it stands in configuration, object keys and metrics.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Long enough for any naming scheme, short enough for file systems and metric labels.
const LONGEST: usize = 63;

/// A target's name: lower-case letters, digits, `-` and `_`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetName(String);

/// Why a text is no target name.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is no target name: use 1 to {LONGEST} lower-case letters, digits, `-` and `_`, beginning with a letter or digit"
)]
pub struct InvalidTargetName(String);

impl TargetName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TargetName {
    type Err = InvalidTargetName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        let first = text
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if first && text.len() <= LONGEST && text.chars().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidTargetName(text.escape_debug().to_string()))
        }
    }
}

impl TryFrom<String> for TargetName {
    type Error = InvalidTargetName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TargetName> for String {
    fn from(name: TargetName) -> Self {
        name.0
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for TargetName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_repository_are_refused() {
        for bad in [
            "",
            "..",
            "../x",
            "a/b",
            "A",
            "-a",
            "a b",
            "a\n",
            "é",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<TargetName>().is_err(), "{bad:?}");
        }
        for good in ["a", "shop", "shop-2_eu", "0", &"a".repeat(63)] {
            assert_eq!(good.parse::<TargetName>().unwrap().as_str(), good);
        }
    }
}
