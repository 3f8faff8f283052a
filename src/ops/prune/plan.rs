//! What a prune would do, and why. Nothing is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::journal::History;
use crate::model::backup_id::BackupId;
use crate::model::clocks::CLOCK_TOLERANCE;
use crate::model::manifest::{Manifest, RecoveryPoint};
use crate::model::record::Record;
use crate::model::retention::{Decision, Fate, Known, decide};
use crate::model::target_name::TargetName;
use crate::model::upkeep::{PrunedBackup, acknowledged};
use crate::model::verdicts::Verdicts;
use crate::ops::context::Context;
use crate::repository::{Inventory, Manifests};
use crate::store::Listed;

use super::{PruneError, Settings};

/// Whoever located a backup before it was removed finds its objects for at least this long.
const SHORTEST_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Records of several machines are compared with each other and with the source's clock.
const DOUBT_MARGIN: TimeDelta = TimeDelta::minutes(15);

/// What would become of everything that is stored of one target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    pub target: TargetName,
    /// The policy in words; `null` where there is none, and nothing is removed.
    pub retention: Option<String>,
    /// For so long objects stay after the backup that they belonged to was removed or given up.
    pub grace_seconds: f64,
    /// By recovery point, the newest last.
    pub backups: Vec<PlannedBackup>,
    /// Objects that belong to no backup.
    pub leftovers: Vec<Leftover>,
    /// What is left alone although it is no backup, and what is not known.
    pub remarks: Vec<String>,
    /// What the backups that are removed now hold: it becomes free after the grace time.
    pub free_later_bytes: u64,
    /// What is free as soon as this is done.
    pub free_now_bytes: u64,
    /// What the inventory showed, to be looked at again before anything of it goes.
    #[serde(skip)]
    pub(super) inventory: Inventory,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedBackup {
    pub backup: BackupId,
    pub recovery_point: RecoveryPoint,
    pub stored_bytes: u64,
    /// Else it is removed.
    pub keep: bool,
    /// Why it is kept, or the one reason why not.
    pub reasons: Vec<String>,
}

/// Objects of a backup that was removed, or never finished.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leftover {
    pub backup: BackupId,
    pub objects: u64,
    pub bytes: u64,
    /// When the youngest of them was stored; `null` where only the note of the removal is left.
    pub youngest_at: Option<DateTime<Utc>>,
    /// `null` for one that was never finished.
    pub removed_at: Option<DateTime<Utc>>,
    /// `null` where nothing is ever removed.
    pub may_go_at: Option<DateTime<Utc>>,
    /// They go now.
    pub due: bool,
}

impl Plan {
    /// What takes space still after these backups were removed, one line each.
    pub(super) fn waiting(&self, removed: &[PrunedBackup]) -> Vec<String> {
        let mut lines = Vec::new();
        let grace = format!("{:.0} h", self.grace_seconds / 3600.0);
        if !removed.is_empty() {
            let now = |one: &&PlannedBackup| removed.iter().any(|pruned| pruned.backup == one.backup);
            let bytes: u64 = self.backups.iter().filter(now).map(|one| one.stored_bytes).sum();
            lines.push(format!(
                "the objects of the backups removed now ({}; {bytes} bytes) can go in {grace}, with the next prune after that",
                removed.len()
            ));
        }
        let young: Vec<&Leftover> = self.leftovers.iter().filter(|leftover| !leftover.due).collect();
        if !young.is_empty() {
            let bytes: u64 = young.iter().map(|leftover| leftover.bytes).sum();
            lines.push(format!(
                "objects of {} removed or unfinished backups ({bytes} bytes) are younger than {grace}, or their removal is",
                young.len()
            ));
        }
        lines
    }

    /// Whether anything is to be removed.
    pub fn has_work(&self) -> bool {
        self.backups.iter().any(|backup| !backup.keep) || self.leftovers.iter().any(|leftover| leftover.due)
    }
}

