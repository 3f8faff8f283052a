//! Primary keys, unique and exclusion constraints and indexes of the tables, from the SQL of the backup's schema
//! archive. What is not written there exactly as expected is not guessed at, but named as not restored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;

use crate::model::archive_text::{Addition, AdditionKind, Entry, attached, constraint, entries, inherits};
use crate::model::contents::{Contents, NotCovered, Table, TableName};
use crate::ops::restore::RestoreError;
use crate::postgres::conninfo::ConnectionSettings;
use crate::postgres::error::Error;
use crate::postgres::identifier::qualified;
use crate::postgres::session::Session;

use super::place::Place;
use super::selection::Selection;

/// What the archive says of the chosen tables.
#[derive(Debug, Default)]
pub(super) struct Additions {
    pub(super) statements: Vec<Statement>,
    pub(super) not_restored: Vec<NotCovered>,
}

/// One index or constraint to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    kind: AdditionKind,
    /// `orders_by_customer on public.orders`.
    name: String,
    sql: String,
}

impl Statement {
    /// `index orders_by_customer on public.orders`.
    pub(super) fn what(&self) -> String {
        format!("{} {}", self.kind.as_str(), self.name)
    }
}

impl Additions {
    /// Reads the archive's SQL.
    pub(super) fn find(sql: &str, contents: &Contents, selection: &Selection, schema: &str) -> Self {
        let tables = selection.tables.iter().map(|place| &contents.tables[*place]);
        let chosen: BTreeSet<(&str, &str)> = tables
            .map(|table| (table.schema.as_str(), table.name.as_str()))
            .collect();
        // Tables, views and indexes of a schema share one space of names.
        let mut taken: BTreeSet<String> = chosen.iter().map(|(_, name)| (*name).to_owned()).collect();
        taken.extend(selection.roots.keys().map(|root| root.name.clone()));
        let is_chosen = |table: &TableName| chosen.contains(&(table.schema.as_str(), table.name.as_str()));
        let mut found = Self::default();
        found.not_restored.extend(selection.without_rows.iter().cloned());
        let entries = entries(sql);
        for entry in &entries {
            match entry.kind {
                "INDEX" | "CONSTRAINT" => found.add(entry, schema, &is_chosen, &mut taken),
                "FK CONSTRAINT" => {
                    if let Some((table, name)) = constraint(entry.text).filter(|(table, _)| is_chosen(table))
                    {
                        found.leave(
                            "foreign key",
                            format!("{name} of {table}"),
                            "foreign keys are not brought",
                        );
                    }
                }
                "TABLE" => {
                    if let Some((child, parents)) = inherits(entry.text)
                        && !is_chosen(&child)
                        && let Some(parent) = parents.iter().find(|parent| is_chosen(parent))
                    {
                        let reason = format!(
                            "it inherits from {parent}, and is a table of its own: ask for it as well"
                        );
                        found.leave("child table", child.to_string(), &reason);
                    }
                }
                _ => {}
            }
        }
        found.leave_partitions_without_rows(&entries, contents, selection);
        found
    }

    fn leave(&mut self, kind: &str, name: String, reason: &str) {
        let left = NotCovered {
            kind: kind.to_owned(),
            name,
            reason: reason.to_owned(),
        };
        if !self.not_restored.contains(&left) {
            self.not_restored.push(left);
        }
    }

    fn add(
        &mut self,
        entry: &Entry<'_>,
        schema: &str,
        is_chosen: &dyn Fn(&TableName) -> bool,
        taken: &mut BTreeSet<String>,
    ) {
        // A character that could not be read would make another statement of it.
        let readable = !entry.text.contains(char::REPLACEMENT_CHARACTER);
        let Some(addition) = Addition::parse(entry.text).filter(|_| readable) else {
            // Of a constraint it can still be told whose it is.
            if constraint(entry.text).is_some_and(|(table, _)| !is_chosen(&table)) {
                return;
            }
            let reason = "this version does not understand how the backup's schema writes it";
            return self.leave("index or constraint", entry.name.to_owned(), reason);
        };
        if !is_chosen(&addition.table) {
            return;
        }
        let name = format!("{} on {}", addition.name, addition.table);
        for more in &addition.more {
            self.leave("property", (*more).to_owned(), "it is not brought with its index");
        }
        if !taken.insert(addition.name.clone()) {
            let reason = "something else of that name comes to lie in the same schema";
            return self.leave(addition.kind.as_str(), name, reason);
        }
        self.statements.push(Statement {
            kind: addition.kind,
            name,
            sql: addition.onto(&qualified(schema, &addition.table.name)),
        });
    }

