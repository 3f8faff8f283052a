//! `ernstfall alert-test`: proves that alerts arrive, before it is for real.
//!
//! - `subject` is what the test alert looks like.
//! - `telling` sends it through the channels; `way` follows it through Prometheus and Alertmanager.
//! - `raised` is where the running daemon finds what it is to show to Prometheus.

mod raised;
mod subject;
mod telling;
mod way;

use std::time::Duration;

use anyhow::anyhow;
use chrono::Utc;
use futures_util::future::join_all;

use crate::alert::channel::Named;
use crate::journal::{Journal, RunId};
use crate::model::alert_record::{AlertTestRecord, TestDelivery};
use crate::model::record::{FORMAT, Record};

use super::arguments::{AlertTest, Global};
use super::exit::{Exit, Failure};
use super::print;
use super::setup::Setup;

pub(super) use raised::raised;
use subject::Subject;
use way::Way;

/// A repository that does not answer holds up nobody for longer: the record is kept here, and delivered later.
const DELIVERY_TIME: Duration = Duration::from_secs(10);

pub(super) async fn run(global: &Global, options: &AlertTest) -> Result<Exit, Failure> {
    let setup = Setup::load(global)?;
    let subject = Subject::choose(&setup, options)?;
    let channels = channels(&setup, options)?;
    let way = match options.through_prometheus {
        true => Some(Way::prepare(&setup, options, !global.quiet)?),
        false => None,
    };
    if channels.is_empty() && way.is_none() {
        return Err(Failure::usage(anyhow!(
            "{} has no `[[alert.channel]]`: add one; or, where Prometheus has the rules, use --through-prometheus",
            setup.config.file.display()
        )));
    }
    let journal = setup.journal()?;
    let started_at = Utc::now();
    let id = RunId::new(started_at).map_err(Failure::operation)?.to_string();
    let deliveries = send(&setup, &subject, &id, &channels, way.as_ref()).await;
    let record = AlertTestRecord {
        format: FORMAT,
        id,
        alert: subject.alert().to_owned(),
        target: subject.target().map(|target| target.name.clone()),
        succeeded: deliveries.iter().all(|delivery| delivery.delivered),
        started_at,
        finished_at: Utc::now(),
        deliveries,
    };
    let entry = journal.append(Record::AlertTest(record.clone()));
    if global.json {
        print::json(&record).map_err(Failure::operation)?;
    } else {
        show(&record);
    }
    entry.map_err(Failure::operation)?;
    deliver(&setup, &journal, global).await;
    let exit = match record.succeeded {
        true => Exit::Done,
        false => Exit::CouldNotRun,
    };
    Ok(setup.signals.exit().unwrap_or(exit))
}

/// Those that are named; else all, unless the way over Prometheus is to be tried.
fn channels(setup: &Setup, options: &AlertTest) -> Result<Vec<Named>, Failure> {
    let mut channels = setup.channels()?;
    for name in &options.channels {
        if !channels.iter().any(|channel| channel.name == *name) {
            let known: Vec<&str> = channels.iter().map(|channel| channel.name.as_str()).collect();
            let known = match known.as_slice() {
                [] => "it has none".to_owned(),
                known => format!("it has {}", known.join(", ")),
            };
            let file = setup.config.file.display();
            return Err(Failure::usage(anyhow!("{file} has no channel {name}: {known}")));
        }
    }
    let is_wanted = |channel: &Named| match options.channels.as_slice() {
        [] => !options.through_prometheus,
        names => names.contains(&channel.name),
    };
    channels.retain(is_wanted);
    Ok(channels)
}

/// Through everything at once.
async fn send(
    setup: &Setup,
    subject: &Subject<'_>,
    id: &str,
    channels: &[Named],
    way: Option<&Way>,
) -> Vec<TestDelivery> {
    let cancel = &setup.signals.cancel;
    let sample_channel = channels
        .first()
        .map_or("example", |channel| channel.name.as_str());
    let message = subject.message(id, &setup.alert_manner(), sample_channel, Utc::now());
    let told = join_all(
        channels
            .iter()
            .map(|channel| telling::tell(channel, &message, cancel)),
    );
    let followed = async {
        match way {
            Some(way) => Some(way.follow(subject, id, cancel).await),
            None => None,
        }
    };
    let (mut deliveries, followed) = tokio::join!(told, followed);
    deliveries.extend(followed);
    deliveries
}

fn show(record: &AlertTestRecord) {
    let rows = record.deliveries.iter().map(|delivery| {
        let result = if delivery.delivered { "delivered" } else { "failed" };
        let said = delivery.receipt.as_ref().or(delivery.reason.as_ref());
        vec![
            delivery.channel.clone(),
            delivery.kind.clone(),
            result.to_owned(),
            print::seconds(Some(delivery.seconds)),
            said.cloned().unwrap_or_default(),
        ]
    });
    print::table(&["channel", "kind", "result", "took", "receipt or reason"], rows);
}

/// Takes the record to the repository, where that can be reached.
async fn deliver(setup: &Setup, journal: &Journal, global: &Global) {
    let deliver = async {
        let repository = setup.repository().await?;
        journal.deliver(&repository).await.map_err(Failure::operation)
    };
    let why = match tokio::time::timeout(DELIVERY_TIME, deliver).await {
        Ok(Ok(_)) => return,
        Ok(Err(failure)) => crate::ops::chain(failure.error.as_ref()),
        Err(_) => format!(
            "the repository has not answered within {} s",
            DELIVERY_TIME.as_secs()
        ),
    };
    if !global.quiet {
        print::talk(&format!("the record is kept here and delivered later: {why}"));
    }
}
