//! The connection that watches the server while no guest plays: whether it answers, and whether it has sinks.

use std::sync::mpsc::Sender;

use pipewire as pw;
use pw::core::{CoreRc, Listener as CoreListener, PW_ID_CORE};
use pw::registry::{Listener as RegistryListener, RegistryRc};

use super::connection::{Connection, ConnectionKey, Connector};
use super::properties;
use super::remote::ConnectError;
use super::thread::Happening;

/// What was seen of the graph.
pub(super) enum Seen {
    /// A sink came, of this number and name.
    Sink(u32, String),
    /// An object of this number went.
    Gone(u32),
    /// Everything that was there at the beginning has been told.
    All,
}

/// A watching connection. The fields drop in this order: listeners before what they listen to.
pub(super) struct Watch {
    _done: CoreListener,
    _objects: RegistryListener,
    registry: RegistryRc,
    connection: Connection,
}

impl Watch {
    /// Connects. That the server answers, and what is seen, is told to `queue`.
    pub(super) fn start(connector: &mut Connector, queue: &Sender<Happening>) -> Result<Self, ConnectError> {
        let connection = connector.connect(properties::watch())?;
        let key = connection.key;
        let core = connection.core();
        let registry = core.get_registry_rc()?;
        let tell = |queue: &Sender<Happening>| {
            let queue = queue.clone();
            move |seen| {
                let _ = queue.send(Happening::Seen(key, seen));
            }
        };
        let (came, went, done) = (tell(queue), tell(queue), tell(queue));
        let objects = registry
            .add_listener_local()
            .global(move |global| {
                let get = |name| global.props.and_then(|properties| properties.get(name));
                if get("media.class") == Some("Audio/Sink") {
                    came(Seen::Sink(global.id, get("node.name").unwrap_or_default().to_owned()));
                }
            })
            .global_remove(move |id| went(Seen::Gone(id)))
            .register();
        // Requests are answered in order: when this one is, everything was announced.
        let done = core
            .add_listener_local()
            .done(move |id, _| {
                if id == PW_ID_CORE {
                    done(Seen::All);
                }
            })
            .register();
        core.sync(0)?;
        Ok(Self { _done: done, _objects: objects, registry, connection })
    }

    /// Asks the server to remove the object of this number.
    pub(super) fn remove(&self, id: u32) {
        if let Err(error) = self.registry.destroy_global(id).into_result() {
            tracing::debug!(id, %error, "can't have a node removed");
        }
    }

    pub(super) fn key(&self) -> ConnectionKey {
        self.connection.key
    }

    pub(super) fn core(&self) -> &CoreRc {
        self.connection.core()
    }
}
