//! The command line: its words and their help.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::model::backup_id::BackupId;
use crate::model::human_duration::HumanDuration;
use crate::model::target_name::TargetName;
use crate::observe::rules::DEFAULT_RUNBOOK_URL;

/// Proves that PostgreSQL databases can be recovered: backs them up, restores the backups, compares the content with
/// the source's own snapshot, and measures RPO and RTO.
#[derive(Debug, Parser)]
#[command(name = "ernstfall", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done; restore-test: passed, and objectives met; status, check: nothing wrong
  1    the operation could not run, or failed for reasons outside the backup; alert-test: not everything arrived
  2    usage or configuration is wrong
  3    a bad backup or a mismatch was found
  4    passed, but an objective (RPO or RTO) was missed
  130, 143  ended by a signal, cleaned up";

#[derive(Args, Clone, Debug)]
pub(super) struct Global {
    /// The configuration [default: $ERNSTFALL_CONFIG, ./ernstfall.toml, ~/.config/ernstfall/, /etc/ernstfall/]
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) config: Option<PathBuf>,
    /// Facts as JSON on stdout
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say more (twice: even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Say only what went wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a configuration that works, try the connection, and say what to do next
    Init(Init),
    /// The daemon: backups, restore tests and retention by schedule
    Run,
    /// Take backups now
    Backup(Backup),
    /// Restore backups into scratch, compare and measure them, remove the copy
    RestoreTest(RestoreTest),
    /// Recover for real: everything into an empty database, or some tables into a schema of their own
    Restore(Restore),
    /// Read back and check every stored object, without a restore; needs neither the source nor a key
    Scrub(Scrub),
    /// Objectives and actuals at a glance
    Status(Targets),
    /// List what there is
    List(List),
    /// Remove the backups that retention keeps no longer
    Prune(Prune),
    /// Say that a sharp loss of content was meant
    Acknowledge(Acknowledge),
    /// Send a test alert on purpose, and see whether it arrives
    AlertTest(AlertTest),
    /// The checklist: configuration, connections, privileges, programs, scratch, space, schedule, alerts
    Check(Targets),
    /// Print the SQL that gives a role what a target needs of it, and no more
    Grants(Grants),
    /// Print alerting rules for Prometheus
    Rules(Rules),
    /// Show everything on a throw-away database, with live writes and a damaged backup
    Demo(Demo),
    /// Print a completion script
    Completions { shell: clap_complete::Shell },
    /// Print the manual page
    Man(Man),
}

#[derive(Args, Debug)]
pub(super) struct Man {
    /// Write a page for each command into this directory instead
    #[arg(long, value_name = "DIR")]
    pub(super) directory: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct Targets {
    /// Which targets [default: all]
    #[arg(value_name = "TARGET")]
    pub(super) targets: Vec<TargetName>,
}

#[derive(Args, Debug)]
pub(super) struct Init {
    /// Where to write it [default: --config, else ./ernstfall.toml]
    #[arg(value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// The same, as an option
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub(super) output: Option<PathBuf>,
    /// What to call the database [default: its name]
    #[arg(long, value_name = "NAME")]
    pub(super) target: Option<TargetName>,
    /// Connection string, without a password [default: from PGHOST, PGDATABASE and so on]
    #[arg(long, value_name = "URL")]
    pub(super) url: Option<String>,
    /// The environment variable that holds the connection string, for one with a password
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    pub(super) url_env: Option<String>,
    /// Where backups shall live [default: `repository` in the state directory]
    #[arg(long, value_name = "URL")]
    pub(super) repository: Option<String>,
    /// Where journal and scratch servers shall live
    #[arg(long, value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Store backups in the clear, and make no key
    #[arg(long)]
    pub(super) no_encryption: bool,
}

#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Leave source, backups and records on disk, and say where
    #[arg(long)]
    pub(super) keep: bool,
}

#[derive(Args, Debug)]
pub(super) struct Backup {
    #[command(flatten)]
    pub(super) targets: Targets,
    /// Take over a target whose source has become another one
    #[arg(long)]
    pub(super) adopt: bool,
}

#[derive(Args, Debug)]
pub(super) struct RestoreTest {
    #[command(flatten)]
    pub(super) targets: Targets,
    /// Which backup [default: the newest]
    #[arg(long, value_name = "ID")]
    pub(super) backup: Option<BackupId>,
    /// Leave the copy: the stopped scratch cluster on disk, or the database on a scratch server
    #[arg(long)]
    pub(super) keep_scratch: bool,
}

