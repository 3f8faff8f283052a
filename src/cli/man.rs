//! Completion scripts and the manual page, made from the command line's own description.

use clap::CommandFactory;

use super::arguments::Arguments;
use super::exit::{Exit, Failure};
use super::print;

pub(super) fn completions(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "ernstfall", &mut script);
    print::bytes(&script).map_err(Failure::operation)?;
    Ok(Exit::Done)
}

pub(super) fn page() -> Result<Exit, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Arguments::command())
        .render(&mut page)
        .map_err(Failure::operation)?;
    print::bytes(&page).map_err(Failure::operation)?;
    Ok(Exit::Done)
}
