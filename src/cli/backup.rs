//! `ernstfall backup`.

use crate::model::record::{BackupRecord, Outcome, Trigger};
use crate::ops::backup::{self, Options};
use crate::repository::OtherIdentity;

use super::arguments::{Backup, Global};
use super::exit::{Exit, Failure};
use super::setup::Setup;
use super::{print, progress};

pub(super) async fn run(global: &Global, options: &Backup) -> Result<Exit, Failure> {
    let setup = Setup::load(global)?;
    let targets = setup.targets(&options.targets.targets)?;
    let mut records = Vec::new();
    let mut exit = Exit::Done;
    for (index, target) in targets.into_iter().enumerate() {
        let display = progress::display(global, &target.name);
        let context = setup.context(setup.repository_or_new().await?, setup.journal()?, display);
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
        let other_identity = if options.adopt {
            OtherIdentity::Adopt
        } else {
            OtherIdentity::Refuse
        };
        let options = Options {
            trigger: Trigger::Command,
            other_identity,
        };
        let record = backup::backup(&context, &target, options)
            .await
            .map_err(Failure::operation)?;
        setup.deliver(&context).await;
        if record.outcome != Outcome::Succeeded {
            exit = exit.gravest(Exit::CouldNotRun);
            print::talk(&format!(
                "{}: {}",
                record.target,
                record.reason.as_deref().unwrap_or("failed")
            ));
        }
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

pub(super) fn show(record: &BackupRecord) {
    let (Some(id), Some(totals)) = (&record.backup, &record.totals) else {
        return;
    };
    let seconds: f64 = record.phases.iter().map(|phase| phase.seconds).sum();
    print::text(&format!(
        "{}: backup {id} holds {} rows of {} tables ({}, stored {}) in {}",
        record.target,
        totals.rows,
        totals.tables,
        print::size(totals.bytes),
        print::size(totals.stored_bytes),
        print::seconds(Some(seconds)),
    ));
    for not_covered in &record.not_covered {
        print::text(&format!(
            "  not covered: {} {}: {}",
            not_covered.kind, not_covered.name, not_covered.reason
        ));
    }
    for finding in &record.findings {
        print::text(&format!("  finding: {}", finding.message));
    }
}
