//! Objects that are being stored.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ops::context::Halt;
use crate::repository::Error as RepositoryError;

use super::BackupError;

/// Each put is a task of its own: one that was begun is ended although its worker is gone, and a failed backup waits
/// for all before it removes what it has stored.
#[derive(Clone, Default)]
pub(super) struct Puts {
    tasks: TaskTracker,
    over: CancellationToken,
}

impl Puts {
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        put: impl Future<Output = Result<T, RepositoryError>> + Send + 'static,
    ) -> JoinHandle<Result<T, BackupError>> {
        let over = self.over.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                stored = put => Ok(stored?),
                // Whoever waited for it is gone.
                () = over.cancelled() => Err(Halt::Signal.into()),
            }
        })
    }

    pub(super) async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    /// Gives up those that are under way. Else a manifest that is tried again and again could appear after others have
    /// removed its objects.
    pub(super) fn give_up(&self) {
        self.over.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_being_stored_ends_when_it_is_given_up_and_is_waited_for_until_then() {
        let puts = Puts::default();
        let stored = puts.spawn(async { Ok(7) });
        puts.wait().await;
        assert_eq!(stored.await.unwrap().unwrap(), 7);
        let hangs = puts.spawn(std::future::pending::<Result<(), RepositoryError>>());
        puts.give_up();
        puts.wait().await;
        assert!(hangs.await.unwrap().is_err());
    }
}
