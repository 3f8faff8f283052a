//! What `backup` and `restore-test` share: one target after the other, and the gravest exit of all.

use serde::Serialize;

use crate::model::target_name::TargetName;
use crate::ops::context::Context;
use crate::ops::target::Target;
use crate::repository::Repository;

use super::arguments::Global;
use super::exit::{Exit, Failure};
use super::setup::Setup;
use super::{print, progress};

/// Runs `work` for the targets named, or for all, and shows the records that it returns.
pub(super) async fn each_target<R: Serialize>(
    global: &Global,
    names: &[TargetName],
    open: impl AsyncFn(&Setup) -> Result<Repository, Failure>,
    work: impl AsyncFn(&Context, &Target) -> Result<(R, Exit), Failure>,
    show: impl Fn(&R),
) -> Result<Exit, Failure> {
    let setup = Setup::load(global)?;
    let mut records = Vec::new();
    let mut exit = Exit::Done;
    for (index, target) in setup.targets(names)?.into_iter().enumerate() {
        let display = progress::display(global, &target.name);
        let context = setup.context(open(&setup).await?, setup.journal()?, display);
        if index == 0 {
            setup.settle(&context).await?;
        }
        let target = match setup.target(target) {
            Ok(target) => target,
            // The other targets can still be looked after.
            Err(failure) => {
                print::error(&failure);
                exit = exit.gravest(failure.exit);
                continue;
            }
        };
        let (record, of_record) = work(&context, &target).await?;
        setup.deliver(&context).await;
        exit = exit.gravest(of_record);
        records.push(record);
        if let Some(signal) = setup.signals.exit() {
            exit = signal;
            break;
        }
    }
    if global.json {
        print::json_of(&records, names.len() == 1).map_err(Failure::operation)?;
    } else {
        records.iter().for_each(show);
    }
    Ok(exit)
}
