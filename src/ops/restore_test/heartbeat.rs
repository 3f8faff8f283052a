//! The heartbeat, looked for in the copy: the recovery point that was really recovered.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::model::manifest::Manifest;
use crate::model::verification::Mismatch;
use crate::ops::restore::build::Destination;
use crate::postgres::error::Error;
use crate::postgres::heartbeat;
use crate::postgres::session::Session;

use super::Findings;

/// Finds the heartbeat again. Another one than the manifest names, or none, is a mismatch.
pub(super) async fn find(
    destination: &Destination,
    manifest: &Manifest,
    found: &mut Findings,
) -> Result<(), Error> {
    let session = Session::connect(&destination.connection, "verify", None).await?;
    let read = heartbeat::read(&session, manifest.target.as_str()).await;
    session.close().await;
    found.heartbeat_at = match read {
        Ok(heartbeat) => heartbeat.map(|heartbeat| heartbeat.written_at),
        Err(error) if error.is_environment() => return Err(error),
        // No such table, or another one of that name: then the manifest must name no heartbeat either.
        Err(_) => None,
    };
    if let Some(expected) = manifest.heartbeat
        && found.heartbeat_at != Some(expected)
    {
        found.verification.mismatches.push(Mismatch {
            kind: "heartbeat".to_owned(),
            name: manifest.target.to_string(),
            expected: text(expected),
            found: found.heartbeat_at.map_or_else(|| "none".to_owned(), text),
        });
    }
    Ok(())
}

fn text(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
