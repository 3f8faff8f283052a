//! Backups that break: each leaves a record, nothing half done, and a message that says what to do.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::support::cluster::{Cluster, PASSWORD};
use super::support::database::Database;
use super::support::directory::TestDir;
use super::support::ernstfall::{Ernstfall, Output, Running};
use super::support::evidence::{
    content, expect_nothing_stored, expect_nowhere, files, last_record, records, stored, wait_for,
    wait_until_gone,
};
use super::support::full_disk::FullDisk;
use super::support::proxy::Proxy;
use super::support::skip::require;

const CONTENT: &str = "create table t (id int, note text); create table u (id int);
    insert into t select i, md5(i::text) from generate_series(1, 1000) i; insert into u values (1)";

fn product(directory: &TestDir, url: &str) -> Ernstfall {
    Ernstfall::new(directory)
        .target("shop", url)
        .tables("[scratch]\nisolation = \"best-effort\"")
}

/// The backup failed with one record and a message with all these words; nothing is stored, no password is told.
fn expect_failure(ernstfall: &Ernstfall, output: Output, words: &[&str]) {
    let output = output.expect_code(1);
    for word in words {
        assert!(
            output.stderr.contains(word),
            "{word:?} is not in: {}",
            output.stderr
        );
    }
    let told = output.stdout + &output.stderr;
    assert!(!told.contains(PASSWORD), "the password is told: {told}");
    let record = last_record(ernstfall, "backup");
    assert_eq!(record["outcome"], "failed", "{record:#}");
    assert!(
        record["backup"].is_null() && record["recovery_point"].is_null(),
        "{record:#}"
    );
    let reason = record["reason"].as_str().unwrap();
    assert!(words.iter().all(|word| reason.contains(word)), "{reason}");
    expect_nothing_stored(ernstfall, "shop");
    expect_nowhere(PASSWORD, &ernstfall.repository_directory());
    expect_nowhere(PASSWORD, &ernstfall.state_directory());
}

fn start(ernstfall: &Ernstfall, point: &str) -> Running {
    let mut running = ernstfall.spawn(["backup"]);
    running.wait_until_paused(point);
    running
}

#[test]
fn source_that_is_down_is_named_with_host_and_port() {
    let mut cluster = Cluster::start();
    let source = cluster.database("shop");
    cluster.crash();
    let directory = TestDir::new("faults");
    let ernstfall = product(&directory, &source.url());
    let address = format!("127.0.0.1:{}", cluster.port());
    expect_failure(
        &ernstfall,
        ernstfall.run(["backup"]),
        &[&address, "is the server running"],
    );
}

#[test]
fn wrong_password_is_said_to_be_wrong_and_where_it_came_from() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    let directory = TestDir::new("faults");
    let wrong = "not-the-password";
    let ernstfall = product(&directory, &source.url_as("postgres", wrong));
    let output = ernstfall.run(["-vv", "backup"]);
    assert!(!output.stderr.contains(wrong), "{}", output.stderr);
    expect_failure(
        &ernstfall,
        output,
        &["127.0.0.1", "password", "connection string"],
    );
    expect_nowhere(wrong, &ernstfall.repository_directory());
    expect_nowhere(wrong, &ernstfall.state_directory());
}

#[test]
fn unknown_database_is_named() {
    let cluster = Cluster::start();
    let source = cluster.existing_database("nowhere");
    let directory = TestDir::new("faults");
    let ernstfall = product(&directory, &source.url());
    expect_failure(
        &ernstfall,
        ernstfall.run(["backup"]),
        &["127.0.0.1", "nowhere", "check the database name"],
    );
}

#[test]
fn password_is_nowhere_after_a_good_backup_either() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(CONTENT);
    let directory = TestDir::new("faults");
    let ernstfall = product(&directory, &source.url());
    let output = ernstfall.run(["-vvv", "backup"]).expect_code(0);
    assert!(!(output.stdout + &output.stderr).contains(PASSWORD));
    expect_nowhere(PASSWORD, &ernstfall.repository_directory());
    expect_nowhere(PASSWORD, &ernstfall.state_directory());
}

