//! The one integration binary: behaviour through real parts.
// Test code may stop at once where the product may not, and speaks to whoever runs it.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod catalogue;
mod commands;
mod support;

mod backup;
mod backup_ddl;
mod backup_faults;
mod connections;
mod daemon;
mod damage;
mod dormant;
mod encodings;
mod encryption;
mod everything;
mod grants;
mod guards;
mod harmless;
mod healthy;
mod heart;
mod heartbeat;
mod http;
mod json;
mod kill;
mod left_out;
mod loading;
mod named;
mod prometheus;
mod prune;
mod records;
mod recovery_by_hand;
mod repository_input;
mod restore;
mod restore_table;
mod restore_test;
mod rules;
mod s3;
mod scrub;
mod server_scratch;
mod shop;
mod shrank;
mod standby;
mod store_contract;
mod uncovered;
mod under_load;
