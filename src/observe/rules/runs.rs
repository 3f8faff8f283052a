//! Rules about runs that failed, could not run, or did not run at all.

use super::AlertSeverity::{Critical, Info, Warning};
use super::Rule;
use super::expressions::{TARGET, TASK, last_known, last_seen, owned};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "ErnstfallRestoreTestFailed",
        severity: Critical,
        held_for: "0s",
        // By the times, and not by the last verdict: a test that could not run says nothing, and so ends nothing.
        expression: || {
            let [failed, passed] = ["failed", "passed"].map(|verdict| {
                last_seen(&format!(
                    "ernstfall_last_restore_test_timestamp_seconds{{verdict=\"{verdict}\"}}"
                ))
            });
            owned(&format!("{failed}\nunless {TARGET} {passed} > {TARGET} {failed}"))
        },
        condition: |facts| facts.restore_test_failed(),
        summary: "{{ $labels.target }}: a restore test failed: the backup is bad",
        description: "The backup that was tested last could not be restored, or the copy is not what the source had sent.",
    },
    Rule {
        name: "ErnstfallBackupFailed",
        severity: Warning,
        held_for: "5m",
        expression: || {
            let failed = last_seen("ernstfall_last_backup_result{result=\"failed\"}");
            owned(&format!("{failed} == 1"))
        },
        condition: |facts| facts.set("ernstfall_last_backup_result", &[("result", "failed")]),
        summary: "{{ $labels.target }}: the last backup failed",
        description: "No backup has succeeded since. What is there is still good, and grows older.",
    },
    Rule {
        name: "ErnstfallRestoreTestCouldNotRun",
        severity: Warning,
        held_for: "15m",
        expression: || {
            let in_vain = last_seen("ernstfall_last_restore_test_verdict{verdict=\"could-not-run\"}");
            owned(&format!("{in_vain} == 1"))
        },
        condition: |facts| {
            facts.set(
                "ernstfall_last_restore_test_verdict",
                &[("verdict", "could-not-run")],
            )
        },
        summary: "{{ $labels.target }}: restore tests cannot run",
        description: "The surroundings are at fault, not the backup: nothing new is known of whether it can be restored.",
    },
    Rule {
        name: "ErnstfallRestoreTestNeverRan",
        severity: Warning,
        held_for: "1d",
        expression: || {
            let stored = last_seen("ernstfall_stored_backups");
            let tested =
                last_seen("ernstfall_last_restore_test_timestamp_seconds{verdict=~\"passed|failed\"}");
            owned(&format!("{stored} > 0\nunless {TARGET} {tested}"))
        },
        condition: |facts| facts.never_restored(),
        summary: "{{ $labels.target }}: no backup was ever restored",
        description: "There are {{ $value }} backups, and no restore test has said anything of any of them.",
    },
    Rule {
        name: "ErnstfallRunOverdue",
        severity: Warning,
        held_for: "20m",
        expression: || {
            let next = last_known("ernstfall_next_run_timestamp_seconds");
            owned(&format!(
                "time() - {next} > 0\nunless {TASK} ernstfall_running > 0"
            ))
        },
        condition: |facts| facts.overdue(),
        summary: "{{ $labels.target }}: {{ $labels.task }} is overdue",
        description: "It was due {{ $value | humanizeDuration }} ago, and does not run.",
    },
    Rule {
        name: "ErnstfallRunHung",
        severity: Warning,
        held_for: "10m",
        expression: || {
            owned(&format!(
                "time() - ernstfall_running_since_timestamp_seconds\n> {TASK} ernstfall_run_deadline_seconds"
            ))
        },
        condition: |facts| facts.hung(),
        summary: "{{ $labels.target }}: {{ $labels.task }} has run far too long",
        description: "It has been running for {{ $value | humanizeDuration }}, beyond its deadline, and has not ended although it was told to.",
    },
    Rule {
        name: "ErnstfallRunInterrupted",
        severity: Warning,
        held_for: "15m",
        expression: || owned(&format!("{} == 1", last_seen("ernstfall_last_run_interrupted"))),
        condition: |facts| facts.set("ernstfall_last_run_interrupted", &[]),
        summary: "{{ $labels.target }}: {{ $labels.task }} was interrupted",
        description: "Its last run was killed or had to be dropped, or the machine went down under it, and none has ended since.",
    },
    Rule {
        name: "ErnstfallPruneFailed",
        severity: Warning,
        held_for: "15m",
        expression: || owned(&format!("{} == 1", last_seen("ernstfall_last_prune_failed"))),
        condition: |facts| facts.set("ernstfall_last_prune_failed", &[]),
        summary: "{{ $labels.target }}: backups that should go are not removed",
        description: "The last run of prune failed. Nothing is in danger, and the repository grows.",
    },
    Rule {
        name: "ErnstfallRunsSkipped",
        severity: Info,
        held_for: "0s",
        expression: || owned("increase(ernstfall_skipped_runs_total[6h]) > 0"),
        condition: |facts| facts.trail.risen("ernstfall_skipped_runs_total", None),
        summary: "{{ $labels.target }}: {{ $labels.task }} runs less often than it should",
        description: "Within six hours slots of the schedule passed without a run of their own, since the run before still ran or waited.",
    },
];
