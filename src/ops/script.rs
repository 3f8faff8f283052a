//! The stored data objects: psql scripts of SET lines and COPY blocks, packed.
//!
//! Each explains itself: `zstd -d | psql -X -v ON_ERROR_STOP=1` restores it by hand. The reader understands only what
//! the writer writes; anything else is damage.

use std::io::{BufRead, BufReader};
use std::sync::Arc;

use bytes::Bytes;

use crate::encryption::Recipients;
use crate::model::fingerprint::Fingerprint;

use super::packing::{Packer, Unpacker};

/// Objects aim at this size as stored: large enough to amortise a request, small enough to retry and to hold in memory.
const OBJECT_STORED_BYTES: usize = 8 << 20;
/// A well-compressible table is cut here as well, so that restoring it can still go on in parallel.
const OBJECT_TEXT_BYTES: u64 = 256 << 20;
/// Rows are handed to the compressor in pieces of this size: calling it for every row would cost more than it does.
const PENDING_BYTES: usize = 128 << 10;
/// The line that ends the rows of a COPY block.
const END_OF_ROWS: &[u8] = b"\\.\n";

/// A finished object, and which rows of which tables are in it, in their order.
pub(super) struct FinishedScript {
    pub(super) bytes: Bytes,
    pub(super) parts: Vec<(usize, Fingerprint)>,
}

/// Writes one script after another.
pub(super) struct ScriptWriter {
    /// SET lines at the head of each script.
    header: Vec<u8>,
    recipients: Option<Arc<Recipients>>,
    packer: Option<Packer>,
    pending: Vec<u8>,
    text_bytes: u64,
    parts: Vec<(usize, Fingerprint)>,
    open: Option<OpenPart>,
}

struct OpenPart {
    table: usize,
    copy_statement: String,
    fingerprint: Fingerprint,
}

impl ScriptWriter {
    pub(super) fn new(header: Vec<u8>, recipients: Option<Arc<Recipients>>) -> Self {
        Self {
            header,
            recipients,
            packer: None,
            pending: Vec::with_capacity(PENDING_BYTES * 2),
            text_bytes: 0,
            parts: Vec::new(),
            open: None,
        }
    }

    /// Begins the rows of a table; nothing is written before the first of them.
    pub(super) fn begin_table(&mut self, table: usize, copy_statement: String) {
        self.open = Some(OpenPart {
            table,
            copy_statement,
            fingerprint: Fingerprint::default(),
        });
    }

    /// Adds a row to the open table. True when the object has reached its size.
    pub(super) fn row(&mut self, row: &[u8]) -> std::io::Result<bool> {
        let Some(open) = self.open.as_mut() else {
            return Err(std::io::Error::other("a row without a table"));
        };
        if open.fingerprint.rows == 0 {
            if self.packer.is_none() {
                self.packer = Some(Packer::new(self.recipients.as_deref())?);
                self.pending.extend_from_slice(&self.header);
            }
            self.pending.extend_from_slice(open.copy_statement.as_bytes());
            self.pending.push(b'\n');
        }
        open.fingerprint.add_row(row);
        self.pending.extend_from_slice(row);
        self.pending.push(b'\n');
        if self.pending.len() < PENDING_BYTES {
            return Ok(false);
        }
        self.write_pending()?;
        let stored = self.packer.as_ref().map_or(0, Packer::stored_bytes);
        Ok(stored >= OBJECT_STORED_BYTES || self.text_bytes >= OBJECT_TEXT_BYTES)
    }

    /// Ends the open table. Returns what was counted since it began or since the last cut.
    pub(super) fn end_table(&mut self) {
        if let Some(open) = self.open.take() {
            self.close_part(open.table, open.fingerprint);
        }
    }

    fn close_part(&mut self, table: usize, fingerprint: Fingerprint) {
        if fingerprint.rows > 0 {
            self.pending.extend_from_slice(END_OF_ROWS);
            self.parts.push((table, fingerprint));
        }
    }

    fn write_pending(&mut self) -> std::io::Result<()> {
        if let Some(packer) = self.packer.as_mut() {
            packer.write(&self.pending)?;
            self.text_bytes += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }

    /// Finishes the object, if there is anything in it. An open table goes on in the next one.
    pub(super) fn cut(&mut self) -> std::io::Result<Option<FinishedScript>> {
        if let Some(mut open) = self.open.take() {
            let fingerprint = std::mem::take(&mut open.fingerprint);
            self.close_part(open.table, fingerprint);
            self.open = Some(open);
        }
        self.write_pending()?;
        self.text_bytes = 0;
        let Some(packer) = self.packer.take() else {
            return Ok(None);
        };
        Ok(Some(FinishedScript {
            bytes: packer.finish()?,
            parts: std::mem::take(&mut self.parts),
        }))
    }
}

/// Something met while reading a script.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A COPY statement: rows follow.
    Copy(String),
    /// Whole rows, each with its line feed.
    Rows(Bytes),
    /// The rows of the COPY statement are complete.
    EndOfRows,
}

/// Reads a script piece by piece, without holding its text.
pub(super) struct ScriptReader {
    lines: BufReader<Unpacker>,
    in_rows: bool,
    /// A line read ahead that belongs to the next piece.
    ended: bool,
}

/// Rows are handed on in pieces of about this size.
const ROWS_BYTES: usize = 256 << 10;

