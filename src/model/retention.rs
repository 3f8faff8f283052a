//! Which backups a target keeps, and why. A pure rule: it removes nothing.
//!
//! Whatever the policy says, some backups are always kept: the newest, the newest not found bad, the newest that passed
//! a restore test, and those around a sharp loss of content that nobody has acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, Datelike, Utc};

use crate::model::backup_id::BackupId;
use crate::model::cycle::by_recovery_point;
use crate::model::manifest::Manifest;
use crate::model::time_zone::Tz;
use crate::model::verdicts::Verdicts;

/// How many backups to keep: the newest so many, and the newest of each of so many periods that have any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub last: u32,
    pub daily: u32,
    /// ISO weeks, which begin on Monday.
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
    /// Where days, weeks, months and years begin.
    pub time_zone: Tz,
}

/// What the records say of a target's backups.
#[derive(Debug)]
pub struct Known<'a> {
    pub verdicts: &'a Verdicts<'a>,
    /// Backups whose sharp loss of content somebody has said was meant.
    pub acknowledged: &'a BTreeSet<BackupId>,
    /// Records of runs up to this moment are missing or unreadable, so that it is not known all that they said.
    pub doubtful_until: Option<DateTime<Utc>>,
    /// Backups whose manifest is damaged: what it said of a loss of content is not known.
    pub damaged: &'a [BackupId],
    /// Of this machine's clock.
    pub now: DateTime<Utc>,
}

/// What becomes of one backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision<'a> {
    pub manifest: &'a Manifest,
    pub fate: Fate,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// With every reason there is; never without one.
    Keep(Vec<String>),
    Remove(String),
}

impl Fate {
    pub fn is_keep(&self) -> bool {
        matches!(self, Self::Keep(_))
    }
}

/// A period of time that a bucket keeps one backup of.
#[derive(Clone, Copy)]
enum Period {
    Day,
    Week,
    Month,
    Year,
}

/// Reasons to keep, by backup.
type Reasons<'a> = BTreeMap<&'a BackupId, Vec<String>>;

/// Decides on each backup, in the order of their recovery points.
pub fn decide<'a>(manifests: &'a [Manifest], known: &Known<'_>, policy: &Policy) -> Vec<Decision<'a>> {
    // One from the future is no evidence of the time that it names, and must take no other's place.
    let (future, present): (Vec<&Manifest>, Vec<&Manifest>) = manifests
        .iter()
        .partition(|one| one.recovery_point.is_in_the_future(known.now));
    let all = by_recovery_point(present.into_iter());
    let is_bad = |manifest: &&Manifest| known.verdicts.is_bad(&manifest.id);
    let good: Vec<&Manifest> = all.iter().copied().filter(|one| !is_bad(one)).collect();
    let mut reasons = policy.keeps(&good);
    // A bad backup must not push a good one out of its place. It is itself evidence, and stays as long as a good one.
    for (id, of_rule) in policy.keeps(&all) {
        if known.verdicts.is_bad(id) {
            let found_bad = |reason| format!("found bad, and with the bad ones counted: {reason}");
            reasons.insert(id, of_rule.into_iter().map(found_bad).collect());
        }
    }
    for (id, reason) in promised(&all, &good, known) {
        reasons.entry(id).or_default().push(reason);
    }
    for one in future {
        let reason = "its recovery point lies in the future: the source's clock was wrong";
        reasons.entry(&one.id).or_default().push(reason.to_owned());
    }
    let mut fate = |manifest: &Manifest| match reasons.remove(&manifest.id) {
        Some(reasons) => Fate::Keep(reasons),
        None => Fate::Remove(format!("retention ({policy}) keeps it no longer")),
    };
    by_recovery_point(manifests.iter())
        .into_iter()
        .map(|manifest| Decision {
            manifest,
            fate: fate(manifest),
        })
        .collect()
}

