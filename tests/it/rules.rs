//! The alerting rules, judged by Prometheus' own tool: each fires when it should, and not otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use chrono::{DateTime, TimeDelta};
use ernstfall::alert::evaluation::{Evaluation, Manner};
use ernstfall::alert::message::Message;
use ernstfall::observe::metrics::{self, Readings, Sample};
use ernstfall::observe::rules;

use crate::support::directory::TestDir;
use crate::support::ernstfall::Ernstfall;
use crate::support::process::run_or_panic;
use crate::support::skip::require;

/// What one rule is tried on. A series is a metric without prefix, and its values as promtool writes them, one a minute.
struct Case {
    alert: &'static str,
    /// When it is looked at, from the beginning of the series.
    at: &'static str,
    fires: &'static [(&'static str, &'static str)],
    is_quiet: &'static [(&'static str, &'static str)],
}

/// The same value for ten hours.
macro_rules! always {
    ($value:literal) => {
        concat!($value, "+0x600")
    };
}

/// A value for an hour, and none after it.
macro_rules! for_an_hour {
    ($value:literal) => {
        concat!($value, "+0x60 stale")
    };
}

/// The daemon was started again after an hour, and has not seen the repository since.
const RESTARTED: (&str, &str) = ("repository_seen_timestamp_seconds", for_an_hour!("1"));

