//! What runs for months: one loop for each task and target. It knows no task: what it runs is given as a [`Job`].
//!
//! - `driver` waits until a job is due, waits for its turn, runs it, and ends it when it hangs.
//! - `gate` lets only so many runs of a kind go on at once.
//! - `pulse` knows whether every loop still turns.
//! - `supervisor` tells the service manager.

mod driver;
mod gate;
mod pulse;
mod supervisor;
#[cfg(test)]
mod tests;

pub use driver::{Clock, Driver, DriverState, Job};
pub use gate::{Gate, Pass};
pub use pulse::{Pulse, Pulses};
pub use supervisor::Supervisor;
