//! The lines of the checklist about alerts: whether anybody would hear of anything. Nothing is sent.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use crate::alert::channel::Failure as NotReached;
use crate::alert::channel::Named;
use crate::alert::monitoring::Prometheus;
use crate::cli::setup::Setup;
use crate::journal::History;
use crate::model::alert_record::TestDelivery;
use crate::model::record::Record;
use crate::observe::rules;
use crate::ops::check::{CheckLine, LineResult};

/// A password manager may take so long.
const PREPARATION_TIME: Duration = Duration::from_secs(35);

/// An answer of a server may.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// A way that was tried longer ago is not known to work: as the rule `ErnstfallAlertTestOld` has it.
const TESTED_WITHIN: TimeDelta = TimeDelta::days(30);

/// Where a daemon that dies unnoticed is a danger.
const PRODUCTION: &str = "production";

/// What is known of Prometheus as a way to people.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ByPrometheus {
    Tells,
    TellsNobody,
    /// It does not answer, or is not named in the configuration.
    Unknown,
}

/// All lines. `history` is nothing where it cannot be read.
pub(super) async fn check(setup: &Setup, channels: &[Named], history: Option<&History>) -> Vec<CheckLine> {
    let mut lines = Lines(Vec::new());
    for channel in channels {
        prepare(channel, &mut lines).await;
    }
    dead_man_switch(setup, &mut lines).await;
    let by_prometheus = prometheus(setup, &mut lines).await;
    ways(setup, channels, by_prometheus, &mut lines);
    death(setup, by_prometheus, &mut lines);
    if let Some(history) = history {
        last_test(channels, by_prometheus, history, Utc::now(), &mut lines);
    }
    lines.0
}

/// Whether its secrets can be had and its settings be used.
async fn prepare(channel: &Named, lines: &mut Lines) {
    let subject = format!("channel {}", channel.name);
    match in_time(PREPARATION_TIME, channel.channel.prepare()).await {
        Ok(()) => lines.ok(
            &subject,
            format!("{}: what it needs is there; nothing was sent", channel.kind),
        ),
        Err(failure) => lines.add(
            &subject,
            LineResult::Failed,
            format!("{}: {}", channel.kind, failure.reason),
            Some("correct this channel: nobody would hear of anything by it"),
        ),
    }
}

async fn dead_man_switch(setup: &Setup, lines: &mut Lines) {
    let Some(ping) = setup.ping() else { return };
    match in_time(PREPARATION_TIME, ping.prepare()).await {
        Ok(()) => lines.ok("dead-man switch", "its address is there; nothing was sent"),
        Err(failure) => lines.add(
            "dead-man switch",
            LineResult::Failed,
            failure.reason,
            Some("correct `alert.ping_url`: it will raise an alarm that means nothing"),
        ),
    }
}

async fn prometheus(setup: &Setup, lines: &mut Lines) -> ByPrometheus {
    let asked = async {
        let Some(receiver) = setup.prometheus()? else {
            return Ok(None);
        };
        let prometheus = Prometheus::new(receiver);
        Ok(Some((
            prometheus.alerting_rules().await?,
            prometheus.alertmanagers().await?,
        )))
    };
    let (loaded, told) = match in_time(ANSWER_TIME, asked).await {
        Ok(None) => return ByPrometheus::Unknown,
        Ok(Some(found)) => found,
        Err(failure) => {
            let remedy =
                "mend it, or correct `[alert.prometheus]`: alerts by its rules do not reach anybody now";
            lines.warning("Prometheus", failure.reason, remedy);
            return ByPrometheus::Unknown;
        }
    };
    let missing = missing(&loaded);
    if missing.len() == rules::all().count() {
        lines.warning(
            "Prometheus",
            "it has none of our alerting rules",
            "load what `ernstfall rules` prints; or remove `[alert.prometheus]`",
        );
        return ByPrometheus::TellsNobody;
    }
    if told.is_empty() {
        lines.warning(
            "Prometheus",
            "it has the rules, and tells no Alertmanager",
            "add one under `alerting` in its configuration",
        );
        return ByPrometheus::TellsNobody;
    }
    if missing.is_empty() {
        lines.ok(
            "Prometheus",
            format!("it has the rules, and tells {}", told.join(", ")),
        );
    } else {
        lines.warning(
            "Prometheus",
            format!(
                "its rules are of another version, and lack {}",
                missing.join(", ")
            ),
            "load what `ernstfall rules` prints now",
        );
    }
    ByPrometheus::Tells
}

fn missing(loaded: &BTreeSet<String>) -> Vec<&'static str> {
    let names = rules::all().map(|rule| rule.name);
    names.filter(|name| !loaded.contains(*name)).collect()
}

