//! The configurations that are shipped, in the programs that read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shop::wait_for;
use crate::support::directory::TestDir;
use crate::support::ernstfall::Ernstfall;
use crate::support::monitoring::{Server, find, free_address, get};
use crate::support::process::run_or_panic;
use crate::support::skip::require;

/// A key pair's public part, in place of the one that everybody fills in.
const SOMEBODYS_KEY: &str = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p";

fn shipped(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    fs::read_to_string(file).unwrap()
}

/// The monitoring's configurations in one directory, with the rules that the program prints.
fn monitoring() -> TestDir {
    let directory = TestDir::new("monitoring");
    for name in ["prometheus.yml", "dead-man-rules.yml", "alertmanager.yml"] {
        directory.write(name, shipped(name));
    }
    let rules = Ernstfall::new(&directory).run(["rules"]).expect_code(0).stdout;
    directory.write("ernstfall-rules.yml", rules);
    directory
}

/// Starts a server in a directory with its configuration, and waits until it is ready.
fn expect_start(program: &str, directory: &TestDir, arguments: [&str; 3]) {
    let address = free_address();
    let mut arguments = arguments.map(str::to_owned).to_vec();
    arguments.push(format!("--web.listen-address={address}"));
    let _server = Server::start(program, directory, &arguments);
    let is_ready = || get(address, "/-/ready").is_some_and(|answer| answer.status == 200);
    wait_for("the server is ready", is_ready);
}

fn tool(program: &str, directory: &TestDir, arguments: &[&str]) -> String {
    let program: PathBuf = find(program).unwrap();
    run_or_panic(
        Command::new(program)
            .args(arguments)
            .current_dir(directory.path()),
    )
}

#[test]
fn prometheus_takes_its_configuration_with_the_rules_and_starts() {
    require!(
        find("prometheus").is_some() && find("promtool").is_some(),
        "prometheus is not installed"
    );
    let directory = monitoring();
    tool("promtool", &directory, &["check", "config", "prometheus.yml"]);
    let arguments = [
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        "--log.level=warn",
    ];
    expect_start("prometheus", &directory, arguments);
}

#[test]
fn alertmanager_takes_its_configuration_and_starts() {
    require!(
        find("prometheus-alertmanager").is_some() && find("amtool").is_some(),
        "prometheus-alertmanager is not installed"
    );
    let directory = monitoring();
    tool("amtool", &directory, &["check-config", "alertmanager.yml"]);
    let arguments = [
        "--config.file=alertmanager.yml",
        "--storage.path=data",
        "--cluster.listen-address=",
    ];
    expect_start("prometheus-alertmanager", &directory, arguments);
}

#[test]
fn alerts_reach_whom_they_concern() {
    require!(
        find("amtool").is_some(),
        "prometheus-alertmanager is not installed"
    );
    let directory = monitoring();
    for (labels, receivers) in [
        ("alertname=DeadManSwitch severity=none", "dead-man"),
        ("severity=critical", "on-call"),
        (
            "severity=critical environment=production owner=commerce",
            "on-call,commerce-mail",
        ),
        (
            "severity=warning environment=production owner=commerce",
            "commerce-mail",
        ),
        ("severity=critical environment=production owner=nobody", "on-call"),
        (
            "severity=warning environment=production owner=nobody",
            "platform-mail",
        ),
        (
            "severity=critical environment=staging owner=commerce",
            "platform-mail",
        ),
    ] {
        let mut arguments = vec!["config", "routes", "test", "--config.file=alertmanager.yml"];
        arguments.extend(labels.split(' '));
        assert_eq!(
            tool("amtool", &directory, &arguments).trim(),
            receivers,
            "{labels}"
        );
    }
}

/// Expects a configuration without faults, below the test's directory instead of the machine's, and with a bucket that
/// refuses at once.
fn expect_no_fault(name: &str, text: &str) {
    let directory = TestDir::new("environment");
    let state = format!(
        "state_dir = {:?}\n",
        directory.join("state").display().to_string()
    );
    let text: String = text
        .replace("age1-YOUR-PUBLIC-KEY", SOMEBODYS_KEY)
        .replace("region = ", "endpoint = \"http://127.0.0.1:1\"\nregion = ")
        .lines()
        .filter(|line| !line.starts_with("state_dir"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let output = Ernstfall::new(&directory)
        .configuration(&(state + &text))
        .environment("PGHOST", "127.0.0.1")
        .environment("PGPORT", "1")
        .run(["check"])
        .expect_code(1);
    let configuration: Vec<&str> = output
        .stdout
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .collect();
    assert!(
        configuration[0].contains("is without faults"),
        "{name}: {}",
        output.stdout
    );
}

#[test]
fn check_finds_no_fault_in_the_files_of_the_environments() {
    for name in ["local.toml", "staging.toml", "production.toml", "ernstfall.toml"] {
        expect_no_fault(name, &shipped(name));
    }
}

const OF_THE_PACKAGE: &str = "../systemd/debian/ernstfall.toml";

#[test]
fn the_daemon_of_the_package_says_that_a_database_is_to_be_named() {
    let directory = TestDir::new("package");
    let ernstfall = Ernstfall::new(&directory).configuration(&shipped(OF_THE_PACKAGE));
    let output = ernstfall.run(["run"]).expect_code(2);
    assert!(output.stderr.contains("add a [[target]]"), "{}", output.stderr);
    assert_eq!(output.stderr.matches("missing").count(), 1, "{}", output.stderr);
}

#[test]
fn what_the_package_proposes_is_without_faults_once_it_is_switched_on() {
    // One of each choice: a directory and not a bucket, a secret and not a socket.
    let left_out = |line: &&str| {
        let other_choice = ["#url = \"", "#region", "#access_key_id", "#secret_access_key"];
        !other_choice.iter().any(|start| line.starts_with(start))
    };
    let switched_on = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with('[') || rest.contains(" = ") && !rest.starts_with(' ') => {
            rest.to_owned() + "\n"
        }
        _ => line.to_owned() + "\n",
    };
    let shipped = shipped(OF_THE_PACKAGE);
    let text: String = shipped.lines().filter(left_out).map(switched_on).collect();
    assert!(text.contains("\nretention = "), "nothing was switched on: {text}");
    expect_no_fault("of the package", &text);
}
