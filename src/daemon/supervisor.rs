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
        match self.watchdog {
            Some(limit) => feed(limit, pulses, tell).await,
            None => std::future::pending().await,
        }
    }
}

/// Three times within the limit, so that one that comes late does no harm.
async fn feed(limit: Duration, pulses: &Pulses, tell: impl Fn(&[NotifyState<'_>])) {
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

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("tell the service manager: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use tokio::time::sleep;

    use super::*;
    use crate::daemon::Pulse;

    const LIMIT: Duration = Duration::from_secs(30);

    /// The service manager's end of the socket that it names in NOTIFY_SOCKET. (The product reads that name from its
    /// environment, which tests cannot set; `make test-systemd` has a daemon fed and killed by a real one.)
    struct Manager(UnixDatagram);

    impl Manager {
        /// What came since it was last asked.
        fn heard(&self) -> Vec<String> {
            let mut buffer = [0; 1024];
            let datagrams = std::iter::from_fn(|| {
                let length = self.0.recv(&mut buffer).ok()?;
                Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
            });
            datagrams.collect()
        }
    }

    fn send(socket: &UnixDatagram, states: &[NotifyState<'_>]) {
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        socket.send(lines.join("\n").as_bytes()).unwrap();
    }

    /// Lets so many minutes pass, in which these loops turn.
    async fn minutes(count: u32, turning: &[&Pulse]) {
        for _ in 0..count * 6 {
            sleep(Duration::from_secs(10)).await;
            turning.iter().for_each(|pulse| pulse.beat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_while_all_loops_turn_and_not_while_one_is_silent() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let manager = Manager(theirs);
        let pulses = Pulses::default();
        let (lively, other) = (pulses.begin("lively"), pulses.begin("other"));
        let story = async {
            // Never at the same moment as the food.
            sleep(Duration::from_secs(1)).await;
            assert_eq!(manager.heard(), ["WATCHDOG=1"], "at once");
            minutes(2, &[&lively, &other]).await;
            assert_eq!(
                manager.heard(),
                ["WATCHDOG=1"; 12],
                "three times within each limit"
            );

            // A loop is given a minute.
            minutes(1, &[&lively]).await;
            manager.heard();
            minutes(2, &[&lively]).await;
            assert_eq!(manager.heard(), [""; 0], "one is silent");

            other.beat();
            sleep(LIMIT / 3).await;
            assert_eq!(manager.heard(), ["WATCHDOG=1"], "it turns again");

            // What has ended is not missed.
            drop(other);
            minutes(2, &[&lively]).await;
            assert_eq!(manager.heard(), ["WATCHDOG=1"; 12]);
        };
        tokio::select! {
            () = feed(LIMIT, &pulses, |states| send(&ours, states)) => panic!("it has no end"),
            () = story => {}
        }
    }
}
