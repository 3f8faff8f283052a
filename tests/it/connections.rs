//! Every way libpq has to say where a server is, through the product and the pg_dump it starts.

use std::fs::{self, Permissions};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::backup_faults::programs_with_pg_dump;
use super::support::account::Account;
use super::support::cluster::{Cluster, PASSWORD, SUPERUSER};
use super::support::database::Database;
use super::support::directory::TestDir;
use super::support::ernstfall::{Ernstfall, Output};
use super::support::evidence::{expect_nothing_stored, wait_for};
use super::support::process::die_with_us;
use super::support::skip::require;
use super::support::tls::{CA, LOCAL_NAMES, Tls, make_certificates};

fn product(directory: &TestDir, url: &str) -> Ernstfall {
    Ernstfall::new(directory).target("shop", url)
}

/// Refused with all these words, and nothing is stored.
fn expect_refusal(directory: &TestDir, url: &str, words: &[&str]) {
    let ernstfall = product(directory, url);
    let output = ernstfall.run(["backup"]).expect_code(1);
    expect_words(&output, words);
    expect_nothing_stored(&ernstfall, "shop");
}

fn expect_words(output: &Output, words: &[&str]) {
    for word in words {
        assert!(
            output.stderr.contains(word),
            "{word:?} is not in: {}",
            output.stderr
        );
    }
    assert!(!output.stderr.contains(PASSWORD), "{}", output.stderr);
}

fn shop(cluster: &Cluster) -> Database {
    let database = cluster.database("shop");
    database.execute("create table orders as select 1 as id");
    database
}

#[test]
fn url_keywords_and_socket_lead_to_the_server() {
    let cluster = Cluster::start();
    let source = shop(&cluster);
    let (name, port) = (source.name(), cluster.port());
    for url in [
        source.url(),
        source.socket_url(),
        format!("host=127.0.0.1 port={port} dbname={name} user={SUPERUSER} password='{PASSWORD}'"),
        format!(
            "postgres://{SUPERUSER}:{PASSWORD}@127.0.0.1:{port}/{name}?connect_timeout=5&application_name=x"
        ),
        // The first host does not answer, the second does.
        format!("postgresql://{SUPERUSER}:{PASSWORD}@127.0.0.1:1,127.0.0.1:{port}/{name}"),
    ] {
        let directory = TestDir::new("connections");
        product(&directory, &url).run(["backup"]).expect_code(0);
    }
}

#[test]
fn variables_of_the_environment_fill_what_the_url_leaves_open() {
    let cluster = Cluster::start();
    let source = shop(&cluster);
    let directory = TestDir::new("connections");
    product(&directory, "postgresql://")
        .environment("PGHOST", "127.0.0.1")
        .environment("PGPORT", cluster.port().to_string())
        .environment("PGUSER", SUPERUSER)
        .environment("PGDATABASE", source.name())
        .environment("PGPASSWORD", PASSWORD)
        .run(["backup"])
        .expect_code(0);
}

#[test]
fn password_file_is_used_only_when_nobody_else_can_read_it() {
    let cluster = Cluster::start();
    let source = shop(&cluster);
    let url = format!(
        "postgresql://{SUPERUSER}@127.0.0.1:{}/{}",
        cluster.port(),
        source.name()
    );
    let directory = TestDir::new("connections");
    let path = directory.write(".pgpass", format!("127.0.0.1:*:*:{SUPERUSER}:{PASSWORD}\n"));
    product(&directory, &url).run(["backup"]).expect_code(0);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let open = TestDir::new("connections");
    let path = open.write(".pgpass", format!("127.0.0.1:*:*:{SUPERUSER}:{PASSWORD}\n"));
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    expect_refusal(&open, &url, &[".pgpass", "0600"]);
    let none = TestDir::new("connections");
    expect_refusal(&none, &url, &["no password is given", "~/.pgpass"]);
}

