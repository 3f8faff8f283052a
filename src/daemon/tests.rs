//! The loop, with jobs that do nothing and a paused clock: time passes only when everybody waits.

use std::sync::Arc;
use std::sync::Mutex as Cell;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::model::agenda::{Due, End, PastRun, Why, by_the_clock};
use crate::model::schedule::Schedule;
use crate::model::time_zone::Tz;

fn epoch() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2026, 11, 22, 0, 0, 0).unwrap()
}

/// A wall clock that goes with the paused one, and can be set.
#[derive(Clone)]
struct WallClock {
    began: Instant,
    set_by: Arc<Cell<TimeDelta>>,
}

impl WallClock {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            set_by: Arc::default(),
        }
    }

    fn now(&self) -> DateTime<Utc> {
        epoch() + TimeDelta::from_std(self.began.elapsed()).unwrap() + *self.set_by.lock().unwrap()
    }

    fn handle(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

struct Fake {
    schedule: Schedule,
    clock: WallClock,
    takes: Duration,
    deadline: Duration,
    runs: Cell<Vec<PastRun>>,
    why: Cell<Vec<Why>>,
    cleared: Cell<u32>,
    elsewhere: Cell<bool>,
    /// Not even past its deadline does a run end.
    stubborn: bool,
    /// Nor does clearing away after it.
    clutter: bool,
}

impl Fake {
    fn new(clock: &WallClock, schedule: &str, takes: u64) -> Self {
        Self {
            schedule: Schedule::parse(schedule, Tz::UTC).unwrap(),
            clock: clock.clone(),
            takes: Duration::from_secs(takes),
            deadline: Duration::from_secs(6 * 3600),
            runs: Cell::default(),
            why: Cell::default(),
            cleared: Cell::default(),
            elsewhere: Cell::default(),
            stubborn: false,
            clutter: false,
        }
    }

    /// When runs started, in seconds since the beginning.
    fn starts(&self) -> Vec<i64> {
        let runs = self.runs.lock().unwrap();
        runs.iter()
            .map(|run| (run.started_at - epoch()).num_seconds())
            .collect()
    }
}

#[async_trait]
impl Job for Fake {
    fn name(&self) -> &str {
        "fake"
    }

    fn due(&self, now: DateTime<Utc>) -> Option<Due> {
        by_the_clock(&self.schedule, &self.runs.lock().unwrap(), epoch(), now)
    }

    fn deadline(&self) -> Duration {
        self.deadline
    }

    fn is_running_elsewhere(&self) -> bool {
        *self.elsewhere.lock().unwrap()
    }

    async fn run(&self, why: Why, deadline: Duration) {
        let started_at = self.clock.now();
        self.why.lock().unwrap().push(why);
        if self.stubborn {
            std::future::pending::<()>().await;
        }
        sleep(self.takes.min(deadline)).await;
        self.runs.lock().unwrap().push(PastRun {
            started_at,
            ended_at: self.clock.now(),
            end: End::Done,
        });
    }

    async fn clear_away(&self) {
        *self.cleared.lock().unwrap() += 1;
        if self.clutter {
            std::future::pending::<()>().await;
        }
        let at = self.clock.now();
        self.runs.lock().unwrap().push(PastRun {
            started_at: at,
            ended_at: at,
            end: End::CouldNotRun,
        });
    }
}

/// A started loop.
struct Running {
    state: watch::Receiver<DriverState>,
    stop: CancellationToken,
    changed: watch::Sender<()>,
    pulses: Pulses,
    ended: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        self.ended.await.unwrap();
    }
}

fn start(job: &Arc<Fake>, gate: &Gate, turn: &Arc<Mutex<()>>, offset: u64) -> Running {
    let (changed, changes) = watch::channel(());
    let (state, states) = watch::channel(DriverState::default());
    let (stop, pulses) = (CancellationToken::new(), Pulses::default());
    let driver = Driver {
        job: job.clone(),
        gate: gate.clone(),
        turn: turn.clone(),
        offset: Duration::from_secs(offset),
        pulses: pulses.clone(),
        clock: job.clock.handle(),
        changed: changes,
        since: job.clock.now(),
        state,
        stop: stop.clone(),
    };
    Running {
        state: states,
        stop,
        changed,
        pulses,
        ended: tokio::spawn(driver.run()),
    }
}

