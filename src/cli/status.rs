//! `ernstfall status`.

use chrono::Utc;

use crate::config;
use crate::model::record::{ObjectiveVerdict, Verdict};
use crate::observe::status::{self, Recorded, TargetFacts, TargetStatus};

use super::arguments::{Global, Targets};
use super::exit::{Exit, Failure};
use super::print;
use super::setup::Setup;

pub(super) async fn run(global: &Global, options: &Targets) -> Result<Exit, Failure> {
    let setup = Setup::load(global)?;
    let targets = setup.targets(&options.targets)?;
    let repository = setup.repository().await?;
    let journal = setup.journal()?;
    let history = journal
        .history_with(&repository)
        .await
        .map_err(Failure::operation)?;
    let mut all = Vec::new();
    for target in targets {
        let manifests = repository
            .manifests(&target.name)
            .await
            .map_err(Failure::operation)?;
        let facts = TargetFacts::from(target);
        let status = status::of(&facts, &manifests, &Recorded::from(&history), None, Utc::now());
        all.push(status);
    }
    let exit = all.iter().map(exit_of).fold(Exit::Done, Exit::gravest);
    if global.json {
        print::json_of(&all, options.targets.len() == 1).map_err(Failure::operation)?;
    } else {
        show(&all);
    }
    Ok(exit)
}

impl From<&config::Target> for TargetFacts {
    fn from(target: &config::Target) -> Self {
        Self {
            name: target.name.clone(),
            environment: target.environment.clone(),
            owner: target.owner.clone(),
            rpo_seconds: target.objectives.rpo.map(|rpo| rpo.as_seconds()),
            rto_seconds: target.objectives.rto.map(|rto| rto.as_seconds()),
        }
    }
}

fn exit_of(status: &TargetStatus) -> Exit {
    let newest_is_bad = status
        .newest_backup
        .as_ref()
        .is_some_and(|b| b.verdict == Some(Verdict::Failed));
    let missed = [&status.rpo, &status.rto]
        .iter()
        .filter(|o| o.verdict == ObjectiveVerdict::Missed)
        .count();
    match status.problems.len() {
        0 => Exit::Done,
        _ if newest_is_bad => Exit::BadBackup,
        problems if problems > missed => Exit::CouldNotRun,
        _ => Exit::ObjectiveMissed,
    }
}

/// How many of the objects that are not covered a page for people names.
const NAMED: usize = 20;

fn show(all: &[TargetStatus]) {
    let rows = all.iter().map(|status| {
        let test = status.last_restore_test.as_ref();
        vec![
            status.target.to_string(),
            if status.ok {
                "ok".to_owned()
            } else {
                "PROBLEM".to_owned()
            },
            print::seconds(status.exposure_seconds),
            objective(status.rpo.objective_seconds, status.rpo.actual_seconds),
            objective(status.rto.objective_seconds, status.rto.actual_seconds),
            test.map_or("never", |test| test.verdict.as_str()).to_owned(),
            status
                .newest_backup
                .as_ref()
                .map_or("none".to_owned(), |backup| backup.id.to_string()),
        ]
    });
    print::table(
        &[
            "target",
            "state",
            "exposure",
            "rpo actual/objective",
            "rto actual/objective",
            "last test",
            "newest backup",
        ],
        rows,
    );
    for status in all {
        for problem in &status.problems {
            print::text(&format!("{}: {problem}", status.target));
        }
        let not_covered = status.not_covered_objects.as_deref().unwrap_or_default();
        for object in not_covered.iter().take(NAMED) {
            print::text(&format!(
                "{}: not covered: {} {} ({})",
                status.target, object.kind, object.name, object.reason
            ));
        }
        if let Some(more) = not_covered.len().checked_sub(NAMED).filter(|more| *more > 0) {
            print::text(&format!(
                "{}: not covered: {more} more, see --json",
                status.target
            ));
        }
    }
}

fn objective(objective: Option<f64>, actual: Option<f64>) -> String {
    let wanted = objective.map_or("none".to_owned(), |seconds| print::seconds(Some(seconds)));
    format!("{} / {wanted}", print::seconds(actual))
}
