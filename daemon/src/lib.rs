//! vsnd-bridge: Dom0's end of a Xen guest's sound card.
//!
//! A guest's sound card is a ring of memory that a converter reads at the pace of a clock. The bridge is the converter:
//! the ring is the guest's own pages, the clock is the sound server's, and the converter is a node that the desktop user
//! sees under the guest's name. `docs/architecture.md` shows the whole.

#[cfg(panic = "abort")]
compile_error!("one guest's fault would end every guest's sound: build with panic = \"unwind\"");

pub mod bridge;
pub mod config;
pub mod control;
mod guess;
pub mod guest;
pub mod mixer;
pub mod realtime;
pub mod runtime;
pub mod session_bus;
pub mod sim;
pub mod sndif;
pub mod state;
pub mod stream;
mod targets;
pub mod xdg;
pub mod xen;
