//! `RECOVERY.md`, followed to the letter: a backup can be restored without this program.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::shop::{Shop, content};
use crate::support::account::Account;
use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::ernstfall::Ernstfall;
use crate::support::key::{Key, age_is_installed, encryption};
use crate::support::process::run_or_panic;

/// Of coreutils, what the guide uses.
const SMALL_PROGRAMS: &[&str] = &["cat", "mktemp", "rm", "sh", "touch"];
const POSTGRES_PROGRAMS: &[&str] = &["createdb", "pg_restore", "psql"];

pub(crate) fn tools_are_there() -> bool {
    Command::new("zstd").arg("--version").output().is_ok() && age_is_installed()
}

macro_rules! require_tools {
    () => {
        $crate::support::skip::require!(
            $crate::recovery_by_hand::tools_are_there(),
            "there is no zstd or age: scripts/install-debian.sh zstd age installs them"
        );
    };
}
pub(crate) use require_tools;

/// The commands of the guide's only block of shell.
fn commands(guide: &str) -> String {
    let blocks: Vec<&str> = guide
        .split("\n```")
        .filter(|part| part.starts_with("sh\n"))
        .collect();
    let [block] = blocks.as_slice() else {
        panic!("{guide}")
    };
    block.strip_prefix("sh\n").unwrap().to_owned()
}

/// The text of a backup's guide.
pub(crate) fn guide(shop: &Shop, id: &str) -> String {
    fs::read_to_string(shop.object_file(&shop.manifest(id)["recovery_guide"])).unwrap()
}

/// The guide's commands, where the backup lies, with another server as the destination. Nothing else is to be had.
pub(crate) fn shell(shop: &Shop, id: &str, other: &Cluster) -> Command {
    let programs = shop.directory.join("by-hand");
    if !programs.exists() {
        fs::create_dir(&programs).unwrap();
        Account::unprivileged().own(&programs);
        for name in SMALL_PROGRAMS.iter().chain(&["age", "zstd"]) {
            symlink(found(name), programs.join(name)).unwrap();
        }
        for name in POSTGRES_PROGRAMS {
            symlink(other.programs().path(name), programs.join(name)).unwrap();
        }
    }
    let script = shop.directory.write("recover.sh", commands(&guide(shop, id)));
    let mut shell = Command::new(programs.join("sh"));
    shell
        .arg(script)
        .current_dir(shop.target_directory().join("backups").join(id))
        .env_clear()
        .env("PATH", &programs)
        .env("PGHOST", other.socket_directory())
        .env("PGPORT", other.port().to_string())
        .env("PGUSER", "postgres");
    shell
}

fn found(program: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut places = std::env::split_paths(&path).map(|place| place.join(program));
    places
        .find(|place| place.is_file())
        .unwrap_or_else(|| panic!("there is no {program}"))
}

/// Backs up, encrypted or in the clear.
fn backup(ernstfall: &Ernstfall) -> String {
    let output = ernstfall.run(["backup", "shop", "--json"]).expect_code(0);
    output.json()["backup"].as_str().unwrap().to_owned()
}

fn encrypted(shop: &Shop, key: &Key) -> Ernstfall {
    shop.ernstfall().tables(&encryption(&[key], None))
}

#[track_caller]
fn assert_same_database(restored: &Database, source: &Database) {
    assert_eq!(content(restored), content(source));
    assert_eq!(
        restored.dump_schema().replace(restored.name(), "NAME"),
        source.dump_schema().replace(source.name(), "NAME")
    );
}

/// What is hard about a restore by hand, beside the shop's own things.
const HARD: &str = "
    create table indexes_in_use (index regclass, note text, primary key (index));
    insert into indexes_in_use values ('orders_by_customer', 'by customer'), ('orders_pkey', 'by id');
    create table notes_on_indexes (index regclass references indexes_in_use, note text);
    insert into notes_on_indexes values ('orders_pkey', 'small');
    create function refuse() returns trigger language plpgsql as $$begin raise 'no more of these'; end$$;
    create trigger refuse before insert on indexes_in_use for each row execute function refuse();
    alter table indexes_in_use enable always trigger refuse;
    comment on trigger refuse on indexes_in_use is 'it refuses';
    comment on constraint notes_on_indexes_index_fkey on notes_on_indexes is 'to a late table';
    alter table notes_on_indexes enable row level security, force row level security;
    create policy own on notes_on_indexes to clerk using (note <> '');
    create table log (at date not null, entry text) partition by range (at);
    create table log_2026 partition of log for values from ('2026-01-01') to ('2027-01-01');
    create table log_rest partition of log default;
    insert into log select '2025-12-01'::date + n, 'entry ' || n from generate_series(1, 100) n;
    create materialized view a_totals_of_totals as select sum(cents) as cents from totals;
    create materialized view not_filled as select 1 as one with no data;
    create table \"odd \"\"name'\" (\"a b\" text);
    insert into \"odd \"\"name'\" values (E'x\\\\\\ty');
    alter role clerk password 'correct-horse';
    create function no_ddl() returns event_trigger language plpgsql as $$begin raise 'no ddl: %', tg_tag; end$$;
    create event trigger no_ddl on ddl_command_start execute function no_ddl();
    alter event trigger no_ddl enable always;";

