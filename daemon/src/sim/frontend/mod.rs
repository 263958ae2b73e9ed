//! A model of Linux's sound card driver for Xen guests, in front of it ALSA's own rules, behind it a guest's memory,
//! rings and interrupts.
//!
//! [`Pcm`] is the pure part: no threads, time comes in from outside. [`PcmHandle`] is what an application in a guest
//! has: it blocks, and underruns, in real time.

mod card;
mod config;
mod core;
mod driver;
mod guest;
mod handle;
mod inbox;
mod params;
mod pcm;
mod position;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use card::{Seen, SimCard};
pub use config::{BadConfig, StreamConfig};
pub use core::{Core, CoreCounts, Geometry, Hardware, PcmError, State, SwParams};
pub use driver::{ANSWER_TIMEOUT, GuestDriver, RequestCounts};
pub use guest::SimGuest;
pub use handle::{Counters, PcmHandle};
pub use inbox::{EventCounts, Harm, Inbox, Taken};
pub use params::{Capabilities, HwParams};
pub use pcm::{Driver, Pcm, Step, Transfer};
pub use position::{Kernel, Measure, Position, Word};

/// Locks; a panic elsewhere is that test's failure, and no reason for another here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
