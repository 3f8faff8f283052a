//! Commands, output and exit codes. Only this folder parses the command line, prints, and hands the wall clock in.

mod acknowledge;
mod alert_test;
mod arguments;
mod backup;
mod check;
mod demo;
mod each_target;
mod exit;
mod grants;
mod init;
mod list;
mod man;
mod print;
mod progress;
mod prune;
mod restore;
mod restore_tables;
mod restore_test;
mod rules;
mod run;
mod scrub;
mod setup;
mod signals;
mod status;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use exit::{Exit, Failure};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // clap prints help and versions to stdout, and faults to stderr.
            let printed = error.print();
            let code = if error.use_stderr() || printed.is_err() {
                Exit::Usage
            } else {
                Exit::Done
            };
            return code.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::operation(anyhow::Error::new(error).context("start"))),
    };
    match runtime.block_on(run(arguments)) {
        Ok(exit) => exit.into(),
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    print::error(failure);
    failure.exit.into()
}

async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let quietly = match arguments.command {
        Command::Run => "info",
        _ => "warn",
    };
    setup::start_logging(&arguments.global, quietly);
    let global = &arguments.global;
    match arguments.command {
        Command::Init(options) => init::run(global, &options).await,
        Command::Run => run::run(global).await,
        Command::Backup(options) => backup::run(global, &options).await,
        Command::RestoreTest(options) => restore_test::run(global, &options).await,
        Command::Restore(options) => restore::run(global, &options).await,
        Command::Scrub(options) => scrub::run(global, &options).await,
        Command::Status(options) => status::run(global, &options).await,
        Command::List(options) => list::run(global, &options).await,
        Command::Prune(options) => prune::run(global, &options).await,
        Command::Acknowledge(options) => acknowledge::run(global, &options).await,
        Command::Grants(options) => grants::run(global, &options).await,
        Command::Check(options) => check::run(global, &options).await,
        Command::AlertTest(options) => alert_test::run(global, &options).await,
        Command::Rules(options) => rules::run(&options),
        Command::Demo(options) => demo::run(global, &options).await,
        Command::Completions { shell } => man::completions(shell),
        Command::Man(options) => man::run(&options),
    }
}
