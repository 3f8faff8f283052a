//! The parts of the configuration about where things are kept: repository, encryption, scratch.

use std::path::{Path, PathBuf};

use crate::encryption::{RecipientError, Recipients};

use super::document::Table;
use super::secret_source::SecretSource;
use crate::store::Key;

#[derive(Debug, Clone)]
pub struct Repository {
    pub location: RepositoryLocation,
    pub s3: S3Settings,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositoryLocation {
    Directory(PathBuf),
    S3 { bucket: String, prefix: String },
}

#[derive(Debug, Clone)]
pub struct S3Settings {
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub path_style: bool,
    pub credentials: S3Credentials,
    /// For restores, where backups may only write.
    pub read: Option<S3Credentials>,
    pub ca_file: Option<PathBuf>,
    pub storage_class: Option<String>,
    pub server_side_encryption: Option<String>,
    pub kms_key_id: Option<String>,
    /// Whether each object is sent with its SHA-256, for the server to check.
    pub checksums: bool,
    pub object_lock: Option<ObjectLock>,
}

#[derive(Debug, Clone, Default)]
pub struct S3Credentials {
    pub access_key_id: Option<SecretSource>,
    pub secret_access_key: Option<SecretSource>,
    /// Of temporary credentials.
    pub session_token: Option<SecretSource>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    pub mode: ObjectLockMode,
    pub days: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectLockMode {
    Governance,
    Compliance,
}

#[derive(Debug, Clone)]
pub struct Encryption {
    /// `None`: new backups are stored in the clear, and earlier ones can be read.
    pub recipients: Option<Recipients>,
    /// What reads backups; a machine that only backs up needs none.
    pub identity: Option<SecretSource>,
}

/// Where a backup is restored into for a test.
#[derive(Debug, Clone)]
pub struct Scratch {
    pub kind: ScratchKind,
    pub isolation: Isolation,
    /// Where embedded servers are made; default: `scratch` in the state directory.
    pub directory: PathBuf,
    /// Who runs embedded servers when the program is root.
    pub user: Option<String>,
    pub skip_extensions: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScratchKind {
    Embedded,
    Server { url: SecretSource },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    Required,
    BestEffort,
    None,
}

impl Repository {
    pub(super) fn read(table: &Table<'_>, base: &Path) -> Option<Self> {
        let location = table.parsed_with("url", |text| RepositoryLocation::parse(text, base));
        if !table.has("url") {
            table.missing(
                "url",
                "write where backups live, such as \"file:///var/lib/ernstfall/repository\"",
            );
        }
        let s3 = S3Settings::read(table, base);
        table.finish();
        Some(Self {
            location: location?,
            s3,
        })
    }
}

impl S3Settings {
    fn read(table: &Table<'_>, base: &Path) -> Self {
        let read = Self {
            endpoint: table.parsed_with("endpoint", parse_endpoint),
            region: table.text("region"),
            path_style: table.boolean("path_style").unwrap_or(false),
            credentials: S3Credentials::read(table, base),
            read: table.table("read").map(|read| {
                let credentials = S3Credentials::read(&read, base);
                for key in ["access_key_id", "secret_access_key"] {
                    if !read.has(key) {
                        read.missing(key, "`read` is { access_key_id = …, secret_access_key = … }");
                    }
                }
                read.finish();
                credentials
            }),
            ca_file: table.path("ca_file").map(|path| base.join(path)),
            storage_class: table.text("storage_class"),
            server_side_encryption: table.text("server_side_encryption"),
            kms_key_id: table.text("kms_key_id"),
            checksums: table.boolean("checksums").unwrap_or(true),
            object_lock: table
                .table("object_lock")
                .and_then(|lock| ObjectLock::read(&lock)),
        };
        let uses_kms = |mode: &String| mode.starts_with("aws:kms");
        if read.kms_key_id.is_some() && !read.server_side_encryption.as_ref().is_some_and(uses_kms) {
            table.fault(
                "kms_key_id",
                "is only used with server_side_encryption = \"aws:kms\": add that, or remove the key",
            );
        }
        read
    }
}

/// A URL with a host and nothing that could be a secret.
fn parse_endpoint(text: &str) -> Result<String, String> {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['@', '?', '#']) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err(
            "not an endpoint: write \"https://HOST\" or \"http://HOST:PORT\", without user or password"
                .to_owned(),
        ),
    }
}

impl RepositoryLocation {
    fn parse(text: &str, base: &Path) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() || bucket.contains(['@', ':', '?']) {
                return Err(
                    "not a bucket: write \"s3://bucket/prefix\"; keys and endpoint have keys of their own"
                        .to_owned(),
                );
            }
            let prefix = prefix.trim_matches('/').to_owned();
            if !prefix.is_empty()
                && let Err(invalid) = Key::new(prefix.as_str())
            {
                return Err(invalid.to_string());
            }
            return Ok(Self::S3 {
                bucket: bucket.to_owned(),
                prefix,
            });
        }
        let path = text
            .strip_prefix("file://")
            .or_else(|| text.strip_prefix("file:"))
            .unwrap_or(text);
        if path.is_empty() || path.contains("://") {
            return Err(
                "not a place for a repository: write \"file:///DIRECTORY\" or \"s3://bucket/prefix\""
                    .to_owned(),
            );
        }
        Ok(Self::Directory(base.join(path)))
    }
}

