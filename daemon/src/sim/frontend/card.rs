//! A card of a running guest: its streams, each with its interrupt thread.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vsnd_pw_module::{Direction, Nanos, Octets, monotonic_now};

use super::config::StreamConfig;
use super::core::PcmError;
use super::driver::{GuestDriver, shared_page};
use super::handle::PcmHandle;
use super::inbox::{Harm, Inbox};
use super::lock;
use super::pcm::Pcm;
use super::position::{Kernel, Word};
use crate::realtime;
use crate::sim::{GrantedPages, Guest, GuestPort};
use crate::xen::{DomId, Nodes, StoreError};

/// How often an interrupt thread looks whether it is to end.
const LOOK: Duration = Duration::from_secs(1);

/// Below a sound server's threads, as a guest is in Dom0.
const INTERRUPTS: u8 = 20;

/// A position as the guest's driver took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When, by CLOCK_MONOTONIC.
    pub at: Nanos,
    /// What the event said.
    pub position: Octets,
}

/// One stream of a card.
pub(super) struct Stream {
    pub config: StreamConfig,
    pub pcm: Mutex<Pcm<Arc<GuestDriver>>>,
    /// Told after each change that may wake an application.
    pub changed: Condvar,
    pub inbox: Arc<Mutex<Inbox>>,
    pub driver: Arc<GuestDriver>,
    events: GuestPort,
    event_page: GrantedPages,
    /// Every position taken, while somebody wants to know.
    seen: Mutex<Option<Vec<Seen>>>,
    in_use: AtomicBool,
    ended: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Stream {
    fn new(
        guest: &Guest,
        backend: DomId,
        kernel: Kernel,
        word: Word,
        config: StreamConfig,
    ) -> io::Result<Arc<Self>> {
        let driver = Arc::new(GuestDriver::new(guest, backend)?);
        let (event_page, view) = shared_page(guest, backend)?;
        let inbox = Arc::new(Mutex::new(Inbox::new(kernel, word, view).map_err(io::Error::other)?));
        let pcm = Pcm::new(
            config.direction,
            word,
            config.capabilities.clone(),
            Arc::clone(&inbox),
            Arc::clone(&driver),
        );
        let stream = Arc::new(Self {
            config,
            pcm: Mutex::new(pcm),
            changed: Condvar::new(),
            inbox,
            driver,
            events: guest.offer_port(backend),
            event_page,
            seen: Mutex::new(None),
            in_use: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            thread: Mutex::new(None),
        });
        let interrupts = Arc::clone(&stream);
        let thread = std::thread::Builder::new()
            .name(format!("sim-irq-{}", stream.config.path()))
            .spawn(move || interrupts.serve())?;
        *lock(&stream.thread) = Some(thread);
        Ok(stream)
    }

    /// The event channel's interrupt thread. An interrupt does not wait for an application to give up the processor: neither
    /// does this where the user's limits allow it.
    fn serve(&self) {
        let _is_prompt = realtime::take(INTERRUPTS).is_ok();
        while !self.ended.load(Ordering::Acquire) {
            if self.events.wait(LOOK) {
                self.interrupt();
            }
        }
    }

    fn interrupt(&self) {
        loop {
            // Not held while the core is told: a stop of its own waits for the backend.
            let taken = lock(&self.inbox).take();
            let Some(taken) = taken else { return };
            if let Some(seen) = &mut *lock(&self.seen) {
                seen.push(Seen { at: monotonic_now(), position: taken.position });
            }
            if taken.elapsed {
                lock(&self.pcm).period_elapsed(monotonic_now());
                self.changed.notify_all();
            }
        }
    }

    /// Begins to keep positions; what was kept so far.
    pub fn watch_positions(&self) -> Vec<Seen> {
        lock(&self.seen).replace(Vec::new()).unwrap_or_default()
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.events.wake();
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // A panic there has been told already.
            let _ = thread.join();
        }
    }

    fn harm(&self) -> Vec<Harm> {
        let mut harm = lock(&self.inbox).harm().to_vec();
        harm.extend(self.driver.harm());
        harm
    }

    fn publish(&self, nodes: &dyn Nodes, card: &str) -> Result<(), StoreError> {
        let put = |key: &str, value: u32| {
            nodes.write(&format!("{card}/{}/{key}", self.config.path()), value.to_string().as_bytes())
        };
        let (ring, port) = self.driver.published();
        put("ring-ref", ring.0)?;
        put("event-channel", port)?;
        put("evt-ring-ref", self.event_page.references().first().map_or(0, |reference| reference.0))?;
        put("evt-event-channel", self.events.number())
    }
}

