//! TLS as libpq means it: `require` encrypts, `verify-ca` also checks who signed, `verify-full` also checks the name.
//!
//! Never weaker than asked: a root certificate file that was named and cannot be read is an error in every mode.

use super::conninfo::{RootCertificates, SslMode, TlsSettings};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Why no TLS configuration could be made. Shown through [`Error`](super::Error), which adds the advice.
#[derive(Debug, Error)]
pub(super) enum TlsError {
    #[error("sslmode={mode} needs a root certificate")]
    NoRoots { mode: &'static str },
    #[error("read certificates from {}", path.display())]
    Certificates {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("{} holds no usable certificate", path.display())]
    Empty { path: PathBuf },
    #[error("the system has no root certificates")]
    NoSystemRoots,
    #[error("read the client's key from {}", path.display())]
    Key {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("use the client's certificate {}", path.display())]
    Client { path: PathBuf, source: rustls::Error },
    #[error("set up TLS")]
    Setup {
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl TlsError {
    /// What the operator does next.
    pub(super) fn advice(&self) -> &'static str {
        match self {
            Self::NoRoots { .. } => {
                "set sslrootcert to the file of the authority that signed the server's certificate, or to `system`"
            }
            Self::Certificates { .. } | Self::Empty { .. } => {
                "check that the file exists, is readable and holds PEM certificates"
            }
            Self::NoSystemRoots => "install the package ca-certificates, or set sslrootcert to a file",
            Self::Key { .. } => "check that sslkey is readable and an unencrypted PEM key",
            Self::Client { .. } => "check that sslcert and sslkey belong together",
            Self::Setup { .. } => "check the certificates in sslrootcert",
        }
    }
}

/// The connector for these settings. Reads certificate files; blocking, but only small files.
pub(super) fn connector(settings: &TlsSettings) -> Result<MakeRustlsConnect, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = verifier(settings, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Setup {
            source: source.into(),
        })?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match &settings.client {
        Some((certificate, key)) if settings.mode != SslMode::Disable => {
            let chain = read_certificates(certificate)?;
            let secret_key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Key {
                path: key.clone(),
                source,
            })?;
            builder
                .with_client_auth_cert(chain, secret_key)
                .map_err(|source| TlsError::Client {
                    path: certificate.clone(),
                    source,
                })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn verifier(
    settings: &TlsSettings,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let unverified = || {
        Arc::new(Unverified {
            provider: Arc::clone(provider),
        })
    };
    let certificates = match (&settings.roots, settings.mode) {
        (_, SslMode::Disable) => return Ok(unverified()),
        (RootCertificates::File(path), _) => read_certificates(path)?,
        (RootCertificates::System, _) => rustls_native_certs::load_native_certs().certs,
        (RootCertificates::None, mode @ (SslMode::VerifyCa | SslMode::VerifyFull)) => {
            return Err(TlsError::NoRoots { mode: mode.as_str() });
        }
        (RootCertificates::None, _) => return Ok(unverified()),
    };
    let mut roots = RootCertStore::empty();
    // The system's store may hold certificates rustls cannot read; what is left of it serves.
    let (added, _ignored) = roots.add_parsable_certificates(certificates.iter().cloned());
    if added == 0 {
        return Err(match &settings.roots {
            RootCertificates::File(path) => TlsError::Empty { path: path.clone() },
            RootCertificates::System | RootCertificates::None => TlsError::NoSystemRoots,
        });
    }
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|source| TlsError::Setup {
            source: source.into(),
        })?;
    let name = if settings.mode == SslMode::VerifyFull {
        NameCheck::Required
    } else {
        NameCheck::Left
    };
    Ok(Arc::new(Verified {
        chain,
        trusted: certificates,
        name,
    }))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Certificates {
        path: path.to_owned(),
        source,
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(failed)?
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(certificates)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameCheck {
    Required,
    /// `verify-ca`, and `require` with a root certificate.
    Left,
}

/// Checks the chain, and the name where it is asked for.
#[derive(Debug)]
struct Verified {
    chain: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    name: NameCheck,
}

impl Verified {
    /// The usual self-made certificate is its own authority, and libpq accepts it when it is the trusted file itself.
    /// webpki refuses an authority as a server, but only after it has checked the time; trust is given by being the
    /// same bytes, and the handshake's signature proves the key. The name is still checked here.
    fn trusted_itself(
        &self,
        error: &CertificateError,
        certificate: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
    ) -> Option<Result<(), rustls::Error>> {
        // The kind is not public in rustls; its text is.
        let refused_as_authority = matches!(error, CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity"));
        if !refused_as_authority || !self.trusted.iter().any(|trusted| trusted == certificate) {
            return None;
        }
        if self.name == NameCheck::Left {
            return Some(Ok(()));
        }
        let parsed = rustls::server::ParsedCertificate::try_from(certificate);
        Some(parsed.and_then(|parsed| rustls::client::verify_server_name(&parsed, server_name)))
    }
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let checked =
            self.chain
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let Err(rustls::Error::InvalidCertificate(error)) = &checked else {
            return checked;
        };
        // webpki checks the chain first and the name last, so a wrong name says that the chain is good.
        let only_name = matches!(
            error,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        );
        if only_name && self.name == NameCheck::Left {
            return Ok(ServerCertVerified::assertion());
        }
        match self.trusted_itself(error, end_entity, server_name) {
            Some(outcome) => outcome.map(|()| ServerCertVerified::assertion()),
            None => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// `require` and `prefer` without a root certificate: encrypted, to whom is not asked. As libpq.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
