//! The settings of one target, as the use cases need them.

use std::time::Duration;

use crate::model::byte_size::ByteRate;
use crate::model::check::Check;
use crate::model::retention::Policy;
use crate::model::target_name::TargetName;
use crate::postgres::conninfo::ConnectionSettings;
use crate::scratch::IsolationWanted;

/// One target, with its connection resolved.
#[derive(Clone, Debug)]
pub struct Target {
    pub name: TargetName,
    pub environment: Option<String>,
    pub owner: Option<String>,
    pub connection: ConnectionSettings,
    /// The row that the daemon keeps written in the source.
    pub heartbeat: Option<Heartbeat>,
    pub rpo: Option<Duration>,
    pub rto: Option<Duration>,
    /// Human times that belong to a real recovery, added to what is measured.
    pub rto_overhead: Vec<(String, Duration)>,
    pub jobs: usize,
    /// How fast a backup may read rows, over all its connections.
    pub max_rate: Option<ByteRate>,
    pub split: bool,
    /// Tables whose rows are left out, as `schema.table`; `*` stands for any characters.
    pub exclude_data: Vec<String>,
    /// Tables left out altogether.
    pub exclude: Vec<String>,
    /// Tables that lose many rows as a matter of course; no loss of content is found in them.
    pub may_shrink: Vec<String>,
    /// Which backups are kept; without it, all are.
    pub retention: Option<Policy>,
    pub lock_timeout: Duration,
    pub max_snapshot_age: Duration,
    pub on_blocked_ddl: OnBlockedDdl,
    pub source_count: SourceCount,
    pub checks: Vec<Check>,
    pub isolation: IsolationWanted,
    /// Databases of the same server that other targets of the configuration cover.
    pub neighbours: Vec<String>,
    /// Where scratch clusters are made.
    pub scratch_directory: std::path::PathBuf,
    /// The user that runs them when this process is root.
    pub scratch_user: Option<String>,
    /// Extensions that a restore test leaves out, with what depends on them.
    pub skip_extensions: Vec<String>,
    /// A server to restore into, in the place of scratch clusters; or why its address cannot be told, which stops
    /// restore tests and nothing else.
    pub scratch_server: Option<Result<ConnectionSettings, String>>,
}

/// How the heartbeat of a target is written.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    pub every: Duration,
    /// Where, if not in the target itself; or why that address cannot be told, which stops heartbeats and nothing else.
    pub elsewhere: Option<Result<ConnectionSettings, String>>,
}

impl Target {
    /// The target is a copy of the database that takes the writes: its own clock does not tell what it holds.
    pub fn is_written_elsewhere(&self) -> bool {
        self.heartbeat
            .as_ref()
            .is_some_and(|heartbeat| heartbeat.elsewhere.is_some())
    }
}

/// What to do when an ALTER TABLE waits for the backup, and the application waits behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBlockedDdl {
    Continue,
    Abort,
}

/// How often the server counts the rows itself, apart from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceCount {
    Always,
    Daily,
    Never,
}

/// Whether `name` is meant by one of the patterns; `*` stands for any characters.
pub fn matches_any(patterns: &[String], name: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        Some((first, rest)) => name
            .split_first()
            .is_some_and(|(head, tail)| head == first && matches(rest, tail)),
    }
}

/// A target for unit tests.
#[cfg(test)]
pub(super) fn for_tests() -> Target {
    let environment = crate::postgres::conninfo::Environment::default();
    Target {
        name: "shop".parse().unwrap(),
        environment: None,
        owner: None,
        connection: ConnectionSettings::resolve("postgresql://backup@localhost/shop", &environment).unwrap(),
        heartbeat: None,
        rpo: None,
        rto: None,
        rto_overhead: Vec::new(),
        jobs: 2,
        max_rate: None,
        split: true,
        exclude_data: Vec::new(),
        exclude: Vec::new(),
        may_shrink: Vec::new(),
        retention: None,
        lock_timeout: Duration::from_secs(10),
        max_snapshot_age: Duration::from_secs(3600),
        on_blocked_ddl: OnBlockedDdl::Continue,
        source_count: SourceCount::Daily,
        checks: Vec::new(),
        isolation: IsolationWanted::Required,
        neighbours: Vec::new(),
        scratch_directory: "/nowhere".into(),
        scratch_user: None,
        skip_extensions: Vec::new(),
        scratch_server: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let any = |pattern: &str, name: &str| matches_any(&[pattern.to_owned()], name);
        assert!(any("public.request_log", "public.request_log"));
        assert!(any("public.*_log", "public.request_log"));
        assert!(any("*", "a.b"));
        assert!(!any("public.request_log", "public.request_log2"));
        assert!(!any("public.*_log", "audit.request_log"));
    }
}
