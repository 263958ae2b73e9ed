//! A machine with a running bridge, and a sound server that keeps what it is given.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use vsnd_bridge::bridge::Bridge;
use vsnd_bridge::config::Config;
use vsnd_bridge::control::Control;
use vsnd_bridge::guest::DeviceContext;
use vsnd_bridge::sim::frontend::{Kernel, SimCard, SimGuest};
use vsnd_bridge::sim::{Attached, Card, Guest, Holdings, Hypervisor};
use vsnd_bridge::stream::Pacer;
use vsnd_bridge::xen::DomId;
use vsnd_pw_module::{
    Direction, Frames, Node, NodeSpec, PcmRing, SampleFormat, SoundServer, Timing, monotonic_now,
};

pub const SOON: Duration = Duration::from_secs(10);
pub const DOM0: DomId = DomId(0);

/// A bridge at work in Dom0 of a simulated machine.
pub struct Machine {
    pub xen: Hypervisor,
    /// Of the present bridge.
    pub control: Control,
    end: Option<oneshot::Sender<()>>,
    bridge: Option<JoinHandle<()>>,
}

impl Machine {
    pub fn start(server: Arc<dyn SoundServer>) -> Self {
        Self::with_config(server, "[default]\ncapture = \"allow\"\n")
    }

    pub fn with_config(server: Arc<dyn SoundServer>, config: &str) -> Self {
        let mut machine = Self::without_bridge();
        machine.start_bridge(server, config);
        machine
    }

    pub fn without_bridge() -> Self {
        Self { xen: Hypervisor::new(), control: Control::default(), end: None, bridge: None }
    }

    /// Starts the bridge; also again, on the same machine.
    pub fn start_bridge(&mut self, server: Arc<dyn SoundServer>, config: &str) {
        let config = Config::parse(config, Path::new("test")).unwrap();
        let (pacer, control) = (Pacer::start().unwrap(), self.control.clone());
        let context = DeviceContext { xen: self.xen.dom0(), server, pacer, control };
        let (end, ended) = oneshot::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let bridge = Bridge::new(context, config).unwrap();
            runtime.block_on(bridge.run(async { drop(ended.await) })).unwrap();
        };
        self.bridge = Some(std::thread::spawn(run));
        self.end = Some(end);
    }

    /// Ends the bridge and waits until it is gone.
    pub fn end_bridge(&mut self) {
        drop(self.end.take());
        if let Some(bridge) = self.bridge.take() {
            bridge.join().unwrap();
        }
    }

    /// A guest with a simple card, booted, its card there.
    pub fn guest(&self, name: &str, kernel: Kernel) -> Running {
        let domain = self.xen.create_domain(name, &format!("uuid-of-{name}")).unwrap();
        let attached = self.xen.attach(&domain, DOM0, &Card::simple()).unwrap();
        let linux = SimGuest::boot(&domain, kernel).unwrap();
        let card = linux.card(attached.device, SOON).expect("no card in the guest");
        Running { domain, attached, linux, card }
    }

    /// Waits until the bridge holds nothing of a domain.
    pub fn wait_let_go(&self, domain: DomId) {
        let deadline = Instant::now() + SOON;
        while self.xen.holdings(domain) != Holdings::default() {
            assert!(Instant::now() < deadline, "the bridge still holds {:?}", self.xen.holdings(domain));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Joining a bridge that panicked would end the process, and the first panic with it.
        drop(self.end.take());
        if !std::thread::panicking() {
            self.end_bridge();
        }
    }
}

/// A wake-up later than this makes a guest's ring run dry without anyone's fault.
const STALL: Duration = Duration::from_millis(10);

/// Runs a test in real time, again if it failed while the machine itself stalled: what has no processor can't play.
pub fn in_real_time(test: impl Fn()) {
    const TRIES: usize = 10;
    for _ in 1..TRIES {
        let ended = AtomicBool::new(false);
        let (passed, stall) = std::thread::scope(|scope| {
            let meter = scope.spawn(|| {
                let mut longest = Duration::ZERO;
                while !ended.load(Ordering::Acquire) {
                    let began = Instant::now();
                    std::thread::sleep(Duration::from_millis(1));
                    longest = longest.max(began.elapsed());
                }
                longest
            });
            let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&test));
            ended.store(true, Ordering::Release);
            (passed, meter.join().unwrap())
        });
        match passed {
            Ok(()) => return,
            Err(panic) if stall < STALL => std::panic::resume_unwind(panic),
            Err(_) => eprintln!("the machine stalled for {stall:?}; once more"),
        }
    }
    // A machine that always stalls gets its failure.
    test();
}

