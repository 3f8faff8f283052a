//! `ernstfall rules`.

use crate::observe::rules;

use super::arguments::Rules;
use super::exit::{Exit, Failure};
use super::print;

/// Needs no configuration: thresholds come from the metrics.
pub(super) fn run(options: &Rules) -> Result<Exit, Failure> {
    let text = rules::to_yaml(&options.runbook_url);
    print::bytes(text.as_bytes()).map_err(Failure::operation)?;
    Ok(Exit::Done)
}