/// Looks at what is stored and recorded now, and decides.
pub async fn plan(context: &Context, settings: &Settings) -> Result<Plan, PruneError> {
    let (repository, target) = (&context.repository, &settings.target);
    let failed = |error| PruneError::of(target, error);
    let inventory = repository.inventory(target).await.map_err(failed)?;
    let now = (context.clock)();
    refuse_the_future(&inventory, now)?;
    let manifests = repository.manifests(target).await.map_err(failed)?;
    let newer = manifests
        .unreadable
        .iter()
        .filter(|one| one.newer_format.is_some());
    let newer: Vec<String> = newer.map(|one| format!("`{}`", one.key)).collect();
    if !newer.is_empty() {
        return Err(PruneError::NewerFormat(newer.join(", ")));
    }
    let history = match &settings.known {
        Some(known) => Arc::clone(known),
        None => {
            let history = context.journal.history_of_target(repository, target).await;
            Arc::new(history.map_err(PruneError::Journal)?)
        }
    };
    Ok(Plan::of(settings, &manifests, inventory, &history, now))
}

/// An age that is less than nothing says that a clock is wrong, and then every other age is doubtful too.
fn refuse_the_future(inventory: &Inventory, now: DateTime<Utc>) -> Result<(), PruneError> {
    let youngest = inventory.youngest.as_ref();
    match youngest.filter(|one| one.modified > now + CLOCK_TOLERANCE) {
        None => Ok(()),
        Some(object) => Err(PruneError::FromTheFuture {
            key: object.key.to_string(),
            dated: object.modified,
            now,
        }),
    }
}

impl Plan {
    /// Decides by what is stored and recorded.
    pub fn of(
        settings: &Settings,
        manifests: &Manifests,
        inventory: Inventory,
        history: &History,
        now: DateTime<Utc>,
    ) -> Self {
        let grace = grace(settings, history);
        let doubtful_until = doubtful_until(history, now);
        let backups = planned_backups(settings, manifests, history, doubtful_until, now);
        let mut remarks = remarks(manifests, &inventory);
        if let (Some(until), Some(_)) = (doubtful_until, &settings.retention) {
            remarks.push(format!(
                "records up to {} are missing or damaged (see `ernstfall status`): backups that they may have spoken of are kept until they are restore-tested again",
                until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
            ));
        }
        let named = objects_named(&manifests.readable);
        let mut leftovers = Vec::new();
        for (id, objects, tombstones) in without_manifest(&inventory, manifests) {
            let owner = objects.iter().find_map(|object| named.get(object.key.as_str()));
            if let Some(owner) = owner {
                remarks.push(format!(
                    "objects of {id} are left alone: backup {owner} names them"
                ));
                continue;
            }
            let may_go_at = settings.retention.map(|_| may_go_at(objects, tombstones, grace));
            leftovers.push(Leftover {
                objects: objects.len() as u64,
                bytes: bytes_of(objects),
                youngest_at: objects.iter().map(|object| object.modified).max(),
                removed_at: tombstones.iter().map(|object| object.modified).max(),
                may_go_at,
                due: may_go_at.is_some_and(|at| at <= now),
                backup: id.clone(),
            });
        }
        let removed = backups.iter().filter(|backup| !backup.keep);
        let due = leftovers.iter().filter(|leftover| leftover.due);
        Self {
            target: settings.target.clone(),
            retention: settings.retention.map(|policy| policy.to_string()),
            grace_seconds: grace.as_secs_f64(),
            free_later_bytes: removed.map(|backup| backup.stored_bytes).sum(),
            free_now_bytes: due.map(|leftover| leftover.bytes).sum(),
            backups,
            leftovers,
            remarks,
            inventory,
        }
    }
}

