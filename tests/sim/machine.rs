//! A machine with a running bridge, and a sound server that keeps what it is given.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::oneshot;
use vsnd_bridge::bridge::Bridge;
use vsnd_bridge::config::Config;
use vsnd_bridge::control::Control;
use vsnd_bridge::guest::DeviceContext;
use vsnd_bridge::runtime::Records;
use vsnd_bridge::sim::frontend::{Kernel, SimCard, SimGuest};
use vsnd_bridge::sim::{Attached, Card, Guest, Holdings, Hypervisor, Process};
use vsnd_bridge::stream::{Pacer, Record};
use vsnd_bridge::xen::{DomId, StoreError, Xen};
use vsnd_pw_module::{
    Attachment, Bounds, Direction, Frames, Marks, Node, NodeSpec, PcmRing, SampleFormat, SoundServer, Timing,
    monotonic_now,
};

pub const SOON: Duration = Duration::from_secs(10);
pub const DOM0: DomId = DomId(0);
/// Every guest may record.
pub const POLICY: &str = "[default]\ncapture = \"allow\"\n";
const RECORDS: &str = "vsnd-bridge";

/// A bridge at work in Dom0 of a simulated machine.
pub struct Machine {
    pub xen: Hypervisor,
    /// Of the present bridge.
    pub control: Control,
    /// Where the bridge of the moment leaves what the next one takes over.
    runtime: TempDir,
    bridge: Option<RunningBridge>,
}

struct RunningBridge {
    process: Process,
    end: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), StoreError>>,
}

impl Machine {
    pub fn start(server: Arc<dyn SoundServer>) -> Self {
        Self::with_config(server, POLICY)
    }

    pub fn with_config(server: Arc<dyn SoundServer>, config: &str) -> Self {
        let mut machine = Self::without_bridge();
        machine.start_bridge(server, config);
        machine
    }

    /// One whose bridge sees Xen through `view`.
    pub fn with_view(server: Arc<dyn SoundServer>, config: &str, view: impl FnOnce(Xen) -> Xen) -> Self {
        let mut machine = Self::without_bridge();
        machine.run(server, config, view);
        machine
    }

    pub fn without_bridge() -> Self {
        let (xen, control, runtime) = (Hypervisor::new(), Control::default(), tempfile::tempdir().unwrap());
        Self { xen, control, runtime, bridge: None }
    }

    /// Starts the bridge; also again, on the same machine.
    pub fn start_bridge(&mut self, server: Arc<dyn SoundServer>, config: &str) {
        self.run(server, config, |xen| xen);
    }

    fn run(&mut self, server: Arc<dyn SoundServer>, config: &str, view: impl FnOnce(Xen) -> Xen) {
        let config = Config::parse(config, Path::new("test")).unwrap();
        let (pacer, control) = (Pacer::start().unwrap(), self.control.clone());
        let process = self.xen.process(DOM0);
        let records = Arc::new(Records::open(&self.records()).unwrap());
        let context = DeviceContext { xen: view(process.xen()), server, pacer, records, control };
        let (end, ended) = oneshot::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let bridge = Bridge::new(context, config).unwrap();
            runtime.block_on(bridge.run(async { drop(ended.await) }))
        };
        self.bridge = Some(RunningBridge { process, end, thread: std::thread::spawn(run) });
    }

    /// Ends the bridge, as SIGTERM does, and waits until it is gone.
    pub fn end_bridge(&mut self) {
        if let Some(RunningBridge { end, thread, .. }) = self.bridge.take() {
            drop(end);
            thread.join().unwrap().unwrap();
        }
    }

    /// Ends the bridge, as SIGKILL does: it does nothing more to guests, nor to what it has left for the next.
    pub fn kill_bridge(&mut self) {
        let Some(RunningBridge { process, end, thread }) = self.bridge.take() else { return };
        let before = contents(&self.records());
        process.kill().unwrap();
        // Its ghost keeps the directory, and may close what it no longer reaches. The next bridge gets what was open before, and
        // how far that had come in the end.
        let after = contents(&self.records());
        self.runtime = tempfile::tempdir().unwrap();
        DirBuilder::new().mode(0o700).create(self.records()).unwrap();
        for (name, mut record) in before {
            if let Some(last) = after.get(&name).filter(|_| record.len() >= Record::OCTETS) {
                let marks = Record::OCTETS - Marks::OCTETS..Record::OCTETS;
                record[marks.clone()].copy_from_slice(&last[marks]);
            }
            std::fs::write(self.records().join(name), record).unwrap();
        }
        drop(end);
        // What it says of the store that it lost is not of interest.
        drop(thread.join().unwrap());
    }

    /// The directory of what the bridge leaves.
    pub fn records(&self) -> PathBuf {
        self.runtime.path().join(RECORDS)
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
        self.wait_holdings(domain, |holdings| holdings == Holdings::default());
    }

    /// Waits until what the bridge holds of a domain is as `wanted`.
    pub fn wait_holdings(&self, domain: DomId, wanted: impl Fn(Holdings) -> bool) {
        let deadline = Instant::now() + SOON;
        while !wanted(self.xen.holdings(domain)) {
            assert!(Instant::now() < deadline, "the bridge still holds {:?}", self.xen.holdings(domain));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Joining a bridge that panicked would end the process, and the first panic with it.
        if !std::thread::panicking() {
            self.end_bridge();
        }
    }
}

