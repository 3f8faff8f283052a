//! What a scratch is made from, and the server settings that follow from it.

use std::path::{Path, PathBuf};

use super::sandbox::spec::IsolationWanted;
use crate::postgres::programs::Installation;

const MEBIBYTE: u64 = 1024 * 1024;

/// What the caller decides about a scratch.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// The directory that holds scratches.
    pub base: PathBuf,
    pub programs: Installation,
    pub isolation: IsolationWanted,
    /// Named as the source's bootstrap role, so that owners and grants compare.
    pub superuser: String,
    /// The run that the scratch is made for, by which it is recognised when left behind.
    pub run: String,
    /// shared_preload_libraries that the copy cannot do without.
    pub preload: Vec<String>,
    /// Further server settings; they win over ours, but for those that keep the scratch private.
    pub settings: Vec<(String, String)>,
    /// Whom the server runs as when this process is root.
    pub user: Option<String>,
    /// This program's file; only tests, whose own file is another, set it.
    pub own_binary: Option<PathBuf>,
    pub machine: Machine,
}

impl EmbeddedSettings {
    /// The default user of scratch servers when this process is root.
    pub const USER: &'static str = "ernstfall";

    pub fn new(base: PathBuf, programs: Installation) -> Self {
        Self {
            base,
            programs,
            isolation: IsolationWanted::Required,
            superuser: "postgres".into(),
            run: String::new(),
            preload: Vec::new(),
            settings: Vec::new(),
            user: None,
            own_binary: None,
            machine: Machine::of_this_host(),
        }
    }
}

/// What the server may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    pub memory_bytes: u64,
    pub cores: usize,
}

impl Machine {
    /// Memory and cores, as far as the control group of this process allows them.
    pub fn of_this_host() -> Self {
        let total = read_total_memory().unwrap_or(1024 * MEBIBYTE);
        let memory_bytes = read_group_limit().map_or(total, |limit| limit.min(total));
        Self {
            memory_bytes,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

fn read_total_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The smallest limit of this process's control group and those above it (version 2 only).
fn read_group_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    root.join(own)
        .ancestors()
        .take_while(|directory| directory.starts_with(root))
        .filter_map(|directory| {
            std::fs::read_to_string(directory.join("memory.max"))
                .ok()?
                .trim()
                .parse()
                .ok()
        })
        .min()
}

/// What the server is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Loading: a crash would only mean another try.
    Fast,
    /// As in production: the copy proves that it starts and lives with these.
    Durable,
}

/// Where the server finds things.
pub(super) struct Places<'a> {
    pub(super) socket_directory: &'a Path,
    pub(super) logs: &'a Path,
}

/// Settings that keep the scratch private. They go on the command line, where neither the copy's ALTER SYSTEM
/// nor the caller's settings can change them.
pub(super) fn fixed(wanted: &EmbeddedSettings, places: &Places) -> Vec<(String, String)> {
    let mut settings = owned([
        ("listen_addresses", String::new()),
        (
            "unix_socket_directories",
            places.socket_directory.display().to_string(),
        ),
        ("port", "5432".into()),
        ("archive_mode", "off".into()),
        ("logging_collector", "on".into()),
        ("log_destination", "csvlog".into()),
        ("log_directory", places.logs.display().to_string()),
        ("log_filename", "server.log".into()),
        ("log_rotation_age", "0".into()),
        ("log_rotation_size", "0".into()),
        // Subscriptions of the copy must not draw from anywhere.
        ("max_logical_replication_workers", "0".into()),
        // A crash is to be seen, not healed in between.
        ("restart_after_crash", "off".into()),
    ]);
    if preloads_cron(wanted) {
        settings.extend(owned([
            // Unknown before pg_cron 1.5: there, jobs have no way to connect, and leave no trace of the attempt.
            ("cron.launch_active_jobs", "off".into()),
            ("cron.use_background_workers", "off".into()),
            ("cron.log_run", "off".into()),
        ]));
    }
    settings
}

/// The content of the settings file.
pub(super) fn file(wanted: &EmbeddedSettings, phase: Phase, private_shared_memory: bool) -> String {
    let mut settings = general(wanted, private_shared_memory);
    settings.extend(of_phase(phase));
    settings.extend(wanted.settings.iter().cloned());
    if phase == Phase::Durable && preloads_cron(wanted) {
        // Its extension is made by now, and its launcher finds no jobs where there is none.
        settings.extend(owned([("cron.database_name", "template1".into())]));
    }
    let mut text =
        String::from("# Written by ernstfall for one scratch server. The last of equal names counts.\n");
    for (name, value) in settings {
        text.push_str(&format!(
            "{name} = '{}'\n",
            value.replace('\\', "\\\\").replace('\'', "''")
        ));
    }
    text
}

