//! A day of alerts in a moment: the clock is paused, and each message that a person sees is expected.

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::time::Instant;

use super::*;
use crate::alert::channel::Channel;
use crate::model::samples::time;
use crate::observe::metrics::Sample;

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;

/// What a person sees: when (in minutes), which alert, what of it.
type Seen = (i64, String, String, &'static str);

/// Somebody who gets messages, while the way there works.
#[derive(Clone)]
struct Person {
    clock: Clock,
    seen: Arc<Mutex<Vec<Seen>>>,
    works: Arc<AtomicBool>,
    refreshed: Option<Duration>,
}

#[async_trait]
impl Channel for Person {
    async fn deliver(&self, message: &Message, now: DateTime<Utc>) -> Result<Receipt, Failure> {
        if !self.works.load(Ordering::SeqCst) {
            // It hangs, and says nothing.
            sleep(Duration::from_secs(HOUR as u64)).await;
        }
        let what = match message.state {
            AlertState::Firing if message.reminder => "reminder",
            AlertState::Firing => "firing",
            AlertState::Resolved => "resolved",
        };
        let about = ["target", "channel"].map(|label| message.labels.get(label));
        let about = about.into_iter().flatten().next().cloned().unwrap_or_default();
        let minute = (now - time(0)).num_minutes();
        let alert = message.alert().trim_start_matches("Ernstfall").to_owned();
        self.seen.lock().unwrap().push((minute, alert, about, what));
        Ok(Receipt("thanks".to_owned()))
    }

    fn refreshed_every(&self) -> Option<Duration> {
        self.refreshed
    }
}

impl Person {
    fn new(clock: &Clock) -> Self {
        Self {
            clock: Arc::clone(clock),
            seen: Arc::default(),
            works: Arc::new(AtomicBool::new(true)),
            refreshed: None,
        }
    }

    fn named(&self, name: &str) -> Named {
        Named {
            name: name.to_owned(),
            kind: "command",
            timeout: Duration::from_secs(10),
            channel: Box::new(self.clone()),
        }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn now(&self) -> i64 {
        ((self.clock)() - time(0)).num_seconds()
    }
}

/// A clock that goes with the paused one.
fn clock() -> Clock {
    let began = Instant::now();
    Arc::new(move || time(0) + TimeDelta::from_std(began.elapsed()).unwrap())
}

fn sample(metric: &str, labels: &[(&str, &str)], value: f64) -> Sample {
    let labels = labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Sample {
        metric: format!("ernstfall_{metric}"),
        labels: labels.collect(),
        value,
    }
}

/// The day: the shop's source fails for a while each ten minutes from two to three, the bank's recovery point gets too old
/// from five to fifteen o'clock.
fn day(desk: &Desk, at: DateTime<Utc>) -> Readings {
    let second = (at - time(0)).num_seconds();
    let flaps = (2 * HOUR..3 * HOUR).contains(&second) && second / MINUTE % 10 < 7;
    let exposed = (5 * HOUR..15 * HOUR).contains(&second);
    let mut samples = vec![
        sample(
            "last_backup_result",
            &[("target", "shop"), ("result", "failed")],
            f64::from(flaps),
        ),
        sample("newest_backup_bad", &[("target", "bank")], f64::from(exposed)),
    ];
    for channel in desk.state().channels {
        let labels = [("channel", channel.name.as_str()), ("result", "failed")];
        samples.push(sample("alert_deliveries_total", &labels, channel.failed as f64));
    }
    Readings {
        at,
        samples,
        complete: true,
    }
}

fn manner() -> Manner {
    Manner {
        repeat: TimeDelta::hours(4),
        runbook_url: String::new(),
        labels: BTreeMap::new(),
    }
}

/// A daemon's alerts until this second.
async fn run_until(end: i64, folder: &Path, clock: &Clock, channels: Vec<Named>) {
    let journal = Journal::open(folder).unwrap();
    let desk = Arc::new(Desk::open(folder, journal, Arc::clone(clock)));
    desk.set_channels(channels);
    let stop = CancellationToken::new();
    let telling = tokio::spawn(Arc::clone(&desk).tell(stop.clone()));
    let read = || Some((day(&desk, clock()), manner()));
    let rest = (time(end) - clock()).to_std().unwrap();
    tokio::select! {
        () = desk.judge(Duration::from_secs(60), read, &stop) => {}
        () = sleep(rest) => {}
    }
    stop.cancel();
    telling.await.unwrap();
}

fn seen(minute: i64, alert: &str, about: &str, what: &'static str) -> Seen {
    (minute, alert.to_owned(), about.to_owned(), what)
}

#[tokio::test(start_paused = true)]
async fn of_a_day_with_a_flapping_source_and_restarts_each_message_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let (pager, chat) = (Person::new(&clock), Person::new(&clock));
    let channels = || vec![pager.named("pager"), chat.named("chat")];
    // In the middle of the flapping, and while something fires.
    for end in [2 * HOUR + 34 * MINUTE, 6 * HOUR + 10, 12 * HOUR + 55 * MINUTE] {
        run_until(end, folder.path(), &clock, channels()).await;
    }
    // The chat is away while it should remind, and another restart does not make it forget.
    chat.works.store(false, Ordering::SeqCst);
    run_until(13 * HOUR + 30 * MINUTE, folder.path(), &clock, channels()).await;
    assert!(pager.now() >= 13 * HOUR);
    chat.works.store(true, Ordering::SeqCst);
    run_until(24 * HOUR, folder.path(), &clock, channels()).await;

    let at = |hour: i64, minute: i64| hour * 60 + minute;
    let common = [
        seen(at(2, 5), "BackupFailed", "shop", "firing"),
        seen(at(3, 2), "BackupFailed", "shop", "resolved"),
        seen(at(5, 0), "NewestBackupBad", "bank", "firing"),
        seen(at(9, 0), "NewestBackupBad", "bank", "reminder"),
    ];
    let near = |got: &[Seen], expected: &[Seen]| {
        assert_eq!(got.len(), expected.len(), "{got:#?}");
        for (got, expected) in got.iter().zip(expected) {
            let same = (&got.1, &got.2, got.3) == (&expected.1, &expected.2, expected.3);
            // A restart moves the looks a little.
            assert!(
                same && (got.0 - expected.0).abs() <= 2,
                "{got:?} instead of {expected:?}"
            );
        }
    };
    let mut of_pager = common.to_vec();
    of_pager.extend([
        seen(at(13, 0), "NewestBackupBad", "bank", "reminder"),
        seen(at(13, 1), "AlertDeliveryFailed", "chat", "firing"),
        seen(at(14, 6), "AlertDeliveryFailed", "chat", "resolved"),
        seen(at(15, 5), "NewestBackupBad", "bank", "resolved"),
    ]);
    near(&pager.seen(), &of_pager);
    let mut of_chat = common.to_vec();
    of_chat.extend([
        // At its next try, which is after at most five minutes.
        seen(at(13, 33), "NewestBackupBad", "bank", "reminder"),
        seen(at(15, 5), "NewestBackupBad", "bank", "resolved"),
    ]);
    near(&chat.seen(), &of_chat);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_forgets_hears_of_what_fires_each_minute_and_gets_no_reminders() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let receiver = Person {
        refreshed: Some(Duration::from_secs(60)),
        ..Person::new(&clock)
    };
    run_until(
        16 * HOUR,
        folder.path(),
        &clock,
        vec![receiver.named("alertmanager")],
    )
    .await;
    let told = receiver.seen();
    let of_bank: Vec<&Seen> = told.iter().filter(|seen| seen.2 == "bank").collect();
    // Ten hours, and five minutes until it counts as resolved.
    assert!((600..=607).contains(&of_bank.len()), "{}", of_bank.len());
    assert!(told.iter().all(|seen| seen.3 != "reminder"));
    assert_eq!(of_bank.last().unwrap().3, "resolved");
    let records = Journal::open(folder.path()).unwrap().history().unwrap().entries;
    // Both alerts fired and were resolved: that it was said again is no news.
    assert_eq!(records.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn deliveries_and_failures_are_recorded_with_their_tries() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let pager = Person::new(&clock);
    pager.works.store(false, Ordering::SeqCst);
    run_until(
        5 * HOUR + 30 * MINUTE,
        folder.path(),
        &clock,
        vec![pager.named("pager")],
    )
    .await;
    pager.works.store(true, Ordering::SeqCst);
    run_until(6 * HOUR, folder.path(), &clock, vec![pager.named("pager")]).await;
    let entries = Journal::open(folder.path()).unwrap().history().unwrap().entries;
    let mut records: Vec<(&str, AlertState, Delivery)> = entries
        .iter()
        .filter_map(|entry| match &entry.record {
            Record::AlertDelivery(record) => Some((record.alert.as_str(), record.state, record.result)),
            _ => None,
        })
        .collect();
    // What waited comes in the order in which it was to be tried again.
    records[3..].sort_by_key(|(alert, ..)| *alert);
    assert_eq!(
        records,
        [
            ("ErnstfallBackupFailed", AlertState::Firing, Delivery::Failed),
            ("ErnstfallBackupFailed", AlertState::Resolved, Delivery::Failed),
            ("ErnstfallNewestBackupBad", AlertState::Firing, Delivery::Failed),
            ("ErnstfallBackupFailed", AlertState::Resolved, Delivery::Delivered),
            (
                "ErnstfallNewestBackupBad",
                AlertState::Firing,
                Delivery::Delivered
            ),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_configured_anew_is_used_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let clock = clock();
    let (before, after) = (Person::new(&clock), Person::new(&clock));
    run_until(4 * HOUR, folder.path(), &clock, vec![before.named("old")]).await;
    run_until(6 * HOUR, folder.path(), &clock, vec![after.named("new")]).await;
    assert_eq!((before.seen().len(), after.seen().len()), (2, 1));
}

#[test]
fn a_state_that_cannot_be_read_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("alerts.json"), "{").unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    let desk = Desk::open(folder.path(), journal, Arc::new(|| time(0)));
    assert_eq!(desk.state().firing, []);
}
