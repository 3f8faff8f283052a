//! The schema, and what belongs to it: roles, sequences, extensions, the database's own facts.

use crate::model::archive_list::ObjectId;
use crate::model::contents::{CatalogueObject, DatabaseFacts, Extension, NotCovered, Part, Sequence};
use crate::ops::fault_point::pause;
use crate::ops::target::Target;
use crate::postgres::ChildConnection;
use crate::postgres::dump::{self, DumpRequest, SchemaArchive};
use crate::postgres::error::ErrorKind;
use crate::postgres::identifier::Quoting;
use crate::postgres::roles::{self, Roles};
use crate::postgres::session::Session;
use crate::postgres::snapshot::Exporter;
use crate::postgres::{
    archive, catalogue, extensions, facts, not_covered, parts, schema_watch, sequences, system_schemas,
};

use super::excluded::Excluded;
use super::plan::{Plan, Seen};
use super::prepare::Prepared;
use super::{BackupError, watch};

/// Everything about the schema, read right after the export.
pub(super) struct Schema {
    pub(super) archive: SchemaArchive,
    /// By which pg_restore leaves out what the archive holds and the backup does not.
    pub(super) list: Option<String>,
    pub(super) roles: Roles,
    pub(super) database: DatabaseFacts,
    pub(super) extensions: Vec<Extension>,
    pub(super) sequences: Vec<Sequence>,
    pub(super) tablespaces: Vec<String>,
    pub(super) catalogue: Vec<CatalogueObject>,
    pub(super) parts: Vec<Part>,
}

/// How names are written in statements of sessions that speak the database's own encoding.
pub(super) async fn quoting(guard: &Session) -> Result<Quoting, BackupError> {
    Ok(Quoting::for_encoding(&facts::encoding(guard).await?))
}

/// What the plan is made from.
pub(super) fn seen<'a>(exporter: &'a Exporter, excluded: &'a Excluded) -> Seen<'a> {
    Seen {
        relations: &exporter.relations,
        columns: &exporter.columns,
        partitions: &exporter.partitions,
        excluded,
    }
}

/// Dumps the schema and reads what belongs to it; everything must have stood still meanwhile.
pub(super) async fn read_schema(
    target: &Target,
    prepared: &Prepared,
    exporter: &Exporter,
    excluded: &Excluded,
    plan: &Plan,
    child: &ChildConnection,
) -> Result<Schema, BackupError> {
    let before = schema_watch::version(&exporter.session).await?;
    let schema = dump_schema(target, prepared, exporter, excluded, plan, child).await;
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
    excluded: &Excluded,
    plan: &Plan,
    child: &ChildConnection,
) -> Result<Schema, BackupError> {
    let application = format!("ernstfall pg_dump {}", exporter.snapshot_name);
    let request = DumpRequest {
        installation: &prepared.installation,
        connection: child,
        on: prepared.guard.description(),
        snapshot_name: Some(&exporter.snapshot_name),
        application: &application,
        lock_timeout: target.lock_timeout,
        options: dump::options(&exporter.session).await?,
        exclude: excluded.for_pg_dump(),
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
    let roles = roles::read(&exporter.session, prepared.passwords).await?;
    archive
        .not_covered
        .extend(not_covered::list(&exporter.session, &roles.names, prepared.passwords).await?);
    archive
        .not_covered
        .extend(in_system_schemas(excluded, exporter).await?);
    Ok(Schema {
        list: restore_list(target, prepared, excluded, &archive).await?,
        archive,
        roles,
        database: facts::database(&exporter.session).await?,
        extensions: extensions(excluded, exporter).await?,
        tablespaces: facts::tablespaces(&exporter.session).await?,
        catalogue: catalogue(excluded, exporter).await?,
        parts: parts::list(&exporter.session).await?,
        sequences: sequences::read(&prepared.guard, &plan.sequences).await?,
    })
}

/// The catalogue without what the target leaves out.
async fn catalogue(excluded: &Excluded, exporter: &Exporter) -> Result<Vec<CatalogueObject>, BackupError> {
    let mut objects = catalogue::read(&exporter.session).await?;
    objects.retain(|object| !excluded.object(object));
    Ok(objects)
}

/// The extensions; of their objects, without what is named since it depends on what the target leaves out.
async fn extensions(excluded: &Excluded, exporter: &Exporter) -> Result<Vec<Extension>, BackupError> {
    let mut extensions = extensions::list(&exporter.session, &exporter.relations).await?;
    for extension in &mut extensions {
        extension.objects.retain(|object| {
            let (class, oid) = (object.class, object.oid);
            !excluded.depends(ObjectId { class, oid })
        });
    }
    Ok(extensions)
}

/// What lies in the system's own schemas, unless it is named already.
async fn in_system_schemas(excluded: &Excluded, exporter: &Exporter) -> Result<Vec<NotCovered>, BackupError> {
    let mut objects = system_schemas::list(&exporter.session).await?;
    objects.retain(|(id, _)| !excluded.depends(*id));
    Ok(objects.into_iter().map(|(_, not_covered)| not_covered).collect())
}

/// The list by which pg_restore leaves out what the target does, where pg_dump could not be told to.
async fn restore_list(
    target: &Target,
    prepared: &Prepared,
    excluded: &Excluded,
    archive: &SchemaArchive,
) -> Result<Option<String>, BackupError> {
    if excluded.relations().is_empty() {
        return Ok(None);
    }
    let entries = archive::list(&prepared.installation, &archive.bytes).await?;
    excluded
        .restore_list(&entries)
        .map_err(|needs| BackupError::ExcludedIsInside {
            target: target.name.to_string(),
            needs: needs.join(", "),
        })
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
