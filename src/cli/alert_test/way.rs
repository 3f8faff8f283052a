//! A test alert the whole way round: the daemon shows a metric, a rule of Prometheus makes an alert of it, Alertmanager
//! passes it on. Each step is told, so that it is clear where a way ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::alert::channel::Failure as NotReached;
use crate::alert::http::Receiver;
use crate::alert::monitoring::{Alertmanager, Notifications, Prometheus};
use crate::cli::arguments::AlertTest;
use crate::cli::exit::Failure;
use crate::cli::print;
use crate::cli::run::is_running;
use crate::cli::setup::{Setup, own_pages, receiver_at};
use crate::model::alert_record::TestDelivery;
use crate::model::human_duration::HumanDuration;
use crate::observe::gathered::RaisedTest;
use crate::observe::rules::TEST_ALERT;

use super::raised::{raise, withdraw};
use super::subject::{Subject, TEST_ID};

/// What stands in the record for the name and the kind of a channel.
const NAME: &str = "prometheus";

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One answer of a server may take so long.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// An alert that Alertmanager has is kept up for so long: it gathers alerts for a while before it tells people, and would
/// never tell of one that is over by then.
const KEPT_FOR: TimeDelta = TimeDelta::minutes(5);

/// The servers on the way.
pub(super) struct Way {
    state_dir: PathBuf,
    /// Nothing where the daemon serves TLS: its certificate may be of names that this program does not know.
    daemon: Option<Receiver>,
    prometheus: Option<Prometheus>,
    /// Nothing where Prometheus has to say it.
    alertmanager: Option<Alertmanager>,
    wait: HumanDuration,
    talks: bool,
}

/// How far the alert has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    Raised,
    Shown,
    Scraped,
    Firing,
    Held,
}

/// One test alert under way.
struct Walk<'a> {
    way: &'a Way,
    test: &'a RaisedTest,
    begun: Instant,
    reached: RefCell<Reached>,
    /// To whom Alertmanager passes it on.
    receivers: RefCell<String>,
    /// Why a server could not be asked the last time.
    trouble: RefCell<Option<String>>,
}

impl Way {
    /// Nothing is asked or raised yet.
    ///
    /// # Errors
    /// There is no daemon to show the metric, or nobody to ask whether the alert has come.
    pub(super) fn prepare(setup: &Setup, options: &AlertTest, talks: bool) -> Result<Self, Failure> {
        let config = &setup.config;
        let Some(http) = setup.http()? else {
            return Err(Failure::usage(anyhow!(
                "{} has no `[http]`, so that the daemon shows no metrics to Prometheus: add it",
                config.file.display()
            )));
        };
        let (prometheus, alertmanager) = (
            setup.prometheus(),
            setup.alertmanager(options.alertmanager.as_deref()),
        );
        let prometheus = prometheus.map_err(not_usable("alert.prometheus"))?;
        let alertmanager = alertmanager.map_err(not_usable("Alertmanager"))?;
        if prometheus.is_none() && alertmanager.is_none() {
            return Err(Failure::usage(anyhow!(
                "where is Alertmanager? give --alertmanager URL; or add a channel of kind \"alertmanager\", or `[alert.prometheus]`, to {}",
                config.file.display()
            )));
        }
        if !is_running(&config.state_dir) {
            return Err(Failure::operation(anyhow!(
                "no `ernstfall run` is running with the state directory {}, and it is the daemon that shows the test alert to Prometheus: start it first",
                config.state_dir.display()
            )));
        }
        let daemon = own_pages(&http);
        Ok(Self {
            state_dir: config.state_dir.clone(),
            daemon: daemon.map_err(not_usable("http"))?,
            prometheus: prometheus.map(Prometheus::new),
            alertmanager: alertmanager.map(Alertmanager::new),
            wait: options.wait,
            talks,
        })
    }

    /// Raises the alert, and waits until Alertmanager has it and passes it on. A signal ends it.
    pub(super) async fn follow(
        &self,
        subject: &Subject<'_>,
        id: &str,
        cancel: &CancellationToken,
    ) -> TestDelivery {
        let begun = Instant::now();
        let wait = TimeDelta::from_std(self.wait.into()).unwrap_or(KEPT_FOR);
        let test = subject.raised(id, Utc::now() + wait);
        let followed = tokio::select! {
            followed = self.raise_and_follow(&test, begun) => followed,
            () = cancel.cancelled() => Err("ended by a signal".to_owned()),
        };
        let took = begun.elapsed();
        let left = match followed {
            Ok(_) => raise(&self.state_dir, &ending(&test, Utc::now() + KEPT_FOR)),
            Err(_) => withdraw(&self.state_dir, &test),
        };
        if let (Err(error), true) = (left, self.talks) {
            print::talk(&format!("the test alert goes on until {}: {error}", test.until));
        }
        TestDelivery {
            channel: NAME.to_owned(),
            kind: NAME.to_owned(),
            delivered: followed.is_ok(),
            seconds: took.as_secs_f64(),
            receipt: followed.as_ref().ok().cloned(),
            reason: followed.err(),
        }
    }

