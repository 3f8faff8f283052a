//! The name of a stored object: a relative path that cannot leave the place where objects live.

use std::fmt;

/// What every backend can hold: S3 allows 1024 bytes.
const LONGEST_KEY_BYTES: usize = 1024;
/// What every file system can hold as one name.
const LONGEST_SEGMENT_BYTES: usize = 255;

/// An object's key: segments joined by `/`, none of them empty or beginning with a dot.
///
/// The leading dot is refused so that no key can name `..` or a backend's own hidden files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// Why a text is no key.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{text}\" is no object key: {reason}; nothing of the repository is named so, it may be damaged or forged"
)]
pub struct InvalidKey {
    text: String,
    reason: &'static str,
}

impl Key {
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        match fault(&text) {
            None => Ok(Self(text)),
            Some(reason) => Err(InvalidKey {
                text: text.escape_debug().to_string(),
                reason,
            }),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the object lies in the folder; the empty folder holds everything.
    pub fn is_in(&self, folder: &str) -> bool {
        folder.is_empty()
            || self
                .0
                .strip_prefix(folder)
                .is_some_and(|rest| rest.starts_with('/'))
    }
}

fn fault(text: &str) -> Option<&'static str> {
    if text.len() > LONGEST_KEY_BYTES {
        return Some("it is too long");
    }
    if text.chars().any(char::is_control) {
        return Some("it has a control character");
    }
    if text.contains('\\') {
        return Some("it has a backslash");
    }
    for segment in text.split('/') {
        if segment.is_empty() {
            return Some("it has an empty segment");
        }
        if segment.starts_with('.') {
            return Some("a segment begins with a dot");
        }
        if segment.len() > LONGEST_SEGMENT_BYTES {
            return Some("a segment is too long");
        }
    }
    None
}

impl fmt::Display for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_leave_the_repository_are_refused() {
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            ".tmp/a",
            "a\\b",
            "a\nb",
            "a\0b",
            "a/\u{7f}",
            &"a".repeat(256),
            &"a/".repeat(600),
        ] {
            assert!(Key::new(bad).is_err(), "{bad:?}");
        }
        for good in [
            "a",
            "ernstfall.json",
            "targets/shop/backups/x/data/7.sql.zst",
            "a/b..c",
            "ä",
        ] {
            assert_eq!(Key::new(good).unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_folder_holds_what_is_below_it_and_not_what_begins_alike() {
        let key = Key::new("targets/shop/target.json").unwrap();
        assert!(key.is_in("") && key.is_in("targets") && key.is_in("targets/shop"));
        assert!(!key.is_in("targets/sho") && !key.is_in("targets/shop/target.json"));
    }
}
