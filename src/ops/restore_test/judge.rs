//! What a restore test says: verdict and objectives, put into a record.

use chrono::{DateTime, Utc};

use crate::journal::RunId;
use crate::model::cycle::{cycle_ended_by_rpa_seconds, cycle_rpa_seconds};
use crate::model::manifest::Manifest;
use crate::model::record::{FORMAT, ObjectiveResult, Objectives, Phase, RestoreTestRecord, Verdict};
use crate::model::verification::Verification;
use crate::ops::context::{Context, Halt};
use crate::ops::restore::RestoreError;
use crate::ops::target::Target;
use crate::repository::Manifests;

use super::{Findings, Options};

/// The recovery point actual that the RPO is judged on, with its basis.
pub(super) async fn rpo(
    context: &Context,
    target: &Target,
    manifest: Option<&Manifest>,
    started_at: DateTime<Utc>,
) -> ObjectiveResult {
    let unknown = unknown_rpo(target);
    let Some(manifest) = manifest else { return unknown };
    let Ok(listed) = context.repository.manifests(&target.name).await else {
        return unknown;
    };
    match achieved(listed, manifest, started_at, (context.clock)()) {
        Some((seconds, basis)) => judged(unknown.objective_seconds, seconds, basis),
        None => unknown,
    }
}

/// The worst moment of the backup cycle, or the age of what was recovered, whichever is worse: of an older backup than
/// the newest only the cycle counts, since nobody would have recovered to it at the time of the test. Of what time a
/// backup from the future is, nobody knows.
fn achieved(
    mut listed: Manifests,
    tested: &Manifest,
    started_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<(f64, &'static str)> {
    if tested.is_of_unknown_time(now) {
        return None;
    }
    let newest = listed.newest_at(now);
    let is_newest = newest.is_some_and(|newest| newest.id == tested.id);
    listed.readable.retain(|one| !one.is_of_unknown_time(now));
    let cycle = "worst moment of the backup cycle";
    if !is_newest {
        return Some((cycle_rpa_seconds(&listed.readable, &tested.id)?, cycle));
    }
    let age = (started_at - tested.recovery_point_on_our_clock()).as_seconds_f64();
    match cycle_ended_by_rpa_seconds(&listed.readable, &tested.id) {
        Some(seconds) if seconds >= age => Some((seconds, cycle)),
        _ => Some((age, "age of the recovery point when the test started")),
    }
}

pub(super) fn unknown_rpo(target: &Target) -> ObjectiveResult {
    ObjectiveResult::judge(target.rpo.map(|rpo| rpo.as_secs_f64()), None, None)
}

pub(super) fn judged(objective: Option<f64>, actual: f64, basis: &str) -> ObjectiveResult {
    ObjectiveResult::judge(objective, Some(actual.max(0.0)), Some(basis.to_owned()))
}

/// The recovery time actual: only a test that passed has one.
pub(super) fn rto(target: &Target, context: &Context, verdict: Verdict, found: &Findings) -> ObjectiveResult {
    let objective = target.rto.map(|rto| rto.as_secs_f64());
    let measured = found.recovered_seconds.filter(|_| verdict == Verdict::Passed);
    let overhead: f64 = target
        .rto_overhead
        .iter()
        .map(|(_, time)| time.as_secs_f64())
        .sum();
    let mut basis = format!(
        "measured on {}, not on the production server; repository {}",
        found.measured_on.as_deref().unwrap_or("an unknown scratch"),
        context.repository.location()
    );
    if overhead > 0.0 {
        let parts: Vec<String> = target
            .rto_overhead
            .iter()
            .map(|(name, time)| format!("{name} {}s", time.as_secs()))
            .collect();
        basis.push_str(&format!("; with declared times added: {}", parts.join(", ")));
    }
    ObjectiveResult::judge(
        objective,
        measured.map(|seconds| seconds + overhead),
        measured.map(|_| basis),
    )
}

#[expect(
    clippy::too_many_arguments,
    reason = "it only puts a record together from its parts"
)]
pub(super) fn record(
    context: &Context,
    target: &Target,
    options: &Options,
    run_id: &RunId,
    started_at: DateTime<Utc>,
    result: &Result<(), RestoreError>,
    found: Findings,
    rpo: ObjectiveResult,
    phases: Vec<Phase>,
) -> RestoreTestRecord {
    let (verdict, reason) = verdict(result, &found.verification);
    let rto = rto(target, context, verdict, &found);
    // Nothing was recovered from a bad backup, so it has no recovery point to judge.
    let rpo = match verdict {
        Verdict::Failed => ObjectiveResult::judge(rpo.objective_seconds, None, None),
        Verdict::Passed | Verdict::CouldNotRun => rpo,
    };
    RestoreTestRecord {
        format: FORMAT,
        id: run_id.to_string(),
        target: target.name.clone(),
        environment: target.environment.clone(),
        owner: target.owner.clone(),
        backup: found.manifest.as_ref().map(|manifest| manifest.id.clone()),
        trigger: options.trigger,
        verdict,
        reason,
        cancelled: matches!(result, Err(RestoreError::Halted(Halt::Signal))),
        started_at,
        finished_at: (context.clock)(),
        recovery_point: found.manifest.as_ref().map(|manifest| manifest.recovery_point),
        heartbeat_at: found.heartbeat_at,
        objectives: Objectives { rpo, rto },
        phases,
        verification: found.verification,
        scratch: found.scratch,
    }
}

