//! Where the heartbeat of a target is written.

use crate::config::{self, SecretSource};
use crate::ops::target::Heartbeat;
use crate::postgres::conninfo::ConnectionSettings;

use super::Setup;

impl Setup {
    /// The heartbeat of a target, with its address resolved; `None` where it is off.
    pub(super) fn heartbeat(&self, target: &config::Target) -> Option<Heartbeat> {
        let configured = target.heartbeat.as_ref()?;
        let elsewhere = configured.url.as_ref();
        Some(Heartbeat {
            every: configured.every.into(),
            elsewhere: elsewhere.map(|url| self.heartbeat_address(target, url)),
        })
    }

    /// The error is for people. Backups go on without it.
    fn heartbeat_address(
        &self,
        target: &config::Target,
        url: &SecretSource,
    ) -> Result<ConnectionSettings, String> {
        let dsn = url
            .resolve(&self.environment)
            .map_err(|error| format!("heartbeat.url: {}", crate::ops::chain(&error)))?;
        let connection = self
            .connection(dsn.expose())
            .map_err(|failure| format!("heartbeat.url: {}", crate::ops::chain(failure.error.as_ref())))?;
        Ok(connection.with_connect_timeout_if_open(target.timeouts.connect.into()))
    }
}
