//! An ear and a mouth for demonstrations: 16 bits in stereo, linked to nothing until somebody does so.
//!
//! They have nothing of the bridge in them but the sound server. PipeWire's own recorder and player won't do where every
//! frame counts: they work on their main thread, and on a busy machine miss cycles without a word.

use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use pipewire as pw;
use pw::context::ContextRc;
use pw::main_loop::MainLoopRc;
use pw::properties::properties;
use pw::spa::pod::Pod;
use pw::spa::utils::Direction;
use pw::stream::{Stream, StreamFlags, StreamRc};

use super::format::enum_format;
use crate::{SampleFormat, StreamFormat};

/// A frame.
type Frame = [i16; 2];
const OCTETS: usize = size_of::<Frame>();

/// Why there is no ear or mouth.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The server can't be reached, or refuses.
    #[error("PipeWire doesn't take a stream")]
    Server(#[from] pw::Error),
    /// No such rate.
    #[error("PipeWire has no such rate")]
    Rate,
    /// The operating system refuses a thread.
    #[error("can't start a thread for a sound")]
    Thread(#[source] std::io::Error),
    /// The thread ended.
    #[error("the thread for a sound ended at once")]
    Ended,
}

/// What an ear heard.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The frames.
    pub frames: Vec<Frame>,
    /// How often it missed cycles, because the machine was too busy: nothing can be said of these times.
    pub missed: usize,
    /// When the graph is to call next, in ticks of its clock.
    expected: Option<u64>,
}

/// Records what is linked to it.
pub struct Ear {
    recording: Arc<Mutex<Recording>>,
    endpoint: Endpoint,
}

impl Ear {
    /// An ear with this `node.name` at the server `remote` (as for
    /// [`PipeWireServer::start`](super::PipeWireServer::start)), with room for `frames`; what comes after is not recorded.
    ///
    /// # Errors
    /// Any [`EndpointError`].
    pub fn new(remote: Option<String>, name: &str, rate: u32, frames: usize) -> Result<Self, EndpointError> {
        let room = Recording { frames: Vec::with_capacity(frames), ..Recording::default() };
        let recording = Arc::new(Mutex::new(room));
        let own = Arc::clone(&recording);
        let process = move |stream: &Stream| {
            // Locked by nobody else until the stream is gone.
            if let Ok(mut recording) = own.try_lock() {
                while record(stream, &mut recording, rate).is_some() {}
            }
        };
        let endpoint = Endpoint::start(remote, name, rate, Direction::Input, process)?;
        Ok(Self { recording, endpoint })
    }

