//! Scratches for real. They need a PostgreSQL server, the built program (for its hidden subcommands) and, for
//! root, the user `ernstfall`; what is lacking is said loudly and the test passes over.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::postgres::programs::Programs;

/// Settings for a scratch below `base`, or none (and why) where this machine cannot run the test.
fn settings(base: &Path) -> Option<EmbeddedSettings> {
    let skip = |why: &str| {
        eprintln!("SKIPPED: {why}");
        None
    };
    let Some(programs) = Programs::find(None)
        .into_iter()
        .rev()
        .find(|one| one.has(&["initdb", "postgres"]))
    else {
        return skip("no PostgreSQL server on this machine");
    };
    let own = std::env::current_exe().unwrap();
    let binary = own.parent().unwrap().parent().unwrap().join("ernstfall");
    if !binary.is_file() {
        return skip("the program is not built (cargo build)");
    }
    if nix::unistd::Uid::effective().is_root() && nix::unistd::User::from_name("ernstfall").unwrap().is_none()
    {
        return skip("this is root, and there is no user `ernstfall`");
    }
    let mut settings = EmbeddedSettings::new(base.to_path_buf(), programs);
    settings.own_binary = Some(binary);
    settings.superuser = "Ödön the boss".into();
    settings.run = "test run".into();
    Some(settings)
}

