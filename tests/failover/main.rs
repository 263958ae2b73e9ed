//! Sound servers that die, hang, come back, or are replaced, while a guest plays through the whole daemon.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test from head to foot

mod desk;
#[path = "../sim/machine.rs"]
#[allow(dead_code)] // most of it is for the other tests
mod machine;
mod player;
mod servers;
mod stopped;
