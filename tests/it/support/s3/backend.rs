//! The server's side of each request: who may do what, what goes wrong, and the objects.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::dto::*;
use s3s::path::S3Path;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::connection::LOST;
use super::{ADMIN, BUCKET, Conditions, Fault, PREFIX, READER, State, Version, WRITER, newest};

/// S3's own page size.
const PAGE: usize = 1000;

pub(super) struct Users;
pub(super) struct Gate(pub(super) Arc<Mutex<State>>);
pub(super) struct Backend(pub(super) Arc<Mutex<State>>);

#[async_trait::async_trait]
impl S3Auth for Users {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let users = [ADMIN, WRITER, READER];
        let user = users.iter().find(|user| user.key == access_key);
        user.map(|user| SecretKey::from(user.secret)).ok_or_else(|| {
            s3_error!(
                InvalidAccessKeyId,
                "The AWS Access Key Id you provided does not exist"
            )
        })
    }
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, context: &mut S3AccessContext<'_>) -> S3Result<()> {
        let operation = context.s3_op().name().to_owned();
        let key = match context.s3_path() {
            S3Path::Object { key, .. } => key.to_string(),
            _ => String::new(),
        };
        let hangs = take(&mut lock(&self.0), &operation, &key, |fault| {
            matches!(fault, Fault::NoAnswer)
        });
        if hangs {
            std::future::pending::<()>().await;
        }
        let is_conditional = context.headers().contains_key("if-none-match");
        let mut state = lock(&self.0);
        *state.requests.entry(operation.clone()).or_default() += 1;
        let Some(credentials) = context.credentials() else {
            return Err(s3_error!(AccessDenied, "Anonymous"));
        };
        let versioned_delete = context
            .uri()
            .query()
            .is_some_and(|query| query.contains("versionId"));
        if !may(&credentials.access_key, &operation, &key) || state.locked && versioned_delete {
            return Err(s3_error!(AccessDenied, "Access Denied"));
        }
        if operation == "PutObject" && is_conditional && state.conditions == Conditions::Refused {
            return Err(s3_error!(
                NotImplemented,
                "A header you provided implies functionality that is not implemented"
            ));
        }
        match take_error(&mut state, &operation, &key) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// The policies of docs/s3.md.
fn may(access_key: &str, operation: &str, key: &str) -> bool {
    let key = key.strip_prefix(&format!("{PREFIX}/")).unwrap_or(key);
    if access_key == READER.key {
        return matches!(operation, "GetObject" | "ListObjectsV2");
    }
    if access_key == WRITER.key {
        let is_readable = key == "ernstfall.json"
            || key.starts_with("records/")
            || key.starts_with("targets/") && !key.contains("/backups/");
        return match operation {
            "PutObject" | "ListObjectsV2" => true,
            "GetObject" => is_readable,
            _ => false,
        };
    }
    true
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_error(state: &mut State, operation: &str, key: &str) -> Option<S3Error> {
    let planned = state.faults.iter_mut().find(|planned| {
        let is_error = matches!(planned.fault, Fault::Error { .. });
        is_error && planned.times > 0 && planned.operation == operation && key.contains(planned.part_of_key)
    })?;
    planned.times -= 1;
    let Fault::Error {
        code,
        status,
        message,
        region,
    } = planned.fault.clone()
    else {
        return None;
    };
    let code = S3ErrorCode::from_bytes(code.as_bytes())?;
    let mut error = S3Error::with_message(code, message);
    error.set_status_code(status.try_into().unwrap());
    if let Some(region) = region {
        let mut headers = S3Response::new(()).headers;
        headers.insert("x-amz-bucket-region", region.parse().unwrap());
        error.set_headers(headers);
    }
    Some(error)
}

fn take(state: &mut State, operation: &str, key: &str, wanted: fn(&Fault) -> bool) -> bool {
    let planned = state.faults.iter_mut().find(|planned| {
        wanted(&planned.fault)
            && planned.times > 0
            && planned.operation == operation
            && key.contains(planned.part_of_key)
    });
    if let Some(planned) = planned {
        planned.times -= 1;
        return true;
    }
    false
}

fn known(bucket: &str) -> S3Result<()> {
    if bucket == BUCKET {
        Ok(())
    } else {
        Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"))
    }
}

/// What a listing with a delimiter tells of the folders; all of them are one page, and keys beside them are left out.
fn folders(
    wanted: &[(&String, &Version)],
    prefix: &str,
    delimiter: &str,
    encoding: Option<&EncodingType>,
) -> ListObjectsV2Output {
    let folder = |key: &str| {
        let end = key[prefix.len()..].find(delimiter)? + prefix.len() + delimiter.len();
        Some(key[..end].to_owned())
    };
    let found: BTreeSet<String> = wanted.iter().filter_map(|(key, _)| folder(key)).collect();
    let named = |folder: &String| CommonPrefix {
        prefix: Some(listed(folder, encoding)),
    };
    ListObjectsV2Output {
        is_truncated: Some(false),
        common_prefixes: Some(found.iter().map(named).collect()),
        encoding_type: encoding.cloned(),
        ..ListObjectsV2Output::default()
    }
}

/// Keys in listings are encoded as S3 does it: a space is a plus.
fn listed(key: &str, encoding: Option<&EncodingType>) -> String {
    if encoding.is_none() {
        return key.to_owned();
    }
    key.bytes().fold(String::new(), |mut text, byte| {
        match byte {
            b' ' => text.push('+'),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' | b'*' => {
                text.push(char::from(byte))
            }
            other => write!(text, "%{other:02X}").unwrap(),
        }
        text
    })
}