/// A base that the server's user can pass through.
fn base() -> tempfile::TempDir {
    let base = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::set_permissions(base.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    base
}

async fn value(scratch: &Embedded, sql: &str) -> String {
    let (client, connection) = scratch.connection("postgres").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scratch_is_isolated_survives_the_durable_restart_and_is_removed() {
    let base = base();
    let Some(settings) = settings(base.path()) else {
        return;
    };
    let cancel = CancellationToken::new();
    let started = Instant::now();
    let mut scratch = Embedded::provision(settings, &cancel).await.unwrap();
    eprintln!(
        "provisioned in {:?}: {:#?}",
        started.elapsed(),
        scratch.isolation()
    );
    assert!(scratch.isolation().isolated);
    assert_eq!(scratch.isolation().probe.len(), 13);
    assert_eq!(value(&scratch, "show fsync").await, "off");
    assert_eq!(
        value(&scratch, "select current_user::text").await,
        scratch.superuser()
    );
    value(
        &scratch,
        "with a as (select set_config('x.y', '1', false)) select set_config from a",
    )
    .await;
    let (client, connection) = scratch.connection("postgres").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute("create table t as select generate_series(1, 1000) as n")
        .await
        .unwrap();
    assert!(client.batch_execute("select 1 / 0").await.is_err());
    drop(client);
    let started = Instant::now();
    scratch.restart_durable(&cancel).await.unwrap();
    eprintln!("durable in {:?}", started.elapsed());
    assert_eq!(value(&scratch, "show fsync").await, "on");
    assert_eq!(value(&scratch, "show wal_level").await, "replica");
    assert_eq!(value(&scratch, "select count(*)::text from t").await, "1000");
    assert!(
        scratch
            .read_csv_log()
            .unwrap()
            .iter()
            .any(|entry| entry.sqlstate == "22012")
    );
    assert_eq!(scratch.exited(), None);
    let path = scratch.disk_path().to_path_buf();
    let started = Instant::now();
    scratch.remove().await.unwrap();
    eprintln!("removed in {:?}", started.elapsed());
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_isolation_the_probe_sees_what_is_open() {
    let base = base();
    let Some(mut settings) = settings(base.path()) else {
        return;
    };
    settings.isolation = IsolationWanted::None;
    let scratch = Embedded::provision(settings, &CancellationToken::new())
        .await
        .unwrap();
    eprintln!("{:#?}", scratch.isolation());
    assert!(!scratch.isolation().isolated);
    let open = |name: &str| {
        scratch
            .isolation()
            .probe
            .iter()
            .any(|result| result.name == name && result.open)
    };
    for name in [
        "tcp_ipv4",
        "udp",
        "unix_socket",
        "abstract_socket",
        "file_read",
        "file_write",
        "process_environment",
        "signal",
        "server_file_read",
        "server_directory_list",
    ] {
        assert!(open(name), "{name} should be open");
    }
    let path = scratch.disk_path().to_path_buf();
    drop(scratch);
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_is_noticed_and_its_last_words_are_quoted() {
    let base = base();
    let Some(mut settings) = settings(base.path()) else {
        return;
    };
    settings.preload = vec!["no_such_library".into()];
    let error = Embedded::provision(settings, &CancellationToken::new())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("no_such_library"), "{error}");
    assert!(error.contains("install its package"), "{error}");
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_leaves_nothing_behind() {
    let base = base();
    let Some(settings) = settings(base.path()) else {
        return;
    };
    let cancel = CancellationToken::new();
    let stopper = cancel.clone();
    let task = tokio::spawn(async move { Embedded::provision(settings, &cancel).await.map(drop) });
    tokio::time::sleep(Duration::from_millis(150)).await;
    stopper.cancel();
    let error = task.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_closed_to_the_servers_user_do_not_matter() {
    let base = base();
    let Some(mut settings) = settings(base.path()) else {
        return;
    };
    std::fs::set_permissions(base.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let binary = base.path().join("ernstfall");
    std::fs::copy(settings.own_binary.unwrap(), &binary).unwrap();
    settings.own_binary = Some(binary);
    let scratch = Embedded::provision(settings, &CancellationToken::new())
        .await
        .unwrap();
    assert!(scratch.isolation().isolated);
    let place = scratch.disk_path().to_path_buf();
    assert_eq!(
        !place.starts_with(base.path()),
        nix::unistd::Uid::effective().is_root()
    );
    let (client, connection) = scratch.connection("postgres").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    // Parallel workers need dynamic shared memory, which differs between sandbox and machine.
    let sql = "create table t as select n, md5(n::text) as m from generate_series(1, 200000) as n; \
               set min_parallel_table_scan_size = 0; set maintenance_work_mem = '256MB'; \
               create index on t (m); \
               set parallel_setup_cost = 0; set parallel_tuple_cost = 0; select count(m) from t";
    client.batch_execute(sql).await.unwrap();
    drop(client);
    drop(scratch);
    assert!(!place.exists());
    if let Some(short) = place.parent().filter(|parent| *parent != base.path()) {
        std::fs::remove_dir(short).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superuser_that_initdb_refuses_is_said_beforehand() {
    let base = base();
    let Some(mut settings) = settings(base.path()) else {
        return;
    };
    settings.superuser = "the \"boss\"".into();
    let error = Embedded::provision(settings, &CancellationToken::new())
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ScratchError::SuperuserName { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_statistics_collector_is_isolated_or_refused() {
    let base = base();
    let Some(mut settings) = settings(base.path()) else {
        return;
    };
    // Treated as one: its own loopback interface, and connect() unfiltered.
    settings.programs.major = 14;
    settings.isolation = IsolationWanted::BestEffort;
    let cancel = CancellationToken::new();
    let scratch = Embedded::provision(settings.clone(), &cancel).await.unwrap();
    eprintln!("open: {:?}", scratch.isolation().open());
    let isolated = scratch.isolation().isolated;
    // Only namespaces keep such a server from connecting: where they are refused, the probe must see it.
    assert_eq!(
        isolated,
        scratch.isolation().missing.is_empty(),
        "{:#?}",
        scratch.isolation()
    );
    scratch.remove().await.unwrap();
    settings.isolation = IsolationWanted::Required;
    match Embedded::provision(settings, &cancel).await {
        Ok(_) => assert!(isolated),
        Err(error) => {
            assert!(matches!(error, ScratchError::Open { .. }) && !isolated, "{error}");
            eprintln!("{error}");
        }
    }
    assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_helper_ends_everything_inside() {
    let base = base();
    let Some(settings) = settings(base.path()) else {
        return;
    };
    let mut scratch = Embedded::provision(settings, &CancellationToken::new())
        .await
        .unwrap();
    let directory = scratch.disk_path().display().to_string();
    let helper = crate::scratch::place::read_owner(scratch.disk_path())
        .unwrap()
        .server
        .unwrap();
    assert!(helper.is_alive());
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(helper.number),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    wait_for(|| scratch.exited()).await;
    wait_for(|| processes_of(&directory).is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_scratch_stays_and_is_not_swept() {
    let base = base();
    let Some(settings) = settings(base.path()) else {
        return;
    };
    let scratch = Embedded::provision(settings, &CancellationToken::new())
        .await
        .unwrap();
    let kept = scratch.keep().await.unwrap();
    eprintln!("{}", kept.command);
    assert!(kept.path.join("run/data/PG_VERSION").exists());
    assert!(sweep(base.path()).is_empty());
    assert!(kept.path.exists());
}

/// Not a test of its own: the process that the next one kills.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test that kills it"]
async fn victim() {
    let base = PathBuf::from(std::env::var_os("ERNSTFALL_TEST_BASE").unwrap());
    let mut settings = settings(&base).unwrap();
    if std::env::var_os("ERNSTFALL_TEST_NO_ISOLATION").is_some() {
        settings.isolation = IsolationWanted::None;
    }
    let scratch = Embedded::provision(settings, &CancellationToken::new())
        .await
        .unwrap();
    std::fs::write(
        base.join("ready"),
        scratch.disk_path().as_os_str().as_encoded_bytes(),
    )
    .unwrap();
    // A busy backend and an orphan of it: neither may outlive us.
    let (client, connection) = scratch.connection("postgres").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let command = "copy (select 1) to program '(sleep 987 & ) ; sleep 987'";
    client.batch_execute(command).await.unwrap();
}

async fn kill_victim(no_isolation: Option<&str>) {
    let base = base();
    if settings(base.path()).is_none() {
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "scratch::tests::victim", "--ignored", "--nocapture"]);
    command
        .env("ERNSTFALL_TEST_BASE", base.path())
        .stdout(Stdio::null());
    command.envs(no_isolation.map(|value| ("ERNSTFALL_TEST_NO_ISOLATION", value)));
    let mut victim = command.spawn().unwrap();
    let ready = base.path().join("ready");
    let scratch = wait_for(|| {
        std::fs::read_to_string(&ready)
            .ok()
            .filter(|text| !text.is_empty())
    })
    .await;
    let sandbox = wait_for(|| processes_of(&scratch).first().copied()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    eprintln!("before: {:?} (one of them {sandbox})", processes_of(&scratch));
    assert!(sweep(base.path()).is_empty(), "a living scratch is not swept");
    victim.kill().unwrap();
    victim.wait().unwrap();
    let started = Instant::now();
    wait_for(|| processes_of(&scratch).is_empty().then_some(())).await;
    eprintln!("all gone {:?} after the kill", started.elapsed());
    let swept = sweep(base.path());
    assert_eq!(
        (swept.len(), swept[0].run.as_str(), &swept[0].problem),
        (1, "test run", &None)
    );
    assert!(!Path::new(&scratch).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_maker_leaves_no_process_and_the_sweep_removes_the_rest() {
    kill_victim(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_maker_leaves_no_process_even_without_namespaces() {
    kill_victim(Some("1")).await;
}

async fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Processes that work in a scratch directory, or name it: the server, its children, and what they started.
fn processes_of(scratch: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|number: &i32| {
            let directory = std::fs::read_link(format!("/proc/{number}/cwd")).unwrap_or_default();
            let command = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
            directory.starts_with(scratch) || String::from_utf8_lossy(&command).contains(scratch)
        })
        .collect()
}
