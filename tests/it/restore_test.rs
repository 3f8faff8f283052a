//! The restore test: its phases and objectives, what it finds in a copy that was changed, and what keeps it from running.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::shop::{Shop, content, mismatches, wait_for};
use crate::support::account::Account;
use crate::support::cluster::Cluster;
use crate::support::directory::TestDir;
use crate::support::ernstfall::Output;
use crate::support::full_disk::FullDisk;
use crate::support::process::run_or_panic;
use crate::support::programs::Programs;
use crate::support::skip::require;

const RECOVERY: [&str; 10] = [
    "locate",
    "provision",
    "roles",
    "schema",
    "data",
    "indexes",
    "finish",
    "analyze",
    "durable",
    "checks",
];

fn phase_names(record: &Value) -> Vec<&str> {
    let phases = record["phases"].as_array().unwrap();
    phases
        .iter()
        .map(|phase| phase["name"].as_str().unwrap())
        .collect()
}

/// The sum of all phases but the comparison.
fn recovery_seconds(record: &Value) -> f64 {
    let phases = record["phases"].as_array().unwrap();
    phases
        .iter()
        .filter(|phase| phase["name"] != "verify")
        .map(|phase| phase["seconds"].as_f64().unwrap())
        .sum()
}

/// Changes the copy inside a restore test just before it is compared.
fn changed(shop: &Shop, sql: &str) -> Output {
    let running = shop.paused_before_comparison();
    shop.copy().execute(sql);
    running.resume();
    running.wait()
}

#[test]
fn an_unchanged_backup_passes_and_every_phase_is_timed_and_counts_except_the_comparison() {
    let shop = Shop::open();
    let id = shop.backup();
    let output = shop
        .ernstfall()
        .target_key(
            "rto_overhead",
            "{ detect = \"5m\", decide = \"0s\", cut_over = \"90s\" }",
        )
        .run(["restore-test", "shop", "--json"])
        .expect_code(0);
    let record = output.json();
    assert_eq!(
        (&record["verdict"], &record["reason"]),
        (&"passed".into(), &Value::Null)
    );
    assert_eq!(record["backup"], id.as_str());
    assert_eq!(record["recovery_point"], shop.manifest(&id)["recovery_point"]);
    let names = phase_names(&record);
    assert_eq!(names[..10], RECOVERY);
    assert_eq!(names[10..], ["verify"]);
    let rto = &record["objectives"]["rto"];
    let expected = recovery_seconds(&record) + 390.0;
    let actual = rto["actual_seconds"].as_f64().unwrap();
    assert!((actual - expected).abs() < 0.05, "{actual} and not {expected}");
    let basis = rto["basis"].as_str().unwrap();
    for part in ["embedded scratch", "detect 300s", "cut_over 90s", "cores"] {
        assert!(basis.contains(part), "{basis}");
    }
    assert_eq!(rto["verdict"], "met");
    let verification = &record["verification"];
    assert_eq!(verification["tables"], 4);
    assert_eq!(verification["rows"], 50 + 500 + 500);
    assert!(mismatches(&record).is_empty());
    assert_eq!(record["scratch"]["isolated"], true, "{}", record["scratch"]);
    assert!(shop.scratches().is_empty(), "the scratch is gone");
}

#[test]
fn a_missed_recovery_point_objective_ends_with_code_4_and_leaves_the_verdict_passed() {
    let shop = Shop::open();
    shop.backup();
    shop.wait_until_older_than(1.1);
    let output = shop
        .ernstfall()
        .target_key("rpo", "\"1s\"")
        .run(["restore-test", "shop", "--json"])
        .expect_code(4);
    let record = output.json();
    assert_eq!(record["verdict"], "passed");
    let rpo = &record["objectives"]["rpo"];
    assert_eq!(
        (&rpo["verdict"], &rpo["objective_seconds"]),
        (&"missed".into(), &1.0.into())
    );
    assert!(rpo["actual_seconds"].as_f64().unwrap() > 1.0);
    assert_eq!(record["objectives"]["rto"]["verdict"], "met");
}

#[test]
fn a_recovery_time_objective_is_missed_by_declared_times_alone() {
    let shop = Shop::open();
    shop.backup();
    let output = shop
        .ernstfall()
        .target_key("rto", "\"10m\"")
        .target_key("rto_overhead", "{ decide = \"10m\" }")
        .run(["restore-test", "shop", "--json"])
        .expect_code(4);
    let rto = &output.json()["objectives"]["rto"];
    assert_eq!(rto["verdict"], "missed");
    assert_eq!(rto["objective_seconds"], 600.0);
}

