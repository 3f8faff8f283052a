//! Comparing tables: every row of the copy is read once, and counted and hashed as the source's rows were.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use crate::model::contents::{Column, Contents, Table};
use crate::model::fingerprint::Fingerprint;
use crate::model::verification::Verification;
use crate::ops::context::Progress;
use crate::ops::ranges::ranges;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::copy_out::{self, CopyError, Room, RowSink, Source};
use crate::postgres::error::Error;
use crate::postgres::facts;
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

pub(super) async fn compare(
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
    let total_bytes = contents.tables.iter().map(|table| table.fingerprint.bytes).sum();
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
        let whole = source(table, relation, &encoding);
        for pages in ranges(relation, total_bytes, copy.jobs, session.server_version_num()) {
            queue.push((
                relation.size_bytes,
                index,
                Source {
                    pages,
                    ..whole.clone()
                },
            ));
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
    for (index, fingerprint) in found {
        judge(&contents.tables[index], fingerprint, verification);
    }
    Ok(())
}

/// Runs the comparing connections, and adds up what they found of each table.
async fn take_fingerprints(
    comparison: Arc<Comparison>,
    jobs: usize,
) -> Result<BTreeMap<usize, Fingerprint>, Error> {
    let mut workers = JoinSet::new();
    for _ in 0..jobs {
        workers.spawn(fingerprints(Arc::clone(&comparison)));
    }
    let mut found: BTreeMap<usize, Fingerprint> = BTreeMap::new();
    while let Some(result) = workers.join_next().await {
        let failed =
            |e: tokio::task::JoinError| Error::unexpected("compare the tables", "the copy", e.to_string());
        for (index, part) in result.map_err(failed)?? {
            found.entry(index).or_default().merge(part);
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
        schema: table.schema.clone(),
        name: table.name.clone(),
        columns: table.columns.clone(),
        condition: table.condition.clone(),
        pages: None,
        quoting: Quoting::for_encoding(encoding),
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
