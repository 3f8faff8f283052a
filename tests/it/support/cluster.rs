//! A private PostgreSQL server for one test.
//!
//! Each test has its own. Measured with PostgreSQL 15 on 2 cores: `initdb` takes 0.7 s, copying what it made once
//! 0.15 s, starting and answering 0.05 s, an immediate stop 0.01 s. Sharing one server among the processes of a
//! test run would save 0.2 s a test, and cost its isolation: settings, roles, locks and crashes are a test's own.

use std::fs::{self, File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::account::Account;
use super::database::Database;
use super::directory::{TestDir, base};
use super::process::{POLL, die_with_us, run_or_panic, send, wait_until};
use super::programs::Programs;
use super::tls::{self, Tls};

pub(crate) const SUPERUSER: &str = "postgres";
/// Of the superuser, over TCP. No character needs escaping in a URL.
pub(crate) const PASSWORD: &str = "correct-horse";

/// A machine with all cores busy starts a server well within this.
const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// Another process can take the free port between its choice and its use.
const PORT_ATTEMPTS: u32 = 5;
/// Where a new way of making templates would change what tests see, this number goes up.
const TEMPLATE_VERSION: u32 = 1;

/// Fast and small; a builder's settings come later and win. Commits stay synchronous: written, though not flushed,
/// they survive a crash of the server, as tests of crashes expect.
const SETTINGS: &str = "\
fsync = off
full_page_writes = off
shared_buffers = 16MB
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %u@%d %a '
";

/// What a cluster is started with.
#[derive(Default)]
pub(crate) struct Builder {
    programs: Option<Programs>,
    settings: Vec<(String, String)>,
    tls: Tls,
    system: System,
    /// Socket directory and port of the primary that it is to follow.
    primary: Option<(PathBuf, u16)>,
}

/// Which system identifier a server has: initdb chooses it, and copies of one cluster share it.
#[derive(Clone, Copy, Default)]
enum System {
    #[default]
    Usual,
    Other,
}

impl Builder {
    /// A line of postgresql.conf; the value is quoted here.
    pub(crate) fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another installation than the newest one.
    pub(crate) fn programs(mut self, programs: Programs) -> Self {
        self.programs = Some(programs);
        self
    }

    pub(crate) fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Another cluster than all usual ones, which are physical copies of one: it has another system identifier.
    pub(crate) fn other_system(mut self) -> Self {
        self.system = System::Other;
        self
    }

    pub(crate) fn start(self) -> Cluster {
        let programs = self.programs.clone().unwrap_or_else(Programs::newest);
        let directory = TestDir::new("cluster");
        match &self.primary {
            None => copy_template(&template(&programs, self.system), &directory.join("data")),
            Some((socket_directory, port)) => {
                base_backup(&programs, socket_directory, *port, &directory.join("data"));
            }
        }
        directory.write("data/pg_hba.conf", self.access_rules());
        directory.write("data/ernstfall-test.conf", self.configuration(directory.path()));
        if let Tls::Offered(names) | Tls::Required(names) = self.tls {
            tls::make_certificates(directory.path(), names);
        }
        let mut cluster = Cluster {
            programs,
            port: 0,
            server: None,
            databases: AtomicU32::new(0),
            directory,
        };
        for attempt in 1.. {
            cluster.port = free_port();
            match cluster.launch() {
                Ok(server) => {
                    cluster.server = Some(server);
                    break;
                }
                Err(log) if attempt < PORT_ATTEMPTS && log.contains("Address already in use") => (),
                Err(log) => panic!("the test server did not start:\n{log}"),
            }
        }
        cluster
    }

    fn access_rules(&self) -> String {
        let tcp = if matches!(self.tls, Tls::Required(_)) {
            "hostssl"
        } else {
            "host"
        };
        let mut rules = String::new();
        for database in ["all", "replication"] {
            rules += &format!("local {database} all trust\n");
            rules += &format!("{tcp} {database} all 127.0.0.1/32 scram-sha-256\n");
        }
        rules
    }

    fn configuration(&self, directory: &Path) -> String {
        let directory = directory.display();
        let mut lines = SETTINGS.to_owned();
        lines += &format!("listen_addresses = '127.0.0.1'\nunix_socket_directories = '{directory}'\n");
        if !matches!(self.tls, Tls::Off) {
            lines += &format!("ssl = on\nssl_ca_file = '{directory}/{}'\n", tls::CA);
            lines += &format!("ssl_cert_file = '{directory}/{}'\n", tls::CERTIFICATE);
            lines += &format!("ssl_key_file = '{directory}/{}'\n", tls::KEY);
        }
        for (name, value) in &self.settings {
            lines += &format!("{name} = '{}'\n", value.replace('\'', "''"));
        }
        lines
    }
}

/// A running server; stopped and removed on drop. It ends with the thread that started it, if nothing else ends it:
/// start it in the test's own thread.
pub(crate) struct Cluster {
    programs: Programs,
    port: u16,
    server: Option<Child>,
    databases: AtomicU32,
    directory: TestDir,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// A standby that follows this server: it has its databases, roles and passwords.
    pub(crate) fn standby(&self) -> Self {
        let builder = Builder {
            programs: Some(self.programs.clone()),
            primary: Some((self.socket_directory().to_owned(), self.port)),
            ..Builder::default()
        };
        builder.start()
    }

    /// A new, empty database. Its name is `name` with a number behind it.
    pub(crate) fn database(&self, name: &str) -> Database {
        let name = format!("{name}_{}", self.databases.fetch_add(1, Ordering::Relaxed) + 1);
        self.maintenance().execute(&format!("create database \"{name}\""));
        self.existing_database(&name)
    }

    /// A database that somebody else made, as for a look at what the product created.
    pub(crate) fn existing_database(&self, name: &str) -> Database {
        Database::new(name, self.port, self.directory.path(), &self.programs)
    }

    /// The database `postgres`, for what concerns the whole server.
    pub(crate) fn maintenance(&self) -> Database {
        self.existing_database("postgres")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Where the Unix socket is.
    pub(crate) fn socket_directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The certificate of the authority that signed the server's, when there is TLS.
    pub(crate) fn ca_file(&self) -> PathBuf {
        self.directory.join(tls::CA)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("server.log")).unwrap_or_default()
    }

    /// Ends the server at once, as a crash does.
    pub(crate) fn crash(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        // An immediate stop recovers like a crash, but gives its shared memory back: kill -9 would leak a System V
        // segment each time.
        send(&server, Signal::SIGQUIT);
        if wait_until(&mut server, Instant::now() + STOP_DEADLINE).is_none() {
            send(&server, Signal::SIGKILL);
            let _ = server.wait();
        }
    }

    /// Starts the server again, on the same port, after a crash.
    pub(crate) fn restart(&mut self) {
        self.crash();
        self.server = Some(
            self.launch()
                .unwrap_or_else(|log| panic!("the test server did not start again:\n{log}")),
        );
    }

    /// Starts the server and waits until it takes connections; the error is what it logged.
    fn launch(&self) -> Result<Child, String> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("server.log"))
            .unwrap();
        let data = self.data_directory();
        let mut command = Command::new(self.programs.path("postgres"));
        command.arg("-D").arg(&data).arg("-p").arg(self.port.to_string());
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir(self.directory.path());
        die_with_us(Account::unprivileged().run_as(&mut command), Signal::SIGQUIT);
        let _ = fs::remove_file(data.join("postmaster.pid"));
        let mut server = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let deadline = Instant::now() + START_DEADLINE;
        while !is_ready(&data) {
            if server.try_wait().unwrap().is_some() {
                return Err(self.log());
            }
            if Instant::now() > deadline {
                send(&server, Signal::SIGQUIT);
                let _ = wait_until(&mut server, Instant::now() + STOP_DEADLINE);
                return Err(format!("not ready after {START_DEADLINE:?}\n{}", self.log()));
            }
            thread::sleep(POLL);
        }
        Ok(server)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.crash();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "the test server's last words:\n{}",
                lines[lines.len().saturating_sub(40)..].join("\n")
            );
        }
    }
}

