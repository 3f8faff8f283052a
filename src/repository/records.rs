//! The records of runs, as bytes: the journal gives them their meaning.

use std::sync::Arc;

use bytes::Bytes;

use crate::repository::{Error, Repository, keys};
use crate::store::{Key, Listed};

/// Which writer's which record.
pub type RecordPlace = (String, u64);

/// A record in the repository that is not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    pub place: RecordPlace,
    listed: Listed,
}

impl Repository {
    /// The records that are wanted, sorted by chain and sequence; whether one is, is asked once of each that there is.
    /// There may be years of them: to hold them all takes more memory than to name them.
    pub async fn stored_records(
        &self,
        wanted: impl Fn(&RecordPlace) -> bool + Send + Sync + 'static,
    ) -> Result<Vec<StoredRecord>, Error> {
        self.stored_in(keys::RECORDS_FOLDER, wanted).await
    }

    /// The same of one chain.
    pub async fn stored_records_of(
        &self,
        chain: &str,
        wanted: impl Fn(&RecordPlace) -> bool + Send + Sync + 'static,
    ) -> Result<Vec<StoredRecord>, Error> {
        self.stored_in(&folder_of(chain), wanted).await
    }

    async fn stored_in(
        &self,
        folder: &str,
        wanted: impl Fn(&RecordPlace) -> bool + Send + Sync + 'static,
    ) -> Result<Vec<StoredRecord>, Error> {
        let wanted = move |key: &Key| keys::record_of_key(key).is_some_and(|place| wanted(&place));
        let listed = self.store.list_only(folder, Arc::new(wanted)).await?;
        let mut records: Vec<StoredRecord> = listed
            .into_iter()
            .filter_map(|listed| {
                let place = keys::record_of_key(&listed.key)?;
                Some(StoredRecord { place, listed })
            })
            .collect();
        records.sort_by(|one, other| one.place.cmp(&other.place));
        Ok(records)
    }

    /// Records of one chain; one that is gone is left out.
    pub async fn read_records(
        &self,
        chain: &str,
        records: Vec<StoredRecord>,
    ) -> Result<Vec<(RecordPlace, Bytes)>, Error> {
        let listed = records.into_iter().map(|record| record.listed).collect();
        let read = self.read_listed(&folder_of(chain), listed).await?;
        let placed = read
            .into_iter()
            .filter_map(|(key, bytes)| Some((keys::record_of_key(&key)?, bytes)));
        Ok(placed.collect())
    }

    /// One record as it is stored now; nothing where there is none.
    pub async fn read_record(&self, chain: &str, sequence: u64) -> Result<Option<Bytes>, Error> {
        Ok(self.find(&keys::record_key(chain, sequence)?).await?)
    }

    /// Stores a record; the same one stored already is as good.
    pub async fn put_record(&self, chain: &str, sequence: u64, bytes: Bytes) -> Result<(), Error> {
        self.put_or_compare(&keys::record_key(chain, sequence)?, bytes)
            .await
    }
}

fn folder_of(chain: &str) -> String {
    format!("{}/{chain}", keys::RECORDS_FOLDER)
}
