//! The id of a backup: the source's clock at the snapshot in UTC, and a random suffix.
//!
//! The text form sorts by recovery point, so that one sorted listing shows the newest backup last.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

const TIME_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// A backup's id, such as `20261122T031500Z-7f3a`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

/// Why a text is no backup id.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\" is no backup id: they look like 20261122T031500Z-7f3a; `ernstfall list backups` shows them")]
pub struct InvalidBackupId(String);

impl BackupId {
    /// The id of a backup whose snapshot was taken `at`; `random` tells it from another one of the same second.
    pub fn new(at: DateTime<Utc>, random: u16) -> Self {
        Self(format!("{}-{random:04x}", at.format(TIME_FORMAT)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part that tells the time. Which of two backups of one second is newer, their ids do not tell.
    pub fn second(&self) -> &str {
        self.0.split('-').next().unwrap_or_default()
    }

    /// The second of the snapshot, by the source's clock.
    pub fn time(&self) -> Option<DateTime<Utc>> {
        let time = NaiveDateTime::parse_from_str(self.second(), TIME_FORMAT).ok()?;
        Some(time.and_utc())
    }
}

impl FromStr for BackupId {
    type Err = InvalidBackupId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidBackupId(text.escape_debug().to_string());
        let (time, suffix) = text.split_once('-').ok_or_else(invalid)?;
        let hexadecimal = suffix.len() == 4
            && suffix
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        // The parser of times is lenient about signs and white space; an id becomes part of a path, so we are not.
        let shaped = time.len() == 16
            && time.bytes().enumerate().all(|(index, byte)| match index {
                8 => byte == b'T',
                15 => byte == b'Z',
                _ => byte.is_ascii_digit(),
            });
        let time_is_valid = shaped && NaiveDateTime::parse_from_str(time, TIME_FORMAT).is_ok();
        if hexadecimal && time_is_valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(invalid())
        }
    }
}

impl TryFrom<String> for BackupId {
    type Error = InvalidBackupId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> Self {
        id.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_anything_else_is_refused() {
        let at = "2026-11-22T03:15:00Z".parse().unwrap();
        let id = BackupId::new(at, 0x7f3a);
        assert_eq!(id.as_str(), "20261122T031500Z-7f3a");
        assert_eq!(id.as_str().parse::<BackupId>().unwrap(), id);
        for bad in [
            "",
            "20261122T031500Z",
            "20261122T031500Z-7F3A",
            "../../x-0000",
            "20269922T031500Z-7f3a",
            "20261122T0315 0Z-7f3a",
            "+0261122T031500Z-7f3a",
        ] {
            assert!(bad.parse::<BackupId>().is_err(), "{bad:?}");
        }
    }
}
