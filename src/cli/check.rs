//! `ernstfall check`.

mod alerts;

use std::path::Path;
use std::sync::Arc;

use chrono::Utc;

use crate::alert::channel::Named;
use crate::config::{self, RepositoryLocation, SecretSource};
use crate::journal::{History, Journal};
use crate::ops::check::{self, CheckLine, LineResult, Surroundings, TriedScratches};
use crate::repository::Repository;

use super::arguments::{Global, Targets};
use super::exit::{Exit, Failure};
use super::print;
use super::run::is_running;
use super::setup::{self, Setup};

pub(super) async fn run(global: &Global, options: &Targets) -> Result<Exit, Failure> {
    let setup = Setup::load(global)?;
    let targets = setup.targets(&options.targets)?;
    // A template that cannot be used is a fault of the configuration.
    let channels = setup.channels()?;
    let mut view = View {
        json: global.json,
        quiet: global.quiet,
        lines: Vec::new(),
    };
    let cancel = setup.signals.cancel.clone();
    tokio::select! {
        () = all(&setup, targets, &channels, &mut view) => {}
        () = cancel.cancelled() => {}
    }
    if global.json {
        print::json(&view.lines).map_err(Failure::operation)?;
    } else {
        view.summary();
    }
    let failed = view.count(LineResult::Failed) > 0;
    let exit = if failed { Exit::CouldNotRun } else { Exit::Done };
    Ok(setup.signals.exit().unwrap_or(exit))
}

async fn all(setup: &Setup, targets: Vec<&config::Target>, channels: &[Named], view: &mut View) {
    view.show(configuration(setup));
    view.show(check::state_directory(&setup.config.state_dir));
    view.show(daemon(setup));
    view.show(check::encryption(&setup.keys, identity_file(setup)).await);
    let (lines, repository) = repository(setup).await;
    view.show(lines);
    let surroundings = Surroundings {
        bin_dir: setup.config.bin_dir.clone(),
        keys: setup.keys.clone(),
        cancel: setup.signals.cancel.clone(),
        clock: Utc::now,
        installation: setup.journal().ok().map(|journal| journal.chain().to_owned()),
        history: history(setup, repository.as_ref()).await,
        repository: repository.map(Arc::new),
    };
    view.show(alerts::check(setup, channels, surroundings.history.as_ref()).await);
    let mut tried = TriedScratches::default();
    for configured in targets {
        let gap = configured
            .backup
            .as_ref()
            .and_then(|schedule| schedule.longest_gap());
        match setup.target(configured) {
            Ok(target) => view.show(check::target(&surroundings, &target, gap, &mut tried).await),
            // A secret that is not there, mostly: the other targets are checked all the same.
            Err(failure) => view.show(vec![CheckLine {
                area: check::area_of(configured.name.as_str()),
                subject: "configuration".to_owned(),
                result: LineResult::Failed,
                message: crate::ops::chain(failure.error.as_ref()),
                remedy: Some(format!("correct this target in {}", setup.config.file.display())),
            }]),
        }
    }
}

/// Schedules do nothing by themselves.
fn daemon(setup: &Setup) -> Vec<CheckLine> {
    let line = |result, message: &str, remedy: Option<&str>| CheckLine {
        area: "daemon".to_owned(),
        subject: "schedules".to_owned(),
        result,
        message: message.to_owned(),
        remedy: remedy.map(str::to_owned),
    };
    let targets = &setup.config.targets;
    let scheduled = |target: &&config::Target| target.backup.is_some() && target.restore_test.is_some();
    let by_hand: Vec<&str> = targets
        .iter()
        .filter(|target| !scheduled(target))
        .map(|target| target.name.as_str())
        .collect();
    let mut lines = Vec::new();
    if !by_hand.is_empty() {
        lines.push(line(
            LineResult::Warning,
            &format!("without `backup` or `restore_test`: {}", by_hand.join(", ")),
            Some("give them schedules, unless another one runs `ernstfall` for them"),
        ));
    }
    if by_hand.len() < targets.len() {
        lines.push(if is_running(&setup.config.state_dir) {
            line(LineResult::Ok, "`ernstfall run` is running", None)
        } else {
            line(
                LineResult::Warning,
                "`ernstfall run` is not running with this `state_dir`, so that nothing is done by schedule",
                Some("systemctl enable --now ernstfall, or ernstfall run"),
            )
        });
    }
    lines
}

