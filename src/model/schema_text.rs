//! Comparing two schemas as pg_dump writes them, entry by entry.

use std::collections::BTreeMap;

use crate::model::redact::without_literals;

/// How one entry of a schema differs between source and copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaDifference {
    Missing {
        entry: String,
    },
    Unexpected {
        entry: String,
    },
    Different {
        entry: String,
        expected: String,
        found: String,
    },
    /// The same but for casts and parentheses: PostgreSQL writes some expressions otherwise once they were read back.
    WrittenOtherwise {
        entry: String,
    },
}

/// Compares two plain-text schema dumps made by the same program.
pub fn compare(expected: &str, found: &str) -> Vec<SchemaDifference> {
    let (expected, found) = (entries(expected), entries(found));
    let mut differences = Vec::new();
    for (entry, text) in &expected {
        match found.get(entry) {
            None => differences.push(SchemaDifference::Missing { entry: entry.clone() }),
            Some(other) if other == text => {}
            Some(other) if normalised(other) == normalised(text) => {
                differences.push(SchemaDifference::WrittenOtherwise { entry: entry.clone() });
            }
            Some(other) => {
                let (mut expected, mut found) = first_difference(text, other);
                if HOLDING_SECRETS.iter().any(|kind| entry.contains(kind)) {
                    (expected, found) = (without_literals(&expected), without_literals(&found));
                }
                differences.push(SchemaDifference::Different {
                    entry: entry.clone(),
                    expected,
                    found,
                });
            }
        }
    }
    for entry in found.keys().filter(|entry| !expected.contains_key(*entry)) {
        differences.push(SchemaDifference::Unexpected { entry: entry.clone() });
    }
    differences
}

/// Entries whose options can hold passwords.
const HOLDING_SECRETS: &[&str] = &[
    "; Type: USER MAPPING;",
    "; Type: SUBSCRIPTION;",
    "; Type: SERVER;",
    "; Type: FOREIGN TABLE;",
    "; Type: FUNCTION;",
    "; Type: PROCEDURE;",
];

/// pg_dump's own comment above each entry: name, type, schema and owner.
const HEADER: &str = "-- Name: ";

/// The statements of each entry, by its header. Two entries of the same name are kept together.
fn entries(dump: &str) -> BTreeMap<String, Vec<String>> {
    let mut entries: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut lines = dump.lines().peekable();
    let mut current: Option<(String, String)> = None;
    let mut finish = |current: &mut Option<(String, String)>| {
        if let Some((entry, text)) = current.take() {
            entries
                .entry(entry.clone())
                .or_default()
                .push(tidy(&entry, &text));
        }
    };
    while let Some(line) = lines.next() {
        if line == "--" && lines.peek().is_some_and(|next| next.starts_with(HEADER)) {
            finish(&mut current);
            let header = lines.next().unwrap_or_default().trim_start_matches(HEADER);
            // Where it lies is compared in the catalogue; a restore may put it elsewhere.
            let header = header.split("; Tablespace: ").next().unwrap_or(header);
            current = Some((header.to_owned(), String::new()));
            // The closing `--` of the comment.
            lines.next();
        } else if let Some((_, text)) = &mut current {
            text.push_str(line);
            text.push('\n');
        }
    }
    finish(&mut current);
    entries.values_mut().for_each(|texts| texts.sort());
    entries
}

/// Drops what says nothing of the entry: settings for the following ones, and the end of the file.
fn tidy(entry: &str, text: &str) -> String {
    let noise = |line: &&str| {
        line.is_empty()
            || line.starts_with("SET default_")
            || line.starts_with("-- PostgreSQL database dump complete")
            || line.starts_with("\\unrestrict ")
            || *line == "--"
    };
    let mut lines: Vec<&str> = text.lines().filter(|line| !noise(line)).collect();
    // The order of grants has no meaning.
    if entry.contains("; Type: ACL;") || entry.contains("; Type: DEFAULT ACL;") {
        lines.sort_unstable();
    }
    let text = lines.join("\n");
    if entry.contains("; Type: POLICY;") {
        return with_sorted_roles(&text);
    }
    text
}

/// `CREATE POLICY … TO a, b USING …` with the roles in order: pg_dump writes them as it finds them in the catalogue.
fn with_sorted_roles(policy: &str) -> String {
    let Some(start) = outside_quotes(policy, " TO ").map(|position| position + " TO ".len()) else {
        return policy.to_owned();
    };
    let ends = [" USING (", " WITH CHECK (", ";"];
    let end = ends
        .iter()
        .filter_map(|end| outside_quotes(&policy[start..], end))
        .min()
        .map_or(policy.len(), |length| start + length);
    let mut roles = Vec::new();
    let mut rest = &policy[start..end];
    while let Some(comma) = outside_quotes(rest, ", ") {
        roles.push(&rest[..comma]);
        rest = &rest[comma + 2..];
    }
    roles.push(rest);
    roles.sort_unstable();
    format!("{}{}{}", &policy[..start], roles.join(", "), &policy[end..])
}

/// Where the words stand first that are not part of a quoted name.
fn outside_quotes(text: &str, words: &str) -> Option<usize> {
    let mut quoted = false;
    text.char_indices().find_map(|(position, character)| {
        quoted ^= character == '"';
        (!quoted && text[position..].starts_with(words)).then_some(position)
    })
}