#[test]
fn an_objective_that_nobody_set_is_unknown_and_not_missed() {
    let shop = Shop::open();
    shop.backup();
    let state = format!("{:?}", shop.directory.join("state").display().to_string());
    let repository = format!(
        "{:?}",
        format!("file://{}", shop.directory.join("repository").display())
    );
    let url = format!("{:?}", shop.database.url());
    let text = format!(
        "state_dir = {state}\n[repository]\nurl = {repository}\n[[target]]\nname = \"shop\"\nurl = {url}\n"
    );
    let record = shop
        .ernstfall()
        .configuration(&text)
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    for name in ["rpo", "rto"] {
        let objective = &record["objectives"][name];
        assert_eq!(objective["verdict"], "unknown");
        assert_eq!(objective["objective_seconds"], Value::Null);
        assert!(
            objective["actual_seconds"].is_number(),
            "it was measured all the same"
        );
    }
    assert_eq!(
        (&record["environment"], &record["owner"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn an_older_backup_is_judged_on_its_own_cycle_and_not_on_its_age() {
    let shop = Shop::open();
    let first = shop.backup();
    let second = shop.backup();
    let record = shop
        .ernstfall()
        .run(["restore-test", "shop", "--backup", &first, "--json"])
        .expect_code(0)
        .json();
    assert_eq!(record["backup"], first.as_str());
    let at = |text: &Value| {
        text.as_str()
            .unwrap()
            .parse::<chrono::DateTime<chrono::Utc>>()
            .unwrap()
    };
    let cycle =
        at(&shop.manifest(&second)["finished_at"]) - at(&shop.manifest(&first)["recovery_point"]["at"]);
    let actual = record["objectives"]["rpo"]["actual_seconds"].as_f64().unwrap();
    assert!(
        (actual - cycle.as_seconds_f64()).abs() < 0.002,
        "{actual} and not {cycle}"
    );
    let newest = shop.restore_test().expect_code(0).json();
    assert_eq!(newest["backup"], second.as_str());
}

#[test]
fn one_changed_row_is_found_and_its_table_named() {
    let shop = Shop::open();
    shop.backup();
    let record = changed(&shop, "update customers set note = '' where id = 17")
        .expect_code(3)
        .json();
    assert_eq!(record["verdict"], "failed");
    let found = mismatches(&record);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].starts_with("table public.customers: 50 rows, hash "),
        "{found:?}"
    );
    assert!(record["reason"].as_str().unwrap().contains("public.customers"));
    assert_eq!(record["objectives"]["rto"]["actual_seconds"], Value::Null);
    assert_eq!(record["objectives"]["rto"]["verdict"], "unknown");
}

#[test]
fn rows_sequences_and_large_objects_that_differ_are_each_named() {
    let shop = Shop::open();
    shop.backup();
    let record = changed(
        &shop,
        "set session_replication_role = replica;
         delete from customers where id = 17;
         insert into nothing_in_it values (1);
         update orders set cents = cents + 1 where id = 1;
         update orders set cents = cents - 1 where id = 2;
         select setval('invoice_numbers', 41);
         select lo_put(4712, 0, 'O')",
    )
    .expect_code(3)
    .json();
    let found = mismatches(&record);
    assert_eq!(found.len(), 5, "{found:#?}");
    for expected in [
        "table public.customers: 50 rows / 49 rows",
        "table public.nothing_in_it: 0 rows / 1 rows",
        "table public.orders: 500 rows, hash ",
        "sequence public.invoice_numbers: last value 42, is_called true / last value 41, is_called true",
        "large objects all: 2 of 12 bytes, hash ",
    ] {
        assert!(
            found.iter().any(|one| one.starts_with(expected)),
            "{expected} in {found:#?}"
        );
    }
}

#[test]
fn every_change_of_the_schema_is_named() {
    let shop = Shop::open();
    shop.backup();
    let record = changed(
        &shop,
        "drop index orders_by_customer;
         alter table orders drop constraint cents_positive;
         alter table orders drop constraint orders_customer_fkey;
         alter table audit owner to shop_owner;
         revoke select on customers from clerk;
         alter table orders disable trigger note_order;
         drop view open_orders;
         create view not_of_the_source as select 1;
         create or replace function note_order() returns trigger language plpgsql
             as $$begin return new; end$$;
         alter type state add value 'lost'",
    )
    .expect_code(3)
    .json();
    assert_eq!(record["verdict"], "failed");
    let found = mismatches(&record);
    for expected in [
        "orders_by_customer; Type: INDEX",
        // Checks are part of their table in a dump.
        "orders; Type: TABLE; ",
        "orders orders_customer_fkey; Type: FK CONSTRAINT",
        "audit; Type: TABLE; ",
        "TABLE customers; Type: ACL",
        "orders note_order; Type: TRIGGER",
        "open_orders; Type: VIEW",
        "not_of_the_source; Type: VIEW",
        "note_order(); Type: FUNCTION",
        "state; Type: TYPE",
    ] {
        assert!(
            found.iter().any(|one| one.contains(expected)),
            "{expected} is not in {found:#?}"
        );
    }
}

#[test]
fn an_unpopulated_view_a_lost_setting_and_a_missing_table_are_named() {
    let shop = Shop::open();
    let name = shop.database.name().to_owned();
    shop.database
        .execute(&format!("alter database {name} set work_mem = '5MB'"));
    shop.backup();
    let record = changed(
        &shop,
        &format!(
            "refresh materialized view totals with no data;
             alter database {name} reset work_mem;
             drop table nothing_in_it;
             alter table audit add column added int"
        ),
    )
    .expect_code(3)
    .json();
    let found = mismatches(&record);
    for expected in [
        "materialized view public.totals: populated / not populated",
        "database settings ",
        "table public.nothing_in_it: the table / no such table",
        "columns public.audit: entry text / entry text, added integer",
    ] {
        assert!(
            found.iter().any(|one| one.starts_with(expected)),
            "{expected} in {found:#?}"
        );
    }
}

const CHECK_ORDERS: &str =
    "[[target.check]]\nname = \"orders are there\"\nsql = \"select count(*) from orders\"\n";

#[test]
fn a_check_that_holds_passes_and_one_that_does_not_makes_the_backup_bad() {
    let shop = Shop::open();
    shop.backup();
    let with = |expect: &str| {
        shop.ernstfall()
            .tables(&format!("{CHECK_ORDERS}expect = \"{expect}\"\n"))
            .run(["restore-test", "shop", "--json"])
    };
    let record = with("= 500").expect_code(0).json();
    let check = &record["verification"]["checks"][0];
    assert_eq!((&check["passed"], &check["found"]), (&true.into(), &"500".into()));
    let record = with("> 500").expect_code(3).json();
    assert_eq!(record["verdict"], "failed");
    let reason = record["reason"].as_str().unwrap();
    assert!(
        reason.contains("orders are there") && reason.contains("500"),
        "{reason}"
    );
    assert_eq!(record["objectives"]["rto"]["actual_seconds"], Value::Null);
    assert!(mismatches(&record).is_empty());
}

#[test]
fn checks_that_are_wrong_or_write_fail_and_change_nothing() {
    let shop = Shop::open();
    shop.backup();
    let check = |name: &str, sql: &str| {
        format!("[[target.check]]\nname = {name:?}\nsql = {sql:?}\nexpect = \"> -1\"\n")
    };
    let record = shop
        .ernstfall()
        .tables(&check("no such table", "select count(*) from invoices"))
        .tables(&check(
            "writes",
            "with gone as (delete from audit returning 1) select count(*) from gone",
        ))
        .tables(&check(
            "leaves its transaction",
            "rollback; delete from audit; select 1",
        ))
        .tables(&check("two rows", "select 1 union all select 2"))
        .run(["restore-test", "shop", "--json"])
        .expect_code(3)
        .json();
    let checks = record["verification"]["checks"].as_array().unwrap();
    let found: Vec<&str> = checks
        .iter()
        .map(|check| check["found"].as_str().unwrap())
        .collect();
    assert!(checks.iter().all(|check| check["passed"] == false), "{checks:#?}");
    assert!(found[0].contains("invoices"), "{found:?}");
    assert!(found[1].contains("read-only"), "{found:?}");
    assert!(found[3].contains("2 rows"), "{found:?}");
    assert!(
        mismatches(&record).is_empty(),
        "the copy is as it was: {record:#}"
    );
}

#[test]
fn a_kept_scratch_says_how_to_start_it_and_really_starts() {
    let shop = Shop::open();
    shop.backup();
    let output = shop
        .ernstfall()
        .run(["restore-test", "shop", "--keep-scratch", "--json"])
        .expect_code(0);
    let line = output.stderr.lines().find(|line| line.contains("start it with"));
    let command = line.unwrap().split_once("start it with ").unwrap().1;
    let scratches = shop.scratches();
    let [scratch] = scratches.as_slice() else {
        panic!("{scratches:?}")
    };
    assert!(!scratch.join("run/.s.PGSQL.5432").exists(), "it is stopped");
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec {command}")]).current_dir("/");
    crate::support::process::die_with_us(
        Account::unprivileged().run_as(&mut shell),
        nix::sys::signal::Signal::SIGQUIT,
    );
    let mut server = shell.spawn().unwrap();
    wait_for("the kept scratch to answer", || {
        assert!(server.try_wait().unwrap().is_none(), "the command ended");
        scratch.join("run/.s.PGSQL.5432").exists() && shop.copy().try_session().is_ok()
    });
    assert_eq!(content(&shop.copy()), content(&shop.database));
    // The next command leaves it alone: somebody wanted it.
    shop.restore_test().expect_code(0);
    assert_eq!(shop.scratches(), scratches);
    crate::support::process::send(&server, nix::sys::signal::Signal::SIGINT);
    server.wait().unwrap();
}

#[test]
fn nothing_leads_out_of_the_copy() {
    let shop = Shop::open();
    shop.backup();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let port = listener.local_addr().unwrap().port();
    let secret = shop.directory.write("secret", "only for its owner");
    let running = shop.paused_before_comparison();
    let copy = shop.copy().session();
    copy.execute("create temp table out (line text)");
    let socket = shop.cluster.socket_directory().display().to_string();
    let source_port = shop.cluster.port();
    let attempts = [
        format!("bash -c 'echo out >/dev/tcp/127.0.0.1/{port}'"),
        format!("psql -XAt -h {socket} -p {source_port} -U postgres -d postgres -c 'select 1'"),
        format!("psql -XAt -h 127.0.0.1 -p {source_port} -U postgres -d postgres -c 'select 1'"),
        format!("cat {}", secret.display()),
        format!("cat /proc/{}/environ", running.pid()),
        format!("kill -0 {}", running.pid()),
        format!("cat {}", shop.ernstfall().configuration_file().display()),
        format!("ls {}", shop.directory.join("repository").display()),
    ];
    for attempt in &attempts {
        let quoted = attempt.replace('\'', "''");
        let tried = copy.try_execute(&format!("copy out from program '{quoted}'"));
        assert!(
            tried.is_err(),
            "{attempt} got through: {:?}",
            copy.query_rows("table out")
        );
    }
    assert!(
        copy.try_execute(&format!("select pg_read_file('{}')", secret.display()))
            .is_err(),
        "the server itself reads it"
    );
    let written = shop.directory.join("written");
    // It may seem to work inside, where the directory is another one.
    let _ = copy.try_execute(&format!("copy out to program 'cat > {}'", written.display()));
    assert!(!written.exists());
    assert!(listener.accept().is_err(), "somebody reached the listener");
    assert_eq!(copy.query_one_text("select count(*) from out"), "0");
    // The attempts were real: the same commands get through from outside.
    for attempt in [&attempts[0], &attempts[1], &attempts[3]] {
        let mut shell = Command::new("sh");
        run_or_panic(Account::unprivileged().run_as(shell.args(["-c", attempt])));
    }
    running.resume();
    assert_isolated(&running.wait().expect_code(0).json()["scratch"]);
}

/// What the record says of the sandbox.
fn assert_isolated(scratch: &Value) {
    assert_eq!(scratch["kind"], "embedded");
    assert_eq!(scratch["isolated"], true);
    let layers = scratch["layers"].as_array().unwrap();
    assert!(
        layers.contains(&"landlock".into()) && layers.contains(&"seccomp".into()),
        "{layers:?}"
    );
    let probe = scratch["probe"].as_array().unwrap();
    assert!(
        !probe.is_empty() && probe.iter().all(|one| one["open"] == false),
        "{probe:?}"
    );
}

fn reason(record: &Value) -> &str {
    assert_eq!(record["verdict"], "could-not-run", "{record:#}");
    record["reason"].as_str().unwrap()
}

/// An extension that no other installation on this machine has.
pub(crate) fn installation_with_an_extension(directory: &TestDir, name: &str) -> Programs {
    let script = "create function from_elsewhere() returns int language sql as 'select 1';";
    installation_with_a_script(directory, name, script)
}

/// PostgreSQL finds its files relative to its program: a copy of the program has extensions of its own.
pub(crate) fn installation_with_a_script(directory: &TestDir, name: &str, script: &str) -> Programs {
    let newest = Programs::newest();
    let ask = |what: &str| {
        run_or_panic(Command::new(newest.path("pg_config")).arg(what))
            .trim()
            .to_owned()
    };
    let (library, share) = (ask("--pkglibdir"), ask("--sharedir"));
    let major = newest.major;
    let root = directory.path();
    let bin = root.join(format!("lib/postgresql/{major}/bin"));
    let extensions = root.join(format!("share/postgresql/{major}/extension"));
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&extensions).unwrap();
    symlink(library, bin.parent().unwrap().join("lib")).unwrap();
    fs::copy(newest.path("postgres"), bin.join("postgres")).unwrap();
    for program in ["initdb", "pg_dump", "psql"] {
        symlink(newest.path(program), bin.join(program)).unwrap();
    }
    let link_all = |from: &Path, to: &Path| {
        for entry in fs::read_dir(from).unwrap().flatten() {
            if entry.file_name() != "extension" {
                symlink(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    };
    link_all(Path::new(&share), extensions.parent().unwrap());
    link_all(&Path::new(&share).join("extension"), &extensions);
    let control = "comment = 'of a test'\ndefault_version = '1.2'\nrelocatable = true\n";
    fs::write(extensions.join(format!("{name}.control")), control).unwrap();
    fs::write(extensions.join(format!("{name}--1.2.sql")), script).unwrap();
    fs::set_permissions(root, Permissions::from_mode(0o755)).unwrap();
    Programs::at(&bin).expect("a copied installation")
}

#[test]
fn an_extension_that_this_machine_lacks_is_not_the_backups_fault() {
    let directory = TestDir::new("programs");
    let programs = installation_with_an_extension(&directory, "shop_tools");
    let shop = Shop::on(Cluster::builder().programs(programs).start());
    shop.database.execute("create extension shop_tools");
    let id = shop.backup();
    let record = shop.restore_test().expect_code(1).json();
    assert!(
        reason(&record).contains("the extension shop_tools 1.2"),
        "{record:#}"
    );
    assert!(
        reason(&record).contains("apt-get install postgresql-15-shop-tools")
            || shop.cluster.programs().major != 15
    );
    assert_eq!(record["backup"], id.as_str());
    let status = shop.status().json();
    assert_eq!(
        status["newest_backup"]["verdict"],
        Value::Null,
        "nothing is known of it"
    );
    assert_eq!(status["recovery_point"], shop.manifest(&id)["recovery_point"]);
    assert!(shop.scratches().is_empty());
}

#[test]
fn a_locale_that_this_machine_lacks_is_not_the_backups_fault() {
    let shop = Shop::open();
    let id = shop.backup();
    shop.edit_contents(&id, |contents| {
        contents["database"]["collate"] = "tlh_QO.UTF-8".into();
    });
    let record = shop.restore_test().expect_code(1).json();
    for part in ["tlh_QO.UTF-8", "apt-get install locales-all"] {
        assert!(reason(&record).contains(part), "{record:#}");
    }
}

#[test]
fn missing_server_programs_are_named_with_their_package() {
    let shop = Shop::open();
    shop.backup();
    let clients = TestDir::new("programs");
    for program in ["pg_dump", "pg_restore", "psql"] {
        symlink(shop.cluster.programs().path(program), clients.join(program)).unwrap();
    }
    let record = shop
        .ernstfall()
        .key("bin_dir", &format!("{:?}", clients.path().display().to_string()))
        .run(["restore-test", "shop", "--json"])
        .expect_code(1)
        .json();
    let major = shop.cluster.programs().major;
    for part in ["initdb and postgres".to_owned(), format!("postgresql-{major}")] {
        assert!(reason(&record).contains(&part), "{record:#}");
    }
}

#[test]
fn a_disk_too_small_for_the_copy_is_said_before_anything_is_made() {
    require!(FullDisk::is_possible(), "only root can mount a small file system");
    let shop = Shop::open();
    shop.backup();
    let disk = FullDisk::of_megabytes(20);
    let record = shop
        .ernstfall()
        .tables(&format!(
            "[scratch]\ndirectory = {:?}\n",
            disk.path().display().to_string()
        ))
        .run(["restore-test", "shop", "--json"])
        .expect_code(1)
        .json();
    let reason = reason(&record);
    assert!(reason.contains("MB free, and the copy needs about"), "{reason}");
    assert!(reason.contains(&disk.path().display().to_string()), "{reason}");
    assert_eq!(phase_names(&record).last(), Some(&"provision"));
    assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
}

#[test]
fn a_disk_that_fills_up_while_loading_is_not_the_backups_fault() {
    require!(FullDisk::is_possible(), "only root can mount a small file system");
    let shop = Shop::empty();
    shop.database.execute(
        "create table big (id int, text text);
         insert into big select n, repeat(md5(n::text), 10) from generate_series(1, 20000) n",
    );
    shop.backup();
    let disk = FullDisk::of_megabytes(200);
    let mut running = shop
        .ernstfall()
        .tables(&format!(
            "[scratch]\ndirectory = {:?}\n",
            disk.path().display().to_string()
        ))
        .pause_at("restore-data")
        .spawn(["restore-test", "shop", "--json"]);
    running.wait_until_paused("restore-data");
    let statistics = nix::sys::statvfs::statvfs(disk.path()).unwrap();
    let free = statistics.blocks_available() * statistics.fragment_size();
    let filling = usize::try_from(free - (1 << 20)).unwrap();
    fs::write(disk.path().join("filling"), vec![1; filling]).unwrap();
    running.resume();
    let record = running.wait().expect_code(1).json();
    assert!(reason(&record).contains("No space left on device"), "{record:#}");
    let left: Vec<_> = fs::read_dir(disk.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["filling"]);
}

#[test]
fn a_repository_out_of_reach_is_not_the_backups_fault() {
    let shop = Shop::open();
    let id = shop.backup();
    let (there, gone) = (shop.directory.join("repository"), shop.directory.join("gone"));
    let mut running = shop
        .ernstfall()
        .pause_at("restore-schema")
        .spawn(["restore-test", "shop", "--json"]);
    running.wait_until_paused("restore-schema");
    fs::rename(&there, &gone).unwrap();
    running.resume();
    let record = running.wait().expect_code(1).json();
    assert!(
        reason(&record).contains(&there.display().to_string()),
        "{record:#}"
    );
    // And when it is gone from the start.
    let output = shop.restore_test().expect_code(1);
    assert!(
        output.stderr.contains(&there.display().to_string()),
        "{}",
        output.stderr
    );
    fs::rename(&gone, &there).unwrap();
    let status = shop.status().json();
    assert_eq!(status["recovery_point"], shop.manifest(&id)["recovery_point"]);
    let last = &status["last_restore_test"];
    assert_eq!(
        last["verdict"], "could-not-run",
        "the record was kept and delivered: {status:#}"
    );
}

#[test]
fn the_books_of_a_busy_bank_balance_in_the_copy() {
    let shop = Shop::empty();
    let pgbench = |arguments: &[&str]| {
        let mut command = Command::new(shop.cluster.programs().path("pgbench"));
        command
            .args(arguments)
            .arg(shop.database.socket_url())
            .env("LC_ALL", "C");
        command
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        crate::support::process::die_with_us(&mut command, nix::sys::signal::Signal::SIGKILL);
        command.spawn().unwrap()
    };
    assert!(pgbench(&["-i", "-s", "1", "-q"]).wait().unwrap().success());
    let mut load = pgbench(&["-n", "-c", "2", "-T", "100"]);
    let booked = || -> u64 {
        shop.database
            .query_one_text("select count(*) from pgbench_history")
            .parse()
            .unwrap()
    };
    wait_for("the load to begin", || booked() > 100);
    let before = booked();
    shop.backup();
    assert!(booked() > before, "the load went on during the backup");
    load.kill().unwrap();
    load.wait().unwrap();
    let sql = "select count(distinct total) from (select sum(abalance) as total from pgbench_accounts \
               union all select sum(bbalance) from pgbench_branches union all select sum(tbalance) from \
               pgbench_tellers union all select sum(delta) from pgbench_history) totals";
    let record = shop
        .ernstfall()
        .tables(&format!(
            "[[target.check]]\nname = \"the books balance\"\nsql = {sql:?}\nexpect = \"= 1\"\n"
        ))
        .run(["restore-test", "shop", "--json"])
        .expect_code(0)
        .json();
    let rows = record["verification"]["rows"].as_u64().unwrap();
    assert!(rows > 100_011 + 100, "{rows}");
    assert_eq!(record["verification"]["checks"][0]["passed"], true);
}

#[test]
fn a_backup_does_not_wait_for_a_restore_test() {
    let shop = Shop::open();
    let first = shop.backup();
    let running = shop.paused_before_comparison();
    let second = shop.backup();
    assert_ne!(first, second);
    running.resume();
    let record = running.wait().expect_code(0).json();
    assert_eq!(record["backup"], first.as_str());
}