/// What the test says of the backup, and why.
pub(super) fn verdict(
    result: &Result<(), RestoreError>,
    verification: &Verification,
) -> (Verdict, Option<String>) {
    // A mismatch that was seen stays one, even if the comparison broke off later.
    if let Some(first) = verification.mismatches.first() {
        let more = match verification.mismatches.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let reason = format!(
            "{} {}: expected {}, found {}{more}",
            first.kind, first.name, first.expected, first.found
        );
        return (Verdict::Failed, Some(reason));
    }
    if let Some(check) = verification.checks.iter().find(|check| !check.passed) {
        let reason = format!(
            "the check {} expected {}, found {}",
            check.name, check.expected, check.found
        );
        return (Verdict::Failed, Some(reason));
    }
    match result {
        Ok(()) => (Verdict::Passed, None),
        Err(error) => (error.verdict(), Some(crate::ops::chain(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples::{manifest, time};

    const HOUR: i64 = 3600;
    const CYCLE: &str = "worst moment of the backup cycle";
    const AGE: &str = "age of the recovery point when the test started";

    /// Of the backups at hours 1, 2 and 48, ten minutes long each, one that was tested at this second.
    fn of(tested: i64, started: i64) -> Option<(f64, &'static str)> {
        let listed = Manifests {
            readable: [1, 2, 48].map(manifest).into(),
            unreadable: Vec::new(),
        };
        achieved(listed, &manifest(tested), time(started), time(started))
    }

    #[test]
    fn the_rpo_is_judged_on_the_worse_of_cycle_and_age_and_on_no_backup_from_the_future() {
        assert_eq!(of(2, 2 * HOUR + 900), Some((4200.0, CYCLE)));
        assert_eq!(of(2, 4 * HOUR), Some((7200.0, AGE)));
        assert_eq!(
            of(1, 4 * HOUR),
            Some((4200.0, CYCLE)),
            "an older one than the newest"
        );
        assert_eq!(of(1, HOUR + 900), Some((900.0, AGE)), "it is the first");
        assert_eq!(of(48, 4 * HOUR), None, "of what time it is, nobody knows");
        assert_eq!(of(48, -HOUR), None, "nor where all lie in the future");

        let mut ahead = manifest(48);
        ahead.clock_skew_seconds = Some(45.0 * 3600.0);
        let listed = Manifests {
            readable: vec![ahead.clone()],
            unreadable: Vec::new(),
        };
        let age = |started| achieved(listed.clone(), &ahead, time(started), time(started));
        assert_eq!(age(4 * HOUR), Some((3600.0, AGE)));
        assert_eq!(age(49 * HOUR), Some((46.0 * 3600.0, AGE)));
        let gone = achieved(Manifests::default(), &manifest(1), time(HOUR), time(HOUR));
        assert_eq!(gone, None, "it was removed while it was tested");
        // What came while the test ran is none of the future.
        let during = Manifests {
            readable: [1, 3].map(manifest).into(),
            unreadable: Vec::new(),
        };
        let ended = achieved(during, &manifest(1), time(HOUR + 900), time(4 * HOUR));
        assert_eq!(ended, Some((7800.0, CYCLE)));
    }
}