const CASES: &[Case] = &[
    Case {
        alert: "ErnstfallRpoMissed",
        at: "2h",
        fires: &[
            ("recovery_point_timestamp_seconds", always!("0")),
            ("rpo_objective_seconds", always!("7000")),
        ],
        is_quiet: &[
            ("recovery_point_timestamp_seconds", always!("300")),
            ("rpo_objective_seconds", always!("7000")),
        ],
    },
    // By the source's clock, which is behind, more time has passed than by ours.
    Case {
        alert: "ErnstfallRpoMissed",
        at: "2h",
        fires: &[
            ("recovery_point_timestamp_seconds", always!("300")),
            ("rpo_objective_seconds", always!("7000")),
            ("clock_skew_seconds", always!("200")),
        ],
        is_quiet: &[
            ("recovery_point_timestamp_seconds", always!("0")),
            ("rpo_objective_seconds", always!("7000")),
            ("clock_skew_seconds", always!("-300")),
        ],
    },
    // The daemon has been gone for an hour; in the other case it lives, and the objective was taken back.
    Case {
        alert: "ErnstfallRpoMissed",
        at: "2h",
        fires: &[
            ("build_info", for_an_hour!("1")),
            ("repository_seen_timestamp_seconds", for_an_hour!("1")),
            ("target_info", for_an_hour!("1")),
            ("recovery_point_timestamp_seconds", for_an_hour!("0")),
            ("rpo_objective_seconds", for_an_hour!("7000")),
        ],
        is_quiet: &[
            ("recovery_point_timestamp_seconds", always!("0")),
            ("rpo_objective_seconds", for_an_hour!("7000")),
        ],
    },
    // What it showed before the restart counts, by the clock of the source; in the other case it sees the repository, and
    // there is no recovery point any more.
    Case {
        alert: "ErnstfallRpoMissed",
        at: "2h",
        fires: &[
            RESTARTED,
            ("recovery_point_timestamp_seconds", for_an_hour!("300")),
            ("clock_skew_seconds", for_an_hour!("200")),
            ("rpo_objective_seconds", always!("7000")),
        ],
        is_quiet: &[
            ("recovery_point_timestamp_seconds", for_an_hour!("0")),
            ("rpo_objective_seconds", always!("7000")),
        ],
    },
    Case {
        alert: "ErnstfallNoRecoveryPoint",
        at: "10m",
        fires: &[("stored_backups", always!("3"))],
        is_quiet: &[
            ("stored_backups", always!("3")),
            ("recovery_point_timestamp_seconds", always!("0")),
        ],
    },
    // Before the restart all were found bad, one after the other; in the other case two of three.
    Case {
        alert: "ErnstfallNoRecoveryPoint",
        at: "2h",
        fires: &[
            RESTARTED,
            ("stored_backups", for_an_hour!("3")),
            ("bad_backups", "2+0x30 3+0x29 stale"),
            ("recovery_point_timestamp_seconds", "0+0x30 stale"),
        ],
        is_quiet: &[
            RESTARTED,
            ("stored_backups", for_an_hour!("3")),
            ("bad_backups", for_an_hour!("2")),
            ("recovery_point_timestamp_seconds", for_an_hour!("0")),
        ],
    },
    Case {
        alert: "ErnstfallBackupNeverRan",
        at: "2h",
        fires: &[
            ("stored_backups", always!("0")),
            ("running{task=\"backup\"}", always!("0")),
        ],
        is_quiet: &[
            ("stored_backups", always!("0")),
            ("running{task=\"backup\"}", always!("1")),
        ],
    },
    Case {
        alert: "ErnstfallNewestBackupBad",
        at: "10m",
        fires: &[("newest_backup_bad", always!("1"))],
        is_quiet: &[("newest_backup_bad", always!("0"))],
    },
    Case {
        alert: "ErnstfallNewestBackupBad",
        at: "2h",
        fires: &[RESTARTED, ("newest_backup_bad", for_an_hour!("1"))],
        is_quiet: &[("newest_backup_bad", for_an_hour!("1"))],
    },
    Case {
        alert: "ErnstfallContentShrank",
        at: "10m",
        fires: &[("open_content_losses", always!("1"))],
        is_quiet: &[("open_content_losses", always!("0"))],
    },
    Case {
        alert: "ErnstfallRpoMissedInLastCycle",
        at: "10m",
        fires: &[
            ("rpo_actual_seconds", always!("3601")),
            ("rpo_objective_seconds", always!("3600")),
        ],
        is_quiet: &[
            ("rpo_actual_seconds", always!("3600")),
            ("rpo_objective_seconds", always!("3600")),
        ],
    },
    Case {
        alert: "ErnstfallRtoMissed",
        at: "10m",
        fires: &[
            ("rto_actual_seconds", always!("901")),
            ("rto_objective_seconds", always!("900")),
        ],
        is_quiet: &[("rto_actual_seconds", always!("901"))],
    },
    Case {
        alert: "ErnstfallDatabasesNotCovered",
        at: "1h",
        fires: &[("uncovered_databases", always!("2"))],
        is_quiet: &[("uncovered_databases", always!("0"))],
    },
    Case {
        alert: "ErnstfallCriticalFindings",
        at: "10m",
        fires: &[("open_findings{severity=\"critical\"}", always!("1"))],
        is_quiet: &[
            ("open_findings{severity=\"critical\"}", always!("0")),
            ("open_findings{severity=\"warning\"}", always!("5")),
        ],
    },
    Case {
        alert: "ErnstfallCriticalFindings",
        at: "2h",
        fires: &[
            RESTARTED,
            ("open_findings{severity=\"critical\"}", for_an_hour!("1")),
        ],
        is_quiet: &[("open_findings{severity=\"critical\"}", for_an_hour!("1"))],
    },
    Case {
        alert: "ErnstfallNotCovered",
        at: "2h",
        fires: &[("not_covered_objects", always!("1"))],
        is_quiet: &[("not_covered_objects", always!("0"))],
    },
    Case {
        alert: "ErnstfallRestoreTestFailed",
        at: "10m",
        fires: &[
            (
                "last_restore_test_timestamp_seconds{verdict=\"passed\"}",
                always!("5"),
            ),
            (
                "last_restore_test_timestamp_seconds{verdict=\"failed\"}",
                always!("9"),
            ),
        ],
        is_quiet: &[
            (
                "last_restore_test_timestamp_seconds{verdict=\"failed\"}",
                always!("9"),
            ),
            (
                "last_restore_test_timestamp_seconds{verdict=\"passed\"}",
                always!("12"),
            ),
        ],
    },
    // That a later one could not run changes nothing, neither of a bad backup nor of a good one.
    Case {
        alert: "ErnstfallRestoreTestFailed",
        at: "10m",
        fires: &[
            (
                "last_restore_test_timestamp_seconds{verdict=\"failed\"}",
                always!("9"),
            ),
            (
                "last_restore_test_timestamp_seconds{verdict=\"could-not-run\"}",
                always!("15"),
            ),
            ("last_restore_test_verdict{verdict=\"failed\"}", always!("0")),
            (
                "last_restore_test_verdict{verdict=\"could-not-run\"}",
                always!("1"),
            ),
        ],
        is_quiet: &[
            (
                "last_restore_test_timestamp_seconds{verdict=\"passed\"}",
                always!("9"),
            ),
            (
                "last_restore_test_timestamp_seconds{verdict=\"could-not-run\"}",
                always!("15"),
            ),
        ],
    },
    Case {
        alert: "ErnstfallRestoreTestFailed",
        at: "2h",
        fires: &[
            RESTARTED,
            (
                "last_restore_test_timestamp_seconds{verdict=\"failed\"}",
                for_an_hour!("9"),
            ),
        ],
        is_quiet: &[
            RESTARTED,
            (
                "last_restore_test_timestamp_seconds{verdict=\"failed\"}",
                for_an_hour!("9"),
            ),
            (
                "last_restore_test_timestamp_seconds{verdict=\"passed\"}",
                for_an_hour!("12"),
            ),
        ],
    },
    Case {
        alert: "ErnstfallBackupFailed",
        at: "10m",
        fires: &[("last_backup_result{result=\"failed\"}", always!("1"))],
        is_quiet: &[
            ("last_backup_result{result=\"failed\"}", always!("0")),
            ("last_backup_result{result=\"cancelled\"}", always!("1")),
        ],
    },
    Case {
        alert: "ErnstfallBackupFailed",
        at: "2h",
        fires: &[
            RESTARTED,
            ("last_backup_result{result=\"failed\"}", for_an_hour!("1")),
        ],
        is_quiet: &[("last_backup_result{result=\"failed\"}", for_an_hour!("1"))],
    },
    Case {
        alert: "ErnstfallRestoreTestCouldNotRun",
        at: "1h",
        fires: &[(
            "last_restore_test_verdict{verdict=\"could-not-run\"}",
            always!("1"),
        )],
        is_quiet: &[
            (
                "last_restore_test_verdict{verdict=\"could-not-run\"}",
                "1+0x10 0+0x600",
            ),
            ("last_restore_test_verdict{verdict=\"failed\"}", always!("1")),
        ],
    },
    Case {
        alert: "ErnstfallRestoreTestNeverRan",
        at: "2d",
        fires: &[
            ("stored_backups", "1+0x3000"),
            (
                "last_restore_test_timestamp_seconds{verdict=\"could-not-run\"}",
                "9+0x3000",
            ),
        ],
        is_quiet: &[
            ("stored_backups", "1+0x3000"),
            (
                "last_restore_test_timestamp_seconds{verdict=\"failed\"}",
                "9+0x3000",
            ),
        ],
    },
    Case {
        alert: "ErnstfallRunOverdue",
        at: "1h",
        fires: &[
            ("next_run_timestamp_seconds{task=\"backup\"}", always!("1200")),
            ("running{task=\"backup\"}", always!("0")),
            ("running{task=\"restore_test\"}", always!("1")),
        ],
        is_quiet: &[
            ("next_run_timestamp_seconds{task=\"backup\"}", always!("1200")),
            ("running{task=\"backup\"}", always!("1")),
        ],
    },
    Case {
        alert: "ErnstfallRunHung",
        at: "2h",
        fires: &[
            ("running_since_timestamp_seconds{task=\"backup\"}", always!("0")),
            ("run_deadline_seconds{task=\"backup\"}", always!("3600")),
        ],
        is_quiet: &[
            ("running_since_timestamp_seconds{task=\"backup\"}", always!("0")),
            ("run_deadline_seconds{task=\"backup\"}", always!("21600")),
        ],
    },
    Case {
        alert: "ErnstfallRunInterrupted",
        at: "1h",
        fires: &[("last_run_interrupted{task=\"prune\"}", always!("1"))],
        is_quiet: &[("last_run_interrupted{task=\"prune\"}", always!("0"))],
    },
    Case {
        alert: "ErnstfallPruneFailed",
        at: "1h",
        fires: &[("last_prune_failed", always!("1"))],
        is_quiet: &[("last_prune_failed", always!("0"))],
    },
    Case {
        alert: "ErnstfallRunsSkipped",
        at: "2h",
        fires: &[("skipped_runs_total{task=\"backup\"}", "0+0x60 1+0x600")],
        is_quiet: &[("skipped_runs_total{task=\"backup\"}", always!("7"))],
    },
    Case {
        alert: "ErnstfallDaemonAbsent",
        at: "1h",
        fires: &[("build_info", "1+0x30 stale")],
        is_quiet: &[("build_info", always!("1"))],
    },
    // There was never one.
    Case {
        alert: "ErnstfallDaemonAbsent",
        at: "1h",
        fires: &[("build_info", "stale")],
        is_quiet: &[],
    },
    Case {
        alert: "ErnstfallTargetVanished",
        at: "1h",
        fires: &[("target_info", "1+0x30 stale")],
        is_quiet: &[("build_info", "1+0x30 stale"), ("target_info", "1+0x30 stale")],
    },
    Case {
        alert: "ErnstfallRepositoryUnreachable",
        at: "1h",
        fires: &[("repository_up", always!("0"))],
        is_quiet: &[("repository_up", "0+0x5 1+0x600")],
    },
    // It has not looked yet since its restart.
    Case {
        alert: "ErnstfallRepositoryUnreachable",
        at: "2h",
        fires: &[RESTARTED, ("repository_up", for_an_hour!("0"))],
        is_quiet: &[RESTARTED, ("repository_up", for_an_hour!("1"))],
    },
    Case {
        alert: "ErnstfallJournalFailed",
        at: "1h",
        fires: &[("journal_up", always!("0"))],
        is_quiet: &[("journal_up", "0+0x5 1+0x600")],
    },
    Case {
        alert: "ErnstfallAlertDeliveryFailed",
        at: "1h",
        fires: &[(
            "alert_deliveries_total{channel=\"pager\",result=\"failed\"}",
            "0+0x30 1+0x600",
        )],
        is_quiet: &[
            (
                "alert_deliveries_total{channel=\"pager\",result=\"failed\"}",
                always!("4"),
            ),
            (
                "alert_deliveries_total{channel=\"pager\",result=\"delivered\"}",
                "0+1x600",
            ),
        ],
    },
    Case {
        alert: "ErnstfallAlertTest",
        at: "10m",
        fires: &[(
            "alert_test{test=\"1\",alert=\"ErnstfallRpoMissed\",severity=\"critical\",target=\"shop\"}",
            always!("1"),
        )],
        is_quiet: &[(
            "alert_test{test=\"1\",alert=\"ErnstfallRpoMissed\",severity=\"critical\",target=\"shop\"}",
            "1+0x5 stale",
        )],
    },
    // Thirty days are over on the second day.
    Case {
        alert: "ErnstfallAlertTestOld",
        at: "2d",
        fires: &[
            ("last_alert_test_success_timestamp_seconds", "-2592000+0x3000"),
            ("journal_up", "1+0x3000"),
        ],
        is_quiet: &[
            ("last_alert_test_success_timestamp_seconds", "-2400000+0x3000"),
            ("journal_up", "1+0x3000"),
        ],
    },
    // There was never one; in the other case that is not known.
    Case {
        alert: "ErnstfallAlertTestOld",
        at: "2d",
        fires: &[("journal_up", "1+0x3000")],
        is_quiet: &[("journal_up", "0+0x3000")],
    },
    Case {
        alert: "ErnstfallHeartbeatStopped",
        at: "1h",
        fires: &[
            ("heartbeat_timestamp_seconds", always!("3000")),
            ("heartbeat_interval_seconds", always!("10")),
        ],
        is_quiet: &[
            ("heartbeat_timestamp_seconds", "0+60x600"),
            ("heartbeat_interval_seconds", always!("10")),
        ],
    },
    // None was ever written; in the other case none is wanted.
    Case {
        alert: "ErnstfallHeartbeatStopped",
        at: "1h",
        fires: &[("heartbeat_interval_seconds", always!("10"))],
        is_quiet: &[("heartbeat_timestamp_seconds", always!("0"))],
    },
    Case {
        alert: "ErnstfallClockSkew",
        at: "1h",
        fires: &[("clock_skew_seconds", always!("-61"))],
        is_quiet: &[("clock_skew_seconds", always!("59"))],
    },
    Case {
        alert: "ErnstfallConfigurationReloadFailed",
        at: "10m",
        fires: &[("configuration_reload_success", always!("0"))],
        is_quiet: &[("configuration_reload_success", always!("1"))],
    },
    Case {
        alert: "ErnstfallRecordsDamaged",
        at: "1h",
        fires: &[("record_problems", always!("1"))],
        is_quiet: &[("record_problems", always!("0"))],
    },
    Case {
        alert: "ErnstfallProblems",
        at: "2h",
        fires: &[("problems", always!("1"))],
        is_quiet: &[("problems", always!("0"))],
    },
];

