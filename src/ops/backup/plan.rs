//! What is copied, what is not covered and why, and how big tables are split.

use std::collections::BTreeMap;

use crate::model::contents::{LoadStage, MaterializedView, NotCovered, Table, TableName};
use crate::model::fingerprint::Fingerprint;
use crate::ops::ranges::ranges;
use crate::ops::target::{Target, matches_any};
use crate::postgres::copy_out::{Source, load_statement};
use crate::postgres::identifier::Quoting;
use crate::postgres::partitions::Partition;
use crate::postgres::relations::{Columns, Relation, RelationKind};

use super::excluded::Excluded;

/// Everything one attempt is going to copy.
pub(super) struct Plan {
    pub(super) tables: Vec<Table>,
    /// Pieces of work, the longest first; last what is loaded after the indexes, since it shares no object with the others.
    pub(super) units: Vec<Unit>,
    pub(super) sequences: Vec<(String, String)>,
    pub(super) materialized_views: Vec<MaterializedView>,
    pub(super) not_covered: Vec<NotCovered>,
    /// Excluded partitions that rows of others may belong to in a copy.
    pub(super) homeless: Vec<String>,
    /// Bytes on the source's disk, as a measure of progress.
    pub(super) bytes: u64,
}

/// One table or one range of it.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    /// Index into the plan's tables.
    pub(super) table: usize,
    pub(super) source: Source,
    /// When its rows are loaded.
    pub(super) stage: LoadStage,
    /// The statement before its rows in a stored script.
    pub(super) load_statement: String,
    pub(super) bytes: u64,
}

impl Unit {
    /// `schema.table` of what is read.
    pub(super) fn table_name(&self) -> String {
        format!("{}.{}", self.source.schema, self.source.name)
    }
}

/// What the server allows.
pub(in crate::ops) struct Abilities {
    pub(in crate::ops) server_version_num: i32,
    pub(in crate::ops) standby: bool,
    pub(in crate::ops) quoting: Quoting,
}

/// What a plan is made from: the database as the snapshot shows it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) relations: &'a [Relation],
    pub(super) columns: &'a BTreeMap<u32, Columns>,
    pub(super) partitions: &'a BTreeMap<u32, Partition>,
    pub(super) excluded: &'a Excluded,
}

