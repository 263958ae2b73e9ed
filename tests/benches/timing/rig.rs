//! The whole daemon between a simulated guest and a private PipeWire, and the guest's applications.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::oneshot;
use vsnd_bridge::bridge::Bridge;
use vsnd_bridge::config::{Capture, Config};
use vsnd_bridge::control::Control;
use vsnd_bridge::guest::DeviceContext;
use vsnd_bridge::realtime;
use vsnd_bridge::sim::frontend::{HwParams, Kernel, PcmError, PcmHandle, SimCard, SimGuest};
use vsnd_bridge::sim::signal::{Channels, Frame, TestSignal, frames_of};
use vsnd_bridge::sim::{Card, Hypervisor};
use vsnd_bridge::sndif::PcmFormat;
use vsnd_bridge::stream::{Cadence, Pacer};
use vsnd_bridge::xen::DomId;
use vsnd_pw_module::pipewire::PipeWireServer;
use vsnd_pw_module::pipewire::private::{Options, PrivateServer, SINK, SOURCE};
use vsnd_pw_module::pulse::PulseServer;
use vsnd_pw_module::{Direction, Frames, SoundServer, monotonic_now};
use vsnd_tests::pulse::PrivatePulse;

use super::ear::{self, Client, Cycle};
use super::pulse;
use super::truth::Truth;

/// The graph's rate.
pub const RATE: u32 = 48_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// The guest's signal sounds on the left, a native client's on the right.
pub const GUEST: TestSignal = TestSignal::new(1).on(Channels::Left);
pub const NATIVE: TestSignal = TestSignal::new(2).on(Channels::Right);
pub const LEFT: usize = 0;
pub const RIGHT: usize = 1;

/// A private sound server.
enum Desk {
    PipeWire(Box<PrivateServer>),
    PulseAudio(PrivatePulse),
}

/// Where it is.
enum Address {
    PipeWire(String),
    PulseAudio(String),
}

impl Desk {
    fn address(&self) -> Address {
        match self {
            Self::PipeWire(server) => Address::PipeWire(server.remote()),
            Self::PulseAudio(server) => Address::PulseAudio(server.server()),
        }
    }

    fn command(&self, program: &str) -> std::process::Command {
        match self {
            Self::PipeWire(server) => server.command(program),
            Self::PulseAudio(server) => server.command(program),
        }
    }
}

/// An ear on the sink's monitor.
pub enum Ear {
    PipeWire(Client),
    PulseAudio(pulse::Ear),
}

impl Ear {
    /// Ends it; what the sink was given, cycle by cycle, and what else was found of PulseAudio's.
    pub fn finish(self) -> Result<(Vec<Cycle>, Option<pulse::Sink>)> {
        match self {
            Self::PipeWire(ear) => Ok((ear.finish(), None)),
            Self::PulseAudio(ear) => ear.finish().map(|heard| (heard.cycles, Some(heard.sink))),
        }
    }
}

/// Everything from guest to sink.
pub struct Rig {
    pub card: SimCard,
    pub pacer: Pacer,
    desk: Desk,
    _guest: SimGuest,
    _hypervisor: Hypervisor,
    end: Option<oneshot::Sender<()>>,
    bridge: Option<JoinHandle<Result<()>>>,
    monitor_delay: i64,
}

impl Rig {
    /// A graph with cycles of exactly `quantum` frames, the bridge on it, and a guest with a card.
    pub fn start(quantum: u32, cadence: Cadence) -> Result<Self> {
        let options = Options { quantum, min_quantum: quantum, rate: RATE, ..Options::default() };
        let mut rig = Self::on(Desk::PipeWire(Box::new(PrivateServer::start(options)?)), cadence)?;
        rig.monitor_delay = rig.find_monitor_delay()?;
        Ok(rig)
    }

    /// A real PulseAudio, the bridge on it, and a guest with a card.
    pub fn start_pulse() -> Result<Self> {
        Self::on(Desk::PulseAudio(PrivatePulse::start()?), Cadence::default())
    }

