//! Names and texts as SQL: always quoted, so that no name a user may choose can change a statement.
//!
//! Relies on `standard_conforming_strings = on`, which every [`Session`](super::Session) fixes. A NUL cannot occur:
//! PostgreSQL has no such names or texts.

use std::fmt::Write;

/// Which characters may stand in the statement as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoting {
    /// For sessions that speak UTF-8: only control characters are escaped, so that one name stays on one line.
    Utf8,
    /// For sessions with another client encoding: everything beyond ASCII is escaped, since the driver sends UTF-8.
    AsciiOnly,
}

impl Quoting {
    /// For statements of sessions that speak this encoding. Names beyond ASCII cannot be written as they are where that is
    /// not UTF-8; SQL_ASCII passes every byte through.
    pub fn for_encoding(encoding: &str) -> Self {
        if matches!(encoding, "UTF8" | "SQL_ASCII") {
            Self::Utf8
        } else {
            Self::AsciiOnly
        }
    }

    /// The name as a quoted identifier.
    pub fn identifier(self, name: &str) -> String {
        self.quoted(name, '"')
    }

    /// The text as a string literal.
    pub fn literal(self, text: &str) -> String {
        self.quoted(text, '\'')
    }

    /// `"schema"."name"`.
    pub fn qualified(self, schema: &str, name: &str) -> String {
        format!("{}.{}", self.identifier(schema), self.identifier(name))
    }

    fn quoted(self, text: &str, quote: char) -> String {
        let escaping = text.chars().any(|character| self.must_escape(character));
        let mut quoted = String::with_capacity(text.len() + 4);
        if escaping {
            quoted.push_str("U&");
        }
        quoted.push(quote);
        for character in text.chars() {
            if self.must_escape(character) {
                push_escape(&mut quoted, character);
                continue;
            }
            // Only in the U& form is the backslash special.
            if character == quote || (escaping && character == '\\') {
                quoted.push(character);
            }
            quoted.push(character);
        }
        quoted.push(quote);
        quoted
    }

    fn must_escape(self, character: char) -> bool {
        character.is_control() || (self == Self::AsciiOnly && !character.is_ascii())
    }
}

/// [`Quoting::identifier`] for sessions that speak UTF-8.
pub fn quote_identifier(name: &str) -> String {
    Quoting::Utf8.identifier(name)
}

/// [`Quoting::literal`] for sessions that speak UTF-8.
pub fn quote_literal(text: &str) -> String {
    Quoting::Utf8.literal(text)
}

/// [`Quoting::qualified`] for sessions that speak UTF-8.
pub fn qualified(schema: &str, name: &str) -> String {
    Quoting::Utf8.qualified(schema, name)
}

fn push_escape(text: &mut String, character: char) {
    let code = u32::from(character);
    let written = if code <= 0xffff {
        write!(text, "\\{code:04x}")
    } else {
        write!(text, "\\+{code:06x}")
    };
    written.expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_names_are_quoted_as_they_are() {
        assert_eq!(quote_identifier("orders"), "\"orders\"");
        assert_eq!(quote_identifier("Größe"), "\"Größe\"");
        assert_eq!(quote_identifier("back\\slash"), "\"back\\slash\"");
        assert_eq!(qualified("public", "select"), "\"public\".\"select\"");
    }

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(quote_identifier("a\"b'c"), "\"a\"\"b'c\"");
        assert_eq!(quote_literal("a\"b'c"), "'a\"b''c'");
        assert_eq!(quote_literal(""), "''");
    }

    #[test]
    fn control_characters_are_escaped_and_backslashes_doubled_with_them() {
        assert_eq!(quote_identifier("a\nb"), "U&\"a\\000ab\"");
        assert_eq!(quote_identifier("a\\\n\""), "U&\"a\\\\\\000a\"\"\"");
        assert_eq!(quote_literal("tab\t'\u{7f}"), "U&'tab\\0009''\\007f'");
    }

    #[test]
    fn ascii_only_escapes_every_character_beyond_ascii() {
        assert_eq!(Quoting::AsciiOnly.identifier("Größe"), "U&\"Gr\\00f6\\00dfe\"");
        assert_eq!(Quoting::AsciiOnly.literal("😀"), "U&'\\+01f600'");
        assert_eq!(Quoting::AsciiOnly.identifier("plain\\"), "\"plain\\\"");
    }

    /// Reads a quoted text as the server's scanner does; None where it would end early or be malformed.
    fn unquote(sql: &str, quote: char) -> Option<String> {
        let (escaping, rest) = match sql.strip_prefix("U&") {
            Some(rest) => (true, rest),
            None => (false, sql),
        };
        let mut characters = rest.strip_prefix(quote)?.strip_suffix(quote)?.chars().peekable();
        let mut text = String::new();
        while let Some(character) = characters.next() {
            if character == quote {
                if characters.next()? != quote {
                    return None;
                }
                text.push(quote);
            } else if escaping && character == '\\' {
                if characters.next_if_eq(&'\\').is_some() {
                    text.push('\\');
                    continue;
                }
                let digits = if characters.next_if_eq(&'+').is_some() {
                    6
                } else {
                    4
                };
                let hex: String = characters.by_ref().take(digits).collect();
                text.push(char::from_u32(u32::from_str_radix(&hex, 16).ok()?)?);
            } else {
                text.push(character);
            }
        }
        Some(text)
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back_the_same(text in "[^\0]*") {
            for quoting in [Quoting::Utf8, Quoting::AsciiOnly] {
                prop_assert_eq!(unquote(&quoting.identifier(&text), '"'), Some(text.clone()));
                prop_assert_eq!(unquote(&quoting.literal(&text), '\''), Some(text.clone()));
            }
        }

        #[test]
        fn quoted_text_is_one_line_and_ascii_where_asked(text in "[^\0]*") {
            prop_assert!(!Quoting::Utf8.identifier(&text).contains(char::is_control));
            prop_assert!(Quoting::AsciiOnly.literal(&text).is_ascii());
        }
    }
}
