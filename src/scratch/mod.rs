//! Disposable servers to restore into.
//!
//! [`Embedded`] makes a private cluster for one restore test, inside a sandbox: the restored copy is other
//! people's code with superuser rights. [`GivenServer`] is a database on a server that the operator named, which no
//! sandbox surrounds. [`sweep()`] removes what a killed process left behind. [`sandbox`] is the
//! inside: hidden subcommands of our own binary.

mod embedded;
mod error;
mod given;
mod identity;
mod launch;
mod place;
mod probe;
pub mod sandbox;
mod server;
mod server_log;
mod settings;
mod sweep;

use std::ffi::OsString;

pub use embedded::{Embedded, Kept};
pub use error::{ErrorKind, ScratchError};
pub use given::{GivenServer, KeptDatabase, KnownSource, Maker, PREFIX, Proof, Rights, RolesWanted};
pub use probe::{IsolationReport, ProbeResult};
pub use sandbox::spec::{IsolationWanted, MissingLayer};
pub use server_log::LogEntry;
pub use settings::{EmbeddedSettings, Machine};
pub use sweep::{Swept, sweep};

/// Runs the hidden subcommand that the command line names, if it does. To be called first of all in `main`,
/// before anything starts a thread.
pub fn hidden_subcommand() -> Option<i32> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    sandbox::sandbox_main(&arguments)
}

#[cfg(test)]
mod tests;
