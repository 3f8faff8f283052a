//! Reading a table's rows as COPY text.

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, pin_mut};

use crate::model::contents::{Column, Table};

use super::error::{Error, ErrorKind};
use super::identifier::Quoting;
use super::session::Session;

/// Where the rows of one table come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub columns: Vec<Column>,
    /// Read as well, and not stored: a copy computes them anew.
    pub generated: Vec<Column>,
    /// Which rows, as SQL (`WHERE …`).
    pub condition: Option<String>,
    /// Half-open range of pages; the last range of a table has no end, since pages may be added at any time.
    pub pages: Option<(u32, Option<u32>)>,
    pub quoting: Quoting,
}

impl Source {
    fn table(&self) -> String {
        self.quoting.qualified(&self.schema, &self.name)
    }

    fn column_list(&self) -> String {
        self.names(self.columns.iter())
    }

    fn names<'a>(&self, columns: impl Iterator<Item = &'a Column>) -> String {
        let names: Vec<String> = columns.map(|c| self.quoting.identifier(&c.name)).collect();
        names.join(", ")
    }

    /// ` WHERE …` for the rows wanted, or nothing.
    fn restriction(&self) -> String {
        match (&self.pages, &self.condition) {
            (Some((from, to)), _) => {
                let end = to
                    .map(|page| format!(" AND ctid < '({page},0)'"))
                    .unwrap_or_default();
                format!(" WHERE ctid >= '({from},0)'{end}")
            }
            (None, Some(condition)) => format!(" {condition}"),
            (None, None) => String::new(),
        }
    }

    /// COPY of a table knows neither conditions nor generated columns.
    fn is_query(&self) -> bool {
        self.pages.is_some() || self.condition.is_some() || !self.generated.is_empty()
    }

    /// The COPY statement that sends the rows.
    pub fn copy_statement(&self) -> String {
        if self.is_query() {
            // ONLY: a parent would return its children's rows as well.
            let columns = self.names(self.columns.iter().chain(&self.generated));
            let table = self.table();
            return format!(
                "COPY (SELECT {columns} FROM ONLY {table}{}) TO STDOUT",
                self.restriction()
            );
        }
        format!(
            "COPY {}{} TO STDOUT",
            self.table(),
            in_parentheses(&self.column_list())
        )
    }

    /// The part of a row that is stored: what stands before the generated columns.
    fn stored<'a>(&self, row: &'a [u8]) -> &'a [u8] {
        if self.generated.is_empty() {
            return row;
        }
        // COPY text writes a tab inside a value as `\t`: each tab ends a column.
        match self.columns.len().checked_sub(1) {
            None => &[],
            Some(last) => {
                let end = memchr::memchr_iter(b'\t', row).nth(last);
                &row[..end.unwrap_or(row.len())]
            }
        }
    }

    /// Locks the table in the open transaction, or is refused at once.
    fn lock_statement(&self) -> String {
        format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE NOWAIT", self.table())
    }
}

/// The COPY statement that loads a table's rows, as it stands in a stored script.
pub fn load_statement(table: &Table, quoting: Quoting) -> String {
    let names: Vec<String> = table
        .columns
        .iter()
        .map(|c| quoting.identifier(&c.name))
        .collect();
    format!(
        "COPY {}{} FROM stdin;",
        quoting.qualified(&table.schema, &table.name),
        in_parentheses(&names.join(", "))
    )
}

/// A table without columns is copied without a list: `()` is no SQL.
fn in_parentheses(columns: &str) -> String {
    if columns.is_empty() {
        String::new()
    } else {
        format!(" ({columns})")
    }
}

/// Whether a sink can take more rows at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    More,
    /// `drain` is to be awaited before the next row.
    Full,
}

/// Takes in rows, one by one and without their line feeds.
///
/// Taking a row is synchronous, since there are millions; only `drain` may wait.
#[async_trait::async_trait]
pub trait RowSink: Send {
    type Error: Send;

    /// `whole` is the row with its generated columns at the end; without such columns it is the row.
    fn row(&mut self, row: &[u8], whole: &[u8]) -> Result<Room, Self::Error>;

    async fn drain(&mut self) -> Result<(), Self::Error>;
}

/// Why the rows of a table did not arrive.
#[derive(Debug)]
pub enum CopyError<S> {
    /// DDL waits for the table: whoever holds a lock on it already can still read.
    LockRefused,
    /// The table was truncated, rewritten or replaced after the snapshot.
    Moved,
    /// Reading broke off after so many rows.
    Row {
        after: u64,
        error: Error,
    },
    Server(Error),
    Sink(S),
}

impl<S> From<Error> for CopyError<S> {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

/// Whether the storage has to be compared with the snapshot's, since nobody locked the table before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageCheck {
    HeldByExporter,
    CompareWithSnapshot,
}

