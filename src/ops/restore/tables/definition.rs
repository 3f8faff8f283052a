//! The tables as they are made in their new schema, from what the contents say of their columns.

use std::collections::BTreeMap;

use crate::model::contents::{Column, Contents, LoadStage, Table, TableName};
use crate::model::redact::without_literals;
use crate::postgres::identifier::{qualified, quote_identifier, quote_literal};

use super::selection::Selection;

/// Begins the comment of every table and view that a restore has made; only such may be removed again.
pub(super) const MADE: &str = "restored by ernstfall from ";

/// A relation to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    pub(super) name: String,
    /// What to say is being done, for errors.
    pub(super) tried: String,
    pub(super) statements: String,
}

/// The chosen tables as they are to stand in the schema, by their place in the contents.
pub(super) fn renamed(contents: &Contents, selection: &Selection, schema: &str) -> BTreeMap<usize, Table> {
    let table = |place: &usize| {
        let table = Table {
            schema: schema.to_owned(),
            // Nothing else is in it than the rows of the backup, and it stands alone.
            condition: None,
            partition_of: None,
            partitions: Vec::new(),
            load: LoadStage::BeforeIndexes,
            ..contents.tables[*place].clone()
        };
        (*place, table)
    };
    selection.tables.iter().map(table).collect()
}

/// `CREATE TABLE` with columns as in the source, stored ones first, and with its comment.
pub(super) fn table(from: &Table, into: &Table, backup: &str) -> Definition {
    let name = qualified(&into.schema, &into.name);
    let columns: Vec<String> = into
        .columns
        .iter()
        .chain(&into.generated_columns)
        .map(column)
        .collect();
    let mut tried = format!("make the table {}.{}", into.schema, into.name);
    if !into.generated_columns.is_empty() {
        let computed = into.generated_columns.iter().map(|column| {
            let expression = column.expression.as_deref().unwrap_or_default();
            format!("{} = {}", column.name, without_literals(expression))
        });
        tried.push_str(&format!(
            ", whose generated columns ({}) need all that they call in this database",
            computed.collect::<Vec<_>>().join(", ")
        ));
    }
    Definition {
        name: into.name.clone(),
        tried,
        statements: format!(
            "CREATE TABLE {name} ({}); COMMENT ON TABLE {name} IS {}",
            columns.join(", "),
            quote_literal(&format!("{MADE}{} of backup {backup}", from.display_name()))
        ),
    }
}

fn column(column: &Column) -> String {
    let mut sql = format!("{} {}", quote_identifier(&column.name), column.type_name);
    if let Some(collation) = &column.collation {
        sql.push_str(&format!(" COLLATE {collation}"));
    }
    if let Some(expression) = &column.expression {
        sql.push_str(&format!(" GENERATED ALWAYS AS ({expression}) STORED"));
    }
    if column.not_null {
        sql.push_str(" NOT NULL");
    }
    sql
}

/// A view in a partitioned table's place, over its partitions.
pub(super) fn view(
    root: &TableName,
    partitions: &[usize],
    into: &BTreeMap<usize, Table>,
    schema: &str,
    backup: &str,
) -> Option<Definition> {
    let parts: Vec<&Table> = partitions.iter().filter_map(|place| into.get(place)).collect();
    let first = parts.first()?;
    let columns = first.columns.iter().chain(&first.generated_columns);
    let columns: Vec<String> = columns.map(|column| quote_identifier(&column.name)).collect();
    let selects = parts.iter().map(|part| {
        format!(
            "SELECT {} FROM {}",
            columns.join(", "),
            qualified(&part.schema, &part.name)
        )
    });
    let name = qualified(schema, &root.name);
    Some(Definition {
        name: root.name.clone(),
        tried: format!("make the view {schema}.{} over the partitions", root.name),
        statements: format!(
            "CREATE VIEW {name} AS {}; COMMENT ON VIEW {name} IS {}",
            selects.collect::<Vec<_>>().join(" UNION ALL "),
            quote_literal(&format!("{MADE}{root} of backup {backup}"))
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples;

    #[test]
    fn a_table_is_made_with_types_collations_expressions_and_whatever_name_it_has() {
        let mut from = samples::contents().tables.remove(0);
        from.columns[0].name = "a\"b\n".into();
        from.columns[0].collation = Some("pg_catalog.\"C\"".into());
        from.generated_columns = vec![Column {
            name: "twice".into(),
            type_name: "numeric(10,2)".into(),
            collation: None,
            not_null: false,
            expression: Some("(id * 2)".into()),
        }];
        let into = Table {
            schema: "S".into(),
            ..from.clone()
        };
        let made = table(&from, &into, "20270115T080000Z-0000");
        assert_eq!(
            made.statements,
            "CREATE TABLE \"S\".\"t\" (U&\"a\"\"b\\000a\" integer COLLATE pg_catalog.\"C\" NOT NULL, \
             \"twice\" numeric(10,2) GENERATED ALWAYS AS ((id * 2)) STORED); COMMENT ON TABLE \"S\".\"t\" IS \
             'restored by ernstfall from public.t of backup 20270115T080000Z-0000'"
        );
        assert!(made.tried.contains("twice = (id * 2)"), "{}", made.tried);
    }

    #[test]
    fn a_view_joins_the_partitions_by_the_names_of_their_columns() {
        let contents = samples::contents();
        let mut other = contents.tables[0].clone();
        other.name = "u".into();
        let into = BTreeMap::from([(0, contents.tables[0].clone()), (1, other)]);
        let root = TableName {
            schema: "public".into(),
            name: "r".into(),
        };
        let made = view(&root, &[0, 1], &into, "S", "x").unwrap();
        assert!(
            made.statements.starts_with(
                "CREATE VIEW \"S\".\"r\" AS SELECT \"id\" FROM \"public\".\"t\" UNION ALL SELECT \"id\" FROM \"public\".\"u\";"
            ),
            "{}",
            made.statements
        );
    }
}