fn terminate(database: &Database, application: &str) {
    let sql = format!(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = '{application}'"
    );
    assert_ne!(database.query_one_text(&sql), "0", "{application}");
}

#[test]
fn death_of_the_session_that_holds_the_snapshot_fails_the_backup_at_once() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(CONTENT);
    let directory = TestDir::new("faults");
    let ernstfall = product(&directory, &source.url()).pause_at("before-table");
    let running = start(&ernstfall, "before-table");
    let killed = Instant::now();
    terminate(&source, "ernstfall backup snapshot");
    // Nobody resumes: it ends although the workers stand still.
    let output = running.wait();
    assert!(
        killed.elapsed() < Duration::from_secs(10),
        "{:?}",
        killed.elapsed()
    );
    expect_failure(&ernstfall, output, &["terminat"]);
    wait_until_gone(&source);
}

#[test]
fn death_of_a_worker_fails_the_backup() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(CONTENT);
    let directory = TestDir::new("faults");
    let ernstfall = product(&directory, &source.url()).pause_at("before-table");
    let running = start(&ernstfall, "before-table");
    terminate(&source, "ernstfall backup worker");
    running.resume();
    expect_failure(&ernstfall, running.wait(), &[]);
    wait_until_gone(&source);
}

#[test]
fn death_of_the_guard_fails_the_backup_and_never_leaves_a_manifest() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(CONTENT);
    let directory = TestDir::new("faults");
    let ernstfall = product(&directory, &source.url()).pause_at("before-manifest");
    let running = start(&ernstfall, "before-manifest");
    terminate(&source, "ernstfall backup guard");
    running.resume();
    expect_failure(&ernstfall, running.wait(), &[]);
}

#[test]
fn snapshot_that_grows_too_old_ends_the_backup() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(CONTENT);
    let directory = TestDir::new("faults");
    let ernstfall = product(&directory, &source.url())
        .target_key("max_snapshot_age", "\"1s\"")
        .pause_at("before-table");
    let running = start(&ernstfall, "before-table");
    expect_failure(&ernstfall, running.wait(), &["max_snapshot_age"]);
}

#[test]
fn connection_that_breaks_after_any_number_of_bytes_leaves_no_backup() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(
        "create table t as select i, repeat(md5(i::text), 20) as filler from generate_series(1, 4000) i",
    );
    let proxy = Proxy::before(&cluster);
    let directory = TestDir::new("faults");
    let ernstfall = product(&directory, &proxy.url(&source)).target_key("jobs", "1");
    for bytes in [300, 5_000, 20_000, 100_000, 500_000, 2_000_000] {
        proxy.cut_after_bytes(bytes);
        expect_failure(&ernstfall, ernstfall.run(["backup"]), &[]);
    }
    ernstfall.run(["backup"]).expect_code(0);
    let copy = cluster.database("copy");
    ernstfall
        .run(["restore", "shop", "--to", &copy.socket_url()])
        .expect_code(0);
    assert_eq!(content(&copy), content(&source));
}

#[test]
fn full_disk_in_the_repository_fails_the_backup_and_gives_its_space_back() {
    require!(FullDisk::is_possible(), "only root can mount a small file system");
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(
        "create table t as select gen_random_uuid() as a, gen_random_uuid() as b from generate_series(1, 150000)",
    );
    let disk = FullDisk::of_megabytes(4);
    let repository = disk.path().join("repository");
    let directory = TestDir::new("faults");
    let ernstfall =
        product(&directory, &source.url()).repository(&format!("url = \"file://{}\"", repository.display()));
    let output = ernstfall.run(["backup"]).expect_code(1);
    let place = repository.display().to_string();
    assert!(
        output.stderr.contains(&place) && output.stderr.to_lowercase().contains("no space"),
        "{}",
        output.stderr
    );
    for part in ["manifests", "backups"] {
        let found = files(&repository.join("targets/shop").join(part));
        assert!(found.is_empty(), "{found:?}");
    }
    assert_eq!(last_record(&ernstfall, "backup")["outcome"], "failed");
    let status = ernstfall.run(["--json", "status", "shop"]).expect_code(1).json();
    assert_eq!(status["ok"], false);
    assert!(status["newest_backup"].is_null(), "{status:#}");
    // The space is there again: something small fits.
    source.execute("truncate t");
    ernstfall.run(["backup"]).expect_code(0);
}

