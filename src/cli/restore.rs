//! `ernstfall restore`.

use anyhow::anyhow;

use crate::model::contents::NotCovered;
use crate::model::record::{Outcome, RestoreRecord, Verdict};
use crate::ops::restore::{self, Broken, Choice, Options, Plan, RestoreError, TablesOptions, Tablespaces};

use super::arguments::{Global, Restore};
use super::exit::{Exit, Failure};
use super::setup::Setup;
use super::{print, progress, restore_tables};

pub(super) async fn run(global: &Global, options: &Restore) -> Result<Exit, Failure> {
    let setup = Setup::load(global)?;
    let to = setup.connection(&options.to)?;
    if to.password_from_text() {
        return Err(Failure::usage(anyhow!(
            "--to holds a password, which every user of this machine can read in the list of processes: leave it out, and set PGPASSWORD or use a password file (~/.pgpass)"
        )));
    }
    let choice = match (&options.backup, options.before) {
        (Some(id), _) => Choice::Exactly(id.clone()),
        (None, Some(time)) => Choice::Before(time),
        (None, None) => Choice::Newest,
    };
    let broken = if options.start_over {
        Broken::StartOver
    } else {
        Broken::Continue
    };
    if let Some(schema) = &options.into_schema {
        let wanted = TablesOptions {
            choice,
            broken,
            jobs: options.jobs as usize,
            tables: options.tables.clone(),
            schema: schema.clone(),
        };
        return restore_tables::run(global, &setup, options, &to, &wanted).await;
    }
    let wanted = Options {
        choice,
        broken,
        jobs: options.jobs as usize,
        tablespaces: if options.no_tablespaces {
            Tablespaces::OfTheDatabase
        } else {
            Tablespaces::AsInSource
        },
    };
    let display = progress::display(global, &options.target);
    let context = setup.context(setup.repository().await?, setup.journal()?, display);
    setup.settle(&context).await?;
    if options.plan {
        let plan = restore::plan(&context, &options.target, &to, &wanted)
            .await
            .map_err(failure)?;
        return show_plan(global, &plan);
    }
    let record = restore::restore(&context, &options.target, &to, &wanted)
        .await
        .map_err(Failure::operation)?;
    setup.deliver(&context).await;
    show(global, &record)?;
    Ok(setup.signals.exit().unwrap_or_else(|| exit_of(record.verdict)))
}

pub(super) fn failure(error: RestoreError) -> Failure {
    Failure {
        exit: exit_of(error.verdict()),
        error: error.into(),
    }
}

pub(super) fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Passed => Exit::Done,
        Verdict::Failed => Exit::BadBackup,
        Verdict::CouldNotRun => Exit::CouldNotRun,
    }
}

/// A restore is refused while anything is missing.
pub(super) fn exit_of_plan(lacking: &[String]) -> Exit {
    if lacking.is_empty() {
        Exit::Done
    } else {
        Exit::CouldNotRun
    }
}

pub(super) fn show_steps(steps: &[String]) {
    for (number, step) in steps.iter().enumerate() {
        print::text(&format!("  {}. {step}", number + 1));
    }
}

pub(super) fn show_lacking(lacking: &[String]) {
    for lack in lacking {
        print::text(&format!("  missing: {lack}"));
    }
}

fn show_plan(global: &Global, plan: &Plan) -> Result<Exit, Failure> {
    let exit = exit_of_plan(&plan.lacking);
    if global.json {
        print::json(plan).map_err(Failure::operation)?;
        return Ok(exit);
    }
    print::text(&format!(
        "restore backup {} of {} (recovery point {}) into {}, PostgreSQL {}",
        plan.backup, plan.target, plan.recovery_point.at, plan.destination, plan.server_version
    ));
    if plan.continues {
        print::text("it continues a restore that broke: what is in already is not done again");
    }
    show_steps(&plan.steps);
    not_covered(&plan.not_covered);
    show_lacking(&plan.lacking);
    Ok(exit)
}

pub(super) fn show(global: &Global, record: &RestoreRecord) -> Result<(), Failure> {
    if global.json {
        return print::json(record).map_err(Failure::operation);
    }
    if let Some(reason) = &record.reason {
        print::talk(&format!("{}: {reason}", record.target));
    }
    let rows = record
        .phases
        .iter()
        .map(|phase| vec![phase.name.clone(), print::seconds(Some(phase.seconds))]);
    print::table(&["phase", "time"], rows);
    if let (Outcome::Succeeded, Some(found)) = (record.outcome, &record.verification) {
        print::text(&format!(
            "restored and compared: {} rows of {} tables are what the source had sent",
            found.rows, found.tables
        ));
        not_covered(&found.not_covered);
    }
    Ok(())
}

/// What is to be done by other means after a recovery.
fn not_covered(objects: &[NotCovered]) {
    for object in objects {
        let NotCovered { kind, name, reason } = object;
        print::text(&format!("  not covered: {kind} {name} ({reason})"));
    }
}