/// The first lines that differ.
fn first_difference(expected: &[String], found: &[String]) -> (String, String) {
    let (expected, found) = (expected.join("\n"), found.join("\n"));
    let mut pairs = expected.lines().zip(found.lines());
    match pairs.find(|(a, b)| a != b) {
        Some((a, b)) => (a.trim().to_owned(), b.trim().to_owned()),
        None => (
            format!("{} lines", expected.lines().count()),
            format!("{} lines", found.lines().count()),
        ),
    }
}

fn normalised(texts: &[String]) -> Vec<String> {
    texts.iter().map(|text| without_casts(text)).collect()
}

/// Words that continue a type's name after a space.
const CONTINUATIONS: &[&str] = &["varying", "precision", "without time zone", "with time zone"];

/// The text without casts, parentheses and white space.
fn without_casts(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find("::") {
        result.push_str(&rest[..position]);
        rest = after_type(&rest[position + 2..]);
    }
    result.push_str(rest);
    result.retain(|character| !character.is_whitespace() && character != '(' && character != ')');
    result
}

/// What follows a type's name.
fn after_type(text: &str) -> &str {
    let name_ends = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '"'));
    let mut rest = &text[text.find(name_ends).unwrap_or(text.len())..];
    for continuation in CONTINUATIONS {
        if let Some(shorter) = rest
            .strip_prefix(' ')
            .and_then(|rest| rest.strip_prefix(continuation))
        {
            rest = shorter;
        }
    }
    while let Some(shorter) = rest.strip_prefix("[]") {
        rest = shorter;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(entries: &[(&str, &str)]) -> String {
        let entry = |(header, text): &(&str, &str)| format!("--\n-- Name: {header}\n--\n\n{text}\n\n");
        let entries: String = entries.iter().map(entry).collect();
        format!(
            "--\n-- PostgreSQL database dump\n--\n\nSET x = 1;\n\n{entries}--\n-- PostgreSQL database dump complete\n--\n"
        )
    }

    #[test]
    fn missing_unexpected_and_different_entries_are_told_apart() {
        let header = |name: &str| format!("{name}; Type: TABLE; Schema: public; Owner: o");
        let (a, b, c) = (header("a"), header("b"), header("c"));
        let expected = dump(&[(&a, "CREATE TABLE a (x integer);"), (&b, "CREATE TABLE b ();")]);
        let found = dump(&[(&a, "CREATE TABLE a (x bigint);"), (&c, "CREATE TABLE c ();")]);
        let differences = compare(&expected, &found);
        assert_eq!(differences.len(), 3);
        assert!(matches!(&differences[0], SchemaDifference::Different { entry, .. } if *entry == a));
        assert!(matches!(&differences[1], SchemaDifference::Missing { entry } if *entry == b));
        assert!(matches!(&differences[2], SchemaDifference::Unexpected { entry } if *entry == c));
        assert_eq!(compare(&expected, &expected), vec![]);
    }

    #[test]
    fn an_owner_that_changed_is_a_difference() {
        let of = |owner: &str| {
            dump(&[(
                &format!("a; Type: TABLE; Schema: public; Owner: {owner}"),
                "CREATE TABLE a ();",
            )])
        };
        assert_eq!(compare(&of("x"), &of("y")).len(), 2);
    }

    #[test]
    fn an_expression_that_postgresql_writes_otherwise_after_reading_it_back_is_no_mismatch() {
        let of = |text: &str| dump(&[("c; Type: CONSTRAINT; Schema: public; Owner: o", text)]);
        let source =
            "CHECK (((x)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])))";
        let copy = "CHECK (((x)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text])))";
        assert!(matches!(
            &compare(&of(source), &of(copy))[..],
            [SchemaDifference::WrittenOtherwise { .. }]
        ));
        let other = copy.replace("'b'", "'c'");
        assert!(matches!(
            &compare(&of(source), &of(&other))[..],
            [SchemaDifference::Different { .. }]
        ));
    }

    #[test]
    fn the_order_of_a_policys_roles_has_no_meaning() {
        let of = |text: &str| dump(&[("t p; Type: POLICY; Schema: public; Owner: o", text)]);
        let policy = |name: &str, roles: &str, end: &str| {
            of(&format!(
                "CREATE POLICY {name} ON public.t FOR UPDATE TO {roles}{end};"
            ))
        };
        let condition = " USING ((a = ' TO b, a')) WITH CHECK (true)";
        let name = r#""a TO z, b USING (""#;
        assert_eq!(
            compare(
                &policy(name, r#"a, "c, d TO", b"#, condition),
                &policy(name, r#"b, a, "c, d TO""#, condition)
            ),
            vec![]
        );
        assert_eq!(
            compare(&policy("p", "a, b", ""), &policy("p", "b, a", "")),
            vec![]
        );
        for (one, other) in [("a, b", "a"), ("a, b", "a, c"), ("a", "PUBLIC")] {
            assert_eq!(
                compare(&policy("p", one, condition), &policy("p", other, condition)).len(),
                1
            );
        }
        let other = " USING ((a = ' TO a, b')) WITH CHECK (true)";
        assert_eq!(
            compare(&policy("p", "a", condition), &policy("p", "a", other)).len(),
            1
        );
    }

    #[test]
    fn the_order_of_grants_has_no_meaning() {
        let of = |text: &str| dump(&[("TABLE a; Type: ACL; Schema: public; Owner: o", text)]);
        assert_eq!(
            compare(&of("GRANT A;\nGRANT B;"), &of("GRANT B;\nGRANT A;")),
            vec![]
        );
        assert_eq!(compare(&of("GRANT A;\nGRANT B;"), &of("GRANT A;")).len(), 1);
    }
}
