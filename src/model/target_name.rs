//! The name of a target, parsed once.
//!
//! It becomes part of object keys, lock names, labels and paths, so nothing that needs escaping is let in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Room for a name in a PostgreSQL identifier (63 bytes) and in every file system.
const MAX_LENGTH: usize = 63;

/// Lower-case letters, digits, `-` and `_`; begins with a letter or digit; 1 to 63 long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetName(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be a target's name: use 1 to 63 lower-case letters, digits, `-` and `_`, and begin with a letter or digit"
)]
pub struct TargetNameError(String);

impl TargetName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TargetName {
    type Err = TargetNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let mut bytes = text.bytes();
        let well_begun = bytes.next().is_some_and(plain);
        let well_continued = bytes.all(|byte| plain(byte) || byte == b'-' || byte == b'_');
        if well_begun && well_continued && text.len() <= MAX_LENGTH {
            Ok(Self(text.to_owned()))
        } else {
            Err(TargetNameError(text.to_owned()))
        }
    }
}

impl TryFrom<String> for TargetName {
    type Error = TargetNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TargetName> for String {
    fn from(name: TargetName) -> Self {
        name.0
    }
}

impl AsRef<str> for TargetName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_taken_as_they_are() {
        for text in ["shop", "shop-2", "2nd_shop", "a", &"x".repeat(63)] {
            assert_eq!(text.parse::<TargetName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn names_that_would_need_escaping_are_refused() {
        for text in [
            "",
            "Shop",
            "-shop",
            "_shop",
            "sh/op",
            "..",
            "shöp",
            "a b",
            &"x".repeat(64),
        ] {
            assert!(text.parse::<TargetName>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn serde_checks_names_too() {
        let name: TargetName = serde_json::from_str("\"shop\"").unwrap();
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"shop\"");
        assert!(serde_json::from_str::<TargetName>("\"../shop\"").is_err());
    }
}
