//! Schedules in seconds, twenty targets, and sources and repository that fail at random, for an hour: does anything grow
//! or stand still, and is every slot accounted for? `make soak` runs it; SOAK_SECONDS says how long (3600), SOAK_SEED
//! repeats what failed.

mod accounts;
mod faults;
mod leftovers;
mod samples;
mod slots;

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use chrono::Utc;

use crate::shop::{LIMIT, wait_for};
use crate::support::cluster::Cluster;
use crate::support::database::Database;
use crate::support::directory::TestDir;
use crate::support::ernstfall::{Ernstfall, Running};
use crate::support::monitoring::free_address;
use crate::support::proxy::Proxy;

use accounts::Accounts;
use faults::Faults;
use leftovers::Idle;
use samples::Samples;
use slots::{Busy, TASKS};

const SERVERS: usize = 2;
const TARGETS: usize = 20;
const MAX_BACKUPS: usize = 4;
const MAX_RESTORE_TESTS: usize = 2;

/// Every so many targets, one has a heartbeat.
const HEARTBEAT_OF: usize = 5;

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

    /// The product with all targets and these schedules. Every second target is reached through a proxy, every fifth has a
    /// heartbeat.
    fn ernstfall(&self, schedules: &[(&str, Duration)]) -> Ernstfall {
        let tables = format!(
            "[limits]\nmax_backups = {MAX_BACKUPS}\nmax_restore_tests = {MAX_RESTORE_TESTS}\njitter = \"0s\"\n[http]\nlisten = \"{}\"\n{CHANNEL}",
            self.pages
        );
        let product = allocator_of_the_unit()
            .fold(Ernstfall::new(&self.directory), |product, (name, value)| {
                product.environment(name, value)
            })
            .tables(&tables);
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
                .target_without("backup")
                .target_without("restore_test")
                .target_key("retention", "{ last = 5 }")
                .target_key("timeouts", "{ connect = \"10s\" }");
            let product = schedules.iter().fold(product, |product, (task, interval)| {
                product.target_key(task, &format!("\"every {}s\"", interval.as_secs()))
            });
            if Self::has_heartbeat(number) {
                product.target_key("heartbeat", "\"2s\"")
            } else {
                product
            }
        })
    }

    fn has_heartbeat(number: usize) -> bool {
        number.is_multiple_of(HEARTBEAT_OF)
    }

    /// Nothing is scheduled yet; heartbeats are written.
    fn idle(&self) -> Ernstfall {
        self.ernstfall(&[])
    }

    fn busy(&self) -> Ernstfall {
        self.ernstfall(&TASKS.map(|task| (task.name, task.every)))
    }

    /// The same targets, of which none is due any more.
    fn quiet(&self) -> Ernstfall {
        let far = Duration::from_secs(24 * 3600);
        self.ernstfall(&TASKS.map(|task| (task.name, far)))
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
    let mut daemon = town.idle().deadline(length * 2 + QUIET_WITHIN * 4).spawn(["run"]);
    daemon.wait_for_stderr("ready: ", LIMIT);
    let idle = Idle::before_the_first_run(&town, daemon.pid());

    let from = Utc::now();
    reload(&daemon, &town.busy());
    // Faults need something that they can be faults of.
    wait_for("the repository", || {
        leftovers::entries(&town, "repository/.tmp").is_some()
    });
    let mut faults = Faults::new(seed);
    let mut samples = Samples::new(length);
    let began = Instant::now();
    while began.elapsed() < length {
        faults.act(&mut town, &daemon);
        samples.take(&town, daemon.pid());
        thread::sleep(SAMPLE_EVERY);
    }
    faults.end(&mut town);

    let until = Utc::now();
    reload(&daemon, &town.quiet());
    let over = Utc::now();
    let busy = Busy { from, until, over };
    let (accounts, mut wrong) = wait_until_quiet(&town, busy, || idle.left(&town, daemon.pid()));
    wrong.extend(accounts.standstills());
    wrong.extend(samples.growth());
    wrong.extend(faults.missing(length));
    wrong.extend(leftovers::after_the_stop(&town, daemon));
    eprintln!("{}", faults.told());
    eprintln!("{}", accounts.told());
    eprintln!("{}", samples.told());
    assert!(wrong.is_empty(), "SOAK_SEED={seed}:\n{}", wrong.join("\n"));
    eprintln!(
        "nothing grew or stood still, every slot is accounted for, metrics agree with records, nothing was left"
    );
}

/// Has the daemon read another configuration, and waits until that is in force.
fn reload(daemon: &Running, with: &Ernstfall) {
    // Each reload says the same, so they are counted.
    let reloads = || {
        daemon
            .stderr()
            .matches("the configuration was read again: ")
            .count()
    };
    let before = reloads();
    daemon.reload(with);
    wait_for("the configuration to be read again", || reloads() > before);
}

/// Until nothing runs any more, metrics and records say the same, and nothing is left of what ran; or for as long as that
/// may take at most. Also says what is wrong then.
fn wait_until_quiet(town: &Town, busy: Busy, left: impl Fn() -> Vec<String>) -> (Accounts, Vec<String>) {
    let deadline = Instant::now() + QUIET_WITHIN;
    loop {
        let accounts = Accounts::read(town, busy);
        let mut wrong = accounts.under_way();
        wrong.extend(accounts.disagreements());
        wrong.extend(left());
        if wrong.is_empty() || Instant::now() > deadline {
            return (accounts, wrong);
        }
        thread::sleep(SAMPLE_EVERY);
    }
}
