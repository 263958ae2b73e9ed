//! Sound servers that die, hang, come back, or are replaced, while a guest plays through the whole daemon.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test from head to foot

mod desk;
mod leaks;
#[path = "../sim/machine.rs"]
#[allow(dead_code)] // most of it is for the other tests
mod machine;
mod player;
mod servers;
mod stopped;

use std::sync::{Mutex, PoisonError};

/// Runs a test in real time, and no other of this program meanwhile: servers and guests need the machine's time.
fn alone(test: impl Fn()) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    machine::in_real_time(test);
}
