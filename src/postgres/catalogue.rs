//! The objects of a database with what a dump may not show of itself: owners, grants, and which of them are enabled,
//! valid, populated. Read in the source and in the copy, and compared.
//!
//! What belongs to an extension is left out: the extension makes it, in whatever version is installed.

use crate::model::contents::CatalogueObject;

mod kinds;

use super::error::Error;
use super::session::Session;

/// Objects below this belong to the system (FirstNormalObjectId).
const FIRST_USER_OID: u32 = 16_384;

/// One catalogue, and how its objects are told.
struct Catalogue {
    /// Expressions: what kind of object, its name, its state.
    kind: String,
    name: String,
    state: String,
    /// The catalogue's name; the expressions call it `o`.
    catalogue: &'static str,
    /// Further relations of the FROM clause.
    joins: &'static str,
    /// The oid of the relation that the object belongs to.
    relation: &'static str,
    condition: &'static str,
    /// The first major version that has the catalogue.
    since: i32,
}

/// `schema.name` in SQL, for objects in a schema `n`.
fn in_schema(name: &str) -> String {
    format!("n.nspname || '.' || {name}")
}

/// What is said of an owner, in SQL.
fn owner(column: &str) -> String {
    format!("'owner ' || pg_catalog.pg_get_userbyid({column})")
}

/// Grants in an order of their own. Default grants are written out, since a dump does not tell them from none; who
/// granted is left out, since the same right may come from another role after a restore.
fn grants(acl: &str, kind: char, owner: &str) -> String {
    format!(
        "'; grants ' || coalesce((SELECT pg_catalog.string_agg(DISTINCT
             CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(x.grantee)::text END COLLATE \"C\"
             || ' ' || x.privilege_type || CASE WHEN x.is_grantable THEN '*' ELSE '' END, ', ')
           FROM pg_catalog.aclexplode(coalesce({acl}, pg_catalog.acldefault('{kind}', {owner}))) AS x), 'none')"
    )
}

/// An enumeration's word in SQL: `('O', 'enabled')` and so on.
fn word(column: &str, words: &[(&str, &str)]) -> String {
    let whens: Vec<String> = words
        .iter()
        .map(|(value, word)| format!("WHEN '{value}' THEN '{word}'"))
        .collect();
    format!("CASE {column}::text {} ELSE {column}::text END", whens.join(" "))
}

impl Catalogue {
    fn query(&self) -> String {
        let Self {
            kind,
            name,
            state,
            catalogue,
            joins,
            relation,
            condition,
            ..
        } = self;
        let temporary = if joins.contains(" n ON") {
            "AND coalesce(n.nspname, '') !~ '^pg_(toast|temp)' AND coalesce(n.nspname, '') NOT IN ('pg_catalog', 'information_schema')"
        } else {
            ""
        };
        // The schema public is made with the database, and may have been changed since.
        let user = if *catalogue == "pg_namespace" {
            format!("(o.oid >= {FIRST_USER_OID} OR o.nspname = 'public')")
        } else {
            format!("o.oid >= {FIRST_USER_OID}")
        };
        format!(
            "SELECT ({kind})::text, ({name})::text, ({state})::text, 'pg_catalog.{catalogue}'::pg_catalog.regclass::oid, o.oid, {relation}
               FROM pg_catalog.{catalogue} o {joins}
              WHERE {user} AND ({condition}) {temporary}
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.deptype = 'e'
                     AND ((d.classid = 'pg_catalog.{catalogue}'::pg_catalog.regclass AND d.objid = o.oid)
                       OR (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = {relation})))"
        )
    }
}

/// Reads the objects as the session's transaction shows them, in an order of their own.
pub async fn read(session: &Session) -> Result<Vec<CatalogueObject>, Error> {
    let major = session.server_version_num() / 10_000;
    let mut objects = Vec::new();
    for catalogue in kinds::of_relations()
        .into_iter()
        .chain(kinds::in_schemas())
        .chain(kinds::of_database())
    {
        if catalogue.since > major {
            continue;
        }
        let tried = format!("read {}", catalogue.catalogue);
        for row in session.select(&tried, &catalogue.query(), &[]).await? {
            objects.push(CatalogueObject {
                kind: row.get(0),
                name: row.get(1),
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
