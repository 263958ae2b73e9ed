use std::collections::{BTreeMap, BTreeSet};

use crate::{DomainId, DomainState, NodeName};

/// Everything that a bridge publishes.
#[derive(Clone)]
pub struct BridgeState {
    /// The sound server's name and version, such as "PipeWire 1.4.2"; "null" where guests run without one.
    pub server: String,
    /// What playback streams can be routed to.
    pub sinks: BTreeSet<NodeName>,
    /// What capture streams can be routed to.
    pub sources: BTreeSet<NodeName>,
    /// The domains that have a sound card.
    pub domains: BTreeMap<DomainId, DomainState>,
}

impl BridgeState {
    /// A bridge to this sound server, of which nothing else is known, without guests.
    pub fn new(server: impl Into<String>) -> Self {
        let (sinks, sources) = (BTreeSet::new(), BTreeSet::new());
        Self { server: server.into(), sinks, sources, domains: BTreeMap::new() }
    }
}
