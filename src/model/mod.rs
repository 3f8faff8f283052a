//! Pure values and rules. No input or output, no clock, no async: time is an argument.

pub mod backup_id;
pub mod contents;
pub mod fingerprint;
pub mod manifest;
pub mod record;
pub mod secret;
pub mod target_name;
pub mod verification;
