//! `ernstfall list`.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::model::alert_record::{AlertDeliveryRecord, AlertTestRecord};
use crate::model::record::{Entry, Record, RestoreTestRecord};
use crate::model::target_name::TargetName;
use crate::ops;

use super::arguments::{Global, List, Listed};
use super::exit::{Exit, Failure};
use super::print;
use super::setup::Setup;

pub(super) async fn run(global: &Global, options: &List) -> Result<Exit, Failure> {
    let setup = Setup::load(global)?;
    let targets = setup.targets(&options.targets.targets)?;
    let repository = setup.repository().await;
    if options.what == Listed::Backups {
        let repository = repository?;
        let mut manifests = Vec::new();
        for target in targets {
            let listed = repository
                .manifests(&target.name)
                .await
                .map_err(Failure::operation)?;
            for unreadable in &listed.unreadable {
                print::talk(&format!(
                    "the manifest {} is of no use: {}",
                    unreadable.key, unreadable.reason
                ));
            }
            manifests.extend(listed.readable);
        }
        if global.json {
            print::json(&manifests).map_err(Failure::operation)?;
        } else {
            show_backups(&manifests);
        }
        return Ok(Exit::Done);
    }
    let journal = setup.journal()?;
    let history = match repository {
        Ok(repository) => journal.history_with(&repository).await,
        // Alerts are told, and tried, also while there is no repository: then above all.
        Err(failure) if options.what == Listed::Alerts => {
            let why = ops::chain(failure.error.as_ref());
            print::talk(&format!("only what this machine recorded is shown: {why}"));
            journal.history()
        }
        Err(failure) => return Err(failure),
    };
    let history = history.map_err(Failure::operation)?;
    let asked_for = |name: Option<&TargetName>| match name {
        Some(name) => targets.iter().any(|target| target.name == *name),
        // What is about no target alone belongs to all of them.
        None => options.targets.targets.is_empty(),
    };
    let wanted = |entry: &&Entry| asked_for(entry.record.target());
    let mut entries: Vec<&Entry> = history.iter().filter(wanted).collect();
    if options.what == Listed::Alerts {
        entries.retain(|entry| matches!(entry.record, Record::AlertDelivery(_) | Record::AlertTest(_)));
    }
    if options.what == Listed::RestoreTests {
        let tests: Vec<&RestoreTestRecord> = entries.iter().filter_map(|entry| restore_test(entry)).collect();
        if global.json {
            print::json(&tests).map_err(Failure::operation)?;
        } else {
            show_restore_tests(&tests);
        }
    } else if options.what == Listed::Alerts && !global.json {
        show_alerts(&entries);
    } else if global.json {
        print::json(&entries).map_err(Failure::operation)?;
    } else {
        show_records(&entries);
    }
    Ok(Exit::Done)
}

fn restore_test(entry: &Entry) -> Option<&RestoreTestRecord> {
    match &entry.record {
        Record::RestoreTest(record) => Some(record),
        _ => None,
    }
}

fn show_backups(manifests: &[crate::model::manifest::Manifest]) {
    let rows = manifests.iter().map(|manifest| {
        vec![
            manifest.target.to_string(),
            manifest.id.to_string(),
            moment(manifest.recovery_point.at),
            manifest.totals.tables.to_string(),
            manifest.totals.rows.to_string(),
            print::size(manifest.totals.stored_bytes),
            print::seconds(Some(manifest.duration_seconds)),
            manifest.totals.not_covered.to_string(),
        ]
    });
    print::table(
        &[
            "target",
            "backup",
            "recovery point",
            "tables",
            "rows",
            "stored",
            "took",
            "not covered",
        ],
        rows,
    );
}

fn show_restore_tests(tests: &[&RestoreTestRecord]) {
    let rows = tests.iter().map(|test| {
        vec![
            test.target.to_string(),
            test.id.clone(),
            test.backup
                .as_ref()
                .map_or("none".to_owned(), ToString::to_string),
            test.verdict.as_str().to_owned(),
            print::seconds(test.objectives.rpo.actual_seconds),
            print::seconds(test.objectives.rto.actual_seconds),
            test.reason.clone().unwrap_or_default(),
        ]
    });
    print::table(
        &["target", "test", "backup", "verdict", "rpa", "rta", "reason"],
        rows,
    );
}

