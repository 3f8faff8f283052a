//! Listings of a bucket, page by page.

use std::collections::BTreeSet;

use aws_sdk_s3::types::{EncodingType, Object};
use chrono::{DateTime, Utc};

use crate::store::error::ErrorKind;
use crate::store::{Key, Listed, Wanted};

use super::failure::Failure;
use super::{Bucket, MOST_PAGES, notation, retry};

/// How deep a listing goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    All,
    /// What lies deeper is told by its folder alone.
    One,
}

/// One page: keys in full with their objects, folders in full, and where the next page begins.
pub(super) struct Page {
    pub(super) objects: Vec<(String, Object)>,
    folders: Vec<String>,
    next: Option<String>,
}

impl Bucket {
    pub(super) async fn page(
        &self,
        prefix: &str,
        depth: Depth,
        from: Option<String>,
        most: Option<i32>,
    ) -> Result<Page, Failure> {
        let delimiter = (depth == Depth::One).then(|| "/".to_owned());
        let answer = retry::retrying(retry::time_for(0), || async {
            let request = self.clients().await?.reader.list_objects_v2();
            let request = request
                .bucket(&self.settings.bucket)
                .prefix(prefix)
                .encoding_type(EncodingType::Url)
                .set_delimiter(delimiter.clone())
                .set_max_keys(most)
                .set_continuation_token(from.clone());
            let sent = request.send().await;
            sent.map_err(|error| self.place("s3:ListBucket").failure(&error))
        })
        .await?;
        let encoded = answer.encoding_type() == Some(&EncodingType::Url);
        let decoded = |name: &str| match encoded {
            true => notation::decoded_key(name),
            false => Some(name.to_owned()),
        };
        let next = match answer.is_truncated() {
            Some(true) => answer.next_continuation_token.clone(),
            _ => None,
        };
        let folders = answer.common_prefixes.unwrap_or_default();
        let folders = folders.iter().filter_map(|folder| decoded(folder.prefix()?));
        let objects = answer.contents.unwrap_or_default();
        let named = objects
            .into_iter()
            .filter_map(|object| Some((decoded(object.key()?)?, object)));
        Ok(Page {
            objects: named.collect(),
            folders: folders.collect(),
            next,
        })
    }

    /// Hands on page after page.
    async fn pages(
        &self,
        prefix: &str,
        depth: Depth,
        mut hear: impl FnMut(Page) + Send,
    ) -> Result<(), Failure> {
        let (mut seen, mut from) = (BTreeSet::new(), None);
        for _ in 0..MOST_PAGES {
            let page = self.page(prefix, depth, from, None).await?;
            let next = page.next.clone();
            hear(page);
            match next {
                None => return Ok(()),
                Some(next) if !seen.insert(next.clone()) => break,
                Some(next) => from = Some(next),
            }
        }
        Err(Failure::of_kind(
            ErrorKind::Other,
            "the server's listing does not end: it is no S3 server, or there are over ten million objects",
        ))
    }

    pub(super) async fn list_all(&self, folder: &str, wanted: &Wanted) -> Result<Vec<Listed>, Failure> {
        let mut found: Vec<Listed> = Vec::new();
        let hear = |page: Page| {
            let listed = page
                .objects
                .iter()
                .filter_map(|(name, object)| self.listed(name, object));
            found.extend(listed.filter(|listed| wanted(&listed.key)));
        };
        self.pages(&self.full_folder(folder), Depth::All, hear).await?;
        found.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(found)
    }

    pub(super) async fn folders_in(&self, folder: &str) -> Result<Vec<String>, Failure> {
        let prefix = self.full_folder(folder);
        let mut found = Vec::new();
        let hear = |page: Page| {
            let names = page.folders.iter();
            found.extend(names.filter_map(|name| {
                let name = name.strip_prefix(&prefix)?.strip_suffix('/')?;
                Key::new(name).is_ok().then(|| name.to_owned())
            }));
        };
        self.pages(&prefix, Depth::One, hear).await?;
        found.sort();
        Ok(found)
    }

    /// What is no key of ours was put there by somebody else.
    fn listed(&self, name: &str, object: &Object) -> Option<Listed> {
        let relative = name.strip_prefix(&self.full_folder(""))?;
        let modified = object.last_modified()?;
        Some(Listed {
            key: Key::new(relative).ok()?,
            size_bytes: size_of(object),
            modified: DateTime::<Utc>::from_timestamp(modified.secs(), modified.subsec_nanos())?,
        })
    }
}

pub(super) fn size_of(object: &Object) -> u64 {
    object
        .size()
        .and_then(|size| u64::try_from(size).ok())
        .unwrap_or(0)
}
