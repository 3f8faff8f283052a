//! Views of which the metrics are tried.

use std::sync::Arc;
use std::time::Duration;

use crate::journal::run::tests::backup_record;
use crate::journal::{History, RunId, RunStart, Task};
use crate::model::alert_record::AlertTestRecord;
use crate::model::manifest::{Manifest, Shrank};
use crate::model::record::{BackupRecord, FORMAT, InterruptedRecord, Outcome, Phase, Record, Verdict};
use crate::model::samples::{entries, id, manifest, restore_test, target, time};
use crate::model::upkeep::PruneRecord;
use crate::model::verification::{Finding, Severity};
use crate::observe::gathered::{AlertsState, ChannelState, Gathered, HeartbeatState, RaisedTest, TaskState};
use crate::observe::measures::Counted;
use crate::observe::status::TargetFacts;
use crate::repository::Manifests;

use Verdict::{CouldNotRun, Failed, Passed};

pub(super) const HOUR: i64 = 3600;

pub(super) fn facts() -> TargetFacts {
    TargetFacts {
        name: target(),
        environment: Some("production".to_owned()),
        owner: Some("platform".to_owned()),
        rpo_seconds: Some(7200.0),
        rto_seconds: Some(60.0),
    }
}

pub(super) fn manifests(readable: Vec<Manifest>) -> Arc<Manifests> {
    Arc::new(Manifests {
        readable,
        unreadable: Vec::new(),
    })
}

pub(super) fn history(records: Vec<Record>) -> Arc<History> {
    Arc::new(History {
        entries: entries(records).into_iter().map(Arc::new).collect(),
        problems: Vec::new(),
    })
}

pub(super) fn gathered(readable: Vec<Manifest>, records: Vec<Record>) -> Gathered {
    let mut counted = Counted::default();
    records.iter().for_each(|record| counted.note(record));
    Gathered {
        counted: Arc::new([(target(), counted)].into()),
        started_at: time(0),
        targets: vec![facts()],
        manifests: [(target(), manifests(readable))].into(),
        repository_seen_at: Some(time(3 * HOUR - 5)),
        history: history(records),
        ..Gathered::default()
    }
}

/// A backup that succeeded, and everything that its record can say.
pub(super) fn backup(number: i64) -> BackupRecord {
    let Record::Backup(record) = backup_record(number * HOUR) else {
        panic!("no record of a backup");
    };
    BackupRecord {
        backup: Some(id(number)),
        clock_skew_seconds: Some(0.25),
        uncovered_databases: Some(2),
        findings: vec![
            finding(Severity::Warning, "databases"),
            finding(Severity::Critical, "collation"),
        ],
        ..record
    }
}

pub(super) fn finding(severity: Severity, subject: &str) -> Finding {
    Finding {
        severity,
        subject: subject.to_owned(),
        message: "…".to_owned(),
    }
}

pub(super) fn test_with_phases(backup: i64, at: i64) -> Record {
    let Record::RestoreTest(mut record) = restore_test(backup, Passed, at) else {
        panic!("no record of a restore test");
    };
    record.phases = [("locate", 0.5), ("data", 30.25), ("of a later version", 9.0)]
        .map(|(name, seconds)| Phase {
            name: name.to_owned(),
            seconds,
        })
        .to_vec();
    record.verification.tables = 3;
    record.verification.rows = 820_000;
    Record::RestoreTest(record)
}

pub(super) fn cancelled(record: Record) -> Record {
    let Record::RestoreTest(mut test) = record else {
        panic!("no record of a restore test");
    };
    test.cancelled = true;
    Record::RestoreTest(test)
}

pub(super) fn interrupted(task: Task, at: i64) -> Record {
    Record::Interrupted(InterruptedRecord {
        format: FORMAT,
        id: format!("lost-{at}"),
        target: target(),
        task: task.as_str().to_owned(),
        backup: None,
        started_at: time(at),
        found_at: time(at + 10),
        removed: Vec::new(),
    })
}

pub(super) fn prune(outcome: Outcome) -> Record {
    Record::Prune(PruneRecord {
        format: FORMAT,
        id: "prune".to_owned(),
        target: target(),
        trigger: crate::model::record::Trigger::Schedule,
        outcome,
        reason: None,
        started_at: time(1),
        finished_at: time(2),
        removed: Vec::new(),
        objects: 0,
        freed_bytes: 0,
        kept: Vec::new(),
    })
}

pub(super) fn task(task: Task, next_run_at: Option<i64>, skipped: u64) -> TaskState {
    TaskState {
        target: target(),
        task,
        schedule: "every 1h".to_owned(),
        next_run_at: next_run_at.map(time),
        waiting_since: next_run_at.map(|at| time(at + 1)),
        running_since: None,
        deadline: Some(Duration::from_secs(21_600)),
        skipped,
    }
}

pub(super) fn run_under_way(task: Task, backup: Option<i64>, started_at: i64) -> RunStart {
    RunStart {
        id: RunId::new(time(started_at)).unwrap(),
        task,
        target: target(),
        backup: backup.map(id),
        started_at: time(started_at),
        pid: 1,
    }
}

fn alert_test(succeeded: bool, at: i64) -> Record {
    Record::AlertTest(AlertTestRecord {
        format: FORMAT,
        id: RunId::new(time(at)).unwrap().to_string(),
        alert: "ErnstfallRpoMissed".to_owned(),
        target: None,
        succeeded,
        started_at: time(at),
        finished_at: time(at),
        deliveries: Vec::new(),
    })
}

/// Everything is known.
pub(super) fn whole() -> Gathered {
    let mut shrunken = manifest(2);
    shrunken.totals.stored_bytes = 1000;
    shrunken.totals.not_covered = 4;
    shrunken.shrank = Some(Shrank {
        since: id(1),
        tables_gone: 1,
        tables_halved: 0,
    });
    let records = vec![
        prune(Outcome::Succeeded),
        Record::Backup(backup(1)),
        restore_test(1, CouldNotRun, HOUR + 900),
        restore_test(1, Failed, HOUR + 1000),
        Record::Backup(backup(2)),
        test_with_phases(2, 2 * HOUR + 900),
        alert_test(true, 2 * HOUR + 1000),
        alert_test(false, 2 * HOUR + 1100),
    ];
    Gathered {
        tasks: vec![
            task(Task::Backup, Some(3 * HOUR), 1),
            task(Task::RestoreTest, None, 0),
        ],
        heartbeats: vec![HeartbeatState {
            target: target(),
            every: Duration::from_secs(10),
            written_at: Some(time(3 * HOUR - 4)),
            clock_skew_seconds: Some(-0.5),
            fault: None,
        }],
        running: vec![run_under_way(Task::Backup, Some(3), 3 * HOUR)],
        alerts: AlertsState {
            firing: Vec::new(),
            channels: vec![ChannelState {
                name: "pager".to_owned(),
                kind: "webhook",
                delivered: 7,
                retried: 3,
                failed: 1,
                given_up: 0,
                waiting: 2,
                last_delivered_at: None,
                fault: None,
            }],
        },
        raised_test: Some(RaisedTest {
            test: "19700101T030000Z-7f3a".to_owned(),
            alert: "ErnstfallRpoMissed".to_owned(),
            severity: "critical".to_owned(),
            target: Some(target()),
            environment: Some("production".to_owned()),
            owner: None,
            until: time(3 * HOUR + 60),
        }),
        ..gathered(vec![manifest(0), manifest(1), shrunken], records)
    }
}