fn preloads_cron(wanted: &EmbeddedSettings) -> bool {
    wanted.preload.iter().any(|library| library == "pg_cron")
}

fn general(wanted: &EmbeddedSettings, private_shared_memory: bool) -> Vec<(String, String)> {
    let memory = wanted.machine.memory_bytes / MEBIBYTE;
    let cores = wanted.machine.cores;
    let mut settings = owned([
        ("shared_buffers", format!("{}MB", (memory / 8).clamp(32, 1024))),
        // Several indexes may be built at once, each with that much.
        (
            "maintenance_work_mem",
            format!("{}MB", (memory / 32).clamp(64, 1024)),
        ),
        ("max_connections", "50".into()),
        ("superuser_reserved_connections", "3".into()),
        ("max_worker_processes", (cores + 8).to_string()),
        ("max_parallel_workers", cores.to_string()),
        ("max_parallel_maintenance_workers", cores.clamp(1, 4).to_string()),
        // A restore in one transaction locks every object that it makes.
        ("max_locks_per_transaction", "1024".into()),
        ("max_wal_senders", "0".into()),
        (
            "dynamic_shared_memory_type",
            if private_shared_memory { "posix" } else { "mmap" }.into(),
        ),
        // Needs memory that is written and executed, which hardened units forbid.
        ("jit", "off".into()),
        ("ssl", "off".into()),
        ("timezone", "UTC".into()),
        ("log_timezone", "UTC".into()),
        ("lc_messages", "C".into()),
        ("log_min_messages", "warning".into()),
        ("log_min_error_statement", "error".into()),
        ("log_error_verbosity", "default".into()),
        ("log_checkpoints", "off".into()),
        ("shared_preload_libraries", wanted.preload.join(",")),
    ]);
    if wanted.programs.major >= 17 {
        settings.extend(owned([("event_triggers", "off".into())]));
    }
    if wanted.programs.major >= 18 {
        // io_uring is refused by the sandbox.
        settings.extend(owned([("io_method", "worker".into())]));
    }
    settings
}

fn of_phase(phase: Phase) -> Vec<(String, String)> {
    match phase {
        Phase::Fast => owned([
            ("fsync", "off".into()),
            ("full_page_writes", "off".into()),
            ("synchronous_commit", "off".into()),
            ("wal_level", "minimal".into()),
            ("autovacuum", "off".into()),
            ("max_wal_size", "8GB".into()),
            ("checkpoint_timeout", "30min".into()),
        ]),
        Phase::Durable => owned([
            ("fsync", "on".into()),
            ("full_page_writes", "on".into()),
            ("synchronous_commit", "on".into()),
            ("wal_level", "replica".into()),
            ("autovacuum", "on".into()),
        ]),
    }
}

fn owned<const COUNT: usize>(pairs: [(&str, String); COUNT]) -> Vec<(String, String)> {
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(major: u32) -> EmbeddedSettings {
        let programs = Installation {
            directory: "/bin".into(),
            major,
            version: major.to_string(),
        };
        let mut settings = EmbeddedSettings::new("/base".into(), programs);
        settings.machine = Machine {
            memory_bytes: 4096 * MEBIBYTE,
            cores: 2,
        };
        settings
    }

    #[test]
    fn settings_that_a_version_does_not_know_are_left_out() {
        assert!(!file(&wanted(15), Phase::Fast, true).contains("event_triggers"));
        assert!(file(&wanted(17), Phase::Fast, true).contains("event_triggers = 'off'"));
        assert!(file(&wanted(18), Phase::Fast, true).contains("io_method = 'worker'"));
    }

    #[test]
    fn the_callers_settings_come_last_and_are_quoted() {
        let mut wanted = wanted(15);
        wanted.preload = vec!["pg_cron".into()];
        wanted.settings = vec![("cron.database_name".into(), "o'b".into())];
        let text = file(&wanted, Phase::Fast, false);
        assert!(text.ends_with("cron.database_name = 'o''b'\n"), "{text}");
        let text = file(&wanted, Phase::Durable, false);
        assert!(text.ends_with("cron.database_name = 'template1'\n"), "{text}");
        let places = Places {
            socket_directory: Path::new("/run"),
            logs: Path::new("/logs"),
        };
        let fixed = fixed(&wanted, &places);
        let launcher = ("cron.launch_active_jobs".to_owned(), "off".to_owned());
        assert!(
            fixed.contains(&launcher),
            "no setting of the caller lets jobs run: {fixed:?}"
        );
        assert!(text.contains("shared_buffers = '512MB'") && text.contains("fsync = 'on'"));
    }
}