/// Metrics of the daemon itself and not of a target.
const OF_THE_DAEMON: [&str; 9] = [
    "alert_test",
    "last_alert_test_success_timestamp_seconds",
    "alert_deliveries_total",
    "build_info",
    "journal_up",
    "repository_up",
    "repository_seen_timestamp_seconds",
    "configuration_reload_success",
    "record_problems",
];

fn promtool() -> Option<PathBuf> {
    crate::support::monitoring::find("promtool")
}

fn printed_rules(directory: &TestDir) -> String {
    // It needs no configuration.
    let ernstfall = Ernstfall::new(directory).configuration("this is no configuration");
    let url = "https://docs.example.org/runbook.md";
    ernstfall
        .run(["rules", "--runbook-url", url])
        .expect_code(0)
        .stdout
}

/// A series of the shop, or of the daemon, as Prometheus would have scraped it.
fn scraped(series: &str) -> String {
    let (name, labels) = series
        .trim_end_matches('}')
        .split_once('{')
        .unwrap_or((series, ""));
    let mut all = vec!["job=\"ernstfall\"", "instance=\"a:9810\""];
    if !OF_THE_DAEMON.contains(&name) {
        all.push("target=\"shop\"");
    }
    if name == "target_info" {
        all.extend(["environment=\"production\"", "owner=\"platform\""]);
    }
    all.extend(labels.split(',').filter(|label| !label.is_empty()));
    format!("ernstfall_{name}{{{}}}", all.join(","))
}

