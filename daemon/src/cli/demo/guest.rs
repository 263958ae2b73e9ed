//! The guest's side: applications that play and record as aplay and arecord do.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use vsnd_bridge::sim::frontend::{HwParams, Kernel, PcmError, PcmHandle, SimCard, SimGuest};
use vsnd_bridge::sim::signal::{Frame, frames_of};
use vsnd_bridge::sim::{Card, Hypervisor};
use vsnd_bridge::sndif::PcmFormat;
use vsnd_bridge::xen::DomId;
use vsnd_pw_module::{Direction, Frames};

/// What the applications ask for, in frames: a usual period, and a ring of half a second at 48 kHz, as aplay's own.
pub(super) const PERIOD: u64 = 1024;
pub(super) const BUFFER: u64 = 24 * PERIOD;

/// How long a guest may take until its card is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// A guest with one card.
pub(super) struct Application {
    card: SimCard,
    _guest: SimGuest,
}

impl Application {
    /// Creates the domain, attaches the card as the toolstack does, and waits until it can be opened.
    pub(super) fn boot(hypervisor: &Hypervisor, card: &Card, name: &str, uuid: &str) -> anyhow::Result<Self> {
        let domain = hypervisor.create_domain(name, uuid).context("no memory for a guest")?;
        let guest = SimGuest::boot(&domain, Kernel::Since2026).context("the guest doesn't start")?;
        hypervisor.attach(&domain, DomId(0), card).context("the card can't be attached")?;
        let card = guest.card(0, PATIENCE).context("the guest's driver finds no card")?;
        Ok(Self { card, _guest: guest })
    }

    fn open(&self, direction: Direction, rate: u32) -> anyhow::Result<PcmHandle> {
        let pcm = self.card.open(0, direction)?;
        let (period, buffer) = (Frames(PERIOD), Frames(BUFFER));
        pcm.hw_params(HwParams { rate, format: PcmFormat::S16Le, channels: 2, period, buffer })?;
        Ok(pcm)
    }

    pub(super) fn playback(&self, rate: u32) -> anyhow::Result<PcmHandle> {
        self.open(Direction::Playback, rate).context("the guest can't open its card for playback")
    }

    pub(super) fn capture(&self, rate: u32) -> anyhow::Result<PcmHandle> {
        self.open(Direction::Capture, rate).context("the guest can't open its card for recording")
    }

    /// How often the daemon did what would harm a guest's kernel.
    pub(super) fn harm(&self) -> usize {
        self.card.harm().len()
    }
}

/// What a player or a recorder left.
pub(super) struct Done {
    pub(super) frames: Vec<Frame>,
    pub(super) xruns: u64,
}

/// aplay.
pub(super) struct Player {
    pcm: Arc<PcmHandle>,
    thread: JoinHandle<Result<(), PcmError>>,
}

impl Player {
    pub(super) fn start(pcm: PcmHandle, frames: Vec<Frame>) -> anyhow::Result<Self> {
        let pcm = Arc::new(pcm);
        let of_thread = Arc::clone(&pcm);
        let thread =
            std::thread::Builder::new().name("aplay".to_owned()).spawn(move || play(&of_thread, &frames))?;
        Ok(Self { pcm, thread })
    }

    /// Frames that the card has played, as the guest sees it.
    pub(super) fn position(&self) -> u64 {
        self.pcm.pointer().0
    }

    pub(super) fn xruns(&self) -> u64 {
        self.pcm.counters().core.xruns
    }

    pub(super) fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    pub(super) fn finish(self) -> anyhow::Result<Done> {
        let played = self.thread.join().map_err(|_| anyhow!("the player panicked"))?;
        played.context("the guest's player failed")?;
        Ok(Done { frames: Vec::new(), xruns: self.pcm.counters().core.xruns })
    }
}

fn play(pcm: &PcmHandle, frames: &[Frame]) -> Result<(), PcmError> {
    let mut octets: Vec<u8> = frames.as_flattened().iter().flat_map(|sample| sample.to_le_bytes()).collect();
    // aplay writes whole periods, the last one filled with silence.
    octets.resize(octets.len().next_multiple_of(PERIOD as usize * 4), 0);
    let mut rest = octets.as_slice();
    while !rest.is_empty() {
        let now = &rest[..rest.len().min(PERIOD as usize * 4)];
        match pcm.write(now) {
            Ok(written) => rest = &rest[written.0 as usize * 4..],
            Err(PcmError::Xrun) => pcm.prepare()?,
            Err(error) => return Err(error),
        }
    }
    pcm.drain()
}

/// arecord.
pub(super) struct Recorder {
    pcm: Arc<PcmHandle>,
    state: Arc<Recording>,
    thread: JoinHandle<Result<(), PcmError>>,
}

#[derive(Default)]
struct Recording {
    octets: Mutex<Vec<u8>>,
    count: AtomicU64,
    enough: AtomicBool,
}

impl Recorder {
    pub(super) fn start(pcm: PcmHandle) -> anyhow::Result<Self> {
        let (pcm, state) = (Arc::new(pcm), Arc::new(Recording::default()));
        let (of_thread, recording) = (Arc::clone(&pcm), Arc::clone(&state));
        let thread = std::thread::Builder::new()
            .name("arecord".to_owned())
            .spawn(move || record(&of_thread, &recording))?;
        Ok(Self { pcm, state, thread })
    }

    /// Frames recorded so far.
    pub(super) fn frames(&self) -> u64 {
        self.state.count.load(Ordering::Relaxed)
    }

    pub(super) fn xruns(&self) -> u64 {
        self.pcm.counters().core.xruns
    }

    pub(super) fn finish(self) -> anyhow::Result<Done> {
        self.state.enough.store(true, Ordering::Relaxed);
        let recorded = self.thread.join().map_err(|_| anyhow!("the recorder panicked"))?;
        recorded.context("the guest's recorder failed")?;
        let octets = self.state.octets.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Done { frames: frames_of(&octets), xruns: self.pcm.counters().core.xruns })
    }
}

fn record(pcm: &PcmHandle, recording: &Recording) -> Result<(), PcmError> {
    let mut period = vec![0; PERIOD as usize * 4];
    while !recording.enough.load(Ordering::Relaxed) {
        match pcm.read(&mut period) {
            Ok(read) => {
                let mut octets = recording.octets.lock().unwrap_or_else(PoisonError::into_inner);
                octets.extend(&period[..read.0 as usize * 4]);
                recording.count.fetch_add(read.0, Ordering::Relaxed);
            }
            Err(PcmError::Xrun) => pcm.prepare()?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
