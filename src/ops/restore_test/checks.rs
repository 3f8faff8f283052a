//! The target's own checks, run in the copy.

use crate::model::check::Check;
use crate::model::verification::CheckResult;
use crate::ops::restore::RestoreError;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::session::Session;

/// Runs the target's own checks, each in a transaction that may not write.
pub(super) async fn run(
    connection: &ConnectionSettings,
    checks: &[Check],
) -> Result<Vec<CheckResult>, RestoreError> {
    let session = Session::connect(connection, "checks", None).await?;
    session
        .batch(
            "prepare the checks",
            "RESET ALL; SET statement_timeout = '10min'; SET default_transaction_read_only = off; SET jit = off",
        )
        .await?;
    let mut results = Vec::new();
    for check in checks {
        session.batch("begin", "BEGIN READ ONLY").await?;
        let answer = session
            .select_text_alone(&format!("run the check {}", check.name), &check.sql)
            .await;
        session.batch("roll back", "ROLLBACK").await?;
        let value = match answer {
            Err(error) if error.is_environment() => return Err(error.into()),
            Err(error) => Err(error.to_string()),
            Ok(rows) => match rows.as_slice() {
                [row] if row.len() == 1 => Ok(row.get(0).unwrap_or("null").to_owned()),
                rows => Err(format!(
                    "{} rows came back, and a check needs one value",
                    rows.len()
                )),
            },
        };
        let (passed, found) = match value {
            Ok(value) => match check.expect.holds(&value) {
                Ok(passed) => (passed, value),
                Err(error) => (false, error.to_string()),
            },
            Err(error) => (false, error),
        };
        results.push(CheckResult {
            name: check.name.clone(),
            passed,
            expected: check.expect.to_string(),
            found,
        });
    }
    Ok(results)
}
