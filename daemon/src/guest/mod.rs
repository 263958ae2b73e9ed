//! One guest card: bus states, configuration snapshot, its streams.

mod account;
mod budget;
mod bus;
mod connection;
mod device;
mod domain;
pub mod names;

pub use account::{Account, Delay, Total};
pub use bus::{Bus, Facts, Step};
pub use connection::{CardSetup, ConnectError, Connection, Start};
pub use device::{Device, DeviceContext, DeviceId, Outcome, backends, close, is_new};
