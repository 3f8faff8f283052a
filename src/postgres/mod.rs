//! The only part that speaks to PostgreSQL or runs its programs.
//!
//! Connection strings resolve to [`ConnectionSettings`]; these open a [`Session`] of our own, or become the
//! environment of a child program ([`ChildConnection`]). Never: a password in an error, a log or an argument.

pub mod identifier;
pub mod conninfo;
mod tls;
mod fixed_settings;
pub mod error;
pub mod silence;
mod advice;
pub mod session;
mod connect;
pub mod pooler;
pub mod child;
mod query;
pub mod programs;
pub mod facts;
pub mod extensions;
pub mod extension_objects;
pub mod catalogue;
pub mod relations;
pub mod partitions;
pub mod dependents;
pub mod parts;
pub mod heartbeat;
pub mod grants;
pub mod waiting;
pub mod snapshot;
pub mod schema_watch;
pub mod copy_out;
pub mod copy_in;
pub mod dump;
pub mod archive;
pub mod roles;
pub mod settings;
pub mod sequences;
pub mod large_objects;
pub mod not_covered;
pub mod system_schemas;
pub mod statistics;

pub use child::{ChildConnection, ChildError};
pub use conninfo::{ConnectionSettings, ConninfoError, Environment};
pub use error::{Error, ErrorKind};
pub use fixed_settings::{fixed_settings, set_statements};
pub use identifier::{Quoting, qualified, quote_identifier, quote_literal};
pub use pooler::refuse_transaction_pooler;
pub use session::{CancelHandle, Session};
