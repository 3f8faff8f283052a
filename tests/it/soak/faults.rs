//! What goes wrong, at random and one after the other: servers, connections, the repository, programs, the configuration; and
//! people who work beside the daemon.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::shop::descendants;
use crate::support::database::{Database, Session};
use crate::support::ernstfall::{Ernstfall, Running};

use super::{MAX_BACKUPS, QUIET_WITHIN, SERVERS, TARGETS, Town};

/// What lasts a while, and is put right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    ServerDown(usize),
    ServerUnreachable(usize),
    /// Somebody holds locks on as many targets as are backed up at once, so that all others wait as well.
    TablesLocked,
    RepositoryClosed,
    RepositoryReadOnly,
}

/// What happens in a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Incident {
    ServerCrash(usize),
    ConnectionsCut(usize),
    ProgramKilled,
    Reload,
    FaultyReload,
    BackupByHand(usize),
    PruneByHand,
}

pub(super) struct Faults {
    dice: Dice,
    now: Option<Fault>,
    /// Those that hold locks.
    sessions: Vec<Session>,
    /// When what is wrong is put right, or the next thing goes wrong.
    next: Instant,
    happened: BTreeMap<String, usize>,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed),
            now: None,
            sessions: Vec::new(),
            next: Instant::now() + Duration::from_secs(5),
            happened: BTreeMap::new(),
        }
    }

    /// Lets something happen, where it is time.
    pub(super) fn act(&mut self, town: &mut Town, daemon: &Running) {
        if Instant::now() < self.next {
            return;
        }
        if self.now.is_some() {
            self.end(town);
        } else if self.dice.roll(2) == 0 {
            self.begin(town);
        } else {
            self.incident(town, daemon);
        }
        self.next = Instant::now() + Duration::from_millis(1000 + self.dice.roll(8000));
    }

    /// Puts right what is wrong.
    pub(super) fn end(&mut self, town: &mut Town) {
        match self.now.take() {
            Some(Fault::ServerDown(server)) => town.servers[server].restart(),
            Some(Fault::ServerUnreachable(server)) => town.proxies[server].come_back(),
            Some(Fault::TablesLocked) => self.sessions.clear(),
            Some(Fault::RepositoryClosed) => allow(&repository(town), 0o700),
            Some(Fault::RepositoryReadOnly) => {
                for folder in folders_written_to(town) {
                    allow(&folder, 0o700);
                }
            }
            None => {}
        }
    }

    /// How often what happened, on one line.
    pub(super) fn told(&self) -> String {
        let parts: Vec<String> = self
            .happened
            .iter()
            .map(|(what, count)| format!("{what} {count}"))
            .collect();
        format!("what happened: {}", parts.join(", "))
    }

    fn count(&mut self, what: impl std::fmt::Debug) {
        let name: String = format!("{what:?}")
            .chars()
            .take_while(|letter| *letter != '(')
            .collect();
        *self.happened.entry(name).or_default() += 1;
    }

    fn begin(&mut self, town: &mut Town) {
        let server = self.dice.below(SERVERS);
        let fault = match self.dice.roll(5) {
            0 => Fault::ServerDown(server),
            1 => Fault::ServerUnreachable(server),
            2 => Fault::TablesLocked,
            3 => Fault::RepositoryClosed,
            _ => Fault::RepositoryReadOnly,
        };
        match fault {
            Fault::ServerDown(server) => town.servers[server].crash(),
            Fault::ServerUnreachable(server) => town.proxies[server].go_away(),
            Fault::TablesLocked => {
                let first = self.dice.below(TARGETS);
                let databases = (0..MAX_BACKUPS).map(|number| &town.databases[(first + number) % TARGETS]);
                self.sessions = databases.map(locked).collect();
            }
            Fault::RepositoryClosed => allow(&repository(town), 0o000),
            Fault::RepositoryReadOnly => {
                for folder in folders_written_to(town) {
                    allow(&folder, 0o500);
                }
            }
        }
        self.count(fault);
        self.now = Some(fault);
    }

    fn incident(&mut self, town: &mut Town, daemon: &Running) {
        let (server, target) = (self.dice.below(SERVERS), self.dice.below(TARGETS));
        let incident = match self.dice.roll(7) {
            0 => Incident::ServerCrash(server),
            1 => Incident::ConnectionsCut(server),
            2 => Incident::ProgramKilled,
            3 => Incident::Reload,
            4 => Incident::FaultyReload,
            5 => Incident::BackupByHand(target),
            _ => Incident::PruneByHand,
        };
        match incident {
            Incident::ServerCrash(server) => town.servers[server].restart(),
            Incident::ConnectionsCut(server) => town.proxies[server].cut(),
            Incident::ProgramKilled => self.kill_a_program(daemon),
            Incident::Reload => daemon.reload(&town.busy()),
            Incident::FaultyReload => {
                daemon.reload(&Ernstfall::new(&town.directory).configuration("unknown = 1\n"))
            }
            // What comes of it is in the records. It may well be refused: another backup of the target runs.
            Incident::BackupByHand(target) => by_hand(town, ["backup", &Town::name(target)]),
            Incident::PruneByHand => by_hand(town, ["prune"]),
        }
        self.count(incident);
    }

    /// One that the daemon has started: pg_dump, pg_restore, a scratch server or what holds it.
    fn kill_a_program(&mut self, daemon: &Running) {
        let programs: Vec<_> = descendants(daemon.pid()).into_iter().collect();
        if !programs.is_empty() {
            let (pid, _) = programs[self.dice.below(programs.len())];
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
        }
    }
}

/// It may take its time: beside all that the daemon does, and with the records of an hour to read for each target.
fn by_hand<const N: usize>(town: &Town, arguments: [&str; N]) {
    drop(town.busy().deadline(QUIET_WITHIN).run(arguments));
}

/// A transaction that changes a table, and does not end before it is dropped.
fn locked(database: &Database) -> Session {
    let session = database.session();
    session.execute("begin; set local lock_timeout = '20s'; lock table orders in access exclusive mode");
    session
}

fn repository(town: &Town) -> PathBuf {
    town.directory.join("repository")
}

/// In which new objects get their place.
fn folders_written_to(town: &Town) -> Vec<PathBuf> {
    let root = repository(town);
    let targets = (0..TARGETS).map(|number| root.join("targets").join(Town::name(number)));
    targets
        .flat_map(|target| [target.join("backups"), target.join("manifests")])
        .chain([root.join(".tmp")])
        .filter(|folder| folder.is_dir())
        .collect()
}

fn allow(folder: &PathBuf, mode: u32) {
    // The first backup may not have made it yet.
    if folder.exists() {
        fs::set_permissions(folder, Permissions::from_mode(mode)).unwrap();
    }
}

/// SplitMix64: the same numbers for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.roll(count as u64)).unwrap()
    }
}
