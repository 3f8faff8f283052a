//! `RECOVERY.md` beside each backup: how to restore it by hand, without this program.

use crate::model::backup_id::BackupId;
use crate::model::contents::{Contents, DatabaseFacts};
use crate::model::manifest::{Encryption, Object};
use crate::model::target_name::TargetName;
use crate::repository::keys::backup_folder;

/// The guide, with `{{…}}` for what differs from backup to backup.
const GUIDE: &str = include_str!("recovery.md");

/// What the guide is written from. It names no table and no role: the guide is never encrypted.
pub(super) struct Guide<'a> {
    pub(super) target: &'a TargetName,
    pub(super) id: &'a BackupId,
    pub(super) contents: &'a Contents,
    /// All objects with rows.
    pub(super) data: &'a [Object],
    pub(super) pg_dump_major: u32,
    /// Only some entries of the schema's archive are part of the backup.
    pub(super) has_schema_list: bool,
    pub(super) encryption: Option<&'a Encryption>,
}

impl Guide<'_> {
    pub(super) fn text(&self) -> String {
        let late = self
            .data
            .iter()
            .filter(|object| object.key.contains("/late-data/"));
        let late = late.count();
        let folder = format!("{}/", backup_folder(self.target, self.id));
        let database = &self.contents.database;
        let values = [
            ("id", self.id.to_string()),
            ("target", self.target.to_string()),
            ("folder", folder),
            ("pg_dump_major", self.pg_dump_major.to_string()),
            ("server_major", (database.server_version_num / 10_000).to_string()),
            ("server_version", database.server_version.clone()),
            ("encoding", database.encoding.clone()),
            ("collate", database.collate.clone()),
            ("ctype", database.ctype.clone()),
            ("locale_provider", database.locale_provider.clone()),
            ("locale", locale_options(database)),
            ("data", (self.data.len() - late).to_string()),
            ("late_data", late.to_string()),
            (
                "large_objects",
                self.contents.large_objects.objects.len().to_string(),
            ),
            ("drop_public", self.drop_public().to_owned()),
            ("list", self.list()),
            ("passwords", self.passwords().to_owned()),
        ];
        let both = values.into_iter().chain(self.of_encryption());
        both.fold(GUIDE.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{{{name}}}}}"), &value)
        })
    }

    fn suffix(&self) -> &'static str {
        match self.encryption {
            Some(_) => ".zst.age",
            None => ".zst",
        }
    }

    /// What depends on whether the backup is encrypted.
    fn of_encryption(&self) -> [(&'static str, String); 6] {
        let Some(Encryption { recipients }) = self.encryption else {
            return [
                ("tools", "`zstd`, ".to_owned()),
                ("key", String::new()),
                ("run", String::new()),
                ("unpack", "unpack() { zstd -dcq \"$1\"; }".to_owned()),
                ("unpack_contents", "zstd -dcq contents.json.zst".to_owned()),
                ("suffix", self.suffix().to_owned()),
            ];
        };
        let unpack = "age --decrypt --identity \"$IDENTITY\"";
        let key = format!(
            "- The secret key of one of these public keys, in a file as age-keygen writes it:\n\n      {}\n",
            recipients.join("\n      ")
        );
        [
            ("tools", "`age`, `zstd`, ".to_owned()),
            ("key", key),
            ("run", "IDENTITY=/path/to/age.key ".to_owned()),
            (
                "unpack",
                format!(
                    ": \"${{IDENTITY:?set it to the file with the secret key}}\"\nunpack() {{ {unpack} \"$1\" | zstd -dcq; }}"
                ),
            ),
            (
                "unpack_contents",
                format!("{unpack} contents.json.zst.age | zstd -dcq"),
            ),
            ("suffix", self.suffix().to_owned()),
        ]
    }

    /// A new database has a schema public, and the source may have dropped its own.
    fn drop_public(&self) -> &'static str {
        let mut schemas = self.contents.catalogue.iter().filter(|one| one.kind == "schema");
        match schemas.any(|schema| schema.name == "public") {
            true => "",
            false => "sql -c 'DROP SCHEMA IF EXISTS public'\n",
        }
    }

    /// The entries of the schema's archive that are part of the backup.
    fn list(&self) -> String {
        match self.has_schema_list {
            true => format!("unpack schema.list{}", self.suffix()),
            false => "pg_restore --list \"$work/schema.dump\"".to_owned(),
        }
    }

    fn passwords(&self) -> &'static str {
        let is_password = |one: &crate::model::contents::NotCovered| one.kind == "password";
        match (self.encryption, self.contents.not_covered.iter().any(is_password)) {
            (Some(_), false) => {
                "Roles that were missing have the passwords that they had in the source; roles that the server had before \
                 keep theirs."
            }
            _ => "Roles that were missing have no passwords: set them with `\\password` in psql.",
        }
    }
}

/// Options of createdb. What they name comes from the source, and is quoted for the shell.
fn locale_options(database: &DatabaseFacts) -> String {
    let mut options = vec![
        ("encoding", Some(&database.encoding)),
        ("lc-collate", Some(&database.collate)),
        ("lc-ctype", Some(&database.ctype)),
    ];
    match database.locale_provider.as_str() {
        "icu" => options.extend([
            ("locale-provider", Some(&database.locale_provider)),
            ("icu-locale", database.locale.as_ref()),
            ("icu-rules", database.icu_rules.as_ref()),
        ]),
        "builtin" => options.extend([
            ("locale-provider", Some(&database.locale_provider)),
            ("builtin-locale", database.locale.as_ref()),
        ]),
        _ => {}
    }
    let option = |(name, value): (&str, Option<&String>)| {
        Some(format!("--{name}='{}'", value?.replace('\'', "'\\''")))
    };
    options
        .into_iter()
        .filter_map(option)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::samples;

    fn guide(encryption: Option<&Encryption>) -> String {
        let manifest = samples::manifest(0);
        Guide {
            target: &manifest.target,
            id: &manifest.id,
            contents: &samples::contents(),
            data: &manifest.data,
            pg_dump_major: 15,
            has_schema_list: true,
            encryption,
        }
        .text()
    }

    #[test]
    fn nothing_is_left_to_fill_in_and_no_table_is_named() {
        let encryption = Encryption {
            recipients: vec!["age1one".to_owned(), "age1two".to_owned()],
        };
        for text in [guide(None), guide(Some(&encryption))] {
            assert!(!text.contains("{{") && !text.contains("}}"), "{text}");
        }
        let encrypted = guide(Some(&encryption));
        assert!(encrypted.contains("age1two") && encrypted.contains("contents.json.zst.age"));
        assert!(!guide(None).contains(".age") && !guide(None).contains("IDENTITY"));
    }

    #[test]
    fn what_comes_from_the_source_is_quoted_for_the_shell() {
        let mut database = samples::contents().database;
        database.collate = "a'b$(c)".to_owned();
        assert!(locale_options(&database).contains(r"--lc-collate='a'\''b$(c)'"));
    }
}
