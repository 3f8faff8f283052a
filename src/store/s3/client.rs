//! Clients for the bucket: endpoint, region, credentials, authorities.

use std::path::Path;
use std::time::Duration;

use aws_config::meta::region::RegionProviderChain;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, ProvideCredentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedCredentialsProvider, SharedHttpClient,
};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::model::causes::chain;
use crate::store::error::ErrorKind;

use super::failure::Failure;
use super::{Credentials, Settings};

const CONNECT_TIME: Duration = Duration::from_secs(10);
/// What servers other than AWS's make of a region: nothing.
const REGION_OF_OTHERS: &str = "us-east-1";
/// A name that shows where credentials come from, in logs.
const PROVIDER_NAME: &str = "ernstfall configuration";

/// One client for each kind of credentials; they may be the same.
pub(super) struct Clients {
    pub(super) writer: Client,
    pub(super) reader: Client,
    pub(super) region: Option<String>,
}

/// Makes the clients. Credentials that the settings do not have are looked for, which may take some seconds.
pub(super) async fn connect(settings: &Settings) -> Result<Clients, Failure> {
    let http_client = http_client(settings)?;
    let region = region(settings).await.ok_or_else(no_region)?;
    let writer = match &settings.credentials {
        Some(credentials) => provider(credentials),
        None => from_the_chain(&http_client, &region).await?,
    };
    let client = |credentials| client(settings, http_client.clone(), region.clone(), credentials);
    let writer = client(writer);
    Ok(Clients {
        reader: match &settings.read_credentials {
            Some(credentials) => client(provider(credentials)),
            None => writer.clone(),
        },
        writer,
        region: Some(region.to_string()),
    })
}

fn client(
    settings: &Settings,
    http_client: SharedHttpClient,
    region: Region,
    credentials: SharedCredentialsProvider,
) -> Client {
    let mut config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http_client)
        .region(region)
        .credentials_provider(credentials)
        .force_path_style(settings.path_style)
        // We try again ourselves, also what fails in the middle of a body.
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT_TIME).build())
        // A wrong clock is to be told, not worked around in silence.
        .disable_clock_skew_correction(true)
        // Other servers do not know the checksums that AWS's have by default; ours are sent with each put.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    config.set_endpoint_url(settings.endpoint.clone());
    Client::from_conf(config.build())
}

fn provider(credentials: &Credentials) -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(aws_sdk_s3::config::Credentials::new(
        credentials.access_key_id.expose(),
        credentials.secret_access_key.expose(),
        credentials
            .session_token
            .as_ref()
            .map(|token| token.expose().to_owned()),
        None,
        PROVIDER_NAME,
    ))
}

async fn from_the_chain(
    http_client: &SharedHttpClient,
    region: &Region,
) -> Result<SharedCredentialsProvider, Failure> {
    let loaded = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client.clone())
        .region(region.clone())
        .load()
        .await;
    let none = |why: String| {
        Failure::of_kind(ErrorKind::PermissionDenied, why).with_hint(
            "no credentials were found in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), in ~/.aws, from a web identity, a container or the machine's role: set `access_key_id` and `secret_access_key` in [repository]",
        )
    };
    let provider = loaded
        .credentials_provider()
        .ok_or_else(|| none("the chain is empty".to_owned()))?;
    // Asked for once, so that this is told as what it is.
    match provider.provide_credentials().await {
        Ok(_) => Ok(provider),
        Err(error) => Err(none(chain(&error))),
    }
}

async fn region(settings: &Settings) -> Option<Region> {
    if let Some(region) = &settings.region {
        return Some(Region::new(region.clone()));
    }
    let environment = RegionProviderChain::first_try(
        aws_config::environment::region::EnvironmentVariableRegionProvider::new(),
    )
    .or_else(aws_config::profile::ProfileFileRegionProvider::new());
    match settings.endpoint {
        Some(_) => environment.or_else(Region::new(REGION_OF_OTHERS)).region().await,
        None => environment.or_default_provider().region().await,
    }
}

fn no_region() -> Failure {
    Failure::of_kind(ErrorKind::Other, "no region is known")
        .with_hint("set `repository.region`, such as \"eu-central-1\", or AWS_REGION")
}

fn http_client(settings: &Settings) -> Result<SharedHttpClient, Failure> {
    // The library stops the program where it finds no authority at all, and where a file of them is no such file.
    let system = rustls_native_certs::load_native_certs();
    let mut authorities = TrustStore::empty().with_native_roots(!system.certs.is_empty());
    if let Some(file) = &settings.ca_file {
        authorities.add_pem_certificate(read_authorities(file)?);
    }
    let context = TlsContext::builder().with_trust_store(authorities).build();
    let context = context.map_err(|error| Failure::of_kind(ErrorKind::Other, chain(&error)))?;
    Ok(aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::rustls(CryptoMode::Ring))
        .tls_context(context)
        .build_https())
}

/// The file's bytes, when every certificate in it can be used.
fn read_authorities(file: &Path) -> Result<Vec<u8>, Failure> {
    let unusable = |why: String| {
        Failure::of_kind(ErrorKind::Other, why).with_hint(format!(
            "`repository.ca_file` ({}) must hold certificates of authorities as PEM",
            file.display()
        ))
    };
    let bytes = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_authorities_that_is_none_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for text in [None, Some("hello"), Some(broken)] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let failure = read_authorities(&path).unwrap_err();
            assert!(failure.hint.unwrap().contains("ca.pem"), "{text:?}");
        }
    }
}