/// What a card's streams share.
pub(super) struct CardState {
    pub streams: Vec<Arc<Stream>>,
    openers: Mutex<usize>,
    closed: Condvar,
    gone: AtomicBool,
    /// What remains of the harm done, once the card is gone.
    harm: Arc<Mutex<Vec<Harm>>>,
}

impl CardState {
    /// Rings, pages and ports for each stream configured.
    pub fn allocate(
        guest: &Guest,
        backend: DomId,
        kernel: Kernel,
        word: Word,
        configs: Vec<StreamConfig>,
    ) -> io::Result<Self> {
        let stream = |config| Stream::new(guest, backend, kernel, word, config);
        let mut streams = Vec::new();
        for config in configs {
            match stream(config) {
                Ok(stream) => streams.push(stream),
                Err(error) => {
                    streams.iter().for_each(|stream: &Arc<Stream>| stream.end());
                    return Err(error);
                }
            }
        }
        let (openers, closed, gone) = (Mutex::new(0), Condvar::new(), AtomicBool::new(false));
        Ok(Self { streams, openers, closed, gone, harm: Arc::default() })
    }

    /// Writes each stream's ring and ports.
    pub fn publish(&self, nodes: &dyn Nodes, card: &str) -> Result<(), StoreError> {
        self.streams.iter().try_for_each(|stream| stream.publish(nodes, card))
    }

    /// Takes the card from under its applications and waits until the last has closed it, as Linux does.
    pub fn disconnect(&self, goes_on: impl Fn() -> bool) {
        self.gone.store(true, Ordering::Release);
        for stream in &self.streams {
            if stream.in_use.load(Ordering::Acquire) {
                lock(&stream.pcm).disconnect();
                stream.changed.notify_all();
            }
        }
        let mut openers = lock(&self.openers);
        while *openers > 0 && goes_on() {
            openers = self.closed.wait_timeout(openers, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(openers);
        self.end();
        lock(&self.harm).extend(self.present_harm());
    }

    /// Ends the interrupt threads, for good.
    pub fn end(&self) {
        self.streams.iter().for_each(|stream| stream.end());
    }

    fn present_harm(&self) -> Vec<Harm> {
        self.streams.iter().flat_map(|stream| stream.harm()).collect()
    }

    /// An application has closed a stream.
    pub fn release(&self, stream: &Stream) {
        stream.in_use.store(false, Ordering::Release);
        *lock(&self.openers) -= 1;
        self.closed.notify_all();
    }
}

/// A card that applications can open. It is this very card: after the backend was away there is another.
#[derive(Clone)]
pub struct SimCard {
    /// Held by the bus, and by who has a stream open: rings and ports go when the card does.
    state: Weak<CardState>,
    harm: Arc<Mutex<Vec<Harm>>>,
}

impl SimCard {
    pub(super) fn new(state: &Arc<CardState>) -> Self {
        Self { state: Arc::downgrade(state), harm: Arc::clone(&state.harm) }
    }

    /// Its streams; none when the card is gone.
    pub fn streams(&self) -> Vec<StreamConfig> {
        let Some(state) = self.state.upgrade() else { return Vec::new() };
        state.streams.iter().map(|stream| stream.config.clone()).collect()
    }

    /// Opens a free stream of PCM device `pcm` in this direction.
    ///
    /// # Errors
    /// [`PcmError::Busy`] when all are open, [`PcmError::Gone`] when the card is gone or has none.
    pub fn open(&self, pcm: usize, direction: Direction) -> Result<PcmHandle, PcmError> {
        let state = self.state.upgrade().ok_or(PcmError::Gone)?;
        let mut openers = lock(&state.openers);
        if state.gone.load(Ordering::Acquire) {
            return Err(PcmError::Gone);
        }
        let fits = |stream: &&Arc<Stream>| stream.config.pcm == pcm && stream.config.direction == direction;
        let mut fitting = state.streams.iter().filter(fits).peekable();
        fitting.peek().ok_or(PcmError::Gone)?;
        let take = |stream: &&Arc<Stream>| !stream.in_use.swap(true, Ordering::AcqRel);
        let stream = fitting.find(take).ok_or(PcmError::Busy)?;
        *openers += 1;
        drop(openers);
        lock(&stream.pcm).open();
        let stream = Arc::clone(stream);
        Ok(PcmHandle::new(state, stream))
    }

    /// What the backend did so far that would harm a guest's kernel. Must be empty.
    pub fn harm(&self) -> Vec<Harm> {
        let mut harm = lock(&self.harm).clone();
        harm.extend(self.state.upgrade().iter().flat_map(|state| state.present_harm()));
        harm
    }

    /// Whether the card is there.
    pub fn is_present(&self) -> bool {
        self.state.upgrade().is_some_and(|state| !state.gone.load(Ordering::Acquire))
    }

    /// Waits until the card is gone.
    pub fn wait_gone(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while self.is_present() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}
