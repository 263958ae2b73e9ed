//! Nodes of the bridge on a real PipeWire with WirePlumber, without hardware.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test from head to foot

mod capture;
mod desktop;
mod guest;
mod playback;
mod timing;
mod volume;
