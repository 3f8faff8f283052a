//! Whether much is gone that the backup before this one held: a table, or more than half of one's rows.
//!
//! The earlier numbers come from a note that the last backup left in the state directory, since a host that takes
//! backups need not be able to read them. Nothing here makes a backup fail: what is not known is said to be unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::backup_id::BackupId;
use crate::model::clocks::{CLOCK_TOLERANCE, source_clock};
use crate::model::contents::{Contents, Table, TableName};
use crate::model::manifest::{FORMAT, Manifest, Shrank};
use crate::model::target_name::TargetName;
use crate::model::upkeep::CONTENT_SHRANK;
use crate::model::verification::{Finding, Severity};
use crate::ops::context::Context;
use crate::ops::restore::RestoreError;
use crate::ops::restore::source::Reader;
use crate::ops::target::{Target, matches_any};
use crate::postgres::heartbeat;
use crate::repository::Error as RepositoryError;
use crate::store::durable::{make_directories, write_over};

use super::Notebook;

/// Tables that a finding names; it says how many more there are.
const NAMED: usize = 20;

/// How many rows a backup holds of each of its tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    format: u32,
    tables: Vec<Count>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    table: TableName,
    rows: u64,
    /// For a partition: the partitioned table at the top.
    partition_of: Option<TableName>,
    /// The partitions whose rows are counted here.
    partitions: Vec<TableName>,
}

/// What is kept in the state directory of the last backup that was taken from here.
#[derive(Serialize, Deserialize)]
struct Note {
    backup: BackupId,
    counts: Counts,
}

/// What is gone since the backup before.
#[derive(Debug, Default, PartialEq, Eq)]
struct Loss {
    /// With the rows that they had.
    gone: Vec<(TableName, u64)>,
    /// With the rows that they had, and have.
    halved: Vec<(TableName, u64, u64)>,
}

/// Compares with the newest backup. A loss, or that it is not known, becomes a finding of this backup.
pub(super) async fn look(
    context: &Context,
    target: &Target,
    contents: &Contents,
    notes: &Notebook,
) -> Option<Shrank> {
    notes.lock().counts = Some(Counts::of(contents));
    let skew = notes.lock().clock_skew_seconds;
    let (since, before) = match counts_of_newest(context, &target.name, skew).await {
        Ok(found) => found?,
        Err(why) => {
            let message = format!("unknown whether content shrank since the backup before: {why}");
            notes.lock().findings.push(finding(Severity::Info, message));
            return None;
        }
    };
    let loss = loss(&before, contents, target);
    if loss == Loss::default() {
        return None;
    }
    let message = describe(&loss, &since);
    context.progress.note(&message);
    notes.lock().findings.push(finding(Severity::Warning, message));
    Some(Shrank {
        since,
        tables_gone: loss.gone.len() as u64,
        tables_halved: loss.halved.len() as u64,
    })
}

/// Keeps the numbers of a backup that exists now, for the next one.
pub(super) fn remember(context: &Context, target: &TargetName, backup: &BackupId, notes: &Notebook) {
    let Some(counts) = notes.lock().counts.take() else {
        return;
    };
    let note = Note {
        backup: backup.clone(),
        counts,
    };
    let path = note_path(context, target);
    let write = || {
        let bytes = serde_json::to_vec(&note)?;
        make_directories(&notes_folder(context))?;
        write_over(&context.state_dir.join(".tmp"), &path, &bytes)
    };
    if let Err(error) = write() {
        context.progress.note(&format!(
            "write {}, by which the next backup finds out whether content shrank: {error}",
            path.display()
        ));
    }
}

fn notes_folder(context: &Context) -> PathBuf {
    context.state_dir.join("contents")
}

fn note_path(context: &Context, target: &TargetName) -> PathBuf {
    notes_folder(context).join(format!("{target}.json"))
}

