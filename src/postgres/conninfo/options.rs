//! The parameters with a fixed set of values, numbers and files: TLS, time limits, kind of server.

use super::ConninfoError;
use super::environment::Environment;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::config::ChannelBinding;

/// Long enough for a far server, short enough that a backup due every minute notices.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What libpq calls "wait without end" (0) ends here: nothing in this program waits without end.
const LONGEST_CONNECT_TIMEOUT: Duration = Duration::from_secs(600);
/// As libpq: one second would be rounded down to nothing by some steps.
const SHORTEST_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Two hours, the system's default, is longer than firewalls remember a silent connection.
const DEFAULT_KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const DEFAULT_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const DEFAULT_KEEPALIVE_COUNT: u32 = 6;

/// How a connection is secured, with libpq's meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// Also stands for `allow`: TLS first costs a server that does not want it one message.
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    pub(in crate::postgres) fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootCertificates {
    None,
    File(PathBuf),
    System,
}

/// Everything about TLS; files are named here and read when connecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    pub mode: SslMode,
    pub roots: RootCertificates,
    /// Certificate and key of the client.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// What kind of server is wanted, of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetSession {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl TargetSession {
    pub(in crate::postgres) fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::PreferStandby => "prefer-standby",
        }
    }
}

/// How a dead peer is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub enabled: bool,
    pub idle: Duration,
    pub interval: Duration,
    pub count: u32,
    pub user_timeout: Option<Duration>,
}

type Given<'a> = dyn Fn(&str) -> Option<&'a str> + 'a;

pub(super) fn tls(given: &Given<'_>, environment: &Environment) -> Result<TlsSettings, ConninfoError> {
    let system = given("sslrootcert") == Some("system");
    let mode = match given("sslmode") {
        None if system => SslMode::VerifyFull,
        None => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("allow" | "prefer") => SslMode::Prefer,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some(value) => {
            let allowed = "disable, allow, prefer, require, verify-ca or verify-full";
            return Err(ConninfoError::Value {
                key: "sslmode",
                value: value.to_owned(),
                allowed,
            });
        }
    };
    // As libpq: with everybody's certificates anybody can be a server, unless the name is checked.
    if system && mode != SslMode::VerifyFull {
        let allowed = "verify-full together with sslrootcert=system";
        return Err(ConninfoError::Value {
            key: "sslmode",
            value: mode.as_str().to_owned(),
            allowed,
        });
    }
    let existing = |name: &str| {
        environment
            .home_file(&format!(".postgresql/{name}"))
            .filter(|path| path.exists())
    };
    let roots = match given("sslrootcert") {
        Some("system") => RootCertificates::System,
        Some(path) => RootCertificates::File(PathBuf::from(path)),
        None => existing("root.crt").map_or(RootCertificates::None, RootCertificates::File),
    };
    let file = |key: &str, default: &str| given(key).map(PathBuf::from).or_else(|| existing(default));
    let client = match (
        file("sslcert", "postgresql.crt"),
        file("sslkey", "postgresql.key"),
    ) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) if given("sslcert").is_some() => {
            let fault = "sslcert is given without sslkey".to_owned();
            return Err(ConninfoError::Malformed { fault });
        }
        _ => None,
    };
    Ok(TlsSettings { mode, roots, client })
}

pub(super) fn connect_timeout(given: Option<&str>) -> Result<Duration, ConninfoError> {
    let Some(text) = given else {
        return Ok(DEFAULT_CONNECT_TIMEOUT);
    };
    let wrong = || ConninfoError::Value {
        key: "connect_timeout",
        value: text.to_owned(),
        allowed: "whole seconds",
    };
    let seconds: i64 = text.trim().parse().map_err(|_| wrong())?;
    Ok(match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => bounded_connect_timeout(Duration::from_secs(seconds)),
        _ => LONGEST_CONNECT_TIMEOUT,
    })
}

pub(super) fn bounded_connect_timeout(limit: Duration) -> Duration {
    limit.clamp(SHORTEST_CONNECT_TIMEOUT, LONGEST_CONNECT_TIMEOUT)
}

pub(super) fn target_session(given: Option<&str>) -> Result<TargetSession, ConninfoError> {
    Ok(match given.unwrap_or("any") {
        "any" => TargetSession::Any,
        "read-write" => TargetSession::ReadWrite,
        "read-only" => TargetSession::ReadOnly,
        "primary" => TargetSession::Primary,
        "standby" => TargetSession::Standby,
        "prefer-standby" => TargetSession::PreferStandby,
        value => {
            let allowed = "any, read-write, read-only, primary, standby or prefer-standby";
            return Err(ConninfoError::Value {
                key: "target_session_attrs",
                value: value.to_owned(),
                allowed,
            });
        }
    })
}

pub(super) fn channel_binding(given: Option<&str>) -> Result<ChannelBinding, ConninfoError> {
    Ok(match given.unwrap_or("prefer") {
        "disable" => ChannelBinding::Disable,
        "prefer" => ChannelBinding::Prefer,
        "require" => ChannelBinding::Require,
        value => {
            let allowed = "disable, prefer or require";
            return Err(ConninfoError::Value {
                key: "channel_binding",
                value: value.to_owned(),
                allowed,
            });
        }
    })
}

/// GSSAPI encryption is ignored like any preference, but a demand for it cannot be met in silence.
pub(super) fn refuse_gssapi(given: Option<&str>) -> Result<(), ConninfoError> {
    match given {
        Some("require") => Err(ConninfoError::Value {
            key: "gssencmode",
            value: "require".to_owned(),
            allowed: "sslmode for encryption: GSSAPI is not supported",
        }),
        _ => Ok(()),
    }
}

pub(super) fn keepalive(given: &Given<'_>) -> Result<Keepalive, ConninfoError> {
    let number = |key: &'static str| match given(key) {
        None => Ok(None),
        // As libpq: zero or less stands for the default.
        Some(text) => match text.trim().parse::<i64>() {
            Ok(value) => Ok(u32::try_from(value).ok().filter(|value| *value > 0)),
            Err(_) => Err(ConninfoError::Value {
                key,
                value: text.to_owned(),
                allowed: "a whole number",
            }),
        },
    };
    let seconds =
        |key| Ok::<_, ConninfoError>(number(key)?.map(|seconds| Duration::from_secs(u64::from(seconds))));
    Ok(Keepalive {
        enabled: given("keepalives") != Some("0"),
        idle: seconds("keepalives_idle")?.unwrap_or(DEFAULT_KEEPALIVE_IDLE),
        interval: seconds("keepalives_interval")?.unwrap_or(DEFAULT_KEEPALIVE_INTERVAL),
        count: number("keepalives_count")?.unwrap_or(DEFAULT_KEEPALIVE_COUNT),
        user_timeout: number("tcp_user_timeout")?
            .map(|milliseconds| Duration::from_millis(u64::from(milliseconds))),
    })
}
