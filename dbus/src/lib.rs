//! `org.vsnd.Bridge1`: the guests and streams of a bridge on the session bus.
//!
//! A bridge publishes what it knows with a [`Service`] and takes [`Request`]s from it; what these mean is its own matter.
//! Mixers and tools find the same things through [`client`]. `docs/dbus.md` is the reference of the interface.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use vsnd_dbus::{BridgeState, Service};
//!
//! let (requests, mut inbox) = tokio::sync::mpsc::channel(16);
//! let connection = zbus::Connection::session().await?;
//! let service = Service::start(connection, BridgeState::new("PipeWire 1.4.2"), requests).await?;
//! while let Some(request) = inbox.recv().await {
//!     // Carry request.command out, publish what has become of it, then answer.
//!     service.update(|state| { /* state.domains ... */ });
//!     request.answer(Ok(()));
//! }
//! # Ok(())
//! # }
//! ```

mod bridge;
pub mod client;
mod command;
mod domain;
mod object;
mod service;
mod stream;
mod values;

pub use bridge::BridgeState;
pub use command::{Command, Refusal, Request};
pub use domain::DomainState;
pub use object::{DomainId, Object, StreamId, UnknownStreamId};
pub use service::{Owner, Service, StartError};
pub use stream::{OpenStream, Probe, Reading, Run, StreamState};
pub use values::{Capture, CubicVolume, Direction, InvalidNodeName, InvalidVolume, InvalidWord, NodeName};

/// The well-known name on the session bus, and the name of the manager's interface.
pub const BUS_NAME: &str = "org.vsnd.Bridge1";