    async fn raise_and_follow(&self, test: &RaisedTest, begun: Instant) -> Result<String, String> {
        let walk = Walk {
            way: self,
            test,
            begun,
            reached: RefCell::new(Reached::Raised),
            receivers: RefCell::default(),
            trouble: RefCell::default(),
        };
        match timeout(self.wait.into(), walk.go()).await {
            Ok(gone) => gone,
            Err(_) => walk.out_of_time(),
        }
    }
}

fn ending(test: &RaisedTest, until: DateTime<Utc>) -> RaisedTest {
    RaisedTest {
        until,
        ..test.clone()
    }
}

fn not_usable(what: &str) -> impl Fn(NotReached) -> Failure {
    move |failure| Failure::usage(anyhow!("{what}: {}", failure.reason))
}

impl Walk<'_> {
    async fn go(&self) -> Result<String, String> {
        let found = self.prepared().await?;
        let alertmanager = self.way.alertmanager.as_ref().or(found.as_ref());
        let alertmanager =
            alertmanager.ok_or("nobody knows where Alertmanager is: give --alertmanager URL")?;
        let before = in_time(alertmanager.notifications()).await.ok().flatten();
        raise(&self.way.state_dir, self.test)
            .map_err(|error| format!("write to {}: {error}", self.way.state_dir.display()))?;
        if self.way.daemon.is_some() {
            self.until(Reached::Shown, || self.is_shown()).await?;
            self.say("the daemon shows the metric");
        }
        if let Some(prometheus) = &self.way.prometheus {
            let series = format!("ernstfall_alert_test{{test=\"{}\"}}", self.test.test);
            self.until(Reached::Scraped, || has(prometheus, series.clone()))
                .await?;
            self.say("Prometheus has seen the metric");
            let alert = format!(
                "ALERTS{{alertname=\"{TEST_ALERT}\",test=\"{}\",alertstate=\"firing\"}}",
                self.test.test
            );
            self.until(Reached::Firing, || has(prometheus, alert.clone()))
                .await?;
            self.say("the alert fires in Prometheus");
        }
        let labels = BTreeMap::from([(TEST_ID.to_owned(), self.test.test.clone())]);
        let names = self
            .until(Reached::Held, || alertmanager.receivers_of(&labels))
            .await?;
        self.say(&format!("Alertmanager has it, for {names}"));
        self.receivers.replace(names);
        self.sent(alertmanager, before).await
    }

    /// What can be known beforehand: that Prometheus has the rule, and somebody to tell. Says where Alertmanager is, where
    /// that is asked of Prometheus.
    async fn prepared(&self) -> Result<Option<Alertmanager>, String> {
        let Some(prometheus) = &self.way.prometheus else {
            return Ok(None);
        };
        let answered = |failure: NotReached| format!("Prometheus: {}", failure.reason);
        let rules = in_time(prometheus.alerting_rules()).await.map_err(answered)?;
        if !rules.contains(TEST_ALERT) {
            return Err(format!(
                "Prometheus has no rule {TEST_ALERT}: load what `ernstfall rules` prints, as one of its rule_files"
            ));
        }
        let told = in_time(prometheus.alertmanagers()).await.map_err(answered)?;
        let Some(first) = told.first() else {
            return Err(
                "Prometheus tells no Alertmanager of alerts: add one under `alerting` in its configuration"
                    .to_owned(),
            );
        };
        self.say(&format!("Prometheus has the rule, and tells {}", told.join(", ")));
        match self.way.alertmanager {
            Some(_) => Ok(None),
            None => {
                let receiver =
                    receiver_at(first).map_err(|failure| format!("Alertmanager: {}", failure.reason))?;
                Ok(Some(Alertmanager::new(receiver)))
            }
        }
    }

    async fn is_shown(&self) -> Result<Option<()>, NotReached> {
        let Some(daemon) = &self.way.daemon else {
            return Ok(None);
        };
        let answer = daemon.get(daemon.url_below("metrics")).await?;
        let text = daemon.text(answer).await?;
        let test = format!("test=\"{}\"", self.test.test);
        let is_it = |line: &str| line.starts_with("ernstfall_alert_test{") && line.contains(&test);
        Ok(text.lines().any(is_it).then_some(()))
    }

    /// Looks until it is so. What lasts ends it; what may pass is told when the time is over.
    async fn until<T, F: Future<Output = Result<Option<T>, NotReached>>>(
        &self,
        reached: Reached,
        look: impl Fn() -> F,
    ) -> Result<T, String> {
        loop {
            if let Some(found) = self.asked(look()).await?.flatten() {
                *self.reached.borrow_mut() = reached;
                return Ok(found);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn asked<T>(
        &self,
        question: impl Future<Output = Result<T, NotReached>>,
    ) -> Result<Option<T>, String> {
        match in_time(question).await {
            Ok(answer) => {
                *self.trouble.borrow_mut() = None;
                Ok(Some(answer))
            }
            Err(failure) if failure.lasting => Err(failure.reason),
            Err(failure) => {
                *self.trouble.borrow_mut() = Some(failure.reason);
                Ok(None)
            }
        }
    }

    /// Waits until Alertmanager has sent something, as far as its counters tell.
    async fn sent(
        &self,
        alertmanager: &Alertmanager,
        before: Option<Notifications>,
    ) -> Result<String, String> {
        let names = self.receivers.borrow().clone();
        let held = format!("Alertmanager passes it on to {names}");
        let Some(before) = before else {
            return Ok(held);
        };
        loop {
            let now = in_time(alertmanager.notifications()).await.ok().flatten();
            let now = now.unwrap_or(before);
            if now.sent > before.sent {
                return Ok(format!("{held}, and has sent a notification"));
            }
            if now.failed > before.failed {
                return Err(format!(
                    "Alertmanager has it for {names}, and cannot send (tries that failed: {}); its log says why",
                    now.failed - before.failed
                ));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Where the way ends. That Alertmanager still gathers what it will send is no fault.
    fn out_of_time(&self) -> Result<String, String> {
        let state_dir: &Path = &self.way.state_dir;
        let end = match *self.reached.borrow() {
            Reached::Raised if self.way.daemon.is_some() => format!(
                "the daemon does not show the metric: does it run as this user, with {}?",
                state_dir.display()
            ),
            Reached::Raised | Reached::Shown if self.way.prometheus.is_some() => {
                "Prometheus does not see the metric: look for this daemon on its page Targets".to_owned()
            }
            Reached::Raised | Reached::Shown => format!(
                "Alertmanager does not show the alert: does Prometheus get metrics from this daemon, has it the rule {TEST_ALERT}, and does it tell this Alertmanager? Name it as `[alert.prometheus]` to hear which"
            ),
            Reached::Scraped => format!(
                "Prometheus sees the metric, and its rule {TEST_ALERT} makes no alert of it: load what `ernstfall rules` of this version prints"
            ),
            Reached::Firing => {
                "the alert fires in Prometheus, and Alertmanager does not show it: does Prometheus tell this one, and reach it?".to_owned()
            }
            Reached::Held => {
                return Ok(format!(
                    "Alertmanager passes it on to {}, and has sent nothing yet: it gathers alerts for group_wait or group_interval",
                    self.receivers.borrow()
                ));
            }
        };
        let trouble = self.trouble.borrow();
        let trouble = trouble
            .as_ref()
            .map(|reason| format!(" ({reason})"))
            .unwrap_or_default();
        Err(format!("not within {}: {end}{trouble}", self.way.wait))
    }

    fn say(&self, text: &str) {
        if self.way.talks {
            print::talk(&format!("{:>6.1} s  {text}", self.begun.elapsed().as_secs_f64()));
        }
    }
}

async fn has(prometheus: &Prometheus, expression: String) -> Result<Option<()>, NotReached> {
    let found = prometheus.query(&expression).await?;
    Ok((!found.is_empty()).then_some(()))
}

async fn in_time<T>(question: impl Future<Output = Result<T, NotReached>>) -> Result<T, NotReached> {
    match timeout(ANSWER_TIME, question).await {
        Ok(answer) => answer,
        Err(_) => Err(NotReached::may_pass(format!(
            "no answer within {} s",
            ANSWER_TIME.as_secs()
        ))),
    }
}
