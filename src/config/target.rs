//! `[[target]]`: a database to protect.

use std::collections::BTreeSet;
use std::path::Path;

use super::document::Table;
use super::secret_source::SecretSource;
use super::storage::Scratch;
use crate::model::check::Check;
use crate::model::human_duration::HumanDuration;
use crate::model::objective::{Objectives, RtoOverhead};
use crate::model::schedule::Schedule;
use crate::model::target_name::TargetName;
use crate::model::time_zone::{self, Tz};

const DEFAULT_JOBS: u32 = 2;

/// Each job is a connection to the source; more than this starves its applications before it helps.
const MAX_JOBS: u32 = 64;

const DEFAULT_LOCK_TIMEOUT: HumanDuration = HumanDuration::from_seconds(10);
const DEFAULT_CONNECT_TIMEOUT: HumanDuration = HumanDuration::from_seconds(30);
const DEFAULT_MAX_SNAPSHOT_AGE: HumanDuration = HumanDuration::from_seconds(6 * 3600);

const SHORTEST_HEARTBEAT: HumanDuration = HumanDuration::from_seconds(1);

const BLOCKED_DDL: [(&str, OnBlockedDdl); 2] = [
    ("continue", OnBlockedDdl::Continue),
    ("abort", OnBlockedDdl::Abort),
];

const SOURCE_COUNTS: [(&str, SourceCount); 3] = [
    ("daily", SourceCount::Daily),
    ("always", SourceCount::Always),
    ("never", SourceCount::Never),
];

const RETENTION_COUNTS: [&str; 5] = ["last", "daily", "weekly", "monthly", "yearly"];

#[derive(Debug, Clone)]
pub struct Target {
    pub name: TargetName,
    /// A libpq URL or DSN.
    pub url: SecretSource,
    pub environment: Option<String>,
    pub owner: Option<String>,
    pub objectives: Objectives,
    pub rto_overhead: RtoOverhead,
    pub time_zone: Tz,
    pub backup: Option<Schedule>,
    pub restore_test: Option<Schedule>,
    pub heartbeat: Option<Heartbeat>,
    pub jobs: u32,
    /// Tables whose definition is kept and whose rows are not covered.
    pub exclude_data: Vec<String>,
    /// Tables that are left out.
    pub exclude: Vec<String>,
    /// Tables that lose many rows as a matter of course, such as queues.
    pub may_shrink: Vec<String>,
    pub retention: Option<Retention>,
    pub on_blocked_ddl: OnBlockedDdl,
    pub max_snapshot_age: HumanDuration,
    pub lock_timeout: HumanDuration,
    pub timeouts: Timeouts,
    /// Whether a large table may be read in parts.
    pub split: bool,
    pub source_count: SourceCount,
    pub scratch: Scratch,
    pub checks: Vec<Check>,
}

#[derive(Debug, Clone)]
pub struct Heartbeat {
    pub every: HumanDuration,
    /// Where to write it, when the target itself is a standby.
    pub url: Option<SecretSource>,
}

/// How many backups to keep; what is absent keeps none by that rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    pub last: Option<u32>,
    pub daily: Option<u32>,
    pub weekly: Option<u32>,
    pub monthly: Option<u32>,
    pub yearly: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: HumanDuration,
    /// `None`: as long as it takes.
    pub backup: Option<HumanDuration>,
    pub restore_test: Option<HumanDuration>,
}

/// What a backup does when DDL queues behind its locks, and the application's queries behind that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnBlockedDdl {
    Continue,
    Abort,
}

/// How often each table's rows are also counted by a statement of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceCount {
    Daily,
    Always,
    Never,
}

/// All targets; several faults in several targets are all reported.
pub(super) fn read_targets(root: &Table<'_>, scratch: &Scratch, base: &Path) -> Vec<Target> {
    let tables = root.tables("target");
    if tables.is_empty() && !root.has("target") {
        root.missing(
            "target",
            "there is nothing to protect: add a [[target]] with a name and a url",
        );
    }
    let mut names = BTreeSet::new();
    let mut targets = Vec::new();
    for table in &tables {
        let target = Target::read(table, scratch, base);
        table.finish();
        // Also a target with other faults has a name that nobody else may have.
        if let Some(name) = table.peek_text("name")
            && !names.insert(name.to_owned())
        {
            table.fault(
                "name",
                format!("another target is called {name:?} too: names must differ"),
            );
        }
        targets.extend(target);
    }
    targets
}

