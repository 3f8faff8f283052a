//! Rules about data in danger: objectives, recovery points, content.

use super::AlertSeverity::{Critical, Info, Warning};
use super::Rule;
use super::expressions::{TARGET, age_there, last_known, last_seen, owned};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "ErnstfallRpoMissed",
        severity: Critical,
        held_for: "1m",
        expression: || {
            let exposure = age_there(&last_seen("ernstfall_recovery_point_timestamp_seconds"));
            let objective = last_known("ernstfall_rpo_objective_seconds");
            owned(&format!("{exposure}\n> {TARGET} {objective}"))
        },
        condition: |facts| facts.exposed(),
        summary: "{{ $labels.target }}: more would be lost than the RPO allows",
        description: "If the source died now, everything written in the last {{ $value | humanizeDuration }} would be lost, and the RPO allows less.",
    },
    Rule {
        name: "ErnstfallNoRecoveryPoint",
        severity: Critical,
        held_for: "1m",
        // Before a daemon has seen the repository, only that all were bad counts on: a recovery point of some days ago
        // would be taken for one that is there.
        expression: || {
            let [stored, bad] = ["ernstfall_stored_backups", "ernstfall_bad_backups"].map(last_seen);
            owned(&format!(
                "(\n  {stored} > 0\n  and {TARGET} {stored} == {TARGET} {bad}\n)\nor {TARGET} (\n  ernstfall_stored_backups > 0\n  unless {TARGET} ernstfall_recovery_point_timestamp_seconds\n)"
            ))
        },
        condition: |facts| facts.without_recovery_point(),
        summary: "{{ $labels.target }}: there are backups, and none is good",
        description: "All {{ $value }} backups were found bad, or are dated in the future. If the source died now, nothing could be recovered with certainty.",
    },
    Rule {
        name: "ErnstfallBackupNeverRan",
        severity: Critical,
        held_for: "1h",
        expression: || {
            let stored = last_seen("ernstfall_stored_backups");
            owned(&format!(
                "{stored} == 0\nunless {TARGET} ernstfall_running{{task=\"backup\"}} > 0"
            ))
        },
        condition: |facts| facts.never_backed_up(),
        summary: "{{ $labels.target }}: there is no backup",
        description: "The target is configured, and has no backup in the repository. If the source died now, all of it would be lost.",
    },
    Rule {
        name: "ErnstfallNewestBackupBad",
        severity: Critical,
        held_for: "0s",
        expression: || owned(&format!("{} == 1", last_seen("ernstfall_newest_backup_bad"))),
        condition: |facts| facts.set("ernstfall_newest_backup_bad", &[]),
        summary: "{{ $labels.target }}: the newest backup is bad",
        description: "A restore test or scrub found that the newest backup cannot be relied on. The recovery point has fallen back to the newest backup not found bad.",
    },
    Rule {
        name: "ErnstfallContentShrank",
        severity: Critical,
        held_for: "0s",
        expression: || owned(&format!("{} > 0", last_seen("ernstfall_open_content_losses"))),
        condition: |facts| facts.positive("ernstfall_open_content_losses"),
        summary: "{{ $labels.target }}: much of its content is gone",
        description: "A table is gone, or more than half of its rows, since the backup before. If nobody meant that, the data is in the backup before, which is kept.",
    },
    Rule {
        name: "ErnstfallRpoMissedInLastCycle",
        severity: Warning,
        held_for: "0s",
        expression: || {
            let actual = last_seen("ernstfall_rpo_actual_seconds");
            let objective = last_known("ernstfall_rpo_objective_seconds");
            owned(&format!("{actual}\n> {TARGET} {objective}"))
        },
        condition: |facts| facts.above("ernstfall_rpo_actual_seconds", "ernstfall_rpo_objective_seconds"),
        summary: "{{ $labels.target }}: the RPO was missed between the last two backups",
        description: "In the worst moment before the last backup was complete, the last {{ $value | humanizeDuration }} could have been lost. That is over now, and will come again with the same schedule.",
    },
    Rule {
        name: "ErnstfallRtoMissed",
        severity: Warning,
        held_for: "0s",
        expression: || {
            let actual = last_seen("ernstfall_rto_actual_seconds");
            let objective = last_known("ernstfall_rto_objective_seconds");
            owned(&format!("{actual}\n> {TARGET} {objective}"))
        },
        condition: |facts| facts.above("ernstfall_rto_actual_seconds", "ernstfall_rto_objective_seconds"),
        summary: "{{ $labels.target }}: a recovery takes longer than the RTO",
        description: "The last restore test that passed measured {{ $value | humanizeDuration }}, declared human times included.",
    },
    Rule {
        name: "ErnstfallDatabasesNotCovered",
        severity: Warning,
        held_for: "15m",
        expression: || owned(&format!("{} > 0", last_seen("ernstfall_uncovered_databases"))),
        condition: |facts| facts.positive("ernstfall_uncovered_databases"),
        summary: "{{ $labels.target }}: its server has databases that nobody backs up",
        description: "{{ $value }} databases on the server of this target belong to no target.",
    },
    Rule {
        name: "ErnstfallCriticalFindings",
        severity: Critical,
        held_for: "0s",
        expression: || {
            let open = last_seen("ernstfall_open_findings{severity=\"critical\"}");
            owned(&format!("sum by (job, instance, target) ({open}) > 0"))
        },
        condition: |facts| facts.critical_findings(),
        summary: "{{ $labels.target }}: critical findings are open",
        description: "The last backup or restore test had {{ $value }} critical findings.",
    },
    Rule {
        name: "ErnstfallNotCovered",
        severity: Info,
        held_for: "1h",
        expression: || owned(&format!("{} > 0", last_seen("ernstfall_not_covered_objects"))),
        condition: |facts| facts.positive("ernstfall_not_covered_objects"),
        summary: "{{ $labels.target }}: its backups do not hold everything",
        description: "{{ $value }} objects are named as not covered: a recovery would be without them.",
    },
];