/// The newest backup and its numbers; nothing before the first backup. The error says why they cannot be had.
async fn counts_of_newest(
    context: &Context,
    target: &TargetName,
    clock_skew_seconds: Option<f64>,
) -> Result<Option<(BackupId, Counts)>, String> {
    let repository = &context.repository;
    let newest = newest(context, target, clock_skew_seconds).await;
    let Some(id) = newest.map_err(|error| crate::ops::chain(&error))? else {
        return Ok(None);
    };
    if let Some(note) = note(context, target).filter(|note| note.backup == id) {
        return Ok(Some((id, note.counts)));
    }
    let why = |error: &dyn std::error::Error| format!("{id}: {}", crate::ops::chain(error));
    let manifest = repository
        .manifest(target, &id)
        .await
        .map_err(|error| why(&error))?;
    match read_counts(context, &manifest).await {
        Ok(counts) => Ok(Some((id, counts))),
        // Another host took the newest, and it cannot be read here: then the last that was taken from here has to do.
        Err(error) => match note(context, target) {
            Some(note)
                if repository
                    .has_manifest(target, &note.backup)
                    .await
                    .unwrap_or(false) =>
            {
                Ok(Some((note.backup, note.counts)))
            }
            _ => Err(why(&error)),
        },
    }
}

/// From the repository, which takes an identity where the backup is encrypted.
async fn read_counts(context: &Context, manifest: &Manifest) -> Result<Counts, RestoreError> {
    let reader = Reader::open(&context.keys, &context.repository, manifest).await?;
    Ok(Counts::of(&reader.contents(manifest).await?))
}

async fn newest(
    context: &Context,
    target: &TargetName,
    clock_skew_seconds: Option<f64>,
) -> Result<Option<BackupId>, RepositoryError> {
    let now = (context.clock)();
    // Of a standby, they are by the clock of its primary.
    let last = source_clock(now, clock_skew_seconds).max(now) + CLOCK_TOLERANCE;
    let mut ids = context.repository.newest_ids(target, last).await?;
    if ids.len() < 2 {
        return Ok(ids.pop());
    }
    let manifests = context.repository.manifests(target).await?;
    Ok(manifests.newest_at(now).map(|manifest| manifest.id.clone()))
}

/// A note that is missing, or of no use, is no note.
fn note(context: &Context, target: &TargetName) -> Option<Note> {
    let bytes = fs::read(note_path(context, target)).ok()?;
    let note: Note = serde_json::from_slice(&bytes).ok()?;
    (note.counts.format == FORMAT).then_some(note)
}

impl Counts {
    fn of(contents: &Contents) -> Self {
        let count = |table: &Table| Count {
            table: name_of(table),
            rows: table.fingerprint.rows,
            partition_of: table.partition_of.clone(),
            partitions: table.partitions.clone(),
        };
        Self {
            format: FORMAT,
            tables: contents.tables.iter().map(count).collect(),
        }
    }
}

impl Counts {
    /// The rows of a table with all its partitions, and of those that have become tables of their own since; as much as is
    /// known of one that has become a partition. `None`: there is no such table.
    fn rows_of(&self, name: &TableName, members: &BTreeSet<&TableName>) -> Option<u64> {
        let mut found = None;
        for count in &self.tables {
            let in_its_tree = count.tree() == name || members.contains(&count.table);
            if in_its_tree || count.partitions.contains(name) {
                *found.get_or_insert(0) += count.rows;
            }
        }
        found
    }
}

impl Count {
    /// Partitions come and go: only all of a table together can shrink.
    fn tree(&self) -> &TableName {
        self.partition_of.as_ref().unwrap_or(&self.table)
    }
}

fn name_of(table: &Table) -> TableName {
    TableName {
        schema: table.schema.clone(),
        name: table.name.clone(),
    }
}

