//! What the commands that work on targets share: one target after the other, a record of each, and the gravest exit of
//! all.

use chrono::Utc;
use serde::Serialize;

use crate::config;
use crate::journal::{Error as JournalError, Journal};
use crate::model::record::Trigger;
use crate::model::target_name::TargetName;
use crate::ops::context::Context;
use crate::ops::not_begun::NotBegun;
use crate::repository::Repository;

use super::arguments::Global;
use super::exit::{Exit, Failure};
use super::setup::Setup;
use super::{print, progress};

/// What a command does with each target.
pub(super) trait Task {
    /// What has to be known of a target.
    type Subject;
    type Record: Serialize;

    /// Where backups are, or are to be.
    async fn repository(&self, setup: &Setup) -> Result<Repository, Failure> {
        setup.repository().await
    }

    fn subject(&self, setup: &Setup, target: &config::Target) -> Result<Self::Subject, Failure>;

    /// The work itself; its record is in the journal when this returns.
    async fn run(&self, context: &Context, subject: Self::Subject) -> Result<Self::Record, JournalError>;

    /// Records a run that could not even begin.
    fn not_begun(&self, run: NotBegun, journal: &Journal) -> Result<Self::Record, JournalError>;

    fn exit(record: &Self::Record) -> Exit;

    fn show(record: &Self::Record);
}

/// Runs the task for the targets named, or for all. One that cannot even begin holds up no other.
pub(super) async fn each_target<T: Task>(
    global: &Global,
    names: &[TargetName],
    task: &T,
) -> Result<Exit, Failure> {
    let setup = Setup::load(global)?;
    let mut records = Vec::new();
    let mut exit = Exit::Done;
    let mut settled = false;
    for configured in setup.targets(names)? {
        let (record, of_record) = match begin(global, &setup, configured, task, &mut settled).await {
            Ok((context, subject)) => {
                let record = task.run(&context, subject).await.map_err(Failure::operation)?;
                setup.deliver(&context).await;
                let exit = T::exit(&record);
                (record, exit)
            }
            Err(failure) => {
                print::error(&failure);
                let reason = crate::ops::chain(failure.error.as_ref());
                let record = task.not_begun(facts(configured, reason), &setup.journal()?);
                (record.map_err(Failure::operation)?, failure.exit)
            }
        };
        exit = exit.gravest(of_record);
        records.push(record);
        if let Some(signal) = setup.signals.exit() {
            exit = signal;
            break;
        }
    }
    if global.json {
        print::json_of(&records, names.len() == 1).map_err(Failure::operation)?;
    } else {
        records.iter().for_each(T::show);
    }
    Ok(exit)
}

/// Everything that a run needs before it can begin.
async fn begin<T: Task>(
    global: &Global,
    setup: &Setup,
    configured: &config::Target,
    task: &T,
    settled: &mut bool,
) -> Result<(Context, T::Subject), Failure> {
    let display = progress::display(global, &configured.name);
    let repository = task.repository(setup).await?;
    let context = setup.context(repository, setup.journal()?, display);
    if !std::mem::replace(settled, true) {
        setup.settle(&context).await?;
    }
    Ok((context, task.subject(setup, configured)?))
}

fn facts(target: &config::Target, reason: String) -> NotBegun {
    NotBegun {
        target: target.name.clone(),
        environment: target.environment.clone(),
        owner: target.owner.clone(),
        rpo_seconds: target.objectives.rpo.map(|rpo| rpo.as_seconds()),
        rto_seconds: target.objectives.rto.map(|rto| rto.as_seconds()),
        trigger: Trigger::Command,
        at: Utc::now(),
        reason,
    }
}
