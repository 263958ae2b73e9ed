//! A recorder of a sink's monitor and a player into a source: 32-bit float, at the graph's own rate, each on a thread
//! and a connection of its own, and with nothing of the bridge in it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use pipewire as pw;
use pw::context::ContextRc;
use pw::main_loop::MainLoopRc;
use pw::properties::properties;
use pw::spa;
use pw::stream::{Stream, StreamFlags, StreamRc, StreamState};
use spa::param::audio::{AudioFormat, AudioInfoRaw};
use spa::pod::serialize::PodSerializer;
use spa::pod::{Object, Pod, Value};
use spa::utils::Direction;

/// The node of a player.
pub const PLAYER: &str = "test-player";

/// Room for what is recorded, so that the data thread needn't ask for memory: 60 s of stereo.
const ROOM: usize = 60 * 48_000 * 2;

/// What is quieter than this is silence; A-law has no zero.
pub const SILENCE: f32 = 0.001;

/// How many frames at one level make it steady.
const STEADY: usize = 256;

/// Cycles that an endpoint missed, because the machine was too busy: nothing can be said of that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// How many samples came before it.
    pub at: usize,
    /// The driver's ticks that passed unseen.
    pub ticks: i64,
}

/// What an endpoint heard or said.
#[derive(Debug, Default)]
pub struct Sound {
    /// Interleaved samples: recorded, or still to be played.
    pub samples: Vec<f32>,
    /// How many of the samples were played.
    pub played: usize,
    /// How many sounds began and ended in silence so far.
    pub ended: usize,
    /// Missed cycles.
    pub gaps: Vec<Gap>,
    /// Why the endpoint stopped.
    pub error: Option<String>,
    sounding: bool,
    cycles: u64,
    expected_ticks: Option<u64>,
}

impl Sound {
    /// The stretches that aren't silent.
    pub fn sounds(&self) -> Vec<&[f32]> {
        let split = self.samples.split(|sample| sample.abs() < SILENCE);
        split.filter(|sound| !sound.is_empty()).collect()
    }

    /// Whether the newest sample isn't silent.
    pub fn sounding(&self) -> bool {
        self.sounding
    }

    /// Whether the newest frames of two channels all are at these levels, of a full scale of 1.
    pub fn is_at(&self, levels: [f32; 2]) -> bool {
        let (frames, _) = self.samples.as_chunks::<2>();
        let near =
            |frame: &[f32; 2]| frame.iter().zip(levels).all(|(heard, level)| (heard - level).abs() < 1e-4);
        frames.len() >= STEADY && frames[frames.len() - STEADY..].iter().all(near)
    }

    /// Takes in what was recorded next.
    pub(crate) fn record(&mut self, samples: &[[u8; 4]]) {
        for sample in samples {
            let sample = f32::from_le_bytes(*sample);
            let sounding = sample.abs() >= SILENCE;
            self.ended += usize::from(self.sounding && !sounding);
            self.sounding = sounding;
            self.samples.push(sample);
        }
    }
}

/// A recorder or a player.
pub struct Endpoint {
    shared: Arc<(Mutex<Sound>, Condvar)>,
    quit: pw::channel::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Plan {
    remote: String,
    target: String,
    channels: u32,
    rate: u32,
    play: bool,
    monitor: bool,
    /// Whether the session manager links it; otherwise somebody else has to.
    linked: bool,
}

impl Endpoint {
    /// Records the monitor of the sink `target`; returns when the recording runs.
    ///
    /// # Errors
    /// When the server can't be reached or the recording doesn't start within 10 s.
    pub fn record_sink(remote: &str, target: &str, channels: u32, rate: u32) -> Result<Self> {
        let (remote, target) = (remote.to_owned(), target.to_owned());
        let plan = Plan { remote, target, channels, rate, play: false, monitor: true, linked: true };
        Self::start(plan, Vec::with_capacity(ROOM))
    }

    /// Records from the source `target`; returns when the recording runs.
    ///
    /// # Errors
    /// As for [`record_sink`](Self::record_sink).
    pub fn record_source(remote: &str, target: &str, channels: u32, rate: u32) -> Result<Self> {
        let (remote, target) = (remote.to_owned(), target.to_owned());
        let plan = Plan { remote, target, channels, rate, play: false, monitor: false, linked: true };
        Self::start(plan, Vec::with_capacity(ROOM))
    }