/// Opens a short transaction: lock first, adopt the snapshot second.
pub async fn begin<S>(
    session: &Session,
    source: &Source,
    snapshot_name: &str,
    check: StorageCheck,
) -> Result<(), CopyError<S>> {
    let mut statements = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}; SET TRANSACTION SNAPSHOT '{snapshot_name}'",
        source.lock_statement()
    );
    if source.is_query() {
        // The rows come in the order in which they lie, so that one that cannot be sent is found again.
        statements.push_str("; SET LOCAL max_parallel_workers_per_gather = 0");
    }
    let begun = session
        .batch(&format!("adopt the snapshot for {}", source.table()), &statements)
        .await;
    match begun {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::LockTimeout => {
            session.batch("roll back", "ROLLBACK").await?;
            return Err(CopyError::LockRefused);
        }
        Err(error) => return Err(error.into()),
    }
    if check == StorageCheck::CompareWithSnapshot {
        // The name may lead to another table by now: it is that one, then, which was locked.
        let sql = "SELECT c.relfilenode = pg_catalog.pg_relation_filenode(c.oid)
                          AND EXISTS (SELECT FROM pg_catalog.pg_locks l
                                       WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation'
                                         AND l.relation = c.oid AND l.mode = 'AccessShareLock' AND l.granted)
                     FROM pg_catalog.pg_class c WHERE c.oid = $1";
        let rows = session
            .select("compare the table's storage", sql, &[&source.oid])
            .await?;
        if rows.first().and_then(|row| row.get::<_, Option<bool>>(0)) != Some(true) {
            return Err(CopyError::Moved);
        }
    }
    Ok(())
}

/// Ends the transaction that `begin` opened.
pub async fn commit(session: &Session) -> Result<(), Error> {
    session.batch("commit", "COMMIT").await
}

/// Streams the rows into the sink and returns how many there were. The session's transaction is the caller's.
pub async fn copy<S: RowSink>(
    session: &Session,
    source: &Source,
    sink: &mut S,
) -> Result<u64, CopyError<S::Error>> {
    let tried = || format!("read {}", source.table());
    let stream = session.copy_out(&source.copy_statement()).await;
    let stream = stream.map_err(|e| Error::query(tried(), session.description(), e))?;
    let stream = stream.map_err(|e| Error::query(tried(), session.description(), e));
    let ended_early = || {
        Error::unexpected(
            tried(),
            session.description(),
            "the rows ended in the middle of a row",
        )
    };
    rows_of(stream, source, sink, ended_early).await
}

/// Cuts the messages of a COPY into rows, wherever they end.
async fn rows_of<S: RowSink>(
    stream: impl Stream<Item = Result<Bytes, Error>>,
    source: &Source,
    sink: &mut S,
    ended_early: impl FnOnce() -> Error,
) -> Result<u64, CopyError<S::Error>> {
    pin_mut!(stream);
    let mut rows = 0;
    // The server sends one message a row, but the protocol does not promise it.
    let mut incomplete: Vec<u8> = Vec::new();
    while let Some(message) = stream.next().await {
        let message = message.map_err(|error| CopyError::Row { after: rows, error })?;
        let mut rest: &[u8] = &message;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let room = if incomplete.is_empty() {
                sink.row(source.stored(&rest[..end]), &rest[..end])
            } else {
                incomplete.extend_from_slice(&rest[..end]);
                let room = sink.row(source.stored(&incomplete), &incomplete);
                incomplete.clear();
                room
            };
            if room.map_err(CopyError::Sink)? == Room::Full {
                sink.drain().await.map_err(CopyError::Sink)?;
            }
            rows += 1;
            rest = &rest[end + 1..];
        }
        incomplete.extend_from_slice(rest);
    }
    if incomplete.is_empty() {
        Ok(rows)
    } else {
        Err(ended_early().into())
    }
}

/// Where the row stands at which reading broke off. In the open transaction, with the settings of our sessions, the
/// server reads in the order in which the rows lie.
pub async fn locate(session: &Session, source: &Source, after: u64) -> Result<Option<String>, Error> {
    let sql = format!(
        "SELECT ctid FROM ONLY {}{} OFFSET {after} LIMIT 1",
        source.table(),
        source.restriction()
    );
    let tried = format!("find the row of {} that cannot be read", source.table());
    let rows = session.select_text(&tried, &sql).await?;
    Ok(rows.first().and_then(|row| row.get(0)).map(str::to_owned))
}

