//! The session settings under which rows are read and written: the same at both ends, or the same row differs.

use super::identifier::quote_literal;

/// Settings of every version this program works with.
const ALWAYS: &[(&str, &str)] = &[
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("xmlbinary", "base64"),
    ("xmloption", "content"),
    ("array_nulls", "on"),
    ("search_path", ""),
    ("quote_all_identifiers", "off"),
    ("row_security", "off"),
    ("synchronize_seqscans", "off"),
    ("standard_conforming_strings", "on"),
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read committed"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

/// Settings with the server version that introduced them.
const SINCE: &[(i32, &str, &str)] = &[
    (110_000, "jit", "off"),
    (140_000, "idle_session_timeout", "0"),
    (170_000, "transaction_timeout", "0"),
];

/// The settings for one server and client encoding, in the order they are set.
pub fn fixed_settings(server_version_num: i32, encoding: &str) -> Vec<(&'static str, String)> {
    let since = SINCE
        .iter()
        .filter(|(version, _, _)| server_version_num >= *version);
    std::iter::once(("client_encoding", encoding))
        .chain(ALWAYS.iter().copied())
        .chain(since.map(|(_, name, value)| (*name, *value)))
        .map(|(name, value)| (name, value.to_owned()))
        .collect()
}

/// The settings as one text of `SET` lines.
pub fn set_statements(settings: &[(&'static str, String)]) -> String {
    settings
        .iter()
        .map(|(name, value)| format!("SET {name} = {};\n", quote_literal(value)))
        .collect()
}

/// A query that gives every setting back, one column each, in order.
pub(super) fn verification_query(settings: &[(&'static str, String)]) -> String {
    let columns: Vec<String> = settings
        .iter()
        .map(|(name, _)| format!("pg_catalog.current_setting({})", quote_literal(name)))
        .collect();
    format!("SELECT {}", columns.join(", "))
}

/// Whether a setting, as the server shows it, is the one that was set.
pub(super) fn holds(name: &str, expected: &str, shown: &str) -> bool {
    match name {
        // The server shows the empty path as one empty name.
        "search_path" => matches!(shown, "" | "\"\"") == expected.is_empty(),
        // "utf8" and "UTF-8" are the same encoding to it.
        "client_encoding" => plain(expected) == plain(shown),
        _ => expected == shown,
    }
}

fn plain(encoding: &str) -> String {
    encoding
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_the_server_knows_are_set() {
        let has = |version, name| {
            fixed_settings(version, "UTF8")
                .iter()
                .any(|(setting, _)| *setting == name)
        };
        assert!(!has(130_023, "idle_session_timeout") && has(140_000, "idle_session_timeout"));
        assert!(!has(160_009, "transaction_timeout") && has(170_000, "transaction_timeout"));
        assert!(has(130_023, "jit"));
    }

    #[test]
    fn set_lines_are_one_statement_each() {
        let text = set_statements(&fixed_settings(150_000, "LATIN1"));
        assert!(
            text.starts_with("SET client_encoding = 'LATIN1';\nSET DateStyle = 'ISO, YMD';\n"),
            "{text}"
        );
        assert!(text.contains("SET search_path = '';\n"));
        assert_eq!(text.lines().count(), fixed_settings(150_000, "LATIN1").len());
    }

    #[test]
    fn a_setting_is_compared_as_the_server_shows_it() {
        assert!(holds("search_path", "", "\"\""));
        assert!(!holds("search_path", "", "public"));
        assert!(holds("client_encoding", "utf-8", "UTF8"));
        assert!(!holds("client_encoding", "UTF8", "LATIN1"));
        assert!(!holds("TimeZone", "UTC", "Europe/Berlin"));
    }
}
