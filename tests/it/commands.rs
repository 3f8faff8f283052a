//! The commands a new user meets first: init, check, demo.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::directory::TestDir;
use crate::support::ernstfall::{Ernstfall, Output};

/// Building the shop, two backups and two restore tests, on a machine with other things to do.
const DEMO_DEADLINE: Duration = Duration::from_secs(300);

const ORDERS: &str = "create table orders (id int primary key, note text);
    insert into orders select n, 'order ' || n from generate_series(1, 1000) as n";

/// The line about a subject, in the area of a target.
fn line<'a>(lines: &'a Value, target: &str, subject: &str) -> &'a Value {
    let area = format!("target {target}");
    let is_it = |line: &&Value| line["area"] == area.as_str() && line["subject"] == subject;
    let found = lines.as_array().unwrap().iter().find(is_it);
    found.unwrap_or_else(|| panic!("no line about {subject} of {target} in {lines:#}"))
}

fn failed(lines: &Value) -> Vec<String> {
    let lines = lines.as_array().unwrap().iter();
    let failed = lines.filter(|line| line["result"] == "failed");
    failed
        .map(|line| {
            format!(
                "{}: {}",
                line["area"].as_str().unwrap(),
                line["subject"].as_str().unwrap()
            )
        })
        .collect()
}

#[test]
fn init_writes_a_configuration_that_works() {
    let cluster = Cluster::start();
    let database = cluster.database("shop");
    database.execute(ORDERS);
    let directory = TestDir::new("init");
    let ernstfall = Ernstfall::new(&directory);
    let written = directory.join("written.toml");
    let (file, state) = (
        written.display().to_string(),
        directory.join("own-state").display().to_string(),
    );
    let url = database.socket_url();
    let output = ernstfall.run([
        "init",
        &file,
        "--target",
        "shop",
        "--url",
        &url,
        "--state-dir",
        &state,
        "--json",
    ]);
    let output = output.expect_code(0);
    assert_eq!(output.json()["connected"], true);
    assert_eq!(
        fs::metadata(&written).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let key = directory.join("age.key");
    assert_eq!(output.json()["key"]["file"], key.display().to_string());
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let public = output.json()["key"]["public_key"].as_str().unwrap().to_owned();
    let text = fs::read_to_string(&key).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("# created: "), "{lines:?}");
    assert_eq!(lines[1], format!("# public key: {public}"));
    assert!(lines[2].starts_with("AGE-SECRET-KEY-1") && lines.len() == 3);
    assert!(!output.stdout.contains(lines[2]) && !output.stderr.contains(lines[2]));
    let ernstfall = ernstfall.configuration(&fs::read_to_string(&written).unwrap());
    ernstfall.run(["check"]).expect_code(0);
    let backup = ernstfall.run(["backup", "shop", "--json"]).expect_code(0).json();
    let id = backup["backup"].as_str().unwrap();
    let folder = format!("own-state/repository/targets/shop/backups/{id}");
    assert!(directory.join(folder).join("roles.sql.zst.age").is_file());
    let test = ernstfall.run(["restore-test", "shop", "--json"]).expect_code(0);
    assert_eq!(test.json()["verdict"], "passed");
    let lines = ernstfall.run(["check", "--json"]).expect_code(0).json();
    for subject in ["last backup", "last restore test"] {
        assert_eq!(line(&lines, "shop", subject)["result"], "ok", "{lines:#}");
    }
}

