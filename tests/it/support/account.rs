//! Who runs servers and the product in tests. PostgreSQL refuses root, so a test run of root hands both to a
//! user of their own; any other user runs them as itself.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Made by `make test`.
const TEST_USER: &str = "ernstfall-test";

#[derive(Clone, Copy)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
    changes_user: bool,
}

impl Account {
    /// The unprivileged account of this test run.
    pub(crate) fn unprivileged() -> Self {
        let uid = nix::unistd::geteuid();
        if !uid.is_root() {
            return Self {
                uid: uid.as_raw(),
                gid: nix::unistd::getegid().as_raw(),
                changes_user: false,
            };
        }
        let user = nix::unistd::User::from_name(TEST_USER).expect("look up the test user");
        let user = user.unwrap_or_else(|| {
            panic!("root cannot run PostgreSQL and there is no user {TEST_USER}: run `make test-user` (or `make test`) once")
        });
        Self {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            changes_user: true,
        }
    }

    /// Makes the command run as this account.
    pub(crate) fn run_as<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        if self.changes_user {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives a file or directory to this account.
    pub(crate) fn own(&self, path: &Path) {
        if self.changes_user {
            chown(path, Some(self.uid), Some(self.gid))
                .unwrap_or_else(|error| panic!("give {} to {TEST_USER}: {error}", path.display()));
        }
    }
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
