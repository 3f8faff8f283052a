//! `ernstfall restore --table`.

use crate::model::contents::NotCovered;
use crate::model::record::{Outcome, RestoredTables};
use crate::ops::restore::{self, TablesOptions, TablesPlan};
use crate::postgres::ConnectionSettings;

use super::arguments::{Global, Restore};
use super::exit::{Exit, Failure};
use super::restore::{exit_of, exit_of_plan, failure, show, show_lacking, show_steps};
use super::setup::Setup;
use super::{print, progress};

pub(super) async fn run(
    global: &Global,
    setup: &Setup,
    options: &Restore,
    to: &ConnectionSettings,
    wanted: &TablesOptions,
) -> Result<Exit, Failure> {
    let display = progress::display(global, &options.target);
    let context = setup.context(setup.repository().await?, setup.journal()?, display);
    setup.settle(&context).await?;
    if options.plan {
        let plan = restore::plan_tables(&context, &options.target, to, wanted)
            .await
            .map_err(failure)?;
        return show_plan(global, &plan);
    }
    let record = restore::restore_tables(&context, &options.target, to, wanted)
        .await
        .map_err(Failure::operation)?;
    setup.deliver(&context).await;
    show(global, &record)?;
    if let (false, Outcome::Succeeded, Some(tables)) = (global.json, record.outcome, &record.tables) {
        show_tables(tables);
    }
    Ok(setup.signals.exit().unwrap_or_else(|| exit_of(record.verdict)))
}

fn show_plan(global: &Global, plan: &TablesPlan) -> Result<Exit, Failure> {
    let exit = exit_of_plan(&plan.lacking);
    if global.json {
        print::json(plan).map_err(Failure::operation)?;
        return Ok(exit);
    }
    print::text(&format!(
        "restore from backup {} of {} (recovery point {}) into the schema {} of {}, PostgreSQL {}",
        plan.backup,
        plan.target,
        plan.recovery_point.at,
        plan.tables.schema,
        plan.destination,
        plan.server_version
    ));
    let rows = plan.tables.tables.iter().map(|table| {
        let name = format!("{}.{}", table.schema, table.name);
        vec![name, table.rows.to_string(), print::size(table.bytes)]
    });
    print::table(&["table", "rows", "as text"], rows);
    print::text(&format!(
        "to read: {} in {} objects of the repository",
        print::size(plan.stored_bytes),
        plan.objects
    ));
    show_steps(&plan.steps);
    for index in &plan.indexes {
        print::text(&format!("  to build: {index}"));
    }
    for never in &plan.never_brought {
        print::text(&format!("  not brought: {never}"));
    }
    show_not_restored(&plan.tables.not_restored);
    show_lacking(&plan.lacking);
    Ok(exit)
}

fn show_tables(tables: &RestoredTables) {
    for table in &tables.tables {
        print::text(&format!(
            "  {}.{}: {} rows in {}.{}",
            table.schema, table.name, table.rows, tables.schema, table.name
        ));
    }
    for view in &tables.views {
        print::text(&format!("  {view}: a view over its partitions"));
    }
    show_not_restored(&tables.not_restored);
}

fn show_not_restored(not_restored: &[NotCovered]) {
    for left in not_restored {
        print::text(&format!(
            "  not restored: {} {}: {}",
            left.kind, left.name, left.reason
        ));
    }
}
