//! Comparing a copy with what the source sent: table by table, and everything else by name.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use crate::model::contents::{Contents, LargeObjects, Table};
use crate::model::fingerprint::Fingerprint;
use crate::model::verification::{Finding, Mismatch, Severity, Verification};
use crate::ops::context::Progress;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::copy_out::{self, CopyError, Room, RowSink, Source};
use crate::postgres::error::Error;
use crate::postgres::identifier::Quoting;
use crate::postgres::relations::{self, Relation, RelationKind};
use crate::postgres::session::Session;
use crate::postgres::{facts, large_objects, sequences};

/// The copy to be compared.
pub(super) struct Copy {
    pub(super) connection: ConnectionSettings,
    pub(super) jobs: usize,
    pub(super) progress: Arc<dyn Progress>,
}

/// Compares everything that the contents name with what the copy holds.
pub(super) async fn compare(copy: &Copy, contents: &Contents) -> Result<Verification, Error> {
    let session = Session::connect(&copy.connection, "verify", None).await?;
    let mut verification = Verification {
        not_covered: contents.not_covered.clone(),
        ..Verification::default()
    };
    let relations = relations::list(&session).await?;
    tables(copy, &session, contents, &relations, &mut verification).await?;
    compare_sequences(&session, contents, &relations, &mut verification).await?;
    compare_large_objects(&session, contents, &mut verification).await?;
    compare_materialized_views(contents, &relations, &mut verification);
    compare_extensions(&session, contents, &mut verification).await?;
    compare_facts(&session, contents, &mut verification).await?;
    Ok(verification)
}

