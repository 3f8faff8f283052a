//! The servers that bring alerts to people, asked how far one has come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::alert::channel::Failure as NotReached;
use crate::alert::http::{Receiver, Settings};
use crate::config::ChannelKind;
use crate::model::secret::Secret;
use crate::observe::http;

use super::Setup;

impl Setup {
    /// The Prometheus of `[alert.prometheus]`, where there is one. Nothing is asked yet.
    ///
    /// # Errors
    /// A secret or an address is of no use.
    pub(in crate::cli) fn prometheus(&self) -> Result<Option<Receiver>, NotReached> {
        let endpoint = self.config.alert.prometheus.as_ref();
        let settings = endpoint.map(|endpoint| self.reached_by("alert.prometheus", endpoint));
        settings
            .transpose()?
            .map(|settings| Receiver::new(&settings))
            .transpose()
    }

    /// The Alertmanager at this address; else that of the first channel of its kind. Nothing is asked yet.
    ///
    /// # Errors
    /// As of Prometheus.
    pub(in crate::cli) fn alertmanager(&self, url: Option<&str>) -> Result<Option<Receiver>, NotReached> {
        if let Some(url) = url {
            return receiver_at(url).map(Some);
        }
        let mut channels = self.config.alert.channels.iter();
        let settings = channels.find_map(|channel| match &channel.kind {
            ChannelKind::Alertmanager(endpoint) => {
                Some(self.reached_by(&format!("alert.channel[{}]", channel.name), endpoint))
            }
            _ => None,
        });
        settings
            .transpose()?
            .map(|settings| Receiver::new(&settings))
            .transpose()
    }
}

/// A server that asks for no secret.
pub(in crate::cli) fn receiver_at(url: &str) -> Result<Receiver, NotReached> {
    Receiver::new(&settings(url.to_owned(), None))
}

/// The pages of the daemon on this machine; nothing where it serves TLS, since its certificate may be of names that are
/// not known here.
pub(in crate::cli) fn own_pages(http: &http::Settings) -> Result<Option<Receiver>, NotReached> {
    if http.tls.is_some() {
        return Ok(None);
    }
    let address = match http.listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let url = format!("http://{}", SocketAddr::new(address, http.listen.port()));
    Receiver::new(&settings(url, http.token.clone())).map(Some)
}

fn settings(url: String, token: Option<Secret>) -> Settings {
    Settings {
        url: Secret::new(url),
        token,
        headers: Vec::new(),
        ca_file: None,
        in_body: Vec::new(),
    }
}
