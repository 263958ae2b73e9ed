//! The whole daemon on the simulated hypervisor, in front of it the model of Linux's driver in both its variants.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that can't go on ends

mod bus;
mod hostile;
mod machine;
mod no_events;
mod play;
mod reattach;
mod sound;
mod volume;