#[test]
fn the_guides_commands_restore_a_clear_backup_on_another_server() {
    require_tools!();
    let shop = Shop::open();
    let id = backup(&shop.ernstfall());
    let other = Cluster::start();
    run_or_panic(Account::unprivileged().run_as(&mut shell(&shop, &id, &other)));
    assert_same_database(&other.existing_database("restored"), &shop.database);
}

#[test]
fn the_guides_commands_restore_an_encrypted_backup_with_all_that_is_hard() {
    require_tools!();
    let (shop, key) = (Shop::open(), Key::new());
    shop.database.execute(HARD);
    let id = backup(&encrypted(&shop, &key));
    let other = Cluster::start();
    let before = files(&shop.target_directory());
    let mut shell = shell(&shop, &id, &other);
    let shell = shell
        .env("IDENTITY", key.file(&shop.directory))
        .env("DATABASE", "anew");
    run_or_panic(Account::unprivileged().run_as(shell));
    assert_eq!(
        files(&shop.target_directory()),
        before,
        "clear text lies beside the backup"
    );
    let restored = other.existing_database("anew");
    // What was never filled cannot be read.
    for database in [&restored, &shop.database] {
        let filled = "select relispopulated::text from pg_class where relname = 'not_filled'";
        assert_eq!(database.query_one_text(filled), "false");
        database.execute("alter event trigger no_ddl disable; drop materialized view not_filled");
    }
    assert_same_database(&restored, &shop.database);
    let password = "select rolpassword from pg_authid where rolname = 'clerk'";
    assert!(
        shop.database
            .query_one_text(password)
            .starts_with("SCRAM-SHA-256$")
    );
    assert_eq!(
        restored.query_one_text(password),
        shop.database.query_one_text(password)
    );
    let owner = "select pg_get_userbyid(datdba) from pg_database where datname = current_database()";
    assert_eq!(
        restored.query_one_text(owner),
        shop.database.query_one_text(owner)
    );
}

/// Every file below a folder, with its size.
fn files(folder: &Path) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push((
                entry.path().display().to_string(),
                entry.metadata().unwrap().len(),
            ));
        }
    }
    found.sort();
    found
}

#[test]
fn a_role_that_is_no_superuser_restores_without_owners_and_grants() {
    require_tools!();
    let shop = Shop::open();
    let id = backup(&shop.ernstfall());
    let other = Cluster::start();
    other.maintenance().execute("create role helper login createdb");
    let mut shell = shell(&shop, &id, &other);
    let shell = shell.env("PGUSER", "helper").env("OWNERS", "no");
    run_or_panic(Account::unprivileged().run_as(shell));
    let restored = other.existing_database("restored");
    assert_eq!(content(&restored), content(&shop.database));
    let others = "select count(*) from pg_class where relnamespace = 'public'::regnamespace
                     and relowner <> 'helper'::regrole";
    assert_eq!(restored.query_one_text(others), "0");
}

#[test]
fn the_guides_commands_stop_before_the_database_is_made_when_an_object_is_damaged_or_gone() {
    require_tools!();
    let (shop, key) = (Shop::open(), Key::new());
    for ernstfall in [shop.ernstfall(), encrypted(&shop, &key)] {
        let id = backup(&ernstfall);
        let manifest = shop.manifest(&id);
        let count = manifest["data"].as_array().unwrap().len();
        let file = shop.object_file(&manifest["data"][0]);
        let whole = fs::read(&file).unwrap();
        let other = Cluster::start();
        let stops = |what: &str| {
            let mut shell = shell(&shop, &id, &other);
            shell.env("IDENTITY", key.file(&shop.directory));
            let output = Account::unprivileged().run_as(&mut shell).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && told.contains(what), "{told}");
            let databases = "select count(*) from pg_database where datname = 'restored'";
            assert_eq!(other.maintenance().query_one_text(databases), "0");
        };
        for length in [0, whole.len() * 6 / 10, whole.len() - 1] {
            crate::shop::overwrite(&file, &whole[..length]);
            stops("is damaged");
        }
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        crate::shop::overwrite(&file, &flipped);
        stops("is damaged");
        fs::remove_file(&file).unwrap();
        stops(&format!("data has {} objects instead of {count}", count - 1));
    }
}

#[test]
fn the_guides_commands_name_the_key_that_is_missing_and_the_guide_which_it_is() {
    require_tools!();
    let (shop, key) = (Shop::open(), Key::new());
    let id = backup(&encrypted(&shop, &key));
    let guide = guide(&shop, &id);
    assert!(guide.contains(&key.public), "{guide}");
    for secret in ["customers", "orders", "shop_owner", "clerk", key.secret()] {
        assert!(!guide.contains(secret), "the guide names {secret}");
    }
    let other = Cluster::start();
    let mut without = shell(&shop, &id, &other);
    let output = Account::unprivileged().run_as(&mut without).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("IDENTITY"));
    let mut wrong = shell(&shop, &id, &other);
    wrong.env("IDENTITY", Key::new().file(&shop.directory));
    let output = Account::unprivileged().run_as(&mut wrong).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no identity matched"));
}
