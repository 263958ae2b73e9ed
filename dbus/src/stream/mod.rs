//! A stream of a domain: `org.vsnd.Bridge1.Stream`.

mod interface;
pub(crate) mod proxy;
mod state;

pub(crate) use interface::{StreamObject, UNSIGNALLED};
pub use state::{OpenStream, Probe, Reading, Run, StreamState};
