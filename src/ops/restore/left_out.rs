//! What a restore leaves out of a backup, and the list by which pg_restore leaves it out.
//!
//! A backup whose target excludes tables brings a list of its own. A restore test can leave out extensions besides
//! (`scratch.skip_extensions`): then the contents are cut down to what is restored, so that whatever loads or compares
//! needs to know of nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::archive_list::{Along, ArchiveList, Entry, ObjectId};
use crate::model::contents::{CatalogueObject, Contents, LoadStage, NotCovered, Part};
use crate::model::manifest::Manifest;
use crate::ops::context::Context;
use crate::postgres::archive;
use crate::postgres::dependents::{CONSTRAINTS, RELATIONS};
use crate::postgres::identifier::Quoting;
use crate::postgres::programs::Programs;
use crate::postgres::sequences::set_statement;

use super::RestoreError;
use super::build::Backup;
use super::source::Reader;

/// What of a backup's parts is not restored. Its contents name only what is.
#[derive(Debug, Default)]
pub(in crate::ops) struct LeftOut {
    /// For `pg_restore -L`; `None` where the whole archive is restored.
    list: Option<String>,
    /// Statements of the last script that are about what is left out.
    statements: BTreeSet<String>,
}

impl LeftOut {
    /// What the backup itself leaves out of its archive.
    pub(in crate::ops) async fn of_backup(
        reader: &Reader,
        manifest: &Manifest,
    ) -> Result<Self, RestoreError> {
        let Some(object) = &manifest.schema_list else {
            return Ok(Self::default());
        };
        let text = reader.read(object).await?;
        let list = String::from_utf8(text).map_err(|error| RestoreError::Damaged {
            object: object.key.clone(),
            what: error.to_string(),
        })?;
        Ok(Self {
            list: Some(list),
            statements: BTreeSet::new(),
        })
    }

    /// The list for `pg_restore -L`, where not the whole archive is restored.
    pub(in crate::ops) fn list(&self) -> Option<&str> {
        self.list.as_deref()
    }

    /// The statement is about something that is left out.
    pub(in crate::ops) fn statement(&self, statement: &str) -> bool {
        self.statements.contains(statement)
    }
}

/// Cuts a backup down to what can be restored without these extensions. Those that it does not have say nothing.
pub(in crate::ops) async fn without_extensions(
    context: &Context,
    backup: &mut Backup,
    skipped: &[String],
) -> Result<(), RestoreError> {
    let has = |name: &String| backup.contents.extensions.iter().any(|one| one.name == *name);
    if !skipped.iter().any(has) {
        return Ok(());
    }
    let bytes = backup.reader.read(&backup.manifest.schema).await?;
    let major = u32::try_from(backup.contents.database.server_version_num / 10_000).unwrap_or(0);
    let installation = Programs::client_for(context.bin_dir.as_deref(), major)?;
    let mut entries = archive::list(&installation, &bytes).await?;
    if let Some(list) = backup.left_out.list() {
        entries.retain_listed(list);
    }
    let mut contents = Contents::clone(&backup.contents);
    let out = Out::find(&entries, &contents, skipped);
    backup.left_out.list = Some(entries.without(&out.entries));
    backup.left_out.statements = cut(&mut contents, &out);
    backup.contents = contents.into();
    Ok(())
}

fn id(class: u32, oid: u32) -> ObjectId {
    ObjectId { class, oid }
}

/// What goes with skipped extensions, as the archive's own dependencies tell.
struct Out {
    entries: BTreeSet<u32>,
    /// Each object, with the name of the extension it needs.
    objects: BTreeMap<ObjectId, String>,
    /// Likewise the extensions; one may need another.
    extensions: BTreeMap<String, String>,
}

impl Out {
    fn find(archive: &ArchiveList, contents: &Contents, skipped: &[String]) -> Self {
        let mut out = Self {
            entries: BTreeSet::new(),
            objects: BTreeMap::new(),
            extensions: BTreeMap::new(),
        };
        for name in skipped {
            let extension = contents.extensions.iter().find(|one| one.name == *name);
            let constraints = extension
                .map(|one| one.constraints.as_slice())
                .unwrap_or_default();
            let needs_it = |entry: &Entry| {
                entry.extension() == Some(name)
                    || (entry.object.class == CONSTRAINTS && constraints.contains(&entry.object.oid))
            };
            let entries = archive.left_out(needs_it, Along::WhateverNeedsThem);
            for entry in archive.entries().filter(|entry| entries.contains(&entry.id)) {
                if let Some(extension) = entry.extension() {
                    out.extensions
                        .entry(extension.to_owned())
                        .or_insert_with(|| name.clone());
                }
                if entry.object.class != 0 {
                    out.objects.entry(entry.object).or_insert_with(|| name.clone());
                }
            }
            out.entries.extend(entries);
        }
        for Part { part, of } in &contents.parts {
            if let Some(cause) = out.objects.get(of).cloned() {
                out.objects.entry(*part).or_insert(cause);
            }
        }
        out
    }