/// With what every living daemon shows that sees the repository.
fn all_series<'a>(series: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = vec![
        ("build_info", "1+0x3000"),
        ("repository_seen_timestamp_seconds", "1+0x3000"),
        ("target_info", "1+0x3000"),
    ];
    all.retain(|(name, _)| !series.iter().any(|(own, _)| own == name));
    all.extend(series);
    all
}

fn write_test(text: &mut String, case: &Case, series: &[(&str, &str)], firing: bool) {
    let all = all_series(series);
    writeln!(text, "  - interval: 1m\n    input_series:").unwrap();
    for (name, values) in all {
        writeln!(
            text,
            "      - series: '{}'\n        values: '{values}'",
            scraped(name)
        )
        .unwrap();
    }
    let found = if firing {
        "\n          - labels: '{}'\n            value: 1"
    } else {
        " []"
    };
    let (alert, at) = (case.alert, case.at);
    writeln!(
        text,
        "    promql_expr_test:
      - expr: count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}})
        eval_time: {at}
        exp_samples:{found}"
    )
    .unwrap();
}

fn run_promtool(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(promtool().unwrap());
    run_or_panic(command.args(arguments).current_dir(directory))
}

#[test]
fn rules_are_well_formed_and_each_fires_when_it_should_and_not_otherwise() {
    require!(promtool().is_some(), "promtool is not installed");
    let directory = TestDir::new("rules");
    directory.write("rules.yml", printed_rules(&directory));
    run_promtool(directory.path(), &["check", "rules", "rules.yml"]);
    // What takes days is looked at by the hour: each look judges every rule.
    let (days, hours): (Vec<&Case>, Vec<&Case>) = CASES.iter().partition(|case| case.at.ends_with('d'));
    for (cases, interval) in [(days, "1h"), (hours, "1m")] {
        let mut tests = format!("rule_files: [rules.yml]\nevaluation_interval: {interval}\ntests:\n");
        for case in cases {
            write_test(&mut tests, case, case.fires, true);
            write_test(&mut tests, case, case.is_quiet, false);
        }
        directory.write("tests.yml", tests);
        run_promtool(directory.path(), &["test", "rules", "tests.yml"]);
    }
    let tried: BTreeSet<&str> = CASES.iter().map(|case| case.alert).collect();
    let printed: BTreeSet<&str> = rules::all().map(|rule| rule.name).collect();
    assert_eq!(tried, printed);
}

