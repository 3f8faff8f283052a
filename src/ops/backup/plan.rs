//! What is copied, what is not covered and why, and how big tables are split.

use std::collections::BTreeMap;

use crate::model::contents::{LoadStage, MaterializedView, NotCovered, Table};
use crate::model::fingerprint::Fingerprint;
use crate::ops::target::{Target, matches_any};
use crate::postgres::copy_out::Source;
use crate::postgres::identifier::Quoting;
use crate::postgres::relations::{Columns, Relation, RelationKind};

/// A table is split only where a piece is still worth a connection's while.
const SMALLEST_PIECE_BYTES: u64 = 64 << 20;
/// Pieces a worker gets of the whole: enough that all end at about the same time.
const PIECES_PER_JOB: u64 = 4;
/// Ranges of ctid are read by a Tid Range Scan from here on; before, each would read the whole table.
const TID_RANGE_SCAN: i32 = 140_000;

/// Everything one attempt is going to copy.
pub(super) struct Plan {
    pub(super) tables: Vec<Table>,
    /// Pieces of work, the longest first.
    pub(super) units: Vec<Unit>,
    pub(super) sequences: Vec<(String, String)>,
    pub(super) materialized_views: Vec<MaterializedView>,
    pub(super) not_covered: Vec<NotCovered>,
    /// Bytes on the source's disk, as a measure of progress.
    pub(super) bytes: u64,
}

/// One table or one range of it.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// Index into the plan's tables.
    pub(super) table: usize,
    pub(super) source: Source,
    pub(super) bytes: u64,
}

/// What the server allows.
pub(super) struct Abilities {
    pub(super) server_version_num: i32,
    pub(super) standby: bool,
    pub(super) quoting: Quoting,
}

/// The target leaves the whole relation out.
pub(super) fn excluded(target: &Target, relation: &Relation) -> bool {
    matches_any(&target.exclude, &relation.display_name())
}

pub(super) fn plan(
    target: &Target,
    relations: &[Relation],
    columns: &BTreeMap<u32, Columns>,
    abilities: &Abilities,
) -> Plan {
    let mut plan = Plan {
        tables: Vec::new(),
        units: Vec::new(),
        sequences: Vec::new(),
        materialized_views: Vec::new(),
        not_covered: Vec::new(),
        bytes: 0,
    };
    let mut copied = Vec::new();
    for relation in relations {
        if let Some(not_covered) = left_out(target, relation, abilities) {
            plan.not_covered.push(not_covered);
            continue;
        }
        match relation.kind {
            RelationKind::Table => copied.push(relation),
            RelationKind::Sequence => plan
                .sequences
                .push((relation.schema.clone(), relation.name.clone())),
            RelationKind::MaterializedView => plan.materialized_views.push(MaterializedView {
                schema: relation.schema.clone(),
                name: relation.name.clone(),
                populated: relation.populated,
            }),
            RelationKind::PartitionedTable | RelationKind::ForeignTable => {}
        }
    }
    plan.bytes = copied.iter().map(|relation| relation.size_bytes).sum();
    for relation in copied {
        let columns = columns.get(&relation.oid).cloned().unwrap_or_default();
        let table = plan.tables.len();
        let whole = Source {
            oid: relation.oid,
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            columns: columns.stored.clone(),
            condition: relation
                .configuration_condition
                .clone()
                .filter(|condition| !condition.is_empty()),
            pages: None,
            quoting: abilities.quoting,
        };
        let ranges = ranges(target, relation, plan.bytes, abilities);
        let bytes = relation.size_bytes / ranges.len().max(1) as u64;
        plan.units.extend(ranges.into_iter().map(|pages| Unit {
            table,
            source: Source {
                pages,
                ..whole.clone()
            },
            bytes,
        }));
        plan.tables.push(Table {
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            columns: columns.stored,
            generated_columns: columns.generated,
            fingerprint: Fingerprint::default(),
            load: if columns.may_name_an_index {
                LoadStage::AfterIndexes
            } else {
                LoadStage::BeforeIndexes
            },
            condition: whole.condition,
        });
    }
    plan.units.sort_by_key(|unit| std::cmp::Reverse(unit.bytes));
    plan
}

