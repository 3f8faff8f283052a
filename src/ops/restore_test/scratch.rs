//! Where the copy of a restore test lives: a cluster of its own, or a database on a server that the operator named.

use nix::unistd::gethostname;

use crate::journal::RunId;
use crate::model::record::ScratchFacts;
use crate::model::verification::{Finding, Severity};
use crate::ops::context::Context;
use crate::ops::restore::build::{self, Backup, Destination, Powers};
use crate::ops::restore::{RestoreError, lacks};
use crate::ops::target::Target;
use crate::ops::verify::CopyKind;
use crate::ops::work_directory::WorkDirectory;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::dump::Tablespaces;
use crate::postgres::programs::Programs;
use crate::postgres::quote_identifier;
use crate::postgres::session::Session;
use crate::scratch::{
    Embedded, GivenServer, KnownSource, LogEntry, Machine, Maker, Proof, Rights, RolesWanted, ScratchError,
};

use super::{Afterwards, Findings, copy};

/// What holds the copy.
pub(super) enum Scratch {
    Embedded(Box<Embedded>),
    Server(Box<GivenServer>),
}

/// One restore test: what all its steps need.
#[derive(Clone, Copy)]
pub(super) struct Test<'a> {
    pub(super) context: &'a Context,
    pub(super) target: &'a Target,
    pub(super) backup: &'a Backup,
    pub(super) run_id: &'a RunId,
}

impl Scratch {
    /// Makes a cluster, or takes a place on the server that was named, once it is proven not to be the source.
    pub(super) async fn provision(test: Test<'_>, found: &mut Findings) -> Result<Self, RestoreError> {
        let Some(connection) = &test.target.scratch_server else {
            let run_id = test.run_id.to_string();
            let settings = copy::scratch_settings(test.context, test.target, test.backup, &run_id)?;
            if let Some(lack) = copy::room(&test.target.scratch_directory, test.backup)? {
                return Err(RestoreError::Lacking(vec![lack]));
            }
            let embedded = Embedded::provision(settings, &test.context.cancel).await?;
            return Ok(Self::Embedded(Box::new(embedded)));
        };
        let connection = connection.as_ref();
        let connection = connection.map_err(|reason| RestoreError::Refused(reason.clone()))?;
        claim(test, connection, found)
            .await
            .map(|server| Self::Server(Box::new(server)))
    }

    /// For the record.
    pub(super) fn facts(&self) -> ScratchFacts {
        match self {
            Self::Embedded(embedded) => copy::scratch_facts(embedded),
            Self::Server(server) => ScratchFacts {
                kind: "server".to_owned(),
                server_version: Some(server.session().server_version().to_owned()),
                isolated: Some(false),
                layers: Vec::new(),
                probe: Vec::new(),
            },
        }
    }

    /// What the times are measured on, for the basis of the objective; never with a password.
    pub(super) fn described(&self) -> String {
        match self {
            Self::Embedded(_) => {
                let machine = Machine::of_this_host();
                format!(
                    "embedded scratch ({} cores, {} MB of memory)",
                    machine.cores,
                    machine.memory_bytes >> 20
                )
            }
            Self::Server(server) => format!(
                "a scratch server (PostgreSQL {}, {})",
                server.session().server_version(),
                server.session().description()
            ),
        }
    }

    /// Whose comparison the copy's is.
    pub(super) fn copy_kind(&self) -> CopyKind {
        match self {
            Self::Embedded(_) => CopyKind::Scratch,
            Self::Server(_) => CopyKind::MarkedScratch,
        }
    }

    /// How the copy's database is reached, whether or not it is there yet.
    pub(super) async fn destination(
        &self,
        test: Test<'_>,
        work: &WorkDirectory,
    ) -> Result<Destination, RestoreError> {
        match self {
            Self::Embedded(embedded) => {
                copy::destination(test.target, test.backup, embedded, test.context, work)
            }
            Self::Server(server) => {
                let source_major = test.backup.contents.database.server_version_num / 10_000;
                let major = source_major.max(server.session().server_version_num() / 10_000);
                let major = u32::try_from(major).unwrap_or(0);
                let powers = Powers::of(server.rights().await?.superuser);
                let mut destination = Destination::new(
                    server.copy(),
                    Programs::client_for(test.context.bin_dir.as_deref(), major)?,
                    test.target.jobs,
                    work.path().to_owned(),
                    powers,
                );
                destination.keeps_its_comment = true;
                destination.tablespaces = Tablespaces::OfTheDatabase;
                Ok(destination)
            }
        }
    }

