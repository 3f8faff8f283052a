//! Making a database again: roles, schema, rows, indexes and constraints, the rest, statistics.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::model::contents::{DatabaseFacts, LoadStage};
use crate::ops::context::Context;
use crate::ops::fault_point::pause;
use crate::ops::phases::Phases;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::dump::{self, Existing, RestoreRequest, Tablespaces};
use crate::postgres::error::Error;
use crate::postgres::identifier::{Quoting, quote_identifier, quote_literal};
use crate::postgres::programs::Installation;
use crate::postgres::session::Session;
use crate::postgres::settings::sets_the_comment;
use crate::postgres::silence::Silence;
use crate::postgres::statistics;

use super::late_keys::LateKeys;
use super::left_out::LeftOut;
use super::load::{self, Load};
use super::marker::Marker;
pub(in crate::ops) use super::source::Backup;
use super::{RestoreError, files, refresh};

/// Where a backup is restored to.
pub(in crate::ops) struct Destination {
    /// To the database that is being made; it must exist and be empty by the time of the schema.
    pub(in crate::ops) connection: ConnectionSettings,
    pub(in crate::ops) on: String,
    pub(in crate::ops) installation: Installation,
    pub(in crate::ops) jobs: usize,
    /// For the schema archive, which pg_restore wants as a file to work in parallel, and for its password file.
    pub(in crate::ops) directory: PathBuf,
    pub(in crate::ops) powers: Powers,
    pub(in crate::ops) tablespaces: Tablespaces,
    /// Only in a real restore.
    pub(super) marker: Option<Marker>,
    /// The database's comment says whose it is, and must stay.
    pub(in crate::ops) keeps_its_comment: bool,
}

/// What the restoring role may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops) enum Powers {
    /// Ordinary event triggers and triggers are kept from firing.
    Superuser,
    Ordinary,
}

impl Powers {
    pub(in crate::ops) fn of(superuser: bool) -> Self {
        if superuser {
            Self::Superuser
        } else {
            Self::Ordinary
        }
    }

    /// Settings of pg_restore's sessions. What the source's database sets must not reach them.
    fn options(self) -> &'static str {
        match self {
            Self::Superuser => {
                "-c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0 -c lc_monetary=C -c session_replication_role=replica -c client_min_messages=warning"
            }
            Self::Ordinary => {
                "-c default_transaction_read_only=off -c statement_timeout=0 -c lock_timeout=0 -c lc_monetary=C -c client_min_messages=warning"
            }
        }
    }

    /// The first statement of sessions that load rows or finish.
    pub(in crate::ops) fn preparation(self) -> &'static str {
        match self {
            Self::Superuser => "SET session_replication_role = replica",
            Self::Ordinary => "SELECT 1",
        }
    }

    /// How the event triggers that are there now are kept from firing in a statement.
    pub(super) async fn silence(self, session: &Session, quoting: Quoting) -> Result<Silence, Error> {
        match self {
            Self::Superuser => Silence::of(session, quoting).await,
            Self::Ordinary => Ok(Silence::default()),
        }
    }
}

impl Destination {
    pub(in crate::ops) fn new(
        connection: ConnectionSettings,
        installation: Installation,
        jobs: usize,
        directory: PathBuf,
        powers: Powers,
    ) -> Self {
        let on = connection.describe();
        Self {
            connection,
            on,
            installation,
            jobs,
            directory,
            powers,
            tablespaces: Tablespaces::AsInSource,
            marker: None,
            keeps_its_comment: false,
        }
    }

    /// The backup's schema, where it lies while it is restored and compared.
    pub(in crate::ops) fn archive(&self) -> PathBuf {
        self.directory.join("schema.dump")
    }

    /// The list by which pg_restore leaves out some of it.
    pub(in crate::ops) fn list(&self, left_out: &LeftOut) -> Option<PathBuf> {
        left_out.list().map(|_| self.directory.join("schema.list"))
    }
}

/// Makes the roles of the backup where they are missing.
pub(in crate::ops) async fn roles(backup: &Backup, session: &Session) -> Result<(), RestoreError> {
    for statement in backup.reader.statements(&backup.manifest.roles).await? {
        session.batch("make the roles", &statement).await?;
    }
    Ok(())
}

