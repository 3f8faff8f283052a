//! Which tables, sequences and views a database holds, as the catalogue shows them to one session.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::contents::Column;

use super::error::Error;
use super::session::Session;

/// What kind of relation it is (`pg_class.relkind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RelationKind {
    Table,
    PartitionedTable,
    MaterializedView,
    ForeignTable,
    Sequence,
}

/// A relation, as one session sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub kind: RelationKind,
    /// Rows that a standby does not have.
    pub unlogged: bool,
    /// `pg_class.relfilenode`, as the transaction's snapshot shows it.
    pub filenode_in_snapshot: u32,
    /// `pg_relation_filenode()`, as it is now whatever the snapshot.
    pub filenode_now: u32,
    /// The table's access method is `heap`: only there do ctid ranges mean what we need.
    pub heap: bool,
    pub populated: bool,
    /// The partitioned tables above it, as `schema.table`; found by `partitions::mark`.
    pub partition_of: Vec<String>,
    /// A materialised view that cannot be refreshed without other servers; found by `mark_remote_views`.
    pub remote: bool,
    /// Bytes of the table with its TOAST, without indexes; 0 until it is measured.
    pub size_bytes: u64,
    /// Pages of the main fork; 0 until it is measured.
    pub pages: u32,
    pub readable: bool,
    pub schema_usable: bool,
    /// Row-level security would hide rows from this role.
    pub hides_rows: bool,
    /// The extension it belongs to.
    pub extension: Option<String>,
    /// It is a configuration table of its extension: the condition for the user's rows (may be empty).
    pub configuration_condition: Option<String>,
}

impl Relation {
    /// `schema.name` as a person writes it in the configuration.
    pub fn display_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// It has rows of its own that a backup could read with COPY.
    pub fn has_rows(&self) -> bool {
        self.kind == RelationKind::Table
    }

    /// It is locked before the snapshot is taken.
    pub fn lockable(&self) -> bool {
        matches!(self.kind, RelationKind::Table | RelationKind::PartitionedTable)
    }
}

/// The functions return NULL for a relation that was dropped since: the checks after the locks find that. None of
/// them takes a lock, so that a table which somebody has locked does not hold up the list.
const RELATIONS: &str = "
    SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence = 'u',
           c.relfilenode, coalesce(pg_catalog.pg_relation_filenode(c.oid), 0),
           coalesce(a.amname = 'heap', false), c.relispopulated,
           coalesce(pg_catalog.has_table_privilege(c.oid, 'SELECT'), true),
           coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), true),
           c.relkind IN ('r', 'p') AND pg_catalog.row_security_active(c.oid),
           e.extname::text,
           (SELECT coalesce(e.extcondition[i], '')
              FROM pg_catalog.generate_subscripts(e.extconfig, 1) AS i WHERE e.extconfig[i] = c.oid LIMIT 1)
      FROM pg_catalog.pg_class c
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
      LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.objid = c.oid AND d.objsubid = 0 AND d.deptype = 'e'
           AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
      LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
     WHERE c.relkind IN ('r', 'p', 'm', 'f', 'S') AND c.relpersistence <> 't'
       AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
     ORDER BY n.nspname, c.relname";

/// Lists the relations of the database that are no part of the system.
pub async fn list(session: &Session) -> Result<Vec<Relation>, Error> {
    let rows = session.select("list the tables", RELATIONS, &[]).await?;
    let relation = |row: &tokio_postgres::Row| Relation {
        oid: row.get(0),
        schema: row.get(1),
        name: row.get(2),
        kind: match row.get::<_, &str>(3) {
            "r" => RelationKind::Table,
            "p" => RelationKind::PartitionedTable,
            "m" => RelationKind::MaterializedView,
            "f" => RelationKind::ForeignTable,
            _ => RelationKind::Sequence,
        },
        unlogged: row.get(4),
        filenode_in_snapshot: row.get(5),
        filenode_now: row.get(6),
        heap: row.get(7),
        populated: row.get(8),
        partition_of: Vec::new(),
        remote: false,
        size_bytes: 0,
        pages: 0,
        readable: row.get(9),
        schema_usable: row.get(10),
        hides_rows: row.get(11),
        extension: row.get(12),
        configuration_condition: row.get(13),
    };
    Ok(rows.iter().map(relation).collect())
}

