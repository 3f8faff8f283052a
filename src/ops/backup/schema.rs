//! The schema, and what belongs to it: roles, sequences, extensions, the database's own facts.

use crate::model::contents::{CatalogueObject, DatabaseFacts, Extension, Sequence};
use crate::ops::fault_point::pause;
use crate::ops::target::Target;
use crate::postgres::ChildConnection;
use crate::postgres::dump::{self, DumpRequest, SchemaArchive};
use crate::postgres::error::ErrorKind;
use crate::postgres::identifier::Quoting;
use crate::postgres::roles::{self, Roles};
use crate::postgres::session::Session;
use crate::postgres::snapshot::Exporter;
use crate::postgres::{catalogue, facts, not_covered, schema_watch, sequences};

use super::plan::{self, Plan, Seen};
use super::prepare::Prepared;
use super::{BackupError, watch};

/// Everything about the schema, read right after the export.
pub(super) struct Schema {
    pub(super) archive: SchemaArchive,
    pub(super) roles: Roles,
    pub(super) database: DatabaseFacts,
    pub(super) extensions: Vec<Extension>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) tablespaces: Vec<String>,
    pub(super) catalogue: Vec<CatalogueObject>,
}

/// How names are written in statements of sessions that speak the database's own encoding.
pub(super) async fn quoting(guard: &Session) -> Result<Quoting, BackupError> {
    Ok(Quoting::for_encoding(&facts::encoding(guard).await?))
}

/// What the plan is made from.
pub(super) fn seen(exporter: &Exporter) -> Seen<'_> {
    Seen {
        relations: &exporter.relations,
        columns: &exporter.columns,
        partitions: &exporter.partitions,
    }
}

/// Dumps the schema and reads what belongs to it; everything must have stood still meanwhile.
pub(super) async fn read_schema(
    target: &Target,
    prepared: &Prepared,
    exporter: &Exporter,
    plan: &Plan,
    child: &ChildConnection,
) -> Result<Schema, BackupError> {
    let before = schema_watch::version(&exporter.session).await?;
    let schema = dump_schema(target, prepared, exporter, plan, child).await;
    pause("before-schema-check").await;
    let after = schema_watch::version(&prepared.guard).await?;
    // A change explains a failed dump as well: pg_dump stumbles over a view that was dropped under it.
    match before.first_change(&after) {
        Some(change) => Err(BackupError::SchemaMoved(change)),
        None => schema,
    }
}

async fn dump_schema(
    target: &Target,
    prepared: &Prepared,
    exporter: &Exporter,
    plan: &Plan,
    child: &ChildConnection,
) -> Result<Schema, BackupError> {
    let exclude = exporter
        .relations
        .iter()
        .filter(|relation| plan::excluded(target, relation))
        .map(|relation| (relation.schema.clone(), relation.name.clone()));
    let application = format!("ernstfall pg_dump {}", exporter.snapshot_name);
    let request = DumpRequest {
        installation: &prepared.installation,
        connection: child,
        on: prepared.guard.description(),
        snapshot_name: Some(&exporter.snapshot_name),
        application: &application,
        lock_timeout: target.lock_timeout,
        options: dump::options(&exporter.session).await?,
        exclude: exclude.collect(),
    };
    let dumped = tokio::select! {
        dumped = dump::schema(&request) => dumped,
        error = watch::stuck(&prepared.guard, &application, target.lock_timeout) => return Err(error),
    };
    let mut archive = match dumped {
        Err(error) if error.kind() == ErrorKind::LockTimeout => {
            return Err(BackupError::SchemaMoved(format!(
                "a statement waits for a lock we hold: {error}"
            )));
        }
        other => other?,
    };
    let roles = roles::read(&exporter.session).await?;
    archive
        .not_covered
        .extend(not_covered::list(&exporter.session, &roles.names).await?);
    Ok(Schema {
        archive,
        roles,
        database: facts::database(&exporter.session).await?,
        extensions: facts::extensions(&exporter.session).await?,
        tablespaces: facts::tablespaces(&exporter.session).await?,
        catalogue: catalogue(target, exporter).await?,
        sequences: sequences::read(&prepared.guard, &plan.sequences).await?,
    })
}

/// The catalogue without what the target leaves out.
async fn catalogue(target: &Target, exporter: &Exporter) -> Result<Vec<CatalogueObject>, BackupError> {
    let excluded = plan::excluded_tables(target, &exporter.relations);
    let mut objects = catalogue::read(&exporter.session).await?;
    objects.retain(|object| !excluded.contains(&object.relation));
    Ok(objects)
}

/// Columns can be swapped by name, or change their types without a rewrite: only a lock would have kept them.
pub(super) async fn columns_stood_still(exporter: &Exporter, prepared: &Prepared) -> Result<(), BackupError> {
    let before = schema_watch::columns_version(&exporter.session).await?;
    let after = schema_watch::columns_version(&prepared.guard).await?;
    match before.first_change(&after) {
        Some(change) => Err(BackupError::SchemaMoved(change)),
        None => Ok(()),
    }
}
