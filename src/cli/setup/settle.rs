//! What killed runs left behind, in the places that the configuration names.

use std::path::PathBuf;

use chrono::Utc;

use crate::journal::Journal;
use crate::ops::context::Context;
use crate::ops::settle;

use super::{Failure, Setup};

impl Setup {
    /// Removes and records what killed runs left behind.
    pub(in crate::cli) async fn settle(&self, context: &Context) -> Result<(), Failure> {
        let settled = settle::settle(context, &self.scratch_directories()).await;
        for line in settled.map_err(Failure::operation)? {
            context.progress.note(&line);
        }
        Ok(())
    }

    /// The same as far as it goes without a repository.
    pub(in crate::cli) fn settle_here(&self, journal: &Journal) -> Result<Vec<String>, Failure> {
        let here = settle::Here {
            journal,
            state_dir: &self.config.state_dir,
            now: Utc::now(),
        };
        settle::settle_here(&here, &self.scratch_directories()).map_err(Failure::operation)
    }

    fn scratch_directories(&self) -> Vec<PathBuf> {
        let targets = self.config.targets.iter();
        let mut directories: Vec<PathBuf> = targets.map(|target| target.scratch.directory.clone()).collect();
        directories.sort();
        directories.dedup();
        directories
    }
}
