//! A schema archive as SQL text, read entry by entry. Only what pg_dump writes to the letter is understood: whoever
//! runs a statement of it elsewhere must not guess.

use std::str::FromStr;

use crate::model::contents::TableName;

/// What stands above each entry.
const HEADER: &str = "--\n-- Name: ";

/// One entry of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub name: &'a str,
    /// `INDEX`, `CONSTRAINT`, `TABLE ATTACH`, …
    pub kind: &'a str,
    /// Its statements, and whatever stands before the next entry.
    pub text: &'a str,
}

/// The entries in their order. A name or a literal that looks like a header cuts its statement short, which then is
/// not understood; none is ever made longer.
pub fn entries(dump: &str) -> Vec<Entry<'_>> {
    let parts = dump.split(HEADER).skip(1);
    let entry = |part: &'_ str| -> Option<(usize, usize)> {
        let header_end = part.find('\n')?;
        let kind_at = part[..header_end].rfind("; Type: ")?;
        Some((header_end, kind_at))
    };
    parts
        .filter_map(|part| {
            let (header_end, kind_at) = entry(part)?;
            let kind = &part[kind_at + "; Type: ".len()..header_end];
            let text = part[header_end..].strip_prefix("\n--\n")?;
            Some(Entry {
                name: &part[..kind_at],
                kind: kind.split(';').next().unwrap_or_default(),
                text: text.trim_start(),
            })
        })
        .collect()
}

/// What a statement adds to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdditionKind {
    PrimaryKey,
    Unique,
    Exclusion,
    Index,
}

impl AdditionKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PrimaryKey => "primary key",
            Self::Unique => "unique constraint",
            Self::Exclusion => "exclusion constraint",
            Self::Index => "index",
        }
    }
}

/// A statement that adds an index, or a constraint with one, to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addition<'a> {
    pub kind: AdditionKind,
    /// Of the index or constraint.
    pub name: String,
    pub table: TableName,
    /// The statement up to the table's name, and from there on, without the semicolon.
    head: &'a str,
    tail: &'a str,
    /// What else the entry says of it, a statement a line.
    pub more: Vec<&'a str>,
}

impl<'a> Addition<'a> {
    /// Reads an entry of kind `INDEX` or `CONSTRAINT`; none where it is not written exactly as expected.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (statement, rest) = first_statement(text)?;
        let more = rest.lines().filter(|line| line.starts_with("ALTER ")).collect();
        let rest = statement.strip_prefix("ALTER TABLE ONLY ");
        let (kind, name, table, named, tail) = match rest {
            Some(named) => {
                let (table, tail) = qualified(named)?;
                let (name, definition) = identifier(tail.strip_prefix("\n    ADD CONSTRAINT ")?)?;
                (constraint_kind(definition)?, name, table, named, tail)
            }
            None => {
                let rest = statement.strip_prefix("CREATE ")?;
                let rest = rest.strip_prefix("UNIQUE ").unwrap_or(rest);
                let (name, rest) = identifier(rest.strip_prefix("INDEX ")?)?;
                let rest = rest.strip_prefix(" ON ")?;
                let named = rest.strip_prefix("ONLY ").unwrap_or(rest);
                let (table, tail) = qualified(named)?;
                tail.strip_prefix(" USING ")?;
                (AdditionKind::Index, name, table, named, tail)
            }
        };
        Some(Self {
            kind,
            name,
            table,
            head: &statement[..statement.len() - named.len()],
            tail,
            more,
        })
    }

    /// The statement for another table, given as SQL.
    pub fn onto(&self, table: &str) -> String {
        format!("{}{table}{}", self.head, self.tail)
    }
}

fn constraint_kind(definition: &str) -> Option<AdditionKind> {
    let kinds = [
        (" PRIMARY KEY (", AdditionKind::PrimaryKey),
        (" UNIQUE (", AdditionKind::Unique),
        (" UNIQUE NULLS NOT DISTINCT (", AdditionKind::Unique),
        (" EXCLUDE USING ", AdditionKind::Exclusion),
    ];
    let kind = kinds.iter().find(|(words, _)| definition.starts_with(words));
    kind.map(|(_, kind)| *kind)
}

