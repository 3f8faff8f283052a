//! Removing an object so that its space is free again: on a versioned bucket that takes removing every version.

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{BucketVersioningStatus, EncodingType};

use crate::store::error::ErrorKind;
use crate::store::{Freed, Key};

use super::failure::Failure;
use super::{Bucket, MOST_PAGES, notation, retry};

/// Whether the bucket keeps what was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versioning {
    /// Also where it did so once and is suspended now: old versions may be there.
    Kept,
    None,
    /// These credentials may not ask.
    Unknown,
}

impl Versioning {
    pub(super) fn is_kept(self) -> Option<bool> {
        match self {
            Self::Kept => Some(true),
            Self::None => Some(false),
            Self::Unknown => None,
        }
    }
}

/// A version of one object, or a mark that it was deleted.
struct Version {
    id: String,
    /// Nothing for a mark.
    size_bytes: u64,
    is_latest: bool,
    is_mark: bool,
    modified: Option<DateTime>,
}

impl Bucket {
    /// Removes the object. Space that cannot be freed is told, and is no failure.
    pub(super) async fn remove(&self, key: &Key) -> Result<Freed, Failure> {
        if self.versioning().await == Versioning::None {
            return self.remove_plain(key).await;
        }
        match self.versions(key).await {
            Ok(versions) => self.remove_versions(key, versions).await,
            Err(failure) if failure.is_denied() || failure.is_not_implemented() => {
                self.remove_unseen(key, &failure).await
            }
            Err(failure) => Err(failure),
        }
    }

    /// Looked up once: it changes about never.
    pub(super) async fn versioning(&self) -> Versioning {
        let asked = self.versioning.get_or_try_init(|| async {
            let answer = retry::retrying(retry::time_for(0), || async {
                let request = self.clients().await?.reader.get_bucket_versioning();
                let sent = request.bucket(&self.settings.bucket).send().await;
                sent.map_err(|error| self.place("s3:GetBucketVersioning").failure(&error))
            });
            match answer.await {
                Ok(answer) => Ok(match answer.status() {
                    Some(BucketVersioningStatus::Enabled | BucketVersioningStatus::Suspended) => {
                        Versioning::Kept
                    }
                    _ => Versioning::None,
                }),
                Err(failure) if failure.is_transient() => Err(failure),
                Err(_) => Ok(Versioning::Unknown),
            }
        });
        asked.await.copied().unwrap_or(Versioning::Unknown)
    }

    async fn remove_plain(&self, key: &Key) -> Result<Freed, Failure> {
        let Some(bytes) = self.find(key).await? else {
            return Ok(Freed::default());
        };
        self.delete_object(key, None).await?;
        Ok(Freed { bytes, kept: None })
    }

    /// Where versions may not be listed: the answer to the removal tells whether the bucket keeps them.
    async fn remove_unseen(&self, key: &Key, denied: &Failure) -> Result<Freed, Failure> {
        let Some(bytes) = self.find(key).await? else {
            return Ok(Freed::default());
        };
        if self.delete_object(key, None).await? == Deleted::Gone {
            return Ok(Freed { bytes, kept: None });
        }
        let kept = format!(
            "the bucket keeps {bytes} bytes as an old version, and versions may not be listed ({})",
            denied.reason
        );
        Ok(Freed {
            bytes: 0,
            kept: Some(kept),
        })
    }

    async fn remove_versions(&self, key: &Key, versions: Vec<Version>) -> Result<Freed, Failure> {
        let (mut freed, mut kept, mut reason) = (Freed::default(), 0, None);
        let mut visible = false;
        for version in versions {
            match self.delete_object(key, Some(&version.id)).await {
                Ok(_) => freed.bytes += version.size_bytes,
                // Object Lock, or a right that is missing: what may go shall go all the same.
                Err(failure) if failure.is_denied() => {
                    kept += version.size_bytes;
                    visible |= version.is_latest && !version.is_mark;
                    reason = Some(failure.reason);
                }
                Err(failure) => return Err(failure),
            }
        }
        if visible {
            self.delete_object(key, None).await?;
        }
        freed.kept =
            reason.map(|reason| format!("{kept} bytes of old versions may not be removed ({reason})"));
        Ok(freed)
    }