    /// Ends it; what it heard.
    pub fn finish(self) -> Recording {
        drop(self.endpoint);
        std::mem::take(&mut *self.recording.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Plays into what it is linked to, until it is dropped.
pub struct Mouth {
    _endpoint: Endpoint,
}

impl Mouth {
    /// A mouth with this `node.name` that says `frames`, and is silent after them.
    ///
    /// # Errors
    /// Any [`EndpointError`].
    pub fn new(
        remote: Option<String>,
        name: &str,
        rate: u32,
        frames: Vec<Frame>,
    ) -> Result<Self, EndpointError> {
        let mut said = 0;
        let process = move |stream: &Stream| {
            let rest = frames.get(said..).unwrap_or_default();
            said += say(stream, rest).unwrap_or(0);
        };
        Ok(Self { _endpoint: Endpoint::start(remote, name, rate, Direction::Output, process)? })
    }
}

/// A thread with a connection and a stream. Dropping it ends all three.
struct Endpoint {
    quit: pw::channel::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// `process` runs on PipeWire's data thread.
    fn start(
        remote: Option<String>,
        name: &str,
        rate: u32,
        direction: Direction,
        process: impl FnMut(&Stream) + Send + 'static,
    ) -> Result<Self, EndpointError> {
        let (quit, quitting) = pw::channel::channel();
        let (started, result) = mpsc::sync_channel(1);
        let name = name.to_owned();
        let body = move || {
            if let Err(error) = run(remote, &name, rate, direction, process, quitting, &started) {
                // Nobody waits for it once it has started.
                let _ = started.send(Err(error));
            }
        };
        let thread = std::thread::Builder::new().name("endpoint".to_owned()).spawn(body);
        let endpoint = Self { quit, thread: Some(thread.map_err(EndpointError::Thread)?) };
        result.recv().map_err(|_| EndpointError::Ended)??;
        Ok(endpoint)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let _ = self.quit.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(
    remote: Option<String>,
    name: &str,
    rate: u32,
    direction: Direction,
    mut process: impl FnMut(&Stream) + 'static,
    quit: pw::channel::Receiver<()>,
    started: &SyncSender<Result<(), EndpointError>>,
) -> Result<(), EndpointError> {
    let format = StreamFormat::new(SampleFormat::S16Le, 2, rate).and_then(enum_format);
    let format = format.ok_or(EndpointError::Rate)?;
    let main_loop = MainLoopRc::new(None)?;
    let context = ContextRc::new(&main_loop, Some(properties! { "config.name" => "client-rt.conf" }))?;
    let core = context.connect_rc(remote.map(|remote| properties! { "remote.name" => remote }))?;
    let properties = properties! {
        "media.type" => "Audio",
        "media.category" => if direction == Direction::Input { "Capture" } else { "Playback" },
        "node.name" => name,
        "node.autoconnect" => "false",
        "state.restore-props" => "false",
        "state.restore-target" => "false",
    };
    let stream = StreamRc::new(core, name, properties)?;
    let _process = stream.add_local_listener::<()>().process(move |stream, ()| process(stream)).register()?;
    let mut params = [Pod::from_bytes(&format).ok_or(EndpointError::Rate)?];
    stream.connect(direction, None, StreamFlags::MAP_BUFFERS | StreamFlags::RT_PROCESS, &mut params)?;
    let stopping = main_loop.clone();
    let _quit = quit.attach(main_loop.loop_(), move |()| stopping.quit());
    let _ = started.send(Ok(()));
    main_loop.run();
    Ok(stream.disconnect()?)
}

/// Takes one buffer, if there is one.
fn record(stream: &Stream, recording: &mut Recording, rate: u32) -> Option<()> {
    let mut buffer = stream.dequeue_buffer()?;
    let data = buffer.datas_mut().first_mut()?;
    let (offset, size) = (data.chunk().offset() as usize, data.chunk().size() as usize);
    let octets = data.data()?.get(offset..offset + size)?;
    let (frames, _) = octets.as_chunks::<OCTETS>();
    // Ticks are the graph's; where its rate is another, they can't be compared with frames.
    if let Some(time) = stream.time().ok().filter(|time| time.as_raw().rate.denom == rate) {
        let late = recording.expected.is_some_and(|expected| expected < time.ticks());
        recording.missed += usize::from(late);
        recording.expected = Some(time.ticks() + frames.len() as u64);
    }
    let room = recording.frames.capacity() - recording.frames.len();
    let frame = |&[a, b, c, d]: &[u8; OCTETS]| [i16::from_le_bytes([a, b]), i16::from_le_bytes([c, d])];
    recording.frames.extend(frames.iter().take(room).map(frame));
    Some(())
}

/// Fills one buffer; how many of the frames went into it.
fn say(stream: &Stream, frames: &[Frame]) -> Option<usize> {
    let mut buffer = stream.dequeue_buffer()?;
    let requested = usize::try_from(buffer.requested()).ok()?;
    let data = buffer.datas_mut().first_mut()?;
    let out = data.data()?;
    let length = out.len() / OCTETS;
    let length = if requested == 0 { length } else { requested.min(length) };
    let (cells, _) = out.get_mut(..length * OCTETS)?.as_chunks_mut::<OCTETS>();
    let silence = std::iter::repeat(&[0, 0]);
    for (cell, [left, right]) in cells.iter_mut().zip(frames.iter().chain(silence)) {
        let ([a, b], [c, d]) = (left.to_le_bytes(), right.to_le_bytes());
        *cell = [a, b, c, d];
    }
    let chunk = data.chunk_mut();
    *chunk.offset_mut() = 0;
    *chunk.stride_mut() = 4;
    *chunk.size_mut() = u32::try_from(length * OCTETS).ok()?;
    Some(length.min(frames.len()))
}
