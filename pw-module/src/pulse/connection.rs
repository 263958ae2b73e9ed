//! One connection to the server, as the application that a mixer shows.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

use libpulse_binding::context::introspect::{Introspector, ServerInfo as Info};
use libpulse_binding::context::subscribe::{Facility, InterestMaskSet, Operation};
use libpulse_binding::context::{Context, FlagSet, State};
use libpulse_binding::error::PAErr;
use libpulse_binding::mainloop::standard::Mainloop;
use libpulse_binding::proplist::Proplist;
use libpulse_binding::proplist::properties::APPLICATION_NAME;

use crate::{Direction, ServerInfo};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The library has no memory for it.
    #[error("libpulse is out of memory")]
    Memory,
    /// The library refuses.
    #[error("PulseAudio can't be connected to")]
    Connect(#[source] PAErr),
}

/// Streams on the server: which way they go, and the server's numbers.
pub(super) type Streams = HashSet<(Direction, u32)>;

/// How far a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The server hasn't answered yet.
    Waiting,
    /// Streams can be made.
    Ready,
    /// It is over, and why.
    Failed(String),
}

/// A connection.
pub(super) struct Connection {
    context: Context,
    /// What the server told of itself, once it did.
    info: Rc<RefCell<Option<ServerInfo>>>,
    asked: bool,
    /// The streams of which the server told that they changed; `None` before it was asked to tell.
    changed: Option<Rc<RefCell<Streams>>>,
}

impl Connection {
    /// Connects with the client properties `properties` to `server`, or to the one that libpulse finds. Whether the server
    /// answers shows later.
    pub(super) fn new(
        mainloop: &Mainloop,
        properties: Option<Proplist>,
        server: Option<&str>,
    ) -> Result<Self, ConnectError> {
        let properties = properties.ok_or(ConnectError::Memory)?;
        // libpulse makes this name the application's, whatever the properties say.
        let name = properties.get_str(APPLICATION_NAME).unwrap_or_default();
        let context = Context::new_with_proplist(mainloop, &name, &properties);
        let mut context = context.ok_or(ConnectError::Memory)?;
        // A server that isn't there is the desktop's to start, not ours.
        context.connect(server, FlagSet::NOAUTOSPAWN, None).map_err(ConnectError::Connect)?;
        Ok(Self { context, info: Rc::default(), asked: false, changed: None })
    }

    pub(super) fn progress(&self) -> Progress {
        match self.context.get_state() {
            State::Ready => Progress::Ready,
            State::Failed | State::Terminated => {
                Progress::Failed(self.context.errno().to_string().unwrap_or_default())
            }
            State::Unconnected | State::Connecting | State::Authorizing | State::SettingName => {
                Progress::Waiting
            }
        }
    }

    /// The library's object, for operations; libpulse-binding panics when a connection isn't ready and an operation is asked
    /// of it.
    pub(super) fn ready(&mut self) -> Option<&mut Context> {
        (self.context.get_state() == State::Ready).then_some(&mut self.context)
    }

    /// What questions are asked with, once the connection is ready.
    pub(super) fn introspector(&self) -> Option<Introspector> {
        (self.context.get_state() == State::Ready).then(|| self.context.introspect())
    }

    /// The streams of which the server told that they changed since the last call; asks it to tell, the first time.
    pub(super) fn changed(&mut self) -> Streams {
        if self.changed.is_none() && self.context.get_state() == State::Ready {
            let changed = Rc::<RefCell<Streams>>::default();
            self.changed = Some(Rc::clone(&changed));
            // Only stores: a callback must not reach the objects whose methods may be on the stack.
            self.context.set_subscribe_callback(Some(Box::new(move |facility, operation, index| {
                let direction = match facility {
                    Some(Facility::SinkInput) => Direction::Playback,
                    Some(Facility::SourceOutput) => Direction::Capture,
                    _ => return,
                };
                if operation == Some(Operation::Changed) {
                    changed.borrow_mut().insert((direction, index));
                }
            })));
            drop(
                self.context.subscribe(InterestMaskSet::SINK_INPUT | InterestMaskSet::SOURCE_OUTPUT, |_| ()),
            );
        }
        self.changed.as_ref().map(|changed| changed.take()).unwrap_or_default()
    }

    /// What the server tells of itself; asks it the first time.
    pub(super) fn server_info(&mut self) -> Option<ServerInfo> {
        if !self.asked && self.context.get_state() == State::Ready {
            self.asked = true;
            let slot = Rc::clone(&self.info);
            // Only stores: a callback must not reach the objects whose methods may be on the stack.
            let store = move |info: &Info<'_>| *slot.borrow_mut() = Some(name(info));
            drop(self.context.introspect().get_server_info(store));
        }
        self.info.borrow().clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.context.disconnect();
    }
}

/// The server's name and version. What stands in for PulseAudio names itself in brackets behind that name.
fn name(info: &Info<'_>) -> ServerInfo {
    let version = info.server_version.as_deref().unwrap_or_default();
    let other = info.server_name.as_deref().unwrap_or_default().split_once(" (on ");
    let version = match other {
        Some((_, other)) => format!("{version} (on {other}"),
        None => version.to_owned(),
    };
    ServerInfo { name: "PulseAudio".to_owned(), version, is_stand_in: other.is_some() }
}
