//! What is wanted of each target, and how it stands.

use super::{Metric, Values, count, flag, one, timestamp};
use crate::model::record::Verdict;
use crate::observe::measures::Measures;
use crate::observe::status::{BackupStatus, TargetStatus};
use crate::observe::view::TargetView;

pub(super) const METRICS: &[Metric<TargetView>] = &[
    Metric::gauge(
        "target_info",
        "The configured targets, with what the configuration says of them; always 1.",
        info,
    )
    .by(&["environment", "owner"]),
    Metric::gauge(
        "rpo_objective_seconds",
        "How much may be lost. Absent: nobody set it.",
        |target| one(target.rpo_seconds),
    ),
    Metric::gauge(
        "rto_objective_seconds",
        "How long a recovery may take. Absent: nobody set it.",
        |target| one(target.rto_seconds),
    ),
    Metric::gauge(
        "recovery_point_timestamp_seconds",
        "The newest recovery point of a backup not found bad, by the source's clock.",
        |target| timestamp(status(target).and_then(|status| Some(status.recovery_point?.at))),
    ),
    Metric::gauge(
        "proven_recovery_point_timestamp_seconds",
        "The newest recovery point that a restore test has proven, by the source's clock.",
        |target| timestamp(status(target).and_then(|status| Some(status.proven_recovery_point?.at))),
    ),
    Metric::gauge(
        "rpo_actual_seconds",
        "What could have been lost in the worst moment of the last cycle between two backups.",
        |target| one(status(target).and_then(|status| status.last_cycle_rpa_seconds)),
    ),
    Metric::gauge(
        "rto_actual_seconds",
        "The recovery time of the last restore test that passed, with declared times.",
        |target| one(status(target).and_then(|status| status.rto.actual_seconds)),
    ),
    Metric::gauge(
        "stored_backups",
        "Backups in the repository. Absent: not known yet.",
        |target| count(status(target).map(|status| status.counts.backups)),
    ),
    Metric::gauge(
        "bad_backups",
        "Backups in the repository that a restore test or scrub has found bad.",
        |target| count(status(target).map(|status| status.counts.backups_found_bad)),
    ),
    Metric::gauge(
        "newest_backup_bad",
        "Whether the newest backup was found bad by a restore test or scrub.",
        |target| flag(newest(target).map(|newest| newest.verdict == Some(Verdict::Failed))),
    ),
    Metric::gauge(
        "last_backup_success_timestamp_seconds",
        "When the newest backup was complete, by the source's clock.",
        |target| timestamp(newest(target).map(|newest| newest.finished_at)),
    ),
    Metric::gauge(
        "last_backup_size_bytes",
        "What the newest backup takes in the repository.",
        |target| count(newest(target).map(|newest| newest.stored_bytes)),
    ),
    Metric::gauge(
        "last_backup_duration_seconds",
        "How long the newest backup took.",
        |target| one(newest(target).map(|newest| newest.duration_seconds)),
    ),
    Metric::gauge(
        "repository_bytes",
        "What the target's backups take in the repository.",
        |target| count(measures(target).map(|measures| measures.stored_bytes)),
    ),
    Metric::gauge(
        "not_covered_objects",
        "What the newest backup does not hold, or its last restore test left out.",
        |target| count(status(target).and_then(not_covered)),
    ),
    Metric::gauge(
        "uncovered_databases",
        "Databases of the target's server that no target covers.",
        |target| count(measures(target).and_then(|measures| measures.uncovered_databases)),
    ),
    Metric::gauge(
        "open_content_losses",
        "Backups with a sharp loss of content that nobody has acknowledged.",
        |target| count(measures(target).map(|measures| measures.open_losses)),
    ),
    Metric::gauge(
        "open_findings",
        "Findings of the last backup and the last restore test, and losses of content not acknowledged.",
        open_findings,
    )
    .by(&["severity"]),
    Metric::gauge(
        "problems",
        "How many things are wrong with the target, as `ernstfall status` lists them.",
        |target| count(status(target).map(|status| status.problems.len() as u64)),
    ),
    Metric::gauge(
        "clock_skew_seconds",
        "The source's clock minus this machine's, as last measured.",
        |target| one(status(target).and_then(|status| status.clock_skew_seconds)),
    ),
];

fn status(target: &TargetView) -> Option<&TargetStatus> {
    target.status.as_ref()
}

fn measures(target: &TargetView) -> Option<&Measures> {
    target.measures.as_ref()
}

fn newest(target: &TargetView) -> Option<&BackupStatus> {
    status(target)?.newest_backup.as_ref()
}

fn info(target: &TargetView) -> Values<'_> {
    let environment = target.environment.as_deref().unwrap_or_default();
    let owner = target.owner.as_deref().unwrap_or_default();
    vec![(vec![environment, owner], 1.0)]
}

/// The manifest tells how many, and the records, where they are known, also what a restore test left out.
fn not_covered(status: &TargetStatus) -> Option<u64> {
    let named = status.not_covered_objects.as_ref();
    named.map(|objects| objects.len() as u64).max(status.not_covered)
}

fn open_findings(target: &TargetView) -> Values<'_> {
    let Some(measures) = measures(target) else {
        return Values::new();
    };
    let open = &measures.open_findings;
    vec![
        (vec!["info"], open.info as f64),
        (vec!["warning"], open.warning as f64),
        (vec!["critical"], open.critical as f64),
    ]
}