impl Target {
    fn read(table: &Table<'_>, scratch: &Scratch, base: &Path) -> Option<Self> {
        let name = table.parsed::<TargetName>("name");
        let url = table.secret("url").map(|secret| secret.relative_to(base));
        if !table.has("name") {
            table.missing("name", "give the target a name, such as \"shop\"");
        }
        if !table.has("url") {
            table.missing(
                "url",
                "say where the database is, such as { env = \"SHOP_DATABASE_URL\" }",
            );
        }
        let time_zone = table
            .parsed_with("time_zone", time_zone::parse)
            .unwrap_or(Tz::UTC);
        let backup = table.parsed_with("backup", |text| backup_schedule(text, time_zone));
        let restore_test = table.parsed_with("restore_test", |text| Schedule::parse(text, time_zone));
        let scratch = match table.table("scratch") {
            Some(own) => Scratch::read(&own, scratch, base),
            None => scratch.clone(),
        };
        Some(Self {
            environment: table.text("environment"),
            owner: table.text("owner"),
            objectives: Objectives {
                rpo: table.duration("rpo"),
                rto: table.duration("rto"),
            },
            rto_overhead: table
                .table("rto_overhead")
                .map(|own| read_overhead(&own))
                .unwrap_or_default(),
            time_zone,
            backup,
            restore_test,
            heartbeat: Heartbeat::read(table, base),
            jobs: table.integer("jobs", 1..=MAX_JOBS).unwrap_or(DEFAULT_JOBS),
            exclude_data: table.texts("exclude_data"),
            exclude: table.texts("exclude"),
            may_shrink: table.texts("may_shrink"),
            retention: table.table("retention").map(|own| Retention::read(table, &own)),
            on_blocked_ddl: table
                .choice("on_blocked_ddl", &BLOCKED_DDL)
                .unwrap_or(OnBlockedDdl::Continue),
            max_snapshot_age: table
                .duration("max_snapshot_age")
                .unwrap_or(DEFAULT_MAX_SNAPSHOT_AGE),
            lock_timeout: table.duration("lock_timeout").unwrap_or(DEFAULT_LOCK_TIMEOUT),
            timeouts: Timeouts::read(table.table("timeouts").as_ref()),
            split: table.boolean("split").unwrap_or(true),
            source_count: table
                .choice("source_count", &SOURCE_COUNTS)
                .unwrap_or(SourceCount::Daily),
            scratch,
            checks: read_checks(table),
            // Last, so that a target without a name has its other faults reported too.
            name: name?,
            url: url?,
        })
    }
}

fn backup_schedule(text: &str, time_zone: Tz) -> Result<Schedule, String> {
    match Schedule::parse(text, time_zone) {
        Ok(Schedule::AfterEveryBackup) => {
            Err("a backup cannot follow itself: write \"every 30m\" or a cron expression".to_owned())
        }
        Ok(schedule) => Ok(schedule),
        Err(error) => Err(error.to_string()),
    }
}

/// Zero is allowed: "nobody has to decide" is a statement.
fn read_overhead(table: &Table<'_>) -> RtoOverhead {
    let overhead = RtoOverhead {
        detect: table.parsed("detect"),
        decide: table.parsed("decide"),
        provision: table.parsed("provision"),
        cut_over: table.parsed("cut_over"),
    };
    table.finish();
    overhead
}

fn read_checks(table: &Table<'_>) -> Vec<Check> {
    let read = |check: &Table<'_>| {
        let (name, sql, expect) = (check.text("name"), check.text("sql"), check.scalar("expect"));
        for (key, advice) in [
            ("name", "say what is checked, such as \"orders are there\""),
            ("sql", "write a query that returns one value"),
            (
                "expect",
                "say what the value must be, such as \"> 0\", \"= 5\" or \"true\"",
            ),
        ] {
            if !check.has(key) {
                check.missing(key, advice);
            }
        }
        check.finish();
        Some(Check {
            name: name?,
            sql: sql?,
            expect: expect?,
        })
    };
    table.tables("check").iter().filter_map(read).collect()
}

impl Heartbeat {
    fn read(target: &Table<'_>, base: &Path) -> Option<Self> {
        if !target.is_table("heartbeat") {
            let every = interval(target, "heartbeat")?;
            return Some(Self { every, url: None });
        }
        let table = target.table("heartbeat")?;
        let every = interval(&table, "every");
        if !table.has("every") {
            table.missing("every", "say how often, such as \"10s\"");
        }
        let url = table.secret("url").map(|secret| secret.relative_to(base));
        table.finish();
        Some(Self { every: every?, url })
    }
}

/// Each beat is a transaction on the source.
fn interval(table: &Table<'_>, key: &'static str) -> Option<HumanDuration> {
    let every = table.duration(key)?;
    if every < SHORTEST_HEARTBEAT {
        table.fault(key, format!("must be at least {SHORTEST_HEARTBEAT}"));
        return None;
    }
    Some(every)
}

impl Retention {
    fn read(target: &Table<'_>, table: &Table<'_>) -> Self {
        let count = |key| table.integer(key, 0..=100_000);
        let retention = Self {
            last: count("last"),
            daily: count("daily"),
            weekly: count("weekly"),
            monthly: count("monthly"),
            yearly: count("yearly"),
        };
        table.finish();
        // Whoever writes this down wants something to be kept; to keep everything, the key is left out.
        let counts = RETENTION_COUNTS.iter().filter(|key| table.has(key));
        let wrong_elsewhere = counts.count() > retention.counts().iter().flatten().count();
        if retention.counts().iter().flatten().all(|count| *count == 0) && !wrong_elsewhere {
            target.fault(
                "retention",
                "keeps no backup: give at least one of last, daily, weekly, monthly and yearly a number above 0, or remove it to keep every backup",
            );
        }
        retention
    }
}

impl Retention {
    fn counts(&self) -> [Option<u32>; 5] {
        [self.last, self.daily, self.weekly, self.monthly, self.yearly]
    }
}

impl Timeouts {
    fn read(table: Option<&Table<'_>>) -> Self {
        let duration = |key| table.and_then(|table| table.duration(key));
        let timeouts = Self {
            connect: duration("connect").unwrap_or(DEFAULT_CONNECT_TIMEOUT),
            backup: duration("backup"),
            restore_test: duration("restore_test"),
        };
        if let Some(table) = table {
            table.finish();
        }
        timeouts
    }
}
