//! How far a server's clock is from ours.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};

use crate::postgres::error::Error;
use crate::postgres::facts;
use crate::postgres::session::Session;

/// Seconds that the server's clock is ahead of ours. It was read somewhere between question and answer: half of that
/// time is allowed for.
pub(super) async fn clock_skew_seconds(
    session: &Session,
    clock: fn() -> DateTime<Utc>,
) -> Result<f64, Error> {
    let before = clock();
    let asked = Instant::now();
    let there = facts::clock(session).await?;
    let half = TimeDelta::from_std(asked.elapsed() / 2).unwrap_or_default();
    Ok((there - (before + half)).as_seconds_f64())
}
