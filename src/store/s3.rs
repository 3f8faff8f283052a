//! Objects in an S3 bucket, below a prefix.
//!
//! An object is put by one conditional request, never in parts: a part that was forgotten costs money and a multipart
//! upload that ends with a condition overwrites on some servers. What exists is never replaced.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use bytes::{Bytes, BytesMut};
use tokio::sync::OnceCell;

use crate::model::secret::Secret;
use crate::store::error::{Error, ErrorKind, Operation};
use crate::store::key::Key;
use crate::store::{Abilities, Freed, Listed, Store, Wanted};

mod client;
mod failure;
mod listing;
mod notation;
mod removal;
mod retry;

use client::Clients;
use failure::{Failure, Place};
use listing::{Depth, size_of};
use removal::Versioning;

/// Longer than any silence between two pieces of a body that still arrives.
const PIECE_TIME: Duration = Duration::from_secs(30);
/// What is set aside for a body before it comes; what says that it is longer grows as it arrives.
const LARGEST_RESERVATION: usize = 128 << 20;
/// Pages of 1,000 keys: ten million objects. A server that never ends would keep us for ever.
const MOST_PAGES: usize = 10_000;

/// How a bucket is reached and written.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub bucket: String,
    /// The folder that holds everything; empty: the bucket itself.
    pub prefix: String,
    /// A URL; absent: that of AWS.
    pub endpoint: Option<String>,
    /// Absent: as the environment says, else `us-east-1` where an endpoint is given.
    pub region: Option<String>,
    /// The bucket in the path and not in the host name.
    pub path_style: bool,
    /// Absent: the standard chain of AWS.
    pub credentials: Option<Credentials>,
    /// For reading and listing, where the others may only write.
    pub read_credentials: Option<Credentials>,
    /// Authorities to trust besides the system's, as PEM.
    pub ca_file: Option<PathBuf>,
    pub storage_class: Option<String>,
    /// `AES256`, `aws:kms` and the like; absent: as the bucket does it.
    pub server_side_encryption: Option<String>,
    pub kms_key_id: Option<String>,
    /// Whether each object is sent with its SHA-256, for the server to check.
    pub checksums: bool,
}

/// An access key with its secret.
#[derive(Clone, Debug)]
pub struct Credentials {
    pub access_key_id: Secret,
    pub secret_access_key: Secret,
    /// Of temporary credentials.
    pub session_token: Option<Secret>,
}

/// A bucket as a store.
pub struct Bucket {
    settings: Settings,
    clients: OnceCell<Clients>,
    versioning: OnceCell<Versioning>,
    /// Set as soon as the server refuses conditional puts; remembered for the process.
    plain_puts: AtomicBool,
}

