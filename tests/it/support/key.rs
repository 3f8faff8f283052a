//! Keys of age, made by age-keygen, and the configuration that uses them.

use std::path::PathBuf;
use std::process::Command;

use super::directory::TestDir;
use super::process::run_or_panic;

/// Whether age is installed; `make test` does that.
pub(crate) fn age_is_installed() -> bool {
    Command::new("age-keygen").arg("--version").output().is_ok()
}

/// A secret key and its public one.
pub(crate) struct Key {
    /// A key file's text.
    pub(crate) text: String,
    pub(crate) public: String,
}

impl Key {
    pub(crate) fn new() -> Self {
        let text = run_or_panic(&mut Command::new("age-keygen"));
        let public = text.lines().find_map(|line| line.strip_prefix("# public key: "));
        let public = public.expect("a public key").to_owned();
        Self { text, public }
    }

    /// Writes the key file where the product can read it.
    pub(crate) fn file(&self, directory: &TestDir) -> PathBuf {
        directory.write(format!("{}.key", self.public), &self.text)
    }

    /// The line with the secret.
    pub(crate) fn secret(&self) -> &str {
        let mut lines = self.text.lines();
        lines.find(|line| line.starts_with("AGE-SECRET-KEY-")).unwrap()
    }
}

/// The table `[encryption]`; `identity` is TOML.
pub(crate) fn encryption(recipients: &[&Key], identity: Option<&str>) -> String {
    let recipients: Vec<&str> = recipients.iter().map(|key| key.public.as_str()).collect();
    let identity = identity.map(|toml| format!("identity = {toml}\n"));
    format!(
        "[encryption]\nrecipients = {recipients:?}\n{}",
        identity.unwrap_or_default()
    )
}

/// An identity in a file, as TOML.
pub(crate) fn identity_file(path: &std::path::Path) -> String {
    format!("{{ file = {:?} }}", path.display().to_string())
}