/// The server writes its state into the last line of postmaster.pid.
fn is_ready(data: &Path) -> bool {
    fs::read_to_string(data.join("postmaster.pid"))
        .is_ok_and(|text| text.lines().nth(7).map(str::trim) == Some("ready"))
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// What initdb makes, made once for each installation and kept for later runs.
fn template(programs: &Programs, system: System) -> PathBuf {
    let installed = fs::metadata(programs.path("initdb")).unwrap();
    let key = format!("{}-{}-{}", installed.ino(), installed.mtime(), TEMPLATE_VERSION);
    let kind = match system {
        System::Usual => "template",
        System::Other => "template-other",
    };
    let path = base().join(format!("{kind}-{}-{key}", programs.major));
    let guard = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(base().join("template.guard"))
        .unwrap();
    guard.lock().unwrap();
    if !path.exists() {
        let directory = TestDir::new("initdb");
        let password = directory.write("password", PASSWORD);
        let mut command = Command::new(programs.path("initdb"));
        command
            .arg("-D")
            .arg(directory.join("data"))
            .arg("--pwfile")
            .arg(password);
        command.args([
            "--username",
            SUPERUSER,
            "--encoding",
            "UTF8",
            "--locale",
            "C.UTF-8",
        ]);
        // Small log segments: 16 times less to copy.
        command.args(["--auth", "scram-sha-256", "--wal-segsize", "1", "--no-sync"]);
        command.current_dir(directory.path());
        run_or_panic(Account::unprivileged().run_as(&mut command));
        let configuration = directory.join("data/postgresql.conf");
        let text =
            fs::read_to_string(&configuration).unwrap() + "\ninclude_if_exists = 'ernstfall-test.conf'\n";
        fs::write(&configuration, text).unwrap();
        fs::rename(directory.join("data"), &path).unwrap();
    }
    path
}

fn base_backup(programs: &Programs, socket_directory: &Path, port: u16, data: &Path) {
    let mut command = Command::new(programs.path("pg_basebackup"));
    command.arg("--pgdata").arg(data);
    command.arg("--host").arg(socket_directory);
    command.args(["--port", &port.to_string(), "--username", SUPERUSER]);
    command.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]);
    command.current_dir("/");
    run_or_panic(Account::unprivileged().run_as(&mut command));
}

