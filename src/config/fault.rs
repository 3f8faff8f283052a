//! Faults of a configuration file, each with its place, shown all at once.
//!
//! An excerpt never shows a secret: values of secret keys and of keys that nobody knows are starred out.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

/// One thing wrong with the file. Line and column count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub line: usize,
    pub column: usize,
    /// Where in the configuration: `target[shop].rpo`. Empty for a fault of the whole file or of its syntax.
    pub key: String,
    pub message: String,
    excerpt: String,
    caret_width: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            key,
            message,
            excerpt,
            caret_width,
        } = self;
        let separator = if key.is_empty() { "" } else { ": " };
        writeln!(formatter, "{line}:{column}: {key}{separator}{message}")?;
        let number = line.to_string();
        writeln!(formatter, "{}", format!("  {number} | {excerpt}").trim_end())?;
        let indent = " ".repeat(number.len());
        write!(
            formatter,
            "  {indent} | {}{}",
            " ".repeat(column - 1),
            "^".repeat(*caret_width)
        )
    }
}

/// Collects faults and spans to be starred out while a document is walked.
pub(super) struct Faults<'a> {
    source: &'a str,
    found: RefCell<Vec<(Range<usize>, String, String)>>,
    hidden: RefCell<Vec<Range<usize>>>,
}

impl<'a> Faults<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self {
            source,
            found: RefCell::default(),
            hidden: RefCell::default(),
        }
    }

    pub(super) fn report(&self, span: Range<usize>, key: impl Into<String>, message: impl Into<String>) {
        self.found.borrow_mut().push((span, key.into(), message.into()));
    }

    pub(super) fn hide(&self, span: Range<usize>) {
        self.hidden.borrow_mut().push(span);
    }

    /// All faults in the order of the file.
    pub(super) fn into_vec(self) -> Vec<Fault> {
        let shown = starred(self.source, &self.hidden.into_inner());
        let mut faults: Vec<Fault> = self
            .found
            .into_inner()
            .into_iter()
            .map(|(span, key, message)| {
                fault_at(&shown, span, star_passwords(&key), star_passwords(&message))
            })
            .collect();
        faults.sort_by_key(|fault| (fault.line, fault.column));
        faults
    }
}

/// The one fault of a file that is not TOML. What is secret cannot be known then.
pub(super) fn syntax_fault(source: &str, span: Range<usize>, message: &str) -> Fault {
    let start = source[..span.start.min(source.len())]
        .rfind('\n')
        .map_or(0, |index| index + 1);
    let end = source[start..]
        .find('\n')
        .map_or(source.len(), |index| start + index);
    let line = &source[start..end];
    // Where quotes are unbalanced, nobody can say what is text: all that follows the key is starred out, and so is a
    // line without a key, which may be the inside of a text.
    let hidden_from = match line.find('=') {
        Some(equals) => start + equals + 1,
        None if line.trim_start().starts_with('[') => end,
        None => start,
    };
    let message = format!("not valid TOML: {}", message.replace('\n', ", "));
    fault_at(
        &starred(source, std::slice::from_ref(&(hidden_from..end))),
        span,
        String::new(),
        message,
    )
}

fn fault_at(source: &str, span: Range<usize>, key: String, message: String) -> Fault {
    let span_start = floor(source, span.start);
    let line_start = source[..span_start].rfind('\n').map_or(0, |index| index + 1);
    let line_end = source[span_start..]
        .find('\n')
        .map_or(source.len(), |index| span_start + index);
    let span_end = floor(source, span.end.clamp(span_start, line_end));
    Fault {
        line: source[..line_start].matches('\n').count() + 1,
        column: source[line_start..span_start].chars().count() + 1,
        key,
        message,
        // A tab would put the caret elsewhere.
        excerpt: star_passwords(source[line_start..line_end].trim_end()).replace('\t', " "),
        caret_width: source[span_start..span_end].chars().count().max(1),
    }
}

fn floor(source: &str, index: usize) -> usize {
    (0..=index.min(source.len()))
        .rev()
        .find(|index| source.is_char_boundary(*index))
        .unwrap_or(0)
}

/// The source with the given spans starred out, character for character and line for line. Byte positions are kept:
/// a character of several bytes becomes as many stars, which moves at most a caret.
fn starred(source: &str, hidden: &[Range<usize>]) -> String {
    let mut text = String::with_capacity(source.len());
    for (index, character) in source.char_indices() {
        let is_hidden = hidden.iter().any(|span| span.contains(&index));
        if is_hidden && !matches!(character, ' ' | '\t' | '\n' | '\r' | '"' | '\'') {
            text.extend(std::iter::repeat_n('*', character.len_utf8()));
        } else {
            text.push(character);
        }
    }
    text
}

/// Stars out the password of each URL, wherever one was written by mistake.
fn star_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(scheme) = rest.find("://") {
        let (before, after) = rest.split_at(scheme + 3);
        shown.push_str(before);
        let end = after
            .find(|c: char| c.is_whitespace() || c == '"' || c == '\'')
            .unwrap_or(after.len());
        let authority = &after[..end];
        match authority.rfind('@').zip(authority.find(':')) {
            Some((at, colon)) if colon < at => {
                shown.push_str(&authority[..=colon]);
                shown.extend(authority[colon + 1..at].chars().map(|_| '*'));
                shown.push_str(&authority[at..]);
            }
            _ => shown.push_str(authority),
        }
        rest = &after[end..];
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_starred_out() {
        assert_eq!(
            star_passwords("a postgres://me:hun:t@er2@host/db?x and http://b:80/"),
            "a postgres://me:*********@host/db?x and http://b:80/"
        );
    }

    #[test]
    fn places_count_characters_and_survive_the_end_of_the_file() {
        let fault = fault_at("a = 1\nü = \"ö\"", 11..15, String::new(), String::new());
        assert_eq!((fault.line, fault.column, fault.caret_width), (2, 5, 3));
        assert_eq!(fault_at("a", 99..100, String::new(), String::new()).line, 1);
    }

    #[test]
    fn a_syntax_fault_shows_no_text() {
        let shown = syntax_fault("url = \"hunter2\" x", 16..17, "oops").to_string();
        assert!(
            !shown.contains("hunter2") && shown.contains("url = \"*******\" *"),
            "{shown}"
        );
        assert!(
            !syntax_fault("token = hunter2", 8..9, "oops")
                .to_string()
                .contains("hunter2")
        );
        assert!(
            !syntax_fault("token = \"a\\\"hunter2\" x", 8..9, "oops")
                .to_string()
                .contains("hunter2")
        );
        assert!(
            !syntax_fault("a = 1\nhunter2", 6..7, "oops")
                .to_string()
                .contains("hunter2")
        );
        assert!(
            !syntax_fault("token = \"hunter2", 8..9, "oops")
                .to_string()
                .contains("hunter2")
        );
    }
}
