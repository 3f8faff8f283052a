//! The records of runs, as bytes: the journal gives them their meaning.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::repository::{Error, Repository, keys};

/// Reads under way at once.
const READS_AT_ONCE: usize = 16;

/// Which writer's which record.
pub type RecordPlace = (String, u64);

impl Repository {
    /// Every record's place, sorted by chain and sequence.
    pub async fn record_places(&self) -> Result<Vec<RecordPlace>, Error> {
        let listed = self.store.list(keys::RECORDS_FOLDER).await?;
        let mut places: Vec<RecordPlace> = listed
            .iter()
            .filter_map(|object| keys::record_of_key(&object.key))
            .collect();
        places.sort();
        Ok(places)
    }

    /// The records at these places, in the same order; one that is gone is left out.
    pub async fn read_records(&self, places: Vec<RecordPlace>) -> Result<Vec<(RecordPlace, Bytes)>, Error> {
        let read: Vec<Option<(RecordPlace, Bytes)>> = stream::iter(places)
            .map(|place| async move {
                let key = keys::record_key(&place.0, place.1)?;
                Ok::<_, Error>(self.find(&key).await?.map(|bytes| (place, bytes)))
            })
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(read.into_iter().flatten().collect())
    }

    /// Stores a record; the same one stored already is as good.
    pub async fn put_record(&self, chain: &str, sequence: u64, bytes: Bytes) -> Result<(), Error> {
        self.put_or_compare(&keys::record_key(chain, sequence)?, bytes)
            .await
    }
}
