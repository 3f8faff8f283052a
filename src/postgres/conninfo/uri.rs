//! The URI form: `postgresql://user:password@host1:5432,host2/database?sslmode=require`.
//!
//! Errors never repeat a part of the text: a password that was not percent-encoded can end up in any of them.

use super::ConninfoError;
use super::keyword::{self, Parameters};

const SCHEMES: [&str; 2] = ["postgresql://", "postgres://"];
const ENCODE: &str = "write special characters of user and password percent-encoded (`@` is %40, `/` is %2F, `:` is %3A, `%` is %25)";

/// The text after the scheme, where this is a URI.
pub(super) fn without_scheme(text: &str) -> Option<&str> {
    SCHEMES.iter().find_map(|scheme| text.strip_prefix(scheme))
}

/// Parses what follows the scheme.
pub(super) fn parse(text: &str) -> Result<Parameters, ConninfoError> {
    let mut parameters = Parameters::new();
    let (credentials, rest) = split_credentials(text);
    if let Some(credentials) = credentials {
        store_credentials(&mut parameters, credentials)?;
    }
    let (before_query, query) = match rest.split_once('?') {
        Some((before, query)) => (before, Some(query)),
        None => (rest, None),
    };
    let (hosts, database) = match before_query.split_once('/') {
        Some((hosts, database)) => (hosts, database),
        None => (before_query, ""),
    };
    if hosts.contains('@') || database.contains('@') {
        return Err(malformed(&format!(
            "the connection URI has an `@` out of place; {ENCODE}"
        )));
    }
    store_hosts(&mut parameters, hosts)?;
    if !database.is_empty() {
        parameters.insert("dbname", decode(database)?);
    }
    for pair in query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
    {
        store_query_pair(&mut parameters, pair)?;
    }
    Ok(parameters)
}

/// As libpq: credentials are what stands before an `@` that comes before any `/`.
fn split_credentials(text: &str) -> (Option<&str>, &str) {
    match text.find(['@', '/']) {
        Some(index) if text[index..].starts_with('@') => (Some(&text[..index]), &text[index + 1..]),
        _ => (None, text),
    }
}

fn store_credentials(parameters: &mut Parameters, credentials: &str) -> Result<(), ConninfoError> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    if !user.is_empty() {
        parameters.insert("user", decode(user)?);
    }
    if !password.is_empty() {
        parameters.insert("password", decode(password)?);
    }
    Ok(())
}

fn store_hosts(parameters: &mut Parameters, text: &str) -> Result<(), ConninfoError> {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for entry in text.split(',') {
        let (host, port) = split_host(entry)?;
        if !port.is_empty() && port.parse::<u16>().is_err() {
            return Err(malformed(&format!(
                "the connection URI has a port that is no port number; {ENCODE}"
            )));
        }
        hosts.push(decode(host)?);
        ports.push(port);
    }
    // As libpq: what is not written leaves room for the environment.
    if hosts.iter().any(|host| !host.is_empty()) {
        parameters.insert("host", hosts.join(","));
    }
    if ports.iter().any(|port| !port.is_empty()) {
        parameters.insert("port", ports.join(","));
    }
    Ok(())
}

fn split_host(entry: &str) -> Result<(&str, &str), ConninfoError> {
    let Some(bracketed) = entry.strip_prefix('[') else {
        return Ok(entry.split_once(':').unwrap_or((entry, "")));
    };
    let (address, rest) = bracketed
        .split_once(']')
        .filter(|(address, _)| !address.is_empty())
        .ok_or_else(|| malformed("the connection URI has an IPv6 address without its brackets closed"))?;
    match rest.strip_prefix(':') {
        Some(port) => Ok((address, port)),
        None if rest.is_empty() => Ok((address, "")),
        None => Err(malformed(
            "the connection URI has text after the `]` of an IPv6 address; only `:port` may follow",
        )),
    }
}

fn store_query_pair(parameters: &mut Parameters, pair: &str) -> Result<(), ConninfoError> {
    let (name, value) = pair
        .split_once('=')
        .filter(|(_, value)| !value.contains('='))
        .ok_or_else(|| malformed("the connection URI has a query parameter that is not `name=value`"))?;
    let (name, value) = (decode(name)?, decode(value)?);
    // JDBC's spelling, which libpq takes too.
    if name == "ssl" && value == "true" {
        parameters.insert("sslmode", "require".to_owned());
        return Ok(());
    }
    keyword::store(parameters, &name, value)
}

