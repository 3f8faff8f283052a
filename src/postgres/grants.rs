//! The SQL that gives a role what a target needs of it, and no more.
//!
//! Each statement can be run again: what is there already stays. Most ask the catalogue themselves, so that they fit a
//! database that was not looked at, and what has been added to it since.

use super::heartbeat::{SCHEMA, SCHEMA_DEFINITION, TABLE, TABLE_DEFINITION};
use super::identifier::{quote_identifier, quote_literal};

/// `pg_read_all_data` is there from here on.
const READ_ALL_DATA: u32 = 14;
/// Default privileges can name large objects from here on.
const DEFAULT_LARGE_OBJECTS: u32 = 18;
/// `pg_read_all_data` covers large objects from here on.
const READ_ALL_LARGE_OBJECTS: u32 = 19;

/// Statements that belong together.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Grant {
    /// What for, in one line.
    pub purpose: String,
    pub sql: String,
}

impl Grant {
    fn new(purpose: impl Into<String>, sql: impl Into<String>) -> Self {
        Self {
            purpose: purpose.into(),
            sql: sql.into(),
        }
    }
}

/// A role that logs in to one database.
pub fn login(role: &str, database: &str) -> Vec<Grant> {
    let (name, text) = (quote_identifier(role), quote_literal(role));
    let create = block(&format!(
        "BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {text}) THEN
        CREATE ROLE {name} LOGIN;
    END IF;
END"
    ));
    let connect = format!(
        "GRANT CONNECT ON DATABASE {} TO {name};",
        quote_identifier(database)
    );
    vec![
        Grant::new(
            format!("The role. Give it a password in psql, where it gets into no file: \\password {name}"),
            create,
        ),
        Grant::new("It may connect.", connect),
    ]
}

/// A role that writes the heartbeat row: the table is made for it, so that it may make nothing itself.
pub fn heartbeat(role: &str) -> Grant {
    let name = quote_identifier(role);
    // As the daemon refuses: such a publication would stop its subscribers at the first row.
    let refusal = block(
        "BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_publication WHERE puballtables) THEN
        RAISE EXCEPTION 'a publication of all tables would carry the heartbeat to subscribers that lack its table, and stop them';
    END IF;
END",
    );
    Grant::new(
        "The heartbeat: one table, which is made here, and the right to write its row.",
        format!(
            "{refusal}\n{SCHEMA_DEFINITION}\n{TABLE_DEFINITION}\n\
             GRANT USAGE ON SCHEMA {SCHEMA} TO {name};\n\
             GRANT SELECT, INSERT, UPDATE ON {SCHEMA}.{TABLE} TO {name};"
        ),
    )
}

/// A role that reads everything, on a server of this major version.
pub fn reading(role: &str, major: u32) -> Vec<Grant> {
    let name = quote_identifier(role);
    let mut grants = Vec::new();
    if major >= READ_ALL_DATA {
        grants.push(Grant::new(
            "It may read all tables, views and sequences: those there are, and those to come.",
            format!("GRANT pg_read_all_data TO {name};"),
        ));
    } else {
        grants.push(Grant::new(
            "It may read all tables, views and sequences there are, and those that roles which own something here will make. Run it again when another role has begun to own something.",
            read_schemas(role),
        ));
    }
    if major < READ_ALL_LARGE_OBJECTS {
        grants.push(Grant::new(
            "It may read the large objects there are: pg_read_all_data does not cover them before PostgreSQL 19.",
            read_large_objects(role),
        ));
    }
    if (DEFAULT_LARGE_OBJECTS..READ_ALL_LARGE_OBJECTS).contains(&major) {
        grants.push(Grant::new(
            "It may read the large objects that roles which own something here will make.",
            default_privileges(role, &["SELECT ON LARGE OBJECTS"]),
        ));
    }
    grants.push(Grant::new(
        "It is shown what must be preloaded in a copy, and the statement of whoever waits for a backup.",
        format!("GRANT pg_read_all_settings, pg_read_all_stats TO {name};"),
    ));
    grants.push(Grant::new(
        "Row-level security hides no rows from it. Nothing happens where no table has it.",
        block(&format!(
            "BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_class WHERE relrowsecurity) THEN
        ALTER ROLE {name} BYPASSRLS;
    END IF;
END"
        )),
    ));
    grants
}

