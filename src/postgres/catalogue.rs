//! The objects of a database with what a dump may not show of itself: owners, grants, and which of them are enabled,
//! valid, populated. Read in the source and in the copy, and compared.
//!
//! What belongs to an extension is left out: the extension makes it, in whatever version is installed.

use crate::model::contents::CatalogueObject;

use super::error::Error;
use super::facts;
use super::session::Session;

/// The kinds of objects, and what is said of them.
const OBJECTS: &str = include_str!("catalogue/objects.sql");

/// Objects below this belong to the system (FirstNormalObjectId).
const FIRST_USER_OID: u32 = 16_384;

/// The objects of one catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block<'a> {
    pub(super) catalogue: &'a str,
    /// The first major version that has it.
    pub(super) since: i32,
    /// Only a superuser may read it.
    pub(super) for_superusers: bool,
    pub(super) query: &'a str,
}

/// The blocks of a file as `objects.sql` describes it.
pub(super) fn blocks(file: &str) -> impl Iterator<Item = Block<'_>> {
    file.split("\n\n").filter_map(|block| {
        let (head, query) = block.trim().strip_prefix("-- ")?.split_once('\n')?;
        let (head, for_superusers) = match head.strip_suffix(" for superusers") {
            Some(head) => (head, true),
            None => (head, false),
        };
        let (catalogue, since) = head.split_once(" since ").unwrap_or((head, "0"));
        Some(Block {
            catalogue: catalogue.strip_prefix("pg_").map(|_| catalogue)?,
            since: since.parse().ok()?,
            for_superusers,
            query: query.trim_end_matches(';'),
        })
    })
}

impl Block<'_> {
    /// Adds owner and grants, and leaves out what is the system's, temporary or an extension's.
    ///
    /// Default grants are written out, since a dump does not tell them from none; who granted is left out, since the
    /// same right may come from another role after a restore. The schema public is made with the database.
    fn query(&self) -> String {
        let Self { catalogue, query, .. } = self;
        format!(
            "SELECT x.kind::text, x.name::text,
                    concat_ws('; ', 'owner ' || (SELECT r.rolname FROM pg_roles r WHERE r.oid = x.owner::oid),
                        'grants ' || CASE WHEN x.grants_on IS NOT NULL THEN coalesce((
                            SELECT string_agg(DISTINCT
                                coalesce((SELECT r.rolname FROM pg_roles r WHERE r.oid = a.grantee), 'PUBLIC') COLLATE \"C\"
                                || ' ' || a.privilege_type || CASE WHEN a.is_grantable THEN '*' ELSE '' END, ', ')
                              FROM aclexplode(coalesce(x.grants::aclitem[], acldefault(x.grants_on::\"char\", x.owner::oid))) AS a), 'none') END,
                        nullif(x.state, '')),
                    '{catalogue}'::regclass::oid, x.oid, x.relation::oid
               FROM ({query})
                    AS x(oid, kind, name, schema, owner, grants, grants_on, state, relation)
              WHERE (x.oid >= {FIRST_USER_OID} OR (x.kind = 'schema' AND x.name = 'public'))
                AND coalesce(x.schema, '') !~ '^pg_' AND coalesce(x.schema, '') <> 'information_schema'
                AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e'
                     AND ((d.classid = '{catalogue}'::regclass AND d.objid = x.oid)
                       OR (d.classid = 'pg_class'::regclass AND d.objid = x.relation::oid)))"
        )
    }
}

/// Reads the objects as the session's transaction shows them, in an order of their own.
pub async fn read(session: &Session) -> Result<Vec<CatalogueObject>, Error> {
    let major = session.server_version_num() / 10_000;
    let mut objects = Vec::new();
    let superuser = facts::role_powers(session).await?.superuser;
    let readable = |block: &Block<'_>| block.since <= major && (superuser || !block.for_superusers);
    for block in blocks(OBJECTS).filter(readable) {
        let tried = format!("read {}", block.catalogue);
        for row in session.select(&tried, &block.query(), &[]).await? {
            // Its name is looked up as it is now: it was dropped meanwhile, which makes the backup start over.
            let Some(name) = row.get::<_, Option<String>>(1) else {
                continue;
            };
            objects.push(CatalogueObject {
                kind: row.get(0),
                name,
                state: row.get(2),
                class: row.get(3),
                oid: row.get(4),
                relation: row.get(5),
            });
        }
    }
    objects.sort();
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::contents::{IN_TABLESPACE, OF_THE_DATABASE};

    #[test]
    fn every_block_of_the_file_is_read() {
        let found: Vec<Block> = blocks(OBJECTS).collect();
        assert_eq!(found.len(), OBJECTS.matches(";\n").count());
        assert!(found.iter().any(|block| block.since == 15));
        assert!(found.iter().any(|block| block.for_superusers));
        assert!(found.iter().all(|block| block.query.contains("FROM pg_")));
    }

    #[test]
    fn where_an_object_lies_is_said_in_the_agreed_words() {
        assert!(
            OBJECTS.contains(&format!("'{IN_TABLESPACE}'"))
                && OBJECTS.contains(&format!("'{OF_THE_DATABASE}'"))
        );
    }
}
