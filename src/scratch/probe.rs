//! The parent's side of the probe: things that the sandbox must not reach, made for the purpose, and the
//! verdict on what was reached.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{OpenOptionsExt, lchown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::Serialize;
use tokio_postgres::Client;

use super::launch::helper_path;
use super::sandbox::spec::{Identity, MissingLayer};
use super::sandbox::{self, ProbeRequest};

/// What one attempt found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProbeResult {
    pub name: String,
    pub open: bool,
    pub detail: String,
}

/// How far the scratch is shut off, for the record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct IsolationReport {
    /// The layers in force.
    pub layers: Vec<String>,
    /// The layers that the system does not allow.
    pub missing: Vec<MissingLayer>,
    pub probe: Vec<ProbeResult>,
    /// Nothing was open.
    pub isolated: bool,
}

impl IsolationReport {
    /// The names of what was open.
    pub fn open(&self) -> Vec<String> {
        self.probe
            .iter()
            .filter(|result| result.open)
            .map(|result| match result.detail.is_empty() {
                true => result.name.clone(),
                false => format!("{} ({})", result.name, result.detail),
            })
            .collect()
    }
}

/// The things that the probe tries to reach. Dropping it takes them away.
pub(super) struct Canaries {
    tcp: Vec<TcpListener>,
    udp: Option<UdpSocket>,
    unix: UnixListener,
    abstract_unix: UnixListener,
    process: Child,
    directory: PathBuf,
    request: ProbeRequest,
}

impl Canaries {
    /// Makes them in a directory outside of what the server may see, all with the rights of the server's user.
    pub(super) fn make(
        directory: &Path,
        identity: Option<&Identity>,
        own_binary: Option<&Path>,
    ) -> io::Result<Self> {
        let secret = random_name()?;
        let path = |name: &str| directory.join(name);
        // The directory is the server user's, and this process may be root: no link is followed.
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path("secret"))?;
        file.write_all(secret.as_bytes())?;
        let unix = UnixListener::bind(path("s"))?;
        if let Some(identity) = identity {
            for name in ["secret", "s"] {
                lchown(path(name), Some(identity.uid), Some(identity.gid))?;
            }
        }
        let abstract_name = format!("ernstfall-{secret}");
        let abstract_unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name)?)?;
        unix.set_nonblocking(true)?;
        abstract_unix.set_nonblocking(true)?;
        // A machine may lack either family.
        let ipv4 = TcpListener::bind("127.0.0.1:0").ok();
        let ipv6 = TcpListener::bind("[::1]:0").ok();
        let udp = UdpSocket::bind("127.0.0.1:0").ok();
        let address = |listener: &Option<TcpListener>| listener.as_ref()?.local_addr().ok();
        let process = start_process(identity, own_binary, &secret)?;
        let request = ProbeRequest {
            tcp_ipv4: address(&ipv4),
            tcp_ipv6: address(&ipv6),
            udp: udp.as_ref().and_then(|socket| socket.local_addr().ok()),
            unix_socket: path("s"),
            abstract_socket: abstract_name,
            secret_file: path("secret"),
            secret,
            writable_file: path("written"),
            process: process.id() as i32,
        };
        let tcp: Vec<TcpListener> = [ipv4, ipv6].into_iter().flatten().collect();
        tcp.iter()
            .try_for_each(|listener| listener.set_nonblocking(true))?;
        udp.iter().try_for_each(|socket| socket.set_nonblocking(true))?;
        Ok(Self {
            tcp,
            udp,
            unix,
            abstract_unix,
            process,
            directory: directory.to_path_buf(),
            request,
        })
    }

    /// Runs the probe inside the server and judges it together with what was seen from outside.
    pub(super) async fn probe(mut self, client: &Client, probe: &Path) -> Vec<ProbeResult> {
        let mut results = match self.run(client, probe).await {
            Ok(results) => results,
            // What could not be tried is not proven shut.
            Err(error) => vec![result(
                "probe",
                true,
                format!("it could not be run: {}", explain(&error)),
            )],
        };
        results.push(self.server_reads_file(client).await);
        results.push(self.server_lists_directory(client).await);
        self.add_what_was_seen(&mut results);
        results
    }

    async fn run(&self, client: &Client, probe: &Path) -> Result<Vec<ProbeResult>, tokio_postgres::Error> {
        let argument = sandbox::encode(&self.request).unwrap_or_default();
        let shell = format!("'{}' {} {argument}", probe.display(), sandbox::PROBE);
        let table = "create temporary table ernstfall_probe (line text)";
        client.batch_execute(table).await?;
        // Quotes and delimiters that no line holds: each line is one value.
        let copy = format!(
            "copy ernstfall_probe from program '{}' with (format csv, delimiter e'\\x02', quote e'\\x01')",
            shell.replace('\'', "''")
        );
        client.batch_execute(&copy).await?;
        let rows = client.query("select line from ernstfall_probe", &[]).await?;
        client.batch_execute("drop table ernstfall_probe").await?;
        let lines = rows.iter().map(|row| row.get::<_, String>(0));
        Ok(lines.filter_map(|line| read_line(&line)).collect())
    }

    async fn server_reads_file(&self, client: &Client) -> ProbeResult {
        let path = self.request.secret_file.display().to_string();
        match client.query_one("select pg_read_file($1)", &[&path]).await {
            Ok(row) => result(
                "server_file_read",
                row.get::<_, String>(0) == self.request.secret,
                String::new(),
            ),
            Err(error) => result("server_file_read", false, explain(&error)),
        }
    }

    async fn server_lists_directory(&self, client: &Client) -> ProbeResult {
        let path = self.directory.display().to_string();
        match client.query("select pg_ls_dir($1)", &[&path]).await {
            Ok(rows) => result("server_directory_list", !rows.is_empty(), String::new()),
            Err(error) => result("server_directory_list", false, explain(&error)),
        }
    }

    /// The observer outside has the last word: a connection that arrived was possible, whatever the probe says.
    fn add_what_was_seen(&mut self, results: &mut Vec<ProbeResult>) {
        for listener in &self.tcp {
            let name = match listener.local_addr() {
                Ok(address) if address.is_ipv6() => "tcp_ipv6",
                _ => "tcp_ipv4",
            };
            seen(results, name, listener.accept().is_ok());
        }
        seen(results, "unix_socket", self.unix.accept().is_ok());
        seen(results, "abstract_socket", self.abstract_unix.accept().is_ok());
        seen(results, "file_write", self.request.writable_file.exists());
        let datagram = self
            .udp
            .as_ref()
            .is_some_and(|socket| socket.recv(&mut [0; 16]).is_ok());
        // These two can succeed inside without getting out: there is another loopback interface in there, and
        // another process with the same number.
        decided_outside(results, "udp", datagram);
        let signalled = self.process_was_signalled();
        decided_outside(results, "signal", signalled);
    }

    fn process_was_signalled(&mut self) -> bool {
        drop(self.process.stdin.take());
        let mut said = String::new();
        if let Some(stdout) = &mut self.process.stdout {
            stdout.read_to_string(&mut said).ok();
        }
        said.contains("signal")
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        for path in [
            &self.request.unix_socket,
            &self.request.secret_file,
            &self.request.writable_file,
        ] {
            fs::remove_file(path).ok();
        }
    }
}

