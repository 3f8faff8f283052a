//! How connection strings, service files, the environment and password files come together.

use super::*;

fn environment(variables: &[(&str, &str)]) -> Environment {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Environment {
        variables,
        system_user: Some("me".to_owned()),
        ..Environment::default()
    }
}

fn resolve(dsn: &str, variables: &[(&str, &str)]) -> ConnectionSettings {
    ConnectionSettings::resolve(dsn, &environment(variables)).unwrap()
}

fn refusal(dsn: &str) -> String {
    ConnectionSettings::resolve(dsn, &environment(&[]))
        .unwrap_err()
        .to_string()
}

/// A home directory whose files only their owner can read.
fn home(files: &[(&str, &str)]) -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    home
}

fn resolve_at_home(
    dsn: &str,
    files: &[(&str, &str)],
    variables: &[(&str, &str)],
) -> (ConnectionSettings, tempfile::TempDir) {
    let home = home(files);
    let environment = Environment {
        home: Some(home.path().to_owned()),
        ..environment(variables)
    };
    (ConnectionSettings::resolve(dsn, &environment).unwrap(), home)
}

fn password(settings: &ConnectionSettings) -> Option<&str> {
    settings.password(&settings.hosts()[0]).map(Secret::expose)
}

#[test]
fn descriptions_name_database_server_and_user() {
    for (dsn, expected) in [
        (
            "postgresql://backup:sesame@db.example.com/shop",
            "shop at db.example.com:5432 as backup",
        ),
        (
            "host=db port=5433 user=backup dbname=shop",
            "shop at db:5433 as backup",
        ),
        ("host=/run/pg user=u dbname=d", "d at /run/pg/.s.PGSQL.5432 as u"),
        ("postgresql://[::1]/d", "d at [::1]:5432 as me"),
        ("postgresql://a:1,b:2/d", "d at a:1,b:2 as me"),
        ("postgresql://a,b/d?port=7", "d at a:7,b:7 as me"),
        ("hostaddr=10.0.0.1", "me at 10.0.0.1:5432 as me"),
        ("host=a hostaddr=10.0.0.1", "me at a:5432 as me"),
        ("host=a,b port=,7", "me at a:5432,b:7 as me"),
        ("", "me at /tmp/.s.PGSQL.5432 as me"),
        ("host='' user='' dbname=''", "me at /tmp/.s.PGSQL.5432 as me"),
        ("user=u", "u at /tmp/.s.PGSQL.5432 as u"),
    ] {
        assert_eq!(resolve(dsn, &[]).describe(), expected, "{dsn}");
    }
}

#[test]
fn the_environment_gives_the_defaults_and_the_text_goes_before_it() {
    let variables = [
        ("PGHOST", "envhost"),
        ("PGPORT", "6000"),
        ("PGUSER", "envuser"),
        ("PGDATABASE", "envdb"),
        ("PGPASSWORD", "envpassword"),
        ("PGSSLMODE", "verify-full"),
        ("PGCONNECT_TIMEOUT", "7"),
        ("PGTARGETSESSIONATTRS", "standby"),
        ("PGOPTIONS", "-c geqo=off"),
        ("PGAPPNAME", "ignored"),
    ];
    let settings = resolve("", &variables);
    assert_eq!(settings.describe(), "envdb at envhost:6000 as envuser");
    assert_eq!(password(&settings), Some("envpassword"));
    assert!(!settings.password_from_text());
    assert_eq!(settings.tls().mode, SslMode::VerifyFull);
    assert_eq!(settings.connect_timeout(), Duration::from_secs(7));
    assert_eq!(settings.target_session(), TargetSession::Standby);
    assert_eq!(settings.options(), Some("-c geqo=off"));
    let settings = resolve("postgresql://u:p@h:1/d?sslmode=disable", &variables);
    assert_eq!(settings.describe(), "d at h:1 as u");
    assert_eq!(password(&settings), Some("p"));
    assert!(settings.password_from_text());
    assert_eq!(settings.tls().mode, SslMode::Disable);
    assert_eq!(
        resolve("postgresql:///d", &variables).describe(),
        "d at envhost:6000 as envuser"
    );
}

