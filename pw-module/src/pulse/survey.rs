//! A look at a server: what it is, and what it plays to.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use libpulse_binding::callbacks::ListResult;
use libpulse_binding::mainloop::standard::Mainloop;
use libpulse_binding::operation::State;
use libpulse_binding::time::MicroSeconds;

use super::connection::{ConnectError, Connection, Progress};
use super::properties;
use crate::ServerInfo;

/// Why nothing can be said of a server.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The library has no loop.
    #[error("can't make libpulse's event loop")]
    Loop,
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection ended; the text says why.
    #[error("PulseAudio can't be reached: {0}")]
    Broken(String),
    /// It doesn't answer.
    #[error("PulseAudio doesn't answer")]
    Timeout,
}

/// What was seen of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Name and version.
    pub server: ServerInfo,
    /// The names of its sinks.
    pub sinks: Vec<String>,
}

/// Looks at the server `server` (as for [`PulseServer::start`](super::PulseServer::start)), which may take `patience`
/// to answer.
///
/// # Errors
/// When it can't be reached or doesn't answer in time.
pub fn survey(server: Option<&str>, patience: Duration) -> Result<Survey, SurveyError> {
    let deadline = Instant::now() + patience;
    let mut mainloop = Mainloop::new().ok_or(SurveyError::Loop)?;
    let mut connection = Connection::new(&mainloop, properties::watch(), server)?;
    let sinks = Rc::new(RefCell::new(Vec::new()));
    let mut listing = None;
    loop {
        if let Progress::Failed(why) = connection.progress() {
            return Err(SurveyError::Broken(why));
        }
        let info = connection.server_info();
        if listing.is_none()
            && let Some(context) = connection.ready()
        {
            let found = Rc::clone(&sinks);
            listing = Some(context.introspect().get_sink_info_list(move |item| {
                if let ListResult::Item(sink) = item {
                    found.borrow_mut().extend(sink.name.as_deref().map(str::to_owned));
                }
            }));
        }
        let listed = listing.as_ref().is_some_and(|listing| listing.get_state() == State::Done);
        if let (Some(server), true) = (info, listed) {
            return Ok(Survey { server, sinks: sinks.take() });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(SurveyError::Timeout);
        }
        let wait = MicroSeconds(u64::try_from(left.as_micros()).unwrap_or(0).clamp(1, 1_000_000));
        let turned = mainloop.prepare(Some(wait)).and_then(|()| mainloop.poll());
        turned
            .and_then(|_| mainloop.dispatch())
            .map_err(|why| SurveyError::Broken(why.to_string().unwrap_or_default()))?;
    }
}
