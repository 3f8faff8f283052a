//! Pure values and rules. No input or output, no clock, no async: time is an argument.

pub mod agenda;
pub mod alert_record;
pub mod archive_list;
pub mod archive_text;
pub mod backup_id;
pub mod byte_size;
pub mod causes;
pub mod check;
pub mod clocks;
pub mod contents;
pub mod cycle;
pub mod fingerprint;
pub mod human_duration;
pub mod manifest;
pub mod objective;
pub mod record;
pub mod recovery_evidence;
pub mod redact;
pub mod retention;
#[cfg(test)]
pub(crate) mod samples;
pub mod schedule;
pub mod schema_text;
pub mod secret;
pub mod suggestion;
pub mod target_name;
pub mod time_zone;
pub mod upkeep;
pub mod verdicts;
pub mod verification;