#[test]
fn the_default_socket_is_the_first_that_exists() {
    let (empty, used) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(used.path().join(".s.PGSQL.5433"), "").unwrap();
    let socket_directories = vec![empty.path().to_owned(), used.path().to_owned()];
    let environment = Environment {
        socket_directories,
        ..environment(&[])
    };
    let directory = |dsn| match &ConnectionSettings::resolve(dsn, &environment).unwrap().hosts()[0].endpoint {
        Endpoint::Socket(directory) => directory.clone(),
        Endpoint::Tcp { .. } => panic!("not a socket"),
    };
    assert_eq!(directory("port=5433"), used.path());
    assert_eq!(directory("port=5434"), empty.path());
    assert_eq!(directory("postgresql://:5433/d"), used.path());
}

#[test]
fn a_service_goes_before_the_environment_and_behind_the_text() {
    let files = [(
        ".pg_service.conf",
        "[mydb]\nhost=servicehost\nuser=serviceuser\npassword=servicepassword\n",
    )];
    let variables = [
        ("PGHOST", "envhost"),
        ("PGPORT", "6000"),
        ("PGPASSWORD", "envpassword"),
    ];
    let (settings, _home) = resolve_at_home("service=mydb user=u dbname=d", &files, &variables);
    assert_eq!(settings.describe(), "d at servicehost:6000 as u");
    assert_eq!(password(&settings), Some("servicepassword"));
    assert!(!settings.password_from_text());
    let (settings, _home) = resolve_at_home("", &files, &[("PGSERVICE", "mydb")]);
    assert_eq!(
        settings.describe(),
        "serviceuser at servicehost:5432 as serviceuser"
    );
}

#[test]
fn a_service_that_is_not_defined_is_told_with_the_files_searched() {
    let home = home(&[(".pg_service.conf", "[other]\n")]);
    let environment = Environment {
        home: Some(home.path().to_owned()),
        ..environment(&[])
    };
    let error = ConnectionSettings::resolve("postgresql:///?service=mydb", &environment).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("`mydb`") && message.contains(".pg_service.conf"),
        "{message}"
    );
}

#[test]
fn passwords_come_from_the_password_file_for_the_very_host_and_database() {
    let files = [(
        ".pgpass",
        "a:5432:d:u:for a\nb:*:d:u:for b\nb:*:other:u:for other\n",
    )];
    let (settings, home) = resolve_at_home("host=a,b,c dbname=d user=u", &files, &[]);
    let of = |settings: &ConnectionSettings, index: usize| {
        settings
            .password(&settings.hosts()[index])
            .map(|password| password.expose().to_owned())
    };
    assert_eq!(of(&settings, 0).as_deref(), Some("for a"));
    assert_eq!(of(&settings, 1).as_deref(), Some("for b"));
    assert_eq!(of(&settings, 2), None);
    assert_eq!(
        of(&settings.with_database("other"), 1).as_deref(),
        Some("for other")
    );
    let source = PasswordSource::Passfile(home.path().join(".pgpass"));
    assert_eq!(settings.password_source(&settings.hosts()[0]), source);
    assert_eq!(
        settings.password_source(&settings.hosts()[2]),
        PasswordSource::None
    );
}

#[test]
fn a_given_password_keeps_the_password_file_closed() {
    let files = [(".pgpass", "*:*:*:*:from file\n")];
    let (settings, _home) = resolve_at_home("host=a password=given", &files, &[]);
    assert_eq!(password(&settings), Some("given"));
    let (settings, _home) = resolve_at_home("host=a password=''", &files, &[("PGPASSWORD", "env")]);
    assert_eq!(password(&settings), Some("from file"));
    assert!(!settings.password_from_text());
}

#[test]
fn a_missing_password_file_is_a_warning_only_where_it_was_named() {
    let (settings, home) = resolve_at_home("host=a", &[], &[]);
    assert!(settings.warnings().is_empty());
    let missing = home.path().join("missing");
    let settings = resolve(&format!("host=a passfile={}", missing.display()), &[]);
    assert_eq!(settings.warnings().len(), 1);
}

