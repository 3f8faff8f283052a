//! What goes wrong, at random and one after the other: servers, connections, the repository, programs, the configuration; and
//! people who work beside the daemon.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::shop::{Process, descendants, wait_for};
use crate::support::database::{Database, Session};
use crate::support::ernstfall::{Ernstfall, Running};

use super::{MAX_BACKUPS, QUIET_WITHIN, SERVERS, TARGETS, Town};

/// A fault is put right after so long at most: 9 s by the dice, and what it takes to begin it, to look around once more and
/// to start a server.
pub(super) const LONGEST: Duration = Duration::from_secs(15);

/// Each kind has been there once in a soak of so long: those that last take two pauses, of 4 s at most at first, the others
/// one, which is some 80 s with all that is done in between.
const DEALT_WITHIN: Duration = Duration::from_secs(120);

/// What lasts a while, and is put right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    ServerDown,
    ServerUnreachable,
    /// Somebody holds locks on as many targets as are backed up at once, so that all others wait as well.
    TablesLocked,
    RepositoryClosed,
    RepositoryReadOnly,
}

/// What happens in a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Incident {
    ServerCrash,
    ConnectionsCut,
    ProgramKilled,
    Reload,
    FaultyReload,
    BackupByHand,
    PruneByHand,
}

const FAULTS: [Fault; 5] = [
    Fault::ServerDown,
    Fault::ServerUnreachable,
    Fault::TablesLocked,
    Fault::RepositoryClosed,
    Fault::RepositoryReadOnly,
];

const INCIDENTS: [Incident; 7] = [
    Incident::ServerCrash,
    Incident::ConnectionsCut,
    Incident::ProgramKilled,
    Incident::Reload,
    Incident::FaultyReload,
    Incident::BackupByHand,
    Incident::PruneByHand,
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Fault(Fault),
    Incident(Incident),
}

impl Kind {
    fn all() -> Vec<Self> {
        let incidents = INCIDENTS.into_iter().map(Self::Incident);
        FAULTS.into_iter().map(Self::Fault).chain(incidents).collect()
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(fault) => write!(formatter, "{fault:?}"),
            Self::Incident(incident) => write!(formatter, "{incident:?}"),
        }
    }
}