fn start_alone(job: &Arc<Fake>) -> Running {
    start(job, &Gate::new(1), &Arc::default(), 0)
}

async fn minutes(minutes: u64) {
    sleep(Duration::from_secs(minutes * 60)).await;
}

#[tokio::test(start_paused = true)]
async fn it_runs_when_it_is_due_and_never_twice_for_one_slot() {
    let clock = WallClock::new();
    let job = Arc::new(Fake::new(&clock, "every 30m", 60));
    let running = start_alone(&job);
    minutes(95).await;
    assert_eq!(job.starts(), [0, 1800, 3600, 5400]);
    let next = running.state.borrow().next_run_at.unwrap();
    assert_eq!((next - epoch()).num_seconds(), 7200);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn slots_that_come_due_during_a_run_are_skipped_and_counted() {
    let clock = WallClock::new();
    let job = Arc::new(Fake::new(&clock, "every 10m", 25 * 60));
    let running = start_alone(&job);
    minutes(61).await;
    assert!(running.state.borrow().running_since.is_some());
    assert_eq!(running.state.borrow().skipped, 4);
    running.end().await;
    assert_eq!(job.starts(), [0, 1800, 3600]);
}

#[tokio::test(start_paused = true)]
async fn only_so_many_run_at_once_in_the_order_of_asking_and_the_limit_can_change() {
    let clock = WallClock::new();
    let gate = Gate::new(1);
    let jobs: Vec<Arc<Fake>> = (0..4)
        .map(|_| Arc::new(Fake::new(&clock, "every 1d", 600)))
        .collect();
    let running: Vec<Running> = jobs
        .iter()
        .map(|job| start(job, &gate, &Arc::default(), 0))
        .collect();
    minutes(11).await;
    assert!(running[2].state.borrow().waiting_since.is_some());
    // The second runs; now the third and the fourth may too, in its eleventh minute.
    gate.set_limit(3);
    minutes(30).await;
    let starts: Vec<Vec<i64>> = jobs.iter().map(|job| job.starts()).collect();
    assert_eq!(starts, [[0], [600], [660], [660]]);
    gate.set_limit(1);
    let more: Vec<Arc<Fake>> = (0..2)
        .map(|_| Arc::new(Fake::new(&clock, "every 1d", 600)))
        .collect();
    let again: Vec<Running> = more
        .iter()
        .map(|job| start(job, &gate, &Arc::default(), 0))
        .collect();
    minutes(30).await;
    let gap = more[1].starts()[0] - more[0].starts()[0];
    assert_eq!(gap.abs(), 600);
    for one in running.into_iter().chain(again) {
        one.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_due_for_all_at_once_is_spread_and_keeps_its_interval() {
    let clock = WallClock::new();
    let job = Arc::new(Fake::new(&clock, "every 30m", 0));
    let by_clock = Arc::new(Fake::new(&clock, "*/30 * * * *", 0));
    let running = [
        start(&job, &Gate::new(1), &Arc::default(), 20),
        start(&by_clock, &Gate::new(1), &Arc::default(), 20),
    ];
    minutes(70).await;
    assert_eq!(job.starts(), [20, 1820, 3620]);
    assert_eq!(by_clock.starts(), [1820, 3620]);
    for one in running {
        one.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_before_the_start_is_spread_too() {
    let clock = WallClock::new();
    let job = Arc::new(Fake::new(&clock, "*/30 * * * *", 0));
    minutes(45).await;
    let running = start(&job, &Gate::new(1), &Arc::default(), 20);
    minutes(20).await;
    assert_eq!(job.starts(), [45 * 60 + 20, 60 * 60 + 20]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn two_loops_of_one_target_never_run_at_once() {
    let clock = WallClock::new();
    let turn = Arc::default();
    let (before, after) = (
        Arc::new(Fake::new(&clock, "every 1d", 1200)),
        Arc::new(Fake::new(&clock, "every 1d", 60)),
    );
    let old = start(&before, &Gate::new(9), &turn, 0);
    minutes(1).await;
    old.stop.cancel();
    let new = start(&after, &Gate::new(9), &turn, 0);
    minutes(30).await;
    assert_eq!(before.starts(), [0], "a run under way goes on");
    assert_eq!(after.starts(), [1200]);
    old.ended.await.unwrap();
    new.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_does_not_even_end_past_its_deadline_is_dropped_and_cleared_away() {
    let clock = WallClock::new();
    let mut job = Fake::new(&clock, "every 1h", 0);
    (job.stubborn, job.deadline) = (true, Duration::from_secs(600));
    let job = Arc::new(job);
    let running = start_alone(&job);
    minutes(24).await;
    assert_eq!(
        *job.cleared.lock().unwrap(),
        0,
        "it has time to remove what it has made"
    );
    minutes(2).await;
    assert_eq!(*job.cleared.lock().unwrap(), 1);
    assert!(
        running.pulses.silent().is_empty(),
        "the loop itself turned all the time"
    );
    running.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn clearing_away_that_hangs_neither_ends_the_loop_nor_makes_it_seem_to_hang() {
    let clock = WallClock::new();
    let mut job = Fake::new(&clock, "every 1h", 0);
    (job.stubborn, job.clutter, job.deadline) = (true, true, Duration::from_secs(600));
    let job = Arc::new(job);
    let running = start_alone(&job);
    for _ in 0..29 {
        minutes(1).await;
        assert!(running.pulses.silent().is_empty(), "the watchdog is fed");
    }
    assert_eq!(*job.cleared.lock().unwrap(), 1);
    assert!(running.state.borrow().running_since.is_some());
    minutes(2).await;
    assert_eq!(job.why.lock().unwrap().len(), 2, "it is run again");
    running.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn while_another_process_does_the_same_it_does_not() {
    let clock = WallClock::new();
    let job = Arc::new(Fake::new(&clock, "every 1h", 0));
    *job.elsewhere.lock().unwrap() = true;
    let running = start_alone(&job);
    minutes(10).await;
    assert_eq!(job.starts(), [0; 0]);
    *job.elsewhere.lock().unwrap() = false;
    minutes(1).await;
    assert_eq!(job.starts().len(), 1);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_delays_nothing_for_long_and_repeats_nothing() {
    let clock = WallClock::new();
    let job = Arc::new(Fake::new(&clock, "every 1h", 0));
    let running = start_alone(&job);
    minutes(1).await;
    *clock.set_by.lock().unwrap() = TimeDelta::days(3);
    minutes(1).await;
    assert_eq!(
        job.starts().len(),
        2,
        "hours have passed, as far as anybody can tell"
    );
    *clock.set_by.lock().unwrap() = TimeDelta::zero();
    minutes(1).await;
    assert_eq!(
        job.starts().len(),
        2,
        "that run lies in the future now, and the one before still counts"
    );
    minutes(60).await;
    assert_eq!(job.starts().len(), 3);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn something_that_happened_is_seen_at_once() {
    let clock = WallClock::new();
    let job = Arc::new(Fake::new(&clock, "every 1h", 0));
    let running = start_alone(&job);
    minutes(1).await;
    job.runs.lock().unwrap().clear();
    running.changed.send(()).unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(job.starts(), [60]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_hangs_is_named_and_one_that_has_ended_is_not_missed() {
    let pulses = Pulses::default();
    let (hanging, ended) = (pulses.begin("backup of shop"), pulses.begin("other"));
    minutes(2).await;
    drop(ended);
    assert_eq!(pulses.silent(), ["backup of shop"]);
    hanging.beat();
    assert!(pulses.silent().is_empty());
}