/// A process like the daemon, of the server's user and with a secret in its environment.
fn start_process(identity: Option<&Identity>, own_binary: Option<&Path>, secret: &str) -> io::Result<Child> {
    let mut command = Command::new(helper_path(own_binary));
    command.arg(sandbox::CANARY).env_clear().env("SECRET", secret);
    if let Some(identity) = identity {
        command.args([identity.uid.to_string(), identity.gid.to_string()]);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = &mut child.stdout {
        // One line only, so nothing that follows is lost in the buffer.
        BufReader::with_capacity(16, stdout).read_line(&mut line)?;
    }
    match line.trim() {
        "ready" => Ok(child),
        _ => {
            child.kill().ok();
            child.wait().ok();
            Err(io::Error::other("the process for the probe did not start"))
        }
    }
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn read_line(line: &str) -> Option<ProbeResult> {
    let mut fields = line.split(sandbox::SEPARATOR);
    let (name, state) = (fields.next()?, fields.next()?);
    Some(result(
        name,
        state != "closed",
        fields.next().unwrap_or_default().to_owned(),
    ))
}

fn result(name: &str, open: bool, detail: String) -> ProbeResult {
    ProbeResult {
        name: name.to_owned(),
        open,
        detail,
    }
}

fn seen(results: &mut Vec<ProbeResult>, name: &str, arrived: bool) {
    if arrived {
        decided_outside(results, name, true);
    }
}

fn decided_outside(results: &mut Vec<ProbeResult>, name: &str, open: bool) {
    let detail = if open { "seen from outside" } else { "" };
    match results.iter_mut().find(|result| result.name == name) {
        Some(result) if result.open != open => {
            result.open = open;
            result.detail = detail.to_owned();
        }
        Some(_) => {}
        None => results.push(result(name, open, detail.to_owned())),
    }
}

fn explain(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(
        || error.to_string(),
        |error| {
            let detail = error
                .detail()
                .map(|detail| format!(" ({detail})"))
                .unwrap_or_default();
            format!("{}{detail}", error.message())
        },
    )
}
