//! Comparing a copy with what the source sent: table by table, and everything else by name.

mod catalogue;
mod extensions;
mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::contents::{Contents, DatabaseFacts, DatabaseSetting, LargeObjects, Sequence, Table};
use crate::model::verification::{Finding, Mismatch, Severity, Verification};
use crate::ops::context::Progress;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::error::Error;
use crate::postgres::relations::{self, Relation, RelationKind};
use crate::postgres::session::Session;
use crate::postgres::{facts, large_objects, sequences};

/// The copy to be compared.
pub(super) struct Copy {
    pub(super) connection: ConnectionSettings,
    pub(super) kind: CopyKind,
    pub(super) jobs: usize,
    pub(super) progress: Arc<dyn Progress>,
}

/// Who made the copy's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CopyKind {
    Scratch,
    /// Ours, on a server that we share: its comment is our marker.
    MarkedScratch,
    /// Somebody else: its owner and grants are their business.
    GivenDatabase,
}

/// Compares everything that the contents name with what the copy holds.
pub(super) async fn compare(copy: &Copy, contents: &Contents) -> Result<Verification, Error> {
    let session = Session::connect(&copy.connection, "verify", None).await?;
    let mut verification = Verification {
        not_covered: contents.not_covered.clone(),
        ..Verification::default()
    };
    let mut relations = relations::list(&session).await?;
    relations::measure(
        &session,
        relations.iter_mut().filter(|relation| relation.has_rows()),
    )
    .await?;
    tables::compare(copy, &session, contents, &relations, &mut verification).await?;
    compare_sequences(&session, contents, &relations, &mut verification).await?;
    compare_large_objects(&session, contents, &mut verification).await?;
    let mut rest = Verification::default();
    compare_materialized_views(contents, &relations, &mut rest);
    extensions::compare(&session, contents, &mut rest).await?;
    compare_facts(&session, contents, copy.kind, &mut rest).await?;
    catalogue::compare(&session, contents, copy.kind, &mut rest).await?;
    verification.findings.extend(rest.findings);
    verification.not_covered.extend(rest.not_covered);
    let major = |server_version_num: i32| server_version_num / 10_000;
    if major(session.server_version_num()) == major(contents.database.server_version_num) {
        verification.mismatches.extend(rest.mismatches);
    } else {
        verification
            .findings
            .extend(rest.mismatches.into_iter().map(unknown));
    }
    Ok(verification)
}

/// Compares only the tables of the contents, in a database that holds other things as well.
pub(super) async fn compare_tables(copy: &Copy, contents: &Contents) -> Result<Verification, Error> {
    let session = Session::connect(&copy.connection, "verify", None).await?;
    let mut verification = Verification::default();
    let mut relations = relations::list(&session).await?;
    // The others may be locked, and their sizes are of no use here.
    relations.retain(|relation| {
        let named = |table: &Table| table.schema == relation.schema && table.name == relation.name;
        contents.tables.iter().any(named)
    });
    relations::measure(&session, relations.iter_mut()).await?;
    tables::compare(copy, &session, contents, &relations, &mut verification).await?;
    Ok(verification)
}

/// Another major version may show the same object otherwise: a difference proves nothing.
fn unknown(difference: Mismatch) -> Finding {
    let Mismatch {
        kind,
        name,
        expected,
        found,
    } = difference;
    Finding {
        severity: Severity::Warning,
        subject: format!("{kind} {name}"),
        message: format!(
            "unknown whether it is the same, since the copy's server is of another major version: {expected} / {found}"
        ),
    }
}