/// Somebody has to hear of everything, and once is enough.
fn ways(setup: &Setup, channels: &[Named], by_prometheus: ByPrometheus, lines: &mut Lines) {
    let subject = "ways to people";
    let tells = setup.config.alert.evaluate && !channels.is_empty();
    match (tells, by_prometheus) {
        (true, ByPrometheus::Tells) => lines.warning(
            subject,
            "the daemon and Prometheus both watch the conditions: people hear of everything twice",
            "write evaluate = false under [alert], or take the rules out of Prometheus",
        ),
        (true, ByPrometheus::TellsNobody) => {
            lines.ok(subject, format!("the daemon tells by {}", names(channels)));
        }
        (true, ByPrometheus::Unknown) => lines.ok(
            subject,
            format!(
                "the daemon tells by {}; whether a Prometheus does as well is not known here",
                names(channels)
            ),
        ),
        (false, ByPrometheus::Tells) => lines.ok(subject, "by the rules of Prometheus"),
        (false, ByPrometheus::TellsNobody) => lines.warning(
            subject,
            "there is none: nobody hears of a backup that fails",
            "add an [[alert.channel]], or mend the way over Prometheus",
        ),
        (false, ByPrometheus::Unknown) => lines.warning(
            subject,
            "the daemon tells nobody, and whether a Prometheus does is not known here",
            "add an [[alert.channel]]; or name the Prometheus as [alert.prometheus], so that it can be asked",
        ),
    }
}

/// A daemon cannot report its own death.
fn death(setup: &Setup, by_prometheus: ByPrometheus, lines: &mut Lines) {
    if setup.config.alert.ping_url.is_some() || by_prometheus == ByPrometheus::Tells {
        return;
    }
    let targets = setup.config.targets.iter();
    let production: Vec<&str> = targets
        .filter(|target| target.environment.as_deref() == Some(PRODUCTION))
        .map(|target| target.name.as_str())
        .collect();
    if production.is_empty() {
        return;
    }
    let known = match by_prometheus {
        ByPrometheus::Unknown => ", as far as is known here",
        _ => "",
    };
    lines.warning(
        "dead-man switch",
        format!(
            "when the daemon dies, nobody is told{known}; it cannot say so itself, and protects {}",
            production.join(", ")
        ),
        "give `alert.ping_url`; or load the rules into Prometheus, and name that as [alert.prometheus]",
    );
}

/// When a test alert last arrived by each way there is.
fn last_test(
    channels: &[Named],
    by_prometheus: ByPrometheus,
    history: &History,
    now: DateTime<Utc>,
    lines: &mut Lines,
) {
    let mut ways: Vec<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
    if by_prometheus == ByPrometheus::Tells {
        ways.push("prometheus");
    }
    let mut arrived = Vec::new();
    let mut faults = Vec::new();
    for way in &ways {
        match last_of(history, way) {
            None => faults.push(format!("{way}: never tried")),
            Some((at, delivery)) if !delivery.delivered => {
                let reason = delivery.reason.as_deref().unwrap_or("no reason was recorded");
                faults.push(format!("{way}: did not arrive at {}: {reason}", moment(at)));
            }
            Some((at, _)) if now - at > TESTED_WITHIN => {
                faults.push(format!("{way}: last tried at {}", moment(at)))
            }
            Some((at, _)) => arrived.push(format!("{way} at {}", moment(at))),
        }
    }
    if !faults.is_empty() {
        let remedy = match (channels, by_prometheus) {
            ([], _) => "ernstfall alert-test --through-prometheus",
            (_, ByPrometheus::Tells) => "ernstfall alert-test, and the same with --through-prometheus",
            _ => "ernstfall alert-test",
        };
        lines.warning("last alert test", faults.join("; "), remedy);
    } else if !arrived.is_empty() {
        lines.ok("last alert test", format!("arrived by {}", arrived.join(", ")));
    }
}

/// The last try of one way, by any machine.
fn last_of<'a>(history: &'a History, way: &str) -> Option<(DateTime<Utc>, &'a TestDelivery)> {
    history.entries.iter().rev().find_map(|entry| {
        let Record::AlertTest(record) = &entry.record else {
            return None;
        };
        let mut deliveries = record.deliveries.iter();
        let delivery = deliveries.find(|delivery| delivery.channel == way)?;
        Some((record.finished_at, delivery))
    })
}

async fn in_time<T>(
    limit: Duration,
    task: impl Future<Output = Result<T, NotReached>>,
) -> Result<T, NotReached> {
    match tokio::time::timeout(limit, task).await {
        Ok(done) => done,
        Err(_) => Err(NotReached::may_pass(format!(
            "no answer within {} s",
            limit.as_secs()
        ))),
    }
}

fn names(channels: &[Named]) -> String {
    let names: Vec<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
    names.join(", ")
}

fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

struct Lines(Vec<CheckLine>);

impl Lines {
    fn ok(&mut self, subject: &str, message: impl Into<String>) {
        self.add(subject, LineResult::Ok, message.into(), None);
    }

    fn warning(&mut self, subject: &str, message: impl Into<String>, remedy: &str) {
        self.add(subject, LineResult::Warning, message.into(), Some(remedy));
    }

    fn add(&mut self, subject: &str, result: LineResult, message: String, remedy: Option<&str>) {
        self.0.push(CheckLine {
            area: "alerts".to_owned(),
            subject: subject.to_owned(),
            result,
            message,
            remedy: remedy.map(str::to_owned),
        });
    }
}