/// What is kept under any policy.
fn promised<'a>(
    all: &[&'a Manifest],
    good: &[&'a Manifest],
    known: &Known<'_>,
) -> Vec<(&'a BackupId, String)> {
    let mut promised = Vec::new();
    let newest = all.last();
    promised.extend(newest.map(|newest| (&newest.id, "newest".to_owned())));
    let newest_good = good.last().filter(|good| Some(good) != newest.as_ref());
    promised.extend(newest_good.map(|good| (&good.id, "newest not found bad".to_owned())));
    let proven = all.iter().rev().find(|one| known.verdicts.is_proven(&one.id));
    promised.extend(proven.map(|one| (&one.id, "newest that passed a restore test".to_owned())));
    for loss in all {
        promised.extend(around_loss(all, good, loss, known.acknowledged));
    }
    for damaged in known.damaged {
        // Of two backups of one second the ids do not tell which came first.
        let is_before = |one: &&&Manifest| one.id.second() <= damaged.second();
        let last_good = good.iter().rev().find(is_before);
        let reason =
            format!("before {damaged}, whose manifest is damaged and may have told a loss of content");
        promised.extend(last_good.map(|one| (&one.id, reason)));
    }
    let in_doubt = |manifest: &&&Manifest| {
        let last_word = known.verdicts.last_test_at(&manifest.id);
        known
            .doubtful_until
            .is_some_and(|until| manifest.started_at <= until && last_word.is_none_or(|at| at <= until))
    };
    let doubt = "records that may speak of it are missing; a restore test of it ends the doubt";
    promised.extend(all.iter().filter(in_doubt).map(|one| (&one.id, doubt.to_owned())));
    promised
}

/// The backup that still holds what is gone, and the one that carries the finding, so that this lasts.
fn around_loss<'a>(
    all: &[&'a Manifest],
    good: &[&'a Manifest],
    loss: &'a Manifest,
    acknowledged: &BTreeSet<BackupId>,
) -> Vec<(&'a BackupId, String)> {
    let Some(shrank) = &loss.shrank else {
        return Vec::new();
    };
    if acknowledged.contains(&loss.id) {
        return Vec::new();
    }
    let mut kept = vec![(
        &loss.id,
        "a sharp loss of content in it, not acknowledged".to_owned(),
    )];
    let before = |reason: &str| {
        format!(
            "{reason} a sharp loss of content in {}, not acknowledged",
            loss.id
        )
    };
    let since = all.iter().find(|one| one.id == shrank.since);
    kept.extend(since.map(|one| (&one.id, before("before"))));
    // Where that one was found bad, or is gone, the one before it is the last that holds the content.
    let is_before = |one: &&&Manifest| one.order() < loss.order();
    let last_good = good.iter().rev().find(is_before);
    let last_good = last_good.filter(|good| Some(good) != since.as_ref());
    kept.extend(last_good.map(|one| (&one.id, before("the newest not found bad before"))));
    kept
}

impl Policy {
    /// By the policy alone, which of these it keeps, and by which of its rules.
    fn keeps<'a>(&self, ordered: &[&'a Manifest]) -> Reasons<'a> {
        let mut reasons = Reasons::new();
        let newest_first = || ordered.iter().rev().copied();
        for (index, manifest) in newest_first().take(self.last as usize).enumerate() {
            let reason = format!("last {} of {}", index + 1, self.last);
            reasons.entry(&manifest.id).or_default().push(reason);
        }
        for (name, count, period) in self.buckets() {
            let mut periods = BTreeSet::new();
            for manifest in newest_first() {
                let label = period.of(manifest.recovery_point.at, self.time_zone);
                if periods.len() < count as usize && periods.insert(label.clone()) {
                    let reason = format!("{name} of {label}");
                    reasons.entry(&manifest.id).or_default().push(reason);
                }
            }
        }
        reasons
    }

    fn buckets(&self) -> [(&'static str, u32, Period); 4] {
        [
            ("daily", self.daily, Period::Day),
            ("weekly", self.weekly, Period::Week),
            ("monthly", self.monthly, Period::Month),
            ("yearly", self.yearly, Period::Year),
        ]
    }
}

impl Period {
    /// The period that a moment lies in, as people write it.
    fn of(self, moment: DateTime<Utc>, time_zone: Tz) -> String {
        let local = moment.with_timezone(&time_zone);
        match self {
            Self::Day => format!("{:04}-{:02}-{:02}", local.year(), local.month(), local.day()),
            Self::Week => format!("{:04}-W{:02}", local.iso_week().year(), local.iso_week().week()),
            Self::Month => format!("{:04}-{:02}", local.year(), local.month()),
            Self::Year => format!("{:04}", local.year()),
        }
    }
}

impl fmt::Display for Policy {
    /// The counts that keep any, as the configuration has them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.buckets().map(|(name, count, _)| (name, count));
        let shown = [("last", self.last)].into_iter().chain(counts);
        let shown: Vec<String> = shown
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} = {count}"))
            .collect();
        formatter.write_str(&shown.join(", "))
    }
}

#[cfg(test)]
mod tests;
