//! One connection to the server, as the application that a mixer shows.

use std::sync::mpsc::Sender;

use pipewire as pw;
use pw::context::ContextRc;
use pw::core::{CoreRc, Listener, PW_ID_CORE};
use pw::main_loop::MainLoopRc;
use pw::properties::{PropertiesBox, properties};
use pw::registry::RegistryRc;

use super::remote::{ConnectError, Remote};
use super::thread::Happening;
use crate::units::{Frames, Nanos};

/// The number of a connection; what an earlier one still says isn't about a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionKey(u64);

/// A connection. The fields drop in this order: the listener before the core it listens to.
pub(super) struct Connection {
    pub(super) key: ConnectionKey,
    _listener: Listener,
    registry: RegistryRc,
    core: CoreRc,
}

/// Makes connections to one server.
pub(super) struct Connector {
    main_loop: MainLoopRc,
    remote: Remote,
    queue: Sender<Happening>,
    made: u64,
}

impl Connector {
    /// Connections of `main_loop` to `remote`, of which `queue` is told.
    pub(super) fn new(main_loop: MainLoopRc, remote: Remote, queue: Sender<Happening>) -> Self {
        Self { main_loop, remote, queue, made: 0 }
    }

    /// Whether somebody listens there.
    pub(super) fn listens(&self) -> bool {
        self.remote.listens()
    }

    /// Connects with the client properties `properties`. Whether the server answers is told to the queue.
    pub(super) fn connect(&mut self, properties: PropertiesBox) -> Result<Connection, ConnectError> {
        self.made += 1;
        Connection::new(&self.main_loop, ConnectionKey(self.made), properties, &self.remote, &self.queue)
    }
}

impl Connection {
    fn new(
        main_loop: &MainLoopRc,
        key: ConnectionKey,
        properties: PropertiesBox,
        remote: &Remote,
        queue: &Sender<Happening>,
    ) -> Result<Self, ConnectError> {
        // The default configuration of clients leaves their data thread without real-time priority before PipeWire 1.2;
        // later versions take this name for the default.
        let context = properties! { "config.name" => "client-rt.conf" };
        let context = ContextRc::new(main_loop, Some(context))?;
        let core = remote.connect(&context, properties)?;
        let (informed, failed) = (queue.clone(), queue.clone());
        let listener = core
            .add_listener_local()
            .info(move |info| {
                let cycle = info.props().and_then(|properties| shortest_cycle(|key| properties.get(key)));
                let cycle = cycle.unwrap_or_default();
                let _ = informed.send(Happening::Server(key, info.version().to_owned(), cycle));
            })
            .error(move |id, _, result, message| {
                if id == PW_ID_CORE {
                    let _ = failed.send(Happening::CoreError(key, result, message.to_owned()));
                }
            })
            .register();
        let registry = core.get_registry_rc()?;
        Ok(Self { key, _listener: listener, registry, core })
    }

    pub(super) fn core(&self) -> &CoreRc {
        &self.core
    }

    /// The server's objects by their numbers. Who listens from the beginning is told of all of them.
    pub(super) fn registry(&self) -> &RegistryRc {
        &self.registry
    }
}

/// The shortest cycle that the server's graph may have, by the server's properties.
fn shortest_cycle<'a>(property: impl Fn(&str) -> Option<&'a str>) -> Option<Nanos> {
    let number = |key| property(key)?.parse::<u32>().ok();
    let (frames, rate) = (number("default.clock.min-quantum")?, number("default.clock.rate")?);
    (rate > 0).then(|| Frames(frames.into()).duration(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_cycle_is_what_the_server_says() {
        let of =
            |quantum, rate| shortest_cycle(|key| if key == "default.clock.rate" { rate } else { quantum });
        assert_eq!(of(Some("480"), Some("48000")), Some(Nanos::from_millis(10)));
        assert_eq!(
            (of(Some("480"), Some("0")), of(Some("-1"), Some("1")), of(None, Some("1"))),
            (None, None, None)
        );
    }
}
