//! Alerts that the daemon raises by itself, for those who have no Prometheus: the same names, labels and words as the
//! rules of `observe::rules`.
//!
//! - `evaluation` tells which alerts hold, and what is to be said of them; `words` puts it into words.
//! - `outbox` is what waits to be told; `desk` has the channels tell it.
//! - `message` is what one alert says to people, and `channel` how it reaches them.
//! - `monitoring` is what Prometheus and Alertmanager say of alerts.
//! - `ping` tells a dead-man switch that this daemon lives. It and the channels share `http`; both come by their secrets `late`.

mod authorities;
pub mod channel;
pub mod desk;
pub mod evaluation;
mod facts;
pub mod http;
pub mod late;
pub mod message;
pub mod monitoring;
pub mod outbox;
pub mod ping;
mod redaction;
mod words;