fn copy_template(template: &Path, data: &Path) {
    let mut command = Command::new("cp");
    command.arg("-a").arg(template).arg(data).current_dir("/");
    run_or_panic(Account::unprivileged().run_as(&mut command));
    fs::set_permissions(data, Permissions::from_mode(0o700)).unwrap();
}

#[cfg(test)]
mod tests {
    use super::super::directory::sweep;
    use super::super::ernstfall::script;
    use super::super::process::Captured;
    use super::super::tls::LOCAL_NAMES;
    use super::*;

    #[test]
    fn cluster_starts_answers_and_leaves_nothing() {
        let started = Instant::now();
        let cluster = Cluster::builder()
            .setting("max_locks_per_transaction", "33")
            .start();
        let database = cluster.database("shop");
        eprintln!("a cluster with a database took {:?}", started.elapsed());
        assert_eq!(database.query_one_text("show max_locks_per_transaction"), "33");
        assert_eq!(database.query_one_text("show fsync"), "off");
        assert_eq!(database.query_one_text("select current_database()"), "shop_1");
        assert_eq!(
            cluster
                .database("shop")
                .query_one_text("select current_database()"),
            "shop_2"
        );
        let directory = cluster.socket_directory().to_owned();
        let server = cluster.server.as_ref().unwrap().id();
        drop(cluster);
        assert!(!directory.exists());
        assert!(!Path::new(&format!("/proc/{server}")).exists());
    }

    #[test]
    fn crashed_cluster_comes_back_with_its_data() {
        let mut cluster = Cluster::start();
        let database = cluster.database("shop");
        database.execute("create table orders (id int); checkpoint; insert into orders values (1)");
        cluster.crash();
        assert!(database.try_session().is_err());
        cluster.restart();
        assert_eq!(
            database.query_one_text("select count(*) from pg_class where relname = 'orders'"),
            "1"
        );
    }

    #[test]
    fn cluster_with_required_tls_refuses_plain_connections() {
        let cluster = Cluster::builder().tls(Tls::Required(LOCAL_NAMES)).start();
        let psql = |url: &str| {
            let mut command = Command::new("psql");
            command.args([
                "-XAtc",
                "select ssl from pg_stat_ssl where pid = pg_backend_pid()",
                url,
            ]);
            command.output().unwrap()
        };
        let url = cluster.maintenance().url();
        let verified = psql(&format!(
            "{url}?sslmode=verify-full&sslrootcert={}",
            cluster.ca_file().display()
        ));
        assert_eq!(String::from_utf8_lossy(&verified.stdout), "t\n", "{verified:?}");
        assert!(!psql(&format!("{url}?sslmode=disable")).status.success());
    }

    /// Runs this very test in a process of its own, kills that, and looks for what is left.
    #[test]
    fn killed_test_process_takes_its_server_and_product_with_it() {
        if std::env::var_os("ERNSTFALL_TEST_HOLD").is_some() {
            let cluster = Cluster::start();
            let directory = TestDir::new("held");
            let pause = "echo up >&2; while :; do sleep 0.01; done";
            let mut product = script(&directory, pause).spawn(["run"]);
            product.wait_for_stderr("up", START_DEADLINE);
            eprintln!(
                "holding {} {} end",
                cluster.server.as_ref().unwrap().id(),
                product.pid()
            );
            loop {
                thread::park();
            }
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--nocapture", "killed_test_process_takes"])
            .env("ERNSTFALL_TEST_HOLD", "1");
        let mut holder = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = Captured::new(holder.stderr.take().unwrap());
        assert!(
            stderr.wait_for(" end\n", Instant::now() + START_DEADLINE),
            "{}",
            stderr.text()
        );
        let text = stderr.text();
        let held = text.split("holding ").nth(1).unwrap().split_whitespace().take(2);
        let held: Vec<_> = held.map(|pid| format!("/proc/{pid}/cmdline")).collect();
        // One that ended and that nobody has waited for, as in a container without an init, has no command line.
        let is_alive = |path: &String| fs::read(path).is_ok_and(|line| !line.is_empty());
        assert!(held.iter().all(is_alive), "{text}");
        holder.kill().unwrap();
        holder.wait().unwrap();
        let deadline = Instant::now() + STOP_DEADLINE;
        while held.iter().any(is_alive) {
            assert!(Instant::now() < deadline, "a killed test left {held:?}");
            thread::sleep(POLL);
        }
        sweep(base());
        let left = base().join(format!("cluster-{}-0", holder.id()));
        assert!(!left.exists(), "a sweep left {}", left.display());
    }

    #[test]
    #[should_panic(expected = "the test server did not start")]
    fn cluster_that_cannot_start_tells_what_the_server_logged() {
        Cluster::builder().setting("no_such_setting", "1").start();
    }
}