    fn on(desk: Desk, cadence: Cadence) -> Result<Self> {
        let hypervisor = Hypervisor::new();
        let pacer = Pacer::with_cadence(cadence)?;
        let (xen, remote, own) = (hypervisor.dom0(), desk.address(), pacer.clone());
        let (end, ended) = oneshot::channel();
        let body = move || -> Result<()> {
            let server: Arc<dyn SoundServer> = match remote {
                Address::PipeWire(remote) => Arc::new(PipeWireServer::start(|_| (), Some(remote))?),
                Address::PulseAudio(server) => Arc::new(PulseServer::start(|_| (), Some(server))?),
            };
            let context = DeviceContext {
                xen,
                server,
                pacer: own,
                records: Arc::default(),
                control: Control::default(),
            };
            let mut policy = Config::default();
            policy.set_default_capture(Capture::Allow);
            let bridge = Bridge::new(context, policy)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(bridge.run(async { drop(ended.await) }))?;
            Ok(())
        };
        let bridge = std::thread::Builder::new().name("bridge".to_owned()).spawn(body)?;
        let domain = hypervisor.create_domain("bench", "uuid-of-bench")?;
        let guest = SimGuest::boot(&domain, Kernel::Since2026)?;
        let card = Card::parse(&[
            "CARD, sample-rates=44100;48000, sample-formats=s16_le, buffer-size=1048576",
            "PCM, name=Main",
            "STREAM, unique-id=out, type=p",
            "STREAM, unique-id=in, type=c",
        ])?;
        let attached = hypervisor.attach(&domain, DomId(0), &card)?;
        let card = guest.card(attached.device, PATIENCE).context("no card in the guest")?;
        Ok(Self {
            card,
            pacer,
            desk,
            _guest: guest,
            _hypervisor: hypervisor,
            end: Some(end),
            bridge: Some(bridge),
            monitor_delay: 0,
        })
    }

    /// The private PipeWire's socket.
    pub fn remote(&self) -> Result<String> {
        match &self.desk {
            Desk::PipeWire(server) => Ok(server.remote()),
            Desk::PulseAudio(_) => bail!("PulseAudio has no such client"),
        }
    }

    /// The private PulseAudio, if it is one.
    pub fn pulse(&self) -> Option<&PrivatePulse> {
        match &self.desk {
            Desk::PulseAudio(server) => Some(server),
            Desk::PipeWire(_) => None,
        }
    }

    /// An ear on the sink, with room for so many cycles.
    pub fn listen(&self, room: usize) -> Result<Ear> {
        match &self.desk {
            Desk::PipeWire(server) => Ok(Ear::PipeWire(Client::listen(&server.remote(), SINK, RATE, room)?)),
            Desk::PulseAudio(server) => Ok(Ear::PulseAudio(pulse::Ear::listen(server.server())?)),
        }
    }

    /// How much later the sink's monitor gives a frame than the sink was given it, in nanoseconds: PipeWire's monitors are a
    /// cycle late.
    pub fn monitor_delay(&self) -> i64 {
        self.monitor_delay
    }

    /// By a native client, one ear that is linked to it as the sink is, and one on the monitor.
    fn find_monitor_delay(&self) -> Result<i64> {
        let remote = self.remote()?;
        let mut next = 0..;
        let source = Box::new(move |out: &mut [Frame]| {
            out.iter_mut().zip(&mut next).for_each(|(cell, index)| *cell = NATIVE.frame(index));
        });
        let monitor = Client::listen(&remote, SINK, RATE, 100_000)?;
        let native = Client::play(&remote, SINK, RATE, 100_000, source)?;
        let direct = Client::listen_unlinked(&remote, RATE, 100_000)?;
        for channel in ["FL", "FR"] {
            self.link(&[
                &format!("{}:output_{channel}", ear::NATIVE),
                &format!("{}:input_{channel}", ear::EAR),
            ])?;
        }
        std::thread::sleep(Duration::from_secs(1));
        let (direct, monitor) = (direct.finish(), monitor.finish());
        drop(native);
        let truth = |cycles: &[Cycle]| Truth::of(cycles, &NATIVE, RIGHT, RATE, 0);
        let (direct, monitor) = (truth(&direct), truth(&monitor));
        let later = |frame: u64| Some(monitor.instant(frame)? - direct.instant(frame)?);
        let mut all: Vec<i64> = (0..100_000).step_by(997).filter_map(later).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().context("the monitor and a direct link were not heard both")
    }

    pub fn open(&self, direction: Direction, rate: u32, period: u64, buffer: u64) -> Result<PcmHandle> {
        let pcm = self.card.open(0, direction)?;
        let (period, buffer) = (Frames(period), Frames(buffer));
        pcm.hw_params(HwParams { rate, format: PcmFormat::S16Le, channels: 2, period, buffer })?;
        Ok(pcm)
    }

