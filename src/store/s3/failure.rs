//! What a failed request means, and what to do next. No text here may hold a secret: servers repeat signatures and
//! keys in their answers, so only code and message are shown.

use std::error::Error as StdError;
use std::io;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use chrono::Utc;

use crate::model::causes::chain;
use crate::store::error::ErrorKind;

use super::Settings;

/// What is quoted of a server's own words.
const MOST_QUOTED_CHARACTERS: usize = 400;

/// A request that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    /// What the server calls it; empty where it was not reached.
    pub(super) code: String,
    pub(super) hint: Option<String>,
    pub(super) reason: String,
}

/// What a request was made on and with.
pub(super) struct Place<'a> {
    pub(super) settings: &'a Settings,
    /// The region that requests are signed for.
    pub(super) region: Option<&'a str>,
    /// What the credentials must allow.
    pub(super) permission: &'static str,
}

/// What a server answered.
struct Answer {
    status: u16,
    code: String,
    message: String,
    /// Where the bucket is, when the server tells it.
    region: Option<String>,
    /// The server's clock.
    date: Option<String>,
}

impl Failure {
    pub(super) fn of_kind(kind: ErrorKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            code: String::new(),
            hint: None,
            reason: reason.into(),
        }
    }

    pub(super) fn transient(reason: impl Into<String>) -> Self {
        Self::of_kind(ErrorKind::Transient, reason)
    }

    /// A body that ended before its end.
    pub(super) fn cut_short(error: &dyn StdError) -> Self {
        Self::transient(format!("the body was cut short: {}", chain(error)))
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn is_transient(&self) -> bool {
        self.kind == ErrorKind::Transient
    }

    pub(super) fn is_denied(&self) -> bool {
        self.kind == ErrorKind::PermissionDenied
    }

    /// Whether the server does not do this at all.
    pub(super) fn is_not_implemented(&self) -> bool {
        matches!(self.code.as_str(), "NotImplemented" | "MethodNotAllowed")
    }

    /// Whether the server does not know the header `If-None-Match` on a put.
    pub(super) fn is_refused_condition(&self) -> bool {
        let names_it = self.reason.to_ascii_lowercase().contains("if-none-match");
        self.is_not_implemented()
            || names_it && matches!(self.code.as_str(), "InvalidArgument" | "InvalidRequest")
    }

    /// Says how often it was tried, where that was more than once.
    pub(super) fn after(mut self, attempts: u32) -> Self {
        if attempts > 1 {
            self.reason = format!("{attempts} attempts, and at last: {}", self.reason);
        }
        self
    }
}

