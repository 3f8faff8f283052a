//! `ernstfall backup`.

use crate::model::record::{BackupRecord, Outcome, Trigger};
use crate::ops::backup::{self, Options};
use crate::ops::context::Context;
use crate::ops::target::Target;
use crate::repository::OtherIdentity;

use super::arguments::{Backup, Global};
use super::each_target::each_target;
use super::exit::{Exit, Failure};
use super::print;
use super::setup::Setup;

pub(super) async fn run(global: &Global, options: &Backup) -> Result<Exit, Failure> {
    let other_identity = if options.adopt {
        OtherIdentity::Adopt
    } else {
        OtherIdentity::Refuse
    };
    let wanted = Options {
        trigger: Trigger::Command,
        other_identity,
    };
    let work = async |context: &Context, target: &Target| {
        let record = backup::backup(context, target, wanted)
            .await
            .map_err(Failure::operation)?;
        let exit = if record.outcome == Outcome::Succeeded {
            Exit::Done
        } else {
            Exit::CouldNotRun
        };
        if let Some(reason) = &record.reason {
            print::talk(&format!("{}: {reason}", record.target));
        }
        Ok((record, exit))
    };
    each_target(
        global,
        &options.targets.targets,
        Setup::repository_or_new,
        work,
        show,
    )
    .await
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
