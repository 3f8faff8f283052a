//! What must not be left: while nothing runs, and after the stop.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use crate::shop::{LIMIT, descendants, is_alive, wait_for};
use crate::support::cluster::Cluster;
use crate::support::ernstfall::Running;
use crate::support::process::POLL;

use super::{SERVERS, TARGETS, Town};

/// Where each run has something of its own: scratch servers, files for programs, and the note that it runs.
pub(super) const OF_RUNS: [&str; 3] = ["state/scratch", "state/work", "state/runs"];

/// Where files are that have no lasting name yet.
const OF_WRITES: [&str; 2] = ["state/.tmp", "repository/.tmp"];

/// So many files more than before the first run may be open for good: what a library opens when it is first used. One for
/// each fault, or for each run, would be far more.
const FILES_MORE: usize = 4;

/// The daemon before anything ever ran.
pub(super) struct Idle {
    files: usize,
}

impl Idle {
    /// The daemon is measured once each heartbeat has its connection, as later when nothing runs.
    pub(super) fn before_the_first_run(town: &Town, daemon: u32) -> Self {
        wait_for("the heartbeats", || other_connections(town).is_empty());
        Self {
            files: open_files(daemon),
        }
    }

    /// What is there although nothing runs.
    pub(super) fn left(&self, town: &Town, daemon: u32) -> Vec<String> {
        let family = descendants(daemon);
        let mut left: Vec<String> = family
            .iter()
            .map(|(pid, _)| format!("the daemon has the process {}", described(*pid)))
            .collect();
        let known: BTreeSet<u32> = family.iter().map(|(pid, _)| *pid).chain([daemon]).collect();
        left.extend(strangers(town, &known));
        left.extend(inside(town, &OF_RUNS));
        left.extend(other_connections(town));
        let (files, before) = (open_files(daemon), self.files);
        if files > before + FILES_MORE {
            left.push(format!(
                "the daemon has {files} open files, and had {before} before anything ran"
            ));
        }
        left
    }
}

/// Stops the daemon, and says what outlives it.
pub(super) fn after_the_stop(town: &Town, daemon: Running) -> Vec<String> {
    let children = descendants(daemon.pid());
    daemon.terminate();
    let code = daemon.wait().code();
    let mut left = Vec::new();
    if code != 143 {
        left.push(format!("the daemon ended with {code} instead of 143"));
    }
    left.extend(
        children
            .iter()
            .filter(|child| is_alive(child))
            .map(|(pid, _)| format!("process {pid} outlived the daemon")),
    );
    left.extend(inside(town, &OF_RUNS));
    left.extend(inside(town, &OF_WRITES));
    // A server ends a session when it next looks at its client.
    let deadline = Instant::now() + LIMIT;
    loop {
        let outlived = outlived(town);
        if outlived.is_empty() || Instant::now() > deadline {
            left.extend(outlived);
            return left;
        }
        thread::sleep(POLL);
    }
}

/// What may take a moment to end after the daemon has.
fn outlived(town: &Town) -> Vec<String> {
    let connected = town.servers.iter().filter_map(clients).flatten();
    let connections = connected.map(|client| format!("the connection {client} was left"));
    connections.chain(strangers(town, &BTreeSet::new())).collect()
}

/// What is in a folder; nothing where there is no such folder.
pub(super) fn entries(town: &Town, folder: &str) -> Option<Vec<PathBuf>> {
    let found = fs::read_dir(town.directory.join(folder)).ok()?;
    Some(found.flatten().map(|entry| entry.path()).collect())
}

/// What is in folders that should be empty. They are there once something ran: one that is not has another name now, and
/// would never be seen to fill.
fn inside(town: &Town, folders: &[&str]) -> Vec<String> {
    let mut left = Vec::new();
    for folder in folders {
        match entries(town, folder) {
            Some(found) => left.extend(found.iter().map(|path| format!("{} was left", path.display()))),
            None => left.push(format!("{folder} is not there: where is what it should hold?")),
        }
    }
    left
}

pub(super) fn open_files(daemon: u32) -> usize {
    fs::read_dir(format!("/proc/{daemon}/fd"))
        .expect("open files of the daemon")
        .count()
}

/// Clients of a server other than this test: what each says it is for, and its database. Nothing while the server is away.
pub(super) fn clients(server: &Cluster) -> Option<Vec<String>> {
    let session = server.maintenance().try_session().ok()?;
    let sql = "select application_name || ' on ' || coalesce(datname, '?') from pg_stat_activity
                where backend_type = 'client backend' and application_name <> 'ernstfall-test'";
    let rows = session.try_query_rows(sql).ok()?;
    Some(rows.into_iter().flatten().flatten().collect())
}

/// Where connections are not exactly those of the heartbeats, which are kept from one to the next.
fn other_connections(town: &Town) -> Vec<String> {
    let mut wrong = Vec::new();
    for (place, server) in town.servers.iter().enumerate() {
        let here = (place..TARGETS).step_by(SERVERS);
        let mut expected: Vec<String> = here
            .filter(|number| Town::has_heartbeat(*number))
            .map(|number| format!("ernstfall heartbeat on {}", town.databases[number].name()))
            .collect();
        let mut found = clients(server).unwrap_or_default();
        expected.sort();
        found.sort();
        if found != expected {
            wrong.push(format!(
                "server {place} has the connections {found:?} instead of {expected:?}"
            ));
        }
    }
    wrong
}

/// Processes that are not known, and work with what is in the soak's directory: whoever started them has ended before them.
fn strangers(town: &Town, known: &BTreeSet<u32>) -> Vec<String> {
    let directory = town.directory.path();
    let named = format!("{}/", directory.display());
    let works_there = |pid: u32| {
        // Some programs write something else over their arguments; they stay where they are.
        command_line(pid).contains(&named)
            || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place.starts_with(directory))
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| !known.contains(pid) && works_there(*pid))
        .map(|pid| format!("nobody's child any more: process {}", described(pid)))
        .collect()
}

fn described(pid: u32) -> String {
    format!("{pid} ({})", command_line(pid).trim_end())
}

/// Empty for a process that has ended.
fn command_line(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}
