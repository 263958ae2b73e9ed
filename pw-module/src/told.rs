//! What is told of nodes.

use std::error::Error;
use std::rc::Rc;

use crate::{NodeEvent, NodeSpec, NodeState, ServerEvent, UserVolume, VolumeEvent};

/// Whoever is told what becomes of a server and its nodes, on the server's own thread.
pub(crate) type Events = Rc<dyn Fn(ServerEvent)>;

/// The state of one node as it was told last.
pub(crate) struct Told {
    events: Events,
    last: Option<NodeState>,
    /// The node's handle is gone.
    ended: bool,
}

impl Told {
    pub(crate) fn new(events: &Events) -> Self {
        Self { events: Rc::clone(events), last: None, ended: false }
    }

    /// Tells the state of the node of `spec`, unless it was told already.
    pub(crate) fn tell(&mut self, spec: &NodeSpec, state: NodeState) {
        tracing::debug!(node = spec.name, ?state);
        if self.ended || self.last.as_ref() == Some(&state) {
            return;
        }
        self.last = Some(state.clone());
        let (node, client) = (spec.name.clone(), spec.client.id.clone());
        (self.events)(ServerEvent::Node(NodeEvent { node, client, state }));
    }

    /// Tells that the node is on its way, but not of every try after one that failed.
    pub(crate) fn tell_try(&mut self, spec: &NodeSpec) {
        if !matches!(self.last, Some(NodeState::Failed(_))) {
            self.tell(spec, NodeState::Connecting);
        }
    }

    /// Tells nothing from now on: the handle is gone, and while the tail is heard another node may have the name.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Tells the volume that the user set for the node of `spec`.
    pub(crate) fn tell_volume(&self, spec: &NodeSpec, volume: UserVolume) {
        if self.ended {
            return;
        }
        let (node, client) = (spec.name.clone(), spec.client.id.clone());
        (self.events)(ServerEvent::Volume(VolumeEvent { node, client, volume }));
    }
}

/// An error with its causes.
pub(crate) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