fn planned_backups(
    settings: &Settings,
    manifests: &Manifests,
    history: &History,
    doubtful_until: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Vec<PlannedBackup> {
    let unreadable = manifests.unreadable.iter();
    let damaged: Vec<BackupId> = unreadable.filter_map(|one| one.backup.clone()).collect();
    let manifests = manifests.readable.as_slice();
    let known = Known {
        verdicts: &Verdicts::of(&settings.target, history.iter()),
        acknowledged: &acknowledged(&settings.target, history.iter()),
        doubtful_until,
        damaged: &damaged,
        now,
    };
    let decisions = match &settings.retention {
        Some(policy) => decide(manifests, &known, policy),
        None => manifests.iter().map(kept_for_ever).collect(),
    };
    let planned = |decision: Decision<'_>| PlannedBackup {
        backup: decision.manifest.id.clone(),
        recovery_point: decision.manifest.recovery_point,
        stored_bytes: decision.manifest.totals.stored_bytes,
        keep: decision.fate.is_keep(),
        reasons: match decision.fate {
            Fate::Keep(reasons) => reasons,
            Fate::Remove(reason) => vec![reason],
        },
    };
    decisions.into_iter().map(planned).collect()
}

fn kept_for_ever(manifest: &Manifest) -> Decision<'_> {
    let reason = "the target has no `retention`: every backup is kept";
    Decision {
        manifest,
        fate: Fate::Keep(vec![reason.to_owned()]),
    }
}

/// Up to when it is not known all that the records said. What a lost record said, it said before the one after it.
fn doubtful_until(history: &History, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let noticed_at = history.problems.iter().map(|problem| problem.noticed_at);
    Some(noticed_at.map(|at| at.unwrap_or(now)).max()? + DOUBT_MARGIN)
}

/// A restore or restore test that located a backup may read it for as long as the longest one took.
fn grace(settings: &Settings, history: &History) -> Duration {
    let of_target = history
        .iter()
        .filter(|entry| entry.record.target() == Some(&settings.target));
    let times = of_target.filter_map(|entry| time_of_reading(&entry.record));
    let longest = times.max().unwrap_or_default();
    SHORTEST_GRACE.max(longest).max(settings.max_snapshot_age)
}

/// For how long a run may have read a backup: its whole time. `None` for one that read none.
pub fn time_of_reading(record: &Record) -> Option<Duration> {
    let (started_at, finished_at) = match record {
        Record::RestoreTest(record) => (record.started_at, record.finished_at),
        Record::Restore(record) => (record.started_at, record.finished_at),
        _ => return None,
    };
    (finished_at - started_at).to_std().ok()
}

/// What lies in the folders of backups that do not exist: id, objects, tombstones.
fn without_manifest<'a>(
    inventory: &'a Inventory,
    manifests: &Manifests,
) -> Vec<(&'a BackupId, &'a [Listed], &'a [Listed])> {
    // One that was finished after the listing exists too.
    let exists = |id: &BackupId| {
        inventory.manifests.contains_key(id) || manifests.readable.iter().any(|one| one.id == *id)
    };
    let ids: BTreeSet<&BackupId> = inventory
        .objects
        .keys()
        .chain(inventory.tombstones.keys())
        .collect();
    let of = |map: &'a BTreeMap<BackupId, Vec<Listed>>, id| map.get(id).map_or(&[][..], Vec::as_slice);
    ids.into_iter()
        .filter(|id| !exists(id))
        .map(|id| (id, of(&inventory.objects, id), of(&inventory.tombstones, id)))
        .collect()
}

