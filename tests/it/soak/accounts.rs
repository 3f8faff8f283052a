//! What happened, by the records, by the metrics and by the schedule: all three must say the same.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::support::monitoring::get;

use super::{BACKUP_EVERY, RESTORE_TEST_EVERY, TARGETS, Town};

/// Between the daemon's decision to run and the start that is recorded, on a busy machine. A slot that falls into it may
/// count on either side.
const DOUBT: TimeDelta = TimeDelta::seconds(1);

const TASKS: [(&str, Duration); 2] = [("backup", BACKUP_EVERY), ("restore_test", RESTORE_TEST_EVERY)];

pub(super) struct Accounts {
    /// By name and labels, as `/metrics` writes them.
    metrics: BTreeMap<String, f64>,
    records: Vec<Value>,
    /// Of each target, by its name.
    stored: BTreeMap<String, usize>,
    /// When the schedules ended. What failed last is tried again after that, by no slot.
    until: DateTime<Utc>,
}

/// A run that counts for the schedule.
struct Run {
    started_at: DateTime<Utc>,
    by_hand: bool,
}

/// How many slots had no run: no fewer than, and no more than.
#[derive(Default)]
struct Missed {
    least: u64,
    most: u64,
}

impl Accounts {
    pub(super) fn read(town: &Town, until: DateTime<Utc>) -> Self {
        let metrics = metrics(town);
        let product = town.quiet().deadline(Duration::from_secs(300));
        let list = |what: &str| -> Vec<Value> {
            let listed = product.run(["list", what, "--json"]).expect_code(0).json();
            listed.as_array().unwrap().clone()
        };
        let records = list("records")
            .into_iter()
            .map(|mut entry| entry["record"].take());
        let mut stored = BTreeMap::new();
        for manifest in list("backups") {
            *stored.entry(text(&manifest, "target").to_owned()).or_default() += 1;
        }
        Self {
            metrics,
            records: records.collect(),
            stored,
            until,
        }
    }

    pub(super) fn anything_runs(&self) -> bool {
        let busy = |(name, value): (&String, &f64)| {
            name.starts_with("ernstfall_waiting_since")
                || (name.starts_with("ernstfall_running{") && *value > 0.0)
        };
        self.metrics.iter().any(busy)
    }

    pub(super) fn disagreements(&self) -> Vec<String> {
        let mut found = Vec::new();
        for target in (0..TARGETS).map(Town::name) {
            for result in ["succeeded", "failed", "cancelled", "interrupted"] {
                let series = format!("ernstfall_backups_total{{result=\"{result}\",target=\"{target}\"}}");
                found.extend(self.differs(&series, self.count(&target, "backup", result)));
            }
            for verdict in ["passed", "failed", "could-not-run", "interrupted"] {
                let series =
                    format!("ernstfall_restore_tests_total{{target=\"{target}\",verdict=\"{verdict}\"}}");
                found.extend(self.differs(&series, self.count(&target, "restore_test", verdict)));
            }
            let stored = self.stored.get(&target).copied().unwrap_or(0);
            found.extend(self.differs(
                &format!("ernstfall_stored_backups{{target=\"{target}\"}}"),
                stored,
            ));
            for (task, interval) in TASKS {
                found.extend(self.unaccounted(&target, task, interval));
            }
        }
        for result in ["delivered", "failed", "given_up"] {
            let series = format!("ernstfall_alert_deliveries_total{{channel=\"pager\",result=\"{result}\"}}");
            found.extend(self.differs(&series, self.told_to_the_pager(result)));
        }
        found.extend(self.differs("ernstfall_record_problems", 0));
        found.extend(self.records.iter().filter_map(wrong_in_itself));
        found
    }

    fn differs(&self, series: &str, expected: usize) -> Option<String> {
        let shown = self.metrics.get(series).copied();
        (shown != Some(expected as f64))
            .then(|| format!("{series} is {shown:?}, and {expected} by the records"))
    }