/// `CREATE DATABASE` with the source's encoding and locale.
pub(in crate::ops) fn create_database_statement(
    database: &DatabaseFacts,
    name: &str,
    server_version_num: i32,
) -> String {
    let mut sql = format!(
        "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
        quote_identifier(name),
        quote_identifier(&database.owner),
        quote_literal(&database.encoding),
        quote_literal(&database.collate),
        quote_literal(&database.ctype),
    );
    if server_version_num >= 150_000 {
        sql.push_str(&format!(" LOCALE_PROVIDER {}", database.locale_provider));
        match (database.locale_provider.as_str(), &database.locale) {
            ("icu", Some(locale)) => sql.push_str(&format!(" ICU_LOCALE {}", quote_literal(locale))),
            ("builtin", Some(locale)) => sql.push_str(&format!(" BUILTIN_LOCALE {}", quote_literal(locale))),
            _ => {}
        }
        if let Some(rules) = &database.icu_rules {
            sql.push_str(&format!(" ICU_RULES {}", quote_literal(rules)));
        }
    }
    sql
}

/// The step that makes the tables, as pg_restore and the marker call it.
pub(super) const PRE_DATA: &str = "pre-data";
const POST_DATA: &str = "post-data";

/// Restores everything into the empty database, phase by phase.
pub(in crate::ops) async fn restore(
    context: &Context,
    backup: &Backup,
    destination: &Destination,
    phases: &mut Phases<'_>,
) -> Result<(), RestoreError> {
    phases.begin("schema");
    pause("restore-schema").await;
    put_schema(backup, destination).await?;
    let list = destination.list(&backup.left_out);
    drop_schema_public(backup, destination).await?;
    let pre_data = section(destination, list.as_deref(), PRE_DATA, 1, Existing::Error);
    step(destination, PRE_DATA, pre_data).await?;

    phases.begin("data");
    pause("restore-data").await;
    context.progress.expect_bytes(backup.manifest.totals.bytes);
    rows(context, backup, destination, LoadStage::BeforeIndexes).await?;

    phases.begin("indexes");
    pause("restore-indexes").await;
    let late = LateKeys::find(backup, destination, list.as_deref()).await?;
    let before = late.as_ref().map(|late| late.others.as_path());
    post_data(destination, before.or(list.as_deref()), POST_DATA).await?;

    phases.begin("finish");
    pause("restore-finish").await;
    rows(context, backup, destination, LoadStage::AfterIndexes).await?;
    if let Some(late) = late {
        post_data(destination, Some(late.keys.as_path()), "late foreign keys").await?;
    }
    let session = Session::connect(&destination.connection, "restore", None).await?;
    session
        .batch("prepare the connection", destination.powers.preparation())
        .await?;
    large_objects(backup, destination, &session).await?;
    for statement in backup.reader.statements(&backup.manifest.sequences).await? {
        if (destination.keeps_its_comment && sets_the_comment(&statement))
            || backup.left_out.statement(&statement)
        {
            continue;
        }
        session.batch("set sequences and settings", &statement).await?;
    }
    let silence = destination.powers.silence(&session, Quoting::Utf8).await?;
    let analyze = statistics::analyze_statement(&session).await?;
    // A new connection, under the settings that the database now has: functions in views and indexes may need them.
    let session = Session::connect(&destination.connection, "restore", None).await?;
    session.batch("prepare the connection", THEIR_SETTINGS).await?;
    session
        .batch("prepare the connection", destination.powers.preparation())
        .await?;
    refresh::refresh(&session, &silence, &backup.contents).await?;

    phases.begin("analyze");
    session.batch("analyze", &analyze).await?;
    Ok(())
}

/// Writes the schema's archive to where pg_restore can read it, and the list of what of it is restored.
async fn put_schema(backup: &Backup, destination: &Destination) -> Result<(), RestoreError> {
    let archive = backup.reader.read(&backup.manifest.schema).await?;
    let list = destination.list(&backup.left_out).zip(backup.left_out.list());
    let list = list.map(|(path, list)| (path, list.as_bytes().to_vec()));
    for (path, bytes) in [(destination.archive(), archive)].into_iter().chain(list) {
        files::write(&path, bytes).await?;
    }
    Ok(())
}

/// The schema public comes with every new database; a source may have dropped it. In a database of somebody else's making
/// it stays.
async fn drop_schema_public(backup: &Backup, destination: &Destination) -> Result<(), RestoreError> {
    let mut schemas = backup
        .contents
        .catalogue
        .iter()
        .filter(|object| object.kind == "schema");
    // A backup of the first version lists none.
    let unknown = backup.contents.catalogue.is_empty();
    if destination.marker.is_some() || unknown || schemas.any(|schema| schema.name == "public") {
        return Ok(());
    }
    let session = Session::connect(&destination.connection, "restore", None).await?;
    let statement = "DROP SCHEMA IF EXISTS public";
    Ok(session
        .batch("drop the schema public, which the source has not", statement)
        .await?)
}

