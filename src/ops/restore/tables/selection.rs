//! Which tables of a backup are meant by the names that were given.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::contents::{Contents, NotCovered, Table, TableName};
use crate::model::suggestion::near;
use crate::ops::target::matches_any;

/// How many names an error lists.
const NAMED: usize = 5;

/// The tables to bring back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// Places in the contents' tables.
    pub(super) tables: BTreeSet<usize>,
    /// Partitioned tables, each with its partitions' places.
    pub(super) roots: BTreeMap<TableName, Vec<usize>>,
    /// Tables that were meant, and whose rows the backup does not hold.
    pub(super) without_rows: Vec<NotCovered>,
}

/// What a name can mean.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Meant {
    Table(usize),
    Root(TableName),
    /// A partition whose rows are kept together with the others of its root.
    Within(TableName),
    NotCovered(usize),
}

/// Everything in a backup that has a name which can be asked for.
type Known = Vec<(TableName, Meant)>;

impl Selection {
    /// Finds what the names mean. A name is `schema.table`, or `table` where one schema only has it; `*` stands for any
    /// characters. What a name is to the letter comes before what it is as a pattern.
    ///
    /// # Errors
    /// All names that mean nothing, or more than they may, in words.
    pub(super) fn find(contents: &Contents, names: &[String]) -> Result<Self, String> {
        let known = known(contents);
        let mut selection = Self::default();
        let mut faults = Vec::new();
        for name in names {
            match meant(&known, name) {
                Ok(found) => faults.extend(selection.add(contents, name, &found).err()),
                Err(fault) => faults.push(fault),
            }
        }
        for places in selection.roots.values() {
            selection.tables.extend(places);
        }
        faults.extend(selection.same_names(contents));
        if faults.is_empty() {
            Ok(selection)
        } else {
            Err(faults.join("; "))
        }
    }

    fn add(&mut self, contents: &Contents, name: &str, found: &[&(TableName, Meant)]) -> Result<(), String> {
        let mut without_rows = Vec::new();
        for (_, meant) in found {
            match meant {
                Meant::Table(place) => {
                    self.tables.insert(*place);
                }
                Meant::Root(root) => {
                    let of_root = |(_, table): &(usize, &Table)| table.partition_of.as_ref() == Some(root);
                    let places = contents.tables.iter().enumerate().filter(of_root);
                    self.roots
                        .insert(root.clone(), places.map(|(place, _)| place).collect());
                }
                // A pattern that means the root as well means these rows once.
                Meant::Within(root) if found.iter().any(|(other, _)| other == root) => {}
                Meant::Within(root) => {
                    return Err(format!(
                        "{name}: the backup holds the rows of this partition together with those of the others: ask for {root}"
                    ));
                }
                Meant::NotCovered(place) => without_rows.push(contents.not_covered[*place].clone()),
            }
        }
        if without_rows.len() == found.len()
            && let Some(first) = without_rows.first()
        {
            return Err(format!(
                "{name}: the backup does not hold the rows of {}: {}",
                first.name, first.reason
            ));
        }
        self.without_rows.extend(without_rows);
        Ok(())
    }

    /// Two tables of one name cannot lie in one schema.
    fn same_names(&self, contents: &Contents) -> Vec<String> {
        let mut by_name: BTreeMap<String, BTreeSet<TableName>> = BTreeMap::new();
        let tables = self.tables.iter().map(|place| name_of(&contents.tables[*place]));
        for table in tables.chain(self.roots.keys().cloned()) {
            by_name.entry(table.name.clone()).or_default().insert(table);
        }
        let several = by_name.into_values().filter(|tables| tables.len() > 1);
        several
            .map(|tables| {
                format!(
                    "{} have one name and cannot lie in one schema: restore them one after the other, each --into-schema of its own",
                    listed(tables.iter())
                )
            })
            .collect()
    }
}

fn name_of(table: &Table) -> TableName {
    TableName {
        schema: table.schema.clone(),
        name: table.name.clone(),
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a TableName>) -> String {
    names.map(TableName::to_string).collect::<Vec<_>>().join(", ")
}

fn known(contents: &Contents) -> Known {
    let mut known = Known::new();
    for (place, table) in contents.tables.iter().enumerate() {
        let name = name_of(table);
        known.extend(
            table
                .partition_of
                .iter()
                .map(|root| (root.clone(), Meant::Root(root.clone()))),
        );
        let within = |partition: &TableName| (partition.clone(), Meant::Within(name.clone()));
        known.extend(table.partitions.iter().map(within));
        known.push((name, Meant::Table(place)));
    }
    for (place, not_covered) in contents.not_covered.iter().enumerate() {
        // Other kinds are not named as `schema.table`.
        let is_table = ["table", "table rows", "foreign table rows"].contains(&not_covered.kind.as_str());
        if let (true, Some((schema, name))) = (is_table, not_covered.name.split_once('.')) {
            let name = TableName {
                schema: schema.to_owned(),
                name: name.to_owned(),
            };
            known.push((name, Meant::NotCovered(place)));
        }
    }
    known.sort();
    known.dedup();
    known
}

/// What a name means: the first reading that means anything.
fn meant<'a>(known: &'a Known, name: &str) -> Result<Vec<&'a (TableName, Meant)>, String> {
    let found = |is: &dyn Fn(&TableName) -> bool| -> Vec<&'a (TableName, Meant)> {
        known.iter().filter(|(table, _)| is(table)).collect()
    };
    let pattern = [name.to_owned()];
    let as_sql = name.parse::<TableName>().ok();
    let readings: [&dyn Fn(&TableName) -> bool; 5] = [
        &|table| as_sql.as_ref() == Some(table),
        &|table| table.to_string() == name,
        &|table| table.name == name,
        &|table| matches_any(&pattern, &table.to_string()),
        &|table| matches_any(&pattern, &table.name),
    ];
    // Those that leave the schema out.
    let bare = [2, 4];
    let mut readings = readings.iter().map(|is| found(*is)).enumerate();
    let Some((reading, found)) = readings.find(|(_, found)| !found.is_empty()) else {
        return Err(nothing(known, name));
    };
    let schemas: BTreeSet<&str> = found.iter().map(|(table, _)| table.schema.as_str()).collect();
    if schemas.len() > 1 && bare.contains(&reading) {
        let tables: BTreeSet<&TableName> = found.iter().map(|(table, _)| table).collect();
        return Err(format!(
            "{name} is in several schemas: say which of {}",
            listed(tables.into_iter())
        ));
    }
    Ok(found)
}

