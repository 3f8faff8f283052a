//! What the service manager is told: ready, reloading, stopping, and that all loops still turn. Without one, nothing is
//! told to anybody.

use std::time::Duration;

use sd_notify::NotifyState;

use super::pulse::Pulses;

/// systemd, where it started this process.
#[derive(Clone, Debug)]
pub struct Supervisor {
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// Reads what systemd wrote into the environment.
    pub fn of_this_process() -> Self {
        Self {
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    pub fn ready(&self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// One line that `systemctl status` shows.
    pub fn status(&self, status: &str) {
        tell(&[NotifyState::Status(status)]);
    }

    pub fn reloading(&self) {
        let mut states = vec![NotifyState::Reloading];
        states.extend(NotifyState::monotonic_usec_now().ok());
        tell(&states);
    }

    pub fn stopping(&self, status: &str) {
        tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// Feeds the watchdog for as long as all loops turn.
    pub async fn watch(&self, pulses: &Pulses) {
        let Some(limit) = self.watchdog else {
            return std::future::pending().await;
        };
        loop {
            let silent = pulses.silent();
            if silent.is_empty() {
                tell(&[NotifyState::Watchdog]);
            } else {
                tracing::error!("these loops hang: {}", silent.join(", "));
            }
            tokio::time::sleep(limit / 3).await;
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("tell the service manager: {error}");
    }
}
