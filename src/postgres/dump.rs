//! The schema, as the stock pg_dump writes it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::model::contents::NotCovered;

use super::child::ChildConnection;
use super::error::{Error, ErrorKind};
use super::programs::Installation;
use super::session::Session;

/// A schema archive in pg_dump's custom format, without compression.
pub struct SchemaArchive {
    pub bytes: Vec<u8>,
    pub not_covered: Vec<NotCovered>,
}

/// What to dump, and from where.
pub struct DumpRequest<'a> {
    pub installation: &'a Installation,
    pub connection: &'a ChildConnection,
    /// What the error messages call the server.
    pub on: &'a str,
    pub snapshot_name: Option<&'a str>,
    /// The name of its session on the server.
    pub application: &'a str,
    /// How long pg_dump may wait for a lock; without it, it waits for ever behind a queued ALTER TABLE.
    pub lock_timeout: Duration,
    /// Settings for its session (`PGOPTIONS`), as `options` finds them necessary.
    pub options: String,
    /// Whole tables left out, by schema and name.
    pub exclude: Vec<(String, String)>,
}

const TRIED: &str = "dump the schema";

/// Runs `pg_dump --schema-only`. Every warning becomes *not covered* or fails the dump.
///
/// The child is killed when the future is dropped.
pub async fn schema(request: &DumpRequest<'_>) -> Result<SchemaArchive, Error> {
    let mut command = Command::new(request.installation.directory.join("pg_dump"));
    command
        .args([
            "--schema-only",
            "--format=custom",
            "--compress=0",
            "--no-password",
        ])
        .arg(format!(
            "--lock-wait-timeout={}",
            request.lock_timeout.as_millis()
        ));
    if let Some(snapshot) = request.snapshot_name {
        command.arg(format!("--snapshot={snapshot}"));
    }
    for (schema, name) in &request.exclude {
        command.arg(format!("--exclude-table={}", pattern(schema, name)));
    }
    request.connection.apply(&mut command);
    if !request.options.is_empty() {
        command.env(
            "PGOPTIONS",
            with_own_options(request.connection, &request.options),
        );
    }
    command.env("PGAPPNAME", request.application);
    // Moments in partition bounds and defaults are written in the session's zone: the same for source and copy.
    command.env("PGTZ", "UTC");
    let output = run(command, request.on).await?;
    let not_covered = judge_warnings(&output.1, request.on)?;
    Ok(SchemaArchive {
        bytes: output.0,
        not_covered,
    })
}

/// Our settings behind those that the connection has of its own.
fn with_own_options(connection: &ChildConnection, options: &str) -> String {
    let own = connection.variables().find(|(name, _)| *name == "PGOPTIONS");
    let own = own.map(|(_, value)| value.to_string_lossy().into_owned());
    format!("{} {options}", own.unwrap_or_default())
}

/// The settings that pg_dump leaves as it finds them although its text depends on them, where a new session would find
/// others. Only those: a pooler may refuse a connection that brings settings along.
pub async fn options(session: &Session) -> Result<String, Error> {
    let sql = "SELECT s.name, s.wanted
                 FROM (VALUES ('quote_all_identifiers', 'off'), ('bytea_output', 'hex'), ('lc_monetary', 'C'),
                              ('standard_conforming_strings', 'on')) AS s(name, wanted)
                 JOIN pg_catalog.pg_settings g ON g.name = s.name AND g.reset_val <> s.wanted
                WHERE s.name <> 'lc_monetary' OR EXISTS (
                      SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
                       WHERE a.atttypid IN ('pg_catalog.money'::pg_catalog.regtype, 'pg_catalog.money[]'::pg_catalog.regtype)
                         AND c.relkind <> 'i' AND a.attnum > 0
                      UNION ALL SELECT FROM pg_catalog.pg_type t
                       WHERE t.typbasetype = 'pg_catalog.money'::pg_catalog.regtype
                      UNION ALL SELECT FROM pg_catalog.pg_proc p WHERE p.oid >= 16384
                         AND 'pg_catalog.money'::pg_catalog.regtype = ANY (p.proargtypes::oid[] || p.prorettype))";
    let rows = session
        .select("read the settings of a new session", sql, &[])
        .await?;
    let option =
        |row: &tokio_postgres::Row| format!("-c {}={}", row.get::<_, &str>(0), row.get::<_, &str>(1));
    Ok(rows.iter().map(option).collect::<Vec<_>>().join(" "))
}

