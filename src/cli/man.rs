//! Completion scripts and the manual pages, made from the command line's own description.

use std::io;
use std::path::Path;

use anyhow::anyhow;
use clap::CommandFactory;

use super::arguments::{Arguments, Man};
use super::exit::{Exit, Failure};
use super::print;

pub(super) fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "ernstfall", &mut script);
    print::bytes(&script).map_err(Failure::operation)?;
    Ok(Exit::Done)
}

pub(super) fn run(options: &Man) -> Result<Exit, Failure> {
    let mut command = Arguments::command();
    // Only then do commands know what they are called in full.
    command.build();
    let Some(directory) = &options.directory else {
        let mut text = Vec::new();
        page(&command).render(&mut text).map_err(Failure::operation)?;
        print::bytes(&text).map_err(Failure::operation)?;
        return Ok(Exit::Done);
    };
    write_pages(&command, directory).map_err(|error| {
        let what = format!(
            "write manual pages into {}: name a directory that exists and that this user may write to",
            directory.display()
        );
        Failure::operation(anyhow!(error).context(what))
    })?;
    Ok(Exit::Done)
}

/// A page for the command, and one for each command below it.
fn write_pages(command: &clap::Command, directory: &Path) -> io::Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, directory)?;
    }
    page(command).generate_to(directory)?;
    Ok(())
}

fn page(command: &clap::Command) -> clap_mangen::Man {
    clap_mangen::Man::new(command.clone()).source(concat!("ernstfall ", env!("CARGO_PKG_VERSION")))
}
