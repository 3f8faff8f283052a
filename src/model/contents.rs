//! What is in one backup, by name: the part of its description that may be encrypted.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::archive_list::ObjectId;
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
    /// Without those that read foreign tables: a copy must not reach them, so they are not refreshed in it.
    pub materialized_views: Vec<MaterializedView>,
    /// Tablespaces that relations of the database lie in, or the database itself; not the built-in ones.
    #[serde(default)]
    pub tablespaces: Vec<String>,
    /// What a dump of the copy would not show of itself, to be compared with the copy's own catalogue.
    #[serde(default)]
    pub catalogue: Vec<CatalogueObject>,
    /// Objects of the catalogue that come and go with another, and are no entries of the schema's archive.
    #[serde(default)]
    pub parts: Vec<Part>,
    pub not_covered: Vec<NotCovered>,
}

/// Begins the part of a catalogue object's state that says where it lies, up to the next semicolon.
pub const IN_TABLESPACE: &str = "in tablespace ";
/// How that part ends where it is no tablespace of its own.
pub const OF_THE_DATABASE: &str = "of the database";
/// Begins the part of an extension's object that says where it lies, if not where the database does.
pub const TABLESPACE: &str = "tablespace: ";

impl Contents {
    /// Everything is to lie in the database's own tablespace.
    pub fn leave_out_tablespaces(&mut self) {
        self.tablespaces.clear();
        for object in &mut self.catalogue {
            let parts = object
                .state
                .split("; ")
                .map(|part| match part.strip_prefix(IN_TABLESPACE) {
                    Some(_) => format!("{IN_TABLESPACE}{OF_THE_DATABASE}"),
                    None => part.to_owned(),
                });
            object.state = parts.collect::<Vec<_>>().join("; ");
        }
        for object in self.extensions.iter_mut().flat_map(|one| &mut one.objects) {
            let parts = object.state.split("; ");
            let parts: Vec<&str> = parts.filter(|part| !part.starts_with(TABLESPACE)).collect();
            object.state = parts.join("; ");
        }
    }
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
    /// This restore leaves the table out. No backup says so of itself.
    #[serde(skip)]
    Never,
}

/// The name of a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

impl fmt::Display for TableName {
    /// `schema.table` as a person writes it in the configuration.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.schema, self.name)
    }
}

/// One table whose rows are in the backup; or a partitioned one through which the rows of its partitions are loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub schema: String,
    pub name: String,
    /// The columns whose values are stored, in order; generated ones are not.
    pub columns: Vec<Column>,
    /// Columns that the copy computes anew.
    pub generated_columns: Vec<Column>,
    pub fingerprint: Fingerprint,
    /// Of the rows with the values of their generated columns at the end; `null` where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated_fingerprint: Option<Fingerprint>,
    pub load: LoadStage,
    /// For a partition: the partitioned table at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_of: Option<TableName>,
    /// The partitions whose rows are listed here together, since in a copy a row may belong to another of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partitions: Vec<TableName>,
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
    /// Its collation as SQL, where it is not the type's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    #[serde(default)]
    pub not_null: bool,
    /// The expression of a generated column, as SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
}

impl Column {
    /// Same name and type: what the text of a row depends on.
    pub fn holds_the_same(&self, other: &Self) -> bool {
        self.name == other.name && self.type_name == other.type_name
    }
}

/// An object of the catalogue, with what a dump of the copy may not show: its owner, its grants, its state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CatalogueObject {
    /// `table`, `index`, `trigger`, …
    pub kind: String,
    /// Qualified as the kind demands: `schema.table`, `trigger on schema.table`, …
    pub name: String,
    /// In words that compare as text.
    pub state: String,
    /// In the source: the oid of its catalogue, its own, and that of the relation it belongs to (0 if to none).
    pub class: u32,
    pub oid: u32,
    pub relation: u32,
}

/// An object that belongs to another, by their oids in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub part: ObjectId,
    pub of: ObjectId,
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
    /// Tables, sequences and materialised views of its own of which the backup holds rows or state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relations: Vec<TableName>,
    /// In the source: the oids of constraints whose index needs it, which the schema's archive does not tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<u32>,
    /// Its members and what hangs on them, to be compared with what it makes in a copy: no dump has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<CatalogueObject>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaterializedView {
    pub schema: String,
    pub name: String,
    /// It is refreshed in a copy.
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
