//! One guest card: bus states, configuration snapshot, its streams.

mod account;
mod budget;
mod bus;
mod connection;
mod device;
mod domain;
pub mod names;

pub use account::{Account, Delay, Total};
pub use connection::{ConnectError, Connection};
pub use device::{Device, DeviceContext, DeviceId, Outcome, close};