/// The files of a directory, by name.
fn contents(directory: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = directory.read_dir().unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

/// SIGKILL between two cycles of the server, and the next bridge at once.
pub fn restart(machine: &mut Machine, tape: &mut Tape) {
    tape.cut();
    machine.kill_bridge();
    machine.start_bridge(Arc::new(tape.clone()), POLICY);
}

/// Waits until the condition holds.
pub fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
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
    bounds: Bounds,
    recordings: Arc<Mutex<Vec<Recording>>>,
    /// Taken by whoever stops all cycles.
    cycles: Arc<RwLock<bool>>,
    nodes: Arc<AtomicUsize>,
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
    _attachment: Attachment,
    target: Arc<Mutex<Option<String>>>,
    ended: Arc<AtomicBool>,
}

impl Tape {
    pub fn new(quantum: u64) -> Self {
        let (bounds, recordings, nodes) = (Bounds::NONE, Arc::default(), Arc::default());
        Self { quantum: Frames(quantum), bounds, recordings, cycles: Arc::new(RwLock::new(true)), nodes }
    }

    /// One that carries no more than this.
    pub fn within(bounds: Bounds) -> Self {
        Self { bounds, ..Self::new(256) }
    }

    /// The nodes of the present bridge are called no more; those of the next one are. Returns between two cycles.
    pub fn cut(&mut self) {
        *self.cycles.write().unwrap() = false;
        self.cycles = Arc::new(RwLock::new(true));
    }

    /// Nodes that are made from now on are never called, or are again.
    pub fn hush(&mut self, hushed: bool) {
        self.cycles = Arc::new(RwLock::new(!hushed));
    }

    /// Nodes that there are.
    pub fn nodes(&self) -> usize {
        self.nodes.load(Ordering::Acquire)
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
        let target = Arc::new(Mutex::new(spec.target.clone()));
        let ended = Arc::new(AtomicBool::new(false));
        self.recordings.lock().unwrap().push(Recording {
            spec,
            heard: Arc::clone(&heard),
            target: Arc::clone(&target),
            ended: Arc::clone(&ended),
        });
        let node = TapeNode { _attachment: ring.attach(), target, ended: Arc::clone(&ended) };
        let (quantum, cycles, nodes) = (self.quantum, Arc::clone(&self.cycles), Arc::clone(&self.nodes));
        nodes.fetch_add(1, Ordering::AcqRel);
        std::thread::spawn(move || {
            run_node(&ring, quantum, &heard, &ended, &cycles);
            nodes.fetch_sub(1, Ordering::AcqRel);
        });
        Some(Box::new(node))
    }

    fn bounds(&self) -> Bounds {
        self.bounds
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
fn run_node(
    ring: &PcmRing,
    quantum: Frames,
    heard: &Mutex<Vec<u8>>,
    ended: &AtomicBool,
    cycles: &RwLock<bool>,
) {
    let format = ring.format();
    let mut cycle = vec![0; format.octets(quantum).0 as usize];
    let mut at = monotonic_now();
    let mut counted = 0u32;
    while !ended.load(Ordering::Acquire) {
        let called = cycles.read().unwrap();
        if !*called {
            return;
        }
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
        drop(called);
        at += quantum.duration(format.rate());
        let left = at - monotonic_now();
        if left.0 > 0 {
            std::thread::sleep(Duration::from_nanos(left.0.unsigned_abs()));
        }
    }
}