#[test]
fn tls_follows_libpq() {
    let tls = |dsn| resolve(dsn, &[]).tls().clone();
    assert_eq!(tls("").mode, SslMode::Prefer);
    assert_eq!(tls("sslmode=allow").mode, SslMode::Prefer);
    assert_eq!(tls("sslrootcert=system").mode, SslMode::VerifyFull);
    assert_eq!(tls("sslrootcert=system").roots, RootCertificates::System);
    assert_eq!(
        tls("sslrootcert=/ca.pem").roots,
        RootCertificates::File("/ca.pem".into())
    );
    assert_eq!(tls("sslcert=c sslkey=k").client, Some(("c".into(), "k".into())));
    assert!(refusal("sslmode=require sslrootcert=system").contains("verify-full"));
    assert!(refusal("sslmode=on").contains("`sslmode`"));
    assert!(refusal("sslcert=c").contains("sslkey"));
    let files = [
        (".postgresql/root.crt", ""),
        (".postgresql/postgresql.crt", ""),
        (".postgresql/postgresql.key", ""),
    ];
    let (settings, home) = resolve_at_home("", &files, &[]);
    assert_eq!(
        settings.tls().roots,
        RootCertificates::File(home.path().join(".postgresql/root.crt"))
    );
    assert!(settings.tls().client.is_some());
}

#[test]
fn time_limits_are_never_without_end() {
    let limit = |dsn| resolve(dsn, &[]).connect_timeout().as_secs();
    assert_eq!(limit(""), 10);
    assert_eq!(limit("connect_timeout=30"), 30);
    let configured = |dsn, variables: &[(&str, &str)], seconds| {
        let settings = resolve(dsn, variables).with_connect_timeout_if_open(Duration::from_secs(seconds));
        settings.connect_timeout().as_secs()
    };
    assert_eq!(configured("", &[], 45), 45);
    assert_eq!(configured("", &[], 0), 2);
    assert_eq!(configured("connect_timeout=7", &[], 45), 7);
    assert_eq!(configured("", &[("PGCONNECT_TIMEOUT", "8")], 45), 8);
    assert_eq!(limit("connect_timeout=1"), 2);
    assert_eq!(limit("connect_timeout=0"), 600);
    assert_eq!(limit("connect_timeout=-1"), 600);
    assert!(refusal("connect_timeout=soon").contains("connect_timeout"));
}

#[test]
fn wrong_values_are_told_with_what_is_allowed() {
    for (dsn, expected) in [
        ("port=99999", "65535"),
        ("port=0", "65535"),
        ("host=a,b port=1,2,3", "3 ports"),
        ("host=a,b hostaddr=10.0.0.1", "2 hosts and 1 host addresses"),
        ("hostaddr=localhost", "IP addresses"),
        ("target_session_attrs=master", "primary"),
        ("channel_binding=maybe", "require"),
        ("keepalives_idle=x", "whole number"),
        ("gssencmode=require", "GSSAPI"),
        ("host=@abstract", "abstract"),
        ("pgbouncer=true", "`pgbouncer`"),
        ("postgresql://h/d?schema=public", "`schema`"),
    ] {
        let message = refusal(dsn);
        assert!(message.contains(expected), "{dsn}: {message}");
    }
}

#[test]
fn parameters_without_effect_are_accepted() {
    resolve(
        "application_name=x fallback_application_name=y client_encoding=auto gssencmode=prefer",
        &[],
    );
}

#[test]
fn debug_output_does_not_show_passwords() {
    let (settings, _home) = resolve_at_home("host=a", &[(".pgpass", "*:*:*:*:sesame\n")], &[]);
    assert!(!format!("{settings:?}").contains("sesame"));
    let settings = resolve("postgresql://u:sesame@h/d", &[]);
    assert!(!format!("{settings:?}").contains("sesame"));
    assert!(!settings.describe().contains("sesame"));
}