    /// Partitions of the chosen partitioned tables whose rows the backup does not hold.
    fn leave_partitions_without_rows(
        &mut self,
        entries: &[Entry<'_>],
        contents: &Contents,
        selection: &Selection,
    ) {
        let mut children: BTreeMap<TableName, Vec<TableName>> = BTreeMap::new();
        let attachments = entries.iter().filter(|entry| entry.kind == "TABLE ATTACH");
        for (parent, child) in attachments.filter_map(|entry| attached(entry.text)) {
            children.entry(parent).or_default().push(child);
        }
        let tables = selection.tables.iter().map(|place| &contents.tables[*place]);
        let through = tables.filter(|table| !table.partitions.is_empty()).map(name_of);
        let mut left: VecDeque<TableName> = selection.roots.keys().cloned().chain(through).collect();
        while let Some(parent) = left.pop_front() {
            // Taken out, so that each is visited once whatever the text says.
            for child in children.remove(&parent).unwrap_or_default() {
                let name = child.to_string();
                let lacking = contents
                    .not_covered
                    .iter()
                    .find(|not_covered| not_covered.name == name);
                if let Some(lacking) = lacking {
                    self.leave(&lacking.kind, name, &lacking.reason);
                }
                left.push_back(child);
            }
        }
    }
}

fn name_of(table: &Table) -> TableName {
    TableName {
        schema: table.schema.clone(),
        name: table.name.clone(),
    }
}

/// The archive's SQL as text. It is in the encoding that it names, which the server knows how to read.
pub(super) async fn text_of(session: &Session, sql: Vec<u8>) -> Result<String, Error> {
    let head = String::from_utf8_lossy(&sql[..sql.len().min(4096)]).into_owned();
    let named = head.split("SET client_encoding = '").nth(1);
    let encoding = named.and_then(|rest| rest.split('\'').next()).unwrap_or("UTF8");
    if matches!(encoding, "UTF8" | "SQL_ASCII") {
        return Ok(String::from_utf8_lossy(&sql).into_owned());
    }
    let query = "SELECT pg_catalog.convert_from($1::bytea, $2::text)";
    let tried = format!("read the backup's schema, which is written in {encoding}");
    let row = session.select_one(&tried, query, &[&sql, &encoding]).await?;
    Ok(row.get(0))
}

/// Makes the indexes and constraints, several at once, and returns those that the server refuses: the rows are what is
/// wanted back, and an operator class or a function which this database lacks must not keep them away.
pub(super) async fn build(
    place: &Arc<Place>,
    connection: &ConnectionSettings,
    statements: &[Statement],
    jobs: usize,
) -> Result<Vec<NotCovered>, RestoreError> {
    let jobs = jobs.clamp(1, statements.len().max(1));
    let queue: Arc<Mutex<VecDeque<Statement>>> = Arc::new(Mutex::new(statements.iter().cloned().collect()));
    let mut workers = JoinSet::new();
    for _ in 0..jobs {
        workers.spawn(worker(Arc::clone(place), connection.clone(), Arc::clone(&queue)));
    }
    let mut refused = Vec::new();
    while let Some(result) = workers.join_next().await {
        refused.extend(result??);
    }
    Ok(refused)
}

async fn worker(
    place: Arc<Place>,
    connection: ConnectionSettings,
    queue: Arc<Mutex<VecDeque<Statement>>>,
) -> Result<Vec<NotCovered>, Error> {
    let session = Session::connect(&connection, "restore", None).await?;
    place.works_in(&session);
    let mut refused = Vec::new();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(statement) = next else {
            return Ok(refused);
        };
        // Prepared, and so one statement whatever it says.
        let tried = format!("make the {} {}", statement.kind.as_str(), statement.name);
        match session.select(&tried, &statement.sql, &[]).await {
            Ok(_) => {}
            Err(error) if speaks_of_the_statement(&error) => refused.push(NotCovered {
                kind: statement.kind.as_str().to_owned(),
                name: statement.name,
                reason: error.reason().to_owned(),
            }),
            Err(error) => return Err(error),
        }
    }
}

/// The server would say the same again: what the statement names is missing, or the rows do not fit it.
fn speaks_of_the_statement(error: &Error) -> bool {
    const CLASSES: &[&str] = &["0A", "22", "23", "42", "54", "P0"];
    let state = error.sqlstate().unwrap_or_default();
    CLASSES.iter().any(|class| state.starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples;

    fn found(dump: &str) -> Additions {
        let contents = samples::contents();
        let selection = Selection::find(&contents, &["public.t".to_owned()]).unwrap();
        Additions::find(dump, &contents, &selection, "S")
    }

    fn entry(header: &str, text: &str) -> String {
        format!("--\n-- Name: {header}; Schema: public; Owner: o\n--\n\n{text}\n\n")
    }

    #[test]
    fn only_what_belongs_to_the_tables_is_made_and_what_is_not_understood_is_named() {
        let dump = [
            entry(
                "t t_pkey; Type: CONSTRAINT",
                "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id);",
            ),
            entry("i; Type: INDEX", "CREATE INDEX i ON public.t USING btree (id);"),
            entry(
                "other n; Type: CONSTRAINT",
                "ALTER TABLE public.other\n    ADD CONSTRAINT n NOT NULL id NOT VALID;",
            ),
            entry("t; Type: INDEX", "CREATE INDEX t ON public.t USING btree (id);"),
            entry(
                "j; Type: INDEX",
                "CREATE INDEX j ON public.other USING btree (id);",
            ),
            entry("k; Type: INDEX", "CREATE INDEX k ON SOMETHING ELSE;"),
            entry(
                "t f; Type: FK CONSTRAINT",
                "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT f FOREIGN KEY (id) REFERENCES public.other(id);",
            ),
            entry(
                "c; Type: TABLE",
                "CREATE TABLE public.c (\n    id integer\n)\nINHERITS (public.t);",
            ),
        ];
        let found = found(&dump.concat());
        let sql: Vec<&str> = found.statements.iter().map(|one| one.sql.as_str()).collect();
        assert_eq!(
            sql,
            [
                "ALTER TABLE ONLY \"S\".\"t\"\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id)",
                "CREATE INDEX i ON \"S\".\"t\" USING btree (id)"
            ]
        );
        let left: Vec<&str> = found.not_restored.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(left, ["t on public.t", "k", "f of public.t", "public.c"]);
    }
}
