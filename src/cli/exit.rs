//! Exit codes, a sentence each.

use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done; for restore tests: passed, and objectives met; for `status` and `check`: nothing wrong.
    Done,
    /// The operation could not run or failed for reasons outside the backup.
    CouldNotRun,
    /// Usage or configuration is wrong.
    Usage,
    /// A bad backup or a mismatch was found.
    BadBackup,
    /// Passed, but an objective was missed.
    ObjectiveMissed,
    /// Ended by SIGINT, cleaned up.
    Interrupted,
    /// Ended by SIGTERM, cleaned up.
    Terminated,
}

impl Exit {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::CouldNotRun => 1,
            Self::Usage => 2,
            Self::BadBackup => 3,
            Self::ObjectiveMissed => 4,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// Of several targets the gravest counts: a signal, then 3, then 1, then 4.
    pub(super) fn gravest(self, other: Self) -> Self {
        let gravity = |exit: Self| match exit {
            Self::Done => 0,
            Self::ObjectiveMissed => 1,
            Self::CouldNotRun => 2,
            Self::Usage => 3,
            Self::BadBackup => 4,
            Self::Interrupted | Self::Terminated => 5,
        };
        if gravity(other) > gravity(self) {
            other
        } else {
            self
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error with the exit code that it means.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) error: anyhow::Error,
}

impl Failure {
    /// The operation could not run.
    pub(super) fn operation(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::CouldNotRun,
            error: error.into(),
        }
    }

    /// Usage or configuration is wrong.
    pub(super) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit: Exit::Usage,
            error: error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_of_several_targets_counts() {
        let of = |exits: &[Exit]| exits.iter().copied().fold(Exit::Done, Exit::gravest);
        assert_eq!(
            of(&[Exit::ObjectiveMissed, Exit::BadBackup, Exit::CouldNotRun]),
            Exit::BadBackup
        );
        assert_eq!(of(&[Exit::ObjectiveMissed, Exit::CouldNotRun]), Exit::CouldNotRun);
        assert_eq!(of(&[Exit::Done, Exit::ObjectiveMissed]), Exit::ObjectiveMissed);
        assert_eq!(of(&[]), Exit::Done);
    }
}
