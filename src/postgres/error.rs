//! What went wrong with PostgreSQL: what was tried, on what, why, and what to do next.
//!
//! Never: a password, or a statement's data (the server's DETAIL may quote rows; it has its own accessor).

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// A failed connection or statement.
///
/// `Display` carries the innermost reason, since the driver's own says only "db error". So there is no
/// `std::error::Error::source`: a printed chain would say everything twice. The original is at [`Error::cause`].
#[derive(Clone, Debug)]
pub struct Error {
    tried: String,
    on: String,
    kind: ErrorKind,
    reason: String,
    hint: Option<String>,
    cause: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What a caller decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The server is away, going away, or was never reached: classes 08 and 57P0x, and errors of the network.
    Connection,
    /// No TLS, or a certificate that is not trusted.
    Tls,
    /// Wrong password, no pg_hba.conf entry: class 28.
    Authentication,
    /// 3D000.
    NoSuchDatabase,
    /// 42501.
    Permission,
    /// 55P03.
    LockTimeout,
    /// 57014: by us, by somebody, or by a time limit of the server.
    Cancelled,
    /// Class 53: connections, memory, locks, disk.
    ResourceExhausted,
    /// 42P01.
    UndefinedTable,
    /// A transaction-mode pooler stands between.
    Pooler,
    /// What the operator configured cannot be used: certificate files, mostly.
    Configuration,
    Other,
}

impl Error {
    /// An error of the driver while a statement ran: `tried` "copy table orders", `on` the database described.
    pub fn query(tried: impl Into<String>, on: impl Into<String>, error: tokio_postgres::Error) -> Self {
        let error: Arc<dyn StdError + Send + Sync> = Arc::new(error);
        Self::from_cause(tried, on, error)
    }

    pub(super) fn from_cause(
        tried: impl Into<String>,
        on: impl Into<String>,
        cause: Arc<dyn StdError + Send + Sync>,
    ) -> Self {
        let sqlstate = server_error(cause.as_ref()).map(|server| server.code().code().to_owned());
        let kind = match &sqlstate {
            Some(sqlstate) => kind_of_sqlstate(sqlstate),
            None => kind_of_driver_error(cause.as_ref()),
        };
        let hint = query_hint(kind, sqlstate.as_deref()).map(str::to_owned);
        let reason = innermost_reason(cause.as_ref());
        Self {
            tried: tried.into(),
            on: on.into(),
            kind,
            reason,
            hint,
            cause: Some(cause),
        }
    }

    /// An error found by this program itself.
    pub fn new(
        tried: impl Into<String>,
        on: impl Into<String>,
        kind: ErrorKind,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let hint = Some(hint.into());
        Self {
            tried: tried.into(),
            on: on.into(),
            kind,
            reason: reason.into(),
            hint,
            cause: None,
        }
    }

    /// An answer that this program did not expect.
    pub fn unexpected(tried: impl Into<String>, on: impl Into<String>, answer: impl Into<String>) -> Self {
        let hint = "if the server is healthy, this is a fault of ernstfall: please report it";
        Self::new(tried, on, ErrorKind::Other, answer, hint)
    }

    /// A PostgreSQL program that could not be started.
    pub(super) fn program(name: &str, on: impl Into<String>, error: &std::io::Error) -> Self {
        let hint = "check that the program is there and can be executed, or set bin_dir";
        Self::new(
            format!("run {name}"),
            on,
            ErrorKind::Configuration,
            error.to_string(),
            hint,
        )
    }

    /// The same error with better advice.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The same error, with what other hosts said before or after it.
    pub(super) fn with_also_tried(self, others: &str) -> Self {
        Self {
            reason: format!("{} (also tried: {others})", self.reason),
            ..self
        }
    }

    /// What it was tried on.
    pub fn on(&self) -> &str {
        &self.on
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Why it failed, without what was tried and without advice.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What to do next.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The server's five-letter code, where the server spoke.
    pub fn sqlstate(&self) -> Option<&str> {
        self.server().map(|server| server.code().code())
    }

    /// The server's DETAIL. It can quote rows: not for logs.
    pub fn detail(&self) -> Option<&str> {
        self.server().and_then(tokio_postgres::error::DbError::detail)
    }

    /// The server's whole error, where the server spoke.
    pub fn server(&self) -> Option<&tokio_postgres::error::DbError> {
        self.cause.as_deref().and_then(|cause| server_error(cause))
    }

    /// The error this one was made from.
    pub fn cause(&self) -> Option<&(dyn StdError + Send + Sync)> {
        self.cause.as_deref()
    }

    /// Whether the surroundings are at fault and not the data: classes 08, 53, 57 and 58, and without a code the network,
    /// TLS, a pooler and the configuration.
    pub fn is_environment(&self) -> bool {
        match self.sqlstate() {
            Some(sqlstate) => ["08", "53", "57", "58"]
                .iter()
                .any(|class| sqlstate.starts_with(class)),
            None => matches!(
                self.kind,
                ErrorKind::Connection | ErrorKind::Tls | ErrorKind::Pooler | ErrorKind::Configuration
            ),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.tried)?;
        if !self.on.is_empty() {
            write!(formatter, " ({})", self.on)?;
        }
        write!(formatter, ": {}", self.reason)?;
        match &self.hint {
            Some(hint) => write!(formatter, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {}

/// The server's error somewhere in a chain.
fn server_error<'a>(
    error: &'a (dyn StdError + Send + Sync + 'static),
) -> Option<&'a tokio_postgres::error::DbError> {
    find_in_chain(error)
}

/// The first error of a type in a chain, looking into what `std::io::Error` wraps too.
pub(super) fn find_in_chain<'a, Wanted: StdError + 'static>(
    error: &'a (dyn StdError + Send + Sync + 'static),
) -> Option<&'a Wanted> {
    let mut next: Option<&'a (dyn StdError + 'static)> = Some(error);
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref() {
            return Some(found);
        }
        // `io::Error::source` passes over the error it wraps.
        next = match current
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => current.source(),
        };
    }
    None
}

