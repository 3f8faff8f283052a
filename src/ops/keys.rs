//! What a run encrypts to, and how it comes by the identities that decrypt.
//!
//! Backups need recipients only. The identity's secret is fetched when something encrypted is to be read, and once: so a
//! machine without it takes backups, and shows and checks what there is.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::encryption::{Identities, Recipients};
use crate::model::backup_id::BackupId;
use crate::model::manifest::Manifest;
use crate::model::secret::Secret;

/// Fetches the identity's secret from where the operator keeps it; the error is for people.
pub type Fetch = dyn Fn() -> Result<Secret, String> + Send + Sync;

/// The keys of a run.
#[derive(Clone, Default)]
pub struct Keys {
    recipients: Option<Arc<Recipients>>,
    identity: Option<Arc<Identity>>,
}

struct Identity {
    fetch: Arc<Fetch>,
    /// A failure is not kept: what was out of reach a moment ago may be there for the next target.
    fetched: OnceCell<Arc<Identities>>,
}

/// Why an encrypted backup cannot be read here. It says nothing of the backup.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error(
        "backup {backup} is encrypted, and no identity is configured: give the secret key of {} as `identity` in [encryption]",
        any_of(.needed)
    )]
    NotConfigured { backup: BackupId, needed: Vec<String> },
    #[error("backup {backup} is encrypted, and the secret key of {} is needed: {error}", any_of(.needed))]
    Unusable {
        backup: BackupId,
        needed: Vec<String>,
        error: UnusableIdentity,
    },
    #[error(
        "backup {backup} is encrypted, and none of the identities fits: the secret key of {} is needed, and those of {} are there; add it to the file that `identity` in [encryption] names",
        any_of(.needed), .there.join(", ")
    )]
    NoneFits {
        backup: BackupId,
        needed: Vec<String>,
        there: Vec<String>,
    },
}

/// An identity is configured, and there is none to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableIdentity {
    #[error("`identity` in [encryption] cannot be had: {0}")]
    Unobtainable(String),
    #[error("what `identity` in [encryption] gives is not a key file: {0}")]
    NotAKey(#[from] crate::encryption::IdentityError),
}

fn any_of(recipients: &[String]) -> String {
    match recipients {
        [one] => one.clone(),
        several => format!("one of {}", several.join(", ")),
    }
}

impl Keys {
    /// `recipients`: none where backups are to be stored in the clear. `fetch`: none where no identity is configured.
    pub fn new(recipients: Option<Recipients>, fetch: Option<Arc<Fetch>>) -> Self {
        Self {
            recipients: recipients.map(Arc::new),
            identity: fetch.map(|fetch| {
                Arc::new(Identity {
                    fetch,
                    fetched: OnceCell::new(),
                })
            }),
        }
    }

    /// Whom new backups are encrypted to; `None`: they are stored in the clear.
    pub(super) fn recipients(&self) -> Option<&Arc<Recipients>> {
        self.recipients.as_ref()
    }

    /// The identities, or `None` where none are configured. May take as long as the secret's command does.
    pub(super) async fn identities(&self) -> Result<Option<Arc<Identities>>, UnusableIdentity> {
        let Some(identity) = &self.identity else {
            return Ok(None);
        };
        let fetch = Arc::clone(&identity.fetch);
        let identities = identity.fetched.get_or_try_init(|| async move {
            let fetched = tokio::task::spawn_blocking(move || fetch()).await;
            let secret = fetched
                .map_err(|error| UnusableIdentity::Unobtainable(error.to_string()))?
                .map_err(UnusableIdentity::Unobtainable)?;
            Ok::<_, UnusableIdentity>(Arc::new(Identities::parse(&secret)?))
        });
        Ok(Some(Arc::clone(identities.await?)))
    }

    /// What reads the objects of a backup; `None` for one that is stored in the clear.
    pub(super) async fn for_backup(&self, manifest: &Manifest) -> Result<Option<Arc<Identities>>, KeyError> {
        let Some(encryption) = &manifest.encryption else {
            return Ok(None);
        };
        let (backup, needed) = (manifest.id.clone(), encryption.recipients.clone());
        match self.identities().await {
            Ok(Some(identities)) if identities.fit(&needed) => Ok(Some(identities)),
            Ok(Some(identities)) => Err(KeyError::NoneFits {
                backup,
                needed,
                there: identities.public_keys(),
            }),
            Ok(None) => Err(KeyError::NotConfigured { backup, needed }),
            Err(error) => Err(KeyError::Unusable {
                backup,
                needed,
                error,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::encryption::generate_key_file;
    use crate::model::manifest::Encryption;
    use crate::model::samples;

    fn encrypted_to(recipients: &[&String]) -> Manifest {
        let mut manifest = samples::manifest(0);
        let recipients = recipients.iter().map(|one| (*one).clone()).collect();
        manifest.encryption = Some(Encryption { recipients });
        manifest
    }

    fn keys(fetch: impl Fn() -> Result<Secret, String> + Send + Sync + 'static) -> Keys {
        Keys::new(None, Some(Arc::new(fetch)))
    }

    #[tokio::test]
    async fn the_secret_is_fetched_only_for_what_is_encrypted_and_once() {
        let (secret, public) = generate_key_file("today");
        let fetched = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&fetched);
        let keys = keys(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(secret.clone())
        });
        let again = keys.clone();
        assert!(keys.for_backup(&samples::manifest(0)).await.unwrap().is_none());
        assert_eq!(fetched.load(Ordering::Relaxed), 0);
        for keys in [&keys, &again, &keys] {
            assert!(
                keys.for_backup(&encrypted_to(&[&public]))
                    .await
                    .unwrap()
                    .is_some()
            );
        }
        assert_eq!(fetched.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn each_error_names_the_keys_that_are_needed_and_those_that_are_there() {
        let ((secret, public), (_, stranger)) = (generate_key_file("today"), generate_key_file("today"));
        let manifest = encrypted_to(&[&stranger]);
        let good = secret.clone();
        let cases = [
            (Keys::default(), "no identity is configured"),
            (keys(|| Err("no such file".to_owned())), "no such file"),
            (
                keys(|| Ok(Secret::new("hunter2"))),
                "line 1 is not an age secret key",
            ),
            (keys(move || Ok(good.clone())), public.as_str()),
        ];
        for (keys, expected) in cases {
            let message = keys.for_backup(&manifest).await.unwrap_err().to_string();
            assert!(
                message.contains(expected) && message.contains(&stranger),
                "{message}"
            );
            assert!(message.contains(manifest.id.as_str()), "{message}");
            assert!(
                !message.contains("hunter2") && !message.contains("SECRET-KEY-1Q"),
                "{message}"
            );
        }
    }

    #[tokio::test]
    async fn a_secret_that_could_not_be_had_is_tried_again() {
        let (secret, public) = generate_key_file("today");
        let tries = AtomicUsize::new(0);
        let keys = keys(move || match tries.fetch_add(1, Ordering::Relaxed) {
            0 => Err("locked".to_owned()),
            _ => Ok(secret.clone()),
        });
        let manifest = encrypted_to(&[&public]);
        assert!(keys.for_backup(&manifest).await.is_err());
        assert!(keys.for_backup(&manifest).await.is_ok());
    }
}
