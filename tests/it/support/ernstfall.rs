//! The product, run as its users run it: a configuration file, arguments, exit code, stdout and stderr.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::Signal;

use super::account::Account;
use super::directory::{TestDir, base};
use super::process::{Captured, die_with_us, kill_group, send, wait_until};

/// Long enough for a backup and a restore test on a busy machine of two cores.
const DEADLINE: Duration = Duration::from_secs(120);
/// After its end, nobody may hold the product's output open for longer: it would be a child left behind.
const OUTPUT_DEADLINE: Duration = Duration::from_secs(10);
/// The file whose presence holds the product at the point named by `ERNSTFALL_PAUSE_AT`.
const PAUSE_FILE: &str = "paused";

/// How the product is configured and started. Every run writes the configuration anew.
pub(crate) struct Ernstfall {
    directory: PathBuf,
    program: PathBuf,
    account: Option<Account>,
    deadline: Duration,
    environment: BTreeMap<String, OsString>,
    top: BTreeMap<String, String>,
    repository: String,
    targets: Vec<String>,
    tables: String,
    whole: Option<String>,
}

impl Ernstfall {
    /// State and a file repository in the directory; no target yet.
    pub(crate) fn new(directory: &TestDir) -> Self {
        let state = format!("{:?}", directory.join("state").display().to_string());
        let repository = format!("file://{}", directory.join("repository").display());
        Self {
            directory: directory.path().to_owned(),
            program: product().to_owned(),
            account: Some(Account::unprivileged()),
            deadline: DEADLINE,
            environment: BTreeMap::new(),
            top: BTreeMap::from([("state_dir".to_owned(), state)]),
            repository: format!("url = {repository:?}\n"),
            targets: Vec::new(),
            tables: String::new(),
            whole: None,
        }
    }

    /// Adds a target; the keys that follow belong to it.
    pub(crate) fn target(mut self, name: &str, url: &str) -> Self {
        let objectives = "environment = \"test\"\nowner = \"tests\"\nrpo = \"1h\"\nrto = \"15m\"\n";
        let tasks = "backup = \"every 30m\"\nrestore_test = \"after every backup\"\n";
        self.targets.push(format!(
            "[[target]]\nname = {name:?}\nurl = {url:?}\n{objectives}{tasks}"
        ));
        self
    }

    /// Sets a key of the target added last, over a default if there is one. The value is TOML: `"\"1h\""`, `"4"`.
    pub(crate) fn target_key(mut self, key: &str, value: &str) -> Self {
        let target = self.targets.last_mut().expect("a key needs a target before it");
        let kept = target
            .lines()
            .filter(|line| !line.starts_with(&format!("{key} =")));
        *target = kept
            .chain([format!("{key} = {value}").as_str()])
            .flat_map(|line| [line, "\n"])
            .collect();
        self
    }

    /// Takes a default key away from the target added last.
    pub(crate) fn target_without(mut self, key: &str) -> Self {
        let target = self.targets.last_mut().expect("a key needs a target before it");
        let kept = target
            .lines()
            .filter(|line| !line.starts_with(&format!("{key} =")));
        *target = kept.flat_map(|line| [line, "\n"]).collect();
        self
    }

