//! Why a server could not be reached, in words an operator can act on.
//!
//! Never: the password; only the place it came from.

use super::conninfo::{ConnectionSettings, Host, PasswordSource, RootCertificates, SslMode};
use super::error::{Error, ErrorKind, find_in_chain};
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

/// The error for one host that could not be connected to.
pub(super) fn connect_error(
    settings: &ConnectionSettings,
    host: &Host,
    cause: Arc<dyn StdError + Send + Sync>,
) -> Error {
    let error = Error::from_cause("connect", describe(settings, host), Arc::clone(&cause));
    if let Some(hint) = pooler(&error) {
        return error.with_hint(hint);
    }
    let hint = match error.kind() {
        ErrorKind::Authentication => authentication(settings, host, &error),
        ErrorKind::Tls => tls(settings, cause.as_ref()),
        ErrorKind::NoSuchDatabase => {
            format!(
                "check the database name `{}`; `psql -l` lists those there are",
                settings.database()
            )
        }
        ErrorKind::ResourceExhausted => {
            "close idle connections, raise max_connections, or lower `jobs`".to_owned()
        }
        ErrorKind::Permission => {
            format!(
                "run GRANT CONNECT ON DATABASE … TO \"{}\" on the server",
                settings.user()
            )
        }
        ErrorKind::Connection => network(host, &error, cause.as_ref()),
        _ if error.reason().contains("conversion between UTF8") => {
            "a database in that encoding cannot be backed up: PostgreSQL converts none of it to UTF8"
                .to_owned()
        }
        _ => "look at the server's log".to_owned(),
    };
    error.with_hint(hint)
}

/// The database on one host, for an error about that host.
pub(super) fn describe(settings: &ConnectionSettings, host: &Host) -> String {
    format!("{} at {host} as {}", settings.database(), settings.user())
}

fn authentication(settings: &ConnectionSettings, host: &Host, error: &Error) -> String {
    if error.reason().contains("pg_hba.conf") {
        let encrypted = match settings.tls().mode {
            SslMode::Disable => "; the server may want TLS: try sslmode=require",
            _ => "",
        };
        let (user, database) = (settings.user(), settings.database());
        return format!(
            "add an entry for `{user}` and `{database}` to the server's pg_hba.conf and reload it{encrypted}"
        );
    }
    if error.sqlstate() == Some("28000") {
        return format!(
            "check the user name `{}` and pg_hba.conf on the server",
            settings.user()
        );
    }
    if error.reason().contains("channel binding") {
        return "use TLS (sslmode=require or stronger), or channel_binding=prefer".to_owned();
    }
    let place = match settings.password_source(host) {
        PasswordSource::None => {
            return "no password is given: set PGPASSWORD, or add the server to ~/.pgpass (mode 0600)"
                .to_owned();
        }
        PasswordSource::ConnectionString => "from the connection string".to_owned(),
        PasswordSource::Service => "from the service file".to_owned(),
        PasswordSource::Environment => "from PGPASSWORD".to_owned(),
        PasswordSource::Passfile(path) => format!("from {}", path.display()),
    };
    format!("check the user name and the password, which came {place}")
}

fn tls(settings: &ConnectionSettings, cause: &(dyn StdError + Send + Sync + 'static)) -> String {
    let roots = match &settings.tls().roots {
        RootCertificates::None => "sslrootcert".to_owned(),
        RootCertificates::System => "sslrootcert=system".to_owned(),
        RootCertificates::File(path) => format!("sslrootcert={}", path.display()),
    };
    use rustls::{CertificateError, Error as Rustls};
    match find_in_chain::<Rustls>(cause) {
        Some(Rustls::InvalidCertificate(error)) => match error {
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "connect by a name that the server's certificate has as subjectAltName (its common name does not count), or use sslmode=verify-ca".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "renew the server's certificate".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "check the clocks of this machine and of the server".to_owned()
            }
            _ => format!("the server's certificate is not trusted: set sslrootcert to the file of the authority that signed it (now: {roots})"),
        },
        Some(Rustls::AlertReceived(_)) => {
            "the server refused the handshake: it may want a client certificate (sslcert, sslkey)".to_owned()
        }
        _ => format!("switch TLS on in the server (ssl = on), or use a weaker sslmode than {}", settings.tls().mode.as_str()),
    }
}

fn network(host: &Host, error: &Error, cause: &(dyn StdError + Send + Sync + 'static)) -> String {
    if error.sqlstate() == Some("57P03") {
        return "the server is starting or stopping: try again in a moment, and look at its log".to_owned();
    }
    let Some(network) = find_in_chain::<io::Error>(cause) else {
        return "the server closed the connection: look at its log".to_owned();
    };
    if network.to_string().contains("failed to lookup address") {
        return format!("check the host name in `{host}`, and the name service of this machine");
    }
    match network.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            format!("nothing listens at {host}: is the server running, are host and port right?")
        }
        io::ErrorKind::TimedOut => {
            format!("no answer from {host}: check host, port and firewall, or raise connect_timeout")
        }
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            "there is no route to it; if the name has only an IPv6 address (a direct Supabase host has), use an address or session pooler with IPv4".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            format!("let the user this program runs as use the socket {host}")
        }
        _ => format!("check that a PostgreSQL server answers at {host}, and look at its log"),
    }
}

/// Poolers give all their refusals one code, so these are known by their words.
fn pooler(error: &Error) -> Option<&'static str> {
    let reason = error.reason();
    if reason.contains("unsupported startup parameter") {
        return Some(
            "a pooler stands between: take `options` out of the connection string (and PGOPTIONS), or use the direct connection",
        );
    }
    reason
        .contains("Tenant or user not found")
        .then_some("on Supabase's pooler the user is `postgres.<project>`: check it, and the pooler's host")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::conninfo::Environment;

    fn shown(dsn: &str, cause: impl StdError + Send + Sync + 'static) -> String {
        let environment = Environment {
            system_user: Some("me".to_owned()),
            ..Environment::default()
        };
        let settings = ConnectionSettings::resolve(dsn, &environment).unwrap();
        connect_error(&settings, &settings.hosts()[0], Arc::new(cause)).to_string()
    }

    #[test]
    fn network_errors_say_where_to_look() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionRefused, "is the server running"),
            (io::ErrorKind::NotFound, "is the server running"),
            (io::ErrorKind::TimedOut, "firewall"),
            (io::ErrorKind::NetworkUnreachable, "IPv6"),
        ] {
            let shown = shown("postgresql://u:sesame@db/shop", io::Error::from(kind));
            assert!(shown.contains(expected) && shown.contains("db:5432"), "{shown}");
            assert!(!shown.contains("sesame"), "{shown}");
        }
        let lookup = io::Error::other("failed to lookup address information: Name or service not known");
        assert!(shown("host=db", lookup).contains("check the host name in `db:5432`"));
    }

    #[test]
    fn certificate_errors_name_the_parameter_to_change() {
        let certificate = |error| io::Error::other(rustls::Error::InvalidCertificate(error));
        let unknown = shown(
            "host=db sslrootcert=/ca.pem",
            certificate(rustls::CertificateError::UnknownIssuer),
        );
        assert!(unknown.contains("sslrootcert=/ca.pem"), "{unknown}");
        let name = shown("host=db", certificate(rustls::CertificateError::NotValidForName));
        assert!(name.contains("subjectAltName"), "{name}");
    }
}
