use std::collections::BTreeMap;

use crate::{DomainId, DomainState};

/// Everything that a bridge publishes.
#[derive(Clone)]
pub struct BridgeState {
    /// The sound server's name and version, such as "PipeWire 1.4.2"; "null" where guests run without one.
    pub server: String,
    /// The domains that have a sound card.
    pub domains: BTreeMap<DomainId, DomainState>,
}

impl BridgeState {
    /// A bridge to this sound server, without guests.
    pub fn new(server: impl Into<String>) -> Self {
        Self { server: server.into(), domains: BTreeMap::new() }
    }
}