#[test]
fn killed_backup_is_recorded_by_the_next_command_and_leaves_nothing() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(CONTENT);
    for point in [
        "after-list",
        "after-export",
        "after-schema",
        "before-schema-check",
        "before-table",
        "before-manifest",
    ] {
        let directory = TestDir::new("faults");
        let running = start(&product(&directory, &source.url()).pause_at(point), point);
        running.kill9();
        running.wait().expect_code(137);
        wait_until_gone(&source);
        let ernstfall = product(&directory, &source.url());
        let before = stored(&ernstfall, "shop", "backups");
        assert_eq!(
            before.is_empty(),
            point != "before-manifest",
            "{point}: {before:?}"
        );
        ernstfall.run(["backup"]).expect_code(0);
        let kinds: Vec<_> = records(&ernstfall)
            .iter()
            .map(|record| record["kind"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["interrupted", "backup"], "{point}");
        assert_eq!(records(&ernstfall)[0]["task"], "backup");
        for old in before {
            assert!(!old.exists(), "{point}: {}", old.display());
        }
        let left = files(&ernstfall.state_directory());
        let passwords = left
            .iter()
            .filter(|path| path.to_string_lossy().contains("pgpass"));
        assert_eq!(passwords.count(), 0, "{point}: {left:?}");
    }
}

#[test]
fn backup_killed_after_its_manifest_exists_and_passes_its_test() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(CONTENT);
    let directory = TestDir::new("faults");
    let paused = product(&directory, &source.url()).pause_at("after-manifest");
    let running = start(&paused, "after-manifest");
    running.kill9();
    running.wait().expect_code(137);
    let ernstfall = product(&directory, &source.url());
    let tested = ernstfall
        .run(["--json", "restore-test", "shop"])
        .expect_code(0)
        .json();
    assert_eq!(tested["verdict"], "passed");
    assert_eq!(records(&ernstfall)[0]["kind"], "interrupted");
    assert_eq!(stored(&ernstfall, "shop", "manifests").len(), 1);
}

#[test]
fn signals_cancel_a_backup_and_clean_up() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(CONTENT);
    for point in ["after-export", "before-table", "before-manifest"] {
        for (signal, code) in [
            (Running::interrupt as fn(&Running), 130),
            (Running::terminate, 143),
        ] {
            let directory = TestDir::new("faults");
            let ernstfall = product(&directory, &source.url()).pause_at(point);
            let running = start(&ernstfall, point);
            signal(&running);
            let output = running.wait().expect_code(code);
            assert!(output.elapsed < Duration::from_secs(20), "{:?}", output.elapsed);
            let record = last_record(&ernstfall, "backup");
            assert_eq!(record["outcome"], "cancelled", "{record:#}");
            expect_nothing_stored(&ernstfall, "shop");
            wait_until_gone(&source);
        }
    }
}

