//! What tests are made of: servers, databases, the product as a child process, and ways to break things.
//! Everything here is blocking, so that a test is a plain function, and ends with the test that started it.
// Each part is there for tests of several kinds; not every commit has a test of each.
#![allow(dead_code)]

pub(crate) mod account;
pub(crate) mod cluster;
pub(crate) mod database;
pub(crate) mod directory;
pub(crate) mod ernstfall;
pub(crate) mod key;
pub(crate) mod evidence;
pub(crate) mod full_disk;
pub(crate) mod monitoring;
pub(crate) mod pages;
pub(crate) mod process;
pub(crate) mod programs;
pub(crate) mod proxy;
pub(crate) mod s3;
pub(crate) mod skip;
pub(crate) mod tls;