fn read_schemas(role: &str) -> String {
    let text = quote_literal(role);
    let existing = block(&format!(
        "DECLARE
    one name;
BEGIN
    FOR one IN SELECT nspname FROM pg_catalog.pg_namespace
                WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', one, {text});
        EXECUTE pg_catalog.format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', one, {text});
        EXECUTE pg_catalog.format('GRANT SELECT ON ALL SEQUENCES IN SCHEMA %I TO %I', one, {text});
    END LOOP;
END"
    ));
    let kinds = ["USAGE ON SCHEMAS", "SELECT ON TABLES", "SELECT ON SEQUENCES"];
    format!("{existing}\n{}", default_privileges(role, &kinds))
}

fn read_large_objects(role: &str) -> String {
    block(&format!(
        "DECLARE
    one oid;
BEGIN
    FOR one IN SELECT oid FROM pg_catalog.pg_largeobject_metadata LOOP
        EXECUTE pg_catalog.format('GRANT SELECT ON LARGE OBJECT %s TO %I', one, {});
    END LOOP;
END",
        quote_literal(role)
    ))
}

/// Of what every role that owns something here will make.
fn default_privileges(role: &str, kinds: &[&str]) -> String {
    let text = quote_literal(role);
    let each: Vec<String> = kinds
        .iter()
        .map(|kind| {
            format!(
                "        EXECUTE pg_catalog.format('ALTER DEFAULT PRIVILEGES FOR ROLE %I GRANT {kind} TO %I', one, {text});"
            )
        })
        .collect();
    block(&format!(
        "DECLARE
    one name;
BEGIN
    FOR one IN SELECT pg_catalog.pg_get_userbyid(c.relowner)
                 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
               UNION SELECT pg_catalog.pg_get_userbyid(lomowner) FROM pg_catalog.pg_largeobject_metadata
               UNION SELECT pg_catalog.pg_get_userbyid(datdba) FROM pg_catalog.pg_database
                      WHERE datname = pg_catalog.current_database() LOOP
{}
    END LOOP;
END",
        each.join("\n")
    ))
}

/// An anonymous block, between marks that do not occur in it.
fn block(body: &str) -> String {
    let mut mark = "$ernstfall$".to_owned();
    while body.contains(&mark) {
        mark.insert(mark.len() - 1, '_');
    }
    format!("DO {mark}\n{body}\n{mark};")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(grants: &[Grant]) -> String {
        grants.iter().map(|grant| grant.sql.as_str()).collect()
    }

    #[test]
    fn what_is_granted_follows_the_version() {
        let of = |major| all(&reading("backup", major));
        for (major, read_all, default_tables, large_objects, default_large_objects) in [
            (13, false, true, true, false),
            (14, true, false, true, false),
            (17, true, false, true, false),
            (18, true, false, true, true),
            (19, true, false, false, false),
        ] {
            let sql = of(major);
            assert_eq!(sql.contains("pg_read_all_data"), read_all, "{major}");
            assert_eq!(sql.contains("SELECT ON TABLES"), default_tables, "{major}");
            assert_eq!(sql.contains("ON LARGE OBJECT %s"), large_objects, "{major}");
            assert_eq!(sql.contains("ON LARGE OBJECTS"), default_large_objects, "{major}");
        }
    }

    #[test]
    fn no_name_breaks_out_of_its_place() {
        let role = "a\"b'; DROP TABLE x; --$ernstfall$\nc";
        let sql = all(&[login(role, "d\"e"), reading(role, 13), vec![heartbeat(role)]].concat());
        assert!(!sql.contains("\nc"), "{sql}");
        assert!(sql.contains("$ernstfall_$\nBEGIN"), "{sql}");
        assert!(sql.contains("ON DATABASE \"d\"\"e\""), "{sql}");
        assert!(
            sql.contains("'a\"b''; DROP") || sql.contains("U&'a\"b''; DROP"),
            "{sql}"
        );
    }
}
