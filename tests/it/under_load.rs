//! Backups of a database that is written to and changed all the time: each is one moment of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::shop::{Shop, wait_for};
use crate::support::database::Database;

const ACCOUNTS: u32 = 20;
const OPENING_BALANCE: u32 = 1000;
const WRITERS: u32 = 3;
const BACKUPS: usize = 3;

/// The ledger's number is taken under a lock that is held until the commit: so numbers come in the order of commits, and
/// a moment that lacks one lacks all later ones.
const SEED: &str = "
    create table accounts (id int primary key, balance bigint not null);
    create table last_number (number bigint not null);
    create table ledger (number bigint primary key, writer int not null, amount bigint not null);
    create table scratch_pad (id int, note text);
    create table emptied (id int);
    insert into last_number values (0);
";

/// Checks that the copy must pass. Whoever sees two moments at once sees money lost or made, or a hole.
fn checks() -> String {
    let check = |name: &str, sql: &str, expect: &str| {
        format!("[[target.check]]\nname = {name:?}\nsql = {sql:?}\nexpect = {expect:?}\n")
    };
    let sum = ACCOUNTS * OPENING_BALANCE;
    check(
        "no money is lost",
        "select sum(balance) from accounts",
        &format!("= {sum}"),
    ) + &check(
        "the ledger has no hole",
        "select max(number) - count(*) + min(number) - 1 from ledger",
        "= 0",
    ) + &check(
        "the ledger ends where its counter does",
        "select (select number from last_number) - max(number) from ledger",
        "= 0",
    ) + &check("the last number", "select max(number) from ledger", "> 0")
}

/// Moves money and notes it until told to stop; says how often.
fn write(database: &Database, writer: u32, stop: &AtomicBool) -> u32 {
    let session = database.session();
    let mut moved = 0;
    while !stop.load(Ordering::Relaxed) {
        let (from, to) = (moved % ACCOUNTS, (moved * 7 + writer + 1) % ACCOUNTS);
        let (first, second) = (from.min(to), from.max(to));
        session.execute(&format!(
            "begin;
             select from accounts where id in ({first}, {second}) order by id for update;
             update accounts set balance = balance - 3 where id = {from};
             update accounts set balance = balance + 3 where id = {to};
             update last_number set number = number + 1;
             insert into ledger select number, {writer}, 3 from last_number;
             commit"
        ));
        moved += 1;
    }
    moved
}

/// Changes of the schema and of other tables, one transaction each: one that waits for nobody, then one that waits for the
/// backup's locks, and so disturbs its next attempt. A backup gives up where that goes on.
fn change(database: &Database, round: usize) {
    database.execute(&format!(
        "create table extra_{round} as select * from ledger limit 10"
    ));
    database.execute(match round {
        0 => "alter table scratch_pad add column added text default 'added'",
        1 => "truncate emptied",
        _ => "drop table extra_0",
    });
    database.execute("insert into emptied select generate_series(1, 10)");
    database.execute(&format!(
        "create index scratch_pad_{round} on scratch_pad (added)"
    ));
}

#[test]
fn every_backup_of_a_busy_database_is_one_moment_of_it() {
    let shop = Shop::empty();
    shop.database.execute(SEED);
    shop.database.execute(&format!(
        "insert into accounts select n - 1, {OPENING_BALANCE} from generate_series(1, {ACCOUNTS}) n"
    ));
    let (database, stop) = (&shop.database, &AtomicBool::new(false));
    let noted = || {
        database
            .query_one_text("select count(*) from ledger")
            .parse::<u64>()
            .unwrap()
    };
    let ernstfall = shop.ernstfall().tables(&checks());
    let backups: Vec<String> = thread::scope(|scope| {
        // Also when a backup fails, or the writers would be waited for in vain.
        let _end = Stop(stop);
        for writer in 0..WRITERS {
            scope.spawn(move || write(database, writer, stop));
        }
        (0..BACKUPS)
            .map(|round| {
                let before = noted();
                wait_for("the writers", || noted() > before + 50);
                let mut running = shop
                    .ernstfall()
                    .pause_at("after-export")
                    .spawn(["backup", "shop", "--json"]);
                running.wait_until_paused("after-export");
                let changes = scope.spawn(move || change(database, round));
                let made = format!("select count(*) from pg_class where relname = 'extra_{round}'");
                wait_for("the change of the schema", || {
                    database.query_one_text(&made) == "1"
                });
                running.resume();
                let output = running.wait().expect_code(0);
                changes.join().unwrap();
                output.json()["backup"].as_str().unwrap().to_owned()
            })
            .collect()
    });
    let mut last = 0;
    for id in &backups {
        let record = ernstfall
            .run(["restore-test", "shop", "--backup", id, "--json"])
            .expect_code(0)
            .json();
        assert_eq!(record["verdict"], "passed", "{record:#}");
        let checks = record["verification"]["checks"].as_array().unwrap();
        assert_eq!(checks.len(), 4);
        assert!(checks.iter().all(|check| check["passed"] == true), "{checks:#?}");
        let number: u64 = checks[3]["found"].as_str().unwrap().parse().unwrap();
        assert!(
            number > last,
            "each backup has what the one before had, and more: {number} after {last}"
        );
        last = number;
    }
    assert!(last <= noted());
}

/// Stops the writers when it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
