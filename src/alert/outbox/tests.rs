//! What is told when, and what is not.

use super::*;
use crate::model::alert_record::AlertState;
use crate::model::samples::time;

use AlertState::{Firing, Resolved};

fn message(alert: &str, state: AlertState) -> Message {
    Message {
        labels: BTreeMap::from([("alertname".to_owned(), alert.to_owned())]),
        state,
        summary: String::new(),
        description: String::new(),
        runbook_url: String::new(),
        since: time(0),
        resolved_at: None,
        reminder: false,
    }
}

fn reminder(alert: &str) -> Message {
    Message {
        reminder: true,
        ..message(alert, Firing)
    }
}

fn failure(lasting: bool) -> Failure {
    Failure {
        reason: "no".to_owned(),
        retry_after: None,
        lasting,
    }
}

/// Tries what is due, and fails, until this moment: when it tried, and what came of it.
fn fail_until(outbox: &mut Outbox, end: i64, failure: &Failure) -> Vec<(i64, Fate)> {
    let mut tries = Vec::new();
    for second in 0..=end {
        if let Some(due) = outbox.due("pager", time(second)) {
            tries.push((second, outbox.failed("pager", &due, failure, time(second))));
        }
    }
    tries
}

#[test]
fn what_may_pass_is_tried_ever_more_slowly_and_has_failed_after_three_tries() {
    let mut outbox = Outbox::default();
    outbox.queue("pager", message("A", Firing), false, time(0));
    let tries = fail_until(&mut outbox, 1000, &failure(false));
    let seconds: Vec<i64> = tries.iter().map(|(second, _)| *second).collect();
    assert_eq!(seconds, [0, 5, 15, 35, 75, 155, 315, 615, 915]);
    let failed: Vec<i64> = tries
        .iter()
        .filter(|(_, fate)| *fate == Fate::Failed)
        .map(|(second, _)| *second)
        .collect();
    assert_eq!(failed, [15]);
}

#[test]
fn what_lasts_has_failed_at_once_and_is_tried_now_and_then() {
    let mut outbox = Outbox::default();
    outbox.queue("pager", message("A", Firing), false, time(0));
    let tries = fail_until(&mut outbox, 700, &failure(true));
    assert_eq!(
        tries,
        [
            (0, Fate::Failed),
            (300, Fate::TriedAgain),
            (600, Fate::TriedAgain)
        ]
    );
}

#[test]
fn a_receiver_that_asks_for_a_pause_gets_it() {
    let mut outbox = Outbox::default();
    outbox.queue("pager", message("A", Firing), false, time(0));
    let failure = Failure {
        retry_after: Some(Duration::from_secs(120)),
        ..failure(false)
    };
    let tries = fail_until(&mut outbox, 200, &failure);
    assert_eq!(
        tries.iter().map(|(second, _)| *second).collect::<Vec<_>>(),
        [0, 120]
    );
}

#[test]
fn what_was_not_told_for_a_day_is_given_up() {
    let mut outbox = Outbox::default();
    outbox.queue("pager", message("A", Firing), false, time(0));
    let tries = fail_until(&mut outbox, 100_000, &failure(false));
    assert_eq!(tries.last().unwrap().1, Fate::GivenUp);
    assert!(tries.last().unwrap().0 >= 86_400);
    assert_eq!(outbox.len("pager"), 0);
}

#[test]
fn a_channel_that_rests_holds_up_what_comes_after_and_tells_all_when_it_works_again() {
    let mut outbox = Outbox::default();
    outbox.queue("pager", message("A", Firing), false, time(0));
    let due = outbox.due("pager", time(0)).unwrap();
    outbox.failed("pager", &due, &failure(false), time(0));
    outbox.queue("pager", message("B", Firing), false, time(1));
    assert_eq!(outbox.due("pager", time(1)), None);
    assert_eq!(outbox.due_in("pager", time(1)), Some(Duration::from_secs(4)));
    // What has waited longest, and is due, comes first.
    let due = outbox.due("pager", time(5)).unwrap();
    assert_eq!(due.message.alert(), "B");
    outbox.delivered("pager", &due);
    let due = outbox.due("pager", time(5)).unwrap();
    assert_eq!(due.message.alert(), "A");
    outbox.delivered("pager", &due);
    assert_eq!((outbox.len("pager"), outbox.due_in("pager", time(5))), (0, None));
}

