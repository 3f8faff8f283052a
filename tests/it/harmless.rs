//! The copy harms nobody: whatever code of the source does in it, even as a superuser, reaches nothing outside.
//!
//! Each attempt is first made in the source, which has no sandbox and runs as the same user, and must succeed there:
//! an attempt that cannot succeed proves nothing.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command};

use nix::sys::signal::Signal;

use crate::shop::{Shop, is_alive, process};
use crate::support::account::Account;
use crate::support::cluster::Cluster;
use crate::support::database::Session;
use crate::support::process::die_with_us;
use crate::support::skip::require;

/// What to try, and how to say it in SQL. It succeeds when the statement ends without an error.
struct Attempt {
    what: String,
    sql: String,
}

/// A program that the server starts as a shell command.
fn program(what: &str, command: &str) -> Attempt {
    let command = command.replace('\'', "''");
    Attempt {
        what: format!("{what} by a program"),
        sql: format!("create temp table if not exists out (line text); copy out from program '{command}'"),
    }
}

/// A block of Python inside the server's own process.
fn python(what: &str, code: &str) -> Attempt {
    Attempt {
        what: format!("{what} in Python"),
        sql: format!("do language plpython3u $python$\n{code}\n$python$"),
    }
}

/// A block of Perl inside the server's own process.
fn perl(what: &str, code: &str) -> Attempt {
    Attempt {
        what: format!("{what} in Perl"),
        sql: format!("do language plperlu $perl$ {code} $perl$"),
    }
}

fn sql(what: &str, sql: String) -> Attempt {
    Attempt {
        what: format!("{what} in SQL"),
        sql,
    }
}

/// Attempts one by one, each on its own: a failed one must not hide the next.
fn outcomes(session: &Session, attempts: &[Attempt]) -> Vec<(String, Result<(), String>)> {
    let tried = |attempt: &Attempt| {
        let result = session.try_execute(&attempt.sql);
        let told = result.map_err(|error| {
            std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string)
        });
        (attempt.what.clone(), told)
    };
    attempts.iter().map(tried).collect()
}

/// All succeed in the source.
#[track_caller]
fn all_succeed(session: &Session, attempts: &[Attempt]) {
    for (what, outcome) in outcomes(session, attempts) {
        assert_eq!(
            outcome,
            Ok(()),
            "{what}: it fails in the source too, and so proves nothing"
        );
    }
}

/// All fail in the copy.
#[track_caller]
fn all_fail(session: &Session, attempts: &[Attempt]) {
    let got_through: Vec<String> = outcomes(session, attempts)
        .into_iter()
        .filter_map(|(what, outcome)| outcome.is_ok().then_some(what))
        .collect();
    assert!(got_through.is_empty(), "these got through: {got_through:#?}");
}

/// A shop whose databases can run programs of every language.
fn shop_with_languages() -> Shop {
    let shop = Shop::open();
    shop.database
        .execute("create extension plpython3u; create extension plperlu; create extension dblink");
    shop
}

macro_rules! require_languages {
    () => {
        let cluster = Cluster::start();
        let sql =
            "select count(*) from pg_available_extensions where name in ('plperlu', 'plpython3u', 'dblink')";
        require!(
            cluster.maintenance().query_one_text(sql) == "3",
            "plperlu, plpython3u or dblink is not installed: run `make test`"
        );
        drop(cluster);
    };
}

/// An address of this machine that is not the loopback's, if it has one.
fn own_address() -> Option<Ipv4Addr> {
    // Connecting by UDP sends nothing: it only chooses the way out. The address is reserved for documents.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address) if !address.ip().is_loopback() => Some(*address.ip()),
        _ => None,
    }
}

fn connections(listener: &TcpListener) -> usize {
    listener.set_nonblocking(true).unwrap();
    listener.incoming().take_while(Result::is_ok).count()
}

fn tcp_attempts(address: SocketAddr) -> Vec<Attempt> {
    let (ip, port) = (address.ip(), address.port());
    vec![
        program(
            &format!("TCP to {ip}"),
            &format!("bash -c 'echo >/dev/tcp/{ip}/{port}'"),
        ),
        python(
            &format!("TCP to {ip}"),
            &format!("import socket\nsocket.create_connection(('{ip}', {port}), 5).close()"),
        ),
        perl(
            &format!("TCP to {ip}"),
            &format!(
                "use IO::Socket::INET; IO::Socket::INET->new(PeerAddr => '{ip}', PeerPort => {port}, Timeout => 5) or die 'refused';"
            ),
        ),
    ]
}

