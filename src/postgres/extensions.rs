//! What hangs on the extensions of a database, for restores that leave some of them out.

use crate::model::contents::{Extension, TableName};

use super::error::Error;
use super::extension_objects;
use super::facts;
use super::relations::{Relation, RelationKind};
use super::session::Session;

/// pg_dump writes the index of a constraint as the constraint, and then says nothing of what the index needs: an
/// operator class of an extension, as exclusion constraints do. The recursion follows that up to the extensions.
const CONSTRAINTS: &str = "
    WITH RECURSIVE need(constraint_oid, class, oid) AS (
        SELECT c.oid, d.refclassid, d.refobjid
          FROM pg_catalog.pg_constraint c
          JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
           AND d.objid = c.conindid AND d.deptype = 'n'
         WHERE c.contype IN ('p', 'u', 'x')
        UNION
        SELECT need.constraint_oid, d.refclassid, d.refobjid
          FROM need JOIN pg_catalog.pg_depend d ON d.classid = need.class AND d.objid = need.oid
         WHERE d.deptype IN ('n', 'a', 'i', 'e'))
    SELECT DISTINCT e.extname::text, need.constraint_oid
      FROM need JOIN pg_catalog.pg_extension e
        ON need.class = 'pg_catalog.pg_extension'::pg_catalog.regclass AND e.oid = need.oid
     ORDER BY 1, 2";

/// Lists the extensions, with those of the given relations that belong to each.
pub async fn list(session: &Session, relations: &[Relation]) -> Result<Vec<Extension>, Error> {
    let mut extensions = facts::extensions(session).await?;
    let holds_something = |relation: &&Relation| match relation.kind {
        RelationKind::Table => relation.configuration_condition.is_some(),
        RelationKind::Sequence | RelationKind::MaterializedView => true,
        RelationKind::PartitionedTable | RelationKind::ForeignTable => false,
    };
    for relation in relations.iter().filter(holds_something) {
        let of = |extension: &&mut Extension| Some(&extension.name) == relation.extension.as_ref();
        if let Some(extension) = extensions.iter_mut().find(of) {
            extension.relations.push(TableName {
                schema: relation.schema.clone(),
                name: relation.name.clone(),
            });
        }
    }
    let mut objects = extension_objects::read(session).await?;
    for extension in &mut extensions {
        extension.objects = objects.remove(&extension.name).unwrap_or_default();
    }
    let rows = session.select("see which constraints need extensions", CONSTRAINTS, &[]);
    for row in rows.await? {
        let name: String = row.get(0);
        if let Some(extension) = extensions.iter_mut().find(|extension| extension.name == name) {
            extension.constraints.push(row.get(1));
        }
    }
    Ok(extensions)
}