/// How many rows the server itself counts in the snapshot.
pub async fn count(session: &Session, source: &Source) -> Result<u64, Error> {
    let sql = format!(
        "SELECT pg_catalog.count(*) FROM ONLY {}{}",
        source.table(),
        source.restriction()
    );
    let rows = session
        .select_text(&format!("count the rows of {}", source.table()), &sql)
        .await?;
    let count = rows
        .first()
        .and_then(|row| row.get(0))
        .and_then(|text| text.parse().ok());
    count.ok_or_else(|| Error::unexpected("count rows", session.description(), "no number came back"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn source(columns: &[&str]) -> Source {
        let column = |name: &&str| Column {
            name: (*name).into(),
            type_name: "integer".into(),
            collation: None,
            not_null: false,
            expression: None,
        };
        Source {
            oid: 1,
            schema: "public".into(),
            name: "t".into(),
            columns: columns.iter().map(column).collect(),
            generated: Vec::new(),
            condition: None,
            pages: None,
            quoting: Quoting::Utf8,
        }
    }

    #[test]
    fn a_table_without_columns_is_copied_without_a_list() {
        assert_eq!(source(&[]).copy_statement(), r#"COPY "public"."t" TO STDOUT"#);
        assert_eq!(
            source(&["a", "b"]).copy_statement(),
            r#"COPY "public"."t" ("a", "b") TO STDOUT"#
        );
    }

    #[test]
    fn generated_columns_are_read_behind_the_others_and_not_stored() {
        let mut source = source(&["a", "b"]);
        assert_eq!(source.stored(b"1\t2"), b"1\t2");
        source.generated = vec![source.columns[1].clone()];
        assert_eq!(
            source.copy_statement(),
            r#"COPY (SELECT "a", "b", "b" FROM ONLY "public"."t") TO STDOUT"#
        );
        assert_eq!(source.stored(b"1\ta\\tb\t3"), b"1\ta\\tb");
        source.columns.clear();
        assert_eq!(source.stored(b"3"), b"");
    }

    #[test]
    fn the_last_range_has_no_end_and_children_stay_out() {
        let mut source = source(&["a"]);
        source.pages = Some((8, Some(16)));
        assert_eq!(
            source.copy_statement(),
            r#"COPY (SELECT "a" FROM ONLY "public"."t" WHERE ctid >= '(8,0)' AND ctid < '(16,0)') TO STDOUT"#
        );
        source.pages = Some((16, None));
        assert_eq!(
            source.copy_statement(),
            r#"COPY (SELECT "a" FROM ONLY "public"."t" WHERE ctid >= '(16,0)') TO STDOUT"#
        );
    }

    #[derive(Default)]
    struct Rows(Vec<(Vec<u8>, Vec<u8>)>);

    #[async_trait::async_trait]
    impl RowSink for Rows {
        type Error = std::convert::Infallible;

        fn row(&mut self, row: &[u8], whole: &[u8]) -> Result<Room, Self::Error> {
            self.0.push((row.to_vec(), whole.to_vec()));
            Ok(Room::More)
        }

        async fn drain(&mut self) -> Result<(), Self::Error> {
            Ok(())
        }
    }

    /// A value as COPY writes it: neither tab nor line feed stands for itself.
    fn copy_text(value: &[u8]) -> Vec<u8> {
        let escape = |byte: &u8| match byte {
            b'\t' => b"\\t".to_vec(),
            b'\n' => b"\\n".to_vec(),
            b'\\' => b"\\\\".to_vec(),
            other => vec![*other],
        };
        value.iter().flat_map(escape).collect()
    }

    proptest! {
        #[test]
        fn rows_are_the_same_wherever_the_messages_are_cut(
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..60),
            stored in 0usize..4,
            generated in 0usize..4,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut source = source(&["a", "b", "c"][..stored.min(3)]);
            source.generated = vec![Column { name: "g".into(), type_name: "text".into(), collation: None, not_null: false, expression: None }; generated];
            let columns = source.columns.len() + generated;
            let rows: Vec<Vec<Vec<u8>>> = values
                .chunks_exact(columns.max(1))
                .map(|row| row.iter().take(columns).map(|value| copy_text(value)).collect())
                .collect();
            let text: Vec<u8> = rows.iter().flat_map(|row| [row.join(&b'\t'), b"\n".to_vec()].concat()).collect();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            ends.extend([0, text.len()]);
            ends.sort_unstable();
            let messages: Vec<Result<Bytes, Error>> = ends
                .windows(2)
                .map(|ends| Ok(Bytes::copy_from_slice(&text[ends[0]..ends[1]])))
                .collect();
            let mut found = Rows::default();
            let never = || Error::unexpected("read", "t", "ended early");
            let read = rows_of(futures_util::stream::iter(messages), &source, &mut found, never);
            let count = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(read).unwrap();
            prop_assert_eq!(count, rows.len() as u64);
            let expected: Vec<(Vec<u8>, Vec<u8>)> = rows
                .iter()
                .map(|row| (row[..source.columns.len()].join(&b'\t'), row.join(&b'\t')))
                .collect();
            prop_assert_eq!(found.0, expected);
        }

        #[test]
        fn rows_that_end_in_the_middle_are_an_error(text in prop::collection::vec(any::<u8>(), 1..40)) {
            prop_assume!(text.last() != Some(&b'\n'));
            let message = Ok(Bytes::from(text));
            let early = || Error::unexpected("read", "t", "ended early");
            let mut rows = Rows::default();
            let source = source(&["a"]);
            let read = rows_of(futures_util::stream::iter([message]), &source, &mut rows, early);
            let result = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(read);
            prop_assert!(matches!(result, Err(CopyError::Server(_))));
        }
    }
}