#[test]
fn the_copy_reaches_no_listener_of_the_network() {
    require_languages!();
    let shop = shop_with_languages();
    shop.backup();
    let mut listeners = vec![TcpListener::bind("127.0.0.1:0").unwrap()];
    if let Some(address) = own_address() {
        listeners.push(TcpListener::bind((address, 0)).unwrap());
    }
    require!(
        listeners.len() == 2,
        "this machine has no address but the loopback's"
    );
    let mut attempts: Vec<Attempt> = listeners
        .iter()
        .flat_map(|listener| tcp_attempts(listener.local_addr().unwrap()))
        .collect();
    let url = format!("{} connect_timeout=5", dsn(&shop.database.url()));
    attempts.push(sql(
        "the source's port",
        format!("select * from public.dblink('{url}', 'select 1') as t(a int)"),
    ));
    all_succeed(&shop.database.session(), &attempts);
    for listener in &listeners {
        assert_eq!(connections(listener), 3, "the attempts are seen here");
    }
    let running = shop.paused_before_comparison();
    all_fail(&shop.copy().session(), &attempts);
    for listener in &listeners {
        assert_eq!(connections(listener), 0, "somebody reached the listener");
    }
    running.resume();
    running.wait().expect_code(0);
}

/// `postgresql://user:password@host:port/name` as keywords, which need no quoting in SQL.
fn dsn(url: &str) -> String {
    let rest = url.trim_start_matches("postgresql://");
    let (user, rest) = rest.split_once(':').unwrap();
    let (password, rest) = rest.split_once('@').unwrap();
    let (host, rest) = rest.split_once(':').unwrap();
    let (port, name) = rest.split_once('/').unwrap();
    format!("user={user} password={password} host={host} port={port} dbname={name}")
}

fn unix_attempts(what: &str, python_address: &str) -> Vec<Attempt> {
    let code = format!(
        "import socket\nwith socket.socket(socket.AF_UNIX) as s:\n    s.settimeout(5)\n    s.connect({python_address})"
    );
    vec![
        program(what, &format!("python3 -c \"{}\"", one_line(python_address))),
        python(what, &code),
    ]
}

fn one_line(python_address: &str) -> String {
    format!(
        "import socket; socket.socket(socket.AF_UNIX).connect({})",
        python_address.replace('"', "\\\"")
    )
}