/// The table that a constraint of whatever kind belongs to, and the constraint's name.
pub fn constraint(text: &str) -> Option<(TableName, String)> {
    let rest = text.strip_prefix("ALTER TABLE ")?;
    let (table, rest) = qualified(rest.strip_prefix("ONLY ").unwrap_or(rest))?;
    let (name, _) = identifier(rest.strip_prefix("\n    ADD CONSTRAINT ")?)?;
    Some((table, name))
}

/// The partitioned table and the partition of an entry of kind `TABLE ATTACH`.
pub fn attached(text: &str) -> Option<(TableName, TableName)> {
    let (parent, rest) = qualified(text.strip_prefix("ALTER TABLE ONLY ")?)?;
    let (child, _) = qualified(rest.strip_prefix(" ATTACH PARTITION ")?)?;
    Some((parent, child))
}

/// The table of an entry of kind `TABLE`, and those that it inherits from.
pub fn inherits(text: &str) -> Option<(TableName, Vec<TableName>)> {
    let (statement, _) = first_statement(text)?;
    let rest = statement.strip_prefix("CREATE ")?;
    let rest = rest.strip_prefix("UNLOGGED ").unwrap_or(rest);
    let (child, _) = qualified(rest.strip_prefix("TABLE ")?)?;
    let mut rest = &statement[statement.rfind("\nINHERITS (")? + "\nINHERITS (".len()..];
    let mut parents = Vec::new();
    loop {
        let (parent, after) = qualified(rest)?;
        parents.push(parent);
        match after.strip_prefix(", ") {
            Some(next) => rest = next,
            None => return after.starts_with(')').then_some((child, parents)),
        }
    }
}

/// A table as a person may write it in SQL: `schema.table`, each name in quotes or without.
impl FromStr for TableName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match qualified(text) {
            Some((table, "")) => Ok(table),
            _ => Err(()),
        }
    }
}

/// `schema.name` at the beginning, and the rest.
fn qualified(text: &str) -> Option<(TableName, &str)> {
    let (schema, rest) = identifier(text)?;
    let (name, rest) = identifier(rest.strip_prefix('.')?)?;
    Some((TableName { schema, name }, rest))
}

/// A name at the beginning, with or without quotes, and the rest.
fn identifier(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // pg_dump leaves quotes out for these only.
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let end = text.find(|c| !plain(c)).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return (!name.is_empty()).then_some((name, rest)),
        }
    }
}

/// The first statement without its semicolon, and what follows; none where it does not end, or holds what a definition
/// never does: a comment or a dollar quote.
fn first_statement(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let mut position = 0;
    while let Some(byte) = bytes.get(position) {
        match byte {
            b';' => return Some((&text[..position], &text[position + 1..])),
            b'$' | b'\0' => return None,
            b'-' if bytes.get(position + 1) == Some(&b'-') => return None,
            b'/' if bytes.get(position + 1) == Some(&b'*') => return None,
            b'"' | b'\'' => {
                let escapes = *byte == b'\'' && position > 0 && matches!(bytes[position - 1], b'E' | b'e');
                position = end_of_quoted(bytes, position, escapes)?;
            }
            _ => {}
        }
        position += 1;
    }
    None
}

