//! Up to when the backup holds the data: what tells it.

use chrono::{DateTime, Utc};

use crate::model::contents::Column;
use crate::model::manifest::RecoveryPoint;
use crate::model::recovery_evidence::RecoveryEvidence;
use crate::ops::context::Context;
use crate::ops::target::{Target, matches_any};
use crate::postgres::heartbeat::{self, SCHEMA, TABLE};
use crate::postgres::relations::{Relation, RelationKind};
use crate::postgres::snapshot::Exporter;

use super::excluded::Excluded;
use super::prepare::Prepared;
use super::{BackupError, Notebook};

/// What a snapshot says of its own age.
pub(super) struct Recoverable {
    pub(super) point: RecoveryPoint,
    /// The heartbeat that the backup will hold.
    pub(super) heartbeat: Option<DateTime<Utc>>,
}

/// Reads the heartbeat in the snapshot, and finds the recovery point.
pub(super) async fn look(
    context: &Context,
    target: &Target,
    prepared: &Prepared,
    exporter: &Exporter,
    excluded: &Excluded,
    notes: &Notebook,
) -> Result<Recoverable, BackupError> {
    let heartbeat = heartbeat_in(exporter, target, excluded).await?;
    let evidence = RecoveryEvidence {
        taken_at: exporter.taken_at,
        is_origin: !prepared.identity.standby && !target.is_written_elsewhere(),
        replayed_at: exporter.replayed_at,
        heartbeat,
    };
    if evidence.heartbeat_is_in_the_future()
        && let Some(heartbeat) = heartbeat
    {
        let message = format!(
            "the heartbeat of {} is later than the snapshot of {} that holds it, and is not believed: synchronise the clocks of the servers",
            heartbeat.to_rfc3339(),
            exporter.taken_at.to_rfc3339()
        );
        context.progress.note(&message);
        notes.lock().findings.push(super::warning("heartbeat", message));
    }
    match evidence.recovery_point() {
        Some(point) => Ok(Recoverable { point, heartbeat }),
        None => Err(BackupError::RecoveryPointUnknown {
            on: prepared.guard.description().to_owned(),
            why: if prepared.identity.standby {
                "it is a standby that has replayed no transaction since it started"
            } else {
                "the heartbeat of the target is written to another server"
            },
        }),
    }
}

/// The heartbeat of the target, where the backup holds it.
async fn heartbeat_in(
    exporter: &Exporter,
    target: &Target,
    excluded: &Excluded,
) -> Result<Option<DateTime<Utc>>, BackupError> {
    let is_it = |relation: &&Relation| relation.schema == SCHEMA && relation.name == TABLE;
    let Some(table) = exporter.relations.iter().find(is_it) else {
        return Ok(None);
    };
    let left_out = excluded.relation(table) || matches_any(&target.exclude_data, &table.display_name());
    // A failed query would end the transaction that holds the snapshot.
    if left_out || !table.readable || !table.schema_usable || !is_ours(exporter, table) {
        return Ok(None);
    }
    let heartbeat = heartbeat::read(&exporter.session, target.name.as_str()).await?;
    Ok(heartbeat.map(|heartbeat| heartbeat.written_at))
}

/// Somebody may have a table of that name for other purposes.
fn is_ours(exporter: &Exporter, table: &Relation) -> bool {
    let Some(columns) = exporter.columns.get(&table.oid) else {
        return false;
    };
    let has = |name: &str, type_name: &str| {
        let is_it = |column: &Column| column.name == name && column.type_name == type_name;
        columns.stored.iter().any(is_it)
    };
    table.kind == RelationKind::Table
        && has("target", "text")
        && has("written_at", "timestamp with time zone")
        && has("every", "interval")
        && has("writer", "text")
        && has("host", "text")
}
