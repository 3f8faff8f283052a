//! The use cases: backup, restore, restore test, prune. One function each; each returns a record.

pub mod acknowledge;
pub mod backup;
pub mod check;
mod clock_skew;
mod compare_schema;
pub mod context;
mod fault_point;
pub mod grants;
pub mod heartbeat;
pub mod keys;
pub mod not_begun;
mod packing;
mod phases;
pub mod privileges;
pub mod prune;
mod ranges;
pub mod restore;
pub mod restore_test;
mod script;
pub mod scrub;
pub mod settle;
pub mod target;
mod uncovered;
mod verify;
mod work_directory;

pub use crate::model::causes::chain;