pub(super) fn plan(target: &Target, seen: Seen<'_>, abilities: &Abilities) -> Plan {
    let relations = seen.relations;
    let mut plan = Plan {
        tables: Vec::new(),
        units: Vec::new(),
        sequences: Vec::new(),
        materialized_views: Vec::new(),
        not_covered: not_covered(target, relations, seen.excluded, abilities),
        homeless: Vec::new(),
        bytes: 0,
    };
    let mut copied = Vec::new();
    let stays = |relation: &&Relation| {
        !seen.excluded.relation(relation) && left_out(target, relation, abilities).is_none()
    };
    for relation in relations.iter().filter(stays) {
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
    plan.add_all(target, &copied, seen, abilities);
    let is_late = |unit: &Unit| unit.stage == LoadStage::AfterIndexes;
    plan.units
        .sort_by_key(|unit| (is_late(unit), std::cmp::Reverse(unit.bytes)));
    plan
}

fn table_name(relation: &Relation) -> TableName {
    TableName {
        schema: relation.schema.clone(),
        name: relation.name.clone(),
    }
}

impl Plan {
    /// Adds tables and their pieces; partitions whose rows may move are added as one table.
    fn add_all(&mut self, target: &Target, copied: &[&Relation], seen: Seen<'_>, abilities: &Abilities) {
        let by_oid: BTreeMap<u32, &Relation> = seen.relations.iter().map(|one| (one.oid, one)).collect();
        let mut through = BTreeMap::new();
        for &relation in copied {
            let root = |partition: &Partition| by_oid.get(&partition.root).copied();
            let partition = seen.partitions.get(&relation.oid);
            let table = match partition.and_then(|partition| Some((partition, root(partition)?))) {
                Some((partition, root)) if partition.rows_may_move => *through
                    .entry(root.oid)
                    .or_insert_with(|| self.add_table(root, seen.columns)),
                found => {
                    let table = self.add_table(relation, seen.columns);
                    self.tables[table].partition_of = found.map(|(_, root)| table_name(root));
                    table
                }
            };
            self.add_units(target, table, relation, abilities);
        }
        // Those without rows in the backup too: rows of others may come to lie there.
        for relation in seen.relations.iter().filter(|relation| relation.has_rows()) {
            let root = seen.partitions.get(&relation.oid).map(|partition| partition.root);
            let Some(table) = root.and_then(|root| through.get(&root)) else {
                continue;
            };
            if seen.excluded.relation(relation) {
                self.homeless.push(relation.display_name());
            } else {
                self.tables[*table].partitions.push(table_name(relation));
            }
        }
    }

    /// Adds a table that rows are loaded into, and returns its place among the tables.
    fn add_table(&mut self, relation: &Relation, columns: &BTreeMap<u32, Columns>) -> usize {
        let columns = columns.get(&relation.oid).cloned().unwrap_or_default();
        let load = if columns.may_name_an_index {
            LoadStage::AfterIndexes
        } else {
            LoadStage::BeforeIndexes
        };
        self.tables.push(Table {
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            generated_fingerprint: (!columns.generated.is_empty()).then(Fingerprint::default),
            columns: columns.stored,
            generated_columns: columns.generated,
            fingerprint: Fingerprint::default(),
            load,
            partition_of: None,
            partitions: Vec::new(),
            condition: relation
                .configuration_condition
                .clone()
                .filter(|condition| !condition.is_empty()),
        });
        self.tables.len() - 1
    }

    /// Adds the pieces in which the rows of a relation are copied; they are loaded into the table at that place.
    fn add_units(&mut self, target: &Target, table: usize, relation: &Relation, abilities: &Abilities) {
        let into = &self.tables[table];
        let whole = Source {
            oid: relation.oid,
            schema: relation.schema.clone(),
            name: relation.name.clone(),
            columns: into.columns.clone(),
            generated: into.generated_columns.clone(),
            condition: into.condition.clone(),
            pages: None,
            quoting: abilities.quoting,
        };
        let load_statement = load_statement(into, abilities.quoting);
        let jobs = if target.split { target.jobs } else { 1 };
        let ranges = ranges(relation, self.bytes, jobs, abilities.server_version_num);
        let bytes = relation.size_bytes / ranges.len().max(1) as u64;
        let stage = into.load;
        let unit = |pages| Unit {
            table,
            stage,
            source: Source {
                pages,
                ..whole.clone()
            },
            load_statement: load_statement.clone(),
            bytes,
        };
        self.units.extend(ranges.into_iter().map(unit));
    }
}

/// What of these relations a backup leaves out, and why.
pub(in crate::ops) fn not_covered(
    target: &Target,
    relations: &[Relation],
    excluded: &Excluded,
    abilities: &Abilities,
) -> Vec<NotCovered> {
    let of_relation = |relation: &Relation| {
        if excluded.is_named(relation) {
            return Some(NotCovered {
                kind: "table".to_owned(),
                name: relation.display_name(),
                reason: "the target's `exclude` leaves it out".to_owned(),
            });
        }
        left_out(target, relation, abilities).filter(|_| !excluded.relation(relation))
    };
    let of_relations = relations.iter().filter_map(of_relation);
    of_relations.chain(excluded.not_covered()).collect()
}

/// Patterns of the target that match nothing: what somebody meant to leave out is in the backup.
pub(super) fn idle_patterns(target: &Target, relations: &[Relation]) -> Vec<String> {
    let matches = |pattern: &String, name: &str| matches_any(std::slice::from_ref(pattern), name);
    let idle = |key: &str, patterns: &[String]| -> Vec<String> {
        let meant = |pattern: &&String| {
            !relations
                .iter()
                .any(|relation| matches(pattern, &relation.display_name()))
        };
        let idle = patterns.iter().filter(meant);
        idle.map(|pattern| format!("{key} \"{pattern}\"")).collect()
    };
    [
        idle("exclude", &target.exclude),
        idle("exclude_data", &target.exclude_data),
    ]
    .concat()
}

/// Why nothing of a relation's rows is in the backup though its definition is, if it is so.
fn left_out(target: &Target, relation: &Relation, abilities: &Abilities) -> Option<NotCovered> {
    let name = relation.display_name();
    let because = |kind: &str, reason: &str| {
        Some(NotCovered {
            kind: kind.to_owned(),
            name: name.clone(),
            reason: reason.to_owned(),
        })
    };
    match relation.kind {
        RelationKind::ForeignTable => {
            return because("foreign table rows", "they are kept by another server");
        }
        RelationKind::Sequence if relation.unlogged && abilities.standby => {
            return because("sequence", "it is unlogged, and the source is a standby");
        }
        RelationKind::MaterializedView if relation.remote && relation.populated => {
            return Some(NotCovered {
                kind: "materialized view rows".to_owned(),
                name,
                reason: "it reads foreign tables, which a copy must not reach: refresh it after a recovery"
                    .to_owned(),
            });
        }
        RelationKind::Table => {}
        _ => return None,
    }
    let above = relation.partition_of.iter();
    if above
        .chain([&name])
        .any(|name| matches_any(&target.exclude_data, name))
    {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::ranges::sample_relation;

    fn abilities(server_version_num: i32) -> Abilities {
        Abilities {
            server_version_num,
            standby: false,
            quoting: Quoting::Utf8,
        }
    }

    #[test]
    fn what_is_left_out_is_named_with_its_reason() {
        let mut target = crate::ops::target::for_tests();
        target.exclude_data = vec!["public.t".into()];
        let seen = Seen {
            relations: &[sample_relation(0)],
            columns: &BTreeMap::new(),
            partitions: &BTreeMap::new(),
            excluded: &Excluded::default(),
        };
        let plan = plan(&target, seen, &abilities(150_000));
        assert!(plan.tables.is_empty());
        assert_eq!(plan.not_covered[0].name, "public.t");
    }
}