fn loss(before: &Counts, contents: &Contents, target: &Target) -> Loss {
    let left_out: BTreeSet<&str> = contents.not_covered.iter().map(|one| one.name.as_str()).collect();
    let does_not_count = |name: &TableName| {
        let name = name.to_string();
        let patterns = [&target.exclude, &target.exclude_data, &target.may_shrink];
        // Whoever switches the heartbeat off drops its table, and loses nothing.
        name == format!("{}.{}", heartbeat::SCHEMA, heartbeat::TABLE)
            || left_out.contains(name.as_str())
            || patterns.iter().any(|patterns| matches_any(patterns, &name))
    };
    let mut had: BTreeMap<&TableName, u64> = BTreeMap::new();
    let counted = before.tables.iter().filter(|count| {
        let mut names = [&count.table, count.tree()].into_iter().chain(&count.partitions);
        !names.any(does_not_count)
    });
    let mut members: BTreeMap<&TableName, BTreeSet<&TableName>> = BTreeMap::new();
    for count in counted {
        *had.entry(count.tree()).or_default() += count.rows;
        let names = members.entry(count.tree()).or_default();
        names.insert(&count.table);
        names.extend(&count.partitions);
    }
    let now = Counts::of(contents);
    let mut loss = Loss::default();
    for (name, rows) in had.into_iter().filter(|(_, rows)| *rows > 0) {
        match now.rows_of(name, &members[name]) {
            None => loss.gone.push((name.clone(), rows)),
            Some(left) if rows - left.min(rows) > rows / 2 => {
                loss.halved.push((name.clone(), rows, left));
            }
            Some(_) => {}
        }
    }
    loss
}

fn describe(loss: &Loss, since: &BackupId) -> String {
    let gone = loss
        .gone
        .iter()
        .map(|(name, rows)| format!("table {name} is gone (it had {rows} rows)"));
    let halved = loss
        .halved
        .iter()
        .map(|(name, rows, left)| format!("table {name} has {left} rows left of {rows}"));
    let all: Vec<String> = gone.chain(halved).collect();
    let mut text = all[..all.len().min(NAMED)].join(", ");
    if let Some(more) = all.len().checked_sub(NAMED).filter(|more| *more > 0) {
        text.push_str(&format!(", and {more} more"));
    }
    format!("much is gone since backup {since}: {text}")
}

