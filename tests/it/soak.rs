//! Schedules in seconds, twenty targets, and sources and repository that fail at random, for an hour: does anything grow,
//! and is every slot accounted for? `make soak` runs it; SOAK_SECONDS says how long (3600), SOAK_SEED repeats what failed.

mod accounts;
mod faults;
mod samples;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Utc};

use crate::shop::{LIMIT, descendants, is_alive, subdirectories};
use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::directory::TestDir;
use crate::support::ernstfall::{Ernstfall, Running};
use crate::support::monitoring::free_address;
use crate::support::process::POLL;
use crate::support::proxy::Proxy;

use accounts::Accounts;
use faults::Faults;
use samples::Samples;

const SERVERS: usize = 2;
const TARGETS: usize = 20;
const MAX_BACKUPS: usize = 4;

/// What nobody would want, so that an hour holds the runs of weeks.
const BACKUP_EVERY: Duration = Duration::from_secs(5);
const RESTORE_TEST_EVERY: Duration = Duration::from_secs(25);

/// The one who is told of all this, and does not hear every third time.
const CHANNEL: &str = r#"
[[alert.channel]]
kind = "command"
name = "pager"
command = ["sh", "-c", "cat > /dev/null; test $(($$ % 3)) -ne 0"]
"#;

/// How often the daemon is measured.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What is under way when the schedules end, and what waits, ends within this time.
const QUIET_WITHIN: Duration = Duration::from_secs(300);

/// The sources, what stands before them, and where the product keeps its state.
struct Town {
    servers: Vec<Cluster>,
    proxies: Vec<Proxy>,
    databases: Vec<Database>,
    directory: TestDir,
    pages: SocketAddr,
}

impl Town {
    fn open() -> Self {
        let servers = vec![Cluster::start(), Cluster::builder().other_system().start()];
        let proxies = servers.iter().map(Proxy::before).collect();
        let databases: Vec<Database> = (0..TARGETS)
            .map(|number| servers[number % SERVERS].database("soak"))
            .collect();
        for (number, database) in databases.iter().enumerate() {
            database.execute(&format!(
                "create table orders as select id, md5(id::text) as text from generate_series(1, {}) id;
                 alter table orders add primary key (id);
                 create table customers (id int primary key, name text not null);
                 create view newest as select max(id) from orders",
                (number + 1) * 100
            ));
        }
        Self {
            servers,
            proxies,
            databases,
            directory: TestDir::new("soak"),
            pages: free_address(),
        }
    }

    fn name(number: usize) -> String {
        format!("t{number:02}")
    }

    /// The product with all targets. Every second one is reached through a proxy, every fifth has a heartbeat.
    fn ernstfall(&self, backup: Duration, restore_test: Duration) -> Ernstfall {
        let tables = format!(
            "[limits]\nmax_backups = {MAX_BACKUPS}\nmax_restore_tests = 2\njitter = \"0s\"\n[http]\nlisten = \"{}\"\n{CHANNEL}",
            self.pages
        );
        let product = allocator_of_the_unit()
            .fold(Ernstfall::new(&self.directory), |product, (name, value)| {
                product.environment(name, value)
            })
            .tables(&tables);
        let every = |interval: Duration| format!("\"every {}s\"", interval.as_secs());
        (0..TARGETS).fold(product, |product, number| {
            let database = &self.databases[number];
            // Both ways lead to both servers.
            let url = if (number / SERVERS).is_multiple_of(2) {
                self.proxies[number % SERVERS].url(database)
            } else {
                database.url()
            };
            let product = product
                .target(&Self::name(number), &url)
                .target_key("backup", &every(backup))
                .target_key("restore_test", &every(restore_test))
                .target_key("retention", "{ last = 5 }")
                .target_key("timeouts", "{ connect = \"10s\" }");
            if number % 5 == 0 {
                product.target_key("heartbeat", "\"2s\"")
            } else {
                product
            }
        })
    }

    fn busy(&self) -> Ernstfall {
        self.ernstfall(BACKUP_EVERY, RESTORE_TEST_EVERY)
    }

