//! The only file that prints: facts to stdout, talk to stderr.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::exit::Failure;

/// Facts as JSON.
pub(super) fn json(facts: &impl Serialize) -> anyhow::Result<()> {
    out(&serde_json::to_string_pretty(facts)?);
    Ok(())
}

/// JSON of one fact where one was asked for, and an array where several were.
pub(super) fn json_of(facts: &[impl Serialize], one: bool) -> anyhow::Result<()> {
    match facts {
        [fact] if one => json(fact),
        facts => json(&facts),
    }
}

/// Text as it is.
pub(super) fn text(text: &str) {
    out(text);
}

/// Bytes as they are.
pub(super) fn bytes(bytes: &[u8]) -> io::Result<()> {
    io::stdout().write_all(bytes)
}

/// Talk: what a person watching should read.
pub(super) fn talk(text: &str) {
    err(text);
}

/// Why the command failed, with its causes.
pub(super) fn error(failure: &Failure) {
    err(&format!(
        "ernstfall: {}",
        crate::ops::chain(failure.error.as_ref())
    ));
}

/// Rows under headings, without frames: to be read and to be cut by other programs.
pub(super) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    table.add_rows(rows);
    let lines = table.to_string();
    let lines: Vec<&str> = lines.lines().map(str::trim_end).collect();
    out(&lines.join("\n"));
}

/// A line to stdout. Whoever reads it may have had enough: that is no reason to stop the work.
fn out(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// A line to stderr, likewise.
fn err(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Seconds as a person reads them.
pub(super) fn seconds(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else {
        return "unknown".to_owned();
    };
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), s % 60.0),
        s if s < 172_800.0 => format!(
            "{:.0} h {:02.0} min",
            (s / 3600.0).floor(),
            (s % 3600.0 / 60.0).floor()
        ),
        s => format!("{:.1} days", s / 86400.0),
    }
}

/// Bytes as a person reads them.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit after the point")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_shown_as_a_person_reads_them() {
        assert_eq!(seconds(None), "unknown");
        assert_eq!(seconds(Some(3.21)), "3.2 s");
        assert_eq!(seconds(Some(125.0)), "2 min 05 s");
        assert_eq!(seconds(Some(7260.0)), "2 h 01 min");
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_500_000), "1.5 MB");
    }
}