/// One row for each delivery, also of those of tests.
fn show_alerts(entries: &[&Entry]) {
    let rows = entries.iter().flat_map(|entry| match &entry.record {
        Record::AlertDelivery(record) => vec![delivery_row(record)],
        Record::AlertTest(record) => test_rows(record),
        _ => Vec::new(),
    });
    print::table(
        &[
            "time",
            "alert",
            "target",
            "state",
            "channel",
            "result",
            "receipt or reason",
        ],
        rows,
    );
}

fn delivery_row(record: &AlertDeliveryRecord) -> Vec<String> {
    let state = match record.reminder {
        true => format!("{}, again", record.state.as_str()),
        false => record.state.as_str().to_owned(),
    };
    vec![
        moment(record.finished_at),
        record.alert.clone(),
        name_of(record.target.as_ref()),
        state,
        record.channel.clone(),
        record.result.as_str().replace('_', " "),
        record.reason.clone().unwrap_or_default(),
    ]
}

fn test_rows(record: &AlertTestRecord) -> Vec<Vec<String>> {
    let rows = record.deliveries.iter().map(|delivery| {
        let said = delivery.receipt.as_ref().or(delivery.reason.as_ref());
        vec![
            moment(record.finished_at),
            record.alert.clone(),
            name_of(record.target.as_ref()),
            "test".to_owned(),
            delivery.channel.clone(),
            if delivery.delivered { "delivered" } else { "failed" }.to_owned(),
            said.cloned().unwrap_or_default(),
        ]
    });
    rows.collect()
}

/// Nothing for what is about no target alone.
fn name_of(target: Option<&TargetName>) -> String {
    target.map_or_else(String::new, ToString::to_string)
}

fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn show_records(entries: &[&Entry]) {
    let rows = entries.iter().map(|entry| {
        let (kind, result, reason) = summary(&entry.record);
        vec![
            moment(entry.record.finished_at()),
            name_of(entry.record.target()),
            kind.to_owned(),
            result,
            reason.unwrap_or_default(),
        ]
    });
    print::table(&["finished", "target", "kind", "result", "reason"], rows);
}

fn summary(record: &Record) -> (&'static str, String, Option<String>) {
    let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    match record {
        Record::Backup(record) => ("backup", word(&record.outcome), record.reason.clone()),
        Record::RestoreTest(record) => (
            "restore test",
            record.verdict.as_str().to_owned(),
            record.reason.clone(),
        ),
        Record::Restore(record) => ("restore", word(&record.outcome), record.reason.clone()),
        Record::Interrupted(record) => ("interrupted", record.task.clone(), None),
        Record::Scrub(record) => ("scrub", record.verdict.as_str().to_owned(), record.reason.clone()),
        Record::Prune(record) => ("prune", word(&record.outcome), record.reason.clone()),
        Record::Acknowledgement(record) => (
            "acknowledgement",
            record.backup.to_string(),
            record.reason.clone(),
        ),
        Record::AlertDelivery(record) => (
            "alert",
            format!(
                "{} {}, {} by {}",
                record.alert,
                record.state.as_str(),
                record.result.as_str().replace('_', " "),
                record.channel
            ),
            record.reason.clone(),
        ),
        Record::AlertTest(record) => {
            let failed = record.deliveries.iter().filter(|one| !one.delivered);
            let reasons: Vec<String> = failed
                .map(|one| format!("{}: {}", one.channel, one.reason.as_deref().unwrap_or_default()))
                .collect();
            let result = if record.succeeded { "delivered" } else { "failed" };
            (
                "alert test",
                result.to_owned(),
                (!reasons.is_empty()).then(|| reasons.join("; ")),
            )
        }
    }
}
