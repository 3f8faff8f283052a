//! Ernstfall proves that PostgreSQL databases can be recovered.
//!
//! The parts, in reading order; each uses only those above it:
//!
//! - [`model`]: pure values and rules. No input or output, no clock.
//! - [`store`]: where objects live: a directory, later a bucket.
//! - [`postgres`]: the only part that speaks to PostgreSQL or runs its programs.
//! - [`encryption`]: who can read what is stored, and the keys for it.
//! - [`scratch`]: disposable, sandboxed servers to restore into.
//! - [`repository`]: which objects make a backup, and which backups exist.
//! - [`journal`]: the record of every run.
//! - [`ops`]: the use cases: backup, restore, restore test.
//! - [`observe`]: views of records: status and lists. They never start work.
//! - [`alert`]: what people are told without being asked, and how it reaches them.
//! - [`config`]: the configuration file, checked as a whole.
//! - [`daemon`]: schedules, one loop for each task and target. It knows no task.
//! - [`cli`]: commands, output and exit codes.

pub mod model;
pub mod store;
pub mod postgres;
pub mod encryption;
pub mod scratch;
pub mod repository;
pub mod journal;
pub mod ops;
pub mod observe;
pub mod alert;
pub mod config;
pub mod daemon;
pub mod cli;