/// A directory of PostgreSQL programs in which pg_dump, when it dumps, runs these lines of shell instead.
pub(super) fn programs_with_pg_dump(directory: &TestDir, cluster: &Cluster, lines: &str) -> PathBuf {
    let bin = directory.join("bin");
    fs::create_dir(&bin).unwrap();
    fs::set_permissions(&bin, Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(&cluster.programs().bin_dir).unwrap().flatten() {
        let name = entry.file_name();
        if name != "pg_dump" {
            std::os::unix::fs::symlink(entry.path(), bin.join(name)).unwrap();
        }
    }
    let real = cluster.programs().path("pg_dump");
    let real = real.display();
    let script = format!("#!/bin/sh\nreal={real}\n[ \"$1\" = --version ] && exec $real --version\n{lines}\n");
    let path = directory.write("bin/pg_dump", script);
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    bin
}

fn with_bin_dir(ernstfall: Ernstfall, bin: &std::path::Path) -> Ernstfall {
    ernstfall.key("bin_dir", &format!("{:?}", bin.display().to_string()))
}

#[test]
fn signal_during_pg_dump_ends_it_too() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    let directory = TestDir::new("faults");
    let bin = programs_with_pg_dump(&directory, &cluster, "echo begun > $HOME/begun\nexec sleep 600");
    let ernstfall = with_bin_dir(product(&directory, &source.url()), &bin);
    let running = ernstfall.spawn(["backup"]);
    wait_for("pg_dump begins", || directory.join("begun").exists());
    running.terminate();
    // It would hold the product's output open.
    running.wait().expect_code(143);
    let left = files(&ernstfall.state_directory());
    assert!(
        !left.iter().any(|path| path.to_string_lossy().contains("pgpass")),
        "{left:?}"
    );
}

#[test]
fn password_file_of_a_backup_killed_during_pg_dump_is_removed_by_the_next_command() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    let directory = TestDir::new("faults");
    let lines = "echo begun > $HOME/begun\nwhile kill -0 $PPID 2>/dev/null; do sleep 0.02; done";
    let bin = programs_with_pg_dump(&directory, &cluster, lines);
    let ernstfall = with_bin_dir(product(&directory, &source.url()), &bin);
    let running = ernstfall.spawn(["backup"]);
    wait_for("pg_dump begins", || directory.join("begun").exists());
    running.kill9();
    running.wait().expect_code(137);
    product(&directory, &source.url()).run(["backup"]).expect_code(0);
    expect_nowhere(PASSWORD, &ernstfall.state_directory());
}

#[test]
fn pg_dump_that_fails_half_way_fails_the_backup_and_its_words_are_told() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    source.execute(CONTENT);
    let directory = TestDir::new("faults");
    let lines = "$real \"$@\" | head -c 1000\necho 'pg_dump: error: something broke' >&2\nexit 1";
    let bin = programs_with_pg_dump(&directory, &cluster, lines);
    let ernstfall = with_bin_dir(product(&directory, &source.url()), &bin);
    expect_failure(&ernstfall, ernstfall.run(["backup"]), &["something broke"]);
}

#[test]
fn warning_of_pg_dump_that_is_not_known_fails_the_backup() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    let directory = TestDir::new("faults");
    let lines = "echo 'pg_dump: warning: left something out' >&2\nexec $real \"$@\"";
    let bin = programs_with_pg_dump(&directory, &cluster, lines);
    let ernstfall = with_bin_dir(product(&directory, &source.url()), &bin);
    expect_failure(&ernstfall, ernstfall.run(["backup"]), &["left something out"]);
}

#[test]
fn programs_that_lack_are_named_with_the_package_to_install() {
    let cluster = Cluster::start();
    let source = cluster.database("shop");
    let directory = TestDir::new("faults");
    let major = cluster.programs().major;
    let package = format!("postgresql-client-{major}");
    fs::create_dir(directory.join("nothing")).unwrap();
    fs::set_permissions(directory.join("nothing"), Permissions::from_mode(0o755)).unwrap();
    let empty = with_bin_dir(product(&directory, &source.url()), &directory.join("nothing"));
    expect_failure(&empty, empty.run(["backup"]), &[&package, "found none"]);

    let other = TestDir::new("faults");
    fs::create_dir(other.join("old")).unwrap();
    fs::set_permissions(other.join("old"), Permissions::from_mode(0o755)).unwrap();
    for name in ["pg_dump", "pg_restore"] {
        let text = format!("#!/bin/sh\necho '{name} (PostgreSQL) 12.9'\n");
        let path = other.write(format!("old/{name}"), text);
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let old = with_bin_dir(product(&other, &source.url()), &other.join("old"));
    let place = other.join("old").display().to_string();
    expect_failure(&old, old.run(["backup"]), &[&package, "12.9", &place]);
}