#[test]
fn service_file_names_the_server() {
    let cluster = Cluster::start();
    let source = shop(&cluster);
    let directory = TestDir::new("connections");
    let (name, port) = (source.name(), cluster.port());
    let text = format!(
        "[shop]\nhost=127.0.0.1\nport={port}\ndbname={name}\nuser={SUPERUSER}\npassword={PASSWORD}\n"
    );
    let file = directory.write("services.conf", text);
    product(&directory, "service=shop")
        .environment("PGSERVICEFILE", file)
        .run(["backup"])
        .expect_code(0);
}

/// Nobody listens on the first host, the second is a standby, the third its primary. pg_dump finds its server by itself, and
/// could not use the backup's snapshot on another one.
#[test]
fn of_several_hosts_in_a_service_file_all_programs_take_the_one_that_is_asked_for() {
    let primary = Cluster::start();
    let standby = primary.standby();
    let source = shop(&primary);
    let copy = standby.existing_database(source.name());
    wait_for("the standby has the table", || {
        let orders = copy
            .try_session()
            .and_then(|session| session.try_execute("select * from orders"));
        orders.is_ok()
    });
    for (attributes, basis) in [("read-write", "snapshot"), ("prefer-standby", "replay")] {
        let directory = TestDir::new("connections");
        let text = format!(
            "[shop]\nhost=127.0.0.1,127.0.0.1,127.0.0.1\nport=1,{},{}\ndbname={}\nuser={SUPERUSER}\n\
             password={PASSWORD}\ntarget_session_attrs={attributes}\n",
            standby.port(),
            primary.port(),
            source.name()
        );
        directory.write(".pg_service.conf", text);
        let ernstfall = product(&directory, "postgresql://").environment("PGSERVICE", "shop");
        let record = ernstfall.run(["backup", "shop", "--json"]).expect_code(0).json();
        assert_eq!(record["recovery_point"]["basis"], basis, "{attributes}");
        ernstfall.run(["restore-test"]).expect_code(0);
    }
}

fn with(url: &str, parameters: &str) -> String {
    format!("{url}?{parameters}")
}

#[test]
fn server_with_the_right_certificate_is_trusted_and_others_are_not() {
    let cluster = Cluster::builder().tls(Tls::Required(LOCAL_NAMES)).start();
    let source = shop(&cluster);
    let ca = cluster.ca_file();
    let ca = ca.display();
    for mode in ["verify-full", "verify-ca", "require", "prefer"] {
        let directory = TestDir::new("connections");
        let url = with(&source.url(), &format!("sslmode={mode}&sslrootcert={ca}"));
        product(&directory, &url).run(["backup"]).expect_code(0);
    }
    let directory = TestDir::new("connections");
    make_certificates(directory.path(), LOCAL_NAMES);
    let stranger = directory.join(CA);
    let stranger = stranger.display();
    for mode in ["verify-full", "verify-ca"] {
        let url = with(&source.url(), &format!("sslmode={mode}&sslrootcert={stranger}"));
        expect_refusal(&directory, &url, &["not trusted", "sslrootcert"]);
    }
    let missing = directory.join("missing.crt");
    let url = with(
        &source.url(),
        &format!("sslmode=verify-full&sslrootcert={}", missing.display()),
    );
    expect_refusal(&directory, &url, &["missing.crt"]);
    expect_refusal(
        &directory,
        &with(&source.url(), "sslmode=disable"),
        &["pg_hba.conf", "TLS"],
    );
}

#[test]
fn certificate_of_another_name_is_refused_only_by_verify_full() {
    let cluster = Cluster::builder()
        .tls(Tls::Required("DNS:elsewhere.example"))
        .start();
    let source = shop(&cluster);
    let ca = cluster.ca_file();
    let ca = ca.display();
    let directory = TestDir::new("connections");
    let full = with(&source.url(), &format!("sslmode=verify-full&sslrootcert={ca}"));
    expect_refusal(&directory, &full, &["subjectAltName"]);
    let authority = with(&source.url(), &format!("sslmode=verify-ca&sslrootcert={ca}"));
    product(&directory, &authority).run(["backup"]).expect_code(0);
}

#[test]
fn server_without_tls_is_refused_where_tls_is_required() {
    let cluster = Cluster::start();
    let source = shop(&cluster);
    let directory = TestDir::new("connections");
    expect_refusal(
        &directory,
        &with(&source.url(), "sslmode=require"),
        &["ssl = on", "require"],
    );
}

