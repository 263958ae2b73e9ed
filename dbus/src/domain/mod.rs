//! A domain: `org.vsnd.Bridge1.Domain`.

mod interface;
pub(crate) mod proxy;
mod state;

pub(crate) use interface::DomainObject;
pub use state::DomainState;