impl Place<'_> {
    /// What the failed request means.
    pub(super) fn failure<E>(&self, error: &SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let Some(response) = error.raw_response() else {
            return self.without_answer(error);
        };
        let header = |name: &str| response.headers().get(name).map(str::to_owned);
        let metadata = error.as_service_error().map(ProvideErrorMetadata::meta);
        let said = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let answer = Answer {
            status: response.status().as_u16(),
            code: said(metadata.and_then(|metadata| metadata.code())),
            message: said(metadata.and_then(|metadata| metadata.message())),
            region: header("x-amz-bucket-region"),
            date: header("date"),
        };
        self.answered(&answer)
    }

    fn answered(&self, answer: &Answer) -> Failure {
        let kind = kind_of(answer);
        let message: String = answer.message.chars().take(MOST_QUOTED_CHARACTERS).collect();
        let code = match answer.code.as_str() {
            "" => "no S3 error".to_owned(),
            code => code.to_owned(),
        };
        let reason = format!("the server says {code} (HTTP {}) {message}", answer.status);
        Failure {
            kind,
            code: answer.code.clone(),
            hint: self.hint(kind, answer),
            reason: reason.trim_end().to_owned(),
        }
    }

    fn hint(&self, kind: ErrorKind, answer: &Answer) -> Option<String> {
        let hint = match answer.code.as_str() {
            "NoSuchBucket" => format!(
                "there is no bucket `{}` there: create it, or correct `repository.url` or `repository.endpoint`",
                self.settings.bucket
            ),
            "InvalidAccessKeyId" => "the server does not know the access key: correct `access_key_id`, or see whether the key was deleted".to_owned(),
            "SignatureDoesNotMatch" => "the secret does not belong to the access key: correct `secret_access_key` (a proxy that changes requests has the same effect)".to_owned(),
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => "the temporary credentials have expired: get new ones; `session_token` with its keys is valid for hours only".to_owned(),
            "InvalidToken" => "the session token is not valid: give `session_token` with the keys that it was made with, or none for permanent keys".to_owned(),
            "RequestTimeTooSkewed" => format!(
                "this machine's clock says {}, the server's {}: synchronise them (timedatectl set-ntp true)",
                Utc::now().format("%a, %d %b %Y %H:%M:%S GMT"),
                answer.date.as_deref().unwrap_or("something else")
            ),
            "InvalidStorageClass" => "the server has no such storage class: correct `repository.storage_class`".to_owned(),
            code if code.starts_with("KMS.") => "the encryption key cannot be used: correct `repository.kms_key_id`, or allow kms:GenerateDataKey and kms:Decrypt".to_owned(),
            code if is_wrong_region(code) => self.region_hint(answer),
            _ => return self.hint_of_kind(kind, answer),
        };
        Some(hint)
    }

    fn hint_of_kind(&self, kind: ErrorKind, answer: &Answer) -> Option<String> {
        let permission = self.permission;
        Some(match kind {
            ErrorKind::PermissionDenied if permission == "s3:GetObject" => format!(
                "allow {permission} here{}; without s3:ListBucket the server answers so for an object that is not there, too",
                self.which_credentials()
            ),
            ErrorKind::PermissionDenied => format!("allow {permission} here{}", self.which_credentials()),
            ErrorKind::NoSpace => "free some, or raise the quota of the bucket or its owner".to_owned(),
            ErrorKind::Other if answer.code.is_empty() => format!(
                "is {} an S3 server? correct `repository.endpoint`",
                self.settings.endpoint.as_deref().unwrap_or("this")
            ),
            _ => return None,
        })
    }

    fn which_credentials(&self) -> &'static str {
        let reads = matches!(self.permission, "s3:GetObject" | "s3:ListBucket");
        match (&self.settings.read_credentials, reads) {
            (Some(_), true) => " to the credentials of `repository.read`",
            (Some(_), false) => " to the credentials that write, not those of `repository.read`",
            (None, _) => "",
        }
    }

    fn region_hint(&self, answer: &Answer) -> String {
        // "…the region 'us-east-1' is wrong; expecting 'eu-central-1'"
        let expected = answer.message.split("expecting '").nth(1);
        let told = expected
            .and_then(|rest| rest.split('\'').next())
            .map(str::to_owned);
        match answer.region.clone().or(told) {
            Some(right) => format!(
                "the bucket is in the region {right}, and the request was for {}: set `repository.region = \"{right}\"`",
                self.region.unwrap_or("another")
            ),
            None => format!(
                "the bucket is in another region than {}: set `repository.region`",
                self.region.unwrap_or("that of the request")
            ),
        }
    }

    fn without_answer<E: StdError + 'static>(&self, error: &SdkError<E, HttpResponse>) -> Failure {
        let reason = chain(error);
        let endpoint = self.settings.endpoint.as_deref().unwrap_or("AWS");
        let failure = |kind| Failure::of_kind(kind, reason.clone());
        if reason.contains("invalid peer certificate") {
            return failure(ErrorKind::Other).with_hint(format!(
                "the certificate of {endpoint} is not trusted: name the authority that signed it in `repository.ca_file`, and see that it is for this host"
            ));
        }
        // What the resolver says for a name that is not there, now or later.
        if reason.contains("Name or service not known") || reason.contains("No address associated") {
            return failure(ErrorKind::Other).with_hint(format!(
                "the host of {endpoint} is not known: correct `repository.endpoint` or `repository.region`; a bucket that is no name of a host needs `repository.path_style = true`"
            ));
        }
        if io_kind(error) == Some(io::ErrorKind::ConnectionRefused) {
            return failure(ErrorKind::Transient).with_hint(format!(
                "nobody listens at {endpoint}: start the server, or correct `repository.endpoint`"
            ));
        }
        match error {
            SdkError::TimeoutError(_) | SdkError::ResponseError(_) => failure(ErrorKind::Transient),
            // Also a connection that was closed before the answer came, which is no io error for the library.
            SdkError::DispatchFailure(dispatch) if !dispatch.is_user() => failure(ErrorKind::Transient)
                .with_hint(format!("see whether {endpoint} can be reached from here")),
            _ => failure(ErrorKind::Other),
        }
    }
}

fn is_wrong_region(code: &str) -> bool {
    [
        "PermanentRedirect",
        "TemporaryRedirect",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
    ]
    .contains(&code)
}

fn kind_of(answer: &Answer) -> ErrorKind {
    match answer.code.as_str() {
        "PreconditionFailed" => return ErrorKind::AlreadyExists,
        "NoSuchKey" | "NoSuchVersion" => return ErrorKind::NotFound,
        "QuotaExceeded" | "StorageFull" | "XMinioStorageFull" | "InsufficientCapacity" => {
            return ErrorKind::NoSpace;
        }
        "ConditionalRequestConflict" | "OperationAborted" | "SlowDown" | "RequestTimeout" | "BadDigest" => {
            return ErrorKind::Transient;
        }
        "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken" => {
            return ErrorKind::PermissionDenied;
        }
        "RequestTimeTooSkewed" => return ErrorKind::Other,
        _ => {}
    }
    match answer.status {
        401 | 403 => ErrorKind::PermissionDenied,
        412 => ErrorKind::AlreadyExists,
        408 | 429 | 500 | 502..=504 => ErrorKind::Transient,
        507 => ErrorKind::NoSpace,
        _ => ErrorKind::Other,
    }
}