    /// The same targets, of which none is due any more.
    fn quiet(&self) -> Ernstfall {
        let far = Duration::from_secs(24 * 3600);
        self.ernstfall(far, far)
    }
}

/// The variables that the unit sets for the allocator.
fn allocator_of_the_unit() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("../../systemd/ernstfall.service").lines();
    lines
        .filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
        .filter(|(name, _)| name.starts_with("MALLOC_"))
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is a whole number, and not {text:?}")))
}

fn random_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::from(now.subsec_nanos())
}

#[test]
#[ignore = "takes an hour: make soak"]
fn soak() {
    let length = Duration::from_secs(number_from("SOAK_SECONDS").unwrap_or(3600));
    let seed = number_from("SOAK_SEED").unwrap_or_else(random_seed);
    eprintln!(
        "{TARGETS} targets on {SERVERS} servers for {} s, SOAK_SEED={seed}",
        length.as_secs()
    );
    let mut town = Town::open();
    let mut daemon = town.busy().deadline(length * 2 + QUIET_WITHIN * 4).spawn(["run"]);
    daemon.wait_for_stderr("ready: ", LIMIT);

    let mut faults = Faults::new(seed);
    let mut samples = Samples::default();
    let began = Instant::now();
    while began.elapsed() < length {
        faults.act(&mut town, &daemon);
        samples.take(&town, daemon.pid());
        thread::sleep(SAMPLE_EVERY);
    }
    faults.end(&mut town);

    let until = Utc::now();
    daemon.reload(&town.quiet());
    daemon.wait_for_stderr("the configuration was read again: targets: 20", LIMIT);
    let accounts = wait_until_quiet(&town, until);
    let mut wrong = accounts.disagreements();
    wrong.extend(samples.growth());
    wrong.extend(left_after_the_stop(&town, daemon));
    eprintln!("{}", faults.told());
    eprintln!("{}", accounts.told());
    eprintln!("{}", samples.told());
    assert!(wrong.is_empty(), "SOAK_SEED={seed}:\n{}", wrong.join("\n"));
    eprintln!("nothing grew, every slot is accounted for, metrics agree with records, nothing was left");
}

/// Until nothing runs any more, and metrics and records say the same; or for as long as that may take at most.
fn wait_until_quiet(town: &Town, until: DateTime<Utc>) -> Accounts {
    let deadline = Instant::now() + QUIET_WITHIN;
    loop {
        let accounts = Accounts::read(town, until);
        let done = !accounts.anything_runs() && accounts.disagreements().is_empty();
        if done || Instant::now() > deadline {
            return accounts;
        }
        thread::sleep(SAMPLE_EVERY);
    }
}

/// Stops the daemon, and says what outlives it.
fn left_after_the_stop(town: &Town, daemon: Running) -> Vec<String> {
    let children = descendants(daemon.pid());
    daemon.terminate();
    let code = daemon.wait().code();
    let mut left = Vec::new();
    if code != 143 {
        left.push(format!("the daemon ended with {code} instead of 143"));
    }
    left.extend(
        children
            .iter()
            .filter(|child| is_alive(child))
            .map(|(pid, _)| format!("process {pid} outlived the daemon")),
    );
    for folder in ["state/scratch", "state/.tmp", "repository/.tmp"] {
        let inside = std::fs::read_dir(town.directory.join(folder))
            .into_iter()
            .flatten()
            .flatten();
        left.extend(inside.map(|entry| format!("{} was left", entry.path().display())));
    }
    // A server ends a session when it next looks at its client.
    let deadline = Instant::now() + LIMIT;
    let connections = || -> usize { town.servers.iter().filter_map(samples::connections).sum() };
    while connections() > 0 && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    if connections() > 0 {
        left.push(format!("{} connections were left", connections()));
    }
    left
}

/// The folders of scratch servers, and those of passwords and other files for programs that run.
fn working_directories(town: &Town) -> usize {
    subdirectories(&town.directory.join("state/scratch")).len()
}