fn decode(text: &str) -> Result<String, ConninfoError> {
    let wrong = || {
        malformed(&format!(
            "the connection URI has a `%` that begins no character; {ENCODE}"
        ))
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|byte| char::from(byte).to_digit(16));
        let code = digit().zip(digit()).map(|(high, low)| high * 16 + low);
        let byte = code
            .and_then(|code| u8::try_from(code).ok())
            .filter(|byte| *byte != 0);
        bytes.push(byte.ok_or_else(wrong)?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn malformed(fault: &str) -> ConninfoError {
    ConninfoError::Malformed {
        fault: fault.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let parameters = parse(without_scheme(text).unwrap()).unwrap();
        parameters
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_documented_examples_are_read() {
        for (text, expected) in [
            ("postgresql://", ""),
            ("postgresql://localhost", "host=localhost"),
            ("postgresql://localhost:5433", "host=localhost port=5433"),
            ("postgresql://localhost/mydb", "dbname=mydb host=localhost"),
            ("postgresql://user@localhost", "host=localhost user=user"),
            (
                "postgresql://user:secret@localhost",
                "host=localhost password=secret user=user",
            ),
            (
                "postgresql://other@localhost/otherdb?connect_timeout=10&application_name=myapp",
                "application_name=myapp connect_timeout=10 dbname=otherdb host=localhost user=other",
            ),
            (
                "postgresql://host1:123,host2:456/somedb?target_session_attrs=any&application_name=myapp",
                "application_name=myapp dbname=somedb host=host1,host2 port=123,456 target_session_attrs=any",
            ),
            (
                "postgresql:///mydb?host=localhost&port=5433",
                "dbname=mydb host=localhost port=5433",
            ),
            (
                "postgresql://[2001:db8::1234]/database",
                "dbname=database host=2001:db8::1234",
            ),
            (
                "postgresql:///dbname?host=/var/lib/postgresql",
                "dbname=dbname host=/var/lib/postgresql",
            ),
            (
                "postgresql://%2Fvar%2Flib%2Fpostgresql/dbname",
                "dbname=dbname host=/var/lib/postgresql",
            ),
            (
                "postgres://h1,h2:7/d?sslmode=require",
                "dbname=d host=h1,h2 port=,7 sslmode=require",
            ),
            ("postgres://[::1]:6000,h/", "host=::1,h port=6000,"),
            (
                "postgresql://h/db?options=-c%20geqo%3Doff",
                "dbname=db host=h options=-c geqo=off",
            ),
            ("postgresql://h?ssl=true", "host=h sslmode=require"),
            ("postgresql://h?user=u&password=p", "host=h password=p user=u"),
            ("postgresql://u:@h", "host=h user=u"),
            ("postgresql://:p@h", "host=h password=p"),
            ("postgresql://:5433/", "port=5433"),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn user_and_password_are_percent_decoded() {
        assert_eq!(
            read("postgresql://a%40b:p%2Fq%3a%25@h"),
            "host=h password=p/q:% user=a@b"
        );
        assert_eq!(
            read("postgresql://u:w?rd@h/d"),
            "dbname=d host=h password=w?rd user=u"
        );
        assert_eq!(read("postgresql://u:%C3%BC@h"), "host=h password=ü user=u");
    }

    #[test]
    fn a_password_that_is_not_encoded_is_refused_without_being_shown() {
        for text in [
            "postgresql://u:sesame/x@h/d",
            "postgresql://u:123/sesame@h/d",
            "postgresql://u:x@sesame@h/d",
            "postgresql://u:sesame%@h",
            "postgresql://u:sesame%zz@h",
            "postgresql://u:sesame%00@h",
            "postgresql://u:sesame%ff@h",
        ] {
            let Err(error) = parse(without_scheme(text).unwrap()) else {
                panic!("{text} was accepted")
            };
            let message = error.to_string();
            assert!(
                !message.contains("sesame") && message.contains("percent-encoded"),
                "{message}"
            );
        }
    }

    #[test]
    fn malformed_uris_are_refused() {
        for text in [
            "postgresql://[::1",
            "postgresql://[]",
            "postgresql://[::1]x",
            "postgresql://h:99999",
            "postgresql://h?sslmode",
            "postgresql://h?sslmode=a=b",
            "postgresql://h?unknown=1",
        ] {
            assert!(
                parse(without_scheme(text).unwrap()).is_err(),
                "{text} was accepted"
            );
        }
    }

    #[test]
    fn other_schemes_are_no_uri_of_ours() {
        assert_eq!(without_scheme("mysql://h"), None);
        assert_eq!(without_scheme("host=h"), None);
    }
}
