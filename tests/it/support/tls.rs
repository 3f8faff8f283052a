//! Certificates for a test server, made by openssl.

use std::path::Path;
use std::process::Command;

use super::account::Account;
use super::process::run_or_panic;

/// Written below the server's directory.
pub(crate) const CA: &str = "ca.crt";
pub(crate) const CERTIFICATE: &str = "server.crt";
pub(crate) const KEY: &str = "server.key";

/// How a server offers TLS.
#[derive(Clone, Default)]
pub(crate) enum Tls {
    #[default]
    Off,
    /// For these names and addresses, as `DNS:localhost` or `IP:127.0.0.1`, beside plain connections.
    Offered(&'static str),
    /// The same, and plain TCP connections are refused.
    Required(&'static str),
}

/// The names under which a test server is really reached.
pub(crate) const LOCAL_NAMES: &str = "DNS:localhost,IP:127.0.0.1";

/// Makes a certificate authority and a server certificate for the names in the directory.
pub(crate) fn make_certificates(directory: &Path, names: &str) {
    let config = "[req]\ndistinguished_name = name\n[name]\n[ca]\nbasicConstraints = critical, CA:TRUE\n";
    std::fs::write(
        directory.join("openssl.cnf"),
        format!("{config}[server]\nsubjectAltName = {names}\n"),
    )
    .unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -batch -config openssl.cnf";
    for line in [
        format!("req -x509 {key} -extensions ca -days 2 -subj /CN=test-authority -keyout ca.key -out {CA}"),
        format!("req {key} -subj /CN=test-server -keyout {KEY} -out server.csr"),
        format!(
            "x509 -req -in server.csr -CA {CA} -CAkey ca.key -CAcreateserial -days 2 \
             -extfile openssl.cnf -extensions server -out {CERTIFICATE}"
        ),
    ] {
        let mut command = Command::new("openssl");
        command.args(line.split_whitespace()).current_dir(directory);
        run_or_panic(Account::unprivileged().run_as(&mut command));
    }
}