/// Why nothing of the relation's rows is in the backup, if it is so.
fn left_out(target: &Target, relation: &Relation, abilities: &Abilities) -> Option<NotCovered> {
    let name = relation.display_name();
    let because = |kind: &str, reason: &str| {
        Some(NotCovered {
            kind: kind.to_owned(),
            name: name.clone(),
            reason: reason.to_owned(),
        })
    };
    if excluded(target, relation) {
        return because("table", "the target's `exclude` leaves it out");
    }
    match relation.kind {
        RelationKind::ForeignTable => {
            return because("foreign table rows", "they are kept by another server");
        }
        RelationKind::Table => {}
        _ => return None,
    }
    if matches_any(&target.exclude_data, &name) {
        return because("table rows", "the target's `exclude_data` leaves them out");
    }
    if relation.unlogged && abilities.standby {
        return because("table rows", "the table is unlogged, and the source is a standby");
    }
    match (&relation.extension, &relation.configuration_condition) {
        (Some(extension), None) => because(
            "table rows",
            &format!("they belong to the extension {extension}, which makes them itself"),
        ),
        _ => None,
    }
}

/// The ranges to copy a table in; one without bounds where it is not split.
fn ranges(
    target: &Target,
    relation: &Relation,
    total_bytes: u64,
    abilities: &Abilities,
) -> Vec<Option<(u32, Option<u32>)>> {
    let jobs = target.jobs as u64;
    let fair_share = total_bytes / jobs.max(1);
    let splittable = target.split
        && jobs > 1
        && relation.heap
        && relation.configuration_condition.is_none()
        && abilities.server_version_num >= TID_RANGE_SCAN
        && relation.size_bytes > fair_share
        && relation.size_bytes >= 2 * SMALLEST_PIECE_BYTES;
    if !splittable {
        return vec![None];
    }
    let piece_bytes = (total_bytes / (jobs * PIECES_PER_JOB)).max(SMALLEST_PIECE_BYTES);
    let pieces = relation.size_bytes.div_ceil(piece_bytes).max(1);
    let length = u64::from(relation.pages).div_ceil(pieces).max(1);
    let pieces = u64::from(relation.pages).div_ceil(length).max(1);
    let page = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let range = |piece: u64| {
        let end = (piece + 1 < pieces).then(|| page((piece + 1) * length));
        Some((page(piece * length), end))
    };
    (0..pieces).map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation(size_bytes: u64) -> Relation {
        Relation {
            oid: 1,
            schema: "public".into(),
            name: "t".into(),
            kind: RelationKind::Table,
            unlogged: false,
            filenode_in_snapshot: 1,
            filenode_now: 1,
            heap: true,
            populated: true,
            size_bytes,
            pages: u32::try_from(size_bytes / 8192).unwrap(),
            readable: true,
            schema_usable: true,
            hides_rows: false,
            extension: None,
            configuration_condition: None,
        }
    }

    fn abilities(server_version_num: i32) -> Abilities {
        Abilities {
            server_version_num,
            standby: false,
            quoting: Quoting::Utf8,
        }
    }

    #[test]
    fn ranges_join_without_a_gap_and_the_last_has_no_end() {
        let target = crate::ops::target::for_tests();
        let size = 1_300 << 20;
        let ranges = ranges(&target, &relation(size), size, &abilities(150_000));
        assert!(ranges.len() > 1);
        let mut next = 0;
        for (index, range) in ranges.iter().enumerate() {
            let (from, to) = range.unwrap();
            assert_eq!(from, next);
            assert_eq!(to.is_none(), index + 1 == ranges.len());
            next = to.unwrap_or(0);
        }
    }

    #[test]
    fn a_table_is_not_split_where_it_would_not_outlast_the_rest_or_the_server_would_read_it_whole() {
        let target = crate::ops::target::for_tests();
        let size = 1_300 << 20;
        assert_eq!(
            ranges(&target, &relation(size), size, &abilities(130_000)),
            vec![None]
        );
        assert_eq!(
            ranges(&target, &relation(size), size * 10, &abilities(150_000)),
            vec![None]
        );
        let mut columnar = relation(size);
        columnar.heap = false;
        assert_eq!(ranges(&target, &columnar, size, &abilities(150_000)), vec![None]);
    }

    #[test]
    fn what_is_left_out_is_named_with_its_reason() {
        let mut target = crate::ops::target::for_tests();
        target.exclude_data = vec!["public.t".into()];
        let plan = plan(&target, &[relation(0)], &BTreeMap::new(), &abilities(150_000));
        assert!(plan.tables.is_empty());
        assert_eq!(plan.not_covered[0].name, "public.t");
    }
}
