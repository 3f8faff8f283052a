//! Backups of a standby: what they hold is as old as what it has replayed, and they must say so.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::heart::Beating;
use crate::shop::{Shop, content, wait_for};
use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::directory::TestDir;
use crate::support::ernstfall::Ernstfall;
use crate::support::evidence::last_record;

/// A primary, a standby of it, and the product with the standby as its target. The primary is left alone by itself: what
/// the standby replays last is what a test did last.
struct Pair {
    // Dropped first: it follows the other.
    standby: Cluster,
    primary: Cluster,
    directory: TestDir,
    name: String,
}

impl Pair {
    fn start() -> Self {
        let primary = Cluster::builder().setting("autovacuum", "off").start();
        let database = primary.database("shop");
        database.execute("create table orders (id int primary key); insert into orders values (1)");
        Self {
            standby: primary.standby(),
            name: database.name().to_owned(),
            primary,
            directory: TestDir::new("standby"),
        }
    }

    fn primary(&self) -> Database {
        self.primary.existing_database(&self.name)
    }

    fn standby(&self) -> Database {
        self.standby.existing_database(&self.name)
    }

    fn without_heartbeat(&self) -> Ernstfall {
        Ernstfall::new(&self.directory).target("shop", &self.standby().url())
    }

    fn ernstfall(&self) -> Ernstfall {
        let heartbeat = format!("{{ every = \"1s\", url = {:?} }}", self.primary().url());
        self.without_heartbeat().target_key("heartbeat", &heartbeat)
    }

    /// Until the standby has replayed all that the primary has done.
    fn follow(&self) {
        let done = self.primary().query_one_text("select pg_current_wal_flush_lsn()");
        let sql = format!("select pg_last_wal_replay_lsn() >= '{done}'");
        wait_for("the standby to follow", || {
            self.standby().query_one_text(&sql) == "t"
        });
    }

    /// Until this heartbeat has reached the standby: it does not wait for the disk when it is written.
    fn arrive(&self, written_at: DateTime<Utc>) {
        let moment = written_at.to_rfc3339();
        let sql = format!("select count(*) from ernstfall.heartbeat where written_at >= '{moment}'");
        let standby = self.standby();
        let arrived = || {
            standby
                .session()
                .try_query_rows(&sql)
                .is_ok_and(|rows| rows == [[Some("1".to_owned())]])
        };
        wait_for("the heartbeat to arrive", arrived);
    }

    /// A heartbeat that has reached the standby.
    fn beat(&self) -> DateTime<Utc> {
        let written_at = Beating::at(&self.primary().url()).beat().written_at;
        self.arrive(written_at);
        written_at
    }

    fn pause(&self) {
        self.standby().execute("select pg_wal_replay_pause()");
        wait_for("replay to pause", || {
            self.standby()
                .query_one_text("select pg_get_wal_replay_pause_state()")
                == "paused"
        });
    }

    fn resume(&self) {
        self.standby().execute("select pg_wal_replay_resume()");
    }
}

fn backup(ernstfall: &Ernstfall) -> Value {
    ernstfall.run(["backup", "shop", "--json"]).expect_code(0).json()
}

fn point(record: &Value) -> (DateTime<Utc>, &str) {
    let point = &record["recovery_point"];
    (
        point["at"].as_str().unwrap().parse().unwrap(),
        point["basis"].as_str().unwrap(),
    )
}

fn seconds(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).as_seconds_f64()
}

#[test]
fn a_backup_of_a_standby_whose_replay_is_paused_shows_the_worse_recovery_point_and_the_rpo_is_judged_on_it() {
    let pair = Pair::start();
    let before = pair.beat();
    pair.pause();
    let primary = pair.primary();
    primary.execute("insert into orders values (2)");
    let after = Beating::at(&primary.url()).beat().written_at;
    let strict = pair.ernstfall().target_key("rpo", "\"1s\"");
    wait_for("the heartbeat to be two seconds old", || {
        seconds(before, Utc::now()) > 2.0
    });
    let worse = backup(&strict);
    assert_eq!(point(&worse), (before, "heartbeat"), "{worse:#}");
    let test = strict
        .run(["restore-test", "shop", "--json"])
        .expect_code(4)
        .json();
    assert_eq!(test["verdict"], "passed");
    assert_eq!(test["heartbeat_at"], test["recovery_point"]["at"]);
    assert_eq!(test["objectives"]["rpo"]["verdict"], "missed");
    let actual = test["objectives"]["rpo"]["actual_seconds"].as_f64().unwrap();
    assert!(actual > 2.0, "{test:#}");
    let exposed = strict.run(["status", "shop", "--json"]).json();
    assert!(
        exposed["exposure_seconds"].as_f64().unwrap() > actual,
        "{exposed:#}"
    );

    // A second one of the same moment is the newer of the two, whatever their ids.
    for _ in 0..4 {
        let again = backup(&strict);
        assert_eq!(point(&again), (before, "heartbeat"));
        let status = strict.run(["status", "shop", "--json"]).json();
        assert_eq!(status["newest_backup"]["id"], again["backup"]);
    }

    pair.resume();
    pair.arrive(after);
    let better = backup(&strict);
    assert_eq!(point(&better), (after, "heartbeat"), "{better:#}");
    let copy = pair.primary.database("copy");
    strict
        .run(["restore", "shop", "--to", &copy.socket_url()])
        .expect_code(0);
    assert_eq!(content(&copy), content(&primary));
}

