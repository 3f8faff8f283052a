//! The daemon's pages for programs, over real connections.

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use ernstfall::model::secret::Secret;
use ernstfall::observe::gathered::Gathered;
use ernstfall::observe::http::{Error, Server, Settings, TlsFiles};
use ernstfall::observe::status::TargetFacts;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::directory::TestDir;
use crate::support::pages::{Answer, Pages, moment, plain};
use crate::support::tls::{CA, CERTIFICATE, KEY, LOCAL_NAMES, make_certificates};

const TOKEN: &str = "hunter2-of-the-monitor";

fn shop() -> Gathered {
    Gathered {
        started_at: moment(),
        targets: vec![TargetFacts {
            name: "shop".parse().unwrap(),
            environment: None,
            owner: None,
            rpo_seconds: Some(3600.0),
            rto_seconds: None,
        }],
        repository_seen_at: Some(moment()),
        manifests: [("shop".parse().unwrap(), Arc::default())].into(),
        ..Gathered::default()
    }
}

fn with_token() -> Settings {
    Settings {
        token: Some(Secret::new(TOKEN)),
        ..plain()
    }
}

fn certificates() -> (TestDir, Settings) {
    let directory = TestDir::new("http");
    make_certificates(directory.path(), LOCAL_NAMES);
    let settings = Settings {
        tls: Some(TlsFiles {
            certificate: directory.join(CERTIFICATE),
            key: directory.join(KEY),
        }),
        ..plain()
    };
    (directory, settings)
}

#[test]
fn metrics_and_status_show_what_was_gathered_last() {
    let pages = Pages::open(&plain(), Gathered::default());
    assert!(!pages.get("/metrics").body.contains("shop"));
    pages.gather(shop());
    let metrics = pages.get("/metrics");
    assert_eq!(
        (metrics.status, metrics.header("content-type")),
        (200, Some("text/plain; version=0.0.4; charset=utf-8"))
    );
    assert!(
        metrics
            .body
            .contains("ernstfall_stored_backups{target=\"shop\"} 0\n"),
        "{}",
        metrics.body
    );
    let status = pages.get("/api/v1/status");
    assert_eq!(status.header("content-type"), Some("application/json"));
    let view: serde_json::Value = serde_json::from_str(&status.body).unwrap();
    assert_eq!(view["targets"][0]["status"]["problems"][0], "no backup yet");
    assert_eq!(view["at"], "2027-01-15T08:00:00Z");
    assert!(pages.get("/").body.contains("/api/v1/status"));
}

#[test]
fn it_is_alive_at_once_and_ready_when_it_has_seen_the_repository() {
    let pages = Pages::open(&plain(), Gathered::default());
    assert_eq!(pages.get("/healthz").status, 200);
    let early = pages.get("/readyz");
    assert_eq!(early.status, 503);
    assert!(
        early.body.contains("has not been looked at yet"),
        "{}",
        early.body
    );
    pages.gather(Gathered {
        repository_fault: Some("s3://secret-bucket: denied".to_owned()),
        ..Gathered::default()
    });
    let in_vain = pages.get("/readyz");
    assert_eq!(in_vain.status, 503);
    assert!(in_vain.body.contains("cannot be seen"), "{}", in_vain.body);
    assert!(!in_vain.body.contains("bucket"), "it needs no token");
    // What was seen stays true of that moment.
    pages.gather(Gathered {
        repository_fault: Some("denied".to_owned()),
        ..shop()
    });
    assert_eq!(pages.get("/readyz").status, 200);
}

#[test]
fn only_what_there_is_is_answered_and_only_to_those_who_read() {
    let pages = Pages::open(&plain(), shop());
    assert_eq!(pages.get("/metrics/more").status, 404);
    assert_eq!(pages.get("/../etc/passwd").status, 404);
    let post = pages.request("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
    assert_eq!((post.status, post.header("allow")), (405, Some("get,head")));
    let head = pages.request("HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(
        head.header("content-length")
            .is_some_and(|length| length.parse::<usize>().unwrap() > 100)
    );
    for path in ["/", "/metrics", "/healthz", "/nowhere"] {
        let answer = pages.get(path);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert!(
            answer
                .header("content-security-policy")
                .is_some_and(|policy| policy.starts_with("default-src 'none'"))
        );
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
}

#[test]
fn with_a_token_only_whether_it_lives_is_told_to_everybody() {
    let pages = Pages::open(&with_token(), shop());
    for path in ["/", "/metrics", "/api/v1/status"] {
        let refused = pages.get(path);
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(
            refused.header("www-authenticate"),
            Some("bearer realm=\"ernstfall\"")
        );
        assert!(!refused.body.contains("shop"));
        for wrong in [
            "authorization: Bearer hunter2-of-the-monito".to_owned(),
            format!("authorization: Bearer {TOKEN}x"),
            "authorization: Bearer ".to_owned(),
            "authorization: B".to_owned(),
            format!("authorization: Basic {TOKEN}"),
            format!("x-token: {TOKEN}"),
        ] {
            assert_eq!(pages.get_with(path, &wrong).status, 401, "{path} {wrong}");
        }
        for right in ["Bearer", "bearer"] {
            let header = format!("authorization: {right} {TOKEN}");
            assert_eq!(pages.get_with(path, &header).status, 200, "{path}");
        }
    }
    for path in ["/healthz", "/readyz"] {
        let answer = pages.get(path);
        assert_eq!(answer.status, 200);
        assert!(!answer.body.contains("shop"));
    }
}

#[test]
fn an_empty_token_is_no_token() {
    let empty = Settings {
        token: Some(Secret::new(" \n")),
        ..plain()
    };
    assert!(refusal(&empty).contains("it is empty"));
}

#[test]
fn an_address_that_is_taken_is_an_error_and_not_a_line_in_a_log() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = Settings {
        listen: taken.local_addr().unwrap(),
        ..plain()
    };
    let message = refusal(&settings);
    assert!(
        message.contains(&settings.listen.to_string()) && message.contains("free the address"),
        "{message}"
    );
}

fn refusal(settings: &Settings) -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let error: Error = runtime
        .block_on(Server::bind(settings))
        .expect_err("it should not be served");
    error.to_string()
}

