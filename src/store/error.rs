//! What can go wrong with a store, sorted by what the caller will do about it.

use std::fmt;
use std::io;

use crate::store::key::Key;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A call of a store that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    pub operation: Operation,
    /// The object or folder meant; absent where the store as a whole is.
    pub key: Option<String>,
    /// Where the store is, as `describe` tells it.
    pub location: String,
    pub kind: ErrorKind,
    /// What to do next, where we know more than the kind tells.
    pub hint: Option<String>,
    pub source: Option<Source>,
}

/// The calls of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Open,
    Put,
    Get,
    List,
    Delete,
}

/// What a failed call means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    NotFound,
    AlreadyExists,
    PermissionDenied,
    NoSpace,
    /// The same call may well succeed a little later.
    Transient,
    Other,
}

impl Error {
    pub fn new(
        operation: Operation,
        key: Option<&Key>,
        location: impl Into<String>,
        kind: ErrorKind,
    ) -> Self {
        Self {
            operation,
            key: key.map(Key::to_string),
            location: location.into(),
            kind,
            hint: None,
            source: None,
        }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    pub fn is_already_exists(&self) -> bool {
        self.kind == ErrorKind::AlreadyExists
    }

    pub fn is_transient(&self) -> bool {
        self.kind == ErrorKind::Transient
    }
}

impl ErrorKind {
    /// What an error of the file system means.
    pub fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind as Io;
        match error.kind() {
            Io::NotFound => Self::NotFound,
            Io::AlreadyExists => Self::AlreadyExists,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Self::PermissionDenied,
            Io::StorageFull | Io::QuotaExceeded => Self::NoSpace,
            Io::Interrupted
            | Io::TimedOut
            | Io::WouldBlock
            | Io::ResourceBusy
            | Io::StaleNetworkFileHandle
            | Io::ConnectionReset
            | Io::ConnectionAborted => Self::Transient,
            _ => Self::Other,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "it exists already, and stored objects are never changed",
            Self::PermissionDenied => "permission denied",
            Self::NoSpace => "no space left",
            Self::Transient => "not available just now; try again",
            Self::Other => "not possible",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ", self.operation)?;
        if let Some(key) = &self.key {
            write!(formatter, "`{key}` in ")?;
        }
        write!(formatter, "{}: {}", self.location, self.kind.text())?;
        match &self.hint {
            Some(hint) => write!(formatter, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Open => "open",
            Self::Put => "store",
            Self::Get => "read",
            Self::List => "list",
            Self::Delete => "delete",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_what_was_tried_on_what_and_leaves_the_source_to_the_chain() {
        let key = Key::new("a/b").unwrap();
        let source = io::Error::from_raw_os_error(libc::ENOSPC);
        let kind = ErrorKind::of_io(&source);
        let error = Error::new(Operation::Put, Some(&key), "/backups", kind)
            .with_hint("free some")
            .with_source(source);
        assert_eq!(
            error.to_string(),
            "store `a/b` in /backups: no space left; free some"
        );
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn errors_of_the_file_system_are_sorted_by_what_to_do() {
        for (code, kind) in [
            (libc::ENOENT, ErrorKind::NotFound),
            (libc::EEXIST, ErrorKind::AlreadyExists),
            (libc::EACCES, ErrorKind::PermissionDenied),
            (libc::EROFS, ErrorKind::PermissionDenied),
            (libc::ENOSPC, ErrorKind::NoSpace),
            (libc::EDQUOT, ErrorKind::NoSpace),
            (libc::ESTALE, ErrorKind::Transient),
            (libc::ETIMEDOUT, ErrorKind::Transient),
            (libc::EIO, ErrorKind::Other),
        ] {
            assert_eq!(
                ErrorKind::of_io(&io::Error::from_raw_os_error(code)),
                kind,
                "{code}"
            );
        }
    }
}
