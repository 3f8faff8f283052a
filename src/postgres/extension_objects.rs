//! What an extension is made of, as it is now: its members, and what hangs on them, whoever made that.
//!
//! pg_dump writes `CREATE EXTENSION` and the grants on members, and nothing else of them: an index that a user has made
//! on a member table, a function whose body was replaced, a comment. The server does not say either which of these the
//! extension made. A copy does: there, everything is as `CREATE EXTENSION` makes it.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::contents::CatalogueObject;

use super::catalogue::{Block, blocks};
use super::error::Error;
use super::session::Session;

/// The kinds of objects, and what is told of them.
const OBJECTS: &str = include_str!("catalogue/extension_objects.sql");

/// The objects of each extension, by its name.
pub type ExtensionObjects = BTreeMap<String, Vec<CatalogueObject>>;

/// Kind and name of an object.
type Name = (String, String);

/// An object, and what several blocks have told of it.
type Told = (CatalogueObject, BTreeSet<String>);

/// Names the objects, adds their comments and security labels, and leaves out what is no extension's.
fn query(block: &Block<'_>) -> String {
    let Block { query, .. } = block;
    format!(
        "SELECT e.extname::text, i.type, i.identity,
                x.parts || ARRAY['comment: ' || md5((SELECT d.description FROM pg_description d
                                                      WHERE d.classoid = x.class AND d.objoid = x.oid AND d.objsubid = x.sub)),
                                 'security label: ' || (SELECT md5(string_agg(l.provider || ' ' || l.label, ',' ORDER BY l.provider))
                                                          FROM pg_seclabel l
                                                         WHERE l.classoid = x.class AND l.objoid = x.oid AND l.objsubid = x.sub)],
                CASE x.sub WHEN 0 THEN x.class::oid ELSE 'pg_attribute'::regclass::oid END, x.oid,
                CASE x.of_class WHEN 'pg_class'::regclass THEN x.of_oid ELSE 0::oid END
           FROM ({query}) AS x(class, oid, sub, of_class, of_oid, parts)
           JOIN pg_depend m ON m.classid = x.of_class AND m.objid = x.of_oid AND m.objsubid = 0 AND m.deptype = 'e'
            AND m.refclassid = 'pg_extension'::regclass
           JOIN pg_extension e ON e.oid = m.refobjid
          CROSS JOIN LATERAL pg_identify_object(x.class, x.oid, x.sub) AS i"
    )
}

/// Reads the objects as the session's transaction shows them.
pub async fn read(session: &Session) -> Result<ExtensionObjects, Error> {
    let major = session.server_version_num() / 10_000;
    let mut found: BTreeMap<String, BTreeMap<Name, Told>> = BTreeMap::new();
    for block in blocks(OBJECTS).filter(|block| block.since <= major) {
        let tried = format!("read {} of extensions", block.catalogue);
        for row in session.select(&tried, &query(&block), &[]).await? {
            // It was dropped meanwhile, which makes the backup start over.
            let (Some(kind), Some(name)) = (row.get::<_, Option<String>>(1), row.get::<_, Option<String>>(2))
            else {
                continue;
            };
            let parts: Vec<Option<String>> = row.get(3);
            let of_extension = found.entry(row.get(0)).or_default();
            let (_, known) = of_extension
                .entry((kind.clone(), name.clone()))
                .or_insert_with(|| {
                    let object = CatalogueObject {
                        kind,
                        name,
                        state: String::new(),
                        class: row.get(4),
                        oid: row.get(5),
                        relation: row.get(6),
                    };
                    (object, BTreeSet::new())
                });
            known.extend(parts.into_iter().flatten());
        }
    }
    let joined = |(mut object, parts): Told| {
        object.state = Vec::from_iter(parts).join("; ");
        object
    };
    let objects = found
        .into_iter()
        .map(|(extension, objects)| (extension, objects.into_values().map(joined).collect()));
    Ok(objects.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::contents::TABLESPACE;

    #[test]
    fn every_block_of_the_file_is_read() {
        let found: Vec<Block> = blocks(OBJECTS).collect();
        assert_eq!(found.len(), OBJECTS.matches(";\n").count());
        assert!(found.iter().any(|block| block.since == 14));
    }

    #[test]
    fn where_an_object_lies_is_said_in_the_agreed_words() {
        assert_eq!(OBJECTS.matches(&format!("'{TABLESPACE}'")).count(), 2);
    }
}