#[test]
fn pg_dump_gets_the_password_by_a_file_that_is_gone_afterwards() {
    let cluster = Cluster::start();
    let source = shop(&cluster);
    let directory = TestDir::new("connections");
    let lines = "{ echo \"$0 $*\"; env; } > $HOME/seen\nstat -c %a \"$PGPASSFILE\" > $HOME/mode\n\
                 cat \"$PGPASSFILE\" > $HOME/passwords\nexec $real \"$@\"";
    let bin = programs_with_pg_dump(&directory, &cluster, lines);
    let url = format!(
        "postgresql://{SUPERUSER}@127.0.0.1:{}/{}",
        cluster.port(),
        source.name()
    );
    product(&directory, &url)
        .key("bin_dir", &format!("{:?}", bin.display().to_string()))
        .environment("PGPASSWORD", PASSWORD)
        .environment("PGOPTIONS", "-c work_mem=5MB")
        .run(["backup"])
        .expect_code(0);
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    let seen = read("seen");
    assert!(!seen.contains(PASSWORD), "{seen}");
    assert_eq!(read("mode").trim(), "600");
    assert!(
        read("passwords").contains(PASSWORD),
        "the test looked at the wrong file"
    );
    let passfile = seen
        .lines()
        .find_map(|line| line.strip_prefix("PGPASSFILE="))
        .unwrap();
    assert!(!Path::new(passfile).exists(), "{passfile}");
}

pub(crate) const PGBOUNCER: &str = "/usr/sbin/pgbouncer";

/// A pooler in front of a server; killed on drop.
pub(crate) struct Pooler {
    process: Child,
    pub(crate) port: u16,
    _directory: TestDir,
}

impl Pooler {
    pub(crate) fn before(cluster: &Cluster, mode: &str) -> Self {
        let directory = TestDir::new("pooler");
        let port = TcpListener::bind(("127.0.0.1", 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let users = directory.write("users.txt", format!("\"{SUPERUSER}\" \"{PASSWORD}\"\n"));
        let text = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\n",
            cluster.socket_directory().display(),
            cluster.port(),
            users.display(),
        );
        let configuration = directory.write("pgbouncer.ini", text);
        let mut command = Command::new(PGBOUNCER);
        command.arg("-q").arg(configuration).current_dir(directory.path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        die_with_us(Account::unprivileged().run_as(&mut command), Signal::SIGKILL);
        let process = command.spawn().unwrap();
        wait_for("pgbouncer listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Self {
            process,
            port,
            _directory: directory,
        }
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn pooler_in_transaction_mode_is_refused_with_advice_and_in_session_mode_it_works() {
    require!(Path::new(PGBOUNCER).is_file(), "pgbouncer is not installed");
    let cluster = Cluster::start();
    let source = shop(&cluster);
    for mode in ["transaction", "statement"] {
        let pooler = Pooler::before(&cluster, mode);
        let directory = TestDir::new("connections");
        let url = source.url_at(pooler.port, SUPERUSER, PASSWORD);
        expect_refusal(&directory, &url, &["transaction-mode pooler", "session mode"]);
    }
    let pooler = Pooler::before(&cluster, "session");
    let directory = TestDir::new("connections");
    let url = source.url_at(pooler.port, SUPERUSER, PASSWORD);
    product(&directory, &url).run(["backup"]).expect_code(0);
}

#[test]
fn a_server_that_never_answers_is_given_up_after_the_targets_own_limit() {
    // Connections wait in its queue, and nobody takes them.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let directory = TestDir::new("connections");
    let ernstfall = product(&directory, &format!("postgresql://nobody@127.0.0.1:{port}/shop"))
        .target_key("timeouts", "{ connect = \"2s\" }")
        // Far less than the usual 30 s, and far more than 2 s.
        .deadline(Duration::from_secs(20));
    let output = ernstfall.run(["backup"]).expect_code(1);
    expect_words(&output, &["connecting took too long"]);
}