/// The settings that the application's sessions would have, but for what could stop us: queries in views and indexes
/// may depend on any other.
const THEIR_SETTINGS: &str = "RESET ALL; SET statement_timeout = 0; SET lock_timeout = 0; \
     SET idle_in_transaction_session_timeout = 0; SET default_transaction_read_only = off; SET jit = off";

/// Does a step unless the marker says that it is done, and notes it. It connects anew for each word: a connection that
/// idles while indexes are built may be cut by whatever stands between.
async fn step(
    destination: &Destination,
    name: &str,
    work: impl Future<Output = Result<(), RestoreError>>,
) -> Result<(), RestoreError> {
    if let Some(marker) = &destination.marker
        && Marker::has(&marker.session().await?, name).await?
    {
        return Ok(());
    }
    work.await?;
    if let Some(marker) = &destination.marker {
        Marker::note(&marker.session().await?, name).await?;
    }
    Ok(())
}

/// Builds indexes and constraints. When an earlier try broke in the middle, what it has built is kept; the comparison of
/// the schema at the end proves that nothing is missing.
async fn post_data(destination: &Destination, list: Option<&Path>, name: &str) -> Result<(), RestoreError> {
    let mut existing = Existing::Error;
    if let Some(marker) = &destination.marker {
        // Noted before the step begins: from then on some of its objects may be there.
        let begun = format!("{name} begun");
        let session = marker.session().await?;
        if Marker::has(&session, &begun).await? {
            existing = Existing::Keep;
        }
        Marker::note(&session, &begun).await?;
    }
    let work = section(destination, list, POST_DATA, destination.jobs, existing);
    step(destination, name, work).await
}

async fn section(
    destination: &Destination,
    list: Option<&Path>,
    section: &str,
    jobs: usize,
    existing: Existing,
) -> Result<(), RestoreError> {
    let connection = destination.connection.for_child(&destination.directory)?;
    let archive = destination.archive();
    let request = RestoreRequest {
        installation: &destination.installation,
        connection: &connection,
        on: &destination.on,
        archive: &archive,
        list,
        section,
        jobs,
        existing,
        tablespaces: destination.tablespaces,
        options: destination.powers.options(),
    };
    dump::restore_section(&request)
        .await
        .map_err(|error| RestoreError::Program {
            error: Box::new(error),
            logged: None,
        })
}

async fn rows(
    context: &Context,
    backup: &Backup,
    destination: &Destination,
    stage: LoadStage,
) -> Result<(), RestoreError> {
    let load = Load {
        reader: backup.reader.clone(),
        progress: Arc::clone(&context.progress),
        connection: destination.connection.clone(),
        contents: Arc::clone(&backup.contents),
        stage,
        powers: destination.powers,
        into: None,
        marker: destination.marker.clone(),
    };
    load::load(load, &backup.manifest.data, destination.jobs).await
}

/// Each stored object in a transaction of its own, which also notes it: every large object takes a lock in it.
async fn large_objects(
    backup: &Backup,
    destination: &Destination,
    session: &Session,
) -> Result<(), RestoreError> {
    let silence = destination.powers.silence(session, Quoting::Utf8).await?;
    for object in &backup.manifest.large_objects {
        let step = format!("large objects {}", object.key);
        if destination.marker.is_some() && Marker::has(session, &step).await? {
            continue;
        }
        session.batch("begin", "BEGIN").await?;
        session.batch("silence event triggers", &silence.before).await?;
        for statement in backup.reader.statements(object).await? {
            session.batch("restore the large objects", &statement).await?;
        }
        if destination.marker.is_some() {
            Marker::note(session, &step).await?;
        }
        session
            .batch("give event triggers their voice back", &silence.after)
            .await?;
        session.batch("commit", "COMMIT").await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_made_with_the_locale_of_its_source() {
        let mut facts: DatabaseFacts = serde_json::from_value(serde_json::json!({
            "name": "shop", "owner": "o\"x", "bootstrap_role": "postgres", "encoding": "UTF8",
            "locale_provider": "libc", "collate": "de_DE.UTF-8", "ctype": "C", "locale": null, "icu_rules": null,
            "collation_version": null, "server_version": "15.1", "server_version_num": 150001,
            "shared_preload_libraries": "", "size_bytes": 1, "settings": [], "grants": null, "comment": null
        }))
        .unwrap();
        assert_eq!(
            create_database_statement(&facts, "shop", 140_000),
            "CREATE DATABASE \"shop\" OWNER \"o\"\"x\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'de_DE.UTF-8' LC_CTYPE 'C'"
        );
        facts.locale_provider = "icu".into();
        facts.locale = Some("de-AT".into());
        assert!(
            create_database_statement(&facts, "shop", 150_000)
                .ends_with("LOCALE_PROVIDER icu ICU_LOCALE 'de-AT'")
        );
    }
}