impl Bucket {
    /// The store in this bucket. Nothing is asked of the server before the first call.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            clients: OnceCell::new(),
            versioning: OnceCell::new(),
            plain_puts: AtomicBool::new(false),
        }
    }

    async fn clients(&self) -> Result<&Clients, Failure> {
        self.clients
            .get_or_try_init(|| client::connect(&self.settings))
            .await
    }

    /// What failures of a request are told with; `permission` is the one that it needs.
    fn place(&self, permission: &'static str) -> Place<'_> {
        Place {
            settings: &self.settings,
            region: self.clients.get().and_then(|clients| clients.region.as_deref()),
            permission,
        }
    }

    fn full_key(&self, key: &str) -> String {
        if self.settings.prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{}/{key}", self.settings.prefix)
        }
    }

    /// What the keys of a folder begin with.
    fn full_folder(&self, folder: &str) -> String {
        let full = match folder {
            "" => self.settings.prefix.clone(),
            folder => self.full_key(folder),
        };
        if full.is_empty() { full } else { full + "/" }
    }

    fn error(&self, operation: Operation, subject: &str, failure: Failure) -> Error {
        let mut error = Error::new(operation, None, self.describe(), failure.kind);
        error.key = (!subject.is_empty()).then(|| subject.to_owned());
        error.hint = failure.hint;
        error.with_source(failure.reason)
    }

    async fn put(&self, key: &Key, bytes: Bytes) -> Result<(), Failure> {
        let checksum = match self.settings.checksums {
            true => Some(notation::sha256_base64(bytes.clone()).await),
            false => None,
        };
        let checksum = checksum.as_deref();
        let refuses = self.plain_puts.load(Ordering::Relaxed);
        if (refuses || self.is_condition_doubtful().await) && self.find(key).await?.is_some() {
            return Err(Failure::of_kind(ErrorKind::AlreadyExists, "a look found it"));
        }
        if !refuses {
            match self.put_with(key, &bytes, checksum, Condition::IfNoneMatch).await {
                Err(failure) if failure.is_refused_condition() => {
                    self.plain_puts.store(true, Ordering::Relaxed);
                    // Once more, with the look that it takes now.
                    return Box::pin(self.put(key, bytes)).await;
                }
                result => return result,
            }
        }
        // The best that such a server allows: of two writers at the same moment both could succeed.
        self.put_with(key, &bytes, checksum, Condition::None).await
    }

    /// Whether the condition alone may not be enough: servers other than AWS's may ignore it, as the gateway of Ceph
    /// does on buckets that keep versions.
    async fn is_condition_doubtful(&self) -> bool {
        self.settings.endpoint.is_some() && self.versioning().await != Versioning::None
    }

    async fn put_with(
        &self,
        key: &Key,
        bytes: &Bytes,
        checksum: Option<&str>,
        condition: Condition,
    ) -> Result<(), Failure> {
        let limit = retry::time_for(bytes.len() as u64);
        retry::retrying(limit, || async {
            let settings = &self.settings;
            let request = self.clients().await?.writer.put_object();
            let request = request
                .bucket(&settings.bucket)
                .key(self.full_key(key.as_str()))
                .body(ByteStream::from(bytes.clone()))
                .set_if_none_match((condition == Condition::IfNoneMatch).then(|| "*".to_owned()))
                .set_checksum_sha256(checksum.map(str::to_owned))
                .set_storage_class(settings.storage_class.as_deref().map(StorageClass::from))
                .set_server_side_encryption(
                    settings
                        .server_side_encryption
                        .as_deref()
                        .map(ServerSideEncryption::from),
                )
                .set_ssekms_key_id(settings.kms_key_id.clone());
            let sent = request.send().await;
            sent.map_err(|error| self.place("s3:PutObject").failure(&error))?;
            Ok(())
        })
        .await
    }

    async fn fetch(&self, key: &Key) -> Result<Bytes, Failure> {
        let place = self.place("s3:GetObject");
        let request = self.clients().await?.reader.get_object();
        let request = request
            .bucket(&self.settings.bucket)
            .key(self.full_key(key.as_str()));
        let answer = tokio::time::timeout(PIECE_TIME, request.send()).await;
        let answer = answer
            .map_err(|_| Failure::transient("no answer within 30 s"))?
            .map_err(|error| place.failure(&error))?;
        let length = answer
            .content_length()
            .and_then(|length| usize::try_from(length).ok());
        let mut body = answer.body;
        let mut bytes = BytesMut::with_capacity(length.unwrap_or(0).min(LARGEST_RESERVATION));
        loop {
            let piece = tokio::time::timeout(PIECE_TIME, body.try_next()).await;
            let piece = piece.map_err(|_| Failure::transient("the body stopped coming for 30 s"))?;
            match piece.map_err(|error| Failure::cut_short(&error))? {
                Some(piece) => bytes.extend_from_slice(&piece),
                None => break,
            }
        }
        match length {
            Some(length) if length != bytes.len() => Err(Failure::transient(format!(
                "{} bytes came of {length}",
                bytes.len()
            ))),
            _ => Ok(bytes.freeze()),
        }
    }

    /// The object's size, as a listing tells it: that needs no right to read the object.
    async fn find(&self, key: &Key) -> Result<Option<u64>, Failure> {
        let full = self.full_key(key.as_str());
        let page = self.page(&full, Depth::All, None, Some(1)).await?;
        // The key itself sorts before all keys that begin with it.
        let found = page.objects.into_iter().find(|(name, _)| *name == full);
        Ok(found.map(|(_, object)| size_of(&object)))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// Only where there is no such object.
    IfNoneMatch,
    None,
}

#[async_trait]
impl Store for Bucket {
    async fn put_new(&self, key: &Key, bytes: Bytes) -> Result<(), Error> {
        let put = self.put(key, bytes).await;
        put.map_err(|failure| self.error(Operation::Put, key.as_str(), failure))
    }

    async fn get(&self, key: &Key) -> Result<Bytes, Error> {
        let got = retry::retrying(retry::WHOLE_BODY_TIME, || self.fetch(key)).await;
        got.map_err(|failure| self.error(Operation::Get, key.as_str(), failure))
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, Error> {
        self.list_only(folder, Arc::new(|_| true)).await
    }

    async fn list_only(&self, folder: &str, wanted: Wanted) -> Result<Vec<Listed>, Error> {
        if !folder.is_empty() {
            Key::new(folder).map_err(|invalid| {
                Error::new(Operation::List, None, self.describe(), ErrorKind::Other).with_source(invalid)
            })?;
        }
        let listed = self.list_all(folder, &wanted).await;
        listed.map_err(|failure| self.error(Operation::List, folder, failure))
    }

    async fn folders(&self, folder: &str) -> Result<Vec<String>, Error> {
        let folders = self.folders_in(folder).await;
        folders.map_err(|failure| self.error(Operation::List, folder, failure))
    }

    async fn delete(&self, key: &Key) -> Result<Freed, Error> {
        let freed = self.remove(key).await;
        freed.map_err(|failure| self.error(Operation::Delete, key.as_str(), failure))
    }

    fn describe(&self) -> String {
        self.settings.describe()
    }

    async fn abilities(&self, probe: &Key) -> Result<Abilities, Error> {
        // Without the look before it: what is asked is what the server does with the condition.
        let again = self
            .put_with(probe, &Bytes::new(), None, Condition::IfNoneMatch)
            .await;
        let conditional_puts = match again {
            Ok(()) => false,
            Err(failure) if failure.kind == ErrorKind::AlreadyExists => true,
            Err(failure) if failure.is_refused_condition() => false,
            Err(failure) => return Err(self.error(Operation::Put, probe.as_str(), failure)),
        };
        Ok(Abilities {
            conditional_puts,
            keeps_versions: self.versioning().await.is_kept(),
        })
    }
}

impl Settings {
    /// Where the store is, for messages.
    fn describe(&self) -> String {
        let mut text = format!("s3://{}", self.bucket);
        if !self.prefix.is_empty() {
            text = format!("{text}/{}", self.prefix);
        }
        match &self.endpoint {
            Some(endpoint) => format!("{text} at {endpoint}"),
            None => text,
        }
    }
}
