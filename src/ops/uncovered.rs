//! Databases that nobody backs up: the commonest gap is a database that was added later.

use crate::ops::target::Target;
use crate::postgres::error::Error as PostgresError;
use crate::postgres::facts;
use crate::postgres::session::Session;
use crate::repository::{Error as RepositoryError, Repository};

/// Why it is not known which databases are covered.
#[derive(Debug, thiserror::Error)]
pub(super) enum UncoveredError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Databases of the target's server that no target covers: neither one of the repository nor one of the configuration.
pub(super) async fn databases(
    session: &Session,
    system_identifier: Option<&str>,
    target: &Target,
    repository: &Repository,
) -> Result<Vec<String>, UncoveredError> {
    let mut others = facts::other_databases(session).await?;
    others.retain(|database| !target.neighbours.contains(database));
    if others.is_empty() {
        return Ok(others);
    }
    for name in repository.targets().await? {
        if others.is_empty() {
            break;
        }
        if let Some(identity) = repository.target_identity(&name).await?
            && Some(identity.system_identifier.as_str()) == system_identifier
        {
            others.retain(|database| *database != identity.database);
        }
    }
    Ok(others)
}