fn mismatch(kind: &str, name: &str, expected: impl ToString, found: impl ToString) -> Mismatch {
    Mismatch {
        kind: kind.to_owned(),
        name: name.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

async fn compare_sequences(
    session: &Session,
    contents: &Contents,
    relations: &[Relation],
    verification: &mut Verification,
) -> Result<(), Error> {
    let names: Vec<(String, String)> = relations
        .iter()
        .filter(|relation| relation.kind == RelationKind::Sequence)
        .map(|relation| (relation.schema.clone(), relation.name.clone()))
        .collect();
    let found = sequences::read(session, &names).await?;
    let found: BTreeMap<(&str, &str), &Sequence> = found
        .iter()
        .map(|sequence| ((sequence.schema.as_str(), sequence.name.as_str()), sequence))
        .collect();
    for expected in &contents.sequences {
        let state = |sequence: &Sequence| {
            format!(
                "last value {}, is_called {}",
                sequence.last_value, sequence.is_called
            )
        };
        let found = found
            .get(&(expected.schema.as_str(), expected.name.as_str()))
            .copied();
        if found != Some(expected) {
            let found = found.map_or_else(|| "no such sequence".to_owned(), state);
            let name = format!("{}.{}", expected.schema, expected.name);
            verification
                .mismatches
                .push(mismatch("sequence", &name, state(expected), found));
        }
    }
    Ok(())
}

async fn compare_large_objects(
    session: &Session,
    contents: &Contents,
    verification: &mut Verification,
) -> Result<(), Error> {
    let mut summary = LargeObjects::default();
    let mut discarded = large_objects::Script::discarding();
    for large_object in large_objects::list(session).await? {
        large_objects::read(session, &large_object, &mut discarded, &mut summary, |_| {
            std::future::ready(())
        })
        .await?;
    }
    let expected = &contents.large_objects;
    if (summary.count, summary.bytes, summary.fingerprint)
        != (expected.count, expected.bytes, expected.fingerprint)
    {
        let text = |summary: &LargeObjects| {
            format!(
                "{} of {} bytes, hash {}",
                summary.count, summary.bytes, summary.fingerprint.hash
            )
        };
        verification
            .mismatches
            .push(mismatch("large objects", "all", text(expected), text(&summary)));
    }
    Ok(())
}

fn compare_materialized_views(contents: &Contents, relations: &[Relation], verification: &mut Verification) {
    for expected in &contents.materialized_views {
        let found = relations.iter().find(|relation| {
            relation.kind == RelationKind::MaterializedView
                && relation.schema == expected.schema
                && relation.name == expected.name
        });
        if found.map(|relation| relation.populated) != Some(expected.populated) {
            let state = |populated| if populated { "populated" } else { "not populated" };
            let found = found.map_or("no such view", |relation| state(relation.populated));
            let name = format!("{}.{}", expected.schema, expected.name);
            verification.mismatches.push(mismatch(
                "materialized view",
                &name,
                state(expected.populated),
                found,
            ));
        }
    }
}

/// Names the settings that differ. Their values are not named: an application may keep a secret there.
fn differing(expected: &[DatabaseSetting], found: &[DatabaseSetting]) -> String {
    let only_in = |these: &[DatabaseSetting], those: &[DatabaseSetting]| -> Vec<String> {
        let missing = these.iter().filter(|setting| !those.contains(setting));
        let named = missing.map(|setting| match &setting.role {
            None => setting.name.clone(),
            Some(role) => format!("{} of {role}", setting.name),
        });
        named.collect()
    };
    let mut names = [only_in(expected, found), only_in(found, expected)].concat();
    names.sort();
    names.dedup();
    if names.is_empty() {
        "as in the source".to_owned()
    } else {
        format!("other: {}", names.join(", "))
    }
}

/// What may differ without making the backup bad.
async fn compare_facts(
    session: &Session,
    contents: &Contents,
    kind_of_copy: CopyKind,
    verification: &mut Verification,
) -> Result<(), Error> {
    let found = facts::database(session).await?;
    let expected = &contents.database;
    if found.collation_version != expected.collation_version {
        let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "unknown".to_owned());
        verification.findings.push(Finding {
            severity: Severity::Info,
            subject: "collation version".to_owned(),
            message: format!(
                "{} in the source, {} in the copy: text may sort differently",
                version(&expected.collation_version),
                version(&found.collation_version)
            ),
        });
    }
    let grants = |facts: &DatabaseFacts| format!("{:?}", facts.grants);
    let comment = |facts: &DatabaseFacts| format!("{:?}", facts.comment);
    let owner = |facts: &DatabaseFacts| facts.owner.clone();
    let pairs = [
        (
            "database settings",
            "as in the source".to_owned(),
            differing(&expected.settings, &found.settings),
        ),
        ("database grants", grants(expected), grants(&found)),
        ("database comment", comment(expected), comment(&found)),
        ("database owner", owner(expected), owner(&found)),
    ];
    for (kind, expected_text, found_text) in
        pairs.into_iter().filter(|(_, expected, found)| expected != found)
    {
        match kind_of_copy {
            CopyKind::MarkedScratch if kind == "database comment" => {
                if expected.comment.is_some() {
                    verification.findings.push(Finding {
                        severity: Severity::Info,
                        subject: kind.to_owned(),
                        message: "not compared: on a scratch server it is the copy's marker".to_owned(),
                    });
                }
            }
            CopyKind::Scratch | CopyKind::MarkedScratch => {
                verification
                    .mismatches
                    .push(mismatch(kind, &expected.name, expected_text, found_text));
            }
            CopyKind::GivenDatabase => verification.findings.push(Finding {
                severity: Severity::Warning,
                subject: kind.to_owned(),
                message: format!("{expected_text} in the source, {found_text} in the database restored into"),
            }),
        }
    }
    Ok(())
}
