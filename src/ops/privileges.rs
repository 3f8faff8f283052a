//! What a role must be allowed to read, found out before anything is read.

use crate::postgres::error::Error;
use crate::postgres::identifier::quote_identifier;
use crate::postgres::relations::{Relation, RelationKind};
use crate::postgres::session::Session;

/// Everything in the way, all at once, with the statements that mend it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MissingPrivileges {
    pub problems: Vec<String>,
    pub remedy: Vec<String>,
}

impl MissingPrivileges {
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Adds large objects that the role may not read, by oid.
    pub fn add_large_objects(&mut self, oids: &[u32], role: &str) {
        if oids.is_empty() {
            return;
        }
        let few: Vec<String> = oids
            .iter()
            .take(LARGE_OBJECTS_NAMED)
            .map(u32::to_string)
            .collect();
        let few = few.join(", ");
        let more = match oids.len().saturating_sub(LARGE_OBJECTS_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        self.problems
            .push(format!("no right to read the large objects {few}{more}"));
        self.remedy.push(format!(
            "GRANT SELECT ON LARGE OBJECT {few} TO {};{}",
            quote_identifier(role),
            if more.is_empty() { "" } else { " -- and so on" }
        ));
    }
}

impl std::fmt::Display for MissingPrivileges {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{}; run: {}",
            self.problems.join("; "),
            self.remedy.join(" ")
        )
    }
}

/// How many large objects a message names.
const LARGE_OBJECTS_NAMED: usize = 20;

/// Names every relation that the role may not read, or that row-level security would show it only in part.
pub fn missing(relations: &[Relation], role: &str, server_version_num: i32) -> MissingPrivileges {
    let role = quote_identifier(role);
    let needs_reading = |relation: &&Relation| {
        matches!(
            relation.kind,
            RelationKind::Table | RelationKind::PartitionedTable | RelationKind::Sequence
        )
    };
    let named = |unreadable: &dyn Fn(&Relation) -> bool| -> Vec<String> {
        let found = relations
            .iter()
            .filter(needs_reading)
            .filter(|relation| unreadable(relation));
        found.map(Relation::display_name).collect()
    };
    let mut missing = MissingPrivileges::default();
    let unreadable = named(&|relation| !relation.readable || !relation.schema_usable);
    if !unreadable.is_empty() {
        missing
            .problems
            .push(format!("no right to read {}", unreadable.join(", ")));
        missing.remedy.push(if server_version_num >= 140_000 {
            format!("GRANT pg_read_all_data TO {role};")
        } else {
            grants(relations, &role)
        });
    }
    let hidden = named(&|relation| relation.hides_rows);
    if !hidden.is_empty() {
        missing.problems.push(format!(
            "row-level security would hide rows of {}",
            hidden.join(", ")
        ));
        missing.remedy.push(format!("ALTER ROLE {role} BYPASSRLS;"));
    }
    missing
}

fn grants(relations: &[Relation], role: &str) -> String {
    let schemas: std::collections::BTreeSet<&str> = relations
        .iter()
        .filter(|relation| !relation.readable || !relation.schema_usable)
        .map(|relation| relation.schema.as_str())
        .collect();
    let grant = |schema: &&str| {
        let schema = quote_identifier(schema);
        format!(
            "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}; \
             GRANT SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role};"
        )
    };
    schemas.iter().map(grant).collect::<Vec<_>>().join(" ")
}

/// The role that the session runs as.
pub async fn current_role(session: &Session) -> Result<String, Error> {
    let row = session
        .select_one("read the role's name", "SELECT current_user::text", &[])
        .await?;
    Ok(row.get(0))
}