impl S3Credentials {
    fn read(table: &Table<'_>, base: &Path) -> Self {
        let read = Self {
            access_key_id: table
                .secret("access_key_id")
                .map(|secret| secret.relative_to(base)),
            secret_access_key: table
                .secret("secret_access_key")
                .map(|secret| secret.relative_to(base)),
            session_token: table
                .secret("session_token")
                .map(|secret| secret.relative_to(base)),
        };
        if table.has("session_token") && !table.has("access_key_id") {
            table.fault(
                "session_token",
                "is of no use alone: give `access_key_id` and `secret_access_key` too",
            );
        }
        if table.has("access_key_id") != table.has("secret_access_key") {
            let (given, missing) = match table.has("access_key_id") {
                true => ("access_key_id", "secret_access_key"),
                false => ("secret_access_key", "access_key_id"),
            };
            table.fault(given, format!("is of no use alone: give `{missing}` too"));
        }
        read
    }
}

impl ObjectLock {
    fn read(table: &Table<'_>) -> Option<Self> {
        let modes = [
            ("governance", ObjectLockMode::Governance),
            ("compliance", ObjectLockMode::Compliance),
        ];
        let (mode, days) = (table.choice("mode", &modes), table.integer("days", 1..=36_500));
        for key in ["mode", "days"] {
            if !table.has(key) {
                table.missing(
                    key,
                    "an object lock is { mode = \"governance\" or \"compliance\", days = N }",
                );
            }
        }
        table.finish();
        Some(Self {
            mode: mode?,
            days: days?,
        })
    }
}

impl Encryption {
    pub(super) fn read(table: &Table<'_>, base: &Path) -> Self {
        // Somebody may have pasted the identity here: it must not be shown.
        table.hide("recipients");
        let texts = table.texts("recipients");
        let recipients = Recipients::parse(&texts).unwrap_or_else(|wrong| {
            for (place, error) in wrong {
                table.fault("recipients", wrong_recipient(place, texts.len(), error));
            }
            None
        });
        if !table.has("recipients") && !table.has("identity") {
            table.missing(
                "recipients",
                "list the age recipients (\"age1…\") that may decrypt backups",
            );
        } else if table.has("recipients") && texts.is_empty() {
            table.fault(
                "recipients",
                "lists nobody: name at least one recipient, or remove the key",
            );
        }
        let identity = table.secret("identity").map(|secret| secret.relative_to(base));
        table.finish();
        Self { recipients, identity }
    }
}

fn wrong_recipient(place: usize, count: usize, error: RecipientError) -> String {
    match count {
        1 => error.to_string(),
        _ => format!("number {} of {count}: {error}", place + 1),
    }
}

impl Scratch {
    pub(super) fn default_in(state_dir: &Path) -> Self {
        Self {
            kind: ScratchKind::Embedded,
            isolation: Isolation::Required,
            directory: state_dir.join("scratch"),
            user: None,
            skip_extensions: Vec::new(),
        }
    }

    /// Reads the table; what it does not say is as in `default`, so a target's own table says only what differs.
    pub(super) fn read(table: &Table<'_>, default: &Self, base: &Path) -> Self {
        let levels = [
            ("required", Isolation::Required),
            ("best-effort", Isolation::BestEffort),
            ("none", Isolation::None),
        ];
        let is_server = table.choice("kind", &[("embedded", false), ("server", true)]);
        let is_server = is_server.unwrap_or(matches!(default.kind, ScratchKind::Server { .. }));
        let isolation = table.choice("isolation", &levels);
        let url = table.secret("url").map(|secret| secret.relative_to(base));
        let kind = match (is_server, url, &default.kind) {
            (true, Some(url), _) => ScratchKind::Server { url },
            (true, None, ScratchKind::Server { url }) => ScratchKind::Server { url: url.clone() },
            (true, None, ScratchKind::Embedded) => {
                if !table.has("url") {
                    table.missing(
                        "url",
                        "scratch of kind \"server\" needs the URL of a PostgreSQL server",
                    );
                }
                ScratchKind::Embedded
            }
            (false, _, _) => {
                if table.has("url") {
                    table.fault(
                        "url",
                        "is only used with kind = \"server\": add that, or remove the url",
                    );
                }
                ScratchKind::Embedded
            }
        };
        // Written out, so that nobody believes a shared server to be a sandbox.
        if is_server && isolation.unwrap_or(default.isolation) != Isolation::None {
            table.fault(
                "isolation",
                "a server cannot be isolated: write isolation = \"none\" to accept that",
            );
        }
        let read = Self {
            kind,
            isolation: isolation.unwrap_or(default.isolation),
            directory: table
                .path("directory")
                .map_or_else(|| default.directory.clone(), |path| base.join(path)),
            user: table.text("user").or_else(|| default.user.clone()),
            skip_extensions: match table.has("skip_extensions") {
                true => table.texts("skip_extensions"),
                false => default.skip_extensions.clone(),
            },
        };
        table.known("skip_extensions");
        table.finish();
        read
    }
}
