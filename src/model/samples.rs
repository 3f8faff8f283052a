//! Backups that look real, for unit tests.

use chrono::{DateTime, TimeDelta, Utc};

use crate::model::backup_id::BackupId;
use crate::model::manifest::{FORMAT, Manifest, Object, RecoveryPoint, RecoveryPointBasis, Totals, Versions};
use crate::model::target_name::TargetName;

/// So many seconds after a fixed moment.
pub(crate) fn time(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap() + TimeDelta::seconds(seconds)
}

pub(crate) fn target() -> TargetName {
    "shop".parse().unwrap()
}

/// The nth backup: one every hour.
pub(crate) fn id(number: i64) -> BackupId {
    BackupId::new(time(number * 3600), number as u16)
}

/// The nth backup: its recovery point is at hour n, and it takes ten minutes.
pub(crate) fn manifest(number: i64) -> Manifest {
    let object = |name: &str| Object {
        key: format!("targets/shop/backups/{}/{name}", id(number)),
        size_bytes: 1,
        sha256: "0".repeat(64),
    };
    Manifest {
        format: FORMAT,
        id: id(number),
        target: target(),
        started_at: time(number * 3600 - 1),
        finished_at: time(number * 3600 + 600),
        duration_seconds: 601.0,
        recovery_point: RecoveryPoint {
            at: time(number * 3600),
            basis: RecoveryPointBasis::Snapshot,
        },
        snapshot: "1:1:".to_owned(),
        lsn: "0/1".to_owned(),
        timeline: Some(1),
        system_identifier: Some("1".to_owned()),
        versions: Versions {
            ernstfall: "0".to_owned(),
            server: "17".to_owned(),
            pg_dump: "17".to_owned(),
        },
        contents: object("contents.json.zst"),
        schema: object("schema.dump.zst"),
        roles: object("roles.sql.zst"),
        sequences: object("sequences.sql.zst"),
        recovery_guide: object("RECOVERY.md"),
        data: vec![object("data/1.sql.zst")],
        large_objects: Vec::new(),
        totals: Totals::default(),
        source_counted: false,
    }
}