/// The values of a series minute by minute, in promtool's notation: `1+0x60 stale`. `None` where there is none.
fn minutes(values: &str) -> Vec<Option<f64>> {
    let mut minutes = Vec::new();
    for part in values.split(' ') {
        let Some((first, rest)) = part.split_once('+') else {
            assert_eq!(part, "stale");
            minutes.push(None);
            continue;
        };
        let (step, times) = rest.split_once('x').unwrap();
        let [first, step]: [f64; 2] = [first, step].map(|number| number.parse().unwrap());
        let times: u32 = times.parse().unwrap();
        minutes.extend((0..=times).map(|time| Some(first + step * f64::from(time))));
    }
    minutes
}

/// What a daemon sees that shows these metrics, so many minutes after 1970 began.
fn readings(series: &[(&str, &str)], minute: usize) -> Readings {
    let samples = series.iter().filter_map(|(name, values)| {
        let value = minutes(values).get(minute).copied().flatten()?;
        let scraped = scraped(name);
        let (metric, labels) = scraped.trim_end_matches('}').split_once('{').unwrap();
        let labels = labels.split(',').map(|label| {
            let (name, value) = label.split_once('=').unwrap();
            (name.to_owned(), value.trim_matches('"').to_owned())
        });
        Some(Sample {
            metric: metric.to_owned(),
            labels: labels.collect(),
            value,
        })
    });
    Readings {
        at: DateTime::UNIX_EPOCH + TimeDelta::minutes(minute as i64),
        samples: samples.collect(),
        complete: true,
    }
}

