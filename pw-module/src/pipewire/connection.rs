//! One connection to the server, as the application that a mixer shows.

use std::path::Path;
use std::sync::mpsc::Sender;

use pipewire as pw;
use pw::context::ContextRc;
use pw::core::{CoreRc, Listener, PW_ID_CORE};
use pw::main_loop::MainLoopRc;
use pw::properties::{PropertiesBox, properties};

use super::thread::Happening;

/// The number of a connection; what an earlier one still says isn't about a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectionKey(pub(super) u64);

/// A connection. The fields drop in this order: the listener before the core it listens to, the context last.
pub(super) struct Connection {
    pub(super) key: ConnectionKey,
    _listener: Listener,
    core: CoreRc,
}

impl Connection {
    /// Connects with the client properties `properties` to the server of the environment, or to `remote`: a name or an
    /// absolute path of a socket. Whether the server answers is told to `queue`.
    pub(super) fn new(
        main_loop: &MainLoopRc,
        key: ConnectionKey,
        mut properties: PropertiesBox,
        remote: Option<&str>,
        queue: &Sender<Happening>,
    ) -> Result<Self, pw::Error> {
        // The default configuration of clients leaves their data thread without real-time priority before PipeWire 1.2;
        // later versions take this name for the default.
        let context = properties! { "config.name" => "client-rt.conf" };
        let context = ContextRc::new(main_loop, Some(context))?;
        if let Some(remote) = remote {
            properties.insert("remote.name", remote);
        }
        let core = context.connect_rc(Some(properties))?;
        let (informed, failed) = (queue.clone(), queue.clone());
        let listener = core
            .add_listener_local()
            .info(move |info| {
                let _ = informed.send(Happening::Server(key, info.version().to_owned()));
            })
            .error(move |id, _, result, message| {
                if id == PW_ID_CORE {
                    let _ = failed.send(Happening::CoreError(key, result, message.to_owned()));
                }
            })
            .register();
        Ok(Self { key, _listener: listener, core })
    }

    pub(super) fn core(&self) -> &CoreRc {
        &self.core
    }
}

/// Whether `remote` is worth a try: connecting to a socket that isn't there would make PipeWire log each time.
pub(super) fn may_exist(remote: Option<&str>) -> bool {
    remote.is_none_or(|remote| !remote.starts_with('/') || Path::new(remote).exists())
}
