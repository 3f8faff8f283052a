//! The description of one backup that is written last, in the clear and without any name of the content.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::backup_id::BackupId;
use crate::model::clocks::{CLOCK_TOLERANCE, source_clock};
use crate::model::target_name::TargetName;

/// The repository format that this version writes.
pub const FORMAT: u32 = 1;

/// One backup. It exists if and only if this is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    pub id: BackupId,
    pub target: TargetName,
    /// On the source's clock.
    pub started_at: DateTime<Utc>,
    /// On the source's clock, just before the manifest is stored.
    pub finished_at: DateTime<Utc>,
    /// From a monotonic clock.
    pub duration_seconds: f64,
    pub recovery_point: RecoveryPoint,
    /// The source's clock minus that of the machine that took the backup, when it began; `None` where nobody noted it.
    #[serde(default)]
    pub clock_skew_seconds: Option<f64>,
    /// The heartbeat of this target in the snapshot, as its row says; `None` where there is none.
    #[serde(default)]
    pub heartbeat: Option<DateTime<Utc>>,
    /// `pg_current_snapshot()` as text, so that a change log can join the backup exactly.
    pub snapshot: String,
    pub lsn: String,
    pub timeline: Option<u32>,
    /// `null` where the service does not let us read it.
    pub system_identifier: Option<String>,
    pub versions: Versions,
    pub contents: Object,
    pub schema: Object,
    /// For `pg_restore -L`: what of the schema is part of the backup. `None`: all of it.
    #[serde(default)]
    pub schema_list: Option<Object>,
    pub roles: Object,
    pub sequences: Object,
    pub recovery_guide: Object,
    pub data: Vec<Object>,
    pub large_objects: Vec<Object>,
    pub totals: Totals,
    /// Whether every table's rows were counted a second time by the server itself.
    pub source_counted: bool,
    /// Who can read the objects whose names end in `.age`; `None` where they are stored in the clear.
    #[serde(default)]
    pub encryption: Option<Encryption>,
    /// That much is gone which the backup before it held; `None` where that is not so, or not known.
    #[serde(default)]
    pub shrank: Option<Shrank>,
}

impl Manifest {
    /// What backups are ordered by, the newest last. Several have one recovery point where a standby stood still between
    /// them; the end of an id is random, and says nothing.
    pub fn order(&self) -> (DateTime<Utc>, DateTime<Utc>, &BackupId) {
        (self.recovery_point.at, self.started_at, &self.id)
    }

    /// A moment of the source's clock on that of the machine that took the backup, as far as it is known how they differed.
    pub fn on_our_clock(&self, moment: DateTime<Utc>) -> DateTime<Utc> {
        source_clock(moment, self.clock_skew_seconds.map(|skew| -skew))
    }

    /// The recovery point, on that clock, and not later than it is dated: it may have been that clock which was wrong. Of a
    /// copy it is by the clock of another server, which nobody measured.
    pub fn recovery_point_on_our_clock(&self) -> DateTime<Utc> {
        let dated = self.recovery_point.at;
        match self.recovery_point.basis {
            RecoveryPointBasis::Snapshot => self.on_our_clock(dated).min(dated),
            RecoveryPointBasis::Heartbeat | RecoveryPointBasis::Replay => dated,
        }
    }

    /// Whether it is of a time to come, also by what is known of the source's clock: of what time it is, nobody knows.
    pub fn is_of_unknown_time(&self, now: DateTime<Utc>) -> bool {
        self.recovery_point_on_our_clock() > now + CLOCK_TOLERANCE
    }

    /// Every object of the backup, the manifest itself excepted.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        [
            &self.contents,
            &self.schema,
            &self.roles,
            &self.sequences,
            &self.recovery_guide,
        ]
        .into_iter()
        .chain(&self.schema_list)
        .chain(&self.data)
        .chain(&self.large_objects)
    }
}

/// How a backup's objects are encrypted: with age, to each of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// Public keys: one of their identities is needed to restore.
    pub recipients: Vec<String>,
}

/// A sharp loss of content since the backup before. Which tables, the backup's record tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shrank {
    /// The backup that still holds what is gone here; it is kept until the loss is acknowledged.
    pub since: BackupId,
    pub tables_gone: u64,
    /// Tables that lost more than half of their rows.
    pub tables_halved: u64,
}

/// Up to when a backup holds the data, on the source's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryPoint {
    pub at: DateTime<Utc>,
    pub basis: RecoveryPointBasis,
}

impl RecoveryPoint {
    /// Whether it is dated later than this moment by more than clocks differ: one of them is wrong, or was.
    pub fn is_in_the_future(&self, now: DateTime<Utc>) -> bool {
        self.at > now + CLOCK_TOLERANCE
    }
}

/// How a recovery point is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryPointBasis {
    /// The source is a primary: the moment of the snapshot.
    Snapshot,
    /// The heartbeat row found in the backup.
    Heartbeat,
    /// The source is a standby: the last transaction it had replayed.
    Replay,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    pub ernstfall: String,
    pub server: String,
    pub pg_dump: String,
}

/// A stored object of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Relative to the repository's prefix.
    pub key: String,
    pub size_bytes: u64,
    pub sha256: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub tables: u64,
    pub rows: u64,
    /// COPY text before compression.
    pub bytes: u64,
    pub stored_bytes: u64,
    pub sequences: u64,
    pub large_objects: u64,
    pub not_covered: u64,
}