/// Which kinds come, and when: for the same seed always the same, whatever the product does meanwhile.
pub(super) struct Faults {
    dice: Dice,
    /// Each kind once, before chance has its way.
    deck: Vec<Kind>,
    /// What is wrong, and with which server.
    now: Option<(Fault, usize)>,
    /// Those that hold locks.
    sessions: Vec<Session>,
    /// When what is wrong is put right, or the next thing goes wrong.
    next: Instant,
    happened: BTreeMap<Kind, usize>,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let deck = dice.shuffled(Kind::all());
        Self {
            dice,
            deck,
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
        } else {
            let kind = self.draw();
            match kind {
                Kind::Fault(fault) => self.begin(fault, town),
                Kind::Incident(incident) => self.incident(incident, town, daemon),
            }
            *self.happened.entry(kind).or_default() += 1;
        }
        let longest = if self.deck.is_empty() { 8000 } else { 3000 };
        self.next = Instant::now() + Duration::from_millis(1000 + self.dice.roll(longest));
    }

    fn draw(&mut self) -> Kind {
        if let Some(kind) = self.deck.pop() {
            return kind;
        }
        if self.dice.roll(2) == 0 {
            Kind::Fault(FAULTS[self.dice.below(FAULTS.len())])
        } else {
            Kind::Incident(INCIDENTS[self.dice.below(INCIDENTS.len())])
        }
    }

    /// Puts right what is wrong.
    pub(super) fn end(&mut self, town: &mut Town) {
        let Some((fault, server)) = self.now.take() else {
            return;
        };
        match fault {
            Fault::ServerDown => town.servers[server].restart(),
            Fault::ServerUnreachable => town.proxies[server].come_back(),
            Fault::TablesLocked => self.sessions.clear(),
            Fault::RepositoryClosed => allow(&repository(town), 0o700),
            Fault::RepositoryReadOnly => {
                for folder in folders_written_to(town) {
                    allow(&folder, 0o700);
                }
            }
        }
    }

    /// How often what happened, on one line.
    pub(super) fn told(&self) -> String {
        let parts: Vec<String> = self
            .happened
            .iter()
            .map(|(what, count)| format!("{what:?} {count}"))
            .collect();
        format!("what happened: {}", parts.join(", "))
    }

    /// The kinds that never happened, although there was time.
    pub(super) fn missing(&self, length: Duration) -> Vec<String> {
        if length < DEALT_WITHIN {
            return Vec::new();
        }
        let missing = Kind::all()
            .into_iter()
            .filter(|kind| !self.happened.contains_key(kind));
        missing.map(|kind| format!("{kind:?} never happened")).collect()
    }

    fn begin(&mut self, fault: Fault, town: &mut Town) {
        let (server, target) = (self.dice.below(SERVERS), self.dice.below(TARGETS));
        match fault {
            Fault::ServerDown => town.servers[server].crash(),
            Fault::ServerUnreachable => town.proxies[server].go_away(),
            Fault::TablesLocked => {
                let databases = (0..MAX_BACKUPS).map(|number| &town.databases[(target + number) % TARGETS]);
                self.sessions = databases.map(locked).collect();
            }
            Fault::RepositoryClosed => allow(&repository(town), 0o000),
            Fault::RepositoryReadOnly => {
                for folder in folders_written_to(town) {
                    allow(&folder, 0o500);
                }
            }
        }
        self.now = Some((fault, server));
    }

    fn incident(&mut self, incident: Incident, town: &mut Town, daemon: &Running) {
        let (server, target) = (self.dice.below(SERVERS), self.dice.below(TARGETS));
        match incident {
            Incident::ServerCrash => town.servers[server].restart(),
            Incident::ConnectionsCut => town.proxies[server].cut(),
            Incident::ProgramKilled => self.kill_a_program(daemon),
            Incident::Reload => daemon.reload(&town.busy()),
            Incident::FaultyReload => {
                daemon.reload(&Ernstfall::new(&town.directory).configuration("unknown = 1\n"))
            }
            // What comes of it is in the records. It may well be refused: another backup of the target runs.
            Incident::BackupByHand => by_hand(town, ["backup", &Town::name(target)]),
            Incident::PruneByHand => by_hand(town, ["prune"]),
        }
    }

    /// One that the daemon has started: pg_dump, pg_restore, a scratch server or what holds it.
    fn kill_a_program(&mut self, daemon: &Running) {
        // Drawn once: how many run, and whether one ends before it is killed, must not change what comes after this.
        let drawn = self.dice.below(usize::MAX);
        wait_for("a program to kill", || {
            let programs: Vec<Process> = descendants(daemon.pid()).into_iter().collect();
            let place = drawn.checked_rem(programs.len());
            place.is_some_and(|place| {
                let pid = i32::try_from(programs[place].0).unwrap();
                kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
            })
        });
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

fn allow(folder: &Path, mode: u32) {
    match fs::set_permissions(folder, Permissions::from_mode(mode)) {
        // The product has just removed it, since it was empty.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        allowed => allowed.unwrap(),
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

    fn shuffled<T>(&mut self, mut cards: Vec<T>) -> Vec<T> {
        for place in (1..cards.len()).rev() {
            cards.swap(place, self.below(place + 1));
        }
        cards
    }
}

#[test]
fn each_kind_of_fault_is_dealt_once_first_in_an_order_that_the_seed_gives() {
    let dealt = |seed: u64, count: usize| {
        let mut faults = Faults::new(seed);
        (0..count).map(|_| faults.draw()).collect::<Vec<Kind>>()
    };
    let count = Kind::all().len();
    let mut once = dealt(2, count);
    assert_ne!(once, dealt(3, count));
    assert_eq!(dealt(2, 100), dealt(2, 100));
    once.sort();
    assert_eq!(once, Kind::all());
}