    /// Plays into the sink `target`: silence before [`play`](Self::play) is called and after its last sample.
    ///
    /// # Errors
    /// When the server can't be reached or the playing doesn't start within 10 s.
    pub fn play_into(remote: &str, target: &str, channels: u32, rate: u32) -> Result<Self> {
        let (remote, target) = (remote.to_owned(), target.to_owned());
        Self::start(
            Plan { remote, target, channels, rate, play: true, monitor: false, linked: true },
            Vec::new(),
        )
    }

    /// Plays like [`play_into`](Self::play_into) into what the node [`PLAYER`] gets linked to: a session manager links no
    /// player to a source.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn play_unlinked(remote: &str, channels: u32, rate: u32) -> Result<Self> {
        let (remote, target) = (remote.to_owned(), String::new());
        Self::start(
            Plan { remote, target, channels, rate, play: true, monitor: false, linked: false },
            Vec::new(),
        )
    }

    /// Waits until it is called at every cycle.
    ///
    /// # Errors
    /// When it isn't after 10 s.
    pub fn runs(&self) -> Result<()> {
        // Two cycles: the first may have run before the link was whole.
        self.wait(Duration::from_secs(10), "running", |sound| (sound.cycles >= 2).then_some(()))
    }

    fn start(plan: Plan, samples: Vec<f32>) -> Result<Self> {
        let shared = Arc::new((Mutex::new(Sound { samples, ..Sound::default() }), Condvar::new()));
        let (quit, quitting) = pw::channel::channel();
        let (own, linked) = (Arc::clone(&shared), plan.linked);
        let thread = std::thread::spawn(move || {
            if let Err(error) = run(&plan, &own, quitting) {
                lock(&own.0).error = Some(format!("{error:#}"));
                own.1.notify_all();
            }
        });
        let endpoint = Self { shared, quit, thread: Some(thread) };
        if linked {
            endpoint.runs()?;
        }
        Ok(endpoint)
    }

    /// Plays `samples` next.
    pub fn play(&self, samples: Vec<f32>) {
        let mut sound = lock(&self.shared.0);
        sound.samples = samples;
        sound.played = 0;
    }

