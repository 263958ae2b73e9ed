//! Nodes of the bridge on a real PipeWire with WirePlumber, without hardware.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test from head to foot

mod capture;
mod desktop;
mod guest;
#[path = "../sim/machine.rs"]
#[allow(dead_code)]
mod machine;
#[path = "../sim/play.rs"]
#[allow(dead_code)]
mod play;
mod playback;
mod reattach;
mod timing;
mod volume;
