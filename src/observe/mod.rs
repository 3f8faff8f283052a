//! Views of what was recorded. They are folded anew from manifests and records, keep nothing, and start nothing.

pub mod gathered;
pub mod status;
pub mod window;
mod problems;
pub mod measures;
pub mod view;
pub mod metrics;
pub mod rules;
pub mod http;
#[cfg(test)]
mod status_tests;