/// What the daemon's own evaluation says when it has judged these metrics every minute.
fn firing(series: &[(&str, &str)], at: &str) -> Vec<Message> {
    let (count, unit) = at.split_at(at.len() - 1);
    let unit = match unit {
        "m" => 1,
        "h" => 60,
        "d" => 24 * 60,
        _ => panic!("{at}"),
    };
    let manner = Manner {
        repeat: TimeDelta::hours(4),
        runbook_url: "https://docs.example.org/runbook.md".to_owned(),
        labels: BTreeMap::new(),
    };
    let mut evaluation = Evaluation::default();
    for minute in 0..=count.parse::<usize>().unwrap() * unit {
        evaluation.evaluate(&readings(series, minute), &manner);
    }
    evaluation.firing().cloned().collect()
}

/// Of the daemon's own channels `alert-test` makes use without a detour over a condition.
fn is_for_prometheus_alone(case: &Case) -> bool {
    case.alert == rules::TEST_ALERT
}

/// Only Prometheus can see that the daemon is gone; and what was known before a restart, it goes on to judge, where the
/// daemon's own evaluation leaves it as it was.
fn lives(series: &[(&str, &str)]) -> bool {
    let signs = ["build_info", "repository_seen_timestamp_seconds"];
    !series
        .iter()
        .any(|(name, values)| signs.contains(name) && values.ends_with("stale"))
}