#[test]
fn the_copy_reaches_no_unix_socket() {
    require_languages!();
    let shop = shop_with_languages();
    shop.backup();
    let path = shop.directory.join("listening");
    let by_path = UnixListener::bind(&path).unwrap();
    Account::unprivileged().own(&path);
    let name = format!("ernstfall-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let by_name = UnixListener::bind_addr(&address).unwrap();
    let mut attempts = unix_attempts("a Unix socket", &format!("'{}'", path.display()));
    attempts.extend(unix_attempts("an abstract Unix socket", &format!("'\\0{name}'")));
    let directory = shop.cluster.socket_directory().display().to_string();
    let port = shop.cluster.port();
    attempts.extend(unix_attempts(
        "the source's socket",
        &format!("'{directory}/.s.PGSQL.{port}'"),
    ));
    attempts.push(sql(
        "the source's socket",
        format!("select * from public.dblink('host={directory} port={port} user=postgres dbname=postgres', 'select 1') as t(a int)"),
    ));
    attempts.push(program(
        "the source's socket",
        &format!("psql -XAt -h {directory} -p {port} -U postgres -d postgres -c 'select 1'"),
    ));
    all_succeed(&shop.database.session(), &attempts);
    let reached = |listener: &UnixListener| {
        listener.set_nonblocking(true).unwrap();
        listener.incoming().take_while(Result::is_ok).count()
    };
    assert_eq!(
        (reached(&by_path), reached(&by_name)),
        (2, 2),
        "the attempts are seen here"
    );
    let running = shop.paused_before_comparison();
    all_fail(&shop.copy().session(), &attempts);
    assert_eq!(
        (reached(&by_path), reached(&by_name)),
        (0, 0),
        "somebody reached a listener"
    );
    running.resume();
    running.wait().expect_code(0);
}

fn reading_attempts(path: &Path) -> Vec<Attempt> {
    let path = path.display();
    vec![
        program(&format!("read {path}"), &format!("head -c 1 {path} >/dev/null")),
        // Binary files are no text, so only the first byte is looked at.
        python(
            &format!("read {path}"),
            &format!("open('{path}', 'rb').read(1)[0]"),
        ),
        perl(
            &format!("read {path}"),
            &format!("open(my $f, '<', '{path}') or die; read($f, my $byte, 1) or die 'empty';"),
        ),
        sql(
            &format!("read {path}"),
            format!("select pg_read_binary_file('{path}')"),
        ),
        sql(
            &format!("import {path}"),
            format!("select lo_unlink(lo_import('{path}'))"),
        ),
    ]
}

#[test]
fn the_copy_reads_and_writes_no_file_of_its_maker() {
    require_languages!();
    let shop = shop_with_languages();
    let id = shop.backup();
    let identity = shop.directory.write("age.key", "AGE-SECRET-KEY-1TEST");
    let running = shop.paused_before_comparison();
    let manifest = shop.manifest_file(&id);
    let records = files_below(&shop.directory.join("repository/records"));
    let mut readable = vec![
        shop.ernstfall().configuration_file(),
        identity,
        manifest,
        shop.object_file(&shop.manifest(&id)["contents"]),
        records.first().expect("a record in the repository").clone(),
    ];
    let journal = shop.directory.join("state");
    readable.extend(
        files_below(&journal)
            .into_iter()
            .filter(|path| {
                !path.starts_with(journal.join("scratch"))
                    && fs::metadata(path).is_ok_and(|file| file.len() > 0)
            })
            .take(2),
    );
    let mut attempts: Vec<Attempt> = readable.iter().flat_map(|path| reading_attempts(path)).collect();
    let environment = format!("/proc/{}/environ", running.pid());
    attempts.push(program(
        "the product's environment",
        &format!("grep -qz ^ERNSTFALL_PAUSE_AT= {environment}"),
    ));
    attempts.push(python(
        "the product's environment",
        &format!("assert b'ERNSTFALL_PAUSE_AT=' in open('{environment}', 'rb').read()"),
    ));
    let repository = shop.directory.join("repository").display().to_string();
    attempts.push(program("list the repository", &format!("ls {repository}")));
    attempts.push(sql(
        "list the repository",
        format!("select pg_ls_dir('{repository}')"),
    ));
    attempts.push(program(
        "write beside the repository",
        &format!("sh -c 'cd {repository} && echo > written'"),
    ));
    attempts.push(python(
        "write beside the repository",
        &format!("import os\nos.chdir('{repository}')\nopen('written', 'w').write('x')"),
    ));
    all_succeed(&shop.database.session(), &attempts);
    let written = shop.directory.join("repository/written");
    fs::remove_file(&written).expect("the source wrote it");
    all_fail(&shop.copy().session(), &attempts);
    assert!(!written.exists());
    running.resume();
    running.wait().expect_code(0);
}

fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files_below(&path)),
            path => found.push(path),
        }
    }
    found.sort();
    found
}

/// A process of the unprivileged account, as the product is.
fn victim() -> Child {
    let mut command = Command::new("sleep");
    command.arg("600");
    die_with_us(Account::unprivileged().run_as(&mut command), Signal::SIGKILL);
    command.spawn().unwrap()
}

#[test]
fn the_copy_signals_no_process_of_its_maker() {
    require_languages!();
    let shop = shop_with_languages();
    shop.backup();
    let running = shop.paused_before_comparison();
    let looking = |pid: u32| {
        vec![
            program("look for the process", &format!("kill -0 {pid}")),
            python("look for the process", &format!("import os\nos.kill({pid}, 0)")),
            perl("look for the process", &format!("kill(0, {pid}) or die;")),
        ]
    };
    let killing = |pid: u32| program("kill the process", &format!("kill -KILL {pid}"));
    let mut other = victim();
    let source = shop.database.session();
    all_succeed(&source, &looking(running.pid()));
    all_succeed(&source, &looking(other.id()));
    all_succeed(&source, &[killing(other.id())]);
    other.wait().unwrap();
    let mut other = victim();
    let copy = shop.copy().session();
    let (product, bystander) = (process(running.pid()), process(other.id()));
    for pid in [running.pid(), other.id()] {
        all_fail(&copy, &looking(pid));
        all_fail(&copy, &[killing(pid)]);
    }
    // As many as it likes, by number: those inside are its own, and it may end them.
    let _ = copy.try_execute(&program("kill all", "kill -CONT -1").sql);
    assert!(is_alive(&product) && is_alive(&bystander));
    other.kill().unwrap();
    other.wait().unwrap();
    running.resume();
    running.wait().expect_code(0);
}
