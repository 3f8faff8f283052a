//! Foreign keys of a backup with tables whose rows come after the indexes: before these rows are there, a key onto such a
//! table does not hold, and one of such a table would be checked row by row, even where it is not valid in the source.

use std::path::{Path, PathBuf};

use crate::model::archive_list::{Along, Entry};
use crate::model::contents::LoadStage;
use crate::postgres::archive;

use super::build::{Backup, Destination};
use super::{RestoreError, files};

/// Two lists for `pg_restore -L`.
pub(super) struct LateKeys {
    /// The foreign keys.
    pub(super) keys: PathBuf,
    /// All that is restored but for them.
    pub(super) others: PathBuf,
}

impl LateKeys {
    /// Writes the lists, where there are such tables. `list` is what is restored at all, if not everything.
    pub(super) async fn find(
        backup: &Backup,
        destination: &Destination,
        list: Option<&Path>,
    ) -> Result<Option<Self>, RestoreError> {
        let mut tables = backup.contents.tables.iter();
        if !tables.any(|table| table.load == LoadStage::AfterIndexes) {
            return Ok(None);
        }
        let bytes = files::read(&destination.archive()).await?;
        let mut entries = archive::list(&destination.installation, &bytes).await?;
        if let Some(list) = list {
            entries.retain_listed(&String::from_utf8_lossy(&files::read(list).await?));
        }
        let is_key = |entry: &Entry| entry.text.starts_with("FK CONSTRAINT ");
        let keys = entries.left_out(is_key, Along::OnlyWhatIsNoObject);
        let rest = entries.entries().map(|entry| entry.id);
        let rest = rest.filter(|id| !keys.contains(id)).collect();
        let found = Self {
            keys: destination.directory.join("late-keys.list"),
            others: destination.directory.join("post-data.list"),
        };
        files::write(&found.keys, entries.without(&rest)).await?;
        files::write(&found.others, entries.without(&keys)).await?;
        Ok(Some(found))
    }
}