/// Fills in the sizes of tables. The size functions wait for locks: the tables should be locked already.
pub async fn measure(session: &Session, tables: impl Iterator<Item = &mut Relation>) -> Result<(), Error> {
    let mut tables: BTreeMap<u32, &mut Relation> = tables.map(|table| (table.oid, table)).collect();
    let oids: Vec<u32> = tables.keys().copied().collect();
    let sql = "SELECT oid, coalesce(pg_catalog.pg_table_size(oid), 0),
                      coalesce(pg_catalog.pg_relation_size(oid), 0)
                          / pg_catalog.current_setting('block_size')::bigint
                 FROM pg_catalog.unnest($1::oid[]) AS oid";
    for row in session.select("measure the tables", sql, &[&oids]).await? {
        if let Some(table) = tables.get_mut(&row.get(0)) {
            table.size_bytes = u64::try_from(row.get::<_, i64>(1)).unwrap_or(0);
            table.pages = u32::try_from(row.get::<_, i64>(2)).unwrap_or(u32::MAX);
        }
    }
    Ok(())
}

/// Marks the materialised views that read foreign tables, themselves or through other views.
pub async fn mark_remote_views(session: &Session, relations: &mut [Relation]) -> Result<(), Error> {
    let sql = "WITH RECURSIVE remote(oid) AS (
                   SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'f'
                   UNION
                   SELECT reader.oid FROM remote CROSS JOIN LATERAL (
                          SELECT r.ev_class FROM pg_catalog.pg_depend d
                            JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid AND r.rulename = '_RETURN'
                           WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                             AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = remote.oid
                          UNION ALL
                          SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = remote.oid) AS reader(oid))
               SELECT oid FROM remote";
    let rows = session
        .select("look for views of foreign tables", sql, &[])
        .await?;
    let remote: BTreeSet<u32> = rows.iter().map(|row| row.get(0)).collect();
    for relation in relations {
        relation.remote = relation.kind == RelationKind::MaterializedView && remote.contains(&relation.oid);
    }
    Ok(())
}

/// The columns of one table, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Columns whose values are stored.
    pub stored: Vec<Column>,
    /// Columns that are computed from others and stored; those that are computed when read have no values.
    pub generated: Vec<Column>,
    /// A stored column can hold the oid of an index, which a copy has only after its indexes are built.
    pub may_name_an_index: bool,
}

/// `regclass` hides in arrays, domains, composites and ranges: the recursion follows all of them.
const COLUMNS: &str = "
    WITH RECURSIVE naming(oid) AS (
        SELECT 'pg_catalog.regclass'::pg_catalog.regtype::oid
        UNION
        SELECT t.oid FROM naming, pg_catalog.pg_type t
          LEFT JOIN pg_catalog.pg_attribute m ON m.attrelid = t.typrelid AND t.typtype = 'c' AND NOT m.attisdropped
          LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
         WHERE t.typelem = naming.oid OR t.typbasetype = naming.oid OR m.atttypid = naming.oid
            OR r.rngsubtype = naming.oid)
    SELECT a.attrelid, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attgenerated <> '',
           a.atttypid IN (SELECT oid FROM naming),
           a.attnotnull AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_constraint v WHERE v.conrelid = a.attrelid AND v.contype = 'n'
                  AND a.attnum = ANY (v.conkey) AND NOT v.convalidated),
           CASE WHEN a.attcollation <> t.typcollation
                THEN pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(l.collname) END,
           CASE WHEN a.attgenerated <> '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END
      FROM pg_catalog.pg_attribute a
      JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
      LEFT JOIN pg_catalog.pg_namespace n ON n.oid = l.collnamespace
      LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE a.attgenerated <> 'v' AND a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY a.attrelid, a.attnum";

/// The columns of the given tables, by the table's oid. A table without columns is not in the result.
pub async fn columns(session: &Session, oids: &[u32]) -> Result<BTreeMap<u32, Columns>, Error> {
    let mut columns: BTreeMap<u32, Columns> = BTreeMap::new();
    for row in session.select("list the columns", COLUMNS, &[&oids]).await? {
        let entry = columns.entry(row.get(0)).or_default();
        let column = Column {
            name: row.get(1),
            type_name: row.get(2),
            not_null: row.get(5),
            collation: row.get(6),
            expression: row.get(7),
        };
        if row.get(3) {
            entry.generated.push(column);
        } else {
            entry.may_name_an_index |= row.get::<_, bool>(4);
            entry.stored.push(column);
        }
    }
    Ok(columns)
}
