//! How the daemon's pages are served.

use crate::observe::http::{Settings, TlsFiles};

use super::{Failure, Setup};

impl Setup {
    /// Nothing where there is no `[http]`; with the token fetched.
    pub(in crate::cli) fn http(&self) -> Result<Option<Settings>, Failure> {
        let Some(http) = &self.config.http else {
            return Ok(None);
        };
        let token = http.token.as_ref().map(|token| token.resolve(&self.environment));
        let token = token
            .transpose()
            .map_err(|error| Failure::operation(anyhow::Error::new(error).context("http.token")))?;
        Ok(Some(Settings {
            listen: http.listen,
            tls: http.tls.as_ref().map(|tls| TlsFiles {
                certificate: tls.cert.clone(),
                key: tls.key.clone(),
            }),
            token,
        }))
    }
}