#[test]
fn certificates_that_are_of_no_use_are_refused_before_anything_is_served() {
    let (directory, settings) = certificates();
    let files = settings.tls.clone().unwrap();
    let with = |files: TlsFiles| {
        refusal(&Settings {
            tls: Some(files),
            ..plain()
        })
    };
    let missing = with(TlsFiles {
        certificate: directory.join("nowhere.crt"),
        ..files.clone()
    });
    assert!(
        missing.contains("nowhere.crt") && missing.contains("tls.cert"),
        "{missing}"
    );
    let no_key = with(TlsFiles {
        key: directory.join(CERTIFICATE),
        ..files.clone()
    });
    assert!(no_key.contains("unencrypted key"), "{no_key}");
    let empty = with(TlsFiles {
        certificate: directory.write("empty.crt", ""),
        ..files.clone()
    });
    assert!(empty.contains("empty.crt"), "{empty}");
    let strangers = with(TlsFiles {
        key: directory.join("ca.key"),
        ..files
    });
    assert!(strangers.contains("belong together"), "{strangers}");
}

/// Asks over TLS, trusting only this authority.
fn ask_over_tls(pages: &Pages, authority: &CertificateDer<'static>) -> io::Result<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, pages.connect());
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
    Answer::read(&mut stream)
}

#[test]
fn over_tls_a_new_certificate_is_used_after_a_reload_and_a_bad_one_never() {
    let (directory, settings) = certificates();
    let authority = |directory: &TestDir| CertificateDer::from_pem_file(directory.join(CA)).unwrap();
    let first = authority(&directory);
    let pages = Pages::open(&settings, shop());
    assert!(ask_over_tls(&pages, &first).unwrap().body.contains("shop"));
    let mut plain_client = pages.connect();
    plain_client
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain_client.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("shop"));

    directory.write(CERTIFICATE, "nonsense");
    assert!(pages.reloader().reload(&settings).is_err());
    ask_over_tls(&pages, &first).expect("the old certificate is in force");

    make_certificates(directory.path(), LOCAL_NAMES);
    pages.reloader().reload(&settings).unwrap();
    ask_over_tls(&pages, &authority(&directory)).expect("the new certificate is in force");
    assert!(ask_over_tls(&pages, &first).is_err());
}

#[test]
fn a_token_changes_with_a_reload() {
    let pages = Pages::open(&with_token(), shop());
    let other = Settings {
        token: Some(Secret::new("another")),
        ..plain()
    };
    pages.reloader().reload(&other).unwrap();
    let status = |token: &str| {
        pages
            .get_with("/metrics", &format!("authorization: Bearer {token}"))
            .status
    };
    assert_eq!((status(TOKEN), status("another")), (401, 200));
}

#[test]
fn clients_that_send_nothing_or_half_a_request_starve_nobody() {
    let pages = Pages::open(&plain(), shop());
    // More than there are places.
    let mut slow: Vec<_> = (0..200).map(|_| pages.connect()).collect();
    for stream in slow.iter_mut().step_by(2) {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost:").unwrap();
    }
    assert_eq!(pages.get("/healthz").status, 200);
    // They are sent away, and not by us.
    let mut rest = Vec::new();
    let _ = slow[0].read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains(" 200 "));
}

#[test]
fn a_head_that_never_ends_is_refused() {
    let pages = Pages::open(&plain(), shop());
    let mut stream = pages.connect();
    let line = format!("x-filler: {}\r\n", "x".repeat(1000));
    let sent = stream.write_all(format!("GET / HTTP/1.1\r\n{}", line.repeat(64)).as_bytes());
    let refused = sent.and_then(|()| Answer::read(&mut stream));
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status == 431));
    assert_eq!(pages.get("/healthz").status, 200);
}

#[test]
fn it_stops_when_it_is_told_to_although_clients_are_silent() {
    let mut pages = Pages::open(&plain(), shop());
    let mut silent = pages.connect();
    assert_eq!(pages.get("/healthz").status, 200);
    pages.stop();
    let mut nothing = Vec::new();
    let _ = silent.read_to_end(&mut nothing);
    assert!(nothing.is_empty());
    assert!(std::net::TcpStream::connect(pages.address()).is_err());
}
