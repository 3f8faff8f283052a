//! The checklist: everything a backup and a restore test need, looked at before either is run.
//!
//! Each function returns lines and never fails as a whole: one fault hides no other. Nothing is changed, but for a
//! probe object in the repository, a probe file in the state directory and a scratch cluster, all removed at once.

mod encryption;
mod heartbeat;
mod history;
mod machine;
mod programs;
mod repository;
mod scratch;
mod scratch_server;
mod source;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::journal::History;
use crate::ops::keys::Keys;
use crate::ops::target::Target;
use crate::repository::Repository;

pub use encryption::encryption;
pub use machine::state_directory;
pub use repository::repository;

/// One line of the checklist.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckLine {
    /// `configuration`, `daemon`, `encryption`, `state`, `repository`, `alerts`, or `target` and its name.
    pub area: String,
    /// What was looked at.
    pub subject: String,
    pub result: LineResult,
    pub message: String,
    /// What mends it, where something is to be mended.
    pub remedy: Option<String>,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LineResult {
    Ok,
    /// Worth a look; nothing fails for it.
    Warning,
    /// A backup or a restore test would fail, or an objective would be missed.
    Failed,
}

/// What all checks of one run share.
pub struct Surroundings {
    pub bin_dir: Option<PathBuf>,
    pub cancel: CancellationToken,
    pub clock: fn() -> DateTime<Utc>,
    pub keys: Keys,
    /// Absent where there is none yet, or where it cannot be reached.
    pub repository: Option<Arc<Repository>>,
    /// Which installation this is: the chain of its journal. Absent where that cannot be opened.
    pub installation: Option<String>,
    /// Absent where the journal cannot be read.
    pub history: Option<History>,
}

/// Scratch clusters that were tried already: targets with equal settings share one.
#[derive(Default)]
pub struct TriedScratches(BTreeMap<String, CheckLine>);

/// The lines of one area.
pub(super) struct Lines {
    area: String,
    lines: Vec<CheckLine>,
}

impl Lines {
    fn of(area: impl Into<String>) -> Self {
        Self {
            area: area.into(),
            lines: Vec::new(),
        }
    }

    fn ok(&mut self, subject: &str, message: impl Into<String>) {
        self.add(subject, LineResult::Ok, message.into(), None);
    }

    fn warning(&mut self, subject: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(subject, LineResult::Warning, message.into(), Some(remedy.into()));
    }

    fn failed(&mut self, subject: &str, message: impl Into<String>, remedy: impl Into<String>) {
        self.add(subject, LineResult::Failed, message.into(), Some(remedy.into()));
    }

    /// A statement that the server refused, with the advice that the error carries.
    fn refused(&mut self, subject: &str, error: &crate::postgres::Error) {
        let remedy = error.hint().map(str::to_owned);
        let message = format!("{}: {}", error.on(), error.reason());
        self.add(subject, LineResult::Failed, message, remedy);
    }

    fn add(&mut self, subject: &str, result: LineResult, message: String, remedy: Option<String>) {
        self.lines.push(CheckLine {
            area: self.area.clone(),
            subject: subject.to_owned(),
            result,
            message,
            remedy,
        });
    }
}

/// The area of a target's lines.
pub fn area_of(target: &str) -> String {
    format!("target {target}")
}

/// Checks one target. `longest_gap` is the longest time between two backups by its schedule.
pub async fn target(
    surroundings: &Surroundings,
    target: &Target,
    longest_gap: Option<Duration>,
    tried: &mut TriedScratches,
) -> Vec<CheckLine> {
    let mut lines = Lines::of(area_of(target.name.as_str()));
    let found = source::check(surroundings, target, &mut lines).await;
    let found = found.as_ref();
    programs::check(surroundings, target, found, &mut lines);
    match &target.scratch_server {
        Some(server) => scratch_server::check(surroundings, target, server, found, &mut lines).await,
        None => {
            if let Some(found) = found {
                scratch::room(target, found, &mut lines);
            }
            scratch::check(surroundings, target, found, tried, &mut lines).await;
        }
    }
    history::check(surroundings, target, longest_gap, &mut lines).await;
    lines.lines
}