#[test]
fn the_daemon_s_own_evaluation_fires_when_the_rules_do_with_the_same_labels_and_words() {
    require!(promtool().is_some(), "promtool is not installed");
    let directory = TestDir::new("rules");
    directory.write("rules.yml", printed_rules(&directory));
    // What takes days is looked at by the hour: each look judges every rule.
    let head = |interval| format!("rule_files: [rules.yml]\nevaluation_interval: {interval}\ntests:\n");
    let (mut days, mut hours) = (head("1h"), head("1m"));
    for case in CASES {
        let tests = if case.at.ends_with('d') {
            &mut days
        } else {
            &mut hours
        };
        let of_case = |series: &[(&str, &str)]| {
            let mut firing = firing(&all_series(series), case.at);
            firing.retain(|message| message.alert() == case.alert);
            firing
        };
        if lives(case.is_quiet) {
            assert_eq!(of_case(case.is_quiet), [], "{} should be quiet", case.alert);
        }
        if !lives(case.fires) || is_for_prometheus_alone(case) {
            continue;
        }
        let [message] = &of_case(case.fires)[..] else {
            panic!("{} should fire", case.alert);
        };
        write_test(tests, case, case.fires, true);
        let labels: BTreeMap<&String, &String> = message
            .labels
            .iter()
            .filter(|(name, _)| *name != "alertname")
            .collect();
        let annotations = serde_json::json!({
            "summary": message.summary,
            "description": message.description,
            "runbook_url": message.runbook_url,
        });
        writeln!(
            tests,
            "    alert_rule_test:
      - eval_time: {}
        alertname: {}
        exp_alerts: [{{exp_labels: {}, exp_annotations: {annotations}}}]",
            case.at,
            case.alert,
            serde_json::to_string(&labels).unwrap(),
        )
        .unwrap();
    }
    for tests in [days, hours] {
        directory.write("tests.yml", tests);
        run_promtool(directory.path(), &["test", "rules", "tests.yml"]);
    }
}

#[test]
fn an_alert_says_whose_target_it_is_what_is_wrong_and_where_to_read_on() {
    require!(promtool().is_some(), "promtool is not installed");
    let directory = TestDir::new("rules");
    directory.write("rules.yml", printed_rules(&directory));
    directory.write(
        "tests.yml",
        format!(
            "rule_files: [rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: '{}'
        values: 1+0x600
      - series: '{}'
        values: 1+0x600
      - series: '{}'
        values: 901+0x600
      - series: '{}'
        values: 900+0x600
    alert_rule_test:
      - eval_time: 10m
        alertname: ErnstfallRtoMissed
        exp_alerts:
          - exp_labels:
              job: ernstfall
              instance: a:9810
              target: shop
              environment: production
              owner: platform
              severity: warning
            exp_annotations:
              summary: 'shop: a recovery takes longer than the RTO'
              description: 'The last restore test that passed measured 15m 1s, declared human times included.'
              runbook_url: https://docs.example.org/runbook.md#ernstfallrtomissed
",
            scraped("build_info"),
            scraped("target_info"),
            scraped("rto_actual_seconds"),
            scraped("rto_objective_seconds"),
        ),
    );
    run_promtool(directory.path(), &["test", "rules", "tests.yml"]);
}

#[test]
fn of_several_daemons_the_one_that_is_gone_is_told_for_a_week_and_no_other() {
    require!(promtool().is_some(), "promtool is not installed");
    // It was updated, and died at the end of the first day.
    let series = [
        ("a:9810", "1", "1+0x10 stale"),
        ("a:9810", "2", "_x11 1+0x12 stale"),
        ("b:9810", "2", "1+0x300"),
    ];
    let gone = Some("a:9810");
    let looks = [("20h", None), ("3d", gone), ("7d", gone), ("9d", None)];
    expect_daemon_absent(&series, &looks);
}