#[test]
fn init_overwrites_nothing_and_writes_no_password() {
    let directory = TestDir::new("init");
    let ernstfall = Ernstfall::new(&directory);
    directory.write("there.toml", "mine");
    let output = ernstfall.run(["init", "there.toml"]).expect_code(2);
    assert!(output.stderr.contains("exists already"), "{}", output.stderr);
    assert_eq!(fs::read_to_string(directory.join("there.toml")).unwrap(), "mine");
    let url = "postgresql://backup:hunter2@db.invalid/shop";
    let output = ernstfall.run(["init", "new.toml", "--url", url]).expect_code(2);
    assert!(
        output.stderr.contains("--url-env")
            && output.stderr.contains(".pgpass")
            && !output.stderr.contains("hunter2"),
        "{}",
        output.stderr
    );
    assert!(!directory.join("new.toml").exists());
    let ernstfall = ernstfall.environment("SHOP_URL", url);
    let output = ernstfall
        .run(["init", "new.toml", "--url-env", "SHOP_URL"])
        .expect_code(0);
    assert!(output.stdout.contains("not connected"), "{}", output.stdout);
    let text = fs::read_to_string(directory.join("new.toml")).unwrap();
    assert!(
        text.contains("url = { env = \"SHOP_URL\" }") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn init_overwrites_no_key_and_makes_none_where_none_is_wanted() {
    let directory = TestDir::new("init");
    let ernstfall = Ernstfall::new(&directory);
    directory.write("age.key", "mine");
    let output = ernstfall.run(["init", "new.toml"]).expect_code(2);
    assert!(
        output.stderr.contains("age.key exists already") && output.stderr.contains("--no-encryption"),
        "{}",
        output.stderr
    );
    assert!(!directory.join("new.toml").exists());
    ernstfall
        .run(["init", "new.toml", "--no-encryption"])
        .expect_code(0);
    assert_eq!(fs::read_to_string(directory.join("age.key")).unwrap(), "mine");
    let text = fs::read_to_string(directory.join("new.toml")).unwrap();
    assert!(
        !text.contains("[encryption]\n") && text.contains("in the clear"),
        "{text}"
    );
}

#[test]
fn init_without_a_database_leaves_a_place_for_one() {
    let directory = TestDir::new("init");
    let ernstfall = Ernstfall::new(&directory).environment("PGHOST", "/nonexistent");
    let output = ernstfall.run(["init", "new.toml"]).expect_code(0);
    assert!(output.stdout.contains("MAIN_DATABASE_URL"), "{}", output.stdout);
    assert!(
        output
            .stdout
            .contains("without this key nobody can restore a backup"),
        "{}",
        output.stdout
    );
    let text = fs::read_to_string(directory.join("new.toml")).unwrap();
    assert!(text.contains("url = { env = \"MAIN_DATABASE_URL\" }"), "{text}");
}

#[test]
fn check_passes_on_a_good_setup_and_leaves_nothing_behind() {
    let cluster = Cluster::start();
    let database = cluster.database("shop");
    database.execute(ORDERS);
    let directory = TestDir::new("check");
    let ernstfall = Ernstfall::new(&directory).target("shop", &database.url());
    let output = ernstfall.run(["check", "--json"]).expect_code(0);
    let lines = output.json();
    assert_eq!(failed(&lines), Vec::<String>::new());
    let scratch = line(&lines, "shop", "scratch");
    assert!(
        scratch["message"].as_str().unwrap().contains("seccomp"),
        "{scratch}"
    );
    for folder in [
        ernstfall.state_directory().join("scratch"),
        ernstfall.repository_directory(),
    ] {
        let left = fs::read_dir(&folder).unwrap().flatten();
        // The store's own folder for temporary files stays.
        let left: Vec<_> = left
            .map(|entry| entry.file_name())
            .filter(|name| name != ".tmp")
            .collect();
        assert!(left.is_empty(), "{} holds {left:?}", folder.display());
    }
}

#[test]
fn check_names_a_missing_grant_and_the_statement_that_mends_it() {
    let cluster = Cluster::start();
    let database = cluster.database("shop");
    database.execute(&format!("{ORDERS}; create role clerk login password 'till'"));
    let directory = TestDir::new("check");
    let ernstfall = Ernstfall::new(&directory).target("shop", &database.url_as("clerk", "till"));
    let output = ernstfall.run(["check", "shop"]).expect_code(1);
    assert!(
        output
            .stdout
            .contains("FAIL  privileges: no right to read public.orders"),
        "{}",
        output.stdout
    );
    let remedy = "GRANT pg_read_all_data TO \"clerk\";";
    assert!(
        output.stdout.contains(&format!("-> {remedy}\n")),
        "{}",
        output.stdout
    );
    database.execute(remedy);
    let output = ernstfall.run(["check", "--json"]).expect_code(0);
    assert_eq!(line(&output.json(), "shop", "privileges")["result"], "ok");
    ernstfall.run(["backup"]).expect_code(0);
    ernstfall.run(["restore-test"]).expect_code(0);
}

#[test]
fn check_of_one_target_with_a_wrong_password_fails_only_that_line() {
    let cluster = Cluster::start();
    let database = cluster.database("shop");
    let directory = TestDir::new("check");
    let ernstfall = Ernstfall::new(&directory)
        .target("bad", &database.url_as("postgres", "wrong"))
        .target("good", &database.url());
    let output: Output = ernstfall.run(["check", "--json"]).expect_code(1);
    let lines = output.json();
    assert_eq!(failed(&lines), ["target bad: connection"]);
    let connection = line(&lines, "bad", "connection");
    assert!(
        connection["remedy"].as_str().unwrap().contains("password"),
        "{connection}"
    );
    assert!(!output.stdout.contains("wrong@"), "{}", output.stdout);
    assert_eq!(line(&lines, "good", "connection")["result"], "ok");
}

#[test]
fn check_says_when_the_schedule_cannot_meet_the_rpo() {
    let cluster = Cluster::start();
    let database = cluster.database("shop");
    let directory = TestDir::new("check");
    let ernstfall = Ernstfall::new(&directory)
        .target("shop", &database.url())
        .target_key("rpo", "\"20m\"");
    let output = ernstfall.run(["check", "--json"]).expect_code(1);
    assert_eq!(failed(&output.json()), ["target shop: schedule"]);
}

#[test]
fn check_of_a_configuration_with_several_faults_shows_all_with_their_lines() {
    let directory = TestDir::new("check");
    let text = "state_dri = \"/x\"\n\n[repository]\nurl = \"file:///x\"\n\n[[target]]\nname = \"Shop!\"\nurl = \"host=x\"\nrpo = \"soon\"\n";
    let ernstfall = Ernstfall::new(&directory).configuration(text);
    let output = ernstfall.run(["check"]).expect_code(2);
    for expected in [
        "3 faults",
        "state_dri",
        "Shop!",
        "soon",
        "\n1:1: ",
        "\n7:8: ",
        "\n9:7: ",
    ] {
        assert!(
            output.stderr.contains(expected),
            "no {expected} in {}",
            output.stderr
        );
    }
}

#[test]
fn every_command_has_a_manual_page_and_they_name_each_other() {
    let directory = TestDir::new("man");
    let ernstfall = Ernstfall::new(&directory);
    let pages = TestDir::new("pages");
    let absent = pages.join("absent").display().to_string();
    let refused = ernstfall.run(["man", "--directory", &absent]).expect_code(1);
    assert!(
        refused.stderr.contains("name a directory that exists"),
        "{}",
        refused.stderr
    );
    let directory = pages.path().display().to_string();
    ernstfall.run(["man", "--directory", &directory]).expect_code(0);
    let main = fs::read_to_string(pages.join("ernstfall.1")).unwrap();
    assert_eq!(ernstfall.run(["man"]).expect_code(0).stdout, main);
    let named: Vec<String> = main
        .lines()
        .filter_map(|line| line.strip_suffix("(1)"))
        .map(|name| name.replace("\\-", "-") + ".1")
        .collect();
    assert!(
        named.contains(&"ernstfall-restore-test.1".to_owned()),
        "{named:?}"
    );
    for page in &named {
        let text = fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(".SH DESCRIPTION"), "{page}: {text}");
    }
    // Besides the main page nothing that nobody names, such as the inside of the sandbox.
    assert_eq!(fs::read_dir(pages.path()).unwrap().count(), named.len() + 1);
}

#[test]
fn demo_passes_and_leaves_nothing_behind() {
    let directory = TestDir::new("demo");
    let ernstfall = Ernstfall::new(&directory).deadline(DEMO_DEADLINE);
    let output = ernstfall.run(["demo", "--json"]).expect_code(0);
    let story = output.json();
    assert_eq!(story["restore_test"]["verdict"], "passed");
    assert_eq!(story["restore_test_of_damaged"]["verdict"], "failed");
    assert!(story["live_writes"].as_u64().unwrap() > 0);
    let checks = story["restore_test"]["verification"]["checks"]
        .as_array()
        .unwrap();
    assert!(
        checks.len() == 2 && checks.iter().all(|check| check["passed"] == true),
        "{checks:?}"
    );
    nothing_left(&directory);
}

#[test]
fn interrupted_demo_leaves_nothing_behind() {
    let directory = TestDir::new("demo");
    let ernstfall = Ernstfall::new(&directory).deadline(DEMO_DEADLINE);
    for moment in ["shop: data\n", "shop: indexes\n"] {
        let mut running = ernstfall.spawn(["demo"]);
        running.wait_for_stderr(moment, DEMO_DEADLINE);
        running.interrupt();
        running.wait().expect_code(130);
        nothing_left(&directory);
    }
}

fn nothing_left(directory: &TestDir) {
    let entries = fs::read_dir(directory.path()).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let left: Vec<_> = names.filter(|name| name != "ernstfall.toml").collect();
    assert!(left.is_empty(), "the demo left {left:?}");
}