    /// Everything that stands in the way and could be known beforehand.
    pub(super) async fn lacking(
        &self,
        backup: &Backup,
        maintenance: &Session,
    ) -> Result<Vec<String>, RestoreError> {
        let mut lacking = lacks::extensions(maintenance, &backup.contents).await?;
        if let Self::Server(server) = self {
            lacking.extend(server_lacks(server, backup).await?);
        }
        Ok(lacking)
    }

    /// A session beside the copy's database.
    pub(super) async fn maintenance(&self, destination: &Destination) -> Result<Session, RestoreError> {
        let database = match self {
            Self::Embedded(_) => destination.connection.with_database("template1"),
            Self::Server(server) => server.connection().clone(),
        };
        Ok(Session::connect(&database, "restore", None).await?)
    }

    /// Makes the roles and the copy's database.
    pub(super) async fn make_database(
        &mut self,
        test: Test<'_>,
        maintenance: &Session,
        found: &mut Findings,
    ) -> Result<(), RestoreError> {
        match self {
            Self::Embedded(_) => {
                build::roles(test.backup, maintenance).await?;
                copy::create_tablespaces(maintenance, test.backup).await?;
                let name = copy::database_name(test.backup);
                copy::create_database(maintenance, test.backup, name).await
            }
            Self::Server(server) => {
                make_roles(test, server, found).await?;
                create_database(server, test.backup).await
            }
        }
    }

    /// Sees to it that the copy outlives a power cut.
    pub(super) async fn make_durable(
        &mut self,
        context: &Context,
        found: &mut Findings,
    ) -> Result<(), RestoreError> {
        match self {
            Self::Embedded(embedded) => Ok(embedded.restart_durable(&context.cancel).await?),
            // Its settings are production's already.
            Self::Server(server) => {
                if !server.checkpoint().await? {
                    found.note(
                        "the role may not run CHECKPOINT, so the phase `durable` has no time of its own",
                    );
                }
                Ok(())
            }
        }
    }

    /// What an error of the restore means here.
    pub(super) fn explain(&self, error: RestoreError) -> RestoreError {
        match (self, error) {
            (Self::Embedded(embedded), RestoreError::Program { error, .. }) => {
                let logged: Option<LogEntry> = copy::logged_cause(embedded, error.reason());
                RestoreError::Program {
                    error,
                    logged: logged.map(Box::new),
                }
            }
            // The memberships of roles are not the source's there: so missing rights say nothing of the backup.
            (Self::Server(server), RestoreError::RefreshDenied(reason)) => {
                RestoreError::Lacking(vec![format!(
                    "{reason}; roles that {} had before are not given the source's memberships: use a scratch server without them",
                    server.session().description()
                )])
            }
            (_, error) => error,
        }
    }

    /// Removes the copy, or keeps it and says how to get to it.
    pub(super) async fn end(self, afterwards: Afterwards) -> Result<Option<String>, ScratchError> {
        match (self, afterwards) {
            (Self::Embedded(embedded), Afterwards::Remove) => embedded.remove().await.map(|()| None),
            (Self::Server(server), Afterwards::Remove) => server.remove().await.map(|()| None),
            (Self::Embedded(embedded), Afterwards::Keep) => {
                let kept = embedded.keep().await?;
                Ok(Some(format!(
                    "the copy is kept in {}: start it with {}",
                    kept.path.display(),
                    kept.command
                )))
            }
            (Self::Server(server), Afterwards::Keep) => Ok(server.keep().await?.map(|kept| {
                format!(
                    "the copy is kept as {}: look into it with {}, and drop it with {}; the next restore test there drops \
                     the roles that were made for it",
                    kept.on, kept.connect_command, kept.drop_command
                )
            })),
        }
    }
}

impl Findings {
    pub(super) fn note(&mut self, message: impl Into<String>) {
        self.verification.findings.push(Finding {
            severity: Severity::Info,
            subject: "scratch".to_owned(),
            message: message.into(),
        });
    }
}

