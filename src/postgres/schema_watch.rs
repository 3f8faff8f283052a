//! Whether the schema stood still while it was dumped.
//!
//! Views, functions and sequences cannot be locked, and pg_dump reads their definitions as they are now, not as the
//! snapshot shows them. So every object of the catalogue that the snapshot shows must still be there, in the same
//! version, after the dump. New objects do not matter: the dump does not see them.

use std::collections::BTreeMap;

use super::error::Error;
use super::session::Session;

/// Catalogues whose rows pg_dump turns into definitions. Tables and their columns are held still by locks.
const CATALOGUES: &[&str] = &[
    "pg_amop",
    "pg_amproc",
    "pg_attrdef",
    "pg_cast",
    "pg_collation",
    "pg_constraint",
    "pg_conversion",
    "pg_default_acl",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_index",
    "pg_language",
    "pg_namespace",
    "pg_opclass",
    "pg_operator",
    "pg_opfamily",
    "pg_policy",
    "pg_proc",
    "pg_publication",
    "pg_range",
    "pg_rewrite",
    "pg_sequence",
    "pg_statistic_ext",
    "pg_trigger",
    "pg_ts_config",
    "pg_ts_dict",
    "pg_ts_parser",
    "pg_ts_template",
    "pg_type",
    "pg_aggregate",
    "pg_enum",
];

/// Objects below this belong to the system (FirstNormalObjectId).
const FIRST_USER_OID: u32 = 16_384;

/// Every object's version, by catalogue and oid.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SchemaVersion(BTreeMap<(String, u32), String>);

/// Reads the versions as the session sees them: in a repeatable-read transaction, those of its snapshot.
pub async fn version(session: &Session) -> Result<SchemaVersion, Error> {
    let queries: Vec<String> = CATALOGUES.iter().map(|catalogue| query(catalogue)).collect();
    let rows = session
        .select(
            "read the versions of the schema",
            &queries.join(" UNION ALL "),
            &[],
        )
        .await?;
    let version = rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2)));
    Ok(SchemaVersion(version.collect()))
}

/// Reads the versions of all tables' columns, which matter where no lock holds them still.
pub async fn columns_version(session: &Session) -> Result<SchemaVersion, Error> {
    let sql = "SELECT 'pg_attribute', a.attrelid,
                      pg_catalog.string_agg(a.attnum || ' ' || a.xmin, ',' ORDER BY a.attnum)
                 FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
                WHERE a.attnum > 0 AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
                  AND a.attrelid >= $1::oid
                GROUP BY a.attrelid";
    let rows = session.select("read the versions of the columns", sql, &[&FIRST_USER_OID]);
    let rows = rows.await?;
    let version = rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2)));
    Ok(SchemaVersion(version.collect()))
}

/// `xmin` names the transaction that wrote the row: any change makes it another one.
///
/// What belongs to other sessions' temporary objects comes and goes, and is never dumped.
fn query(catalogue: &str) -> String {
    let key = match catalogue {
        "pg_index" => "indexrelid",
        "pg_range" => "rngtypid",
        "pg_sequence" => "seqrelid",
        "pg_aggregate" => "aggfnoid::oid",
        _ => "oid",
    };
    let place = match catalogue {
        "pg_attrdef" => Some(("adrelid", RELATION)),
        "pg_index" => Some(("indrelid", RELATION)),
        "pg_policy" => Some(("polrelid", RELATION)),
        "pg_rewrite" => Some(("ev_class", RELATION)),
        "pg_sequence" => Some(("seqrelid", RELATION)),
        "pg_trigger" => Some(("tgrelid", RELATION)),
        "pg_constraint" => Some(("connamespace", NAMESPACE)),
        "pg_proc" => Some(("pronamespace", NAMESPACE)),
        "pg_type" => Some(("typnamespace", NAMESPACE)),
        _ => None,
    };
    let permanent = place
        .map(|(column, temporary)| format!(" AND {column} NOT IN ({temporary})"))
        .unwrap_or_default();
    format!(
        "SELECT '{catalogue}', {key}, xmin::text FROM pg_catalog.{catalogue}
          WHERE {key} >= {FIRST_USER_OID}{permanent}"
    )
}

/// Temporary relations.
const RELATION: &str = "SELECT t.oid FROM pg_catalog.pg_class t WHERE t.relpersistence = 't'";
/// The schemas of temporary objects.
const NAMESPACE: &str = "SELECT t.oid FROM pg_catalog.pg_namespace t WHERE t.nspname ~ '^pg_(toast_)?temp_'";

impl SchemaVersion {
    /// An object that is gone or changed in `later`, by catalogue and oid.
    pub fn first_change(&self, later: &Self) -> Option<String> {
        let changed = self
            .0
            .iter()
            .find(|(object, version)| later.0.get(object) != Some(version));
        changed.map(|((catalogue, oid), _)| {
            format!("an object of {catalogue} (oid {oid}) was changed or dropped")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(objects: &[(&str, u32, &str)]) -> SchemaVersion {
        SchemaVersion(
            objects
                .iter()
                .map(|(c, oid, xmin)| (((*c).into(), *oid), (*xmin).into()))
                .collect(),
        )
    }

    #[test]
    fn a_changed_or_dropped_object_is_seen_and_a_new_one_is_none_of_our_business() {
        let before = version(&[("pg_proc", 1, "7"), ("pg_rewrite", 2, "7")]);
        assert_eq!(
            before.first_change(&version(&[
                ("pg_proc", 1, "7"),
                ("pg_rewrite", 2, "7"),
                ("pg_proc", 3, "9")
            ])),
            None
        );
        assert!(
            before
                .first_change(&version(&[("pg_proc", 1, "8"), ("pg_rewrite", 2, "7")]))
                .is_some()
        );
        assert!(before.first_change(&version(&[("pg_proc", 1, "7")])).is_some());
    }
}
