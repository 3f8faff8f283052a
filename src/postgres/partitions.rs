//! Which tables are partitions, and which of them a row may leave when it is loaded into another database.

use std::collections::BTreeMap;

use super::error::Error;
use super::relations::{Relation, RelationKind};
use super::session::Session;

/// Where a partition belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The partitioned table at the top.
    pub root: u32,
    /// All partitioned tables above it, the top first.
    pub ancestors: Vec<u32>,
    /// In another database a row may belong to another partition, so that rows are loaded through the top.
    pub rows_may_move: bool,
}

/// A key makes rows move where its hash is made of oids (of an enum's values, or of what a reg* type names), or where a
/// collation decides: that of another machine may hash, compare or order text otherwise. The hash of an expression is
/// not looked into. Where a foreign table is among the partitions, nothing is loaded through the top: rows would be
/// written to another server.
///
/// The recursion over types follows arrays, domains, composites and ranges down to such a type.
const PARTITIONS: &str = "
    WITH RECURSIVE key AS (
        SELECT p.partrelid, p.partstrat::text AS strategy, p.partattrs[i] AS attribute, p.partcollation[i] AS collation,
               a.atttypid
          FROM pg_catalog.pg_partitioned_table p
         CROSS JOIN pg_catalog.generate_series(0, p.partnatts - 1) AS i
          LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[i]),
    part(key_type, oid) AS (
        SELECT DISTINCT atttypid, atttypid FROM key WHERE strategy = 'h' AND atttypid IS NOT NULL
        UNION
        SELECT part.key_type, inner_type.oid
          FROM part JOIN pg_catalog.pg_type t ON t.oid = part.oid
         CROSS JOIN LATERAL (
               SELECT t.typelem UNION ALL SELECT t.typbasetype
               UNION ALL SELECT m.atttypid FROM pg_catalog.pg_attribute m
                          WHERE m.attrelid = t.typrelid AND t.typtype = 'c' AND m.attnum > 0 AND NOT m.attisdropped
               UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid) AS inner_type(oid)
         WHERE inner_type.oid <> 0),
    of_oids(key_type) AS (
        SELECT part.key_type FROM part JOIN pg_catalog.pg_type t ON t.oid = part.oid
         WHERE t.typtype = 'e' OR t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AND t.typname ~ '^reg'),
    moving(oid) AS (
        SELECT DISTINCT key.partrelid FROM key
          LEFT JOIN pg_catalog.pg_collation c ON c.oid = key.collation
         WHERE (key.strategy = 'h' AND (key.attribute = 0 OR key.atttypid IN (SELECT key_type FROM of_oids)))
            OR (key.strategy IN ('h', 'l') AND NOT coalesce(c.collisdeterministic, true))
            OR (key.strategy = 'r' AND key.collation <> 0 AND c.collname NOT IN ('C', 'POSIX', 'ucs_basic')
                AND NOT (c.collname = 'default' AND EXISTS (
                    SELECT FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
                       AND d.datcollate IN ('C', 'POSIX')
                       AND coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') = 'c')))),
    tree(oid, ancestors, rows_may_move, remote) AS (
        SELECT c.oid, ARRAY[]::oid[], c.oid IN (SELECT oid FROM moving), false
          FROM pg_catalog.pg_class c WHERE c.relkind = 'p' AND NOT c.relispartition
        UNION ALL
        SELECT c.oid, tree.ancestors || tree.oid, tree.rows_may_move OR c.oid IN (SELECT oid FROM moving), c.relkind = 'f'
          FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
          JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid)
    SELECT tree.oid, tree.ancestors,
           pg_catalog.bool_or(tree.rows_may_move) OVER whole AND NOT pg_catalog.bool_or(tree.remote) OVER whole
      FROM tree WHERE tree.ancestors <> ARRAY[]::oid[] WINDOW whole AS (PARTITION BY tree.ancestors[1])";

/// The partitions of the database by oid, as the session's snapshot shows them.
///
/// Where the rows of one partition may move, those of the whole tree are said to.
pub async fn list(session: &Session) -> Result<BTreeMap<u32, Partition>, Error> {
    let rows = session.select("list the partitions", PARTITIONS, &[]).await?;
    let partition = |row: &tokio_postgres::Row| {
        let ancestors: Vec<u32> = row.get(1);
        let partition = Partition {
            root: *ancestors.first()?,
            ancestors,
            rows_may_move: row.get(2),
        };
        Some((row.get(0), partition))
    };
    Ok(rows.iter().filter_map(partition).collect())
}

/// Notes with each partition what the partitioned tables above it are called.
pub fn mark(partitions: &BTreeMap<u32, Partition>, relations: &mut [Relation]) {
    let names: BTreeMap<u32, String> = relations
        .iter()
        .filter(|relation| relation.kind == RelationKind::PartitionedTable)
        .map(|relation| (relation.oid, relation.display_name()))
        .collect();
    for relation in relations {
        let ancestors = partitions
            .get(&relation.oid)
            .map(|partition| &partition.ancestors);
        let named = ancestors.into_iter().flatten().filter_map(|oid| names.get(oid));
        relation.partition_of = named.cloned().collect();
    }
}
