//! An ear on the sink's monitor with a clock: which frames the sink was given in which cycle of the graph.
//!
//! It shares nothing with the bridge: a client of its own, its own reports of the graph's clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use pipewire as pw;
use pw::context::ContextRc;
use pw::main_loop::MainLoopRc;
use pw::properties::properties;
use pw::spa;
use pw::stream::{Stream, StreamFlags, StreamRc};
use spa::param::audio::{AudioFormat, AudioInfoRaw};
use spa::pod::serialize::PodSerializer;
use spa::pod::{Object, Pod, Value};
use spa::utils::Direction;
use vsnd_bridge::sim::signal::Frame;

/// The node that plays.
pub const NATIVE: &str = "bench-native";
/// The node that is linked by hand.
pub const EAR: &str = "bench-ear";

/// Frames of a cycle that are kept: enough to identify their place in a signal.
pub const HEAD: usize = 8;

/// Half of the amplitude with which the signal begins.
const HALF: f64 = 4096.0;

/// One cycle of the graph.
#[derive(Clone, Copy, Debug)]
pub struct Cycle {
    /// The driver's wake-up, in nanoseconds of CLOCK_MONOTONIC: when the first frame is played.
    pub now: i64,
    /// The driver's position then, in frames.
    pub ticks: u64,
    /// Frames in it.
    pub frames: u64,
    /// The first of them.
    pub head: [Frame; HEAD],
    /// Where the first channel first passes half of the signal's amplitude, in frames from the cycle's first: a step out of
    /// silence is just there, through whatever symmetric filter.
    pub onset: Option<f64>,
}

/// A client on a thread and a connection of its own, called at each cycle.
pub struct Client {
    cycles: Arc<Mutex<Vec<Cycle>>>,
    quit: pw::channel::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// What a client plays: fills the frames, given the cycle's place in what it played so far.
pub type Source = Box<dyn FnMut(&mut [Frame]) + Send>;

impl Client {
    /// Records the monitor of `sink`; returns when it runs.
    pub fn listen(remote: &str, sink: &str, rate: u32, room: usize) -> Result<Self> {
        Self::start(remote, Some(sink), rate, room, None)
    }

    /// Records what will be linked to its node, [`EAR`].
    pub fn listen_unlinked(remote: &str, rate: u32, room: usize) -> Result<Self> {
        Self::start(remote, None, rate, room, None)
    }

    /// Plays into `sink`, as any native application would; returns when it runs.
    pub fn play(remote: &str, sink: &str, rate: u32, room: usize, source: Source) -> Result<Self> {
        Self::start(remote, Some(sink), rate, room, Some(source))
    }