fn mismatch(kind: &str, name: &str, expected: impl ToString, found: impl ToString) -> Mismatch {
    Mismatch {
        kind: kind.to_owned(),
        name: name.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

/// What the comparing connections share.
struct Comparison {
    connection: ConnectionSettings,
    encoding: String,
    progress: Arc<dyn Progress>,
    queue: Mutex<VecDeque<(usize, Source)>>,
}

async fn tables(
    copy: &Copy,
    session: &Session,
    contents: &Contents,
    relations: &[Relation],
    verification: &mut Verification,
) -> Result<(), Error> {
    let by_name: BTreeMap<(&str, &str), &Relation> = relations
        .iter()
        .filter(|relation| relation.kind == RelationKind::Table)
        .map(|relation| ((relation.schema.as_str(), relation.name.as_str()), relation))
        .collect();
    let oids: Vec<u32> = by_name.values().map(|relation| relation.oid).collect();
    let columns = relations::columns(session, &oids).await?;
    let encoding = facts::encoding(session).await?;
    let mut queue = Vec::new();
    for (index, table) in contents.tables.iter().enumerate() {
        let name = table.display_name();
        let Some(relation) = by_name.get(&(table.schema.as_str(), table.name.as_str())) else {
            verification
                .mismatches
                .push(mismatch("table", &name, "the table", "no such table"));
            continue;
        };
        let found = columns.get(&relation.oid).cloned().unwrap_or_default();
        if found.stored != table.columns || found.generated != table.generated_columns {
            let expected = column_list(&table.columns, &table.generated_columns);
            let found = column_list(&found.stored, &found.generated);
            verification
                .mismatches
                .push(mismatch("columns", &name, expected, found));
            continue;
        }
        queue.push((relation.size_bytes, index, source(table, relation, &encoding)));
    }
    queue.sort_by_key(|(size_bytes, ..)| std::cmp::Reverse(*size_bytes));
    let jobs = copy.jobs.clamp(1, queue.len().max(1));
    let comparison = Arc::new(Comparison {
        connection: copy.connection.clone(),
        encoding,
        progress: Arc::clone(&copy.progress),
        queue: Mutex::new(
            queue
                .into_iter()
                .map(|(_, index, source)| (index, source))
                .collect(),
        ),
    });
    let mut workers = JoinSet::new();
    for _ in 0..jobs {
        workers.spawn(fingerprints(Arc::clone(&comparison)));
    }
    let mut found = BTreeMap::new();
    while let Some(result) = workers.join_next().await {
        let part = result
            .map_err(|e| Error::unexpected("compare the tables", session.description(), e.to_string()))?;
        found.extend(part?);
    }
    for (index, fingerprint) in found {
        judge(&contents.tables[index], fingerprint, verification);
    }
    Ok(())
}

fn column_list(
    stored: &[crate::model::contents::Column],
    generated: &[crate::model::contents::Column],
) -> String {
    let stored = stored
        .iter()
        .map(|column| format!("{} {}", column.name, column.type_name));
    let generated = generated
        .iter()
        .map(|column| format!("{} {} generated", column.name, column.type_name));
    stored.chain(generated).collect::<Vec<_>>().join(", ")
}

fn source(table: &Table, relation: &Relation, encoding: &str) -> Source {
    Source {
        oid: relation.oid,
        schema: table.schema.clone(),
        name: table.name.clone(),
        columns: table.columns.clone(),
        condition: table.condition.clone(),
        pages: None,
        quoting: if matches!(encoding, "UTF8" | "SQL_ASCII") {
            Quoting::Utf8
        } else {
            Quoting::AsciiOnly
        },
    }
}

/// Whether one table holds what the source sent.
fn judge(table: &Table, found: Fingerprint, verification: &mut Verification) {
    verification.tables += 1;
    verification.rows += found.rows;
    verification.bytes += found.bytes;
    let expected = table.fingerprint;
    if expected.rows != found.rows {
        let rows = |fingerprint: Fingerprint| format!("{} rows", fingerprint.rows);
        verification.mismatches.push(mismatch(
            "table",
            &table.display_name(),
            rows(expected),
            rows(found),
        ));
    } else if expected.hash != found.hash {
        let content =
            |fingerprint: Fingerprint| format!("{} rows, hash {}", fingerprint.rows, fingerprint.hash);
        verification.mismatches.push(mismatch(
            "table",
            &table.display_name(),
            content(expected),
            content(found),
        ));
    }
}

/// Takes fingerprints until the queue is empty.
async fn fingerprints(comparison: Arc<Comparison>) -> Result<Vec<(usize, Fingerprint)>, Error> {
    let session = Session::connect(&comparison.connection, "verify", Some(&comparison.encoding)).await?;
    let mut found = Vec::new();
    loop {
        let next = comparison
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some((index, source)) = next else {
            return Ok(found);
        };
        let mut counter = Counter::default();
        match copy_out::copy(&session, &source, &mut counter).await {
            Ok(_) => {}
            Err(CopyError::Server(error)) => return Err(error),
            Err(CopyError::Sink(never)) => match never {},
            Err(CopyError::LockRefused | CopyError::Moved) => {
                return Err(Error::unexpected(
                    "compare the tables",
                    session.description(),
                    "the copy changed meanwhile",
                ));
            }
        }
        comparison.progress.rows(counter.0.rows, counter.0.bytes);
        found.push((index, counter.0));
    }
}

/// Only counts and hashes.
#[derive(Default)]
struct Counter(Fingerprint);

#[async_trait::async_trait]
impl RowSink for Counter {
    type Error = std::convert::Infallible;

    fn row(&mut self, row: &[u8]) -> Result<Room, Self::Error> {
        self.0.add_row(row);
        Ok(Room::More)
    }

    async fn drain(&mut self) -> Result<(), Self::Error> {
        Ok(())
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
    for expected in &contents.sequences {
        let state = |sequence: &crate::model::contents::Sequence| {
            format!(
                "last value {}, is_called {}",
                sequence.last_value, sequence.is_called
            )
        };
        let found = found
            .iter()
            .find(|s| s.schema == expected.schema && s.name == expected.name);
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
        large_objects::read(session, &large_object, &mut discarded, &mut summary).await?;
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

/// A missing extension is a mismatch; another version is only worth knowing.
async fn compare_extensions(
    session: &Session,
    contents: &Contents,
    verification: &mut Verification,
) -> Result<(), Error> {
    let found = facts::extensions(session).await?;
    for expected in &contents.extensions {
        match found.iter().find(|extension| extension.name == expected.name) {
            None => verification.mismatches.push(mismatch(
                "extension",
                &expected.name,
                &expected.version,
                "not installed",
            )),
            Some(found) if found.version != expected.version => verification.findings.push(Finding {
                severity: Severity::Info,
                subject: format!("extension {}", expected.name),
                message: format!(
                    "version {} in the source, {} in the copy",
                    expected.version, found.version
                ),
            }),
            Some(_) => {}
        }
    }
    Ok(())
}

/// What may differ without making the backup bad.
async fn compare_facts(
    session: &Session,
    contents: &Contents,
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
    let mut settings = [expected.settings.clone(), found.settings];
    settings
        .iter_mut()
        .for_each(|settings| settings.sort_by(|a, b| (&a.role, &a.name).cmp(&(&b.role, &b.name))));
    if settings[0] != settings[1] {
        verification.mismatches.push(mismatch(
            "database settings",
            &expected.name,
            format!("{:?}", settings[0]),
            format!("{:?}", settings[1]),
        ));
    }
    Ok(())
}