/// A pg_dump pattern that means just this name: inside quotes nothing is special but the quote.
fn pattern(schema: &str, name: &str) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    format!("{}.{}", quoted(schema), quoted(name))
}

async fn run(mut command: Command, on: &str) -> Result<(Vec<u8>, String), Error> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = command
        .output()
        .await
        .map_err(|source| Error::program("pg_dump", on, &source))?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        return Ok((output.stdout, errors));
    }
    // pg_dump sets --lock-wait-timeout as a statement_timeout for the time that it locks.
    let lock_timeout = errors.contains("statement timeout") && errors.contains("LOCK TABLE");
    let out_of_locks = errors.contains("max_locks_per_transaction");
    let kind = if lock_timeout || errors.contains("lock timeout") {
        ErrorKind::LockTimeout
    } else {
        ErrorKind::Other
    };
    let reason = format!("pg_dump ended with {}: {}", output.status, errors_only(&errors));
    Err(Error::new(
        TRIED,
        on,
        kind,
        reason,
        if out_of_locks {
            "raise max_locks_per_transaction of the server: pg_dump locks every table at once"
        } else {
            "see what pg_dump says, and try again once that is mended"
        },
    ))
}

/// The lines that say what went wrong, without those that quote rows and statements: they may hold anything.
fn errors_only(errors: &str) -> String {
    let lines: Vec<&str> = errors.lines().filter(|line| line.contains(": error: ")).collect();
    if lines.is_empty() {
        "it said nothing".to_owned()
    } else {
        lines.join("; ")
    }
}

/// Sorts pg_dump's warnings: the known ones name what is left out, any other fails the backup.
fn judge_warnings(errors: &str, on: &str) -> Result<Vec<NotCovered>, Error> {
    let mut not_covered = Vec::new();
    for line in errors.lines().filter(|line| line.contains("warning:")) {
        if line.contains("subscriptions not dumped") {
            not_covered.push(NotCovered {
                kind: "subscriptions".into(),
                name: "all".into(),
                reason: "only a superuser may read them".into(),
            });
        } else {
            let reason = format!("pg_dump warned, and this version does not know what was left out: {line}");
            let hint = "mend the cause, or report it: a backup must not leave anything out in silence";
            return Err(Error::new(TRIED, on, ErrorKind::Other, reason, hint));
        }
    }
    Ok(not_covered)
}

/// Restores a section of a schema archive into the connection's database.
pub struct RestoreRequest<'a> {
    pub installation: &'a Installation,
    pub connection: &'a ChildConnection,
    pub on: &'a str,
    pub archive: &'a Path,
    /// Only the entries that this file lists (`pg_restore -L`).
    pub list: Option<&'a Path>,
    /// `pre-data` or `post-data`.
    pub section: &'a str,
    pub jobs: usize,
    pub existing: Existing,
    pub tablespaces: Tablespaces,
    /// Settings for its sessions (`PGOPTIONS`).
    pub options: &'a str,
}

/// Where tables and indexes come to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tablespaces {
    AsInSource,
    OfTheDatabase,
}

/// What to do about objects that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Error,
    /// An earlier try has made them.
    Keep,
}

/// Every error is about something that exists already.
fn only_existing(errors: &str) -> bool {
    let is_error = |line: &&str| line.contains("ERROR:  ");
    let exists = |line: &str| {
        line.contains("already exists")
            || line.contains("multiple primary keys")
            || line.contains("already member")
    };
    errors.lines().any(|line| is_error(&line)) && errors.lines().filter(is_error).all(exists)
}