/// The first error of the operating system among the causes.
fn io_kind(error: &(dyn StdError + 'static)) -> Option<io::ErrorKind> {
    let mut cause = Some(error);
    while let Some(current) = cause {
        if let Some(found) = current.downcast_ref::<io::Error>() {
            return Some(found.kind());
        }
        cause = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, code: &str, message: &str, region: Option<&str>) -> Failure {
        let settings = Settings {
            bucket: "backups".to_owned(),
            ..Settings::default()
        };
        let place = Place {
            settings: &settings,
            region: Some("us-east-1"),
            permission: "s3:GetObject",
        };
        place.answered(&Answer {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
            region: region.map(str::to_owned),
            date: Some("Mon, 23 Nov 2026 03:00:00 GMT".to_owned()),
        })
    }

    #[test]
    fn answers_are_sorted_by_what_to_do() {
        for (status, code, kind) in [
            (404, "NoSuchKey", ErrorKind::NotFound),
            (404, "NoSuchBucket", ErrorKind::Other),
            (404, "", ErrorKind::Other),
            (412, "PreconditionFailed", ErrorKind::AlreadyExists),
            (409, "ConditionalRequestConflict", ErrorKind::Transient),
            (409, "OperationAborted", ErrorKind::Transient),
            (503, "SlowDown", ErrorKind::Transient),
            (500, "InternalError", ErrorKind::Transient),
            (400, "RequestTimeout", ErrorKind::Transient),
            (400, "BadDigest", ErrorKind::Transient),
            (429, "TooManyRequests", ErrorKind::Transient),
            (403, "AccessDenied", ErrorKind::PermissionDenied),
            (400, "ExpiredToken", ErrorKind::PermissionDenied),
            (403, "RequestTimeTooSkewed", ErrorKind::Other),
            (403, "QuotaExceeded", ErrorKind::NoSpace),
            (507, "XMinioStorageFull", ErrorKind::NoSpace),
            (301, "PermanentRedirect", ErrorKind::Other),
            (501, "NotImplemented", ErrorKind::Other),
        ] {
            assert_eq!(answered(status, code, "", None).kind, kind, "{status} {code}");
        }
    }

    #[test]
    fn hints_say_the_next_step() {
        let expecting = "the region 'us-east-1' is wrong; expecting 'eu-central-1'";
        for (status, code, message, region, hint) in [
            (404, "NoSuchBucket", "", None, "no bucket `backups`"),
            (404, "", "", None, "repository.endpoint"),
            (403, "AccessDenied", "", None, "allow s3:GetObject"),
            (403, "AccessDenied", "", None, "without s3:ListBucket"),
            (403, "InvalidAccessKeyId", "", None, "correct `access_key_id`"),
            (
                403,
                "SignatureDoesNotMatch",
                "",
                None,
                "correct `secret_access_key`",
            ),
            (400, "ExpiredToken", "", None, "get new ones"),
            (
                403,
                "RequestTimeTooSkewed",
                "",
                None,
                "the server's Mon, 23 Nov 2026",
            ),
            (
                301,
                "PermanentRedirect",
                "",
                Some("eu-west-1"),
                "region = \"eu-west-1\"",
            ),
            (
                400,
                "AuthorizationHeaderMalformed",
                expecting,
                None,
                "region = \"eu-central-1\"",
            ),
            (
                301,
                "PermanentRedirect",
                "",
                None,
                "another region than us-east-1",
            ),
            (400, "KMS.NotFoundException", "", None, "kms_key_id"),
            (403, "QuotaExceeded", "", None, "quota"),
        ] {
            let given = answered(status, code, message, region).hint.unwrap_or_default();
            assert!(given.contains(hint), "{code}: {given}");
        }
    }

    #[test]
    fn a_refused_condition_is_told_from_other_refusals() {
        assert!(answered(501, "NotImplemented", "A header you provided", None).is_refused_condition());
        assert!(
            answered(400, "InvalidArgument", "If-None-Match is not supported", None).is_refused_condition()
        );
        assert!(!answered(400, "InvalidArgument", "bad storage class", None).is_refused_condition());
        assert!(!answered(412, "PreconditionFailed", "If-None-Match", None).is_refused_condition());
    }
}
