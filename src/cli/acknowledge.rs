//! `ernstfall acknowledge`.

use nix::unistd::{User, geteuid, gethostname};

use crate::ops::acknowledge::{AcknowledgeError, Acknowledged, Statement, acknowledge};

use super::arguments::{Acknowledge, Global};
use super::exit::{Exit, Failure};
use super::setup::Setup;
use super::{print, progress};

pub(super) async fn run(global: &Global, options: &Acknowledge) -> Result<Exit, Failure> {
    let setup = Setup::load(global)?;
    setup.targets(std::slice::from_ref(&options.target))?;
    let display = progress::display(global, &options.target);
    let context = setup.context(setup.repository().await?, setup.journal()?, display);
    let statement = Statement {
        target: options.target.clone(),
        backup: options.backup.clone(),
        by: who(),
        reason: options.reason.clone(),
    };
    let said = acknowledge(&context, statement).await.map_err(failure)?;
    setup.deliver(&context).await;
    match said {
        Acknowledged::Now(record) if global.json => print::json(&record).map_err(Failure::operation)?,
        Acknowledged::Now(record) => print::text(&format!(
            "{}: the loss of content in backup {} is acknowledged by {}: the backup before it is not kept for it any more",
            record.target, record.backup, record.by
        )),
        Acknowledged::Already if global.json => {
            print::json(&serde_json::Value::Null).map_err(Failure::operation)?;
        }
        Acknowledged::Already => print::text(&format!(
            "{}: the loss of content in backup {} was acknowledged before",
            options.target, options.backup
        )),
    }
    Ok(Exit::Done)
}

fn failure(error: AcknowledgeError) -> Failure {
    match error {
        AcknowledgeError::NoLoss { .. } => Failure::usage(error),
        other => Failure::operation(other),
    }
}

/// The account and the machine, as far as they have names.
fn who() -> String {
    let uid = geteuid();
    let account = User::from_uid(uid).ok().flatten();
    let account = account.map_or_else(|| format!("uid {uid}"), |account| account.name);
    let host = gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{account}@{}", host.as_deref().unwrap_or("unknown"))
}
