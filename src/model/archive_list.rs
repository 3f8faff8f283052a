//! The table of contents of a schema archive, as `pg_restore --list --verbose` prints it, and what is left out of it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// An object of a database: the oids of its catalogue and its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectId {
    pub class: u32,
    pub oid: u32,
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number within the archive.
    pub id: u32,
    /// Comments, grants and the like are no objects: their catalogue is 0.
    pub object: ObjectId,
    /// Kind, schema, name and owner, as the list has them.
    pub text: String,
    /// The numbers of the entries that must be there before.
    pub needs: Vec<u32>,
}

impl Entry {
    /// The name, where it is an extension.
    pub fn extension(&self) -> Option<&str> {
        self.text.strip_prefix("EXTENSION - ").map(str::trim_end)
    }

    /// Facts about the archive, which are no part of what it restores into a database.
    fn is_about_the_archive(&self) -> bool {
        ["ENCODING ", "STDSTRINGS ", "SEARCHPATH ", "DATABASE "]
            .iter()
            .any(|kind| self.text.starts_with(kind))
    }
}

/// Which entries go along with those that are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Along {
    /// Their comments, grants and attachments.
    OnlyWhatIsNoObject,
    /// Everything that needs them.
    WhateverNeedsThem,
}

/// The entries of an archive, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveList(Vec<Entry>);

impl ArchiveList {
    /// Reads what pg_restore printed.
    pub fn parse(text: &str) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        for line in text.lines() {
            if let Some(needs) = line.strip_prefix(";\tdepends on: ") {
                if let Some(entry) = entries.last_mut() {
                    entry.needs = needs
                        .split_whitespace()
                        .filter_map(|id| id.parse().ok())
                        .collect();
                }
            } else if let Some(entry) = entry(line) {
                entries.push(entry);
            }
        }
        Self(entries)
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter()
    }

    /// Only the entries that another list of the same archive names.
    pub fn retain_listed(&mut self, list: &str) {
        let listed: BTreeSet<u32> = Self::parse(list).0.iter().map(|entry| entry.id).collect();
        self.0.retain(|entry| listed.contains(&entry.id));
    }

    /// The entries that are left out when these objects are.
    pub fn left_out(&self, gone: impl Fn(&Entry) -> bool, along: Along) -> BTreeSet<u32> {
        let mut out: BTreeSet<u32> = self.0.iter().filter(|e| gone(e)).map(|e| e.id).collect();
        loop {
            let before = out.len();
            for entry in &self.0 {
                let may_go = along == Along::WhateverNeedsThem || entry.object.class == 0;
                if may_go && entry.needs.iter().any(|id| out.contains(id)) {
                    out.insert(entry.id);
                }
            }
            if out.len() == before {
                return out;
            }
        }
    }

    /// The list for `pg_restore -L` that restores all other entries.
    pub fn without(&self, out: &BTreeSet<u32>) -> String {
        let mut list = String::new();
        let kept = |entry: &&Entry| !out.contains(&entry.id) && !entry.is_about_the_archive();
        for Entry { id, object, text, .. } in self.0.iter().filter(kept) {
            list.push_str(&format!("{id}; {} {} {text}\n", object.class, object.oid));
        }
        list
    }
}

/// `219; 1259 16407 TABLE public orders owner`.
fn entry(line: &str) -> Option<Entry> {
    let (id, rest) = line.split_once("; ")?;
    let mut parts = rest.splitn(3, ' ');
    Some(Entry {
        id: id.parse().ok()?,
        object: ObjectId {
            class: parts.next()?.parse().ok()?,
            oid: parts.next()?.parse().ok()?,
        },
        text: parts.next()?.to_owned(),
        needs: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
;
; Archive created at 2026-01-01 00:00:00 UTC
;     TOC Entries: 47
;
4568; 0 0 ENCODING - ENCODING \n\
2; 3079 16492 EXTENSION - hstore \n\
4576; 0 0 COMMENT - EXTENSION hstore \n\
;	depends on: 2
220; 1259 17481 TABLE public my goods; 1 2 postgres
;	depends on: 2 2
225; 1259 17520 TABLE public kept postgres
4421; 2606 17498 FK CONSTRAINT public kept to_goods postgres
;	depends on: 220 225 4415
4577; 0 0 COMMENT public CONSTRAINT to_goods ON kept postgres
;	depends on: 4421
";

    fn ids(ids: &BTreeSet<u32>) -> Vec<u32> {
        ids.iter().copied().collect()
    }

    #[test]
    fn what_needs_an_extension_goes_with_it() {
        let list = ArchiveList::parse(LIST);
        let out = list.left_out(
            |entry| entry.extension() == Some("hstore"),
            Along::WhateverNeedsThem,
        );
        assert_eq!(ids(&out), [2, 220, 4421, 4576, 4577]);
        assert_eq!(list.without(&out), "225; 1259 17520 TABLE public kept postgres\n");
    }

    #[test]
    fn the_comment_of_what_goes_goes_along_and_no_other_object_does() {
        let list = ArchiveList::parse(LIST);
        let foreign_key = ObjectId {
            class: 2606,
            oid: 17498,
        };
        let out = list.left_out(|entry| entry.object == foreign_key, Along::OnlyWhatIsNoObject);
        assert_eq!(ids(&out), [4421, 4577]);
        let table = list.left_out(|entry| entry.id == 220, Along::OnlyWhatIsNoObject);
        assert_eq!(ids(&table), [220]);
    }

    #[test]
    fn a_list_can_be_cut_down_by_a_shorter_one() {
        let mut list = ArchiveList::parse(LIST);
        let nothing = BTreeSet::new();
        assert!(
            list.without(&nothing)
                .contains("220; 1259 17481 TABLE public my goods; 1 2 postgres\n")
        );
        list.retain_listed("225; 1259 17520 TABLE public kept postgres\n");
        assert_eq!(
            list.without(&nothing),
            "225; 1259 17520 TABLE public kept postgres\n"
        );
    }
}