#[test]
fn that_there_is_no_daemon_at_all_is_told_in_words_that_need_no_instance() {
    require!(promtool().is_some(), "promtool is not installed");
    let nobody = Some("");
    expect_daemon_absent(&[], &[("2h", nobody), ("9d", nobody)]);
    // Of the only one the last week is over.
    let series = [("a:9810", "1", "1+0x10 stale")];
    expect_daemon_absent(&series, &[("3d", Some("a:9810")), ("9d", nobody)]);
}

/// Has Prometheus judge daemons, each with instance, version and its values by the hour. At each look one alert is
/// expected, of this instance, or none.
fn expect_daemon_absent(series: &[(&str, &str, &str)], looks: &[(&str, Option<&str>)]) {
    let directory = TestDir::new("rules");
    directory.write("rules.yml", printed_rules(&directory));
    let absent = |rule: &&rules::Rule| rule.name == "ErnstfallDaemonAbsent";
    let rule = rules::all().find(absent).unwrap();
    // Something else is scraped in any case.
    let mut text = String::from(
        "rule_files: [rules.yml]
evaluation_interval: 1h
tests:
  - interval: 1h
    input_series:
      - series: up
        values: 1+0x300
",
    );
    for (instance, version, values) in series {
        writeln!(
            text,
            "      - series: 'ernstfall_build_info{{job=\"ernstfall\",instance=\"{instance}\",version=\"{version}\"}}'
        values: {values}"
        )
        .unwrap();
    }
    text.push_str("    alert_rule_test:\n");
    for (at, instance) in looks {
        let alert = instance.map(|instance| {
            let labels = match instance {
                "" => serde_json::json!({"severity": "critical"}),
                _ => serde_json::json!({"job": "ernstfall", "instance": instance, "severity": "critical"}),
            };
            let annotations = serde_json::json!({
                "summary": format!("No answer from Ernstfall {instance}"),
                "description": rule.description,
                "runbook_url": format!("https://docs.example.org/runbook.md#{}", rule.anchor()),
            });
            serde_json::json!({"exp_labels": labels, "exp_annotations": annotations})
        });
        let alerts = serde_json::Value::from_iter(alert);
        writeln!(
            text,
            "      - eval_time: {at}
        alertname: {}
        exp_alerts: {alerts}",
            rule.name
        )
        .unwrap();
    }
    directory.write("tests.yml", text);
    run_promtool(directory.path(), &["test", "rules", "tests.yml"]);
}

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_alert_has_its_part_of_the_runbook_and_no_part_is_left_over() {
    let runbook = document("runbook.md");
    let headings = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## Ernstfall"));
    let parts: Vec<String> = headings.map(|rest| format!("Ernstfall{rest}")).collect();
    let names: Vec<&str> = rules::all().map(|rule| rule.name).collect();
    assert_eq!(parts, names);
    for (rule, part) in rules::all().zip(
        runbook
            .split("\n## ")
            .filter(|part| part.starts_with("Ernstfall")),
    ) {
        for what in [
            "**Means:**",
            "**Data in danger:**",
            "**Look:**",
            "**Mend:**",
            "**Escalate:**",
        ] {
            assert!(part.contains(what), "{}: {what}", rule.name);
        }
        assert!(
            part.contains(&format!("({})", rule.severity.as_str())),
            "{}",
            rule.name
        );
    }
}

#[test]
fn the_document_of_the_metrics_names_each_with_its_labels_and_no_other() {
    let text = document("metrics.md");
    let mut documented = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("| `ernstfall_")) {
        let name = line.split('`').next().unwrap();
        documented.insert(format!("ernstfall_{name}"));
    }
    let rendered: BTreeSet<String> = metrics::names()
        .into_iter()
        .map(|(name, labels)| match labels {
            [] => name,
            labels => format!("{name}{{{}}}", labels.join(",")),
        })
        .collect();
    assert_eq!(documented, rendered);
}
