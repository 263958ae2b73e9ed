//! Rings as streams of a PulseAudio server, or of what stands in for one.
//!
//! One thread owns everything of PulseAudio's and moves the frames too; the server object and the handles only post
//! commands to it. Clients of PulseAudio have no real-time callback: the server asks for frames over a socket, and half
//! of a stream's latency is there for the answer.

mod connection;
mod format;
mod inbox;
mod node;
mod process;
mod properties;
mod stream;
mod survey;
mod thread;
mod timing;
mod volume;
mod watch;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use libpulse_binding::mainloop::standard::Mainloop;

use crate::handle::Handles;
use crate::{Bounds, Node, NodeSpec, PcmRing, SampleFormat, ServerEvent, SoundServer, StreamFormat};
pub use connection::ConnectError;
use inbox::Inbox;
pub use survey::{Survey, SurveyError, survey};

/// Why the thread for PulseAudio can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system refuses a thread.
    #[error("can't start a thread for PulseAudio")]
    Thread(#[source] std::io::Error),
    /// The operating system refuses what wakes the thread.
    #[error("can't make an eventfd")]
    Wake(#[source] std::io::Error),
    /// The library can't make its event loop.
    #[error("can't make libpulse's event loop")]
    Loop,
    /// The thread ended before it began.
    #[error("the thread for PulseAudio ended at once")]
    Ended,
}

/// A PulseAudio server, whether it runs at the moment or not: nodes are kept over its restarts.
///
/// Dropping it plays the tails of its nodes and takes them away.
pub struct PulseServer {
    handles: Handles,
    thread: Option<JoinHandle<()>>,
}

impl PulseServer {
    /// Starts the thread, which looks for the server and tells `events` what becomes of it and of the nodes. `server` is
    /// a server string of PulseAudio's, such as `unix:/path`; without it the environment and PulseAudio's client
    /// configuration decide.
    ///
    /// # Errors
    /// When there are no resources for a thread or a loop. A server that isn't there is no error: it is waited for.
    pub fn start(
        events: impl Fn(ServerEvent) + Send + 'static,
        server: Option<String>,
    ) -> Result<Self, StartError> {
        let (commands, receiver) = inbox::inbox()?;
        let (started, result) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("pulseaudio".to_owned())
            .spawn(move || {
                let parts = Mainloop::new().and_then(|mut mainloop| {
                    let inbox = Inbox::attach(&mut mainloop, receiver)?;
                    Some((mainloop, inbox))
                });
                let _ = started.send(parts.is_some());
                if let Some((mainloop, inbox)) = parts {
                    thread::run(mainloop, inbox, Rc::new(events), server);
                }
            })
            .map_err(StartError::Thread)?;
        if !result.recv().map_err(|_| StartError::Ended)? {
            return Err(StartError::Loop);
        }
        let handles = Handles::new(move |command| commands.send(command));
        Ok(Self { handles, thread: Some(thread) })
    }
}

impl SoundServer for PulseServer {
    fn open(&self, spec: NodeSpec, ring: Arc<PcmRing>) -> Option<Box<dyn Node>> {
        Some(self.handles.open(spec, ring))
    }

    fn carries(&self, format: SampleFormat) -> bool {
        StreamFormat::new(format, 1, 48_000).and_then(format::carrier).is_some()
    }

    fn bounds(&self) -> Bounds {
        format::BOUNDS
    }

    fn seek(&self, wanted: bool) {
        self.handles.seek(wanted);
    }
}

impl Drop for PulseServer {
    fn drop(&mut self) {
        self.handles.quit();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for PulseAudio panicked");
        }
    }
}
