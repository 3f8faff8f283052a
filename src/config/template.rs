//! The configuration that `init` writes: short, commented, and ready to be read back.

use std::path::PathBuf;

use crate::model::target_name::TargetName;

use super::secret_source::SecretSource;

/// What `init` found out or was told.
#[derive(Debug, Clone)]
pub struct InitAnswers {
    pub target: TargetName,
    /// Where the database's URL is taken from.
    pub url: SecretSource,
    /// A directory or URL, as it is to stand in the file.
    pub repository: String,
    /// `None`: the default, commented out.
    pub state_dir: Option<PathBuf>,
    pub bin_dir: Option<PathBuf>,
    /// `None`: backups are stored in the clear.
    pub encryption: Option<InitKey>,
}

/// The key that backups are encrypted to.
#[derive(Debug, Clone)]
pub struct InitKey {
    pub public: String,
    /// Its secret, as it is to stand in the file.
    pub file: PathBuf,
}

pub fn template(answers: &InitAnswers) -> String {
    let path_line = |key: &str, path: &Option<PathBuf>, example: &str| match path {
        Some(path) => format!("{key} = {}", quoted(&path.display().to_string())),
        None => format!("#{key} = {}", quoted(example)),
    };
    TEMPLATE
        .replace(
            "{state_dir}",
            &path_line("state_dir", &answers.state_dir, "/var/lib/ernstfall"),
        )
        .replace(
            "{bin_dir}",
            &path_line("bin_dir", &answers.bin_dir, "/usr/lib/postgresql/17/bin"),
        )
        .replace("{repository}", &quoted(&answers.repository))
        .replace("{encryption}", &encryption(answers.encryption.as_ref()))
        .replace(
            "{s3}",
            if answers.repository.starts_with("s3://") {
                S3
            } else {
                ""
            },
        )
        .replace("{target}", &quoted(answers.target.as_str()))
        // Last: its text is the operator's, and may hold braces.
        .replace("{url}", &secret(&answers.url))
}

/// What a bucket may need besides its name.
const S3: &str = r#"# Where the bucket is: the region, or another server than that of AWS.
#region = "eu-central-1"
#endpoint = "https://s3.example.org"
#path_style = true
# Without these two, credentials are found as AWS's own programs find them.
#access_key_id = { env = "S3_ACCESS_KEY_ID" }
#secret_access_key = { env = "S3_SECRET_ACCESS_KEY" }
"#;

const TEMPLATE: &str = r#"# Ernstfall's configuration. `ernstfall check` says whether all of it works.
# Every key, with its default, is explained in the ernstfall.toml that is shipped as an example.

# Journal, locks and scratch servers.
{state_dir}

# Where initdb, postgres, pg_dump and pg_restore are; they are searched for when this is absent.
{bin_dir}

[repository]
# Where backups live. Better not on the disk, nor with the provider, of the database itself.
url = {repository}
{s3}
{encryption}

# Metrics, health and status of the daemon, for this machine only.
[http]
listen = "127.0.0.1:9810"

[[target]]
name = {target}
# A secret is a text, or { env = "NAME" }, { file = "PATH" }, { credential = "NAME" } or { command = ["PROGRAM"] }.
url = {url}
#environment = "production"
#owner = "platform"

# How much may be lost, and how long a recovery may take. Without them nothing can be met or missed.
rpo = "24h"
rto = "1h"

# When `ernstfall run` backs up and restore-tests: "every 12h", cron with 5 or 6 fields, or "after every backup".
backup = "every 12h"
restore_test = "after every backup"
#time_zone = "Europe/Berlin"
# Which backups are kept. Without it, all are.
#retention = { last = 14, weekly = 5, monthly = 12 }

# What must hold in the restored copy, besides being equal to the source.
#[[target.check]]
#name = "orders are there"
#sql = "select count(*) from orders"
#expect = "> 0"
"#;

fn encryption(key: Option<&InitKey>) -> String {
    let Some(key) = key else {
        return "# Backups are stored in the clear: who can read the repository can read the database. To encrypt them, add\n\
                # [encryption] as the shipped example has it."
            .to_owned();
    };
    format!(
        "# Backups are encrypted with age.\n[encryption]\n\
         # Public keys: enough to back up.\nrecipients = [{}]\n\
         # The secret key, needed to restore and to restore-test. Keep a copy of it away from this machine and from the\n\
         # repository: without it nobody can restore a backup.\nidentity = {{ file = {} }}",
        quoted(&key.public),
        quoted(&key.file.display().to_string())
    )
}

fn secret(source: &SecretSource) -> String {
    match source {
        SecretSource::Text(secret) => quoted(secret.expose()),
        SecretSource::Env(name) => format!("{{ env = {} }}", quoted(name)),
        SecretSource::File(path) => format!("{{ file = {} }}", quoted(&path.display().to_string())),
        SecretSource::Credential(name) => format!("{{ credential = {} }}", quoted(name)),
        SecretSource::Command(words) => {
            let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            format!("{{ command = [{}] }}", words.join(", "))
        }
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
