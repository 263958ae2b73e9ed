//! The connection that watches the server while no guest plays: whether it answers, and what there is to play on and to record from.

use std::sync::mpsc::Sender;

use pipewire as pw;
use pw::core::{Listener as CoreListener, PW_ID_CORE};
use pw::registry::{Listener as RegistryListener, RegistryRc};

use super::connection::{Connection, ConnectionKey, Connector};
use super::properties;
use super::remote::ConnectError;
use super::thread::Happening;
use crate::Direction;

/// What was seen of the graph.
pub(super) enum Seen {
    /// A sink or source came, of this number and name, which streams of this direction can be routed to.
    Target(u32, Direction, String),
    /// An object of this number went.
    Gone(u32),
    /// Everything that was there at the beginning has been told.
    All,
}

/// A watching connection. The fields drop in this order: listeners before what they listen to.
pub(super) struct Watch {
    _done: CoreListener,
    _objects: RegistryListener,
    connection: Connection,
}

impl Watch {
    /// Connects. That the server answers, and what is seen, is told to `queue`.
    pub(super) fn start(connector: &mut Connector, queue: &Sender<Happening>) -> Result<Self, ConnectError> {
        let connection = connector.connect(properties::watch())?;
        let key = connection.key;
        let core = connection.core();
        let tell = |queue: &Sender<Happening>| {
            let queue = queue.clone();
            move |seen| {
                let _ = queue.send(Happening::Seen(key, seen));
            }
        };
        let (came, went, done) = (tell(queue), tell(queue), tell(queue));
        let objects = connection
            .registry()
            .add_listener_local()
            .global(move |global| {
                let get = |name| global.props.and_then(|properties| properties.get(name));
                let direction = match get("media.class") {
                    Some("Audio/Sink") => Direction::Playback,
                    Some("Audio/Source" | "Audio/Source/Virtual") => Direction::Capture,
                    _ => return,
                };
                let name = get("node.name").unwrap_or_default().to_owned();
                came(Seen::Target(global.id, direction, name));
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
        Ok(Self { _done: done, _objects: objects, connection })
    }

    pub(super) fn key(&self) -> ConnectionKey {
        self.connection.key
    }

    pub(super) fn registry(&self) -> &RegistryRc {
        self.connection.registry()
    }
}