    fn of<'a>(&'a self, target: &'a str, task: &'a str) -> impl Iterator<Item = &'a Value> {
        self.records.iter().filter(move |record| {
            record["target"] == target && (record["kind"] == task || record["task"] == task)
        })
    }

    fn count(&self, target: &str, task: &str, result: &str) -> usize {
        self.of(target, task)
            .filter(|record| self::result(record) == result)
            .count()
    }

    fn told_to_the_pager(&self, result: &str) -> usize {
        let deliveries = self
            .records
            .iter()
            .filter(|record| record["kind"] == "alert_delivery");
        deliveries.filter(|record| record["result"] == result).count()
    }

    fn skipped(&self, target: &str, task: &str) -> u64 {
        let series = format!("ernstfall_skipped_runs_total{{target=\"{target}\",task=\"{task}\"}}");
        self.metrics.get(&series).map_or(0, |value| *value as u64)
    }

    /// Each slot has a run, or is counted as skipped.
    fn unaccounted(&self, target: &str, task: &str, interval: Duration) -> Option<String> {
        let missed = self.missed(target, task, interval);
        let skipped = self.skipped(target, task);
        let Missed { least, most } = missed;
        (skipped < least || skipped > most).then(|| {
            format!(
                "{target}, {task}: {least} to {most} slots had no run, and {skipped} are counted as skipped"
            )
        })
    }

    fn missed(&self, target: &str, task: &str, interval: Duration) -> Missed {
        let mut runs: Vec<Run> = self.of(target, task).filter_map(run).collect();
        runs.retain(|run| run.started_at <= self.until);
        runs.sort_by_key(|run| run.started_at);
        let mut missed = Missed::default();
        for pair in runs.windows(2) {
            let gap = pair[1].started_at - pair[0].started_at;
            // The slot that the later run serves is not missed.
            let slots = |gap: TimeDelta| {
                (gap.num_milliseconds().max(0) as u64 / interval.as_millis() as u64).saturating_sub(1)
            };
            missed.most += slots(gap + DOUBT);
            // Slots before a run by hand may have been forgotten with it: it took their place.
            if !pair[1].by_hand {
                missed.least += slots(gap - DOUBT);
            }
        }
        missed
    }

    /// A table.
    pub(super) fn told(&self) -> String {
        let mut told = String::new();
        for (task, interval) in TASKS {
            let mut results: BTreeMap<String, usize> = BTreeMap::new();
            let (mut skipped, mut least, mut most) = (0, 0, 0);
            for target in (0..TARGETS).map(Town::name) {
                for record in self.of(&target, task) {
                    *results.entry(result(record).to_owned()).or_default() += 1;
                }
                let missed = self.missed(&target, task, interval);
                (least, most) = (least + missed.least, most + missed.most);
                skipped += self.skipped(&target, task);
            }
            let results: Vec<String> = results
                .iter()
                .map(|(result, count)| format!("{result} {count}"))
                .collect();
            told += &format!(
                "{task}, every {} s: {}; slots without a run: {least} to {most} by the records, {skipped} by the metrics\n",
                interval.as_secs(),
                results.join(", ")
            );
        }
        for result in ["delivered", "failed", "given_up"] {
            told += &format!("alerts {result}: {}\n", self.told_to_the_pager(result));
        }
        told + &format!("stored backups: {}", self.stored.values().sum::<usize>())
    }
}

fn metrics(town: &Town) -> BTreeMap<String, f64> {
    let answer = get(town.pages, "/metrics").expect("the daemon answers");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let series = answer.body.lines().filter(|line| !line.starts_with('#'));
    series
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// In the words of the metrics.
fn result(record: &Value) -> &str {
    match text(record, "kind") {
        "backup" => text(record, "outcome"),
        "restore_test" => text(record, "verdict"),
        other => other,
    }
}

fn run(record: &Value) -> Option<Run> {
    // What somebody ended does not count for the schedule.
    if record["outcome"] == "cancelled" || record["cancelled"] == true {
        return None;
    }
    Some(Run {
        started_at: text(record, "started_at").parse().ok()?,
        by_hand: record["trigger"] == "command",
    })
}

/// A record that must not be: of a sound backup that was found bad, or of a run that failed and does not say why.
fn wrong_in_itself(record: &Value) -> Option<String> {
    let failed = ["failed", "could-not-run"].contains(&result(record));
    if record["kind"] == "restore_test" && record["verdict"] == "failed" {
        return Some(format!("a sound backup was found bad: {record}"));
    }
    (failed && text(record, "reason").is_empty()).then(|| format!("it failed without a reason: {record}"))
}
