//! `ernstfall restore-test`.

use crate::model::record::{RestoreTestRecord, Trigger, Verdict};
use crate::ops::restore::Choice;
use crate::ops::restore_test::{self, Afterwards, Options};

use super::arguments::{Global, RestoreTest};
use super::exit::{Exit, Failure};
use super::setup::Setup;
use super::{print, progress};

pub(super) async fn run(global: &Global, options: &RestoreTest) -> Result<Exit, Failure> {
    let setup = Setup::load(global)?;
    let targets = setup.targets(&options.targets.targets)?;
    let wanted = Options {
        trigger: Trigger::Command,
        choice: options.backup.clone().map_or(Choice::Newest, Choice::Exactly),
        afterwards: if options.keep_scratch {
            Afterwards::Keep
        } else {
            Afterwards::Remove
        },
    };
    let mut records = Vec::new();
    let mut exit = Exit::Done;
    for (index, target) in targets.into_iter().enumerate() {
        let display = progress::display(global, &target.name);
        let context = setup.context(setup.repository().await?, setup.journal()?, display);
        if index == 0 {
            setup.settle(&context).await?;
        }
        let target = match setup.target(target) {
            Ok(target) => target,
            // The other targets can still be looked after.
            Err(failure) => {
                print::error(&failure);
                exit = exit.gravest(failure.exit);
                continue;
            }
        };
        let record = restore_test::restore_test(&context, &target, &wanted)
            .await
            .map_err(Failure::operation)?;
        setup.deliver(&context).await;
        exit = exit.gravest(exit_of(&record));
        records.push(record);
        if let Some(signal) = setup.signals.exit() {
            exit = signal;
            break;
        }
    }
    if global.json {
        print::json_of(&records, options.targets.targets.len() == 1).map_err(Failure::operation)?;
    } else {
        records.iter().for_each(show);
    }
    Ok(exit)
}

fn exit_of(record: &RestoreTestRecord) -> Exit {
    match record.verdict {
        Verdict::Failed => Exit::BadBackup,
        Verdict::CouldNotRun => Exit::CouldNotRun,
        Verdict::Passed if record.objectives.missed() => Exit::ObjectiveMissed,
        Verdict::Passed => Exit::Done,
    }
}

/// Mismatches shown; the record holds all.
const SHOWN: usize = 20;

pub(super) fn show(record: &RestoreTestRecord) {
    let backup = record.backup.as_ref().map_or("no backup", |id| id.as_str());
    print::text(&format!(
        "{}: restore test of {backup}: {}",
        record.target,
        record.verdict.as_str()
    ));
    if let Some(reason) = &record.reason {
        print::text(&format!("  {reason}"));
    }
    let verification = &record.verification;
    for mismatch in verification.mismatches.iter().take(SHOWN) {
        print::text(&format!(
            "  mismatch: {} {}: expected {}, found {}",
            mismatch.kind, mismatch.name, mismatch.expected, mismatch.found
        ));
    }
    if verification.mismatches.len() > SHOWN {
        print::text(&format!(
            "  and {} more: see --json",
            verification.mismatches.len() - SHOWN
        ));
    }
    if verification.tables > 0 {
        print::text(&format!(
            "  compared: {} rows of {} tables, {}",
            verification.rows,
            verification.tables,
            print::size(verification.bytes)
        ));
    }
    for check in &verification.checks {
        let word = if check.passed { "passed" } else { "not passed" };
        print::text(&format!(
            "  check: {}: {word} (expected {}, found {})",
            check.name, check.expected, check.found
        ));
    }
    let rows = record
        .phases
        .iter()
        .map(|phase| vec![format!("  {}", phase.name), print::seconds(Some(phase.seconds))]);
    print::table(&["  phase", "time"], rows);
    for (name, objective) in [("RPO", &record.objectives.rpo), ("RTO", &record.objectives.rto)] {
        let wanted = objective
            .objective_seconds
            .map_or("none".to_owned(), |s| print::seconds(Some(s)));
        print::text(&format!(
            "  {name}: objective {wanted}, actual {}: {}{}",
            print::seconds(objective.actual_seconds),
            objective.verdict.as_str(),
            objective
                .basis
                .as_ref()
                .map(|basis| format!(" ({basis})"))
                .unwrap_or_default(),
        ));
    }
    for not_covered in &verification.not_covered {
        print::text(&format!(
            "  not covered: {} {}: {}",
            not_covered.kind, not_covered.name, not_covered.reason
        ));
    }
    for finding in &verification.findings {
        print::text(&format!("  finding: {}: {}", finding.subject, finding.message));
    }
}
