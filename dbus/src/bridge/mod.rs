//! The bridge itself: `org.vsnd.Bridge1`.

mod interface;
pub(crate) mod proxy;
mod state;

pub(crate) use interface::BridgeObject;
pub use state::BridgeState;
