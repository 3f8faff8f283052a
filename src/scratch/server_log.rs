//! The scratch server's log. It is read for SQLSTATEs, which pg_restore does not report.
//!
//! The files lie where code of the restored copy can write, and the reader may be root: no link is followed,
//! nothing but a plain file is read, and no more than a bounded part of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

/// More than any restore writes at level warning; the newest part is kept.
const LIMIT_BYTES: u64 = 32 * 1024 * 1024;

/// How many lines an error quotes.
const QUOTED_LINES: usize = 5;

/// One line of the server's log, as far as it explains an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub time: String,
    pub database: String,
    pub process: String,
    pub severity: String,
    pub sqlstate: String,
    pub message: String,
    pub detail: String,
    pub hint: String,
    pub context: String,
    pub statement: String,
    pub application: String,
}

/// Reads `directory/log/server.csv`, where only `directory` is known to be a real one.
pub(super) fn read(directory: &Path) -> io::Result<Vec<LogEntry>> {
    let nothing_followed = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let run = open(directory, OFlag::O_DIRECTORY | nothing_followed, Mode::empty())?;
    let logs = openat(&run, "log", OFlag::O_DIRECTORY | nothing_followed, Mode::empty())?;
    let file = File::from(openat(&logs, "server.csv", nothing_followed, Mode::empty())?);
    Ok(parse(&tail(file, LIMIT_BYTES)?))
}

fn tail(mut file: File, limit: u64) -> io::Result<String> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("the log is not a plain file"));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(limit)))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines that the programs wrote, on one line: for an error.
pub(super) fn quote(output: &Path, directory: &Path) -> String {
    let mut lines: Vec<String> = File::open(output)
        .and_then(|file| tail(file, 64 * 1024))
        .unwrap_or_default()
        .lines()
        .map(|line| line.trim().to_owned())
        // The server says on stderr only that its words go to the log from now on.
        .filter(|line| {
            !line.is_empty() && !line.contains("redirecting log output") && !line.contains("HINT:")
        })
        .collect();
    lines.extend(read(directory).unwrap_or_default().into_iter().map(|entry| {
        let detail = if entry.detail.is_empty() {
            String::new()
        } else {
            format!(" ({})", entry.detail)
        };
        format!("{}: {}{detail}", entry.severity, entry.message)
    }));
    match lines.len() {
        0 => "it wrote nothing".into(),
        count => lines.split_off(count.saturating_sub(QUOTED_LINES)).join(" | "),
    }
}

fn parse(text: &str) -> Vec<LogEntry> {
    records(text).into_iter().filter_map(entry).collect()
}

/// The columns in use are the same in all versions from 13 on; newer ones add at the end.
fn entry(fields: Vec<String>) -> Option<LogEntry> {
    let field = |index: usize| fields.get(index).cloned();
    Some(LogEntry {
        time: field(0)?,
        database: field(2)?,
        process: field(3)?,
        severity: field(11)?,
        sqlstate: field(12)?,
        message: field(13)?,
        detail: field(14)?,
        hint: field(15)?,
        context: field(18)?,
        statement: field(19)?,
        application: field(22)?,
    })
}

/// Splits comma-separated values; fields in quotes may hold line feeds.
fn records(text: &str) -> Vec<Vec<String>> {
    let mut records = Vec::new();
    let (mut record, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            other => field.push(other),
        }
    }
    // What follows the last line feed is a line still being written.
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_with_quotes_and_line_feeds_is_read() {
        let text = "2026-01-01 00:00:00 UTC,\"a\",\"shop\",12,,,,,,,,ERROR,23505,\"duplicate \"\"key\"\"\",\"d\n1\",,,,c,\
                    \"select\n1;\",,,\"pg_restore\",\"client backend\",,0\nhalf a line";
        let entries = parse(text);
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].sqlstate, "23505");
        assert_eq!(entries[0].message, "duplicate \"key\"");
        assert_eq!(entries[0].statement, "select\n1;");
        assert_eq!(entries[0].application, "pg_restore");
    }

    #[test]
    fn a_link_in_place_of_the_log_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("log")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.path().join("log/server.csv")).unwrap();
        assert!(read(root.path()).is_err());
    }
}
