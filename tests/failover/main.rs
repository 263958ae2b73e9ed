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

use std::sync::{Mutex, MutexGuard, PoisonError};

/// While it is held no other test of this program runs: servers and guests need the machine's time.
fn by_itself() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a test by itself and in real time.
fn alone(test: impl Fn()) {
    let _alone = by_itself();
    machine::in_real_time(test);
}
