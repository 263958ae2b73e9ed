//! Harness shared by the integration tests: headless servers, real xenstored, recordings.

pub mod pipewire;
pub mod pulse;
pub mod rings;
pub mod xenstored;
