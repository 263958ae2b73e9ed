//! Independent clients of a private PipeWire: what a sink hears, and what a source says.

mod endpoint;

pub use endpoint::{Endpoint, Gap, PLAYER, SILENCE, Sound};
