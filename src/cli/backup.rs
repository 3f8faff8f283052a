//! `ernstfall backup`.

use std::time::Duration;

use crate::config;
use crate::journal::{Error as JournalError, Journal};
use crate::model::record::{BackupRecord, Outcome, Trigger};
use crate::ops::backup::{self, Options};
use crate::ops::context::Context;
use crate::ops::not_begun::NotBegun;
use crate::ops::target::Target;
use crate::repository::{OtherIdentity, Repository};

use super::arguments::{Backup, Global};
use super::each_target::{Task, each_target};
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
    each_target(global, &options.targets.targets, &wanted).await
}

impl Task for Options {
    type Subject = Target;
    type Record = BackupRecord;

    /// The first backup makes it.
    async fn repository(setup: &Setup) -> Result<Repository, Failure> {
        setup.repository_or_new().await
    }

    fn subject(setup: &Setup, target: &config::Target) -> Result<Target, Failure> {
        setup.target(target)
    }

    fn trigger(&self) -> Trigger {
        self.trigger
    }

    fn deadline(target: &config::Target) -> Option<Duration> {
        target.timeouts.backup.map(Duration::from)
    }

    async fn run(&self, context: &Context, target: Target) -> Result<BackupRecord, JournalError> {
        backup::backup(context, &target, *self).await
    }

    fn not_begun(run: NotBegun, journal: &Journal) -> Result<BackupRecord, JournalError> {
        run.backup(journal)
    }

    fn talk(record: &BackupRecord) -> Option<String> {
        let reason = record.reason.as_ref()?;
        Some(format!("{}: {reason}", record.target))
    }

    fn exit(record: &BackupRecord) -> Exit {
        match record.outcome {
            Outcome::Succeeded => Exit::Done,
            Outcome::Failed | Outcome::Cancelled => Exit::CouldNotRun,
        }
    }

    fn show(record: &BackupRecord) {
        show(record);
    }
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