    /// Sets a key outside all tables; the value is TOML.
    pub(crate) fn key(mut self, key: &str, value: &str) -> Self {
        self.top.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The lines of the table `[repository]`.
    pub(crate) fn repository(mut self, lines: &str) -> Self {
        self.repository = format!("{lines}\n");
        self
    }

    /// Adds whole tables, as text: `"[scratch]\nisolation = \"best-effort\"\n"`.
    pub(crate) fn tables(mut self, text: &str) -> Self {
        self.tables += &format!("{text}\n");
        self
    }

    /// Replaces the whole configuration file.
    pub(crate) fn configuration(mut self, text: &str) -> Self {
        self.whole = Some(text.to_owned());
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Holds the product at a fault point (of debug builds) until `Running::resume`.
    pub(crate) fn pause_at(self, point: &str) -> Self {
        let file = self.directory.join(PAUSE_FILE);
        self.environment("ERNSTFALL_PAUSE_AT", point)
            .environment("ERNSTFALL_PAUSE_FILE", file)
    }

    /// Runs the product as the test run's own user, also when that is root.
    pub(crate) fn run_as_root(mut self) -> Self {
        self.account = None;
        self
    }

    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub(crate) fn configuration_file(&self) -> PathBuf {
        self.directory.join("ernstfall.toml")
    }

    pub(crate) fn repository_directory(&self) -> PathBuf {
        self.directory.join("repository")
    }

    pub(crate) fn state_directory(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Runs a command to its end.
    pub(crate) fn run<const N: usize>(&self, arguments: [&str; N]) -> Output {
        self.spawn(arguments).wait()
    }

    /// The same, with as many arguments as there happen to be.
    pub(crate) fn run_all(&self, arguments: &[&str]) -> Output {
        self.spawn_all(arguments).wait()
    }

    /// Starts a command, to watch it and to disturb it.
    pub(crate) fn spawn<const N: usize>(&self, arguments: [&str; N]) -> Running {
        self.spawn_all(&arguments)
    }

    /// The same, with as many arguments as there happen to be.
    pub(crate) fn spawn_all(&self, arguments: &[&str]) -> Running {
        self.write("ernstfall.toml", &self.configuration_text());
        let pause_file = self
            .environment
            .contains_key("ERNSTFALL_PAUSE_AT")
            .then_some(PAUSE_FILE);
        if let Some(name) = pause_file {
            self.write(name, "");
        }
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(self.configuration_file())
            .args(arguments)
            .current_dir(&self.directory);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        // Nothing of the developer's own settings reaches the product: no PG*, no locale, no proxy.
        command
            .env_clear()
            .env("HOME", &self.directory)
            .env("TMPDIR", &self.directory)
            .env("LC_ALL", "C.UTF-8");
        for name in ["PATH", "RUST_BACKTRACE", "LLVM_PROFILE_FILE"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.envs(&self.environment);
        if let Some(account) = self.account {
            account.run_as(&mut command);
        }
        die_with_us(&mut command, Signal::SIGKILL);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let started = Instant::now();
        Running {
            stdout: Captured::new(child.stdout.take().unwrap()),
            stderr: Captured::new(child.stderr.take().unwrap()),
            child,
            arguments: arguments.join(" "),
            started,
            deadline: started + self.deadline,
            pause_file: pause_file.map(|name| self.directory.join(name)),
        }
    }

    fn configuration_text(&self) -> String {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        let top: String = self
            .top
            .iter()
            .map(|(key, value)| format!("{key} = {value}\n"))
            .collect();
        format!(
            "{top}\n[repository]\n{}\n{}\n{}",
            self.repository,
            self.targets.join("\n"),
            self.tables
        )
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        if let Some(account) = self.account {
            account.own(&path);
        }
    }
}

/// A command of the product under way; killed on drop, with all that it started.
pub(crate) struct Running {
    child: Child,
    stdout: Captured,
    stderr: Captured,
    arguments: String,
    started: Instant,
    deadline: Instant,
    pause_file: Option<PathBuf>,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits until the pattern is on stderr; fails the test when the program ends, or the time does, before that.
    pub(crate) fn wait_for_stderr(&mut self, pattern: &str, limit: Duration) {
        if !self.stderr.wait_for(pattern, Instant::now() + limit) {
            self.fail(&format!("{pattern:?} was not seen on stderr within {limit:?}"));
        }
    }

    pub(crate) fn wait_until_paused(&mut self, point: &str) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.wait_for_stderr(&format!("paused at {point}\n"), left);
    }

    /// Lets a paused program go on.
    pub(crate) fn resume(&self) {
        let file = self.pause_file.as_ref().expect("resume without pause_at");
        fs::remove_file(file)
            .unwrap_or_else(|error| panic!("resume by removing {}: {error}", file.display()));
    }

    /// Kills the program itself, not what it started: that is for the program to have arranged.
    pub(crate) fn kill9(&self) {
        send(&self.child, Signal::SIGKILL);
    }

    /// Asks the program to stop, as systemd does.
    pub(crate) fn terminate(&self) {
        send(&self.child, Signal::SIGTERM);
    }

    /// Asks the daemon to read its configuration again, which is written anew.
    pub(crate) fn reload(&self, with: &Ernstfall) {
        with.write("ernstfall.toml", &with.configuration_text());
        send(&self.child, Signal::SIGHUP);
    }

    /// Sends what Ctrl-C sends.
    pub(crate) fn interrupt(&self) {
        send(&self.child, Signal::SIGINT);
    }

    /// Waits for the end, and for the end of everybody who could still write to its output.
    pub(crate) fn wait(mut self) -> Output {
        let Some(status) = wait_until(&mut self.child, self.deadline) else {
            self.fail("it did not end in time");
        };
        let elapsed = self.started.elapsed();
        let deadline = Instant::now() + OUTPUT_DEADLINE;
        if !self.stdout.wait_for_end(deadline) || !self.stderr.wait_for_end(deadline) {
            self.fail("something it started outlived it");
        }
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        Output {
            arguments: self.arguments.clone(),
            status,
            stdout,
            stderr,
            elapsed,
        }
    }

    fn fail(&mut self, why: &str) -> ! {
        kill_group(&mut self.child);
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        panic!(
            "ernstfall {}: {why}\n--- stdout\n{stdout}--- stderr\n{stderr}",
            self.arguments
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A child that was waited for has given its number back, and a stranger may have it.
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_group(&mut self.child);
        }
    }
}

/// What a command of the product did.
pub(crate) struct Output {
    arguments: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) elapsed: Duration,
}

impl Output {
    /// The exit code; a signal that ended the program counts as 128 and its number, as in a shell.
    pub(crate) fn code(&self) -> i32 {
        self.status
            .code()
            .or_else(|| self.status.signal().map(|signal| 128 + signal))
            .unwrap()
    }

    /// Fails the test with all output when the exit code is another one.
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{}", self.told("exit code"));
        self
    }

    /// The facts on stdout.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{}", self.told(&error.to_string())))
    }

