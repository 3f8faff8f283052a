//! The recovery point actually achieved, cycle by cycle.
//!
//! A cycle begins with the recovery point of one backup and ends with the completion of the next: just before
//! that, a loss of the source would have lost the most. Backups found bad make no cycle: give only the others.

use chrono::{DateTime, Utc};

use crate::model::backup_id::BackupId;
use crate::model::manifest::Manifest;

/// The worst moment of the cycle that began with this backup; nothing while it is the newest.
pub fn cycle_rpa_seconds(manifests: &[Manifest], of: &BackupId) -> Option<f64> {
    let ordered = by_recovery_point(manifests.iter());
    let position = ordered.iter().position(|manifest| manifest.id == *of)?;
    cycle_between(ordered[position], ordered.get(position + 1)?)
}

/// The worst moment of the cycle that this backup ended; nothing for the first backup.
pub fn cycle_ended_by_rpa_seconds(manifests: &[Manifest], by: &BackupId) -> Option<f64> {
    let ordered = by_recovery_point(manifests.iter());
    let position = ordered.iter().position(|manifest| manifest.id == *by)?;
    cycle_between(ordered[position.checked_sub(1)?], ordered[position])
}

pub(crate) fn by_recovery_point<'a>(manifests: impl Iterator<Item = &'a Manifest>) -> Vec<&'a Manifest> {
    let mut ordered: Vec<&Manifest> = manifests.collect();
    ordered.sort_by(|one, other| one.order().cmp(&other.order()));
    ordered
}

pub(crate) fn cycle_between(begin: &Manifest, end: &Manifest) -> Option<f64> {
    let seconds = seconds_between(begin.recovery_point.at, end.finished_at);
    // Less than nothing was never lost: the source's clock was set back, and nothing is known.
    (seconds >= 0.0).then_some(seconds)
}

pub(crate) fn seconds_between(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).as_seconds_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples::{id, manifest, time};

    #[test]
    fn a_cycle_reaches_from_a_recovery_point_to_the_completion_of_the_next_backup() {
        let manifests = [manifest(3), manifest(0), manifest(1)];
        assert_eq!(cycle_rpa_seconds(&manifests, &id(0)), Some(4200.0));
        assert_eq!(cycle_rpa_seconds(&manifests, &id(1)), Some(7800.0));
        assert_eq!(cycle_rpa_seconds(&manifests, &id(3)), None);
        assert_eq!(cycle_rpa_seconds(&manifests, &id(9)), None);
        assert_eq!(cycle_ended_by_rpa_seconds(&manifests, &id(3)), Some(7800.0));
        assert_eq!(cycle_ended_by_rpa_seconds(&manifests, &id(0)), None);
    }

    #[test]
    fn backups_of_one_recovery_point_stand_in_the_order_in_which_they_were_taken() {
        let taken = |random, started| {
            let mut manifest = manifest(0);
            manifest.id = BackupId::new(time(0), random);
            manifest.started_at = time(started);
            manifest
        };
        let (first, second) = (taken(0xffff, 10), taken(0, 20));
        let both = [second.clone(), first.clone()];
        let ordered = by_recovery_point(both.iter());
        assert_eq!(ordered, [&first, &second]);
    }

    #[test]
    fn a_clock_that_was_set_back_makes_the_cycle_unknown() {
        let mut later = manifest(1);
        later.finished_at = time(-10);
        assert_eq!(cycle_rpa_seconds(&[manifest(0), later], &id(0)), None);
    }
}
