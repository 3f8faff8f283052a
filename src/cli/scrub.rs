//! `ernstfall scrub`.

use crate::config;
use crate::journal::{Error as JournalError, Journal};
use crate::model::record::{Trigger, Verdict};
use crate::model::target_name::TargetName;
use crate::model::upkeep::ScrubRecord;
use crate::ops::context::Context;
use crate::ops::not_begun::NotBegun;
use crate::ops::scrub::{self, Options};

use super::arguments::{Global, Scrub};
use super::each_target::{Task, each_target};
use super::exit::{Exit, Failure};
use super::print;
use super::setup::Setup;

pub(super) async fn run(global: &Global, options: &Scrub) -> Result<Exit, Failure> {
    let task = Options {
        trigger: Trigger::Command,
        backup: options.backup.clone(),
    };
    each_target(global, &options.targets.targets, &task).await
}

impl Task for Options {
    /// Neither the source nor a key is needed to read objects back.
    type Subject = TargetName;
    type Record = ScrubRecord;

    fn subject(_: &Setup, target: &config::Target) -> Result<TargetName, Failure> {
        Ok(target.name.clone())
    }

    fn trigger(&self) -> Trigger {
        self.trigger
    }

    async fn run(&self, context: &Context, target: TargetName) -> Result<ScrubRecord, JournalError> {
        scrub::scrub(context, &target, self).await
    }

    fn not_begun(run: NotBegun, journal: &Journal) -> Result<ScrubRecord, JournalError> {
        run.scrub(journal)
    }

    fn exit(record: &ScrubRecord) -> Exit {
        match record.verdict {
            Verdict::Passed => Exit::Done,
            Verdict::Failed => Exit::BadBackup,
            Verdict::CouldNotRun => Exit::CouldNotRun,
        }
    }

    fn show(record: &ScrubRecord) {
        print::text(&format!("{}: scrub: {}", record.target, record.verdict.as_str()));
        if let (Some(reason), true) = (&record.reason, record.backups.is_empty()) {
            print::text(&format!("  {reason}"));
        }
        for scrubbed in &record.backups {
            print::text(&format!(
                "  backup {}: {}, {} objects, {}",
                scrubbed.backup,
                scrubbed.verdict.as_str(),
                scrubbed.objects,
                print::size(scrubbed.bytes)
            ));
            for fault in &scrubbed.faults {
                print::text(&format!("    {fault}"));
            }
        }
    }
}
