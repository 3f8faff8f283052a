//! What holds for any history and any policy.

use proptest::prelude::*;

use super::*;

/// Backups up to eleven days apart, some of them judged, some with a loss, some of these acknowledged.
fn histories() -> impl Strategy<Value = History> {
    let one = (
        0..16_000_i64,
        0..4_u8,
        any::<proptest::sample::Index>(),
        0..6_u8,
        any::<bool>(),
    );
    (proptest::collection::vec(one, 0..24), any::<Option<u32>>()).prop_map(|(backups, doubt)| {
        let mut history = History::default();
        let mut at = moment("2026-02-01T00:00:00Z");
        for (minutes, ..) in &backups {
            at += chrono::TimeDelta::minutes(1 + minutes);
            history.manifests.push(backup_at(at));
        }
        for (place, (_, verdict, since, loss, acknowledged)) in backups.iter().enumerate() {
            match verdict {
                0 => history.judge(place, "passed"),
                1 => history.judge(place, "failed"),
                2 => history.judge(place, "could-not-run"),
                _ => {}
            }
            if place > 0 && *loss == 0 {
                history.shrink(place);
                // What it names need not be the one before it, nor be there.
                let since = history.manifests[since.index(place)].id.clone();
                history.manifests[place].shrank.as_mut().unwrap().since = since;
                if *acknowledged {
                    history.acknowledged.insert(history.manifests[place].id.clone());
                }
            }
        }
        history.doubtful_until = doubt.filter(|minutes| minutes % 3 == 0).map(|minutes| {
            moment("2026-02-01T00:00:00Z") + chrono::TimeDelta::minutes((minutes % 100_000).into())
        });
        history
    })
}

fn policies() -> impl Strategy<Value = Policy> {
    let zones = [
        Tz::UTC,
        Tz::Europe__Berlin,
        Tz::Pacific__Apia,
        Tz::Australia__Lord_Howe,
    ];
    let zone = proptest::sample::select(zones.to_vec());
    (0..5_u32, 0..5_u32, 0..5_u32, 0..5_u32, 0..3_u32, zone).prop_map(
        |(last, daily, weekly, monthly, yearly, time_zone)| Policy {
            last,
            daily,
            weekly,
            monthly,
            yearly,
            time_zone,
        },
    )
}

proptest! {
    #[test]
    fn the_promises_hold_for_any_history_and_policy(history in histories(), policy in policies()) {
        let kept = history.kept_ids(&policy);
        let target = target();
        let verdicts = Verdicts::of(&target, &history.records);
        let newest_first = || history.manifests.iter().rev();
        prop_assert!(newest_first().take(1).all(|newest| kept.contains(&newest.id)));
        let newest_good = newest_first().find(|one| !verdicts.is_bad(&one.id));
        prop_assert!(newest_good.is_none_or(|one| kept.contains(&one.id)));
        let proven = newest_first().find(|one| verdicts.is_proven(&one.id));
        prop_assert!(proven.is_none_or(|one| kept.contains(&one.id)));
        for loss in &history.manifests {
            let Some(shrank) = &loss.shrank else { continue };
            if !history.acknowledged.contains(&loss.id) {
                prop_assert!(kept.contains(&loss.id) && kept.contains(&shrank.since));
                let good_before = newest_first()
                    .find(|one| one.recovery_point.at < loss.recovery_point.at && !verdicts.is_bad(&one.id));
                prop_assert!(good_before.is_none_or(|one| kept.contains(&one.id)));
            }
        }
        for doubtful in history.manifests.iter().filter(|one| history.doubtful_until >= Some(one.started_at)) {
            let last_word = verdicts.last_test_at(&doubtful.id);
            prop_assert!(last_word > history.doubtful_until || kept.contains(&doubtful.id));
        }
    }

    #[test]
    fn a_larger_policy_keeps_all_that_a_smaller_one_keeps(
        history in histories(), policy in policies(), more in policies(),
    ) {
        let larger = Policy {
            last: policy.last + more.last,
            daily: policy.daily + more.daily,
            weekly: policy.weekly + more.weekly,
            monthly: policy.monthly + more.monthly,
            yearly: policy.yearly + more.yearly,
            time_zone: policy.time_zone,
        };
        prop_assert!(history.kept_ids(&larger).is_superset(&history.kept_ids(&policy)));
    }

    #[test]
    fn what_is_kept_once_is_kept_again(history in histories(), policy in policies()) {
        let kept = history.kept_ids(&policy);
        let mut after = history.clone();
        after.manifests.retain(|manifest| kept.contains(&manifest.id));
        prop_assert_eq!(after.kept_ids(&policy), kept);
    }

    #[test]
    fn good_backups_are_kept_as_if_there_were_no_bad_ones(history in histories(), policy in policies()) {
        let target = target();
        let verdicts = Verdicts::of(&target, &history.records);
        let mut good = history.clone();
        good.manifests.retain(|manifest| !verdicts.is_bad(&manifest.id));
        prop_assert!(history.kept_ids(&policy).is_superset(&good.kept_ids(&policy)));
    }
}