/// The objects' own age counts too: a backup under way has young ones and no manifest yet.
fn may_go_at(objects: &[Listed], tombstones: &[Listed], grace: Duration) -> DateTime<Utc> {
    let dates = objects.iter().chain(tombstones).map(|object| object.modified);
    let youngest = dates.max().unwrap_or(DateTime::<Utc>::MAX_UTC);
    let grace = TimeDelta::from_std(grace).unwrap_or(TimeDelta::MAX);
    youngest
        .checked_add_signed(grace)
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

fn bytes_of(objects: &[Listed]) -> u64 {
    objects.iter().map(|object| object.size_bytes).sum()
}

/// Which backup names an object. One backup's manifest may name objects in the folder of another.
fn objects_named(manifests: &[Manifest]) -> BTreeMap<&str, &BackupId> {
    manifests
        .iter()
        .flat_map(|manifest| {
            manifest
                .objects()
                .map(move |object| (object.key.as_str(), &manifest.id))
        })
        .collect()
}

fn remarks(manifests: &Manifests, inventory: &Inventory) -> Vec<String> {
    let unreadable = manifests.unreadable.iter().map(|one| {
        format!(
            "{} is left alone, with the objects of its backup: {}",
            one.key, one.reason
        )
    });
    let foreign = inventory
        .foreign
        .iter()
        .map(|key| format!("{key} is left alone: it belongs to no backup"));
    unreadable.chain(foreign).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::ChainProblem;
    use crate::model::samples::entries;
    use crate::repository::test_support::{id, manifest, target, time};
    use crate::store::Key;

    fn problem(noticed_at: Option<DateTime<Utc>>) -> ChainProblem {
        ChainProblem {
            chain: "a".to_owned(),
            sequence: 1,
            reason: "why".to_owned(),
            noticed_at,
        }
    }

    fn settings(max_snapshot_age_hours: u64) -> Settings {
        Settings {
            target: target(),
            retention: None,
            max_snapshot_age: Duration::from_secs(max_snapshot_age_hours * 3600),
            known: None,
        }
    }

    #[test]
    fn what_a_lost_record_said_it_said_before_the_one_after_it() {
        let now = time(100_000);
        let until = |problems: Vec<ChainProblem>| {
            let history = History {
                entries: Vec::new(),
                problems,
            };
            doubtful_until(&history, now)
        };
        assert_eq!(until(Vec::new()), None);
        let noticed = problem(Some(time(51)));
        assert_eq!(until(vec![noticed.clone()]), Some(time(51) + DOUBT_MARGIN));
        // Nothing readable comes after it, so that it may be of any time up to now.
        assert_eq!(until(vec![noticed, problem(None)]), Some(now + DOUBT_MARGIN));
    }

    #[test]
    fn the_grace_time_is_as_long_as_the_longest_restore_and_never_shorter_than_a_day() {
        let restore = |hours: i64| -> Record {
            let record = serde_json::json!({
                "kind": "restore", "format": 1, "id": "x", "target": "shop", "backup": null, "destination": "d",
                "outcome": "succeeded", "verdict": "passed", "reason": null, "started_at": time(0),
                "finished_at": time(hours * 3600), "phases": [], "verification": null
            });
            serde_json::from_value(record).unwrap()
        };
        let hours = |max_snapshot_age, records: &[Record]| {
            let entries = entries(records.to_vec()).into_iter().map(Arc::new);
            let history = History {
                entries: entries.collect(),
                problems: Vec::new(),
            };
            grace(&settings(max_snapshot_age), &history).as_secs() / 3600
        };
        assert_eq!(hours(6, &[]), 24);
        assert_eq!(hours(6, &[restore(30), restore(2)]), 30);
        assert_eq!(hours(48, &[restore(30)]), 48);
        // A clock that was set back says nothing.
        assert_eq!(hours(6, &[restore(-90)]), 24);
    }

    #[test]
    fn a_backup_that_was_finished_after_the_listing_is_no_leftover() {
        let object = Listed {
            key: Key::new(format!("targets/shop/backups/{}/x", id(1))).unwrap(),
            size_bytes: 7,
            modified: time(0),
        };
        let inventory = Inventory {
            objects: BTreeMap::from([(id(1), vec![object])]),
            ..Inventory::default()
        };
        let of = |readable| {
            let manifests = Manifests {
                readable,
                unreadable: Vec::new(),
            };
            let history = History::default();
            let plan = Plan::of(&settings(6), &manifests, inventory.clone(), &history, time(0));
            plan.leftovers.len()
        };
        assert_eq!((of(vec![manifest(1)]), of(vec![manifest(2)])), (0, 1));
    }
}
