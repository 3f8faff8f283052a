//! Alerts that the daemon raises by itself, for those who have no Prometheus: the same names, labels and words as the
//! rules of `observe::rules`.
//!
//! - `message` is what one alert says to people, and `channel` how it reaches them.

pub mod channel;
pub mod message;
