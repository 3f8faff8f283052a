//! The connection parameters that are understood, and the variables that give their defaults.

use super::ConninfoError;
use std::collections::BTreeMap;

/// Parameters by their names in [`KEYWORDS`]. No `Debug`: it may hold a password.
pub(super) type Parameters = BTreeMap<&'static str, String>;

/// Each parameter with its environment variable.
pub(super) const KEYWORDS: &[(&str, Option<&str>)] = &[
    ("service", Some("PGSERVICE")),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("port", Some("PGPORT")),
    ("user", Some("PGUSER")),
    ("password", Some("PGPASSWORD")),
    ("passfile", Some("PGPASSFILE")),
    ("dbname", Some("PGDATABASE")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslkey", Some("PGSSLKEY")),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("options", Some("PGOPTIONS")),
    ("keepalives", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("keepalives_count", None),
    ("tcp_user_timeout", None),
    // Understood and without effect: this program sets its own name and encoding, and speaks no GSSAPI.
    ("application_name", None),
    ("fallback_application_name", None),
    ("client_encoding", None),
    ("gssencmode", None),
];

/// Stores one parameter, or says that it is not known.
pub(super) fn store(parameters: &mut Parameters, name: &str, value: String) -> Result<(), ConninfoError> {
    match KEYWORDS.iter().find(|(keyword, _)| *keyword == name) {
        Some((keyword, _)) => {
            parameters.insert(keyword, value);
            Ok(())
        }
        None => Err(ConninfoError::UnknownKey { key: name.to_owned() }),
    }
}
