//! Harness shared by the integration tests: headless servers, real xenstored, recordings.

pub mod bus;
mod packages;
pub mod pipewire;
pub mod pulse;
pub mod rings;
pub mod xenstored;
