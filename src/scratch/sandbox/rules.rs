//! The Landlock layer: which files may be opened, and nothing by TCP, abstract socket or signal.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::spec::{Answer, Specification, layer};

/// The rules are written for this version; an older kernel enforces what it knows of them.
const VERSION: ABI = ABI::V6;

/// Puts this process under the rules for good, and says in the answer whether it worked.
pub(super) fn restrict(specification: &Specification, has_new_root: bool, answer: &mut Answer) {
    match apply(specification, has_new_root, &answer.probe) {
        Ok(status) if status.ruleset == RulesetStatus::NotEnforced => {
            answer.lacks(
                layer::LANDLOCK,
                "the kernel has no Landlock or it is switched off",
            );
        }
        Ok(status) => {
            answer.add(layer::LANDLOCK);
            if let LandlockStatus::Available { effective_abi, .. } = status.landlock
                && effective_abi < VERSION
            {
                // Without the newer versions signals, abstract sockets or TCP are not governed by it.
                answer.lacks(
                    "newer landlock",
                    format!("the kernel has version {effective_abi:?} of it"),
                );
            }
        }
        Err(error) => answer.lacks(layer::LANDLOCK, error),
    }
}

fn apply(
    specification: &Specification,
    has_new_root: bool,
    probe: &Path,
) -> Result<landlock::RestrictionStatus, RulesetError> {
    let all = AccessFs::from_all(VERSION);
    let read = AccessFs::from_read(VERSION);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut ruleset = Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()?;
    let mut program_files: Vec<PathBuf> = super::root::program_directories(specification);
    program_files.extend(super::root::SYSTEM_FILES.iter().map(PathBuf::from));
    program_files.extend(specification.readable.iter().cloned());
    program_files.push(probe.to_path_buf());
    if has_new_root {
        ruleset = allow(ruleset, Path::new("/tmp"), all)?;
        ruleset = allow(ruleset, Path::new("/dev/shm"), all)?;
    }
    for path in program_files {
        ruleset = allow(ruleset, &path, read)?;
    }
    for name in super::root::DEVICES {
        ruleset = allow(ruleset, &Path::new("/dev").join(name), device)?;
    }
    ruleset = allow(ruleset, &specification.writable, all)?;
    ruleset.restrict_self()
}

/// Allows `access` below a path. What does not exist is passed over: nothing could be opened there.
fn allow(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(descriptor) = PathFd::new(path) else {
        return Ok(ruleset);
    };
    // Rights over directories make no sense for a file, and are refused there.
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(VERSION)
    };
    ruleset.add_rule(PathBeneath::new(descriptor, access))
}