/// Where the quote closes. A doubled one closes and opens again, which comes to the same.
fn end_of_quoted(bytes: &[u8], start: usize, escapes: bool) -> Option<usize> {
    let mut position = start + 1;
    loop {
        match bytes.get(position)? {
            b'\\' if escapes => position += 1,
            byte if *byte == bytes[start] => return Some(position),
            _ => {}
        }
        position += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schema: &str, name: &str) -> TableName {
        TableName {
            schema: schema.into(),
            name: name.into(),
        }
    }

    #[test]
    fn constraints_and_indexes_are_written_for_another_table_and_nothing_else_of_them_changes() {
        for (text, kind, expected) in [
            (
                "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT \"t;\"\"pkey\" PRIMARY KEY (id);\n",
                AdditionKind::PrimaryKey,
                "ALTER TABLE ONLY X\n    ADD CONSTRAINT \"t;\"\"pkey\" PRIMARY KEY (id)",
            ),
            (
                "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT u UNIQUE NULLS NOT DISTINCT (a, b);",
                AdditionKind::Unique,
                "ALTER TABLE ONLY X\n    ADD CONSTRAINT u UNIQUE NULLS NOT DISTINCT (a, b)",
            ),
            (
                "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT e EXCLUDE USING gist (r WITH &&);",
                AdditionKind::Exclusion,
                "ALTER TABLE ONLY X\n    ADD CONSTRAINT e EXCLUDE USING gist (r WITH &&)",
            ),
            (
                "CREATE UNIQUE INDEX i ON ONLY public.t USING btree (lower(a), (((b || ';'''::text) || \"C;\"))) WHERE (a <> 'public.t'::text);",
                AdditionKind::Index,
                "CREATE UNIQUE INDEX i ON ONLY X USING btree (lower(a), (((b || ';'''::text) || \"C;\"))) WHERE (a <> 'public.t'::text)",
            ),
        ] {
            let addition = Addition::parse(text).expect(text);
            assert_eq!((addition.kind, &addition.table), (kind, &table("public", "t")));
            assert_eq!(addition.onto("X"), expected);
            assert!(addition.more.is_empty());
        }
    }

    #[test]
    fn what_is_not_written_to_the_letter_is_not_understood() {
        for text in [
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT c CHECK (a > 0);",
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES b(a);",
            "ALTER TABLE public.t\n    ADD CONSTRAINT c PRIMARY KEY (a);",
            "ALTER TABLE ONLY t\n    ADD CONSTRAINT c PRIMARY KEY (a);",
            "ALTER TABLE ONLY public.t ADD CONSTRAINT c PRIMARY KEY (a);",
            "CREATE INDEX CONCURRENTLY i ON public.t USING btree (a);",
            "CREATE INDEX i ON public.t (a);",
            "CREATE INDEX i ON public.t USING btree (a)",
            "CREATE INDEX i ON public.t USING btree (a) -- ;\n;",
            "CREATE INDEX i ON public.t USING btree ('a;",
            "CREATE INDEX i ON public.t USING btree ($$;$$);",
            "DROP TABLE public.t;",
        ] {
            assert_eq!(Addition::parse(text), None, "{text}");
        }
    }

    #[test]
    fn only_the_first_statement_is_taken_and_the_others_are_named() {
        let text = "CREATE INDEX i ON \"A b\".\"t.\"\"\n\" USING btree (a);\n\n\nALTER TABLE \"A b\".x CLUSTER ON i;\nDROP TABLE x;";
        let addition = Addition::parse(text).unwrap();
        assert_eq!(addition.table, table("A b", "t.\"\n"));
        assert_eq!(addition.onto("X"), "CREATE INDEX i ON X USING btree (a)");
        assert_eq!(addition.more, ["ALTER TABLE \"A b\".x CLUSTER ON i;"]);
    }

    #[test]
    fn entries_are_told_by_their_headers() {
        let dump = "SET x;\n\n--\n-- Name: t t_pkey; Type: CONSTRAINT; Schema: public; Owner: o\n--\n\nALTER 1;\n\n\n--\n-- Name: i; Type: INDEX; Schema: public; Owner: -\n--\n\nCREATE 2;\n\n--\n-- PostgreSQL database dump complete\n--\n";
        let found = entries(dump);
        assert_eq!((found[0].name, found[0].kind), ("t t_pkey", "CONSTRAINT"));
        assert!(found[0].text.starts_with("ALTER 1;"));
        assert_eq!((found[1].name, found[1].kind), ("i", "INDEX"));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn families_of_tables_are_read() {
        assert_eq!(
            attached("ALTER TABLE ONLY public.m ATTACH PARTITION \"S\".m1 FOR VALUES FROM (1) TO (2);"),
            Some((table("public", "m"), table("S", "m1")))
        );
        assert_eq!(
            inherits(
                "CREATE TABLE public.c (\n    a integer DEFAULT ';'\n)\nINHERITS (public.p, \"Q\".q);\n"
            ),
            Some((table("public", "c"), vec![table("public", "p"), table("Q", "q")]))
        );
        assert_eq!(inherits("CREATE TABLE public.c (\n    a integer\n);\n"), None);
        assert_eq!(
            constraint(
                "ALTER TABLE ONLY public.c\n    ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES public.p(a);"
            ),
            Some((table("public", "c"), "f".to_owned()))
        );
    }

    #[test]
    fn a_table_is_read_as_a_person_writes_it_in_sql() {
        assert_eq!("\"a.b\".\"C\"\"d\"".parse(), Ok(table("a.b", "C\"d")));
        assert_eq!("a.b".parse(), Ok(table("a", "b")));
        for text in ["a", "a.b.c", "a.", "\"a", "a.*"] {
            assert_eq!(text.parse::<TableName>(), Err(()), "{text}");
        }
    }
}
