//! The whole daemon between a simulated guest, a real sound server and a session bus: what any of them says of a volume, a route or
//! a permission, the others see and hear.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test from head to foot

mod desk;
#[path = "../sim/machine.rs"]
#[allow(dead_code)] // most of it is for the other tests
mod machine;
mod microphone;
#[path = "../sim/play.rs"]
#[allow(dead_code)]
mod play;
mod reattach;
mod routing;
mod session;
mod volume;