#[test]
fn without_a_heartbeat_the_recovery_point_is_what_was_replayed_last() {
    let pair = Pair::start();
    let refused = pair.without_heartbeat().run(["backup", "shop"]).expect_code(1);
    assert!(
        refused.stderr.contains("has replayed no transaction") && refused.stderr.contains("`heartbeat`"),
        "{}",
        refused.stderr
    );
    pair.primary().execute("insert into orders values (2)");
    pair.follow();
    let replayed = pair
        .standby()
        .query_one_text("select extract(epoch from pg_last_xact_replay_timestamp())");
    let replayed: f64 = replayed.parse().unwrap();
    pair.pause();
    pair.primary().execute("insert into orders values (3)");
    let record = backup(&pair.without_heartbeat());
    let (at, basis) = point(&record);
    assert_eq!(basis, "replay");
    assert!(
        (at.timestamp_micros() as f64 / 1e6 - replayed).abs() < 0.001,
        "{record:#}"
    );
}

#[test]
fn a_transaction_replayed_long_after_the_last_heartbeat_is_the_better_witness() {
    let pair = Pair::start();
    let heartbeat = pair.beat();
    wait_for("the heartbeat to be two seconds old", || {
        seconds(heartbeat, Utc::now()) > 2.0
    });
    pair.primary().execute("insert into orders values (2)");
    pair.follow();
    let record = backup(&pair.ernstfall());
    let (at, basis) = point(&record);
    assert_eq!(basis, "replay");
    assert!(seconds(heartbeat, at) > 2.0, "{record:#}");
}

#[test]
fn a_heartbeat_is_never_written_to_a_standby_and_the_error_names_the_key_to_set() {
    let pair = Pair::start();
    let told = Beating::at(&pair.standby().url()).refusal();
    assert!(
        told.contains("standby") && told.contains("`url` of the target's `heartbeat`"),
        "{told}"
    );
}

#[test]
fn a_copy_that_the_heartbeat_never_reached_has_no_recovery_point() {
    let shop = Shop::open();
    let other = shop.cluster.database("other");
    let heartbeat = format!("{{ every = \"1s\", url = {:?} }}", other.url());
    let ernstfall = shop.ernstfall().target_key("heartbeat", &heartbeat);
    let refused = ernstfall.run(["backup", "shop"]).expect_code(1);
    assert!(
        refused.stderr.contains("written to another server"),
        "{}",
        refused.stderr
    );
    assert_eq!(last_record(&ernstfall, "backup")["outcome"], "failed");
    // By whatever means rows come from there to here.
    let written = Beating::at(&shop.database.url()).beat().written_at;
    let record = backup(&ernstfall);
    assert_eq!(point(&record), (written, "heartbeat"));
}

#[test]
fn check_tells_a_heartbeat_on_a_standby_from_one_on_its_primary() {
    let pair = Pair::start();
    let result = |ernstfall: &Ernstfall| {
        let lines = ernstfall.run(["check", "shop", "--json"]).json();
        let lines = lines.as_array().unwrap();
        let line = lines.iter().find(|line| line["subject"] == "heartbeat");
        let line = line.expect("a line about the heartbeat").clone();
        (
            line["result"].clone(),
            format!("{} {}", line["message"], line["remedy"]),
        )
    };
    let (found, told) = result(&pair.without_heartbeat().target_key("heartbeat", "\"1s\""));
    assert_eq!(found, "failed");
    assert!(told.contains("standby") && told.contains("url"), "{told}");
    pair.beat();
    let (found, told) = result(&pair.ernstfall());
    // By another installation: the test's.
    assert_eq!(found, "warning");
    assert!(told.contains("s ago by host of here"), "{told}");
}

#[test]
fn backups_of_a_standby_and_of_its_primary_keep_out_of_each_others_way() {
    let pair = Pair::start();
    pair.beat();
    let elsewhere = TestDir::new("standby");
    let of_primary = || Ernstfall::new(&elsewhere).target("shop", &pair.primary().url());
    let refusal = |ernstfall: &Ernstfall| {
        let refused = ernstfall.run(["backup", "shop"]).expect_code(1);
        assert!(
            refused.stderr.contains("another backup of shop is running"),
            "{}",
            refused.stderr
        );
    };
    let mut running = pair
        .ernstfall()
        .pause_at("after-export")
        .spawn(["backup", "shop"]);
    running.wait_until_paused("after-export");
    refusal(&of_primary());
    running.resume();
    running.wait().expect_code(0);
    let mut running = of_primary().pause_at("after-export").spawn(["backup", "shop"]);
    running.wait_until_paused("after-export");
    refusal(&pair.ernstfall());
    running.resume();
    running.wait().expect_code(0);
    backup(&pair.ernstfall());
}

#[test]
fn a_standby_whose_primary_is_gone_is_backed_up_and_what_is_unknown_is_a_finding() {
    let mut pair = Pair::start();
    let written_at = pair.beat();
    pair.primary.crash();
    let record = backup(&pair.ernstfall());
    assert_eq!(point(&record), (written_at, "heartbeat"));
    let findings = record["findings"].as_array().unwrap();
    let about = findings.iter().find(|one| one["subject"] == "primary");
    let message = about.expect("a finding")["message"].as_str().unwrap();
    assert!(message.contains("could not be asked"), "{message}");
}

#[test]
fn a_primary_that_is_a_standby_itself_stops_no_backup() {
    let pair = Pair::start();
    let written_at = pair.beat();
    let heartbeat = format!("{{ every = \"1s\", url = {:?} }}", pair.standby().url());
    let record = backup(&pair.without_heartbeat().target_key("heartbeat", &heartbeat));
    assert_eq!(point(&record), (written_at, "heartbeat"));
    let findings = record["findings"].to_string();
    assert!(findings.contains("is a standby itself"), "{findings}");
}
