//! What happened, by the records, by the metrics and by the schedule: all three must say the same.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::support::monitoring::get;

use super::slots::{self, Busy, Missed, Run, TASKS, Task};
use super::{TARGETS, Town};

pub(super) struct Accounts {
    /// By name and labels, as `/metrics` writes them.
    metrics: BTreeMap<String, f64>,
    records: Vec<Value>,
    /// Of each target, by its name.
    stored: BTreeMap<String, usize>,
    busy: Busy,
}

impl Accounts {
    pub(super) fn read(town: &Town, busy: Busy) -> Self {
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
            busy,
        }
    }

    /// What runs, or waits for its turn.
    pub(super) fn under_way(&self) -> Vec<String> {
        let is_under_way = |(name, value): &(&String, &f64)| {
            name.starts_with("ernstfall_waiting_since")
                || (name.starts_with("ernstfall_running{") && **value > 0.0)
        };
        let series = self.metrics.iter().filter(is_under_way);
        let mut found: Vec<String> = series
            .map(|(name, value)| format!("it should be quiet: {name} {value}"))
            .collect();
        // One that has another name now would never say that anything runs.
        let told = self
            .metrics
            .keys()
            .filter(|name| name.starts_with("ernstfall_running{"));
        if told.count() < TARGETS * TASKS.len() {
            found.push("ernstfall_running is not there for each target and task".to_owned());
        }
        found
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
            for task in &TASKS {
                found.extend(self.unaccounted(&target, task));
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

    fn skipped(&self, target: &str, task: &Task) -> Option<u64> {
        let name = task.name;
        let series = format!("ernstfall_skipped_runs_total{{target=\"{target}\",task=\"{name}\"}}");
        self.metrics.get(&series).map(|value| *value as u64)
    }

    /// Each slot has a run, or is counted as skipped.
    fn unaccounted(&self, target: &str, task: &Task) -> Option<String> {
        let Missed { least, most } = self.missed(target, task);
        let (name, skipped) = (task.name, self.skipped(target, task));
        let agrees = skipped.is_some_and(|skipped| (least..=most).contains(&skipped));
        (!agrees).then(|| {
            format!(
                "{target}, {name}: {least} to {most} slots had no run, and {skipped:?} are counted as skipped"
            )
        })
    }

    fn missed(&self, target: &str, task: &Task) -> Missed {
        slots::missed(task, &self.runs(target, task), &self.busy)
    }

    /// By their starts.
    fn runs(&self, target: &str, task: &Task) -> Vec<Run> {
        let mut runs: Vec<Run> = self.of(target, task.name).filter_map(run).collect();
        runs.sort_by_key(|run| run.started_at);
        runs
    }

    /// What never ran, what paused for too long, and what never had the result that it is for.
    pub(super) fn standstills(&self) -> Vec<String> {
        let mut found = Vec::new();
        for task in &TASKS {
            let mut with_result = 0;
            for target in (0..TARGETS).map(Town::name) {
                let runs = self.runs(&target, task);
                with_result += usize::from(self.first_success(&runs).is_some());
                let Some(from) = self.due_from(&target, task) else {
                    continue;
                };
                let told = slots::standstills(task, &runs, from, self.busy.until);
                found.extend(told.iter().map(|told| format!("{target}, {}: {told}", task.name)));
            }
            let needed = task.results_after(self.busy.length());
            if with_result < needed {
                found.push(format!(
                    "{}: it succeeded for {with_result} targets, and should for {needed}",
                    task.name
                ));
            }
        }
        found
    }

    fn first_success<'a>(&self, runs: &'a [Run]) -> Option<&'a Run> {
        runs.iter()
            .find(|run| run.succeeded && run.started_at <= self.busy.until)
    }

    /// Since when a target could have had a run. There is nothing to test before its first backup; `None`: there was none.
    fn due_from(&self, target: &str, task: &Task) -> Option<DateTime<Utc>> {
        let [backup, _] = &TASKS;
        if task.name == backup.name {
            return Some(self.busy.from);
        }
        let backups = self.runs(target, backup);
        self.first_success(&backups).map(|run| run.started_at)
    }

    /// Of all targets.
    fn longest_pause(&self, task: &Task) -> Duration {
        let targets = (0..TARGETS).map(Town::name);
        let pauses = targets.filter_map(|target| {
            let from = self.due_from(&target, task)?;
            let pauses = slots::pauses(&self.runs(&target, task), from, self.busy.until);
            pauses.into_iter().map(|(_, length)| length).max()
        });
        pauses.max().unwrap_or_default()
    }

    /// A table.
    pub(super) fn told(&self) -> String {
        let mut told = String::new();
        for task in &TASKS {
            let mut results: BTreeMap<String, usize> = BTreeMap::new();
            let (mut skipped, mut least, mut most) = (0, 0, 0);
            for target in (0..TARGETS).map(Town::name) {
                for record in self.of(&target, task.name) {
                    *results.entry(result(record).to_owned()).or_default() += 1;
                }
                let missed = self.missed(&target, task);
                (least, most) = (least + missed.least, most + missed.most);
                skipped += self.skipped(&target, task).unwrap_or(0);
            }
            let results: Vec<String> = results
                .iter()
                .map(|(result, count)| format!("{result} {count}"))
                .collect();
            told += &format!(
                "{}, every {} s: {}; slots without a run: {least} to {most} by the records, {skipped} by the metrics; \
                 longest pause {:.1} s, of {} s allowed\n",
                task.name,
                task.every.as_secs(),
                results.join(", "),
                self.longest_pause(task).as_secs_f64(),
                task.longest_pause().as_secs()
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
    // One that was killed has an end when that was found.
    let ended_at = [text(record, "finished_at"), text(record, "found_at")].concat();
    Some(Run {
        started_at: text(record, "started_at").parse().ok()?,
        ended_at: ended_at.parse().ok()?,
        by_hand: record["trigger"] == "command",
        succeeded: ["succeeded", "passed"].contains(&result(record)),
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
