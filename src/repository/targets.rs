//! Whom a target's backups are of, so that backups of two databases never mix unseen.
//!
//! Stored objects are never changed: `target.json` names the first source, and each adoption adds a file
//! `target.<n>.json` with n from 2. The highest n counts.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::model::manifest::FORMAT;
use crate::model::target_name::TargetName;
use crate::repository::{Error, Repository, format_of, keys, to_json};

/// Far more adoptions than anyone makes; without an end, a broken store could keep us looking for ever.
const MOST_ADOPTIONS: u32 = 10_000;

/// What tells one source from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetIdentity {
    pub system_identifier: String,
    pub database: String,
}

/// What to do when the source is not the one the target's backups are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherIdentity {
    Refuse,
    Adopt,
}

#[derive(Serialize, Deserialize)]
struct StoredIdentity {
    format: u32,
    system_identifier: String,
    database: String,
    claimed_at: DateTime<Utc>,
}

impl fmt::Display for TargetIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "database \"{}\" of system {}",
            self.database.escape_debug(),
            self.system_identifier.escape_debug()
        )
    }
}

impl Repository {
    /// Whom the target's backups are of; nothing before the first backup.
    pub async fn target_identity(&self, target: &TargetName) -> Result<Option<TargetIdentity>, Error> {
        Ok(self.newest_identity(target).await?.map(|(_, identity)| identity))
    }

    /// Says that the target is this source. The first to say so is believed; after that, the same or an adoption.
    pub async fn claim_target(
        &self,
        target: &TargetName,
        identity: &TargetIdentity,
        other: OtherIdentity,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let adoption = match self.newest_identity(target).await? {
            None => 1,
            Some((_, known)) if known == *identity => return Ok(()),
            Some((adoption, _)) if other == OtherIdentity::Adopt => adoption + 1,
            Some((_, known)) => return Err(other_identity(target, known, identity)),
        };
        // Where the repository has just left its place, every target looks like a new one.
        self.confirm().await?;
        let key = keys::target_key(target, adoption);
        let stored = StoredIdentity {
            format: FORMAT,
            system_identifier: identity.system_identifier.clone(),
            database: identity.database.clone(),
            claimed_at: now,
        };
        match self.store.put_new(&key, to_json(&key, &stored)?).await {
            Err(error) if !error.is_already_exists() => return Err(error.into()),
            _ => {}
        }
        // Somebody else may have been quicker: what is stored now counts.
        match self.newest_identity(target).await? {
            Some((_, known)) if known != *identity => Err(other_identity(target, known, identity)),
            _ => Ok(()),
        }
    }

    /// Every target that has anything in this repository, sorted.
    pub async fn targets(&self) -> Result<Vec<TargetName>, Error> {
        let folders = self.store.folders(keys::TARGETS_FOLDER).await?;
        let names = folders.iter().filter_map(|name| name.parse().ok());
        Ok(names.collect())
    }

    async fn newest_identity(&self, target: &TargetName) -> Result<Option<(u32, TargetIdentity)>, Error> {
        let mut newest = None;
        // One look per adoption is cheaper than a listing of all the target's objects.
        for adoption in 1..=MOST_ADOPTIONS {
            let key = keys::target_key(target, adoption);
            let Some(bytes) = self.find(&key).await? else {
                break;
            };
            let unreadable = |reason: String| Error::Unreadable {
                key: key.to_string(),
                location: self.location(),
                reason,
            };
            let format = format_of(&bytes).map_err(unreadable)?;
            if format > u64::from(FORMAT) {
                return Err(Error::NewerFormat {
                    what: format!("`{key}`"),
                    found: format,
                    known: FORMAT,
                });
            }
            let stored: StoredIdentity =
                serde_json::from_slice(&bytes).map_err(|fault| unreadable(fault.to_string()))?;
            let identity = TargetIdentity {
                system_identifier: stored.system_identifier,
                database: stored.database,
            };
            newest = Some((adoption, identity));
        }
        Ok(newest)
    }
}

fn other_identity(target: &TargetName, known: TargetIdentity, found: &TargetIdentity) -> Error {
    Error::OtherIdentity {
        target: target.clone(),
        known: Box::new(known),
        found: Box::new(found.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::test_support::{memory_repository, target, time};

    fn identity(system: &str) -> TargetIdentity {
        TargetIdentity {
            system_identifier: system.to_owned(),
            database: "shop".to_owned(),
        }
    }

    #[tokio::test]
    async fn another_source_is_refused_by_name_until_it_is_adopted() {
        let (repository, _) = memory_repository().await;
        let target = target();
        let claim = |system: &'static str, other| {
            let (repository, target) = (repository.clone(), target.clone());
            async move {
                repository
                    .claim_target(&target, &identity(system), other, time(0))
                    .await
            }
        };
        assert_eq!(repository.target_identity(&target).await.unwrap(), None);
        claim("one", OtherIdentity::Refuse).await.unwrap();
        claim("one", OtherIdentity::Refuse).await.unwrap();
        let message = claim("two", OtherIdentity::Refuse).await.unwrap_err().to_string();
        for part in ["system one", "system two", "--adopt"] {
            assert!(message.contains(part), "{message}");
        }
        claim("two", OtherIdentity::Adopt).await.unwrap();
        assert_eq!(
            repository.target_identity(&target).await.unwrap(),
            Some(identity("two"))
        );
        assert!(claim("one", OtherIdentity::Refuse).await.is_err());
        claim("one", OtherIdentity::Adopt).await.unwrap();
        assert_eq!(
            repository.target_identity(&target).await.unwrap(),
            Some(identity("one"))
        );
        assert_eq!(repository.targets().await.unwrap(), [target]);
    }
}
