//! TLS before a server that has none: a certificate of an authority of its own, and bytes passed both ways.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::support::tls::{CERTIFICATE, KEY};

/// How long one side is listened to before the other's turn comes.
const TURN: Duration = Duration::from_millis(2);

/// Listens with the certificate in this directory until the test ends; gives the endpoint.
pub(crate) fn front(server: SocketAddr, certificates: &Path) -> String {
    let certificate = CertificateDer::from_pem_file(certificates.join(CERTIFICATE)).unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates.join(KEY)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            // Whoever hangs up has ended this connection and no other.
            std::thread::spawn(move || drop(pass(StreamOwned::new(connection, client), server)));
        }
    });
    endpoint
}

fn pass(mut client: StreamOwned<ServerConnection, TcpStream>, server: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(server)?;
    client.sock.set_read_timeout(Some(TURN))?;
    server.set_read_timeout(Some(TURN))?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => server.write_all(&buffer[..length])?,
            Err(error) => is_only_silence(error)?,
        }
        match server.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => client.write_all(&buffer[..length])?,
            Err(error) => is_only_silence(error)?,
        }
    }
}

fn is_only_silence(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(()),
        _ => Err(error),
    }
}
