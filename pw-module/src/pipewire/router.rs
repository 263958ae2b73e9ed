//! Routes nodes as mixers do, by a note in the session manager's metadata, but by a name, which holds also for a sink or source that
//! went and comes back. WirePlumber remembers for the next time only what mixers note, numbers.
//!
//! A new node's route is a property of it as well (`properties.rs`). A note alone would not do: a node that comes right after another
//! went is at times left on the default sink by WirePlumber 0.4.13, whatever was noted. Nor would the property: WirePlumber forgets
//! one that names the default sink, and has the node follow the default from then on. The note goes before the property.

use std::sync::mpsc::Sender;

use pipewire as pw;
use pw::metadata::Metadata;
use pw::properties::PropertiesBox;
use pw::registry::{GlobalObject, Listener, RegistryRc};
use pw::types::ObjectType;

use super::connection::ConnectionKey;
use super::thread::Happening;
use crate::server::clean;

/// A global object of the server's, kept for later.
pub(super) type Global = GlobalObject<PropertiesBox>;

/// What mixers note for a node that is to go where the session manager likes.
const NO_TARGET: &str = "-1";

/// The metadata on one connection. The fields drop in this order: everything before the registry it came from.
pub(super) struct Router {
    /// With the server's number for it.
    metadata: Option<(u32, Metadata)>,
    _listener: Listener,
    registry: RegistryRc,
}

impl Router {
    /// Looks for the session manager's metadata; `queue` is told of it.
    pub(super) fn new(registry: &RegistryRc, key: ConnectionKey, queue: &Sender<Happening>) -> Self {
        let queue = queue.clone();
        let listener = registry
            .add_listener_local()
            .global(move |global| {
                let name = global.props.and_then(|properties| properties.get("metadata.name"));
                if global.type_ == ObjectType::Metadata && name == Some("default") {
                    let _ = queue.send(Happening::Metadata(key, global.to_owned()));
                }
            })
            .register();
        Self { metadata: None, _listener: listener, registry: registry.clone() }
    }

    /// The metadata came, or came back with another session manager.
    pub(super) fn found(&mut self, metadata: &Global) {
        match self.registry.bind(metadata) {
            Ok(bound) => self.metadata = Some((metadata.id, bound)),
            Err(error) => tracing::debug!(%error, "the session manager's metadata can't be had"),
        }
    }

    /// The object of this number went: the metadata goes with its session manager.
    pub(super) fn gone(&mut self, id: u32) {
        self.metadata.take_if(|(number, _)| *number == id);
    }

    /// Whether nodes can be routed.
    pub(super) fn is_ready(&self) -> bool {
        self.metadata.is_some()
    }

    /// Routes node `id` to the sink or source of a name; `None` leaves it to the session manager.
    pub(super) fn route(&self, id: u32, target: Option<&str>) {
        if let Some((_, metadata)) = &self.metadata {
            let (kind, value) = match target {
                // A text with a zero in it would be the end of the program.
                Some(target) => ("Spa:String", clean(target)),
                // Without a note, the property that the node was made with would count.
                None => ("Spa:Id", NO_TARGET.to_owned()),
            };
            metadata.set_property(id, "target.object", Some(kind), Some(&value));
        }
    }
}