    fn start(
        remote: &str,
        sink: Option<&str>,
        rate: u32,
        room: usize,
        source: Option<Source>,
    ) -> Result<Self> {
        let sink_given = sink.is_some();
        let cycles = Arc::new(Mutex::new(Vec::with_capacity(room)));
        let (quit, quitting) = pw::channel::channel();
        let (own, remote, sink) = (Arc::clone(&cycles), remote.to_owned(), sink.map(str::to_owned));
        let failed = Arc::new(Mutex::new(None));
        let failure = Arc::clone(&failed);
        let thread = std::thread::spawn(move || {
            if let Err(error) = run(&remote, sink.as_deref(), rate, &own, source, quitting) {
                *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        });
        let client = Self { cycles, quit, thread: Some(thread) };
        let deadline = Instant::now() + Duration::from_secs(10);
        while sink_given && client.count() < 3 {
            if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Err(error);
            }
            if Instant::now() > deadline {
                bail!("a native client of the private PipeWire is not called");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(client)
    }

    fn count(&self) -> usize {
        self.cycles.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Ends it; every cycle in which it was called.
    pub fn finish(mut self) -> Vec<Cycle> {
        self.end();
        std::mem::take(&mut *self.cycles.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn end(&mut self) {
        let _ = self.quit.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(
    remote: &str,
    sink: Option<&str>,
    rate: u32,
    cycles: &Arc<Mutex<Vec<Cycle>>>,
    source: Option<Source>,
    quit: pw::channel::Receiver<()>,
) -> Result<()> {
    let main_loop = MainLoopRc::new(None)?;
    let context = ContextRc::new(&main_loop, Some(properties! { "config.name" => "client-rt.conf" }))?;
    let core = context.connect_rc(Some(properties! { "remote.name" => remote }))?;
    let name = match (sink, &source) {
        (Some(_), Some(_)) => NATIVE,
        (Some(_), None) => "bench-monitor",
        (None, _) => EAR,
    };
    let mut properties = properties! {
        "media.type" => "Audio",
        "media.category" => if source.is_some() { "Playback" } else { "Capture" },
        "node.name" => name,
        "state.restore-props" => "false",
        "state.restore-target" => "false",
    };
    let direction = if source.is_some() { Direction::Output } else { Direction::Input };
    match sink {
        Some(sink) => properties.insert("target.object", sink),
        None => properties.insert("node.autoconnect", "false"),
    }
    if source.is_none() {
        properties.insert("stream.capture.sink", "true");
    }
    let stream = StreamRc::new(core, name, properties)?;
    let (own, mut source) = (Arc::clone(cycles), source);
    let mut silent = vec![[0; 2]; 8192];
    let _process = stream
        .add_local_listener::<()>()
        .process(move |stream, ()| {
            // Held by nobody for longer than a look at its length.
            let mut cycles = own.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(cycle) = cycle(stream, source.as_mut(), &mut silent) {
                if cycles.len() < cycles.capacity() {
                    cycles.push(cycle);
                }
                if source.is_some() {
                    break;
                }
            }
        })
        .register()?;
    let mut info = AudioInfoRaw::new();
    info.set_format(AudioFormat::S16LE);
    info.set_rate(rate);
    info.set_channels(2);
    let object = Value::Object(Object {
        type_: spa::sys::SPA_TYPE_OBJECT_Format,
        id: spa::sys::SPA_PARAM_EnumFormat,
        properties: info.into(),
    });
    let format = PodSerializer::serialize(std::io::Cursor::new(Vec::new()), &object)?.0.into_inner();
    let mut params = [Pod::from_bytes(&format).context("a format")?];
    let linked = if sink.is_some() { StreamFlags::AUTOCONNECT } else { StreamFlags::empty() };
    let flags = linked | StreamFlags::MAP_BUFFERS | StreamFlags::RT_PROCESS;
    stream.connect(direction, None, flags, &mut params)?;
    let stopping = main_loop.clone();
    let _quit = quit.attach(main_loop.loop_(), move |()| stopping.quit());
    main_loop.run();
    Ok(stream.disconnect()?)
}

/// Moves one buffer.
fn cycle(stream: &Stream, source: Option<&mut Source>, scratch: &mut [Frame]) -> Option<Cycle> {
    let time = stream.time().ok()?;
    let (now, ticks) = (time.as_raw().now, time.ticks());
    let mut buffer = stream.dequeue_buffer()?;
    let requested = usize::try_from(buffer.requested()).ok()?;
    let data = buffer.datas_mut().first_mut()?;
    let mut head = [[0; 2]; HEAD];
    let mut onset = None;
    let frames = if let Some(source) = source {
        let out = data.data()?;
        let room = (out.len() / 4).min(scratch.len());
        let frames = if requested == 0 { room } else { requested.min(room) };
        let scratch = scratch.get_mut(..frames)?;
        source(scratch);
        let (cells, _) = out.as_chunks_mut::<4>();
        for (cell, [left, right]) in cells.iter_mut().zip(scratch.iter()) {
            let ([a, b], [c, d]) = (left.to_le_bytes(), right.to_le_bytes());
            *cell = [a, b, c, d];
        }
        head.iter_mut().zip(scratch.iter()).for_each(|(head, frame)| *head = *frame);
        let chunk = data.chunk_mut();
        *chunk.offset_mut() = 0;
        *chunk.stride_mut() = 4;
        *chunk.size_mut() = u32::try_from(frames * 4).ok()?;
        frames
    } else {
        let (offset, size) = (data.chunk().offset() as usize, data.chunk().size() as usize);
        let (cells, _) = data.data()?.get(offset..offset + size)?.as_chunks::<4>();
        for (head, [a, b, c, d]) in head.iter_mut().zip(cells) {
            *head = [i16::from_le_bytes([*a, *b]), i16::from_le_bytes([*c, *d])];
        }
        let loud = |cell: &[u8; 4]| f64::from(i16::from_le_bytes([cell[0], cell[1]])).abs();
        let crosses = |pair: &[[u8; 4]]| loud(&pair[0]) < HALF && loud(&pair[1]) >= HALF;
        let crossing = cells.windows(2).position(crosses);
        onset = crossing.map(|before| {
            let (from, to) = (loud(&cells[before]), loud(&cells[before + 1]));
            before as f64 + (HALF - from) / (to - from)
        });
        cells.len()
    };
    Some(Cycle { now, ticks, frames: frames as u64, head, onset })
}
