//! A hypervisor in one process and a model of the Linux frontend, for demo, tests and benchmarks.

pub mod frontend;
mod hypervisor;
pub mod signal;

pub use hypervisor::{
    Attached, BadCard, Card, Connection, Faults, GrantedPages, Guest, GuestPort, Holdings, Hypervisor,
    Limits, PAGE, Pcm, Settings, Stream, ToolstackError,
};
