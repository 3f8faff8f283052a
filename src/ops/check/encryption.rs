//! Whom backups are encrypted to, and whether what is stored can be read on this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::encryption::Identities;
use crate::model::manifest::Manifest;
use crate::ops::keys::{KeyError, Keys};
use crate::ops::restore::source::Reader;
use crate::ops::target::Target;
use crate::repository::Repository;

use super::{CheckLine, Lines};

/// The lines about [encryption]; none where it is not configured. `file`: where the identity is kept, if in a file.
pub async fn encryption(keys: &Keys, file: Option<&Path>) -> Vec<CheckLine> {
    let mut lines = Lines::of("encryption");
    let Some(recipients) = keys.recipients() else {
        in_the_clear(keys, &mut lines).await;
        return lines.lines;
    };
    let recipients = recipients.to_texts();
    let listed = recipients.join(", ");
    lines.ok("recipients", format!("backups are encrypted to {listed}"));
    match keys.identities().await {
        Ok(Some(identities)) => belongs(&identities, &recipients, &mut lines),
        Ok(None) => lines.warning(
            "identity",
            "none is configured: backups are taken, and restores and restore tests cannot run on this machine",
            format!("set `identity` in [encryption] where they are to run, to the secret key of one of {listed}"),
        ),
        Err(error) => lines.failed(
            "identity",
            format!("restores and restore tests cannot run: {error}"),
            "correct `identity` in [encryption], or remove it from a machine that only takes backups",
        ),
    }
    if let Some(file) = file {
        private(file, &mut lines);
    }
    lines.lines
}

/// Without recipients an identity reads what was encrypted before.
async fn in_the_clear(keys: &Keys, lines: &mut Lines) {
    match keys.identities().await {
        Ok(None) => {}
        Ok(Some(identities)) => lines.warning(
            "recipients",
            format!(
                "none: new backups are stored in the clear, and earlier ones are read with the key of {}",
                identities.public_keys().join(", ")
            ),
            "add `recipients` to [encryption], unless that is meant",
        ),
        Err(error) => lines.failed(
            "identity",
            format!("earlier backups that are encrypted cannot be read: {error}"),
            "correct `identity` in [encryption]",
        ),
    }
}

fn belongs(identities: &Identities, recipients: &[String], lines: &mut Lines) {
    let ours = identities.public_keys();
    let listed = ours.join(", ");
    if identities.fit(recipients) {
        lines.ok("identity", format!("it reads new backups (public key {listed})"));
    } else {
        lines.failed(
            "identity",
            format!(
                "it belongs to {listed}, which is none of the recipients: new backups could not be read here"
            ),
            "add its public key to `recipients`, or give the secret key of one of them as `identity`",
        );
    }
}

fn private(file: &Path, lines: &mut Lines) {
    let shown = file.display();
    let Ok(found) = file.metadata() else { return };
    match found.permissions().mode() & 0o777 {
        mode if mode & 0o077 == 0 => lines.ok("key file", format!("{shown} is private (mode {mode:04o})")),
        mode => lines.warning(
            "key file",
            format!("others may read the secret key in {shown} (mode {mode:04o})"),
            format!("chmod 600 {shown}"),
        ),
    }
}

/// Whether a target's backups can be read here. `backups`: all that are listed, the newest last.
pub(super) async fn backups(
    keys: &Keys,
    repository: &std::sync::Arc<Repository>,
    target: &Target,
    backups: &[Manifest],
    lines: &mut Lines,
) {
    let encrypted = backups.iter().rfind(|one| one.encryption.is_some());
    if let (None, Some(last)) = (keys.recipients(), encrypted) {
        lines.warning(
            "encryption",
            format!(
                "new backups are stored in the clear, and earlier ones were encrypted, up to {}",
                last.id
            ),
            "if that is not meant, add [encryption] with its recipients again",
        );
    }
    let Some(newest) = backups.last().filter(|newest| newest.encryption.is_some()) else {
        return;
    };
    let remedy = "have the identity that is needed where restores and restore tests are to run";
    match keys.for_backup(newest).await {
        Ok(_) => {}
        Err(error @ KeyError::NotConfigured { .. }) => {
            return lines.warning("decryption", error.to_string(), remedy);
        }
        Err(error) => return lines.failed("decryption", error.to_string(), remedy),
    }
    // A small object, so that the key is not only believed to fit.
    let read = async {
        let reader = Reader::open(keys, repository, newest).await?;
        reader.read(&newest.roles).await
    };
    match read.await {
        Ok(_) => lines.ok(
            "decryption",
            format!("backup {} can be decrypted here", newest.id),
        ),
        Err(error) => lines.failed(
            "decryption",
            crate::ops::chain(&error),
            format!("ernstfall restore-test {}", target.name),
        ),
    }
    older(keys, backups, lines).await;
}

/// Backups that need other keys than those that are here.
async fn older(keys: &Keys, backups: &[Manifest], lines: &mut Lines) {
    let mut needed = Vec::new();
    let mut count = 0;
    for backup in backups {
        if let Err(KeyError::NoneFits { needed: keys, .. }) = keys.for_backup(backup).await {
            count += 1;
            let new = keys.into_iter().filter(|key| !needed.contains(key));
            needed.extend(new.collect::<Vec<_>>());
        }
    }
    if count > 0 {
        lines.warning(
            "older backups",
            format!(
                "{count} of {} cannot be decrypted here: they are encrypted to {}",
                backups.len(),
                needed.join(", ")
            ),
            "add the old secret key to the file that `identity` names, as long as these backups are kept",
        );
    }
}
