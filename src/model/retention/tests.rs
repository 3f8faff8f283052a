//! The rule of retention by example.

mod any_history;

use super::*;
use crate::model::manifest::Shrank;
use crate::model::record::Entry;
use crate::model::samples::{manifest, target, time};

const NONE: Policy = Policy {
    last: 0,
    daily: 0,
    weekly: 0,
    monthly: 0,
    yearly: 0,
    time_zone: Tz::UTC,
};

/// A backup whose recovery point is then; its id follows from it.
fn backup_at(at: DateTime<Utc>) -> Manifest {
    let mut manifest = manifest(0);
    manifest.id = BackupId::new(at, 0);
    manifest.started_at = at;
    manifest.recovery_point.at = at;
    manifest
}

fn moment(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// The record of a restore test of this backup, which ended at this second.
fn tested(backup: &BackupId, verdict: &str, at: i64) -> Entry {
    let objective = serde_json::json!({
        "objective_seconds": null, "actual_seconds": null, "basis": null, "verdict": "unknown"
    });
    serde_json::from_value(serde_json::json!({
        "chain": "a", "sequence": 1, "previous_sha256": null,
        "record": {
            "kind": "restore_test", "format": 1, "id": "x", "target": "shop", "environment": null,
            "owner": null, "backup": backup, "trigger": "command", "verdict": verdict, "reason": null,
            "started_at": time(at), "finished_at": time(at), "recovery_point": null,
            "objectives": { "rpo": objective, "rto": objective }, "phases": [],
            "verification": crate::model::verification::Verification::default(), "scratch": null
        }
    }))
    .unwrap()
}

/// Backups and what is known of them.
#[derive(Clone, Debug, Default)]
struct History {
    manifests: Vec<Manifest>,
    records: Vec<Entry>,
    acknowledged: BTreeSet<BackupId>,
    doubtful_until: Option<DateTime<Utc>>,
    damaged: Vec<BackupId>,
    /// `None`: later than all.
    now: Option<DateTime<Utc>>,
}

impl History {
    fn at(moments: &[&str]) -> Self {
        Self {
            manifests: moments.iter().map(|text| backup_at(moment(text))).collect(),
            ..Self::default()
        }
    }

    fn judge(&mut self, backup: usize, verdict: &str) {
        let id = self.manifests[backup].id.clone();
        self.records.push(tested(&id, verdict, self.records.len() as i64));
    }

    /// Says that much was gone in this backup that the one before it held.
    fn shrink(&mut self, backup: usize) {
        let since = self.manifests[backup - 1].id.clone();
        self.manifests[backup].shrank = Some(Shrank {
            since,
            tables_gone: 1,
            tables_halved: 0,
        });
    }

    fn decide<R>(&self, policy: &Policy, look: impl FnOnce(Vec<Decision<'_>>) -> R) -> R {
        let target = target();
        let known = Known {
            verdicts: &Verdicts::of(&target, &self.records),
            acknowledged: &self.acknowledged,
            doubtful_until: self.doubtful_until,
            damaged: &self.damaged,
            now: self
                .now
                .unwrap_or(DateTime::<Utc>::MAX_UTC - chrono::TimeDelta::days(1)),
        };
        look(decide(&self.manifests, &known, policy))
    }

    /// The backups kept, by their place in the order of recovery points.
    fn kept(&self, policy: &Policy) -> Vec<usize> {
        self.decide(policy, |decisions| {
            let kept = decisions.iter().enumerate().filter(|(_, one)| one.fate.is_keep());
            kept.map(|(place, _)| place).collect()
        })
    }

    fn kept_ids(&self, policy: &Policy) -> BTreeSet<BackupId> {
        self.decide(policy, |decisions| {
            let kept = decisions.iter().filter(|one| one.fate.is_keep());
            kept.map(|one| one.manifest.id.clone()).collect()
        })
    }

    fn reasons(&self, policy: &Policy, place: usize) -> Vec<String> {
        self.decide(policy, |decisions| match &decisions[place].fate {
            Fate::Keep(reasons) => reasons.clone(),
            Fate::Remove(_) => Vec::new(),
        })
    }
}

#[test]
fn backups_from_the_future_take_no_place_and_go_nowhere() {
    let mut history = History::at(&[
        "2026-11-22T11:00:00Z",
        "2026-11-22T12:00:00Z",
        "2027-11-22T12:00:00Z",
        "2028-11-22T12:00:00Z",
    ]);
    history.now = Some(moment("2026-11-22T12:01:00Z"));
    let policy = Policy { last: 1, ..NONE };
    assert_eq!(history.kept(&policy), [1, 2, 3]);
    assert!(history.reasons(&policy, 1).contains(&"newest".to_owned()));
    assert!(history.reasons(&policy, 3)[0].contains("in the future"));
}

#[test]
fn a_damaged_manifest_may_have_told_a_loss_so_the_good_one_before_it_stays() {
    let mut history = History::at(&[
        "2026-11-20T12:00:00Z",
        "2026-11-21T12:00:00Z",
        "2026-11-23T12:00:00Z",
    ]);
    history.damaged = vec![BackupId::new(moment("2026-11-22T12:00:00Z"), 7)];
    let policy = Policy { last: 1, ..NONE };
    assert_eq!(history.kept(&policy), [1, 2]);
    history.judge(1, "failed");
    assert_eq!(history.kept(&policy), [0, 2]);
}

#[test]
fn every_reason_is_given_in_words() {
    let mut history = History::at(&[
        "2025-12-31T12:00:00Z",
        "2026-11-21T12:00:00Z",
        "2026-11-22T11:00:00Z",
        "2026-11-22T12:00:00Z",
    ]);
    history.judge(1, "passed");
    let policy = Policy {
        last: 2,
        daily: 2,
        weekly: 1,
        monthly: 1,
        yearly: 2,
        ..NONE
    };
    assert_eq!(
        history.reasons(&policy, 3),
        [
            "last 1 of 2",
            "daily of 2026-11-22",
            "weekly of 2026-W47",
            "monthly of 2026-11",
            "yearly of 2026",
            "newest"
        ]
    );
    assert_eq!(history.reasons(&policy, 2), ["last 2 of 2"]);
    assert_eq!(
        history.reasons(&policy, 1),
        ["daily of 2026-11-21", "newest that passed a restore test"]
    );
    assert_eq!(history.reasons(&policy, 0), ["yearly of 2025"]);
    let gone = Policy { last: 1, ..NONE };
    history.decide(&gone, |decisions| {
        let reason = "retention (last = 1) keeps it no longer".to_owned();
        assert_eq!(decisions[0].fate, Fate::Remove(reason));
    });
}

#[test]
fn periods_without_backups_use_up_no_place() {
    let history = History::at(&[
        "2024-05-01T12:00:00Z",
        "2026-01-02T12:00:00Z",
        "2026-11-22T12:00:00Z",
    ]);
    assert_eq!(history.kept(&Policy { daily: 3, ..NONE }), [0, 1, 2]);
    assert_eq!(history.kept(&Policy { yearly: 2, ..NONE }), [0, 2]);
}

#[test]
fn days_are_those_of_the_time_zone_also_when_clocks_change() {
    let berlin = Policy {
        daily: 9,
        time_zone: Tz::Europe__Berlin,
        ..NONE
    };
    // The day of 23 hours begins at 23:00 UTC and ends at 22:00 UTC; the one of 25 hours the other way round.
    let spring = History::at(&[
        "2026-03-28T22:59:00Z",
        "2026-03-28T23:00:00Z",
        "2026-03-29T21:59:00Z",
        "2026-03-29T22:00:00Z",
    ]);
    assert_eq!(spring.kept(&berlin), [0, 2, 3]);
    assert_eq!(spring.reasons(&berlin, 2), ["daily of 2026-03-29"]);
    let autumn = History::at(&[
        "2026-10-24T21:59:00Z",
        "2026-10-24T22:00:00Z",
        "2026-10-25T22:59:00Z",
        "2026-10-25T23:00:00Z",
    ]);
    assert_eq!(autumn.kept(&berlin), [0, 2, 3]);
    assert_eq!(autumn.reasons(&berlin, 2), ["daily of 2026-10-25"]);
    let utc = Policy { daily: 9, ..NONE };
    assert_eq!(autumn.kept(&utc), [1, 3]);
}

#[test]
fn weeks_are_iso_weeks_and_belong_to_the_year_of_their_thursday() {
    let history = History::at(&[
        "2026-12-27T12:00:00Z",
        "2026-12-28T12:00:00Z",
        "2027-01-03T12:00:00Z",
        "2027-01-04T12:00:00Z",
    ]);
    let weekly = Policy { weekly: 9, ..NONE };
    assert_eq!(history.kept(&weekly), [0, 2, 3]);
    assert_eq!(history.reasons(&weekly, 2), ["weekly of 2026-W53"]);
}

#[test]
fn a_bad_backup_takes_no_good_ones_place_and_stays_as_long_as_a_good_one_would() {
    let mut history = History::at(&[
        "2026-11-20T10:00:00Z",
        "2026-11-20T11:00:00Z",
        "2026-11-21T10:00:00Z",
        "2026-11-21T11:00:00Z",
        "2026-11-22T10:00:00Z",
    ]);
    history.judge(3, "failed");
    let policy = Policy { daily: 2, ..NONE };
    assert_eq!(history.kept(&policy), [2, 3, 4]);
    assert_eq!(
        history.reasons(&policy, 3),
        ["found bad, and with the bad ones counted: daily of 2026-11-21"]
    );
    let shorter = Policy { daily: 1, ..NONE };
    assert_eq!(history.kept(&shorter), [4]);
    // Where the newest is bad, the newest good one is the recovery point.
    history.judge(4, "failed");
    assert_eq!(history.kept(&Policy { last: 1, ..NONE }), [2, 4]);
}

#[test]
fn what_was_there_before_a_loss_stays_until_each_loss_is_acknowledged() {
    let mut history = History::at(&[
        "2026-11-20T10:00:00Z",
        "2026-11-20T11:00:00Z",
        "2026-11-20T12:00:00Z",
        "2026-11-20T13:00:00Z",
        "2026-11-20T14:00:00Z",
    ]);
    history.shrink(1);
    history.shrink(3);
    let policy = Policy { last: 1, ..NONE };
    assert_eq!(history.kept(&policy), [0, 1, 2, 3, 4]);
    let loss = &history.manifests[1].id.clone();
    assert_eq!(
        history.reasons(&policy, 0),
        [format!(
            "before a sharp loss of content in {loss}, not acknowledged"
        )]
    );
    history.acknowledged.insert(loss.clone());
    assert_eq!(history.kept(&policy), [2, 3, 4]);
    // The one before the loss is bad: what is gone is to be had only from the one before that.
    history.judge(2, "failed");
    assert_eq!(history.kept(&policy), [1, 2, 3, 4]);
    history.acknowledged.insert(history.manifests[3].id.clone());
    assert_eq!(history.kept(&policy), [4]);
}

#[test]
fn a_backup_that_a_lost_record_may_have_spoken_of_stays_until_it_is_tested_again() {
    let mut history = History::at(&[
        "2026-11-20T10:00:00Z",
        "2026-11-20T11:00:00Z",
        "2026-11-20T12:00:00Z",
        "2026-11-20T13:00:00Z",
    ]);
    history.doubtful_until = Some(moment("2026-11-20T11:30:00Z"));
    let policy = Policy { last: 1, ..NONE };
    assert_eq!(history.kept(&policy), [0, 1, 3]);
    // Said after the doubt, and so the last word, whatever was said before.
    let id = history.manifests[0].id.clone();
    history.records.push(tested(&id, "failed", 0));
    assert_eq!(history.kept(&policy), [1, 3]);
}