    /// All versions of exactly this key, the oldest first, so that a removal that breaks off leaves the newest.
    async fn versions(&self, key: &Key) -> Result<Vec<Version>, Failure> {
        let full = self.full_key(key.as_str());
        let (mut found, mut from) = (Vec::new(), (None, None));
        for _ in 0..MOST_PAGES {
            let (versions, beyond, next) = self.versions_page(&full, from).await?;
            found.extend(versions);
            match next {
                Some(next) if !beyond => from = next,
                _ => {
                    found.sort_by_key(|version| {
                        let moment = version.modified.map(|at| (at.secs(), at.subsec_nanos()));
                        (version.is_latest, moment)
                    });
                    return Ok(found);
                }
            }
        }
        Err(Failure::of_kind(
            ErrorKind::Other,
            "the server's list of versions does not end",
        ))
    }

    /// One page: the versions of the key, whether other keys follow already, and where the next page begins.
    async fn versions_page(
        &self,
        full: &str,
        from: Marker,
    ) -> Result<(Vec<Version>, bool, Option<Marker>), Failure> {
        let answer = retry::retrying(retry::time_for(0), || async {
            let request = self.clients().await?.writer.list_object_versions();
            let request = request
                .bucket(&self.settings.bucket)
                .prefix(full)
                .encoding_type(EncodingType::Url)
                .set_key_marker(from.0.clone())
                .set_version_id_marker(from.1.clone());
            let sent = request.send().await;
            sent.map_err(|error| self.place("s3:ListBucketVersions").failure(&error))
        })
        .await?;
        let encoded = answer.encoding_type() == Some(&EncodingType::Url);
        let decoded = |name: Option<&str>| match encoded {
            true => name.and_then(notation::decoded_key),
            false => name.map(str::to_owned),
        };
        let mut beyond = false;
        let mut is_ours = |name: Option<&str>| {
            let ours = decoded(name).as_deref() == Some(full);
            beyond |= !ours;
            ours
        };
        let mut found = Vec::new();
        for version in answer.versions() {
            if is_ours(version.key()) {
                found.push(Version {
                    id: version.version_id().unwrap_or("null").to_owned(),
                    size_bytes: version
                        .size()
                        .and_then(|size| u64::try_from(size).ok())
                        .unwrap_or(0),
                    is_latest: version.is_latest().unwrap_or(false),
                    is_mark: false,
                    modified: version.last_modified().copied(),
                });
            }
        }
        for mark in answer.delete_markers() {
            if is_ours(mark.key()) {
                found.push(Version {
                    id: mark.version_id().unwrap_or("null").to_owned(),
                    size_bytes: 0,
                    is_latest: mark.is_latest().unwrap_or(false),
                    is_mark: true,
                    modified: mark.last_modified().copied(),
                });
            }
        }
        let next = (answer.is_truncated() == Some(true)).then(|| {
            (
                decoded(answer.next_key_marker()),
                answer.next_version_id_marker().map(str::to_owned),
            )
        });
        Ok((found, beyond, next))
    }

    async fn delete_object(&self, key: &Key, version: Option<&str>) -> Result<Deleted, Failure> {
        let permission = match version {
            Some(_) => "s3:DeleteObjectVersion",
            None => "s3:DeleteObject",
        };
        let answer = retry::retrying(retry::time_for(0), || async {
            let request = self.clients().await?.writer.delete_object();
            let request = request
                .bucket(&self.settings.bucket)
                .key(self.full_key(key.as_str()))
                .set_version_id(version.map(str::to_owned));
            let sent = request.send().await;
            sent.map_err(|error| self.place(permission).failure(&error))
        })
        .await;
        match answer {
            Ok(answer) if answer.delete_marker() == Some(true) && version.is_none() => Ok(Deleted::Marked),
            Ok(_) => Ok(Deleted::Gone),
            // Somebody else was quicker, or our own first attempt was.
            Err(failure) if failure.kind == ErrorKind::NotFound => Ok(Deleted::Gone),
            Err(failure) => Err(failure),
        }
    }
}

/// Where a page of versions begins: a key and a version.
type Marker = (Option<String>, Option<String>);

#[derive(PartialEq, Eq)]
enum Deleted {
    Gone,
    /// A mark was added, and the object is a version below it.
    Marked,
}
