//! Password files: `host:port:database:user:password`, one entry a line, the first that fits counts.

use crate::model::secret::Secret;
use std::path::{Path, PathBuf};

/// The entries of one password file.
#[derive(Clone, Debug)]
pub(super) struct Passfile {
    pub(super) path: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    host: Field,
    port: Field,
    database: Field,
    user: Field,
    password: Secret,
}

#[derive(Clone, Debug)]
enum Field {
    Any,
    Text(String),
}

impl Passfile {
    /// Reads a password file. `Ok(None)` where there is none; `Err` is a warning for the operator, not a failure:
    /// libpq goes on without a password file that it must not use.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, String> {
        let shown = path.display();
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(format!(
                    "password file {shown} is ignored: {error}; check its permissions"
                ));
            }
        };
        if !metadata.is_file() {
            return Err(format!("password file {shown} is ignored: it is no plain file"));
        }
        if others_can_read(&metadata) {
            return Err(format!(
                "password file {shown} is ignored: others can read it; run `chmod 0600 {shown}`"
            ));
        }
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(Self::parse(path, &text))),
            Err(error) => Err(format!(
                "password file {shown} is ignored: {error}; check its permissions"
            )),
        }
    }

    fn parse(path: &Path, text: &str) -> Self {
        let entries = text.lines().filter_map(parse_line).collect();
        Self {
            path: path.to_owned(),
            entries,
        }
    }

    /// The password for one server; `hosts` are the names the server goes by.
    pub(super) fn find(&self, hosts: &[&str], port: u16, database: &str, user: &str) -> Option<&Secret> {
        let port = port.to_string();
        self.entries
            .iter()
            .find(|entry| {
                hosts.iter().any(|host| entry.host.fits(host))
                    && entry.port.fits(&port)
                    && entry.database.fits(database)
                    && entry.user.fits(user)
            })
            .map(|entry| &entry.password)
            .filter(|password| !password.expose().is_empty())
    }
}

impl Field {
    fn new(raw: &str) -> Self {
        if raw == "*" {
            Self::Any
        } else {
            Self::Text(unescape(raw))
        }
    }

    fn fits(&self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Text(text) => text == value,
        }
    }
}

/// One field written so that it reads back the same, and is never a wildcard.
pub(in crate::postgres) fn escape(text: &str) -> String {
    if text == "*" {
        return "\\*".to_owned();
    }
    text.replace('\\', "\\\\").replace(':', "\\:")
}

fn parse_line(line: &str) -> Option<Entry> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.starts_with('#') {
        return None;
    }
    let mut rest = line;
    let mut field = || {
        let end = field_end(rest)?;
        let field = Field::new(&rest[..end]);
        rest = &rest[end + 1..];
        Some(field)
    };
    let (host, port, database, user) = (field()?, field()?, field()?, field()?);
    // The password too ends at a colon that is not escaped, as in libpq.
    let password = &rest[..field_end(rest).unwrap_or(rest.len())];
    Some(Entry {
        host,
        port,
        database,
        user,
        password: Secret::new(unescape(password)),
    })
}

/// Where the first colon stands that no backslash precedes.
fn field_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b':' => return Some(index),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => characters.next().unwrap_or('\\'),
            _ => character,
        });
    }
    plain
}

#[cfg(unix)]
fn others_can_read(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn others_can_read(_metadata: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(text: &str, hosts: &[&str], database: &str, user: &str) -> Option<String> {
        let passfile = Passfile::parse(Path::new("pgpass"), text);
        passfile
            .find(hosts, 5432, database, user)
            .map(|password| password.expose().to_owned())
    }

    #[test]
    fn the_first_entry_that_fits_counts() {
        let text = "# comment\nother:5432:shop:backup:no\ndb:5432:shop:backup:yes\n*:*:*:*:late\n";
        assert_eq!(find(text, &["db"], "shop", "backup").as_deref(), Some("yes"));
        assert_eq!(find(text, &["db"], "other", "backup").as_deref(), Some("late"));
    }

    #[test]
    fn wildcards_fit_everything_and_escapes_are_taken_out() {
        assert_eq!(
            find("*:*:a\\:b:*:p\\:q\\\\r\n", &["x"], "a:b", "u").as_deref(),
            Some("p:q\\r")
        );
        assert_eq!(find("*:*:\\*:*:p\n", &["x"], "shop", "u"), None);
        assert_eq!(find("*:*:*:*:p:rest\n", &["x"], "d", "u").as_deref(), Some("p"));
    }

    #[test]
    fn lines_that_are_no_entries_are_passed_over() {
        assert_eq!(find("nonsense\n\n:::\n*:*:*:*:\n", &["x"], "d", "u"), None);
    }

    #[test]
    fn a_socket_goes_by_localhost_and_by_its_directory() {
        let names = ["localhost", "/run/pg"];
        assert_eq!(
            find("localhost:*:*:*:a\n", &names, "d", "u").as_deref(),
            Some("a")
        );
        assert_eq!(find("/run/pg:*:*:*:b\n", &names, "d", "u").as_deref(), Some("b"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_read_is_ignored_with_a_warning() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgpass");
        std::fs::write(&path, "*:*:*:*:sesame\n").unwrap();
        for (mode, used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match Passfile::read(&path) {
                Ok(passfile) => assert!(used && passfile.is_some(), "{mode:o}"),
                Err(warning) => assert!(!used && warning.contains("chmod 0600"), "{mode:o}: {warning}"),
            }
        }
        assert!(
            Passfile::read(&directory.path().join("missing"))
                .unwrap()
                .is_none()
        );
        assert!(Passfile::read(directory.path()).is_err());
    }

    proptest! {
        #[test]
        fn what_is_escaped_reads_back_the_same(text in "[^\0\r\n]+") {
            let line = format!("{0}:*:{0}:{0}:{0}\n", escape(&text));
            // A line that begins with # is a comment; libpq has no escape for a host that begins so.
            prop_assume!(!text.starts_with('#'));
            prop_assert_eq!(find(&line, &[&text], &text, &text), Some(text));
        }
    }
}