#[test]
fn one_message_that_is_refused_holds_up_no_other() {
    let mut outbox = Outbox::default();
    outbox.queue("pager", message("A", Firing), false, time(0));
    outbox.queue("pager", message("B", Firing), false, time(0));
    let due = outbox.due("pager", time(0)).unwrap();
    outbox.failed("pager", &due, &failure(true), time(0));
    assert_eq!(outbox.due("pager", time(0)).unwrap().message.alert(), "B");
}

#[test]
fn of_an_alert_that_could_not_be_told_the_last_word_is() {
    let mut outbox = Outbox::default();
    outbox.queue("pager", message("A", Firing), false, time(0));
    outbox.queue("pager", message("A", Resolved), false, time(9));
    let due = outbox.due("pager", time(9)).unwrap();
    assert_eq!((due.message.state, outbox.len("pager")), (Resolved, 1));
}

#[test]
fn what_changes_while_it_is_told_is_told_too() {
    let mut outbox = Outbox::default();
    outbox.queue("pager", message("A", Firing), false, time(0));
    let under_way = outbox.due("pager", time(0)).unwrap();
    outbox.queue("pager", message("A", Resolved), false, time(1));
    outbox.delivered("pager", &under_way);
    assert_eq!(outbox.due("pager", time(1)).unwrap().message.state, Resolved);
}

#[test]
fn a_reminder_of_what_nobody_heard_is_no_reminder_and_keeps_its_tries() {
    let mut outbox = Outbox::default();
    outbox.queue("pager", message("A", Firing), false, time(0));
    let due = outbox.due("pager", time(0)).unwrap();
    outbox.failed("pager", &due, &failure(false), time(0));
    outbox.queue("pager", reminder("A"), false, time(3));
    let due = outbox.due("pager", time(5)).unwrap();
    assert_eq!(
        (due.message.reminder, due.attempts, due.queued_at),
        (false, 1, time(0))
    );
    outbox.delivered("pager", &due);
    outbox.queue("pager", reminder("A"), false, time(9));
    assert!(outbox.due("pager", time(9)).unwrap().message.reminder);
}

#[test]
fn what_only_refreshes_never_takes_the_place_of_news() {
    let mut outbox = Outbox::default();
    outbox.queue("pager", message("A", Resolved), false, time(0));
    outbox.queue("pager", message("A", Firing), true, time(1));
    assert_eq!(outbox.due("pager", time(1)).unwrap().message.state, Resolved);
}

#[test]
fn a_channel_that_is_gone_takes_along_what_waited_for_it() {
    let mut outbox = Outbox::default();
    outbox.queue("pager", message("A", Firing), false, time(0));
    outbox.queue("mail", message("A", Firing), false, time(0));
    assert_eq!(outbox.keep_only(&["mail"]), ["pager"]);
    assert_eq!((outbox.len("pager"), outbox.len("mail")), (0, 1));
}

#[test]
fn what_waits_is_kept_over_a_restart() {
    let mut outbox = Outbox::default();
    outbox.queue("pager", message("A", Firing), false, time(0));
    let kept = serde_json::to_string(&outbox).unwrap();
    let mut again: Outbox = serde_json::from_str(&kept).unwrap();
    assert_eq!(again, outbox);
    // What comes after is not taken for what was there.
    let before = again.due("pager", time(0)).unwrap();
    again.queue("pager", message("A", Resolved), false, time(1));
    again.delivered("pager", &before);
    assert_eq!(again.len("pager"), 1);
}