fn finding(severity: Severity, message: String) -> Finding {
    Finding {
        severity,
        subject: CONTENT_SHRANK.to_owned(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::contents::NotCovered;
    use crate::model::samples::contents;
    use crate::ops::target::for_tests;

    /// A table, or a partition of the one named after the slash: `orders`, `orders_1/orders`.
    fn backup(tables: &[(&str, u64)]) -> Contents {
        let mut contents = contents();
        let sample = contents.tables[0].clone();
        contents.tables.clear();
        for (name, rows) in tables {
            let (name, root) = match name.split_once('/') {
                Some((name, root)) => (name, Some(table_name(root))),
                None => (*name, None),
            };
            let mut table = sample.clone();
            table.name = name.to_owned();
            table.fingerprint.rows = *rows;
            table.partition_of = root;
            contents.tables.push(table);
        }
        contents
    }

    fn table_name(name: &str) -> TableName {
        TableName {
            schema: "public".to_owned(),
            name: name.to_owned(),
        }
    }

    /// What is found to be gone, as `name had has`.
    fn found(before: &Contents, now: &Contents, target: &Target) -> Vec<String> {
        let loss = loss(&Counts::of(before), now, target);
        let gone = loss.gone.iter().map(|(name, rows)| format!("{name} {rows} gone"));
        let halved = loss
            .halved
            .iter()
            .map(|(name, rows, left)| format!("{name} {rows} {left}"));
        gone.chain(halved).collect()
    }

    fn lost(before: &[(&str, u64)], now: &[(&str, u64)]) -> Vec<String> {
        found(&backup(before), &backup(now), &for_tests())
    }

    #[test]
    fn tables_that_become_partitions_or_stop_being_ones_are_not_gone() {
        let attached = [("q_1/q", 10), ("q_2/q", 1000)];
        let detached = [("q_1/q", 10), ("q_2", 1000)];
        assert_eq!(lost(&detached, &attached), Vec::<String>::new());
        assert_eq!(lost(&attached, &detached), Vec::<String>::new());
        assert_eq!(
            lost(&attached, &[("q_1/q", 10), ("q_2", 0)]),
            ["public.q 1010 10"]
        );
        assert_eq!(
            lost(&detached, &[("q_1/q", 10), ("q_2/q", 0)]),
            ["public.q_2 1000 0"]
        );
    }

    #[test]
    fn a_table_that_is_gone_or_lost_more_than_half_of_its_rows_is_a_loss() {
        assert_eq!(lost(&[("a", 1)], &[]), ["public.a 1 gone"]);
        assert_eq!(lost(&[("a", 100)], &[("a", 49)]), ["public.a 100 49"]);
        assert_eq!(lost(&[("a", 100)], &[("a", 50)]), [""; 0]);
        assert_eq!(lost(&[("a", 101)], &[("a", 50)]), ["public.a 101 50"]);
        assert_eq!(lost(&[("a", 1)], &[("a", 0)]), ["public.a 1 0"]);
        assert_eq!(lost(&[("a", 3)], &[("a", 2)]), [""; 0]);
        assert_eq!(lost(&[("a", 3)], &[("a", 300), ("b", 0)]), [""; 0]);
        let most = [("a", u64::MAX)];
        assert_eq!(lost(&most, &most), [""; 0]);
    }

    #[test]
    fn a_table_that_was_empty_can_lose_nothing() {
        assert_eq!(lost(&[("a", 0), ("b", 0)], &[("b", 0)]), [""; 0]);
    }

    #[test]
    fn partitions_count_only_all_together() {
        let before = [("p1/p", 40), ("p2/p", 40), ("p3/p", 40)];
        assert_eq!(lost(&before, &[("p2/p", 40), ("p3/p", 40)]), [""; 0]);
        assert_eq!(lost(&before, &[("p9/p", 120)]), [""; 0]);
        // Loaded through the table at the top from now on, or partitioned only now.
        assert_eq!(lost(&before, &[("p", 120)]), [""; 0]);
        assert_eq!(lost(&[("p", 120)], &before), [""; 0]);
        assert_eq!(lost(&before, &[("p2/p", 40)]), ["public.p 120 40"]);
        assert_eq!(lost(&before, &[("other", 1)]), ["public.p 120 gone"]);
    }

    #[test]
    fn what_is_left_out_now_or_may_shrink_does_not_count() {
        let before = backup(&[
            ("jobs", 9),
            ("log", 9),
            ("scratch", 9),
            ("p1/p", 90),
            ("p2/p", 9),
            ("view", 9),
        ]);
        let mut target = for_tests();
        target.may_shrink = vec!["public.job*".to_owned()];
        target.exclude_data = vec!["public.log".to_owned(), "public.p1".to_owned()];
        target.exclude = vec!["public.scratch".to_owned()];
        let mut now = backup(&[("jobs", 1), ("p2/p", 9)]);
        now.not_covered.push(NotCovered {
            kind: "table".to_owned(),
            name: "public.view".to_owned(),
            reason: "it depends on public.scratch".to_owned(),
        });
        assert_eq!(found(&before, &now, &target), [""; 0]);
        assert_eq!(found(&before, &now, &for_tests()).len(), 4);
        let mut through_the_top = backup(&[("p", 99)]);
        through_the_top.tables[0].partitions = vec![table_name("p1"), table_name("p2")];
        assert_eq!(found(&through_the_top, &now, &target), [""; 0]);
    }

    #[test]
    fn twenty_are_named_and_the_rest_counted() {
        let gone: Vec<(TableName, u64)> = (0..23)
            .map(|number| (table_name(&format!("t{number}")), 5))
            .collect();
        let halved = vec![(table_name("u"), 9, 1)];
        let text = describe(&Loss { gone, halved }, &crate::model::samples::id(1));
        assert!(
            text.contains("table public.t19 is gone (it had 5 rows)"),
            "{text}"
        );
        assert!(!text.contains("public.t20"), "{text}");
        assert!(text.ends_with(", and 4 more"), "{text}");
    }
}
