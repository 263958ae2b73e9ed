//! An application that plays natively, with a ring of the same length as the guest's: the yardstick of latency.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use libpulse_binding::context::{Context, FlagSet as ContextFlags, State as ContextState};
use libpulse_binding::def::BufferAttr;
use libpulse_binding::error::PAErr;
use libpulse_binding::mainloop::standard::{IterateResult, Mainloop};
use libpulse_binding::sample::{Format, Spec};
use libpulse_binding::stream::{FlagSet, SeekMode, State, Stream};
use vsnd_bridge::sim::signal::Frame;
use vsnd_pw_module::monotonic_now;
use vsnd_pw_module::pipewire::private::SINK;

use super::ear::Client;
use super::rig::{NATIVE, RATE, Rig, Written, octets_of, take_processor};

/// Plays the signal [`NATIVE`] until it is told to stop.
pub struct Player {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Written>>>,
    /// PipeWire's part.
    _client: Option<Client>,
}

impl Player {
    /// Writes `period` frames at a time, as soon as a ring of `buffer` frames has room for them.
    pub fn start(rig: &Rig, period: u64, buffer: u64) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let (thread, client) = match rig.pulse() {
            Some(server) => {
                let address = server.server();
                (std::thread::spawn(move || play(&address, period, buffer, &stopping)), None)
            }
            None => {
                let fifo = Arc::new(Fifo::default());
                let emptied = Arc::clone(&fifo);
                let thread = std::thread::spawn(move || Ok(fill(&fifo, period, buffer, &stopping)));
                let source = Box::new(move |out: &mut [Frame]| emptied.take(out));
                let room = 20 * RATE as usize;
                (thread, Some(Client::play(&rig.remote()?, SINK, RATE, room, source)?))
            }
        };
        Ok(Self { stop, thread, _client: client })
    }

    /// Ends it.
    pub fn finish(self) -> Result<Vec<Written>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the native player panicked"))?
    }
}

/// A ring that a callback of PipeWire's empties.
#[derive(Default)]
struct Fifo {
    frames: Mutex<VecDeque<Frame>>,
    taken: Condvar,
}

impl Fifo {
    fn take(&self, out: &mut [Frame]) {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        for cell in out {
            *cell = frames.pop_front().unwrap_or([0, 0]);
        }
        drop(frames);
        self.taken.notify_all();
    }
}

fn fill(fifo: &Fifo, period: u64, buffer: u64, stopping: &AtomicBool) -> Vec<Written> {
    take_processor();
    let (mut next, mut written) = (0, Vec::new());
    while !stopping.load(Ordering::Relaxed) {
        let mut frames = fifo.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() as u64 + period > buffer {
            let waited = fifo.taken.wait_timeout(frames, Duration::from_millis(100));
            drop(waited.unwrap_or_else(PoisonError::into_inner));
            continue;
        }
        frames.extend((next..next + period).map(|index| NATIVE.frame(index)));
        written.push(Written { at: monotonic_now().0, frame: next });
        next += period;
    }
    written
}

/// A stream of PulseAudio's with a queue of `buffer` frames in the server, as an application has that opens such a ring through
/// ALSA's plugin.
fn play(server: &str, period: u64, buffer: u64, stopping: &AtomicBool) -> Result<Vec<Written>> {
    take_processor();
    let mut mainloop = Mainloop::new().context("a loop")?;
    let mut context = connect(&mut mainloop, server, "bench")?;
    let failed = |error: PAErr| anyhow!("native: {error}");
    let spec = Spec { format: Format::S16le, channels: 2, rate: RATE };
    let mut stream = Stream::new(&mut context, "native", &spec, None).context("a stream")?;
    let octets = |frames: u64| u32::try_from(4 * frames).unwrap_or(u32::MAX);
    let attributes = BufferAttr {
        maxlength: u32::MAX,
        tlength: octets(buffer),
        prebuf: octets(buffer),
        minreq: octets(period),
        fragsize: u32::MAX,
    };
    stream.connect_playback(None, Some(&attributes), FlagSet::EARLY_REQUESTS, None, None).map_err(failed)?;
    let (mut next, mut written) = (0, Vec::new());
    while !stopping.load(Ordering::Relaxed) {
        turn(&mut mainloop)?;
        if stream.get_state() != State::Ready {
            continue;
        }
        while stream.writable_size().is_some_and(|room| room as u64 >= 4 * period) {
            let frames: Vec<u8> =
                (next..next + period).flat_map(|index| octets_of(NATIVE.frame(index))).collect();
            stream.write(&frames, None, 0, SeekMode::Relative).map_err(failed)?;
            written.push(Written { at: monotonic_now().0, frame: next });
            next += period;
        }
    }
    Ok(written)
}

/// A connection to PulseAudio at this address, under this name.
pub fn connect(mainloop: &mut Mainloop, server: &str, name: &str) -> Result<Context> {
    let mut context = Context::new(mainloop, name).context("a connection")?;
    let connected = context.connect(Some(server), ContextFlags::NOAUTOSPAWN, None);
    connected.map_err(|error| anyhow!("{name}: {error}"))?;
    while context.get_state() != ContextState::Ready {
        turn(mainloop)?;
    }
    Ok(context)
}

pub fn turn(mainloop: &mut Mainloop) -> Result<()> {
    match mainloop.iterate(true) {
        IterateResult::Success(_) => Ok(()),
        IterateResult::Quit(_) | IterateResult::Err(_) => bail!("the loop of a client ended"),
    }
}