/// Where the identity is kept, if in a file of its own.
fn identity_file(setup: &Setup) -> Option<&Path> {
    match setup.config.encryption.as_ref()?.identity.as_ref()? {
        SecretSource::File(path) => Some(path),
        _ => None,
    }
}

fn configuration(setup: &Setup) -> Vec<CheckLine> {
    let line = |subject: &str, result, message: String, remedy: Option<String>| CheckLine {
        area: "configuration".to_owned(),
        subject: subject.to_owned(),
        result,
        message,
        remedy,
    };
    let file = &setup.config.file;
    let count = setup.config.targets.len();
    let plural = if count == 1 { "" } else { "s" };
    let read = format!("{} is without faults: {count} target{plural}", file.display());
    let mut lines = vec![line("file", LineResult::Ok, read, None)];
    for key in setup.config.not_yet_acted_upon() {
        let message = format!("{key} is read, and this version does nothing with it");
        let remedy = format!(
            "do not count on it; nothing to do, or remove it from {}",
            file.display()
        );
        lines.push(line(
            "not yet acted upon",
            LineResult::Warning,
            message,
            Some(remedy),
        ));
    }
    lines
}

async fn repository(setup: &Setup) -> (Vec<CheckLine>, Option<Repository>) {
    let directory = match &setup.config.repository.location {
        RepositoryLocation::Directory(path) => Some(path.as_path()),
        RepositoryLocation::S3 { .. } => None,
    };
    match setup.store() {
        Ok(store) => {
            let location = store.describe();
            let (mut lines, repository) = check::repository(store, directory).await;
            if repository.is_none() {
                lines.extend(gone(setup, &location));
            }
            (lines, repository)
        }
        Err(failure) => {
            let line = CheckLine {
                area: "repository".to_owned(),
                subject: "access".to_owned(),
                result: LineResult::Failed,
                message: crate::ops::chain(failure.error.as_ref()),
                remedy: Some(format!("correct it in {}", setup.config.file.display())),
            };
            (vec![line], None)
        }
    }
}

/// A place that is empty is well for a first backup, and not where this machine has backed up before.
fn gone(setup: &Setup, location: &str) -> Option<CheckLine> {
    let journal = setup.journal().ok()?;
    let id = journal.repository_at(location).ok()??;
    let error = setup::gone(&id, location, &journal.place_file(location));
    Some(CheckLine {
        area: "repository".to_owned(),
        subject: "identity".to_owned(),
        result: LineResult::Failed,
        message: error.to_string(),
        remedy: None,
    })
}

/// Nothing where it cannot be read: the lines about state and repository say why.
async fn history(setup: &Setup, repository: Option<&Repository>) -> Option<History> {
    let journal = Journal::open(&setup.config.state_dir).ok()?;
    match repository {
        Some(repository) => journal.history_with(repository).await.ok(),
        None => journal.history().ok(),
    }
}

/// Shows lines as they come: some take seconds.
struct View {
    json: bool,
    quiet: bool,
    lines: Vec<CheckLine>,
}

impl View {
    fn show(&mut self, lines: Vec<CheckLine>) {
        let wanted: Vec<&CheckLine> = lines
            .iter()
            .filter(|line| !self.quiet || line.result != LineResult::Ok)
            .collect();
        if let Some(first) = wanted.first().filter(|_| !self.json) {
            print::text(&first.area);
            wanted.iter().for_each(|line| show(line));
        }
        self.lines.extend(lines);
    }

    fn count(&self, result: LineResult) -> usize {
        self.lines.iter().filter(|line| line.result == result).count()
    }

    fn summary(&self) {
        let (warnings, failed) = (self.count(LineResult::Warning), self.count(LineResult::Failed));
        let plural = if warnings == 1 { "" } else { "s" };
        print::text(&format!(
            "{} ok, {warnings} warning{plural}, {failed} failed",
            self.count(LineResult::Ok)
        ));
    }
}

fn show(line: &CheckLine) {
    let word = match line.result {
        LineResult::Ok => "ok",
        LineResult::Warning => "warn",
        LineResult::Failed => "FAIL",
    };
    print::text(&format!("  {word:<4}  {}: {}", line.subject, line.message));
    if let Some(remedy) = &line.remedy {
        let remedy = remedy.replace('\n', "\n           ");
        print::text(&format!("        -> {remedy}"));
    }
}