    /// Waits until `seen` finds in the sound what it looks for; `what` names it. The data thread waits meanwhile, so
    /// `seen` has to be quick.
    ///
    /// # Errors
    /// When it isn't there after `patience`, or the endpoint failed.
    pub fn wait<T>(
        &self,
        patience: Duration,
        what: &str,
        mut seen: impl FnMut(&Sound) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        let mut sound = lock(&self.shared.0);
        loop {
            if let Some(found) = seen(&sound) {
                return Ok(found);
            }
            if let Some(error) = &sound.error {
                bail!("waiting for {what}: {error}");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "not {what} after {patience:?}: {} samples, gaps {:?}; {} sounds, the last sample {:?}",
                    sound.samples.len(),
                    sound.gaps,
                    sound.ended,
                    sound.samples.last()
                );
            }
            sound = self.shared.1.wait_timeout(sound, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the endpoint; what it heard or said.
    pub fn finish(mut self) -> Sound {
        self.end();
        std::mem::take(&mut *lock(&self.shared.0))
    }

    fn end(&mut self) {
        let _ = self.quit.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.end();
    }
}

fn lock(sound: &Mutex<Sound>) -> MutexGuard<'_, Sound> {
    sound.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(plan: &Plan, shared: &Arc<(Mutex<Sound>, Condvar)>, quit: pw::channel::Receiver<()>) -> Result<()> {
    let main_loop = MainLoopRc::new(None)?;
    let context = ContextRc::new(&main_loop, Some(properties! { "config.name" => "client-rt.conf" }))?;
    let core = context.connect_rc(Some(properties! { "remote.name" => plan.remote.as_str() }))?;
    let name = if plan.play { PLAYER } else { "test-recorder" };
    let mut properties = properties! {
        "media.type" => "Audio",
        "media.category" => if plan.play { "Playback" } else { "Capture" },
        "node.name" => name,
        "state.restore-props" => "false",
        "state.restore-target" => "false",
    };
    if plan.linked {
        properties.insert("target.object", plan.target.as_str());
    } else {
        properties.insert("node.autoconnect", "false");
    }
    if plan.monitor {
        properties.insert("stream.capture.sink", "true");
    }
    let stream = StreamRc::new(core, name, properties)?;
    let (data, size) = (Arc::clone(shared), plan.channels as usize * 4);
    let play = plan.play;
    let _process = stream
        .add_local_listener_with_user_data(())
        .process(move |stream, ()| {
            let mut sound = lock(&data.0);
            if let Some(frames) = cycle(stream, &mut sound, play, size) {
                count(stream, &mut sound, frames, size / 4);
            }
            data.1.notify_all();
        })
        .register()?;
    let (state, stopping) = (Arc::clone(shared), main_loop.clone());
    let _control = stream
        .add_local_listener::<()>()
        .state_changed(move |_, (), old, new| {
            let ended = new == StreamState::Unconnected && old != StreamState::Unconnected;
            if ended || matches!(new, StreamState::Error(_)) {
                lock(&state.0).error = Some(format!("{old:?} -> {new:?}"));
                state.1.notify_all();
                stopping.quit();
            }
        })
        .register()?;
    let mut info = AudioInfoRaw::new();
    info.set_format(AudioFormat::F32LE);
    info.set_rate(plan.rate);
    info.set_channels(plan.channels);
    let object = Value::Object(Object {
        type_: spa::sys::SPA_TYPE_OBJECT_Format,
        id: spa::sys::SPA_PARAM_EnumFormat,
        properties: info.into(),
    });
    let format = PodSerializer::serialize(std::io::Cursor::new(Vec::new()), &object)?.0.into_inner();
    let mut params = [Pod::from_bytes(&format).context("a format")?];
    let direction = if plan.play { Direction::Output } else { Direction::Input };
    let flags = StreamFlags::AUTOCONNECT | StreamFlags::MAP_BUFFERS | StreamFlags::RT_PROCESS;
    stream.connect(direction, None, flags, &mut params)?;
    let stopping = main_loop.clone();
    let _quit = quit.attach(main_loop.loop_(), move |()| stopping.quit());
    main_loop.run();
    stream.disconnect().map_err(|error| anyhow!("{error}"))
}

/// Moves one buffer; how many frames it had.
fn cycle(stream: &Stream, sound: &mut Sound, play: bool, size: usize) -> Option<usize> {
    let mut buffer = stream.dequeue_buffer()?;
    let requested = usize::try_from(buffer.requested()).ok()?;
    let data = buffer.datas_mut().first_mut()?;
    if play {
        let out = data.data()?;
        let frames = requested.min(out.len() / size);
        let (samples, _) = out.get_mut(..frames * size)?.as_chunks_mut::<4>();
        for sample in samples {
            *sample = sound.samples.get(sound.played).copied().unwrap_or(0.0).to_le_bytes();
            sound.played = (sound.played + 1).min(sound.samples.len());
        }
        let chunk = data.chunk_mut();
        *chunk.offset_mut() = 0;
        *chunk.stride_mut() = size as i32;
        *chunk.size_mut() = (frames * size) as u32;
        Some(frames)
    } else {
        let (offset, len) = (data.chunk().offset() as usize, data.chunk().size() as usize);
        let (samples, _) = data.data()?.get(offset..offset + len)?.as_chunks::<4>();
        sound.record(samples);
        Some(len / size)
    }
}

/// Compares the driver's clock with what was moved.
fn count(stream: &Stream, sound: &mut Sound, frames: usize, channels: usize) {
    sound.cycles += 1;
    let Ok(time) = stream.time() else { return };
    if let Some(expected) = sound.expected_ticks
        && expected != time.ticks()
    {
        let before = sound.samples.len().saturating_sub(frames * channels);
        let ticks = time.ticks() as i64 - expected as i64;
        sound.gaps.push(Gap { at: before, ticks });
    }
    sound.expected_ticks = Some(time.ticks() + frames as u64);
}
