//! Comparing what a dump may not show of itself: owners, grants, and what is enabled, valid or populated.

use std::collections::BTreeMap;

use crate::model::contents::{CatalogueObject, Contents};
use crate::model::verification::{Finding, Severity, Verification};
use crate::postgres::catalogue;
use crate::postgres::error::Error;
use crate::postgres::session::Session;

use super::{CopyKind, mismatch};

type States<'a> = BTreeMap<(&'a str, &'a str), &'a str>;

/// Compares the copy's catalogue with the source's, object by object.
pub(super) async fn compare(
    session: &Session,
    contents: &Contents,
    copy: CopyKind,
    verification: &mut Verification,
) -> Result<(), Error> {
    if contents.catalogue.is_empty() {
        verification.findings.push(Finding {
            severity: Severity::Info,
            subject: "catalogue".to_owned(),
            message: "unknown whether owners, grants and states are the same beyond what a dump shows: the backup is of a version that did not note them".to_owned(),
        });
        return Ok(());
    }
    let found = catalogue::read(session).await?;
    let (expected, found) = (states(&contents.catalogue), states(&found));
    for ((kind, name), state) in &expected {
        match found.get(&(*kind, *name)) {
            Some(other) if other == state => {}
            other => {
                let missing = || ((*state).to_owned(), "missing".to_owned());
                let (expected, found) = other.map_or_else(missing, |other| differing(state, other));
                // The schema public was there before, with the rights that whoever made the database gave.
                if copy == CopyKind::GivenDatabase && (*kind, *name) == ("schema", "public") {
                    verification.findings.push(Finding {
                        severity: Severity::Warning,
                        subject: "schema public".to_owned(),
                        message: format!("{expected} in the source, {found} in the database restored into"),
                    });
                    continue;
                }
                verification
                    .mismatches
                    .push(mismatch(kind, name, expected, found));
            }
        }
    }
    // What else a given database holds is its owner's business.
    if copy != CopyKind::GivenDatabase {
        for ((kind, name), state) in found {
            if !expected.contains_key(&(kind, name)) {
                verification
                    .mismatches
                    .push(mismatch(kind, name, "no such object", state));
            }
        }
    }
    Ok(())
}

fn states(objects: &[CatalogueObject]) -> States<'_> {
    objects
        .iter()
        .map(|object| {
            (
                (object.kind.as_str(), object.name.as_str()),
                object.state.as_str(),
            )
        })
        .collect()
}

/// The parts of two states that only one of them has, since states can be long.
fn differing(expected: &str, found: &str) -> (String, String) {
    let only = |these: &str, those: &str| {
        let parts = these
            .split("; ")
            .filter(|part| !those.split("; ").any(|other| other == *part));
        let parts: Vec<&str> = parts.collect();
        if parts.is_empty() {
            "nothing more".to_owned()
        } else {
            parts.join("; ")
        }
    };
    (only(expected, found), only(found, expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_parts_that_differ_are_said() {
        let differ = |expected: &str, found: &str| {
            let (expected, found) = differing(expected, found);
            format!("{expected} / {found}")
        };
        assert_eq!(
            differ(
                "owner a; grants none; unlogged",
                "owner a; grants b SELECT; unlogged"
            ),
            "grants none / grants b SELECT"
        );
        assert_eq!(differ("owner a; unlogged", "owner a"), "unlogged / nothing more");
    }
}
