//! What a restore of tables would do.

use serde::Serialize;

use crate::model::manifest::RecoveryPoint;
use crate::model::record::RestoredTables;
use crate::model::target_name::TargetName;
use crate::ops::context::Context;
use crate::ops::restore::RestoreError;
use crate::postgres::conninfo::ConnectionSettings;

use super::indexes::Statement;
use super::place::State;
use super::prepare::{Prepared, prepare};
use super::{Options, of_given_database};

/// What of a table is never brought, whether it has it or not.
const NEVER_BROUGHT: &[&str] = &[
    "defaults and identity (their columns are plain ones)",
    "CHECK constraints and foreign keys",
    "triggers, rules and row-level security policies",
    "grants, comments and the owner (the role that restores owns the tables)",
    "tablespaces and storage settings",
    "large objects that rows point to",
];

/// What a restore of tables would do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub target: TargetName,
    pub backup: String,
    pub recovery_point: RecoveryPoint,
    pub destination: String,
    pub server_version: String,
    /// The tables, and the schema to make for them.
    pub tables: RestoredTables,
    pub rows: u64,
    /// COPY text of these tables.
    pub bytes: u64,
    /// Data objects to read from the repository, and their size as stored; other tables may share them.
    pub objects: u64,
    pub stored_bytes: u64,
    pub indexes: Vec<String>,
    pub steps: Vec<String>,
    pub never_brought: Vec<String>,
    /// What is missing; the restore is refused while there is anything.
    pub lacking: Vec<String>,
}

/// Looks at the backup and the destination, and changes nothing.
///
/// # Errors
/// When there is no such backup or table, it cannot be read, or the schema is there already.
pub async fn plan(
    context: &Context,
    target: &TargetName,
    to: &ConnectionSettings,
    options: &Options,
) -> Result<Plan, RestoreError> {
    let prepared = prepare(context, target, to, options, "plan").await;
    let prepared = prepared.map_err(of_given_database)?;
    let manifest = &prepared.backup.manifest;
    let facts = prepared.facts();
    let objects = prepared.objects();
    Ok(Plan {
        target: target.clone(),
        backup: manifest.id.to_string(),
        recovery_point: manifest.recovery_point,
        destination: prepared.session.description().to_owned(),
        server_version: prepared.session.server_version().to_owned(),
        rows: facts.tables.iter().map(|table| table.rows).sum(),
        bytes: prepared.bytes(),
        objects: objects.len() as u64,
        stored_bytes: objects.iter().map(|object| object.size_bytes).sum(),
        indexes: prepared
            .additions
            .statements
            .iter()
            .map(Statement::what)
            .collect(),
        steps: steps(&prepared, &facts, options),
        never_brought: NEVER_BROUGHT.iter().map(|text| (*text).to_owned()).collect(),
        tables: facts,
        lacking: prepared.lacking,
    })
}

fn steps(prepared: &Prepared, facts: &RestoredTables, options: &Options) -> Vec<String> {
    let rows: u64 = facts.tables.iter().map(|table| table.rows).sum();
    let mut steps = Vec::new();
    if matches!(prepared.state, State::Unfinished { .. }) {
        steps.push(format!(
            "remove what a broken restore left in the schema {}",
            facts.schema
        ));
    }
    steps.push(format!(
        "make the schema {} with {} tables and {} views",
        facts.schema,
        facts.tables.len(),
        facts.views.len()
    ));
    steps.push(format!("load {rows} rows with {} connections", options.jobs));
    steps.push(format!(
        "build {} indexes and constraints",
        prepared.additions.statements.len()
    ));
    steps.push("analyze".to_owned());
    steps.push("compare every table with what the source had sent".to_owned());
    steps
}