    /// The extension for which an object of the catalogue goes.
    fn cause(&self, object: &CatalogueObject) -> Option<&String> {
        let own = self.objects.get(&id(object.class, object.oid));
        own.or_else(|| self.objects.get(&id(RELATIONS, object.relation)))
    }
}

/// Takes what goes out of the contents, and names it there. Returns the statements of the last script that go as well.
fn cut(contents: &mut Contents, out: &Out) -> BTreeSet<String> {
    let mut named = Vec::new();
    let mut relations = cut_extensions(contents, out, &mut named);
    let parts: BTreeSet<ObjectId> = contents.parts.iter().map(|part| part.part).collect();
    for object in std::mem::take(&mut contents.catalogue) {
        let Some(cause) = out.cause(&object) else {
            contents.catalogue.push(object);
            continue;
        };
        let is_relation = object.class == RELATIONS && object.kind != "index";
        let of_gone_table =
            object.relation != object.oid && out.objects.contains_key(&id(RELATIONS, object.relation));
        // What is part of a definition is told by the name of what is defined.
        let of_definition = of_gone_table && matches!(object.kind.as_str(), "index" | "constraint");
        if is_relation || !(of_definition || parts.contains(&id(object.class, object.oid))) {
            named.push(not_covered(&object.kind, &object.name, needs(cause)));
        }
        if is_relation {
            relations.insert(object.name);
        }
    }
    contents.not_covered.extend(named);
    leave_relations(contents, &relations)
}

fn needs(extension: &str) -> String {
    format!("it needs the extension {extension}, which scratch.skip_extensions leaves out")
}

fn not_covered(kind: &str, name: &str, reason: String) -> NotCovered {
    NotCovered {
        kind: kind.to_owned(),
        name: name.to_owned(),
        reason,
    }
}

/// Takes the extensions out, and returns which tables, sequences and views are theirs.
fn cut_extensions(contents: &mut Contents, out: &Out, named: &mut Vec<NotCovered>) -> BTreeSet<String> {
    let mut relations = BTreeSet::new();
    let all = std::mem::take(&mut contents.extensions);
    let (gone, stay): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|one| out.extensions.contains_key(&one.name));
    contents.extensions = stay;
    for extension in gone {
        let cause = out.extensions.get(&extension.name).unwrap_or(&extension.name);
        let reason = if *cause == extension.name {
            "scratch.skip_extensions leaves it out".to_owned()
        } else {
            needs(cause)
        };
        named.push(not_covered("extension", &extension.name, reason));
        for relation in &extension.relations {
            let relation = format!("{}.{}", relation.schema, relation.name);
            let reason = needs(&extension.name);
            named.push(not_covered(
                "table or sequence of an extension",
                &relation,
                reason,
            ));
            relations.insert(relation);
        }
    }
    relations
}

/// Takes rows, sequences and views of these relations out of the contents.
fn leave_relations(contents: &mut Contents, relations: &BTreeSet<String>) -> BTreeSet<String> {
    let goes = |schema: &str, name: &str| relations.contains(&format!("{schema}.{name}"));
    for table in &mut contents.tables {
        // Rows that may come to lie in any partition need all of them.
        let through = table.partitions.iter().any(|part| goes(&part.schema, &part.name));
        if through || goes(&table.schema, &table.name) {
            table.load = LoadStage::Never;
        }
    }
    let quoting = Quoting::for_encoding(&contents.database.encoding);
    let sequences = std::mem::take(&mut contents.sequences);
    let (gone, stay): (Vec<_>, Vec<_>) = sequences
        .into_iter()
        .partition(|one| goes(&one.schema, &one.name));
    contents.sequences = stay;
    contents
        .materialized_views
        .retain(|view| !goes(&view.schema, &view.name));
    gone.iter()
        .map(|sequence| set_statement(sequence, quoting))
        .collect()
}