    /// Gives the guest's recording, which runs, the sink's monitor and the microphone no longer.
    pub fn loop_back(&self) -> Result<()> {
        if let Desk::PulseAudio(server) = &self.desk {
            // Streams that nobody has moved follow it.
            server.tool("pactl", &["set-default-source", &format!("{SINK}.monitor")])?;
            return Ok(());
        }
        let node = "vsnd.bench.0.0.1";
        for channel in ["FL", "FR"] {
            let to = format!("{node}:input_{channel}");
            self.link(&[&format!("{SINK}:monitor_{channel}"), &to])?;
            self.link(&["-d", &format!("{SOURCE}:capture_{channel}"), &to])?;
        }
        Ok(())
    }

    fn link(&self, arguments: &[&str]) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let linked = self.desk.command("pw-link").args(arguments).output()?;
            if linked.status.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("pw-link {arguments:?}: {}", String::from_utf8_lossy(&linked.stderr).trim());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(bridge) = self.bridge.take() {
            let _ = bridge.join();
        }
    }
}

/// Below everything of the bridge's and the servers'.
const APPLICATIONS: u8 = 5;

/// For an application's thread: other programs of this machine do not take its processor away, where the user's limits allow
/// that.
pub fn take_processor() {
    let _is_taken = realtime::take(APPLICATIONS).is_ok();
}

/// One WRITE: answered at this instant, beginning with this frame of the signal.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    pub at: i64,
    pub frame: u64,
}

/// An application in the guest that plays the signal, a period at a time, until it is told to stop.
pub struct Player {
    pub pcm: Arc<PcmHandle>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Written>, PcmError>>,
}

impl Player {
    pub fn start(pcm: PcmHandle, period: u64) -> Self {
        let (pcm, stop) = (Arc::new(pcm), Arc::new(AtomicBool::new(false)));
        let (own, stopping) = (Arc::clone(&pcm), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            take_processor();
            let (mut next, mut written) = (0, Vec::with_capacity(100_000));
            let mut octets = Vec::new();
            while !stopping.load(Ordering::Relaxed) {
                octets.clear();
                octets.extend((next..next + period).flat_map(|index| octets_of(GUEST.frame(index))));
                let done = own.write(&octets)?;
                written.push(Written { at: monotonic_now().0, frame: next });
                if done != Frames(period) {
                    return Err(PcmError::Xrun);
                }
                next += period;
            }
            Ok(written)
        });
        Self { pcm, stop, thread }
    }

    /// Ends it; `Err` when it underran.
    pub fn finish(self) -> Result<Vec<Written>> {
        self.stop.store(true, Ordering::Relaxed);
        let written = self.thread.join().map_err(|_| anyhow!("the player panicked"))?;
        self.pcm.stop();
        written.context("the guest's player")
    }
}

pub fn octets_of([left, right]: Frame) -> [u8; 4] {
    let ([a, b], [c, d]) = (left.to_le_bytes(), right.to_le_bytes());
    [a, b, c, d]
}

/// An application in the guest that records until it is told to stop.
pub struct Recorder {
    pub pcm: Arc<PcmHandle>,
    stop: Arc<AtomicBool>,
    octets: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<Result<(), PcmError>>,
}

impl Recorder {
    pub fn start(pcm: PcmHandle, period: u64) -> Self {
        let (pcm, stop) = (Arc::new(pcm), Arc::new(AtomicBool::new(false)));
        let octets = Arc::<Mutex<Vec<u8>>>::default();
        let (own, stopping, kept) = (Arc::clone(&pcm), Arc::clone(&stop), Arc::clone(&octets));
        let thread = std::thread::spawn(move || {
            take_processor();
            let mut part = vec![0; period as usize * 4];
            while !stopping.load(Ordering::Relaxed) {
                let read = own.read(&mut part)?;
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&part[..read.0 as usize * 4]);
            }
            Ok(())
        });
        Self { pcm, stop, octets, thread }
    }

    /// Ends it; what it recorded since its start, or `Err` when it overran.
    pub fn finish(self) -> Result<Vec<Frame>> {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.thread.join().map_err(|_| anyhow!("the recorder panicked"))?;
        self.pcm.stop();
        done.context("the guest's recorder")?;
        Ok(frames_of(&self.octets.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