fn size(version: &Version) -> i64 {
    version.bytes.as_ref().map_or(0, Vec::len) as i64
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let mut input = request.input;
        known(&input.bucket)?;
        let mut bytes = BytesMut::new();
        let mut body = input.body.take().expect("a put has a body");
        while let Some(piece) = body.next().await {
            bytes.extend_from_slice(&piece.map_err(|_| s3_error!(IncompleteBody))?);
        }
        let mut state = lock(&self.0);
        let is_there = state
            .objects
            .get(&input.key)
            .is_some_and(|versions| newest(versions).is_some());
        let conditional = input.if_none_match.is_some() && state.conditions == Conditions::Honoured;
        if is_there && conditional {
            return Err(s3_error!(
                PreconditionFailed,
                "At least one of the pre-conditions you specified did not hold"
            ));
        }
        state.next_version += 1;
        let version = Version {
            id: format!("v{}", state.next_version),
            bytes: Some(bytes.to_vec()),
            modified: SystemTime::now(),
            checksum_sha256: input.checksum_sha256,
            storage_class: input.storage_class.map(|class| class.as_str().to_owned()),
            encryption: input.server_side_encryption.map(|mode| mode.as_str().to_owned()),
            kms_key_id: input.ssekms_key_id,
        };
        let versioned = state.versioned;
        let versions = state.objects.entry(input.key.clone()).or_default();
        if !versioned {
            versions.clear();
        }
        versions.push(version);
        let mut response = S3Response::new(PutObjectOutput::default());
        if take(&mut state, "PutObject", &input.key, |fault| {
            matches!(fault, Fault::LoseAnswer)
        }) {
            response.headers.insert(LOST, "yes".parse().unwrap());
        }
        Ok(response)
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        known(&input.bucket)?;
        let mut state = lock(&self.0);
        let found = state
            .objects
            .get(&input.key)
            .and_then(|versions| newest(versions))
            .cloned();
        let Some(bytes) = found.and_then(|version| version.bytes) else {
            return Err(s3_error!(NoSuchKey, "The specified key does not exist."));
        };
        let length = bytes.len();
        let cut = take(&mut state, "GetObject", &input.key, |fault| {
            matches!(fault, Fault::CutBody)
        });
        let pieces = match cut {
            true => vec![
                Ok(Bytes::from(bytes[..length / 2].to_vec())),
                Err(std::io::Error::other("cut")),
            ],
            false => vec![Ok(Bytes::from(bytes))],
        };
        Ok(S3Response::new(GetObjectOutput {
            body: Some(StreamingBlob::wrap(stream::iter(pieces))),
            content_length: Some(length as i64),
            ..GetObjectOutput::default()
        }))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        known(&input.bucket)?;
        let state = lock(&self.0);
        let prefix = input.prefix.clone().unwrap_or_default();
        let most = input.max_keys.map_or(PAGE, |most| (most as usize).min(PAGE));
        let encoding = input.encoding_type.as_ref();
        let there = state
            .objects
            .iter()
            .filter_map(|(key, versions)| Some((key, newest(versions)?)));
        let wanted: Vec<(&String, &Version)> = there
            .filter(|(key, _)| key.starts_with(&prefix))
            .filter(|(key, _)| input.continuation_token.as_ref().is_none_or(|token| *key > token))
            .collect();
        if let Some(delimiter) = &input.delimiter {
            return Ok(S3Response::new(folders(&wanted, &prefix, delimiter, encoding)));
        }
        let page = &wanted[..wanted.len().min(most)];
        let truncated = wanted.len() > most;
        let object = |(key, version): &(&String, &Version)| Object {
            key: Some(listed(key, encoding)),
            size: Some(size(version)),
            last_modified: Some(version.modified.into()),
            ..Object::default()
        };
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            key_count: Some(page.len() as i32),
            is_truncated: Some(truncated),
            next_continuation_token: page.last().filter(|_| truncated).map(|(key, _)| (*key).clone()),
            contents: Some(page.iter().map(object).collect()),
            encoding_type: input.encoding_type.clone(),
            ..ListObjectsV2Output::default()
        }))
    }

    async fn list_object_versions(
        &self,
        request: S3Request<ListObjectVersionsInput>,
    ) -> S3Result<S3Response<ListObjectVersionsOutput>> {
        let input = request.input;
        known(&input.bucket)?;
        let state = lock(&self.0);
        let prefix = input.prefix.clone().unwrap_or_default();
        let encoding = input.encoding_type.as_ref();
        let mut output = ListObjectVersionsOutput {
            is_truncated: Some(false),
            encoding_type: input.encoding_type.clone(),
            ..ListObjectVersionsOutput::default()
        };
        let (mut versions, mut marks) = (Vec::new(), Vec::new());
        for (key, kept) in state.objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
            for (position, version) in kept.iter().enumerate().rev() {
                let is_latest = position + 1 == kept.len();
                let (key, id) = (Some(listed(key, encoding)), Some(version.id.clone()));
                let last_modified = Some(version.modified.into());
                match version.bytes {
                    Some(_) => versions.push(ObjectVersion {
                        key,
                        version_id: id,
                        is_latest: Some(is_latest),
                        size: Some(size(version)),
                        last_modified,
                        ..ObjectVersion::default()
                    }),
                    None => marks.push(DeleteMarkerEntry {
                        key,
                        version_id: id,
                        is_latest: Some(is_latest),
                        last_modified,
                        ..DeleteMarkerEntry::default()
                    }),
                }
            }
        }
        output.versions = Some(versions);
        output.delete_markers = Some(marks);
        Ok(S3Response::new(output))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        known(&input.bucket)?;
        let mut state = lock(&self.0);
        let mut output = DeleteObjectOutput::default();
        match input.version_id {
            Some(id) => {
                if let Some(versions) = state.objects.get_mut(&input.key) {
                    versions.retain(|version| version.id != id);
                }
            }
            None if state.versioned => {
                state.next_version += 1;
                let mark = Version {
                    id: format!("v{}", state.next_version),
                    bytes: None,
                    modified: SystemTime::now(),
                    checksum_sha256: None,
                    storage_class: None,
                    encryption: None,
                    kms_key_id: None,
                };
                output.version_id = Some(mark.id.clone());
                output.delete_marker = Some(true);
                state.objects.entry(input.key.clone()).or_default().push(mark);
            }
            None => drop(state.objects.remove(&input.key)),
        }
        state.objects.retain(|_, versions| !versions.is_empty());
        Ok(S3Response::new(output))
    }

    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        known(&request.input.bucket)?;
        let versioned = lock(&self.0).versioned;
        let enabled = BucketVersioningStatus::from_static(BucketVersioningStatus::ENABLED);
        Ok(S3Response::new(GetBucketVersioningOutput {
            status: versioned.then_some(enabled),
            ..GetBucketVersioningOutput::default()
        }))
    }
}