/// Takes a place on the server. Nothing is made there before it is proven not to be the source.
async fn claim(
    test: Test<'_>,
    connection: &ConnectionSettings,
    found: &mut Findings,
) -> Result<GivenServer, RestoreError> {
    let host = gethostname().ok().and_then(|name| name.into_string().ok());
    let maker = Maker {
        run: test.run_id.to_string(),
        host: host.unwrap_or_else(|| "an unnamed host".to_owned()),
        state_dir: test.context.state_dir.display().to_string(),
        started_at: (test.context.clock)(),
    };
    let server = GivenServer::claim(connection, maker).await?;
    let source = KnownSource {
        connection: &test.target.connection,
        recorded_identifier: test.backup.manifest.system_identifier.as_deref(),
    };
    if let Proof::RecordedIdentifier(reason) = server.prove_it_is_not(&source).await? {
        found.note(format!(
            "the source was not reached ({reason}); that the scratch server is another one is known by the backup's \
             system identifier"
        ));
    }
    if server.session().in_recovery() {
        return Err(RestoreError::Lacking(vec![format!(
            "{} is a standby, where nothing can be written: name its primary",
            server.session().description()
        )]));
    }
    for line in server.sweep().await? {
        test.context.progress.note(&line);
        found.note(line);
    }
    Ok(server)
}

/// What a server that is not ours lacks for a copy, besides extensions.
async fn server_lacks(server: &GivenServer, backup: &Backup) -> Result<Vec<String>, RestoreError> {
    let session = server.session();
    let mut lacking: Vec<String> = lacks::older(session, &backup.contents).into_iter().collect();
    let Rights {
        role,
        creates_databases,
        ..
    } = server.rights().await?;
    let quoted = quote_identifier(&role);
    if !creates_databases {
        lacking.push(format!(
            "the role {role} may not create databases: ALTER ROLE {quoted} CREATEDB"
        ));
    }
    let roles = lacks::roles(session, &backup.contents).await?;
    if !roles.is_empty() {
        lacking.extend(roles);
        lacking.push(format!(
            "the role {role} may not create roles: ALTER ROLE {quoted} CREATEROLE"
        ));
    }
    let is_cron = |extension: &crate::model::contents::Extension| extension.name == "pg_cron";
    if backup.contents.extensions.iter().any(is_cron) {
        lacking.push(
            "pg_cron can be in one database of a server only, and the copy's is another one: use kind = \"embedded\""
                .to_owned(),
        );
    }
    Ok(lacking)
}

async fn make_roles(test: Test<'_>, server: &GivenServer, found: &mut Findings) -> Result<(), RestoreError> {
    let statements = test.backup.reader.statements(&test.backup.manifest.roles).await?;
    let wanted = RolesWanted {
        names: &test.backup.contents.roles,
        statements: &statements,
        bootstrap: &test.backup.contents.database.bootstrap_role,
    };
    let left_out = server.make_roles(&wanted).await?;
    if !left_out.is_empty() {
        found.note(format!(
            "memberships of roles that the server had before stay as they are; left out: {}",
            left_out.join(" ")
        ));
    }
    Ok(())
}

async fn create_database(server: &mut GivenServer, backup: &Backup) -> Result<(), RestoreError> {
    let facts = &backup.contents.database;
    // Found out first: a database that was made and cannot be marked could not be dropped either.
    let sql = "SELECT pg_catalog.pg_has_role(current_user, $1, 'USAGE')";
    let session = server.session();
    let row = session
        .select_one("look for the rights of the owner", sql, &[&facts.owner])
        .await?;
    if !row.get::<_, bool>(0) {
        return Err(owner_lack(server, &facts.owner).await?);
    }
    let version = session.server_version_num();
    let statement = build::create_database_statement(facts, server.database(), version);
    match server.create(statement).await {
        Ok(()) => Ok(()),
        Err(error) if error.sqlstate() == Some("42501") => Err(owner_lack(server, &facts.owner).await?),
        Err(error) => {
            Err(copy::locale_lack(facts, &error)
                .unwrap_or_else(|| ScratchError::Given(Box::new(error)).into()))
        }
    }
}

async fn owner_lack(server: &GivenServer, owner: &str) -> Result<RestoreError, RestoreError> {
    let role = server.rights().await?.role;
    let (quoted_owner, quoted_role) = (quote_identifier(owner), quote_identifier(&role));
    Ok(RestoreError::Lacking(vec![format!(
        "the role {role} may not make a database that belongs to {owner}, as the source does: GRANT {quoted_owner} TO \
         {quoted_role}, and ALTER ROLE {quoted_role} INHERIT"
    )]))
}
