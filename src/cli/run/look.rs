//! The looks at journal and repository that go on beside all jobs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::cli::exit::Failure;
use crate::cli::progress;
use crate::cli::setup::Setup;
use crate::model::target_name::TargetName;
use crate::ops;
use crate::ops::context::Context;
use crate::repository::{Error as RepositoryError, Repository};

use super::known::{Chains, Watcher};
use super::memory;

/// Runs of other processes are seen within this time.
const JOURNAL_EVERY: Duration = Duration::from_secs(1);

/// What other machines do is seen within this time; each look lists the repository once for each target.
const REPOSITORY_EVERY: Duration = Duration::from_secs(60);

/// Records are read as a whole, and gaps in them found, so often: there may be years of them.
const CHAINS_EVERY: Duration = Duration::from_secs(3600);

/// Looks until it is stopped.
pub(super) async fn keep_looking(
    watcher: Arc<Watcher>,
    mut setup: watch::Receiver<Arc<Setup>>,
    pulse: crate::daemon::Pulse,
    stop: CancellationToken,
) {
    let mut everywhere_at = Instant::now() + REPOSITORY_EVERY;
    let mut chains_at = Instant::now() + CHAINS_EVERY;
    let mut looking: Option<tokio::task::JoinHandle<()>> = None;
    while !stop.is_cancelled() {
        pulse.beat();
        if setup.has_changed().unwrap_or(false) {
            // Of targets that are new, nothing is known.
            (everywhere_at, chains_at) = (Instant::now(), Instant::now());
        }
        let in_force = setup.borrow_and_update().clone();
        look_here(&watcher, &in_force);
        // A repository out of reach takes its time to say so, and the journal must not wait for that.
        let looked = looking.as_ref().is_none_or(tokio::task::JoinHandle::is_finished);
        let to_look_at = looked.then(|| watcher.to_look_at());
        if looked && Instant::now() >= everywhere_at {
            everywhere_at = Instant::now() + REPOSITORY_EVERY;
            let chains = if Instant::now() >= chains_at || !watcher.known().has_all_records {
                chains_at = Instant::now() + CHAINS_EVERY;
                Chains::Whole
            } else {
                Chains::New
            };
            let watcher = Arc::clone(&watcher);
            looking = Some(tokio::spawn(async move {
                look_everywhere(&watcher, &in_force, chains).await;
                memory::give_back();
            }));
        } else if let Some(targets) = to_look_at.filter(|targets| !targets.is_empty()) {
            let watcher = Arc::clone(&watcher);
            looking = Some(tokio::spawn(async move {
                look_at(&watcher, &in_force, &targets).await;
            }));
        }
        tokio::select! {
            () = sleep(JOURNAL_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
    if let Some(looking) = looking {
        looking.abort();
    }
}

/// What was recorded on this machine.
pub(super) fn look_here(watcher: &Watcher, setup: &Setup) {
    let looked = setup
        .journal()
        .and_then(|journal| watcher.look_here(&journal).map_err(Failure::operation));
    let fault = looked.as_ref().err();
    watcher.note_unread(fault.map(|failure| ops::chain(failure.error.as_ref())));
}

/// Opens the repository to look at it; `None`: there is none yet.
async fn open(setup: &Setup) -> Result<Option<Repository>, Failure> {
    match setup.repository().await {
        Ok(repository) => Ok(Some(repository)),
        Err(failure) => {
            let error = failure.error.downcast_ref::<RepositoryError>();
            let none = matches!(error, Some(RepositoryError::NoRepository { .. }));
            let location = setup.store()?.describe();
            let expected = setup.journal()?.repository_at(&location);
            match (none, expected.map_err(Failure::operation)?) {
                (true, None) => Ok(None),
                (true, Some(id)) => {
                    let file = setup.journal()?.place_file(&location);
                    Err(Failure::operation(crate::cli::setup::gone(&id, &location, &file)))
                }
                (false, _) => Err(failure),
            }
        }
    }
}

async fn look_at(watcher: &Watcher, setup: &Setup, targets: &BTreeSet<TargetName>) {
    let Ok(Some(repository)) = open(setup).await else {
        return;
    };
    for target in targets {
        watcher.look_at(&repository, target).await;
    }
}

/// All of the repository. What killed runs left is removed and recorded, and records that wait are delivered.
pub(super) async fn look_everywhere(watcher: &Watcher, setup: &Setup, chains: Chains) {
    let looked = async {
        let journal = setup.journal()?;
        for line in setup.settle_here(&journal)? {
            tracing::info!("{line}");
        }
        let Some(repository) = open(setup).await? else {
            watcher.see_nothing(setup);
            return Ok(());
        };
        let context = context(setup, repository)?;
        setup.settle(&context).await?;
        setup.deliver(&context).await;
        watcher
            .look_everywhere(setup, &context.repository, &journal, chains)
            .await;
        Ok::<(), Failure>(())
    };
    if let Err(failure) = looked.await {
        watcher.note_fault(ops::chain(failure.error.as_ref()));
    }
}

/// Removes and records what a dropped run has left.
pub(super) async fn settle(setup: &Setup) -> Result<(), Failure> {
    for line in setup.settle_here(&setup.journal()?)? {
        tracing::info!("{line}");
    }
    let context = context(setup, setup.repository().await?)?;
    setup.settle(&context).await
}

fn context(setup: &Setup, repository: Repository) -> Result<Context, Failure> {
    Ok(setup.context(repository, setup.journal()?, progress::logged_for_all()))
}
