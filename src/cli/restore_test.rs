//! `ernstfall restore-test`.

use std::time::Duration;

use crate::config;
use crate::journal::{Error as JournalError, Journal};
use crate::model::record::{RestoreTestRecord, Trigger, Verdict};
use crate::ops::context::Context;
use crate::ops::not_begun::NotBegun;
use crate::ops::restore::Choice;
use crate::ops::restore_test::{self, Afterwards, Options};
use crate::ops::target::Target;

use super::arguments::{Global, RestoreTest};
use super::each_target::{Task, each_target};
use super::exit::{Exit, Failure};
use super::print;
use super::setup::Setup;

pub(super) async fn run(global: &Global, options: &RestoreTest) -> Result<Exit, Failure> {
    let wanted = Options {
        trigger: Trigger::Command,
        choice: options.backup.clone().map_or(Choice::Newest, Choice::Exactly),
        afterwards: if options.keep_scratch {
            Afterwards::Keep
        } else {
            Afterwards::Remove
        },
    };
    each_target(global, &options.targets.targets, &wanted).await
}

impl Task for Options {
    type Subject = Target;
    type Record = RestoreTestRecord;

    fn subject(setup: &Setup, target: &config::Target) -> Result<Target, Failure> {
        setup.target(target)
    }

    fn trigger(&self) -> Trigger {
        self.trigger
    }

    fn deadline(target: &config::Target) -> Option<Duration> {
        target.timeouts.restore_test.map(Duration::from)
    }

    async fn run(&self, context: &Context, target: Target) -> Result<RestoreTestRecord, JournalError> {
        restore_test::restore_test(context, &target, self).await
    }

    fn not_begun(run: NotBegun, journal: &Journal) -> Result<RestoreTestRecord, JournalError> {
        run.restore_test(journal)
    }

    fn exit(record: &RestoreTestRecord) -> Exit {
        match record.verdict {
            Verdict::Failed => Exit::BadBackup,
            Verdict::CouldNotRun => Exit::CouldNotRun,
            Verdict::Passed if record.objectives.missed() => Exit::ObjectiveMissed,
            Verdict::Passed => Exit::Done,
        }
    }

    fn show(record: &RestoreTestRecord) {
        show(record);
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
