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

/// An error and what caused it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their source in their own text.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
