//! What the commands that work on targets share: one target after the other, a record of each, and the gravest exit of
//! all.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use serde::Serialize;

use crate::config;
use crate::journal::{Error as JournalError, Journal};
use crate::model::record::Trigger;
use crate::model::target_name::TargetName;
use crate::ops::context::{Context, Deadline, Halt, Progress};
use crate::ops::not_begun::NotBegun;
use crate::repository::Repository;

use super::arguments::Global;
use super::exit::{Exit, Failure};
use super::setup::Setup;
use super::{print, progress};

/// What is done with each target: by a command now, or by the daemon when it is due.
pub(super) trait Task: Clone + Send + Sync + 'static {
    /// What has to be known of a target.
    type Subject: Send;
    type Record: Serialize + Send;

    /// Where backups are, or are to be.
    fn repository(setup: &Setup) -> impl Future<Output = Result<Repository, Failure>> + Send {
        setup.repository()
    }

    fn subject(setup: &Setup, target: &config::Target) -> Result<Self::Subject, Failure>;

    fn trigger(&self) -> Trigger;

    /// How long a run may take, as configured.
    fn deadline(_target: &config::Target) -> Option<Duration> {
        None
    }

    /// The work itself; its record is in the journal when this returns.
    fn run(
        &self,
        context: &Context,
        subject: Self::Subject,
    ) -> impl Future<Output = Result<Self::Record, JournalError>> + Send;

    /// Records a run that could not even begin.
    fn not_begun(run: NotBegun, journal: &Journal) -> Result<Self::Record, JournalError>;

    /// What somebody who watches should read at once.
    fn talk(_record: &Self::Record) -> Option<String> {
        None
    }

    fn exit(record: &Self::Record) -> Exit;

    fn show(record: &Self::Record);
}

/// Who hears of a run, and how long it may take.
pub(super) struct Around {
    pub(super) display: Arc<dyn Progress>,
    pub(super) deadline: Option<Duration>,
    /// First to remove and record what killed runs left.
    pub(super) settle: bool,
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
    let mut settle = true;
    for configured in setup.targets(names)? {
        let around = Around {
            display: progress::display(global, &configured.name),
            deadline: T::deadline(configured),
            settle,
        };
        let (record, failure) = run_once(&setup, configured, task, around)
            .await
            .map_err(Failure::operation)?;
        if let Some(failure) = &failure {
            print::error(failure);
        } else {
            settle = false;
            T::talk(&record).iter().for_each(|said| print::talk(said));
        }
        exit = exit.gravest(failure.map_or_else(|| T::exit(&record), |failure| failure.exit));
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

/// Runs the task for one target, and delivers the record; also of a run that could not even begin, which comes with the
/// reason.
pub(super) async fn run_once<T: Task>(
    setup: &Setup,
    configured: &config::Target,
    task: &T,
    around: Around,
) -> Result<(T::Record, Option<Failure>), JournalError> {
    let deadline = around.deadline.map(Deadline::after);
    let begun = tokio::select! {
        begun = begin::<T>(setup, configured, around, deadline) => begun,
        // A repository that hangs must not hold a run for ever that has not even begun.
        halt = Halt::wait(&setup.signals.cancel, deadline) => Err(Failure::operation(halt)),
    };
    match begun {
        Ok((context, subject)) => {
            let record = task.run(&context, subject).await?;
            setup.deliver(&context).await;
            Ok((record, None))
        }
        Err(failure) => {
            let reason = crate::ops::chain(failure.error.as_ref());
            let journal = Journal::open(&setup.config.state_dir)?;
            let mut facts = facts(configured, task.trigger(), reason);
            facts.cancelled = setup.signals.cancel.is_cancelled();
            let record = T::not_begun(facts, &journal)?;
            Ok((record, Some(failure)))
        }
    }
}

/// Everything that a run needs before it can begin.
async fn begin<T: Task>(
    setup: &Setup,
    configured: &config::Target,
    around: Around,
    deadline: Option<Deadline>,
) -> Result<(Context, T::Subject), Failure> {
    let repository = T::repository(setup).await?;
    let mut context = setup.context(repository, setup.journal()?, around.display);
    context.deadline = deadline;
    if around.settle {
        setup.settle(&context).await?;
    }
    Ok((context, T::subject(setup, configured)?))
}

fn facts(target: &config::Target, trigger: Trigger, reason: String) -> NotBegun {
    NotBegun {
        target: target.name.clone(),
        environment: target.environment.clone(),
        owner: target.owner.clone(),
        rpo_seconds: target.objectives.rpo.map(|rpo| rpo.as_seconds()),
        rto_seconds: target.objectives.rto.map(|rto| rto.as_seconds()),
        trigger,
        at: Utc::now(),
        reason,
        cancelled: false,
    }
}
