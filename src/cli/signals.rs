//! Two-stage stop: the first signal cancels what runs and lets it clean up, the second one ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::exit::Exit;
use super::print;

/// What the signals have said so far.
#[derive(Clone)]
pub(super) struct Signals {
    pub(super) cancel: CancellationToken,
    received: Arc<AtomicU8>,
}

impl Signals {
    /// Listens from now on.
    pub(super) fn listen() -> std::io::Result<Self> {
        let signals = Self {
            cancel: CancellationToken::new(),
            received: Arc::new(AtomicU8::new(0)),
        };
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let listening = signals.clone();
        // It lives as long as the process; there is nothing to wait for.
        tokio::spawn(async move {
            loop {
                let exit = tokio::select! {
                    _ = interrupt.recv() => Exit::Interrupted,
                    _ = terminate.recv() => Exit::Terminated,
                };
                if listening.cancel.is_cancelled() {
                    std::process::exit(exit.code().into());
                }
                listening.received.store(exit.code(), Ordering::Relaxed);
                print::talk("stopping and cleaning up (once more to stop at once)");
                listening.cancel.cancel();
            }
        });
        Ok(signals)
    }

    /// The exit code that a signal means, if there was one.
    pub(super) fn exit(&self) -> Option<Exit> {
        match self.received.load(Ordering::Relaxed) {
            130 => Some(Exit::Interrupted),
            143 => Some(Exit::Terminated),
            _ => None,
        }
    }
}
