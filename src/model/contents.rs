//! What is in one backup, by name: the part of its description that may be encrypted.

use serde::{Deserialize, Serialize};

use crate::model::fingerprint::Fingerprint;

/// The whole description of one backup's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// Format of the repository; 1.
    pub format: u32,
    pub database: DatabaseFacts,
    pub tables: Vec<Table>,
    /// In the order in which the parts stand in the data objects.
    pub chunks: Vec<Chunk>,
    pub sequences: Vec<Sequence>,
    pub large_objects: LargeObjects,
    pub roles: Vec<String>,
    pub extensions: Vec<Extension>,
    pub materialized_views: Vec<MaterializedView>,
    pub not_covered: Vec<NotCovered>,
}

/// What a database must be made like, to hold the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    pub name: String,
    pub owner: String,
    /// The bootstrap superuser: its name is the owner of what is built in.
    pub bootstrap_role: String,
    pub encoding: String,
    /// `libc`, `icu` or `builtin`.
    pub locale_provider: String,
    pub collate: String,
    pub ctype: String,
    pub locale: Option<String>,
    pub icu_rules: Option<String>,
    pub collation_version: Option<String>,
    pub server_version: String,
    pub server_version_num: i32,
    /// Libraries that the source preloads; a copy may need some of them. Empty where the role may not read settings.
    pub shared_preload_libraries: String,
    /// Bytes on the source's disk.
    pub size_bytes: u64,
    /// `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    pub settings: Vec<DatabaseSetting>,
    /// The database's own grants; `null` means the default ones.
    pub grants: Option<Vec<DatabaseGrant>>,
    pub comment: Option<String>,
}

/// A privilege on the database itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DatabaseGrant {
    pub privilege: String,
    /// `null` means PUBLIC.
    pub grantee: Option<String>,
    pub grantable: bool,
}

/// A setting stored with the database, for everybody or for one role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSetting {
    pub role: Option<String>,
    pub name: String,
    pub value: String,
}

/// When a table's rows are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadStage {
    /// After the tables are there and before indexes and constraints: the usual.
    BeforeIndexes,
    /// After everything else: the rows may name indexes or constraints (columns of reg* types).
    AfterIndexes,
}

/// One table whose rows are in the backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub schema: String,
    pub name: String,
    /// The columns whose values are stored, in order; generated ones are not.
    pub columns: Vec<Column>,
    /// Columns that the copy computes anew.
    pub generated_columns: Vec<Column>,
    pub fingerprint: Fingerprint,
    pub load: LoadStage,
    /// For a configuration table of an extension: which rows are the user's, as SQL (`WHERE …`).
    pub condition: Option<String>,
}

impl Table {
    /// `schema.name` as a person writes it in the configuration.
    pub fn display_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// A column as COPY sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    #[serde(rename = "type")]
    pub type_name: String,
}

/// Consecutive rows of one table in one data object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// Key of the object, relative to the repository's prefix.
    pub object: String,
    /// Index into `tables`.
    pub table: usize,
    pub fingerprint: Fingerprint,
}

/// A sequence, read after the snapshot: not earlier than it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    pub schema: String,
    pub name: String,
    pub last_value: i64,
    pub is_called: bool,
}

/// Large objects as a whole: how many, and what was in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeObjects {
    pub count: u64,
    pub bytes: u64,
    /// One row per large object: oid, owner, ACL, comment and data.
    pub fingerprint: Fingerprint,
    /// Keys of the objects that hold them.
    pub objects: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    pub name: String,
    pub schema: String,
    pub version: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaterializedView {
    pub schema: String,
    pub name: String,
    pub populated: bool,
}

/// Something that the backup does not hold, by name and with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotCovered {
    /// `table rows`, `table`, `foreign table rows`, `subscription`, …
    pub kind: String,
    pub name: String,
    pub reason: String,
}
