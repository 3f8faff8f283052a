//! `ernstfall grants`.

use crate::ops::grants::{self, Basis, Grants, Options};

use super::arguments::{self, Global};
use super::exit::{Exit, Failure};
use super::print;
use super::setup::Setup;

/// Comments are broken into lines of this length.
const LINE_WIDTH: usize = 110;

pub(super) async fn run(global: &Global, options: &arguments::Grants) -> Result<Exit, Failure> {
    let setup = Setup::load(global)?;
    let targets = setup.targets(std::slice::from_ref(&options.target))?;
    let Some(target) = targets.first() else {
        return Ok(Exit::Done);
    };
    let target = setup.target(target)?;
    let wanted = Options {
        role: options.role.clone(),
        server_major: options.server_version,
    };
    let cancel = setup.signals.cancel.clone();
    let grants = tokio::select! {
        grants = grants::grants(&target, &wanted) => grants,
        () = cancel.cancelled() => return Ok(setup.signals.exit().unwrap_or(Exit::CouldNotRun)),
    };
    if let Some(why) = &grants.not_reached {
        print::talk(&format!(
            "PostgreSQL {} is assumed, as the server could not be asked ({why}): name another with --server-version",
            grants.server_major
        ));
    }
    if global.json {
        print::json(&grants).map_err(Failure::operation)?;
    } else {
        print::text(&script(&grants));
    }
    Ok(Exit::Done)
}

/// The whole as a psql script.
fn script(grants: &Grants) -> String {
    let known = match grants.basis {
        Basis::Server => "as the server says",
        Basis::Given => "as --server-version says",
        Basis::Assumed => "assumed: the server could not be asked",
    };
    let mut lines = comment(&format!(
        "What a role needs for the target {} (database {}), on PostgreSQL {} ({known}). To be run by a superuser, or by the administrator of a managed service, in that database: psql -X -v ON_ERROR_STOP=1 -f FILE. Running it again does no harm.",
        grants.target,
        crate::postgres::quote_identifier(&grants.database),
        grants.server_major
    ));
    for grant in &grants.grants {
        lines.push(String::new());
        lines.extend(comment(&grant.purpose));
        lines.push(grant.sql.clone());
    }
    for note in &grants.notes {
        lines.push(String::new());
        lines.extend(comment(note));
    }
    lines.join("\n")
}

/// A text as lines of comment.
fn comment(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = "--".to_owned();
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > LINE_WIDTH && line.len() > 2 {
            lines.push(std::mem::replace(&mut line, "--".to_owned()));
        }
        line.push(' ');
        line.push_str(word);
    }
    lines.push(line);
    lines
}
