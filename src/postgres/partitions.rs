//! Which tables are partitions, and which of them a row may leave when it is loaded into another database.

use std::collections::BTreeMap;

use super::error::Error;
use super::session::Session;

/// Where a partition belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The partitioned table at the top.
    pub root: u32,
    /// In another database a row may belong to another partition, so that rows are loaded through the top.
    pub rows_may_move: bool,
}

/// A key makes rows move where its hash is made of oids (of an enum's values), or where a collation decides: that of
/// another machine may hash, compare or order text otherwise. The hash of an expression is not looked into.
///
/// The recursion over types follows arrays, domains, composites and ranges down to an enum.
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
    with_enum(key_type) AS (
        SELECT part.key_type FROM part JOIN pg_catalog.pg_type t ON t.oid = part.oid WHERE t.typtype = 'e'),
    moving(oid) AS (
        SELECT DISTINCT key.partrelid FROM key
          LEFT JOIN pg_catalog.pg_collation c ON c.oid = key.collation
         WHERE (key.strategy = 'h' AND (key.attribute = 0 OR key.atttypid IN (SELECT key_type FROM with_enum)))
            OR (key.strategy IN ('h', 'l') AND NOT coalesce(c.collisdeterministic, true))
            OR (key.strategy = 'r' AND key.collation <> 0 AND c.collname NOT IN ('C', 'POSIX', 'ucs_basic')
                AND NOT (c.collname = 'default' AND EXISTS (
                    SELECT FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
                       AND d.datcollate IN ('C', 'POSIX')
                       AND coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') = 'c')))),
    tree(oid, root, rows_may_move) AS (
        SELECT c.oid, c.oid, c.oid IN (SELECT oid FROM moving)
          FROM pg_catalog.pg_class c WHERE c.relkind = 'p' AND NOT c.relispartition
        UNION ALL
        SELECT c.oid, tree.root, tree.rows_may_move OR c.oid IN (SELECT oid FROM moving)
          FROM tree JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
          JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid)
    SELECT tree.oid, tree.root, pg_catalog.bool_or(tree.rows_may_move) OVER (PARTITION BY tree.root)
      FROM tree WHERE tree.oid <> tree.root";

/// The partitions of the database by oid, as the session's snapshot shows them.
///
/// Where the rows of one partition may move, those of the whole tree are said to.
pub async fn list(session: &Session) -> Result<BTreeMap<u32, Partition>, Error> {
    let rows = session.select("list the partitions", PARTITIONS, &[]).await?;
    let partition = |row: &tokio_postgres::Row| {
        let partition = Partition {
            root: row.get(1),
            rows_may_move: row.get(2),
        };
        (row.get(0), partition)
    };
    Ok(rows.iter().map(partition).collect())
}
