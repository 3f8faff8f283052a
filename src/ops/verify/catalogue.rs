//! Comparing what a dump may not show of itself: owners, grants, and what is enabled, valid or populated.

use std::collections::BTreeMap;

use crate::model::contents::{CatalogueObject, Contents};
use crate::model::verification::Verification;
use crate::postgres::catalogue;
use crate::postgres::error::Error;
use crate::postgres::session::Session;

use super::{CopyKind, mismatch};

type States<'a> = BTreeMap<(&'a str, &'a str), &'a str>;

/// Compares the copy's catalogue with the source's, object by object.
pub(super) async fn compare(
    session: &Session,
    contents: &Contents,
    kind: CopyKind,
    verification: &mut Verification,
) -> Result<(), Error> {
    let found = catalogue::read(session).await?;
    let (expected, found) = (states(&contents.catalogue), states(&found));
    for ((kind, name), state) in &expected {
        match found.get(&(*kind, *name)) {
            Some(other) if other == state => {}
            other => {
                let (expected, found) = other.map_or((*state, "missing"), |other| differing(state, other));
                verification
                    .mismatches
                    .push(mismatch(kind, name, expected, found));
            }
        }
    }
    // What else a given database holds is its owner's business.
    if kind == CopyKind::Scratch {
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

/// The parts of two states that are not the same, since states can be long.
fn differing<'a>(expected: &'a str, found: &'a str) -> (&'a str, &'a str) {
    let pairs = expected.split("; ").zip(found.split("; "));
    match pairs.into_iter().find(|(a, b)| a != b) {
        Some(pair) if expected.split("; ").count() == found.split("; ").count() => pair,
        _ => (expected, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_part_that_differs_is_said() {
        assert_eq!(
            differing(
                "owner a; grants none; unlogged",
                "owner a; grants b SELECT; unlogged"
            ),
            ("grants none", "grants b SELECT")
        );
        assert_eq!(differing("owner a; x", "owner a"), ("owner a; x", "owner a"));
    }
}