/// A process group that is ended when this is dropped, unless its leader has ended by itself.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|pid| i32::try_from(pid).ok());
        if let Some(leader) = leader {
            // It may have ended just now.
            let _ = nix::sys::signal::killpg(
                nix::unistd::Pid::from_raw(leader),
                nix::sys::signal::Signal::SIGTERM,
            );
        }
    }
}

/// Runs pg_restore for one section and stops at its first error.
///
/// The child is killed when the future is dropped; what it had done by then stays in the database.
pub async fn restore_section(request: &RestoreRequest<'_>) -> Result<(), Error> {
    let mut command = Command::new(request.installation.directory.join("pg_restore"));
    command.args(["--no-password", "--dbname="]);
    if request.existing == Existing::Error {
        command.arg("--exit-on-error");
    }
    if request.tablespaces == Tablespaces::OfTheDatabase {
        command.arg("--no-tablespaces");
    }
    command.arg(format!("--section={}", request.section));
    if request.jobs > 1 {
        command.arg(format!("--jobs={}", request.jobs));
    }
    if let Some(list) = request.list {
        command.arg("--use-list").arg(list);
    }
    command.arg(request.archive);
    request.connection.apply(&mut command);
    command.env("PGOPTIONS", with_own_options(request.connection, request.options));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // A group of its own: with --jobs it forks, and its workers have to end with it.
    command.process_group(0);
    let failed = |source| Error::program("pg_restore", request.on, &source);
    let child = command.spawn().map_err(failed)?;
    let mut group = Group(child.id());
    let output = child.wait_with_output().await.map_err(failed)?;
    group.0 = None;
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() || (request.existing == Existing::Keep && only_existing(&errors)) {
        return Ok(());
    }
    let reason = format!(
        "pg_restore ended with {}: {}",
        output.status,
        errors_only(&errors)
    );
    let tried = format!("restore the schema ({})", request.section);
    Err(Error::new(
        tried,
        request.on,
        ErrorKind::Other,
        reason,
        "see what the server says",
    ))
}

/// The archive as SQL text, to be compared with another one's; only the entries of the list, where there is one.
pub async fn as_sql(
    installation: &Installation,
    archive: &Path,
    list: Option<&Path>,
) -> Result<String, Error> {
    let sql = as_sql_bytes(installation, archive, list).await?;
    Ok(String::from_utf8_lossy(&sql).into_owned())
}

/// The archive as SQL, in the encoding that it names itself (`SET client_encoding = …`).
pub async fn as_sql_bytes(
    installation: &Installation,
    archive: &Path,
    list: Option<&Path>,
) -> Result<Vec<u8>, Error> {
    let mut command = Command::new(installation.directory.join("pg_restore"));
    if let Some(list) = list {
        command.arg("--use-list").arg(list);
    }
    command.arg("--file=-").arg(archive).env("LC_ALL", "C");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let on = archive.display().to_string();
    let output = command
        .output()
        .await
        .map_err(|source| Error::program("pg_restore", &on, &source))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let hint = "the archive may be damaged: restore-test the backup";
        Err(Error::new(
            "read the schema archive",
            on,
            ErrorKind::Other,
            reason,
            hint,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_exists_already_is_passed_over() {
        let exists = "pg_restore: error: could not execute query: ERROR:  relation \"i\" already exists\n";
        assert!(only_existing(exists));
        assert!(!only_existing(&format!(
            "{exists}pg_restore: error: could not execute query: ERROR:  disk full\n"
        )));
        assert!(!only_existing("pg_restore: error: connection to server failed\n"));
    }

    #[test]
    fn a_known_warning_names_what_is_left_out_and_an_unknown_one_fails() {
        let known = "pg_dump: warning: subscriptions not dumped because current user is not a superuser\n";
        assert_eq!(judge_warnings(known, "db").unwrap()[0].kind, "subscriptions");
        assert!(judge_warnings("pg_dump: warning: something new\n", "db").is_err());
        assert!(judge_warnings("", "db").unwrap().is_empty());
    }
}
