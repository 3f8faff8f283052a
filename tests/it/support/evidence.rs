//! What a run leaves behind: records, stored objects, sessions on the server, and content to compare with.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::database::Database;
use super::ernstfall::Ernstfall;
use super::process::POLL;

/// What has to happen at all happens within this, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(30);

/// Waits for a condition, and fails the test when it does not come.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Waits until a session whose statement is like `pattern` waits for a lock; returns its server process.
pub(crate) fn wait_for_lock(database: &Database, pattern: &str) -> String {
    let sql = format!(
        "select pid from pg_stat_activity where wait_event_type = 'Lock' and query ilike '{pattern}' \
         and datname = current_database() and pid <> pg_backend_pid() limit 1"
    );
    let session = database.session();
    let mut pid = None;
    wait_for(&format!("{pattern} waits for a lock"), || {
        pid = session.query_rows(&sql).into_iter().flatten().flatten().next();
        pid.is_some()
    });
    pid.unwrap()
}

/// Waits until the product has no session left on the server.
pub(crate) fn wait_until_gone(database: &Database) {
    let sql = "select count(*) from pg_stat_activity where application_name like 'ernstfall%' \
               and application_name <> 'ernstfall-test'";
    let session = database.session();
    wait_for("no session of the product is left", || {
        session.query_one_text(sql) == "0"
    });
}

/// All records, the oldest first.
pub(crate) fn records(ernstfall: &Ernstfall) -> Vec<Value> {
    let listed = ernstfall.run(["--json", "list", "records"]).expect_code(0).json();
    let entries = listed.as_array().unwrap();
    entries.iter().map(|entry| entry["record"].clone()).collect()
}

/// The newest record, which is to be of this kind.
pub(crate) fn last_record(ernstfall: &Ernstfall, kind: &str) -> Value {
    let record = records(ernstfall).pop().expect("a record");
    assert_eq!(record["kind"], kind, "{record:#}");
    record
}

/// The files of a target in the repository, below `manifests` or `backups`.
pub(crate) fn stored(ernstfall: &Ernstfall, target: &str, part: &str) -> Vec<PathBuf> {
    files(
        &ernstfall
            .repository_directory()
            .join("targets")
            .join(target)
            .join(part),
    )
}

/// All files below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Neither a manifest nor an object of a backup is in the repository.
pub(crate) fn expect_nothing_stored(ernstfall: &Ernstfall, target: &str) {
    for part in ["manifests", "backups"] {
        let found = stored(ernstfall, target, part);
        assert!(found.is_empty(), "{found:?}");
    }
}

/// Every file below the directory without the bytes.
pub(crate) fn expect_nowhere(secret: &str, directory: &Path) {
    for path in files(directory) {
        let content = fs::read(&path).unwrap();
        let holds = content
            .windows(secret.len())
            .any(|part| part == secret.as_bytes());
        assert!(!holds, "{} holds {secret}", path.display());
    }
}

/// What the tables, sequences and large objects hold, told by the server: none of the product's own means.
pub(crate) fn content(database: &Database) -> Vec<String> {
    let session = database.session();
    // Whatever the database's settings are, the same values are written the same way.
    session.execute(
        "set statement_timeout = 0; set datestyle = iso; set intervalstyle = postgres; set timezone = utc; \
         set extra_float_digits = 3; set bytea_output = hex; set search_path = ''; set row_security = off",
    );
    let tables = session.query_rows(
        "select format('%I.%I', n.nspname, c.relname) \
           from pg_class c join pg_namespace n on n.oid = c.relnamespace \
          where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname !~ '^pg_|^information_schema$' \
          order by n.nspname collate \"C\", c.relname collate \"C\"",
    );
    let mut content = Vec::new();
    for name in tables.into_iter().flatten().flatten() {
        let rows = session.query_one_text(&format!(
            "select count(*) || ' rows ' || \
                    coalesce(md5(string_agg(md5(t::text), ',' order by md5(t::text) collate \"C\")), '') \
               from only {name} t"
        ));
        content.push(format!("{name}: {rows}"));
    }
    let rest = session.query_rows(
        "select 'sequence ' || schemaname || '.' || sequencename || ' ' || coalesce(last_value::text, 'not called') \
           from pg_sequences \
         union all select 'large object ' || oid || ' ' || md5(lo_get(oid)) \
           from pg_largeobject_metadata order by 1",
    );
    content.extend(rest.into_iter().flatten().flatten());
    content
}