/// The error for a name that means nothing.
fn nothing(known: &Known, name: &str) -> String {
    let whole: BTreeSet<String> = known.iter().map(|(table, _)| table.to_string()).collect();
    let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
    let bare: BTreeSet<&str> = known.iter().map(|(table, _)| table.name.as_str()).collect();
    let bare: Vec<&str> = bare.into_iter().collect();
    let mut alike: Vec<&str> = near(name, &whole);
    let without_schema = name.rsplit('.').next().unwrap_or(name);
    for word in near(without_schema, &bare) {
        let of_word = known.iter().filter(|(table, _)| table.name == word);
        alike.extend(of_word.filter_map(|(table, _)| {
            let display = table.to_string();
            whole.iter().find(|name| ***name == display).copied()
        }));
    }
    let mut seen = BTreeSet::new();
    alike.retain(|name| seen.insert(*name));
    alike.truncate(NAMED);
    if alike.is_empty() {
        format!("the backup has no table {name}: `--table '*' --plan` lists those that it has")
    } else {
        format!("the backup has no table {name}; there is {}", alike.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples;

    /// Tables by `schema.table`, each with the root that it is a partition of.
    fn contents(tables: &[(&str, &str, Option<&str>)]) -> Contents {
        let mut contents = samples::contents();
        let sample = contents.tables[0].clone();
        contents.not_covered = vec![NotCovered {
            kind: "table rows".into(),
            name: "public.log".into(),
            reason: "left out".into(),
        }];
        contents.tables = tables
            .iter()
            .map(|(schema, name, root)| Table {
                schema: (*schema).into(),
                name: (*name).into(),
                partition_of: root.map(|root| TableName {
                    schema: "public".into(),
                    name: root.into(),
                }),
                ..sample.clone()
            })
            .collect();
        contents
    }

    fn found(contents: &Contents, names: &[&str]) -> Result<Vec<usize>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Selection::find(contents, &names).map(|selection| selection.tables.into_iter().collect())
    }

    #[test]
    fn a_name_to_the_letter_comes_before_a_pattern() {
        let contents = contents(&[
            ("public", "orders", None),
            ("public", "a*", None),
            ("public", "ab", None),
            ("a.b", "c", None),
            ("a", "b.c", None),
        ]);
        assert_eq!(found(&contents, &["public.orders", "orders"]), Ok(vec![0]));
        assert_eq!(found(&contents, &["public.a*"]), Ok(vec![1]));
        assert_eq!(found(&contents, &["public.*b"]), Ok(vec![2]));
        assert_eq!(
            found(&contents, &["a*"]),
            Ok(vec![1]),
            "and not everything below a"
        );
        assert_eq!(found(&contents, &["a.b.c"]), Ok(vec![3, 4]));
        assert_eq!(found(&contents, &["\"a.b\".c"]), Ok(vec![3]));
        assert_eq!(found(&contents, &["\"a\".\"b.c\""]), Ok(vec![4]));
    }

    #[test]
    fn names_that_mean_nothing_or_too_much_are_all_named() {
        let contents = contents(&[
            ("public", "orders", None),
            ("audit", "orders", None),
            ("public", "items", None),
        ]);
        let error = found(&contents, &["public.ordres", "orders", "public.log", "nowhere"]).unwrap_err();
        for part in [
            "no table public.ordres; there is public.orders",
            "say which of audit.orders, public.orders",
            "does not hold the rows of public.log: left out",
            "no table nowhere",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let error = found(&contents, &["*.orders"]).unwrap_err();
        assert!(
            error.contains("audit.orders, public.orders have one name"),
            "{error}"
        );
    }

    #[test]
    fn a_partitioned_table_means_its_partitions_and_what_has_no_rows_is_told() {
        let contents = contents(&[
            ("public", "m1", Some("m")),
            ("public", "m2", Some("m")),
            ("public", "other", None),
        ]);
        assert_eq!(found(&contents, &["m"]), Ok(vec![0, 1]));
        assert_eq!(found(&contents, &["public.m1"]), Ok(vec![0]));
        let selection = Selection::find(&contents, &["public.*".to_owned()]).unwrap();
        assert_eq!(selection.roots.len(), 1);
        assert_eq!(selection.without_rows[0].name, "public.log");
    }
}
