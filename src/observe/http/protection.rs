//! Who may look: TLS, and a token that a request has to bring.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;

use super::{Settings, TlsFiles};
use crate::model::secret::Secret;

/// Why TLS or the token cannot be as the settings say.
#[derive(Debug, thiserror::Error)]
pub enum ProtectionError {
    #[error("read the certificate for [http] from {}: `tls.cert` has to be a PEM file with a certificate that this user can read", path.display())]
    Certificate { path: PathBuf, source: pem::Error },
    #[error("read the certificate for [http] from {}: there is none in it", path.display())]
    NoCertificate { path: PathBuf },
    #[error("read the key for [http] from {}: `tls.key` has to be a PEM file with an unencrypted key that this user can read", path.display())]
    Key { path: PathBuf, source: pem::Error },
    #[error("use the certificate {} for [http]: `tls.cert` and `tls.key` have to belong together", path.display())]
    Pair { path: PathBuf, source: rustls::Error },
    #[error("use the token for [http]: it is empty, and everybody would know it")]
    EmptyToken,
}

/// TLS and token as they are in force.
#[derive(Default)]
pub(super) struct Protection {
    tls: Option<TlsAcceptor>,
    token: Option<TokenHash>,
}

/// Of the token only a hash is kept, which is compared in constant time: how long that takes tells nothing of the token.
struct TokenHash([u8; 32]);

impl Protection {
    pub(super) fn read(settings: &Settings) -> Result<Self, ProtectionError> {
        let tls = settings.tls.as_ref().map(server_config).transpose()?;
        let token = settings.token.as_ref().map(TokenHash::of).transpose()?;
        Ok(Self {
            tls: tls.map(|config| TlsAcceptor::from(Arc::new(config))),
            token,
        })
    }

    pub(super) fn tls(&self) -> Option<TlsAcceptor> {
        self.tls.clone()
    }

    /// Whether a request with this header `Authorization` may be answered.
    pub(super) fn admits(&self, authorization: Option<&[u8]>) -> bool {
        let Some(wanted) = &self.token else {
            return true;
        };
        let Some((scheme, token)) = authorization.and_then(|value| value.split_at_checked(7)) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"bearer ") && wanted.is_of(token.trim_ascii())
    }
}

impl fmt::Debug for Protection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tls, token) = (self.tls.is_some(), self.token.is_some());
        write!(formatter, "Protection {{ tls: {tls}, token: {token} }}")
    }
}

impl TokenHash {
    fn of(token: &Secret) -> Result<Self, ProtectionError> {
        let token = token.expose().trim();
        if token.is_empty() {
            return Err(ProtectionError::EmptyToken);
        }
        Ok(Self(Sha256::digest(token.as_bytes()).into()))
    }

    fn is_of(&self, token: &[u8]) -> bool {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let pairs = self.0.iter().zip(hash);
        pairs.fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
    }
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, ProtectionError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| ProtectionError::Key {
        path: files.key.clone(),
        source,
    })?;
    let pair = |source| ProtectionError::Pair {
        path: files.certificate.clone(),
        source,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ProtectionError> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, pem::Error>>();
    let chain = read().map_err(|source| ProtectionError::Certificate {
        path: path.to_owned(),
        source,
    })?;
    if chain.is_empty() {
        return Err(ProtectionError::NoCertificate {
            path: path.to_owned(),
        });
    }
    Ok(chain)
}