/// A guest that runs.
pub struct Running {
    pub domain: Guest,
    pub attached: Attached,
    pub linux: SimGuest,
    pub card: SimCard,
}

/// A server whose nodes are called at each cycle of the clock and keep what they hear.
#[derive(Clone)]
pub struct Tape {
    quantum: Frames,
    recordings: Arc<Mutex<Vec<Recording>>>,
}

/// What one node heard, or a microphone that counts frames.
#[derive(Clone)]
pub struct Recording {
    pub spec: NodeSpec,
    /// All cycles while the ring ran, one after the other.
    pub heard: Arc<Mutex<Vec<u8>>>,
    pub target: Arc<Mutex<Option<String>>>,
    /// The handle was dropped.
    pub ended: Arc<AtomicBool>,
}

struct TapeNode {
    target: Arc<Mutex<Option<String>>>,
    ended: Arc<AtomicBool>,
}

impl Tape {
    pub fn new(quantum: u64) -> Self {
        Self { quantum: Frames(quantum), recordings: Arc::default() }
    }

    pub fn recordings(&self) -> Vec<Recording> {
        self.recordings.lock().unwrap().clone()
    }

    /// What was heard by all nodes together, without the silence around it.
    pub fn heard(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for recording in self.recordings() {
            all.extend_from_slice(&recording.heard.lock().unwrap());
        }
        all
    }
}

impl SoundServer for Tape {
    fn open(&self, spec: NodeSpec, ring: Arc<PcmRing>) -> Option<Box<dyn Node>> {
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let (target, ended) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        self.recordings.lock().unwrap().push(Recording {
            spec,
            heard: Arc::clone(&heard),
            target: Arc::clone(&target),
            ended: Arc::clone(&ended),
        });
        let node = TapeNode { target, ended: Arc::clone(&ended) };
        let quantum = self.quantum;
        std::thread::spawn(move || run_node(&ring, quantum, &heard, &ended));
        Some(Box::new(node))
    }

    fn carries(&self, _format: SampleFormat) -> bool {
        true
    }
}

impl Node for TapeNode {
    fn start(&self) {}

    fn stop(&self) {}

    fn set_target(&self, target: Option<String>) {
        *self.target.lock().unwrap() = target;
    }
}

impl Drop for TapeNode {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
    }
}

/// Calls the ring at every cycle, catching up when the machine was late.
fn run_node(ring: &PcmRing, quantum: Frames, heard: &Mutex<Vec<u8>>, ended: &AtomicBool) {
    let format = ring.format();
    let mut cycle = vec![0; format.octets(quantum).0 as usize];
    let mut at = monotonic_now();
    let mut counted = 0u32;
    while !ended.load(Ordering::Acquire) {
        let first = match ring.direction() {
            Direction::Playback => ring.play(at, &mut cycle),
            Direction::Capture => {
                // A sound that counts its own frames, so that a reader sees what it missed.
                let size = format.frame_octets() as usize;
                for (index, frame) in cycle.chunks_exact_mut(size).enumerate() {
                    let number = counted.wrapping_add(index as u32).to_le_bytes();
                    frame.iter_mut().zip(number).for_each(|(to, from)| *to = from);
                }
                ring.capture(at, &cycle)
            }
        };
        if let Some(first) = first {
            counted = counted.wrapping_add(quantum.0 as u32);
            let given = ring.cursor().position;
            ring.publish(Timing { at, heard: first, given, cycle: quantum });
            heard.lock().unwrap().extend_from_slice(&cycle);
        }
        at += quantum.duration(format.rate());
        let left = at - monotonic_now();
        if left.0 > 0 {
            std::thread::sleep(Duration::from_nanos(left.0.unsigned_abs()));
        }
    }
}
