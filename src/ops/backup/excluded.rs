//! What a target's `exclude` leaves out: the relations that it names, and whatever cannot exist without them.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::archive_list::{Along, ArchiveList, ObjectId};
use crate::model::contents::{CatalogueObject, NotCovered};
use crate::ops::target::{Target, matches_any};
use crate::postgres::dependents::{self, Dependent, RELATIONS};
use crate::postgres::error::Error;
use crate::postgres::relations::Relation;
use crate::postgres::session::Session;

/// What is left out, as one session sees the database.
#[derive(Default)]
pub(in crate::ops) struct Excluded {
    /// What the target names, by oid: schema and name.
    named: BTreeMap<u32, (String, String)>,
    dependents: Vec<Dependent>,
    objects: BTreeSet<ObjectId>,
}

impl Excluded {
    /// Looks for what the target leaves out of these relations, and for what depends on it.
    pub(in crate::ops) async fn find(
        session: &Session,
        target: &Target,
        relations: &[Relation],
    ) -> Result<Self, Error> {
        let of_target = |relation: &&Relation| matches_any(&target.exclude, &relation.display_name());
        let relations: Vec<&Relation> = relations.iter().filter(of_target).collect();
        if relations.is_empty() {
            return Ok(Self::default());
        }
        // A table of an extension is there again whatever we do, and so is what depends on it.
        let roots = relations.iter().filter(|relation| relation.extension.is_none());
        let roots: Vec<u32> = roots.map(|relation| relation.oid).collect();
        let dependents = dependents::of(session, &roots).await?;
        let named = relations
            .iter()
            .map(|r| (r.oid, (r.schema.clone(), r.name.clone())));
        let named: BTreeMap<_, _> = named.collect();
        let objects = named.keys().map(|oid| ObjectId {
            class: RELATIONS,
            oid: *oid,
        });
        let objects = objects.chain(dependents.iter().map(|dependent| dependent.id));
        Ok(Self {
            objects: objects.collect(),
            named,
            dependents,
        })
    }

    /// The relation is left out.
    pub(in crate::ops) fn relation(&self, relation: &Relation) -> bool {
        self.has(RELATIONS, relation.oid)
    }

    /// The target itself names the relation.
    pub(in crate::ops) fn is_named(&self, relation: &Relation) -> bool {
        self.named.contains_key(&relation.oid)
    }

    /// The object is left out, or belongs to a relation that is.
    pub(super) fn object(&self, object: &CatalogueObject) -> bool {
        self.has(object.class, object.oid) || self.has(RELATIONS, object.relation)
    }

    /// The object cannot exist without a relation that is left out, and is named for that.
    pub(super) fn depends(&self, id: ObjectId) -> bool {
        self.dependents.iter().any(|dependent| dependent.id == id)
    }

    fn has(&self, class: u32, oid: u32) -> bool {
        self.objects.contains(&ObjectId { class, oid })
    }

    /// The relations left out, whatever else is: these are not locked, so they must be known before.
    pub(super) fn relations(&self) -> BTreeSet<u32> {
        let dependents = self.dependents.iter().filter(|one| one.relation.is_some());
        let named = self.named.keys().copied();
        named.chain(dependents.map(|one| one.id.oid)).collect()
    }

    /// What pg_dump is told to leave out, by schema and name.
    pub(super) fn for_pg_dump(&self) -> Vec<(String, String)> {
        let dependents = self
            .dependents
            .iter()
            .filter_map(|dependent| dependent.relation.clone());
        self.named.values().cloned().chain(dependents).collect()
    }

    /// What goes because it depends on what the target names. What belongs to something that is named is implied.
    pub(in crate::ops) fn not_covered(&self) -> Vec<NotCovered> {
        // One may be named by a pattern, and depend on another as well.
        let shown =
            |dependent: &&Dependent| !dependent.implied && !self.named.contains_key(&dependent.id.oid);
        let not_covered = |dependent: &Dependent| NotCovered {
            kind: dependent.kind.clone(),
            name: dependent.name.clone(),
            reason: format!(
                "it depends on {}, which the target's `exclude` leaves out",
                self.cause(dependent)
            ),
        };
        self.dependents.iter().filter(shown).map(not_covered).collect()
    }

    fn cause(&self, dependent: &Dependent) -> String {
        let named = self.named.get(&dependent.because_of);
        named
            .map(|(schema, name)| format!("{schema}.{name}"))
            .unwrap_or_default()
    }

    /// The list by which pg_restore leaves out what pg_dump wrote nevertheless; `None` where it wrote nothing of it.
    ///
    /// # Errors
    /// What pg_dump writes inside something that stays, as a column's default inside its table: no list can leave that
    /// out, and the table could not be restored.
    pub(super) fn restore_list(&self, archive: &ArchiveList) -> Result<Option<String>, Vec<String>> {
        let written: BTreeSet<ObjectId> = archive.entries().map(|entry| entry.object).collect();
        let inside: Vec<String> = self
            .dependents
            .iter()
            .filter(|one| !one.part && one.relation.is_none() && !written.contains(&one.id))
            .map(|one| format!("{} {} needs {}", one.kind, one.name, self.cause(one)))
            .collect();
        if !inside.is_empty() {
            return Err(inside);
        }
        let gone = archive.left_out(
            |entry| self.objects.contains(&entry.object),
            Along::OnlyWhatIsNoObject,
        );
        Ok((!gone.is_empty()).then(|| archive.without(&gone)))
    }
}
