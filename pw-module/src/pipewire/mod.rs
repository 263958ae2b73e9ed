//! Rings as nodes of a PipeWire server.
//!
//! One thread owns everything of PipeWire's; the server object and the handles only post commands to it. The data
//! thread, which PipeWire runs itself, calls `process` at every cycle.

mod buffer;
mod connection;
mod control;
pub mod endpoint;
mod format;
mod heap;
mod node;
pub mod private;
mod process;
mod properties;
mod remote;
mod router;
mod survey;
mod thread;
mod version;
mod watch;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use pipewire as pw;

use crate::handle::Handles;
use crate::units::Nanos;
use crate::{Bounds, Node, NodeSpec, PcmRing, SampleFormat, ServerEvent, SoundServer, StreamFormat};
pub use remote::ConnectError;
pub use survey::{Object, SurveyError, survey};

/// Why the thread for PipeWire can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operating system refuses a thread.
    #[error("can't start a thread for PipeWire")]
    Thread(#[source] std::io::Error),
    /// The library can't make its event loop.
    #[error("can't make PipeWire's event loop")]
    Loop(#[source] pw::Error),
    /// The thread ended before it began.
    #[error("the thread for PipeWire ended at once")]
    Ended,
}

/// A PipeWire server, whether it runs at the moment or not: nodes are kept over its restarts.
///
/// Dropping it plays the tails of its nodes and takes them away.
pub struct PipeWireServer {
    handles: Handles,
    /// The shortest cycle that the graph may have, in nanoseconds; 0 before the server has told.
    shortest_cycle: Arc<AtomicI64>,
    thread: Option<JoinHandle<()>>,
}

impl PipeWireServer {
    /// Starts the thread, which looks for the server and tells `events` what becomes of it and of the nodes. `remote` is
    /// the absolute path of the server's socket, or its name, which `PIPEWIRE_REMOTE` in the environment overrules;
    /// without it the environment and PipeWire's default decide.
    ///
    /// # Errors
    /// When there are no resources for a thread or a loop. A server that isn't there is no error: it is waited for.
    pub fn start(
        events: impl Fn(ServerEvent) + Send + 'static,
        remote: Option<String>,
    ) -> Result<Self, StartError> {
        heap::return_large_blocks();
        let (commands, receiver) = pw::channel::channel();
        let (started, result) = mpsc::sync_channel(1);
        let shortest_cycle = Arc::<AtomicI64>::default();
        let told = Arc::clone(&shortest_cycle);
        let thread = std::thread::Builder::new()
            .name("pipewire".to_owned())
            .spawn(move || match pw::main_loop::MainLoopRc::new(None) {
                Ok(main_loop) => {
                    let _ = started.send(Ok(()));
                    thread::run(main_loop, receiver, Rc::new(events), remote.into(), told);
                }
                Err(error) => {
                    let _ = started.send(Err(StartError::Loop(error)));
                }
            })
            .map_err(StartError::Thread)?;
        result.recv().map_err(|_| StartError::Ended)??;
        let handles = Handles::new(move |command| {
            // The sender's lock is only ever held while a command is moved, so this doesn't wait.
            if commands.send(command).is_err() {
                tracing::debug!("the thread for PipeWire has ended");
            }
        });
        Ok(Self { handles, shortest_cycle, thread: Some(thread) })
    }
}

impl SoundServer for PipeWireServer {
    fn open(&self, spec: NodeSpec, ring: Arc<PcmRing>) -> Option<Box<dyn Node>> {
        Some(self.handles.open(spec, ring))
    }

    fn carries(&self, format: SampleFormat) -> bool {
        StreamFormat::new(format, 1, 48_000).and_then(format::carrier).is_some()
    }

    fn bounds(&self) -> Bounds {
        // One cycle in the graph, and one in which the guest is woken and writes.
        let buffer = Nanos(2 * self.shortest_cycle.load(Ordering::Relaxed));
        Bounds { channels: format::CHANNELS, buffer, ..Bounds::NONE }
    }

    fn seek(&self, wanted: bool) {
        self.handles.seek(wanted);
    }
}

impl Drop for PipeWireServer {
    fn drop(&mut self) {
        self.handles.quit();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread for PipeWire panicked");
        }
    }
}
