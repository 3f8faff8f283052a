//! The planner's statistics of a restored database, without a word to any other server.

use super::error::Error;
use super::session::Session;

/// Of a table with foreign tables below it, ANALYZE reads rows of these, and so connects to their servers. A copy must
/// not, and in scratch it cannot. Null when there is no such table.
const ALL_BUT_THOSE_OVER_FOREIGN_TABLES: &str = "
    WITH RECURSIVE reaching_out(oid) AS (
        SELECT oid FROM pg_catalog.pg_class WHERE relkind = 'f'
        UNION SELECT i.inhparent FROM pg_catalog.pg_inherits i JOIN reaching_out ON i.inhrelid = reaching_out.oid)
    SELECT CASE WHEN EXISTS (SELECT FROM reaching_out JOIN pg_catalog.pg_inherits i ON i.inhrelid = reaching_out.oid)
                THEN pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.relname), ', ') END
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't'
       AND NOT EXISTS (SELECT FROM reaching_out WHERE reaching_out.oid = c.oid)
       -- A partition is visited with the partitioned table above it.
       AND NOT (c.relispartition AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_inherits i JOIN reaching_out ON i.inhparent = reaching_out.oid
                 WHERE i.inhrelid = c.oid))";

/// The statement that takes the statistics of every table that can be read here.
pub async fn analyze_statement(session: &Session) -> Result<String, Error> {
    let row = session
        .select_one(
            "list the tables to analyze",
            ALL_BUT_THOSE_OVER_FOREIGN_TABLES,
            &[],
        )
        .await?;
    let tables: Option<String> = row.get(0);
    Ok(tables.map_or_else(|| "ANALYZE".to_owned(), |tables| format!("ANALYZE {tables}")))
}
