//! What a server's graph holds, seen once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use pipewire as pw;
use pw::context::ContextRc;
use pw::core::PW_ID_CORE;
use pw::loop_::Timeout;
use pw::main_loop::MainLoopRc;

use super::properties;
use super::remote::{ConnectError, Remote};

/// An object of the graph as the registry announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The server's number for it.
    pub id: u32,
    /// What it is: "Node", "Port", "Client", "Link", "Metadata", ...
    pub kind: String,
    /// The properties that the registry shows, a selection of the object's own.
    pub properties: BTreeMap<String, String>,
}

impl Object {
    /// A property.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.properties.get(key).map(String::as_str)
    }
}

/// Why a graph couldn't be seen.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// There is no server, or it refuses connections.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The library can't prepare or make a request.
    #[error("can't ask PipeWire")]
    Request(#[from] pw::Error),
    /// The connection broke.
    #[error("the connection to PipeWire broke: {0}")]
    Broken(String),
    /// The server doesn't answer.
    #[error("PipeWire doesn't answer")]
    Timeout,
}

/// All objects of the server `remote` (as for [`PipeWireServer::start`](super::PipeWireServer::start)), if it answers
/// within `patience`. Waits for it.
///
/// # Errors
/// When the server can't be reached or doesn't answer in time.
pub fn survey(remote: Option<&str>, patience: Duration) -> Result<Vec<Object>, SurveyError> {
    let main_loop = MainLoopRc::new(None)?;
    let context = ContextRc::new(&main_loop, None)?;
    let remote = Remote::from(remote.map(str::to_owned));
    let core = remote.connect(&context, properties::watch())?;
    let registry = core.get_registry_rc()?;

    let objects = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&objects);
    let _registry_listener = registry
        .add_listener_local()
        .global(move |global| {
            let properties = global.props.map(|properties| {
                properties.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
            });
            seen.borrow_mut().push(Object {
                id: global.id,
                kind: global.type_.to_str().rsplit(':').next().unwrap_or_default().to_owned(),
                properties: properties.unwrap_or_default(),
            });
        })
        .register();

    let (done, broken) = (Rc::new(Cell::new(false)), Rc::new(RefCell::new(None)));
    let (answered, failed) = (Rc::clone(&done), Rc::clone(&broken));
    let _core_listener = core
        .add_listener_local()
        .done(move |id, _| answered.set(answered.get() || id == PW_ID_CORE))
        .error(move |_, _, _, message| *failed.borrow_mut() = Some(message.to_owned()))
        .register();
    // Requests are answered in order: when this one is, everything was announced.
    core.sync(0)?;

    let deadline = Instant::now() + patience;
    while !done.get() {
        if let Some(message) = broken.take() {
            return Err(SurveyError::Broken(message));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(SurveyError::Timeout);
        }
        main_loop.loop_().iterate(Timeout::Finite(left.min(Duration::from_secs(1))));
    }
    Ok(objects.take())
}
