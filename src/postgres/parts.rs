//! Objects that are made and dropped with another, and that a dump does not write for themselves: the index of a
//! constraint, a partition's copy of a trigger, a domain's constraint, a range's constructors and casts.

use crate::model::archive_list::ObjectId;
use crate::model::contents::Part;

use super::error::Error;
use super::session::Session;

/// A multirange, which is no object of the catalogue list, stands between its constructors and the range.
const PARTS: &str = "
    WITH RECURSIVE part(class, oid, of_class, of_oid) AS (
        SELECT d.classid, d.objid, d.refclassid, d.refobjid
          FROM pg_catalog.pg_depend d
         WHERE d.refobjid >= 16384
           AND CASE d.classid
               WHEN 'pg_catalog.pg_class'::pg_catalog.regclass
               THEN d.deptype = 'i' AND d.refclassid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
               WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass THEN d.deptype = 'i'
               WHEN 'pg_catalog.pg_cast'::pg_catalog.regclass THEN d.deptype = 'i'
               WHEN 'pg_catalog.pg_trigger'::pg_catalog.regclass THEN d.deptype = 'P'
               WHEN 'pg_catalog.pg_constraint'::pg_catalog.regclass
               THEN d.deptype = 'a' AND d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
               ELSE false END
        UNION
        SELECT part.class, part.oid, d.refclassid, d.refobjid
          FROM part JOIN pg_catalog.pg_depend d ON d.classid = part.of_class AND d.objid = part.of_oid
         WHERE d.refobjid >= 16384 AND (d.deptype = 'i' OR (d.deptype = 'P' AND d.classid = d.refclassid)))
    SELECT class, oid, of_class, of_oid FROM part ORDER BY 1, 2, 3, 4";

/// Lists them, each with what it belongs to, as the session's transaction shows them.
pub async fn list(session: &Session) -> Result<Vec<Part>, Error> {
    let rows = session.select("list the parts of objects", PARTS, &[]).await?;
    let id = |row: &tokio_postgres::Row, class: usize| ObjectId {
        class: row.get(class),
        oid: row.get(class + 1),
    };
    let part = |row| Part {
        part: id(row, 0),
        of: id(row, 2),
    };
    Ok(rows.iter().map(part).collect())
}
