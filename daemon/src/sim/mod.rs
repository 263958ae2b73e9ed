//! A hypervisor in one process and a model of the Linux frontend, for demo, tests and benchmarks.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use vsnd_bridge::sim::frontend::{HwParams, Kernel, SimGuest};
//! use vsnd_bridge::sim::{Card, Hypervisor};
//! use vsnd_bridge::xen::DomId;
//! use vsnd_pw_module::Direction;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let machine = Hypervisor::new();
//! // A bridge runs on `machine.dom0()` from here on.
//! let domain = machine.create_domain("work", "6e1c5f3a-0000-4000-8000-000000000001")?;
//! machine.attach(&domain, DomId(0), &Card::simple())?;
//! let linux = SimGuest::boot(&domain, Kernel::Since2026)?;
//! let card = linux.card(0, Duration::from_secs(10)).ok_or("no card in the guest")?;
//! let pcm = card.open(0, Direction::Playback)?;
//! pcm.hw_params(HwParams::cd(1024, 4096))?;
//! pcm.write(&[0; 48_000 * 4])?;
//! pcm.drain()?;
//! println!("{:?}", pcm.counters());
//! machine.destroy(&domain)?;
//! # Ok(())
//! # }
//! ```

pub mod frontend;
mod hypervisor;
pub mod signal;

pub use hypervisor::{
    Attached, BadCard, Card, Connection, Faults, GrantedPages, Guest, GuestPort, Holdings, Hypervisor,
    Limits, PAGE, Pcm, Process, Settings, Stream, ToolstackError,
};
