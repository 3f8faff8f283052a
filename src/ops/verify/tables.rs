//! Comparing tables: every row of the copy is read once, and counted and hashed as the source's rows were.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use crate::model::contents::{Column, Contents, LoadStage, Table, TableName};
use crate::model::fingerprint::Fingerprint;
use crate::model::verification::{Finding, Severity, Verification};
use crate::ops::context::Progress;
use crate::ops::ranges::ranges;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::copy_out::{self, CopyError, Room, RowSink, Source};
use crate::postgres::error::Error;
use crate::postgres::identifier::Quoting;
use crate::postgres::relations::{self, Relation, RelationKind};
use crate::postgres::session::Session;

use super::{Copy, mismatch};

/// What the comparing connections share.
struct Comparison {
    connection: ConnectionSettings,
    encoding: String,
    progress: Arc<dyn Progress>,
    queue: Mutex<VecDeque<(usize, Source)>>,
}

/// Compares the tables of the contents. Their rows are read in the source's encoding, whatever the copy's is.
pub(super) async fn compare(
    copy: &Copy,
    session: &Session,
    contents: &Contents,
    relations: &[Relation],
    verification: &mut Verification,
) -> Result<(), Error> {
    let by_name: BTreeMap<(&str, &str), &Relation> = relations
        .iter()
        .filter(|relation| relation.lockable())
        .map(|relation| ((relation.schema.as_str(), relation.name.as_str()), relation))
        .collect();
    let oids: Vec<u32> = by_name.values().map(|relation| relation.oid).collect();
    let columns = relations::columns(session, &oids).await?;
    let encoding = contents.database.encoding.clone();
    let mut compared = Vec::new();
    let total_bytes = contents.tables.iter().map(|table| table.fingerprint.bytes).sum();
    let mut queue = Vec::new();
    for (index, table) in restored(contents) {
        let name = table.display_name();
        let Some(relation) = by_name.get(&(table.schema.as_str(), table.name.as_str())) else {
            verification
                .mismatches
                .push(mismatch("table", &name, "the table", "no such table"));
            continue;
        };
        let found = columns.get(&relation.oid).cloned().unwrap_or_default();
        if !hold_the_same(&found.stored, &table.columns)
            || !hold_the_same(&found.generated, &table.generated_columns)
        {
            let expected = column_list(&table.columns, &table.generated_columns);
            let found = column_list(&found.stored, &found.generated);
            verification
                .mismatches
                .push(mismatch("columns", &name, expected, found));
            continue;
        }
        compared.push(index);
        for part in parts(table, relation, &by_name) {
            let whole = source(table, part, &encoding);
            for pages in ranges(part, total_bytes, copy.jobs, session.server_version_num()) {
                let source = Source {
                    pages,
                    ..whole.clone()
                };
                queue.push((part.size_bytes, index, source));
            }
        }
    }
    queue.sort_by_key(|(size_bytes, ..)| std::cmp::Reverse(*size_bytes));
    let jobs = copy.jobs.clamp(1, queue.len().max(1));
    let comparison = Comparison {
        connection: copy.connection.clone(),
        encoding,
        progress: Arc::clone(&copy.progress),
        queue: Mutex::new(
            queue
                .into_iter()
                .map(|(_, index, source)| (index, source))
                .collect(),
        ),
    };
    let found = take_fingerprints(Arc::new(comparison), jobs).await?;
    for index in compared {
        // Nothing was read where all partitions are missing.
        let found = found.get(&index).copied().unwrap_or_default();
        judge(&contents.tables[index], &found, verification);
    }
    Ok(())
}

/// The tables whose rows were loaded, by number.
fn restored(contents: &Contents) -> impl Iterator<Item = (usize, &Table)> {
    let tables = contents.tables.iter().enumerate();
    tables.filter(|(_, table)| table.load != LoadStage::Never)
}

/// The same columns, in whatever order: rows are read by name, and pg_dump does not keep the order of columns that a
/// child had before its parent got them.
fn hold_the_same(found: &[Column], expected: &[Column]) -> bool {
    let has = |expected: &Column| found.iter().any(|found| found.holds_the_same(expected));
    found.len() == expected.len() && expected.iter().all(has)
}

