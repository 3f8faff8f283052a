//! Rules about the daemon and what it needs; among them, that nobody is there to say anything.

use super::AlertSeverity::{Critical, Info, Warning};
use super::expressions::{REMEMBERED, TARGET, age_there, last_known, last_seen, owned};
use super::{Rule, TEST_ALERT};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "ErnstfallDaemonAbsent",
        severity: Critical,
        held_for: "5m",
        // One of several that has gone, once, whatever versions it ran; and that there is none at all, or none any more
        // that is remembered.
        expression: || {
            let last = format!("last_over_time(ernstfall_build_info[{REMEMBERED}])");
            format!(
                "(\n  max without (version) ({last})\n  unless on (job, instance) ernstfall_build_info\n)\nor absent({last})"
            )
        },
        // Nobody can tell of oneself that one is not there.
        condition: |_| Vec::new(),
        // Where there is none at all, no instance can be named: then the line is whole without it.
        summary: "No answer from Ernstfall {{ $labels.instance }}",
        description: "Prometheus gets no metrics: backups and restore tests may have stopped, and no other alert can be relied on.",
    },
    Rule {
        name: "ErnstfallTargetVanished",
        severity: Warning,
        held_for: "5m",
        expression: || {
            format!(
                "(\n  last_over_time(ernstfall_target_info[1d])\n  unless {TARGET} ernstfall_target_info\n)\nand on (job, instance) ernstfall_build_info"
            )
        },
        condition: |facts| facts.trail.vanished(facts.readings),
        summary: "{{ $labels.target }}: is no target any more",
        description: "The daemon runs, and knows this target no longer: it is neither backed up nor tested.",
    },
    Rule {
        name: "ErnstfallRepositoryUnreachable",
        severity: Critical,
        held_for: "10m",
        expression: || format!("{} == 0", last_seen("ernstfall_repository_up")),
        condition: |facts| facts.unset("ernstfall_repository_up"),
        summary: "Ernstfall cannot reach the repository",
        description: "No backup can be stored, and none can be restored from here. What is shown of backups is as of when they were last seen.",
    },
    Rule {
        name: "ErnstfallJournalFailed",
        severity: Critical,
        held_for: "5m",
        expression: || "ernstfall_journal_up == 0".to_owned(),
        condition: |facts| facts.unset("ernstfall_journal_up"),
        summary: "Ernstfall cannot record what it does",
        description: "Runs leave no record, or their records cannot be read: whether backups succeed is not known here.",
    },
    Rule {
        name: "ErnstfallAlertDeliveryFailed",
        severity: Critical,
        held_for: "0s",
        expression: || "increase(ernstfall_alert_deliveries_total{result=\"failed\"}[1h]) > 0".to_owned(),
        condition: |facts| {
            facts
                .trail
                .risen("ernstfall_alert_deliveries_total", Some(("result", "failed")))
        },
        summary: "Ernstfall's own alerts do not arrive by {{ $labels.channel }}",
        description: "An alert was not delivered within the last hour: somebody should have been told something, and was not.",
    },
    Rule {
        name: TEST_ALERT,
        severity: Info,
        held_for: "0s",
        expression: || "ernstfall_alert_test == 1".to_owned(),
        // The daemon's own channels are tried without a detour.
        condition: |_| Vec::new(),
        summary: "TEST: this alert was raised on purpose, to see whether alerts arrive",
        description: "Nothing is wrong. `ernstfall alert-test` has raised it in the place of {{ $labels.alert }}, and it ends by itself.",
    },
    Rule {
        name: "ErnstfallAlertTestOld",
        severity: Info,
        held_for: "1d",
        expression: || {
            let last = "ernstfall_last_alert_test_success_timestamp_seconds";
            format!(
                "time() - {last} > 30 * 86400\nor (\n  ernstfall_journal_up == 1\n  unless on (job, instance) {last}\n)"
            )
        },
        condition: |facts| facts.alert_test_old(),
        summary: "Nobody knows whether alerts of Ernstfall arrive",
        description: "No test alert has arrived within the last 30 days. An alert that does not arrive is noticed when it is needed.",
    },
    Rule {
        name: "ErnstfallHeartbeatStopped",
        severity: Warning,
        held_for: "5m",
        expression: || {
            let beat = last_known("ernstfall_heartbeat_timestamp_seconds");
            let age = age_there(&beat).replace('\n', "\n  ");
            let interval = last_known("ernstfall_heartbeat_interval_seconds");
            owned(&format!(
                "(\n  {age}\n  > {TARGET} 3 * {interval} + 60\n)\nor {TARGET}\n(ernstfall_heartbeat_interval_seconds unless {TARGET} ernstfall_heartbeat_timestamp_seconds)"
            ))
        },
        condition: |facts| facts.heartbeat_stopped(),
        summary: "{{ $labels.target }}: no heartbeat is written",
        description: "The heartbeat in the source has stopped: its recovery point is no longer measured, and the source may be down or read-only.",
    },
    Rule {
        name: "ErnstfallClockSkew",
        severity: Warning,
        held_for: "10m",
        expression: || {
            let skew = last_seen("ernstfall_clock_skew_seconds");
            owned(&format!("abs({skew}) > 60"))
        },
        condition: |facts| facts.clock_skew(),
        summary: "{{ $labels.target }}: the clocks of source and daemon differ",
        description: "They differ by {{ $value | humanizeDuration }}. Recovery points are told by the source's clock.",
    },
    Rule {
        name: "ErnstfallConfigurationReloadFailed",
        severity: Warning,
        held_for: "1m",
        expression: || "ernstfall_configuration_reload_success == 0".to_owned(),
        condition: |facts| facts.unset("ernstfall_configuration_reload_success"),
        summary: "Ernstfall runs with its old configuration",
        description: "The configuration was changed, and could not be put in force.",
    },
    Rule {
        name: "ErnstfallRecordsDamaged",
        severity: Warning,
        held_for: "15m",
        expression: || format!("{} > 0", last_seen("ernstfall_record_problems")),
        condition: |facts| facts.positive("ernstfall_record_problems"),
        summary: "Records of Ernstfall are missing or changed",
        description: "{{ $value }} records are missing, changed or unreadable: what they said of backups and restore tests is not known.",
    },
    Rule {
        name: "ErnstfallProblems",
        severity: Info,
        held_for: "1h",
        expression: || owned(&format!("{} > 0", last_seen("ernstfall_problems"))),
        condition: |facts| facts.positive("ernstfall_problems"),
        summary: "{{ $labels.target }}: something is wrong",
        description: "`ernstfall status` lists {{ $value }} problems. Most have an alert of their own; this is for those that have none.",
    },
];