    fn told(&self, why: &str) -> String {
        format!(
            "ernstfall {}: {why}\n--- stdout\n{}--- stderr\n{}",
            self.arguments, self.stdout, self.stderr
        )
    }
}

/// The built program, where the unprivileged account can reach it: the checkout may lie below /root.
fn product() -> &'static Path {
    static PRODUCT: LazyLock<PathBuf> = LazyLock::new(|| {
        let built = Path::new(env!("CARGO_BIN_EXE_ernstfall"));
        if !super::account::is_root() {
            return built.to_owned();
        }
        let found = fs::metadata(built).unwrap_or_else(|error| panic!("{}: {error}", built.display()));
        let mut hasher = DefaultHasher::new();
        (
            built,
            found.ino(),
            found.mtime(),
            found.mtime_nsec(),
            found.size(),
        )
            .hash(&mut hasher);
        // A copy and no link: the next build writes to the file while a test may still run it.
        let directory = base().join(format!("product-{:016x}", hasher.finish()));
        let program = directory.join("ernstfall");
        if !program.exists() {
            forget_old_copies();
            let own = base().join(format!("product-{}.making", std::process::id()));
            fs::create_dir_all(&own).unwrap();
            fs::copy(built, own.join("ernstfall")).unwrap();
            for path in [&own, &own.join("ernstfall")] {
                fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
            }
            // Of two processes that copy at once, the later finds the earlier's there.
            if fs::rename(&own, &directory).is_err() {
                fs::remove_dir_all(&own).unwrap();
            }
        }
        program
    });
    &PRODUCT
}

