//! `ernstfall prune`.

use crate::config;
use crate::model::record::{Outcome, Trigger};
use crate::model::upkeep::PruneRecord;
use crate::ops::prune::{self, Leftover, Plan, PlannedBackup, Settings};

use super::arguments::{Global, Prune};
use super::exit::{Exit, Failure};
use super::setup::{self, Setup};
use super::{print, progress};

pub(super) async fn run(global: &Global, options: &Prune) -> Result<Exit, Failure> {
    let setup = Setup::load(global)?;
    let targets = setup.targets(&options.targets.targets)?;
    let one = options.targets.targets.len() == 1;
    if options.plan {
        show_plans(global, &setup, targets, one).await
    } else {
        prune_all(global, &setup, targets, one).await
    }
}

/// No connection is resolved: pruning asks nothing of the source, and goes on when that is gone for ever.
pub(super) fn settings(target: &config::Target) -> Settings {
    Settings {
        target: target.name.clone(),
        retention: setup::policy(target),
        max_snapshot_age: target.max_snapshot_age.into(),
        known: None,
    }
}

async fn prune_all(
    global: &Global,
    setup: &Setup,
    targets: Vec<&config::Target>,
    one: bool,
) -> Result<Exit, Failure> {
    let mut records = Vec::new();
    let mut exit = Exit::Done;
    for (index, target) in targets.into_iter().enumerate() {
        let display = progress::display(global, &target.name);
        let context = setup.context(setup.repository().await?, setup.journal()?, display);
        if index == 0 {
            setup.settle(&context).await?;
            // What this machine knows, the other ones decide by too.
            setup.deliver(&context).await;
        }
        let record = prune::prune(&context, &settings(target), Trigger::Command)
            .await
            .map_err(Failure::operation)?;
        setup.deliver(&context).await;
        if let Some(reason) = record.as_ref().and_then(|record| record.reason.as_ref()) {
            print::talk(&format!("{}: {reason}", target.name));
        }
        let failed = record
            .as_ref()
            .is_some_and(|record| record.outcome != Outcome::Succeeded);
        exit = exit.gravest(if failed { Exit::CouldNotRun } else { Exit::Done });
        if !global.json {
            show(target, record.as_ref());
        }
        records.push(record);
        if let Some(signal) = setup.signals.exit() {
            exit = signal;
            break;
        }
    }
    if global.json {
        print::json_of(&records, one).map_err(Failure::operation)?;
    }
    Ok(exit)
}

fn show(target: &config::Target, record: Option<&PruneRecord>) {
    let name = &target.name;
    let Some(record) = record else {
        print::text(&match target.retention {
            Some(_) => format!("{name}: nothing to remove"),
            None => format!("{name}: has no `retention`: every backup is kept"),
        });
        return;
    };
    for removed in &record.removed {
        print::text(&format!(
            "{name}: removed backup {}: {}",
            removed.backup, removed.reason
        ));
    }
    print::text(&format!(
        "{name}: removed {} backups, and {} objects that belonged to no backup; freed {}",
        record.removed.len(),
        record.objects,
        print::size(record.freed_bytes)
    ));
    for line in &record.kept {
        print::text(&format!("{name}: {line}"));
    }
}

async fn show_plans(
    global: &Global,
    setup: &Setup,
    targets: Vec<&config::Target>,
    one: bool,
) -> Result<Exit, Failure> {
    let mut plans = Vec::new();
    let mut exit = Exit::Done;
    for target in targets {
        let display = progress::display(global, &target.name);
        let context = setup.context(setup.repository().await?, setup.journal()?, display);
        match prune::plan(&context, &settings(target)).await {
            Ok(plan) => plans.push(plan),
            // The other targets' plans are worth seeing.
            Err(error) => {
                print::talk(&format!("{}: {}", target.name, crate::ops::chain(&error)));
                exit = Exit::CouldNotRun;
            }
        }
    }
    if global.json {
        print::json_of(&plans, one).map_err(Failure::operation)?;
    } else {
        plans.iter().for_each(show_plan);
    }
    Ok(exit)
}

fn show_plan(plan: &Plan) {
    match &plan.retention {
        Some(retention) => print::text(&format!("{}: retention: {retention}", plan.target)),
        None => print::text(&format!(
            "{}: has no `retention`: nothing is ever removed",
            plan.target
        )),
    }
    let backup = |backup: &PlannedBackup| {
        vec![
            backup.backup.to_string(),
            print::size(backup.stored_bytes),
            if backup.keep { "keep" } else { "remove" }.to_owned(),
            backup.reasons.join("; "),
        ]
    };
    print::table(
        &["backup", "stored", "plan", "why"],
        plan.backups.iter().map(backup),
    );
    if !plan.leftovers.is_empty() {
        print::text("objects that belong to no backup:");
        print::table(
            &[
                "former backup",
                "objects",
                "size",
                "youngest of",
                "removed",
                "may go",
            ],
            plan.leftovers.iter().map(leftover_row),
        );
    }
    for remark in &plan.remarks {
        print::text(&format!("{}: {remark}", plan.target));
    }
    print::text(&format!(
        "{}: would free {} now, and {} once the backups removed now have been gone for {:.0} h",
        plan.target,
        print::size(plan.free_now_bytes),
        print::size(plan.free_later_bytes),
        plan.grace_seconds / 3600.0
    ));
}

fn leftover_row(leftover: &Leftover) -> Vec<String> {
    let time = |at: Option<chrono::DateTime<chrono::Utc>>, unknown: &str| {
        at.map_or(unknown.to_owned(), |at| {
            at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
        })
    };
    vec![
        leftover.backup.to_string(),
        leftover.objects.to_string(),
        print::size(leftover.bytes),
        time(leftover.youngest_at, ""),
        time(leftover.removed_at, "never finished"),
        match leftover.due {
            true => "now".to_owned(),
            false => time(leftover.may_go_at, "never"),
        },
    ]
}
