//! Backups that look real, for unit tests.

use chrono::{DateTime, TimeDelta, Utc};

use crate::model::backup_id::BackupId;
use crate::model::contents::Contents;
use crate::model::manifest::{FORMAT, Manifest, Object, RecoveryPoint, RecoveryPointBasis, Totals, Versions};
use crate::model::record::{Entry, ObjectiveResult, Objectives, Record, RestoreTestRecord, Trigger, Verdict};
use crate::model::target_name::TargetName;
use crate::model::verification::{Mismatch, Verification};

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
        clock_skew_seconds: None,
        heartbeat: None,
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
        schema_list: None,
        schema: object("schema.dump.zst"),
        roles: object("roles.sql.zst"),
        sequences: object("sequences.sql.zst"),
        recovery_guide: object("RECOVERY.md"),
        data: vec![object("data/1.sql.zst")],
        large_objects: Vec::new(),
        totals: Totals::default(),
        source_counted: false,
        encryption: None,
        shrank: None,
    }
}

/// What is in a backup of one table, `public.t`, with one column.
pub(crate) fn contents() -> Contents {
    let fingerprint = serde_json::json!({"rows": 1, "bytes": 2, "hash": "0".repeat(32)});
    serde_json::from_value(serde_json::json!({
        "format": FORMAT,
        "database": {
            "name": "shop", "owner": "o", "bootstrap_role": "postgres", "encoding": "UTF8",
            "locale_provider": "libc", "collate": "C", "ctype": "C", "locale": null, "icu_rules": null,
            "collation_version": null, "server_version": "17.1", "server_version_num": 170_001,
            "shared_preload_libraries": "", "size_bytes": 1, "settings": [], "grants": null, "comment": null
        },
        "tables": [{
            "schema": "public", "name": "t", "columns": [{"name": "id", "type": "integer", "not_null": true}],
            "generated_columns": [], "fingerprint": fingerprint, "load": "before_indexes", "condition": null
        }],
        "chunks": [], "sequences": [],
        "large_objects": {"count": 0, "bytes": 0, "fingerprint": fingerprint, "objects": []},
        "roles": [], "extensions": [], "materialized_views": [], "not_covered": []
    }))
    .unwrap()
}

/// Records as one chain.
pub(crate) fn entries(records: Vec<Record>) -> Vec<Entry> {
    let chain = |(index, record)| Entry {
        chain: "a".to_owned(),
        sequence: index as u64 + 1,
        previous_sha256: None,
        record,
    };
    records.into_iter().enumerate().map(chain).collect()
}

/// A restore test of the nth backup, which ended this long after the beginning.
pub(crate) fn restore_test(backup: i64, verdict: Verdict, at: i64) -> Record {
    let rta = (verdict == Verdict::Passed).then_some(42.0);
    let mismatch = Mismatch {
        kind: "table".to_owned(),
        name: "public.orders".to_owned(),
        expected: "2 rows".to_owned(),
        found: "1 row".to_owned(),
    };
    Record::RestoreTest(Box::new(RestoreTestRecord {
        format: FORMAT,
        id: format!("test-{at}"),
        target: target(),
        environment: None,
        owner: None,
        backup: Some(id(backup)),
        trigger: Trigger::Schedule,
        verdict,
        reason: (verdict != Verdict::Passed).then(|| "why".to_owned()),
        cancelled: false,
        started_at: time(at - 1),
        finished_at: time(at),
        recovery_point: None,
        heartbeat_at: None,
        objectives: Objectives {
            rpo: ObjectiveResult::judge(None, None, None),
            rto: ObjectiveResult::judge(None, rta, Some("embedded scratch".to_owned())),
        },
        phases: Vec::new(),
        verification: Verification {
            mismatches: if verdict == Verdict::Failed {
                vec![mismatch]
            } else {
                Vec::new()
            },
            ..Verification::default()
        },
        scratch: None,
    }))
}
