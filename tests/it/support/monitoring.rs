//! Prometheus and Alertmanager as plain processes, and somebody whom alerts reach.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::account::Account;
use super::directory::TestDir;
use super::pages::Answer;
use super::process::{die_with_us, kill_group};

const PATIENCE: Duration = Duration::from_secs(60);

/// The program, where it is installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// An address on which nobody listens now.
pub(crate) fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// What a server says; nothing while it does not answer.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    // Of HTTP 1.0, so that the answer comes in one piece.
    let request = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    Answer::read(&mut stream).ok()
}

/// A server that ends with the test.
pub(crate) struct Server(Child);

impl Server {
    pub(crate) fn start(program: &str, directory: &TestDir, arguments: &[String]) -> Self {
        let file = find(program).unwrap_or_else(|| panic!("{program} is not installed"));
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let mut command = Command::new(file);
        command
            .args(arguments)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Account::unprivileged().run_as(&mut command);
        die_with_us(&mut command, Signal::SIGKILL);
        Self(
            command
                .spawn()
                .unwrap_or_else(|error| panic!("start {program}: {error}")),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        kill_group(&mut self.0);
    }
}

/// It gets metrics and judges rules every second.
pub(crate) struct Prometheus {
    _server: Server,
    pub(crate) address: SocketAddr,
    _directory: TestDir,
}

impl Prometheus {
    pub(crate) fn start(rules: &str, target: SocketAddr, alertmanager: SocketAddr) -> Self {
        let directory = TestDir::new("prometheus");
        directory.write("rules.yml", rules);
        directory.write(
            "prometheus.yml",
            format!(
                "global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{alertmanager}']}}]}}]}}
scrape_configs: [{{job_name: ernstfall, static_configs: [{{targets: ['{target}']}}]}}]
"
            ),
        );
        let address = free_address();
        let arguments = [
            "--config.file=prometheus.yml".to_owned(),
            "--storage.tsdb.path=data".to_owned(),
            format!("--web.listen-address={address}"),
        ];
        let server = Server::start("prometheus", &directory, &arguments);
        Self {
            _server: server,
            address,
            _directory: directory,
        }
    }

    /// How many series an expression has now; nothing while Prometheus does not answer.
    pub(crate) fn count(&self, expression: &str) -> Option<usize> {
        let query: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = get(self.address, &format!("/api/v1/query?query={query}"))?;
        let value: Value = serde_json::from_str(&answer.body).ok()?;
        assert_eq!(value["status"], "success", "{expression}: {value}");
        value["data"]["result"].as_array().map(Vec::len)
    }
}

/// It passes on at once what Prometheus says.
pub(crate) struct Alertmanager {
    _server: Server,
    pub(crate) address: SocketAddr,
    _directory: TestDir,
}

impl Alertmanager {
    pub(crate) fn start(receiver: SocketAddr) -> Self {
        let directory = TestDir::new("alertmanager");
        directory.write(
            "alertmanager.yml",
            format!(
                "route: {{receiver: test, group_by: ['...'], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}
receivers: [{{name: test, webhook_configs: [{{url: 'http://{receiver}/', send_resolved: false}}]}}]
"
            ),
        );
        let address = free_address();
        let arguments = [
            "--config.file=alertmanager.yml".to_owned(),
            "--storage.path=data".to_owned(),
            format!("--web.listen-address={address}"),
            "--cluster.listen-address=".to_owned(),
        ];
        let server = Server::start("prometheus-alertmanager", &directory, &arguments);
        Self {
            _server: server,
            address,
            _directory: directory,
        }
    }
}

/// Somebody whom alerts and pings reach.
pub(crate) struct OnCall {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<Request>>>,
}

/// What was said, and where to.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) body: String,
}

impl OnCall {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ears = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(request) = read_request(&stream) {
                    ears.lock().unwrap().push(request);
                    let mut stream = stream;
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                }
            }
        });
        Self { address, heard }
    }

    /// What came until now. Before its first look Prometheus knows of no daemon, and says so.
    pub(crate) fn forget(&self) {
        self.heard.lock().unwrap().clear();
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.heard.lock().unwrap().clone()
    }

    /// The alert of this name, once Alertmanager has sent it.
    pub(crate) fn alert(&self, name: &str) -> Option<Value> {
        let alerts = self.requests().into_iter().flat_map(|request| {
            let message: Value = serde_json::from_str(&request.body).unwrap_or_default();
            message["alerts"].as_array().cloned().unwrap_or_default()
        });
        alerts
            .into_iter()
            .find(|alert| alert["labels"]["alertname"] == name)
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request {
        path,
        body: String::from_utf8(body).ok()?,
    })
}