#[derive(Args, Debug)]
pub(super) struct Scrub {
    #[command(flatten)]
    pub(super) targets: Targets,
    /// Only this backup [default: all]
    #[arg(long, value_name = "ID")]
    pub(super) backup: Option<BackupId>,
}

#[derive(Args, Debug)]
pub(super) struct Restore {
    pub(super) target: TargetName,
    /// Connection string of the database: an empty one, or with --table any (without a password: use PGPASSWORD or a
    /// password file)
    #[arg(long, value_name = "URL")]
    pub(super) to: String,
    /// Which backup [default: the newest]
    #[arg(long, value_name = "ID", conflicts_with = "before")]
    pub(super) backup: Option<BackupId>,
    /// The newest backup whose recovery point is not after this, such as 2026-11-22T03:00:00Z
    #[arg(long, value_name = "TIME")]
    pub(super) before: Option<DateTime<Utc>>,
    /// Only show what would be done
    #[arg(long)]
    pub(super) plan: bool,
    /// Remove what a broken restore left, and begin anew
    #[arg(long)]
    pub(super) start_over: bool,
    /// Only these tables, beside what the database holds: `schema.table`, or `table` where one schema only has it; `*`
    /// stands for any characters
    ///
    /// They come back as tables of their own in the schema that --into-schema makes, with their rows, columns, primary
    /// keys, unique and exclusion constraints and indexes, and are proven equal to what the backup holds. Nothing else
    /// in the database is touched. Names with odd characters can be written as in SQL: "a.b"."c".
    #[arg(long = "table", value_name = "TABLE", requires = "into_schema")]
    pub(super) tables: Vec<String>,
    /// The schema to make for --table; there must be none of that name
    #[arg(long, value_name = "SCHEMA", requires = "tables")]
    pub(super) into_schema: Option<String>,
    /// Everything into the database's own tablespace, where the server lacks those of the source
    #[arg(long, conflicts_with = "tables")]
    pub(super) no_tablespaces: bool,
    /// Connections that load at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(super) jobs: u32,
}

#[derive(Args, Debug)]
pub(super) struct Prune {
    #[command(flatten)]
    pub(super) targets: Targets,
    /// Only show what would be kept and removed, and why
    #[arg(long)]
    pub(super) plan: bool,
}

#[derive(Args, Debug)]
pub(super) struct Acknowledge {
    pub(super) target: TargetName,
    /// The backup in which the loss was found: `ernstfall status` names it
    pub(super) backup: BackupId,
    /// Why it was meant, for the record
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Rules {
    /// Where docs/runbook.md can be read: alerts link to their part of it
    #[arg(long, value_name = "URL", default_value = DEFAULT_RUNBOOK_URL)]
    pub(super) runbook_url: String,
}

#[derive(Args, Debug)]
pub(super) struct AlertTest {
    /// Only through this channel of the configuration; may be repeated [default: all]
    #[arg(long = "channel", value_name = "NAME")]
    pub(super) channels: Vec<String>,
    /// In the place of which alert, so that its routing and texts are tried [default: ErnstfallAlertTest]
    #[arg(long, value_name = "NAME")]
    pub(super) alert: Option<String>,
    /// As if it were about this target: with its environment and owner
    #[arg(long, value_name = "NAME")]
    pub(super) target: Option<TargetName>,
    /// Through Prometheus, its rules and Alertmanager, in the place of the channels; with --channel, through both
    ///
    /// The running daemon shows a metric, from which the rule ErnstfallAlertTest makes an alert. On the way it is told how
    /// far it has come.
    #[arg(long)]
    pub(super) through_prometheus: bool,
    /// How long the alert may take through Prometheus
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5m",
        requires = "through_prometheus"
    )]
    pub(super) wait: HumanDuration,
    /// Where Alertmanager is [default: the channel of kind "alertmanager", else what `alert.prometheus` says]
    #[arg(long, value_name = "URL", requires = "through_prometheus")]
    pub(super) alertmanager: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct Grants {
    pub(super) target: TargetName,
    /// Which role [default: the user in the target's connection string]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(super) role: Option<String>,
    /// For this major version of PostgreSQL, without asking the server
    #[arg(long, value_name = "MAJOR", value_parser = clap::value_parser!(u32).range(13..=99))]
    pub(super) server_version: Option<u32>,
}

#[derive(Args, Debug)]
pub(super) struct List {
    pub(super) what: Listed,
    #[command(flatten)]
    pub(super) targets: Targets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Listed {
    Backups,
    RestoreTests,
    /// Deliveries of alerts, and alert tests.
    Alerts,
    Records,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
