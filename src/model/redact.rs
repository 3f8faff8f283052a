//! Statements without what they say: a literal may be a password or a row of somebody's data.

/// The statement with every string literal emptied.
pub fn without_literals(sql: &str) -> String {
    let mut result = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(position) = rest.find(['\'', '$']) {
        result.push_str(&rest[..position]);
        let literal = &rest[position..];
        let opening = if literal.starts_with('\'') {
            Some("'")
        } else {
            dollar_quote(literal)
        };
        let Some(opening) = opening else {
            result.push('$');
            rest = &literal[1..];
            continue;
        };
        result.push_str("'…'");
        let body = &literal[opening.len()..];
        // A cut-off statement may end inside a literal: nothing of that is kept.
        rest = body.find(opening).map_or("", |end| &body[end + opening.len()..]);
        // A doubled quote is a quote inside the literal: the literal goes on.
        while opening == "'" && rest.starts_with('\'') {
            let body = &rest[1..];
            rest = body.find('\'').map_or("", |end| &body[end + 1..]);
        }
    }
    result.push_str(rest);
    result
}

/// `$tag$` at the beginning of the text, if there is one.
fn dollar_quote(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 2;
    let tag = &text[1..end - 1];
    let named = tag.chars().all(|c| c.is_alphanumeric() || c == '_');
    // `$1` is a parameter.
    (named && !tag.starts_with(|c: char| c.is_ascii_digit())).then(|| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_literal_is_left_however_it_is_quoted() {
        for (sql, expected) in [
            ("ALTER ROLE a PASSWORD 'x'", "ALTER ROLE a PASSWORD '…'"),
            ("SELECT 'it''s', 2", "SELECT '…', 2"),
            ("SELECT $$secret$$, $a$b$a$ || $1", "SELECT '…', '…' || $1"),
            ("SELECT 'cut off", "SELECT '…'"),
            ("TRUNCATE t", "TRUNCATE t"),
        ] {
            assert_eq!(without_literals(sql), expected);
        }
    }
}