/// Removes copies of programs that no test run of today uses.
fn forget_old_copies() {
    let day = Duration::from_secs(24 * 3600);
    for entry in fs::read_dir(base()).unwrap().flatten() {
        let made = entry
            .metadata()
            .and_then(|found| found.modified())
            .unwrap_or(SystemTime::now());
        let is_old = made.elapsed().is_ok_and(|age| age > day);
        if is_old && entry.file_name().to_string_lossy().starts_with("product-") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A shell script in the product's place, to try the harness itself.
#[cfg(test)]
pub(crate) fn script(directory: &TestDir, text: &str) -> Ernstfall {
    let program = directory.write("program", format!("#!/bin/sh\n{text}"));
    fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
    Ernstfall {
        program,
        ..Ernstfall::new(directory)
    }
}

/// The runner is tried on scripts in the product's place, so that what it promises is known to be so.
#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn failure(action: impl FnOnce() -> Output) -> String {
        let Err(panic) = catch_unwind(AssertUnwindSafe(action)) else {
            panic!("it should have failed the test")
        };
        *panic.downcast::<String>().expect("a message")
    }

    #[test]
    fn built_product_can_be_run_by_the_unprivileged_account() {
        let directory = TestDir::new("run");
        let output = Ernstfall::new(&directory).run(["--version"]);
        output.expect_code(0);
    }

    #[test]
    fn run_gives_code_outputs_and_json_in_a_clean_environment() {
        let directory = TestDir::new("run");
        let ernstfall = script(
            &directory,
            "echo \"[\\\"$3\\\", \\\"$HOME\\\", \\\"$GIVEN\\\"]\"; env >&2; id -u >&2; exit 3",
        );
        let output = ernstfall
            .environment("GIVEN", "value")
            .run(["status"])
            .expect_code(3);
        assert_eq!(
            output.json(),
            serde_json::json!(["status", directory.path().display().to_string(), "value"])
        );
        assert!(
            !output.stderr.contains("CARGO") && !output.stderr.contains("\nPG"),
            "{}",
            output.stderr
        );
        assert!(
            !output.stderr.ends_with("\n0\n"),
            "the product ran as root: {}",
            output.stderr
        );
    }

    #[test]
    fn configuration_has_defaults_and_what_the_test_sets() {
        let directory = TestDir::new("run");
        let ernstfall = script(&directory, "cat \"$2\"")
            .target("shop", "postgresql://127.0.0.1/shop")
            .target_key("rpo", "\"5m\"")
            .target_key("jobs", "2")
            .key("bin_dir", "\"/opt/bin\"")
            .tables("[scratch]\nisolation = \"none\"");
        let output = ernstfall.run(["check"]).expect_code(0);
        let parsed: toml::Table = output.stdout.parse().unwrap();
        let target = &parsed["target"][0];
        assert_eq!(
            (target["rpo"].as_str(), target["rto"].as_str()),
            (Some("5m"), Some("15m"))
        );
        assert_eq!(target["jobs"].as_integer(), Some(2));
        assert_eq!(parsed["bin_dir"].as_str(), Some("/opt/bin"));
        assert_eq!(parsed["scratch"]["isolation"].as_str(), Some("none"));
        let state = ernstfall.state_directory();
        assert_eq!(parsed["state_dir"].as_str(), state.to_str());
    }

    #[test]
    fn run_past_its_deadline_is_killed_and_its_output_told() {
        let directory = TestDir::new("run");
        let ernstfall =
            script(&directory, "echo begun; sleep 600 & wait").deadline(Duration::from_millis(300));
        let message = failure(|| ernstfall.run(["backup"]));
        assert!(
            message.contains("did not end in time") && message.contains("begun"),
            "{message}"
        );
    }

    #[test]
    fn wait_for_stderr_fails_as_soon_as_the_program_has_ended() {
        let directory = TestDir::new("run");
        let mut running = script(&directory, "echo other words >&2").spawn(["run"]);
        let message = failure(|| {
            running.wait_for_stderr("ready", LIMIT);
            running.wait()
        });
        assert!(
            message.contains("\"ready\" was not seen") && message.contains("other words"),
            "{message}"
        );
    }

    #[test]
    fn paused_program_waits_until_it_is_resumed() {
        let directory = TestDir::new("run");
        let text = "echo paused at $ERNSTFALL_PAUSE_AT >&2; while [ -e $ERNSTFALL_PAUSE_FILE ]; do sleep 0.01; done; echo on";
        let mut running = script(&directory, text).pause_at("after-lock").spawn(["backup"]);
        running.wait_until_paused("after-lock");
        assert_eq!(running.stdout(), "");
        running.resume();
        assert_eq!(running.wait().expect_code(0).stdout, "on\n");
    }

    #[test]
    fn killed_and_terminated_programs_say_so_in_their_code() {
        let directory = TestDir::new("run");
        let ernstfall = script(
            &directory,
            "trap 'exit 143' TERM; echo up >&2; while :; do sleep 0.01; done",
        );
        let mut running = ernstfall.spawn(["run"]);
        running.wait_for_stderr("up", LIMIT);
        running.terminate();
        running.wait().expect_code(143);
        let mut running = ernstfall.spawn(["run"]);
        running.wait_for_stderr("up", LIMIT);
        running.kill9();
        running.wait().expect_code(137);
    }
}
