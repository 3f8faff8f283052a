//! Whom the scratch server runs as, and the role it begins with.

use nix::unistd::{Uid, User};

use super::error::ScratchError;
use super::sandbox::spec::Identity;
use super::settings::EmbeddedSettings;

/// A role renamed to such a name works in a server, but initdb cannot begin with it.
pub(super) fn check_superuser(name: &str) -> Result<(), ScratchError> {
    match name.is_empty() || name.contains(['"', '\'', '$', '\\']) || name.starts_with("pg_") {
        true => Err(ScratchError::SuperuserName { name: name.into() }),
        false => Ok(()),
    }
}

/// Whom the server runs as: nobody else when this process is unprivileged.
pub(super) fn find_identity(user: Option<&str>) -> Result<Option<Identity>, ScratchError> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let name = user.unwrap_or(EmbeddedSettings::USER);
    let found = User::from_name(name)
        .ok()
        .flatten()
        .ok_or_else(|| ScratchError::NoUser { user: name.into() })?;
    if found.uid.is_root() || name == "postgres" {
        return Err(ScratchError::ForbiddenUser { user: name.into() });
    }
    Ok(Some(Identity {
        name: name.into(),
        uid: found.uid.as_raw(),
        gid: found.gid.as_raw(),
    }))
}
