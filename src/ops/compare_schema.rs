//! Comparing the schema of a copy with the backup's, as one pg_dump writes both.

use std::time::Duration;

use crate::model::schema_text::{self, SchemaDifference};
use crate::model::verification::{Finding, Mismatch, Severity, Verification};
use crate::ops::restore::build::{Backup, Destination};
use crate::ops::restore::{RestoreError, files};
use crate::ops::verify::CopyKind;
use crate::postgres::dump::{self, DumpRequest};
use crate::postgres::session::Session;

/// Nobody else should be using the copy.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Dumps the copy's schema with the program that dumped the source's, and compares entry by entry.
pub(super) async fn compare_schema(
    backup: &Backup,
    destination: &Destination,
    kind: CopyKind,
    verification: &mut Verification,
) -> Result<(), RestoreError> {
    let given = kind == CopyKind::GivenDatabase;
    let connection = destination.connection.for_child(&destination.directory)?;
    let session = Session::connect(&destination.connection, "verify", None).await?;
    let server_version_num = session.server_version_num();
    let options = dump::options(&session).await?;
    session.close().await;
    let request = DumpRequest {
        installation: &destination.installation,
        connection: &connection,
        on: &destination.on,
        snapshot_name: None,
        application: "ernstfall pg_dump",
        lock_timeout: LOCK_TIMEOUT,
        options,
        exclude: Vec::new(),
    };
    let program = |error| RestoreError::Program {
        error: Box::new(error),
        logged: None,
    };
    let archive = dump::schema(&request).await.map_err(program)?;
    let path = destination.directory.join("copy.dump");
    files::write(&path, archive.bytes).await?;
    let list = destination.list(&backup.left_out);
    let expected = dump::as_sql(&destination.installation, &destination.archive(), list.as_deref()).await;
    let found = dump::as_sql(&destination.installation, &path, None)
        .await
        .map_err(program)?;
    let expected = expected.map_err(program)?;
    // Another major of server or pg_dump writes the same object otherwise.
    let comparable = major(&backup.manifest.versions.pg_dump) == major(&destination.installation.version)
        && backup.contents.database.server_version_num / 10_000 == server_version_num / 10_000;
    for difference in schema_text::compare(&expected, &found) {
        if let (SchemaDifference::Unexpected { entry }, true) = (&difference, given) {
            verification.findings.push(Finding {
                severity: Severity::Info,
                subject: entry.clone(),
                message: "in the database restored into, and not in the backup".to_owned(),
            });
            continue;
        }
        report(difference, comparable, verification);
    }
    Ok(())
}

/// `15` of `15.18 (Debian 15.18-0+deb12u1)`.
fn major(version: &str) -> &str {
    version
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or_default()
}

/// A difference between dumps of different majors proves nothing.
fn report(difference: SchemaDifference, comparable: bool, verification: &mut Verification) {
    let (entry, expected, found) = match difference {
        SchemaDifference::Missing { entry } => (entry, "present".to_owned(), "missing".to_owned()),
        SchemaDifference::Unexpected { entry } => (entry, "absent".to_owned(), "present".to_owned()),
        SchemaDifference::Different {
            entry,
            expected,
            found,
        } => (entry, expected, found),
        SchemaDifference::WrittenOtherwise { entry } => {
            verification.findings.push(Finding {
                severity: Severity::Info,
                subject: entry,
                message: "the same but for casts and parentheses".to_owned(),
            });
            return;
        }
    };
    if comparable {
        verification.mismatches.push(Mismatch {
            kind: "schema object".to_owned(),
            name: entry,
            expected,
            found,
        });
    } else {
        verification.findings.push(Finding {
            severity: Severity::Warning,
            subject: entry,
            message: format!(
                "unknown whether it is the same, since another pg_dump wrote it: {expected} / {found}"
            ),
        });
    }
}
