//! Telling a transaction-mode pooler from a server.
//!
//! On such a pooler each transaction may run on another server process: snapshots cannot be exported, locks are lost,
//! and settings stay behind on connections of others. So the probe runs before any setting is fixed, and changes
//! nothing but one custom variable of its own.

use super::connect;
use super::conninfo::ConnectionSettings;
use super::error::{Error, ErrorKind};
use super::identifier::quote_literal;
use super::session::Session;

/// Who is asked in which order (false: first, true: second). Not periodic: a pooler that deals its connections out in
/// turn could otherwise give each of the two always the same one.
const ORDER: [bool; 12] = [
    false, true, true, false, true, false, false, true, true, true, false, false,
];
const VARIABLE: &str = "ernstfall.pooler_probe";
const PID: &str = "SELECT pg_catalog.pg_backend_pid()";

/// Refuses a transaction-mode pooler. Opens two sessions for a moment; each answer has the settings' connect_timeout.
pub async fn refuse_transaction_pooler(settings: &ConnectionSettings) -> Result<(), Error> {
    let first = connect::open(settings, "pooler probe").await?;
    let second = connect::open(settings, "pooler probe").await?;
    let limit = settings.connect_timeout();
    let outcome = match tokio::time::timeout(limit, probe(&first, &second)).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let hint = "look at the server's load and log, or raise connect_timeout";
            let kind = ErrorKind::Connection;
            Err(Error::new(
                "probe for a pooler",
                settings.describe(),
                kind,
                "no answer in time",
                hint,
            ))
        }
    };
    first.close().await;
    second.close().await;
    outcome
}

async fn probe(first: &Session, second: &Session) -> Result<(), Error> {
    let mut pids: [Vec<String>; 2] = [vec![], vec![]];
    for asks_second in ORDER {
        let session = if asks_second { second } else { first };
        pids[usize::from(asks_second)].push(ask(session, PID).await?);
    }
    if let Some(reason) = shared_backend(&pids[0], &pids[1]) {
        return Err(refusal(first, reason));
    }
    // Pids can hide behind a proxy that makes them up; what one session sets, another must not see.
    let random = format!("{:016x}", random_number(first)?);
    run(first, &format!("SET {VARIABLE} = {}", quote_literal(&random))).await?;
    let shown = format!(
        "SELECT pg_catalog.current_setting({}, true)",
        quote_literal(VARIABLE)
    );
    let seen_by_second = ask(second, &shown).await?;
    let seen_by_first = ask(first, &shown).await?;
    run(first, &format!("RESET {VARIABLE}")).await?;
    match setting_leak(&random, &seen_by_first, &seen_by_second) {
        Some(reason) => Err(refusal(first, reason)),
        None => Ok(()),
    }
}

async fn ask(session: &Session, sql: &str) -> Result<String, Error> {
    let row = session.simple_row("probe for a pooler", sql).await?;
    Ok(row.get(0).unwrap_or_default().to_owned())
}

async fn run(session: &Session, sql: &str) -> Result<(), Error> {
    let outcome = session.batch_execute(sql).await;
    outcome.map_err(|error| Error::query("probe for a pooler", session.description(), error))
}

fn random_number(session: &Session) -> Result<u64, Error> {
    getrandom::u64().map_err(|error| {
        let hint = "check the system's random source";
        Error::new(
            "probe for a pooler",
            session.description(),
            ErrorKind::Other,
            error.to_string(),
            hint,
        )
    })
}

fn shared_backend(first: &[String], second: &[String]) -> Option<&'static str> {
    let changes = |pids: &[String]| pids.windows(2).any(|pair| pair[0] != pair[1]);
    if changes(first) || changes(second) {
        return Some("the server process changed within one connection");
    }
    let shared = first.iter().any(|pid| second.contains(pid));
    shared.then_some("two open connections share one server process")
}

fn setting_leak(random: &str, seen_by_first: &str, seen_by_second: &str) -> Option<&'static str> {
    if seen_by_second == random {
        return Some("a setting of one connection is seen by another");
    }
    (seen_by_first != random).then_some("a setting was lost between two statements")
}

fn refusal(session: &Session, reason: &str) -> Error {
    Error::new(
        "probe for a pooler",
        session.description(),
        ErrorKind::Pooler,
        format!(
            "{reason}: a transaction-mode pooler stands between, and no backup can be consistent through it"
        ),
        "connect directly or in session mode (Supabase: port 5432 instead of 6543; PgBouncer: pool_mode=session)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pids(pids: &[&str]) -> Vec<String> {
        pids.iter().map(|pid| (*pid).to_owned()).collect()
    }

    #[test]
    fn a_shared_or_changing_server_process_is_a_pooler() {
        assert!(shared_backend(&pids(&["1", "1"]), &pids(&["2", "2"])).is_none());
        assert!(shared_backend(&pids(&["1", "1"]), &pids(&["1", "1"])).is_some());
        assert!(shared_backend(&pids(&["1", "2"]), &pids(&["3", "3"])).is_some());
        assert!(shared_backend(&pids(&["3", "3"]), &pids(&["1", "2"])).is_some());
    }

    #[test]
    fn a_setting_that_leaks_or_is_lost_is_a_pooler() {
        assert!(setting_leak("r", "r", "").is_none());
        assert!(setting_leak("r", "r", "older").is_none());
        assert!(setting_leak("r", "r", "r").is_some());
        assert!(setting_leak("r", "", "").is_some());
    }

    #[test]
    fn dealing_connections_out_in_turn_cannot_hide() {
        for pool_size in 2..=4 {
            let dealt: Vec<_> = ORDER
                .iter()
                .enumerate()
                .map(|(turn, second)| (*second, (turn % pool_size).to_string()))
                .collect();
            let of = |wanted: bool| -> Vec<String> {
                dealt
                    .iter()
                    .filter(|(second, _)| *second == wanted)
                    .map(|(_, pid)| pid.clone())
                    .collect()
            };
            assert!(shared_backend(&of(false), &of(true)).is_some(), "{pool_size}");
        }
    }
}
