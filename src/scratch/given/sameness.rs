//! Whether the scratch server is the source. It is proven that it is not, or nothing is made there.
//!
//! Addresses prove nothing: one server has many. Two proofs count: two system identifiers that differ, and an
//! advisory lock that one server shows and the other does not. A standby shows other locks than its primary, so for
//! a standby the lock proves nothing.

use std::time::Duration;

use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::error::{Error, ErrorKind};
use crate::postgres::facts;
use crate::postgres::refuse_transaction_pooler;
use crate::postgres::session::Session;
use crate::scratch::ScratchError;

/// A source that is away must not hold the test up for long: its identifier may prove enough.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is known of the source beforehand.
pub struct KnownSource<'a> {
    pub connection: &'a ConnectionSettings,
    /// The system identifier that was recorded with the backup.
    pub recorded_identifier: Option<&'a str>,
}

/// How it was proven that the scratch server is not the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    Identifiers,
    Lock,
    /// The source was not reached, for this reason; its recorded identifier differs.
    RecordedIdentifier(String),
}

/// What both servers told.
struct Seen {
    scratch_identifier: Option<String>,
    recorded_identifier: Option<String>,
    source: Result<SeenSource, String>,
}

struct SeenSource {
    identifier: Option<String>,
    standby: bool,
    /// It shows a lock that was taken on the scratch server.
    shows_the_lock: bool,
}

/// Compares the server behind a session with the source.
pub(super) async fn prove(session: &Session, known: &KnownSource<'_>) -> Result<Proof, ScratchError> {
    let given = |error: Error| ScratchError::Given(Box::new(error));
    let identity = facts::identity(session).await.map_err(given)?;
    let asking = async {
        let source = reach(known.connection)
            .await
            .map_err(|error| error.reason().to_owned())?;
        look(session, &source).await
    };
    let source = match tokio::time::timeout(PATIENCE, asking).await {
        Ok(source) => source,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    judge(&Seen {
        scratch_identifier: identity.system_identifier,
        recorded_identifier: known
            .recorded_identifier
            .filter(|identifier| !identifier.is_empty())
            .map(str::to_owned),
        source,
    })
}

async fn reach(source: &ConnectionSettings) -> Result<Session, Error> {
    refuse_transaction_pooler(source).await?;
    Session::connect(source, "scratch", None).await
}

/// Takes a lock on the scratch server and looks for it on the source, which is only read.
async fn look(scratch: &Session, source: &Session) -> Result<SeenSource, String> {
    let reason = |error: Error| error.reason().to_owned();
    let random = getrandom::u64().map_err(|error| error.to_string())?;
    let half = |bits: u64| i32::try_from(bits & 0x7fff_ffff).unwrap_or(0);
    let (class, key) = (half(random), half(random >> 32));
    let lock = "SELECT pg_catalog.pg_try_advisory_lock($1, $2)";
    let taken = scratch
        .select_one("take a lock with a random key", lock, &[&class, &key])
        .await;
    if !taken.map_err(reason)?.get::<_, bool>(0) {
        return Err("a lock with a random key could not be taken".to_owned());
    }
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND objsubid = 2
                AND classid::bigint = $1 AND objid::bigint = $2)";
    let row = source
        .select_one("look for the lock", sql, &[&i64::from(class), &i64::from(key)])
        .await;
    let unlock = "SELECT pg_catalog.pg_advisory_unlock($1, $2)";
    scratch
        .select_one("let go of the lock", unlock, &[&class, &key])
        .await
        .map_err(reason)?;
    let identity = facts::identity(source).await.map_err(reason)?;
    Ok(SeenSource {
        identifier: identity.system_identifier,
        standby: identity.standby,
        shows_the_lock: row.map_err(reason)?.get(0),
    })
}