impl ScriptReader {
    pub(super) fn new(object: Unpacker) -> Self {
        Self {
            lines: BufReader::with_capacity(ROWS_BYTES, object),
            in_rows: false,
            ended: false,
        }
    }

    /// The next piece, or `None` at the end.
    ///
    /// # Errors
    /// When the object is damaged: it does not decompress, or is not such a script.
    pub(super) fn next_piece(&mut self) -> std::io::Result<Option<Piece>> {
        if self.ended {
            self.ended = false;
            self.in_rows = false;
            return Ok(Some(Piece::EndOfRows));
        }
        if self.in_rows {
            self.rows().map(Some)
        } else {
            self.statement()
        }
    }

    fn statement(&mut self) -> std::io::Result<Option<Piece>> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let text = line.trim_end_matches('\n');
            if text.starts_with("COPY ") && text.ends_with(" FROM stdin;") {
                self.in_rows = true;
                return Ok(Some(Piece::Copy(text.to_owned())));
            }
            if !(text.is_empty() || text.starts_with("SET ") || text.starts_with("-- ")) {
                return Err(std::io::Error::other("an unknown line in a data object"));
            }
        }
    }

    fn rows(&mut self) -> std::io::Result<Piece> {
        let mut rows = Vec::with_capacity(ROWS_BYTES + (16 << 10));
        while rows.len() < ROWS_BYTES {
            let start = rows.len();
            if self.lines.read_until(b'\n', &mut rows)? == 0 {
                return Err(std::io::Error::other(
                    "a data object ends in the middle of its rows",
                ));
            }
            if &rows[start..] == END_OF_ROWS {
                rows.truncate(start);
                if rows.is_empty() {
                    self.in_rows = false;
                    return Ok(Piece::EndOfRows);
                }
                self.ended = true;
                break;
            }
        }
        Ok(Piece::Rows(Bytes::from(rows)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// COPY text never holds a bare line feed or a row that is `\.`.
    fn rows() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let row = prop::collection::vec(any::<u8>().prop_filter("no line feed", |b| *b != b'\n'), 0..40);
        prop::collection::vec(row.prop_filter("no end mark", |row| row != b"\\."), 0..200)
    }

    fn reader(object: Bytes) -> ScriptReader {
        ScriptReader::new(Unpacker::new("1.sql.zst", object, None).unwrap())
    }

    fn read(object: Bytes) -> Vec<(String, Vec<u8>)> {
        let mut reader = reader(object);
        let mut tables = Vec::new();
        while let Some(piece) = reader.next_piece().unwrap() {
            match piece {
                Piece::Copy(statement) => tables.push((statement, Vec::new())),
                Piece::Rows(rows) => tables.last_mut().unwrap().1.extend_from_slice(&rows),
                Piece::EndOfRows => {}
            }
        }
        tables
    }

    proptest! {
        #[test]
        fn rows_read_back_as_they_were_written(first in rows(), second in rows(), cut_after in 0usize..200) {
            let mut writer = ScriptWriter::new(b"SET a = 'b';\n".to_vec(), None);
            let mut finished = Vec::new();
            for (table, rows) in [&first, &second].into_iter().enumerate() {
                writer.begin_table(table, format!("COPY t{table} FROM stdin;"));
                for (number, row) in rows.iter().enumerate() {
                    writer.row(row).unwrap();
                    if number == cut_after {
                        finished.extend(writer.cut().unwrap());
                    }
                }
                writer.end_table();
            }
            finished.extend(writer.cut().unwrap());

            let mut text: [Vec<u8>; 2] = Default::default();
            let mut fingerprints = [Fingerprint::default(); 2];
            for script in finished {
                let tables = read(script.bytes);
                prop_assert_eq!(tables.len(), script.parts.len());
                for ((statement, rows), (table, fingerprint)) in tables.into_iter().zip(script.parts) {
                    prop_assert_eq!(statement, format!("COPY t{table} FROM stdin;"));
                    text[table].extend(rows);
                    fingerprints[table].merge(fingerprint);
                }
            }
            for (table, rows) in [first, second].into_iter().enumerate() {
                let mut expected = Fingerprint::default();
                rows.iter().for_each(|row| expected.add_row(row));
                prop_assert_eq!(fingerprints[table], expected);
                let lines: Vec<u8> = rows.iter().flat_map(|row| [row.as_slice(), b"\n"].concat()).collect();
                prop_assert_eq!(&text[table], &lines);
            }
        }
    }

    #[test]
    fn a_truncated_object_is_an_error_and_never_fewer_rows() {
        let mut writer = ScriptWriter::new(Vec::new(), None);
        writer.begin_table(0, "COPY t FROM stdin;".into());
        for number in 0..10_000 {
            writer.row(format!("{number}").as_bytes()).unwrap();
        }
        let script = writer.cut().unwrap().unwrap();
        for length in [script.bytes.len() / 2, script.bytes.len() - 1] {
            let mut reader = reader(script.bytes.slice(..length));
            let result =
                std::iter::from_fn(|| reader.next_piece().transpose()).collect::<Result<Vec<_>, _>>();
            assert!(result.is_err(), "{length} bytes");
        }
    }

    #[test]
    fn tables_without_rows_leave_nothing_behind() {
        let mut writer = ScriptWriter::new(b"SET a = 'b';\n".to_vec(), None);
        writer.begin_table(0, "COPY t FROM stdin;".into());
        writer.end_table();
        assert!(writer.cut().unwrap().is_none());
    }
}
