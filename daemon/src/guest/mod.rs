//! One guest card: bus states, configuration snapshot, its streams.

mod bus;
mod connection;
mod device;
mod domain;
pub mod names;

pub use bus::{Bus, Facts, Step};
pub use connection::{ConnectError, Connection, Start};
pub use device::{Device, DeviceContext, DeviceId, Outcome};
