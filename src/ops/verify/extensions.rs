//! Extensions of the copy against those of the source: versions, and what somebody has changed of their objects.

use std::collections::BTreeMap;

use crate::model::contents::{CatalogueObject, Contents, Extension, NotCovered};
use crate::model::verification::{Finding, Severity, Verification};
use crate::postgres::dependents::RELATIONS;
use crate::postgres::error::Error;
use crate::postgres::extension_objects::{self, ExtensionObjects};
use crate::postgres::facts;
use crate::postgres::session::Session;

use super::mismatch;

/// A missing extension is a mismatch; another version is only worth knowing. What was changed of an extension's objects
/// is in no dump: that is not covered, and no fault of the backup's.
pub(super) async fn compare(
    session: &Session,
    contents: &Contents,
    verification: &mut Verification,
) -> Result<(), Error> {
    let found = facts::extensions(session).await?;
    let objects = if same_major(session, contents, verification) {
        extension_objects::read(session).await?
    } else {
        ExtensionObjects::new()
    };
    for expected in &contents.extensions {
        let name = &expected.name;
        match found.iter().find(|extension| extension.name == *name) {
            None => {
                let missing = mismatch("extension", name, &expected.version, "not installed");
                verification.mismatches.push(missing);
            }
            Some(found) if found.version != expected.version => verification.findings.push(Finding {
                severity: Severity::Info,
                subject: format!("extension {name}"),
                message: format!(
                    "version {} in the source, {} in the copy: whether its objects were changed is unknown",
                    expected.version, found.version
                ),
            }),
            Some(_) => {
                // An older backup says nothing of them.
                if let (Some(found), false) = (objects.get(name), expected.objects.is_empty()) {
                    verification.not_covered.extend(changed(expected, found));
                }
            }
        }
    }
    Ok(())
}

/// Another major version writes the same definition otherwise.
fn same_major(session: &Session, contents: &Contents, verification: &mut Verification) -> bool {
    let major = |server_version_num: i32| server_version_num / 10_000;
    let same = major(session.server_version_num()) == major(contents.database.server_version_num);
    if !same {
        verification.findings.push(Finding {
            severity: Severity::Info,
            subject: "extensions".to_owned(),
            message:
                "unknown whether their objects were changed, since the copy's server is of another major version"
                    .to_owned(),
        });
    }
    same
}

type ByName<'a> = BTreeMap<(&'a str, &'a str), &'a CatalogueObject>;

/// What of an extension's objects is not as the extension made it in the copy.
fn changed(expected: &Extension, found: &[CatalogueObject]) -> Vec<NotCovered> {
    let (source, copy) = (by_name(&expected.objects), by_name(found));
    let extension = &expected.name;
    let added = only_in(&source, &copy).map(|object| {
        let reason = format!(
            "it was added to an object of the extension {extension}, or to the extension, and pg_dump leaves it out"
        );
        not_covered(object, reason)
    });
    let removed = only_in(&copy, &source).map(|object| {
        let reason = format!(
            "the extension {extension} makes it, and it was removed or renamed, which pg_dump leaves out"
        );
        not_covered(object, reason)
    });
    let changed = source.iter().filter_map(|(key, object)| {
        let labels = differing(&object.state, &copy.get(key)?.state);
        let reason = format!(
            "it is not as the extension {extension} makes it ({}), and pg_dump leaves the change out",
            labels.join(", ")
        );
        (!labels.is_empty()).then(|| not_covered(object, reason))
    });
    added.chain(removed).chain(changed).collect()
}

fn by_name<'a>(objects: &'a [CatalogueObject]) -> ByName<'a> {
    let entry = |object: &'a CatalogueObject| ((object.kind.as_str(), object.name.as_str()), object);
    objects.iter().map(entry).collect()
}

/// What only one side has. Of a table that only it has, the table alone: its columns and indexes go with it.
fn only_in<'a>(these: &ByName<'a>, those: &ByName<'a>) -> impl Iterator<Item = &'a CatalogueObject> {
    let only = these.iter().filter(|(key, _)| !those.contains_key(*key));
    let only: Vec<&CatalogueObject> = only.map(|(_, object)| *object).collect();
    let is_relation = |object: &CatalogueObject| object.class == RELATIONS && object.oid == object.relation;
    let relations: Vec<u32> = only
        .iter()
        .filter(|object| is_relation(object))
        .map(|object| object.oid)
        .collect();
    only.into_iter()
        .filter(move |object| is_relation(object) || !relations.contains(&object.relation))
}

/// The labels of what only one of two states has.
fn differing<'a>(expected: &'a str, found: &'a str) -> Vec<&'a str> {
    let parts = |state: &'a str| state.split("; ").filter(|part| !part.is_empty());
    let label = |part: &'a str| part.split_once(": ").map_or(part, |(label, _)| label);
    let only = |these: &'a str, those: &'a str| {
        parts(these).filter(move |part| !parts(those).any(|other| other == *part))
    };
    let mut labels: Vec<&str> = only(expected, found)
        .chain(only(found, expected))
        .map(label)
        .collect();
    labels.sort_unstable();
    labels.dedup();
    labels
}

fn not_covered(object: &CatalogueObject, reason: String) -> NotCovered {
    NotCovered {
        kind: object.kind.clone(),
        name: object.name.clone(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_said_by_its_label_and_once() {
        assert_eq!(
            differing("comment: a; definition: b", "comment: c; owner: d; definition: b"),
            ["comment", "owner"]
        );
        assert_eq!(differing("", ""), Vec::<&str>::new());
    }
}