/// The relations that hold the table's rows: itself, or all partitions among which they may have moved. A partition
/// that is missing shows as missing rows.
fn parts<'a>(
    table: &Table,
    relation: &'a Relation,
    by_name: &BTreeMap<(&str, &str), &'a Relation>,
) -> Vec<&'a Relation> {
    if relation.kind == RelationKind::Table {
        return vec![relation];
    }
    let part = |name: &TableName| by_name.get(&(name.schema.as_str(), name.name.as_str())).copied();
    table.partitions.iter().filter_map(part).collect()
}

/// Runs the comparing connections, and adds up what they found of each table.
async fn take_fingerprints(
    comparison: Arc<Comparison>,
    jobs: usize,
) -> Result<BTreeMap<usize, Found>, Error> {
    let mut workers = JoinSet::new();
    for _ in 0..jobs {
        workers.spawn(fingerprints(Arc::clone(&comparison)));
    }
    let mut found: BTreeMap<usize, Found> = BTreeMap::new();
    while let Some(result) = workers.join_next().await {
        let failed =
            |e: tokio::task::JoinError| Error::unexpected("compare the tables", "the copy", e.to_string());
        for (index, part) in result.map_err(failed)?? {
            let sum = found.entry(index).or_default();
            sum.stored.merge(part.stored);
            sum.whole.merge(part.whole);
        }
    }
    Ok(found)
}

fn column_list(stored: &[Column], generated: &[Column]) -> String {
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
        schema: relation.schema.clone(),
        name: relation.name.clone(),
        columns: table.columns.clone(),
        generated: table.generated_columns.clone(),
        condition: table.condition.clone(),
        pages: None,
        quoting: Quoting::for_encoding(encoding),
    }
}

/// Whether one table holds what the source sent.
fn judge(table: &Table, found: &Found, verification: &mut Verification) {
    let Found { stored: found, whole } = *found;
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
    } else if table
        .generated_fingerprint
        .is_some_and(|expected| expected.hash != whole.hash)
    {
        verification.findings.push(Finding {
            severity: Severity::Warning,
            subject: format!("table {}", table.display_name()),
            message: format!(
                "its generated columns ({}) do not reproduce: computed anew from the same rows, they hold other values",
                column_list(&[], &table.generated_columns)
            ),
        });
    }
}

/// Takes fingerprints until the queue is empty.
async fn fingerprints(comparison: Arc<Comparison>) -> Result<Vec<(usize, Found)>, Error> {
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
        let mut counter = Counter {
            has_generated: !source.generated.is_empty(),
            ..Counter::default()
        };
        match copy_out::copy(&session, &source, &mut counter).await {
            Ok(_) => {}
            Err(CopyError::Server(error) | CopyError::Row { error, .. }) => return Err(error),
            Err(CopyError::Sink(never)) => match never {},
            Err(CopyError::LockRefused | CopyError::Moved) => {
                return Err(Error::unexpected(
                    "compare the tables",
                    session.description(),
                    "the copy changed meanwhile",
                ));
            }
        }
        let counted = counter.found;
        comparison
            .progress
            .rows(counted.stored.rows, counted.stored.bytes);
        found.push((index, counted));
    }
}

/// What a part of a table holds.
#[derive(Clone, Copy, Default)]
struct Found {
    stored: Fingerprint,
    /// With the generated columns; empty for a table without.
    whole: Fingerprint,
}

/// Only counts and hashes.
#[derive(Default)]
struct Counter {
    has_generated: bool,
    found: Found,
}

#[async_trait::async_trait]
impl RowSink for Counter {
    type Error = std::convert::Infallible;

    fn row(&mut self, row: &[u8], whole: &[u8]) -> Result<Room, Self::Error> {
        self.found.stored.add_row(row);
        if self.has_generated {
            self.found.whole.add_row(whole);
        }
        Ok(Room::More)
    }

    async fn drain(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}
