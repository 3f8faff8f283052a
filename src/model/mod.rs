//! Pure values and rules. No input or output, no clock, no async: time is an argument.

pub mod secret;
