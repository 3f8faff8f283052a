//! What cannot exist without certain relations: the server's own dependencies, followed to their end.
//!
//! What depends on something goes with it, as `DROP … CASCADE` would have it: in the ways normal, automatic, internal,
//! and of partitions. What is internal to something takes that along: a view goes with the rule that is its query.
//! Members of extensions stay, since the extension makes them itself.

use std::collections::BTreeMap;

use crate::model::archive_list::ObjectId;

use super::error::Error;
use super::session::Session;

/// The oid of the catalogue `pg_class`, which is the same in every server.
pub const RELATIONS: u32 = 1259;
/// Likewise that of `pg_constraint`.
pub const CONSTRAINTS: u32 = 2606;

/// Something that cannot exist without one of the given relations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependent {
    pub id: ObjectId,
    /// The given relation that it was found from.
    pub because_of: u32,
    /// `view`, `foreign key`, `policy`, …
    pub kind: String,
    pub name: String,
    /// Schema and name of a table, view or sequence: what pg_dump can be told to leave out.
    pub relation: Option<(String, String)>,
    /// It belongs to something else that goes, and goes with it whatever a dump says of it.
    pub part: bool,
    /// It is told by the name of what it belongs to.
    pub implied: bool,
}

/// How an object hangs on others that go.
#[derive(Clone, Copy)]
struct Found {
    because_of: u32,
    part: bool,
    internal: bool,
}

/// One step from the objects known: down to what depends on them, up to what they are internal to.
const STEP: &str = "
    SELECT k.class, k.oid, d.classid, d.objid, d.deptype::text
      FROM ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::oid[])) AS k(class, oid)
      JOIN pg_catalog.pg_depend d ON d.refclassid = k.class AND d.refobjid = k.oid
       AND d.deptype IN ('n', 'a', 'i', 'P', 'S')
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                        WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype = 'e')
    UNION ALL
    SELECT k.class, k.oid, d.refclassid, d.refobjid, 'owner'
      FROM ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::oid[])) AS k(class, oid)
      JOIN pg_catalog.pg_depend d ON d.classid = k.class AND d.objid = k.oid AND d.deptype = 'i'
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_depend e
                        WHERE e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e')";

const NAMES: &str = "
    SELECT k.class, k.oid, CASE WHEN f.contype = 'f' THEN 'foreign key' ELSE i.type END, i.identity,
           n.nspname::text, c.relname::text
      FROM ROWS FROM (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::oid[])) AS k(class, oid)
     CROSS JOIN LATERAL pg_catalog.pg_identify_object(k.class, k.oid, 0) AS i
      LEFT JOIN pg_catalog.pg_constraint f
        ON k.class = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND f.oid = k.oid
      LEFT JOIN pg_catalog.pg_class c
        ON k.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = k.oid
       AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";

/// Kinds that are told by the relation they belong to, when that goes as well.
const IMPLIED: &[&str] = &[
    "default value",
    "domain constraint",
    "foreign key",
    "index",
    "table constraint",
    "toast table",
    "type",
];

/// Follows the dependencies from the given relations, which are not in the result, as the session's transaction shows
/// them.
pub async fn of(session: &Session, relations: &[u32]) -> Result<Vec<Dependent>, Error> {
    const TRIED: &str = "look for what depends on excluded tables";
    let given = |oid: &u32| ObjectId {
        class: RELATIONS,
        oid: *oid,
    };
    let mut found: BTreeMap<ObjectId, Found> = BTreeMap::new();
    for oid in relations {
        let itself = Found {
            because_of: *oid,
            part: false,
            internal: false,
        };
        found.insert(given(oid), itself);
    }
    let mut new: Vec<ObjectId> = found.keys().copied().collect();
    while !new.is_empty() {
        let (classes, oids) = columns(&new);
        new.clear();
        for row in session.select(TRIED, STEP, &[&classes, &oids]).await? {
            let id = |class, oid| ObjectId {
                class: row.get(class),
                oid: row.get(oid),
            };
            let (from, to, how): (_, _, &str) = (id(0, 1), id(2, 3), row.get(4));
            let because_of = found.get(&from).map_or(from.oid, |from| from.because_of);
            let known = found.entry(to).or_insert_with(|| {
                new.push(to);
                Found {
                    because_of,
                    part: false,
                    internal: false,
                }
            });
            known.part |= matches!(how, "a" | "i" | "P" | "S");
            known.internal |= how == "i";
        }
    }
    for oid in relations {
        found.remove(&given(oid));
    }
    named(session, found).await
}

fn columns(objects: &[ObjectId]) -> (Vec<u32>, Vec<u32>) {
    objects.iter().map(|object| (object.class, object.oid)).unzip()
}

async fn named(session: &Session, found: BTreeMap<ObjectId, Found>) -> Result<Vec<Dependent>, Error> {
    let objects: Vec<ObjectId> = found.keys().copied().collect();
    let (classes, oids) = columns(&objects);
    let rows = session
        .select("name what depends on excluded tables", NAMES, &[&classes, &oids])
        .await?;
    let mut dependents = Vec::new();
    for row in rows {
        let id = ObjectId {
            class: row.get(0),
            oid: row.get(1),
        };
        let Some(found) = found.get(&id) else { continue };
        let kind: String = row.get::<_, Option<String>>(2).unwrap_or_default();
        let schema: Option<String> = row.get(4);
        let relation = schema.zip(row.get::<_, Option<String>>(5));
        let name = match &relation {
            Some((schema, name)) => format!("{schema}.{name}"),
            None => row.get::<_, Option<String>>(3).unwrap_or_default(),
        };
        dependents.push(Dependent {
            id,
            because_of: found.because_of,
            part: found.part,
            implied: (found.internal && relation.is_none())
                || (found.part && IMPLIED.contains(&kind.as_str())),
            kind,
            name,
            relation,
        });
    }
    dependents.sort_by(|a, b| (&a.kind, &a.name, a.id).cmp(&(&b.kind, &b.name, b.id)));
    Ok(dependents)
}