/// Same by any test is the source; different must be proven.
fn judge(seen: &Seen) -> Result<Proof, ScratchError> {
    let own = seen.scratch_identifier.as_deref();
    let live = seen.source.as_ref().ok();
    if live.is_some_and(|source| source.shows_the_lock) {
        return Err(ScratchError::IsSource {
            why: "a lock taken on the one is seen on the other".to_owned(),
        });
    }
    let theirs = [
        live.and_then(|source| source.identifier.as_deref()),
        seen.recorded_identifier.as_deref(),
    ];
    if let Some(own) = own
        && theirs.contains(&Some(own))
    {
        return Err(ScratchError::IsSource {
            why: format!("both have the system identifier {own}: it is the source, or a physical copy of it"),
        });
    }
    match (&seen.source, own, seen.recorded_identifier.as_deref()) {
        (
            Ok(SeenSource {
                identifier: Some(_), ..
            }),
            Some(_),
            _,
        ) => Ok(Proof::Identifiers),
        (Ok(SeenSource { standby: false, .. }), _, _) => Ok(Proof::Lock),
        (Ok(SeenSource { standby: true, .. }), _, _) => Err(ScratchError::PerhapsSource {
            why: "the source is a standby, and not both let their system identifier be read".to_owned(),
        }),
        (Err(reason), Some(_), Some(_)) => Ok(Proof::RecordedIdentifier(reason.clone())),
        (Err(reason), None, _) => Err(ScratchError::PerhapsSource {
            why: format!(
                "the source was not reached ({reason}), and the scratch server hides its system identifier"
            ),
        }),
        (Err(reason), Some(_), None) => Err(ScratchError::PerhapsSource {
            why: format!(
                "the source was not reached ({reason}), and the backup holds no system identifier of it"
            ),
        }),
    }
}

/// For errors that carry no statement of their own.
pub(super) fn refused(session: &Session, tried: &str, reason: &str, hint: &str) -> ScratchError {
    let error = Error::new(tried, session.description(), ErrorKind::Other, reason, hint);
    ScratchError::Given(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(identifier: Option<&str>, standby: bool, shows_the_lock: bool) -> Result<SeenSource, String> {
        Ok(SeenSource {
            identifier: identifier.map(str::to_owned),
            standby,
            shows_the_lock,
        })
    }

    fn away() -> Result<SeenSource, String> {
        Err("connection refused".to_owned())
    }

    /// `proven`, `source` or `unknown`.
    fn judged(own: Option<&str>, recorded: Option<&str>, source: Result<SeenSource, String>) -> &'static str {
        let seen = Seen {
            scratch_identifier: own.map(str::to_owned),
            recorded_identifier: recorded.map(str::to_owned),
            source,
        };
        match judge(&seen) {
            Ok(_) => "proven",
            Err(ScratchError::IsSource { .. }) => "source",
            Err(ScratchError::PerhapsSource { .. }) => "unknown",
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_same_by_any_test_is_the_source() {
        assert_eq!(
            judged(Some("1"), Some("2"), source(Some("2"), false, true)),
            "source"
        );
        assert_eq!(judged(None, None, source(None, false, true)), "source");
        assert_eq!(judged(Some("1"), None, source(Some("1"), false, false)), "source");
        assert_eq!(judged(Some("1"), Some("1"), away()), "source");
        // The backup's source, though the target is another server by now.
        assert_eq!(
            judged(Some("1"), Some("1"), source(Some("2"), false, false)),
            "source"
        );
    }

    #[test]
    fn another_server_is_proven_by_identifiers_or_by_the_lock() {
        assert_eq!(
            judged(Some("1"), Some("2"), source(Some("2"), false, false)),
            "proven"
        );
        assert_eq!(judged(Some("1"), None, source(Some("2"), true, false)), "proven");
        assert_eq!(judged(Some("1"), Some("2"), away()), "proven");
        assert_eq!(judged(None, None, source(None, false, false)), "proven");
    }

    #[test]
    fn what_is_not_proven_is_unknown() {
        assert_eq!(judged(None, Some("2"), away()), "unknown");
        assert_eq!(judged(Some("1"), None, away()), "unknown");
        assert_eq!(judged(None, None, away()), "unknown");
        // Its primary may be the scratch server.
        assert_eq!(judged(None, None, source(None, true, false)), "unknown");
        assert_eq!(judged(Some("1"), Some("2"), source(None, true, false)), "unknown");
    }
}