fn innermost_reason(error: &(dyn StdError + Send + Sync + 'static)) -> String {
    if let Some(server) = server_error(error) {
        return server.message().to_owned();
    }
    let mut innermost: &dyn StdError = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn kind_of_driver_error(error: &(dyn StdError + Send + Sync + 'static)) -> ErrorKind {
    if find_in_chain::<rustls::Error>(error).is_some() {
        return ErrorKind::Tls;
    }
    let closed = find_in_chain::<tokio_postgres::Error>(error).is_some_and(tokio_postgres::Error::is_closed);
    if closed || find_in_chain::<std::io::Error>(error).is_some() {
        return ErrorKind::Connection;
    }
    // The driver's kinds are private; its texts are what it offers.
    match error.to_string().as_str() {
        "error performing TLS handshake" => ErrorKind::Tls,
        "authentication error" | "invalid configuration" => ErrorKind::Authentication,
        _ => ErrorKind::Other,
    }
}

fn kind_of_sqlstate(sqlstate: &str) -> ErrorKind {
    match sqlstate {
        "42501" => ErrorKind::Permission,
        "55P03" => ErrorKind::LockTimeout,
        "57014" => ErrorKind::Cancelled,
        "42P01" => ErrorKind::UndefinedTable,
        "3D000" => ErrorKind::NoSuchDatabase,
        _ if sqlstate.starts_with("08") || sqlstate.starts_with("57P0") => ErrorKind::Connection,
        _ if sqlstate.starts_with("28") => ErrorKind::Authentication,
        _ if sqlstate.starts_with("53") => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Other,
    }
}

fn query_hint(kind: ErrorKind, sqlstate: Option<&str>) -> Option<&'static str> {
    Some(match (kind, sqlstate) {
        (ErrorKind::ResourceExhausted, Some("53100")) => "free disk space on the server",
        (ErrorKind::ResourceExhausted, Some("53200")) => {
            "the server is out of memory or lock slots: raise max_locks_per_transaction, or lower `jobs`"
        }
        (ErrorKind::ResourceExhausted, Some("53300")) => {
            "close idle connections, raise max_connections, or lower `jobs`"
        }
        (ErrorKind::ResourceExhausted, _) => "look at the server's log for what it ran out of",
        (ErrorKind::Connection, _) => "the connection was lost: look at the server's log and at the network",
        (ErrorKind::Permission, _) => "grant the role what it needs: `ernstfall grants` prints the SQL",
        (ErrorKind::LockTimeout, _) => "find who holds the lock with pg_blocking_pids(), and try again",
        (ErrorKind::Cancelled, _) => "if nobody cancelled it, look for a time limit in the server's settings",
        (ErrorKind::UndefinedTable, _) => {
            "it was dropped or renamed meanwhile, or never existed: check the name"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_the_sqlstate() {
        for (sqlstate, kind) in [
            ("08006", ErrorKind::Connection),
            ("57P01", ErrorKind::Connection),
            ("57P03", ErrorKind::Connection),
            ("57014", ErrorKind::Cancelled),
            ("28P01", ErrorKind::Authentication),
            ("28000", ErrorKind::Authentication),
            ("3D000", ErrorKind::NoSuchDatabase),
            ("42501", ErrorKind::Permission),
            ("55P03", ErrorKind::LockTimeout),
            ("53300", ErrorKind::ResourceExhausted),
            ("42P01", ErrorKind::UndefinedTable),
            ("23505", ErrorKind::Other),
        ] {
            assert_eq!(kind_of_sqlstate(sqlstate), kind, "{sqlstate}");
        }
    }

    #[test]
    fn the_innermost_reason_is_shown_and_shown_once() {
        let cause = std::io::Error::other(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let error = Error::from_cause("connect", "shop at db:5432 as backup", Arc::new(cause));
        assert_eq!(error.kind(), ErrorKind::Connection);
        assert!(error.is_environment());
        assert!(error.source().is_none());
        let shown = error.to_string();
        assert!(
            shown.starts_with("connect (shop at db:5432 as backup): connection refused; "),
            "{shown}"
        );
    }

    #[test]
    fn a_tls_error_is_found_behind_the_network_error_that_wraps_it() {
        let inner = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let error = Error::from_cause("connect", "x", Arc::new(std::io::Error::other(inner)));
        assert_eq!(error.kind(), ErrorKind::Tls);
    }
}
