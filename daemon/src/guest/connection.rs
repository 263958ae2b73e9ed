//! A connected card: its rings mapped, its channels bound, its requests answered by a thread of its own, so that one
//! guest's flood delays no other's answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{debug, error};
use vsnd_pw_module::{Access, Nanos, OutOfRange, monotonic_now};

use super::account::{Account, Delay, Meter};
use super::device::{DeviceContext, DeviceId};
use super::names::{Domain, Place};
use crate::config::DomainPolicy;
use crate::sndif::{
    BackRing, CardConfig, ConfigError, EventPage, Operation, Request, Response, RingError, Transport,
    check_version, keys,
};
use crate::stream::{EventWriter, Incarnation, PcmStream, Record, Signals, StreamSetup};
use crate::xen::{EventError, Events, GrantError, GrantRef, LocalPort, RemotePort};

/// Requests answered for one stream before the others have their turn: a ring holds no more.
const REQUESTS_A_TURN: usize = 32;

/// Why a card can't be connected.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration, or what the frontend published.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// A page that the frontend published.
    #[error("{stream}: {error}")]
    Grant {
        /// Which stream: "PCM 0 stream 1".
        stream: String,
        /// Why.
        error: GrantError,
    },
    /// A port that the frontend published.
    #[error("{stream}: {error}")]
    Event {
        /// Which stream: "PCM 0 stream 1".
        stream: String,
        /// Why.
        error: EventError,
    },
    /// A mapping that is no page.
    #[error("{stream}: {error}")]
    Page {
        /// Which stream: "PCM 0 stream 1".
        stream: String,
        /// Why.
        error: OutOfRange,
    },
    /// Event channels at all.
    #[error("{0}")]
    Events(#[from] EventError),
    /// The system gives no thread.
    #[error("no thread for the card: {0}")]
    Thread(String),
}

/// Where a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The frontend has just published its rings: nothing is open.
    Anew,
    /// Where a bridge before left it.
    TakeOver,
}

/// A connected card. Dropping it ends its thread, which unmaps the rings and frees the ports. What is open stays so for the
/// next process, unless the card is [released](Self::release).
pub struct Connection {
    events: Arc<dyn Events>,
    end: Arc<End>,
    thread: Option<JoinHandle<()>>,
}

/// How a card's thread is told to end, and how it tells that it ended by itself.
#[derive(Default)]
struct End {
    due: AtomicBool,
    released: AtomicBool,
    failed: AtomicBool,
}

/// One stream's two channels: requests, and position events.
struct Channel {
    requests: LocalPort,
    positions: LocalPort,
    ring: BackRing,
    stream: PcmStream,
    /// The answer to a request that can't be answered yet; later requests of the stream wait behind it.
    held: Option<Response>,
    /// The guest broke the ring's rules: its requests are no longer read.
    broken: bool,
}

/// The card that is connected.
#[derive(Clone, Copy)]
pub struct CardSetup<'a> {
    /// Its place.
    pub id: DeviceId,
    /// The guest.
    pub domain: &'a Domain,
    /// What the user allows the guest.
    pub policy: DomainPolicy,
    /// What the guest has had of it.
    pub account: &'a Arc<Account>,
    /// What was configured.
    pub config: &'a CardConfig,
    /// The frontend's directory.
    pub frontend: &'a str,
}

impl Connection {
    /// Maps and binds what the frontend published and begins to answer. `failed` is called if that ends by a fault of the
    /// bridge, or of the system.
    ///
    /// # Errors
    /// Any [`ConnectError`]; nothing stays mapped or bound then.
    pub fn open(
        context: &DeviceContext,
        card: &CardSetup<'_>,
        start: Start,
        failed: impl Fn() + Send + 'static,
    ) -> Result<Self, ConnectError> {
        let CardSetup { id, domain, policy, account, config, frontend } = *card;
        let events = (context.xen.open_events)()?;
        let mut channels = Vec::new();
        check_version(&*context.xen.store, frontend)?;
        for pcm in &config.pcms {
            for stream in &pcm.streams {
                let place = format!("PCM {} stream {}", pcm.index, stream.index);
                let directory = keys::stream_directory(frontend, pcm.index, stream.index);
                let transport = Transport::read(&*context.xen.store, &directory)?;
                let stream_place =
                    Place { card: id.device, pcm: pcm.index.into(), stream: stream.index.into() };
                let record = context.records.of(id.frontend, stream_place);
                let setup = StreamSetup {
                    domain: domain.clone(),
                    place: stream_place,
                    pcm_name: pcm.name.clone(),
                    direction: stream.direction,
                    limits: stream.limits.clone(),
                    policy,
                    account: Arc::clone(account),
                };
                let channel = Channel::open(context, &events, setup, transport, record, start);
                channels.push(channel.map_err(|error| error.of(place))?);
            }
        }
        let end = Arc::<End>::default();
        let thread = {
            let (events, end, account) = (Arc::clone(&events), Arc::clone(&end), Arc::clone(account));
            let body = move || {
                // One guest's fault ends its own card and nothing else.
                let served = || serve(&*events, &mut channels, &account, &end);
                let served = catch_unwind(AssertUnwindSafe(served)).unwrap_or(Served::Failed);
                let kept = served == Served::ToTheEnd && !end.released.load(Ordering::Relaxed);
                for channel in &mut channels {
                    // What broke may break again.
                    let _ = catch_unwind(AssertUnwindSafe(|| channel.end(&*events, kept)));
                }
                if served == Served::Failed {
                    end.failed.store(true, Ordering::Release);
                    failed();
                }
                debug!("card released");
            };
            std::thread::Builder::new()
                .name(format!("guest {id}"))
                .spawn(body)
                .map_err(|error| ConnectError::Thread(error.to_string()))?
        };
        Ok(Self { events, end, thread: Some(thread) })
    }

    /// Whether it has ended by itself, by a fault.
    pub fn has_failed(&self) -> bool {
        self.end.failed.load(Ordering::Acquire)
    }

    /// Ends it for good: the streams are closed, and the next process finds nothing of them.
    pub fn release(self) {
        self.end.released.store(true, Ordering::Relaxed);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end.due.store(true, Ordering::Release);
        self.events.wake();
        if let Some(thread) = self.thread.take() {
            // From the rest of a guest that is slowed.
            thread.thread().unpark();
            if thread.join().is_err() {
                error!("a guest's thread ended by a fault of the bridge; please report it");
            }
        }
    }
}

/// A stream's grant or port that failed, before it is known by name.
enum ChannelError {
    Grant(GrantError),
    Event(EventError),
    Page(OutOfRange),
}

impl ChannelError {
    fn of(self, stream: String) -> ConnectError {
        match self {
            Self::Grant(error) => ConnectError::Grant { stream, error },
            Self::Event(error) => ConnectError::Event { stream, error },
            Self::Page(error) => ConnectError::Page { stream, error },
        }
    }
}

impl Channel {
    fn open(
        context: &DeviceContext,
        events: &Arc<dyn Events>,
        setup: StreamSetup,
        transport: Transport,
        record: Record,
        start: Start,
    ) -> Result<Self, ChannelError> {
        let guest = setup.domain.id;
        let page = |reference: GrantRef| {
            let mapped = context.xen.grants.map(guest, &[reference], Access::ReadWrite);
            mapped.map_err(ChannelError::Grant)
        };
        let bind = |port: RemotePort| events.bind(guest, port).map_err(ChannelError::Event);
        let ring = BackRing::attach(page(transport.ring)?).map_err(|_| ChannelError::Page(OutOfRange))?;
        let event_page = EventPage::attach(page(transport.events)?).map_err(ChannelError::Page)?;
        let (requests, positions) = (bind(transport.ring_port)?, bind(transport.events_port)?);
        let (notifier, waker) = (Arc::clone(events), Arc::clone(events));
        let signals = Signals {
            positions: Box::new(move || notifier.notify(positions)),
            answer: Box::new(move || waker.wake()),
        };
        let incarnation = Incarnation { uuid: setup.domain.uuid_number(), transport };
        let left = match start {
            Start::Anew => Ok(None),
            Start::TakeOver => record.left(&incarnation),
        };
        if start == Start::Anew || left.is_err() {
            record.begin(&incarnation);
        }
        let mut stream = PcmStream::new(context, setup, EventWriter::new(event_page), signals, record);
        stream.take_over(left);
        Ok(Self { requests, positions, ring, stream, held: None, broken: false })
    }

    /// Answers what is in the ring, a ring's length at most. Returns whether more is waiting.
    fn answer(&mut self, events: &dyn Events, work: &mut Work) -> bool {
        if self.broken {
            return false;
        }
        let answered = self.answer_some(events, work);
        answered.unwrap_or_else(|error| {
            self.stream.complain(&error);
            self.stream.close();
            self.broken = true;
            false
        })
    }

    fn answer_some(&mut self, events: &dyn Events, work: &mut Work) -> Result<bool, RingError> {
        for _ in 0..REQUESTS_A_TURN {
            if let Some(response) = self.held {
                if self.stream.holds_answer() {
                    return Ok(false);
                }
                self.held = None;
                self.respond(events, &response)?;
            }
            let Some(packet) = self.ring.take()? else { return self.ring.final_check() };
            work.requests += 1;
            let mut opens = false;
            let response = match Request::parse(&packet) {
                Ok(request) => {
                    opens = matches!(request.operation, Operation::Open(_));
                    self.stream.answer(&request)
                }
                Err(malformed) => {
                    self.stream.complain(&malformed);
                    malformed.response()
                }
            };
            if self.stream.holds_answer() {
                self.held = Some(response);
            } else {
                self.respond(events, &response)?;
            }
            if opens {
                // The dearest of all: one a turn.
                work.opens += 1;
                return Ok(true);
            }
        }
        Ok(true)
    }

    fn respond(&mut self, events: &dyn Events, response: &Response) -> Result<(), RingError> {
        self.ring.respond(&response.encode())?;
        // Always: a frontend that timed out may have left its wish for notifications behind.
        events.notify(self.requests);
        Ok(())
    }
}

impl Channel {
    /// Closes the stream, unless it is `kept` for the next process, and frees the ports.
    fn end(&mut self, events: &dyn Events, kept: bool) {
        events.unbind(self.requests);
        events.unbind(self.positions);
        if kept {
            self.stream.leave();
        } else {
            self.stream.release();
        }
    }
}

/// What a guest had done for it in one turn.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    requests: u32,
    opens: u32,
}

impl Work {
    /// Puts it on the guest's account, and waits as long as that says, or until the end is due. The guest's other cards
    /// have threads of their own, and so have other guests; a port that is notified meanwhile stays masked.
    fn charge(self, account: &Account, end: &End) {
        let now = monotonic_now();
        let charge = |meter: &Meter, times: u32| {
            let Delay { until, is_news } = if times > 0 { meter.take(now, times)? } else { return None };
            if is_news {
                account.name_for(meter);
            }
            Some(until)
        };
        let until = charge(&account.requests, self.requests).max(charge(&account.opens, self.opens));
        account.name_noted();
        while let Some(left) = until.map(|until| until - monotonic_now()).filter(|left| *left > Nanos(0)) {
            if end.due.load(Ordering::Acquire) {
                return;
            }
            std::thread::park_timeout(Duration::from_nanos(left.0.unsigned_abs()));
        }
    }
}

/// How serving a card came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    ToTheEnd,
    Failed,
}

/// The card's thread.
fn serve(events: &dyn Events, channels: &mut [Channel], account: &Account, end: &End) -> Served {
    let mut ports = Vec::new();
    let mut again = Vec::new();
    let mut work = Work::default();
    // What came before the ports were bound was notified to nobody, and a bridge before may have died between an answer and
    // its notification.
    for channel in channels.iter_mut() {
        events.notify(channel.requests);
        if channel.answer(events, &mut work) {
            again.push(channel.requests);
        }
        channel.stream.run_on();
    }
    while !end.due.load(Ordering::Acquire) {
        for port in ports.drain(..) {
            let before = work.requests;
            for channel in channels.iter_mut() {
                if channel.requests == port && channel.answer(events, &mut work) {
                    again.push(port);
                }
                if channel.positions == port {
                    channel.stream.room_for_events();
                }
            }
            // A notification that brings nothing is charged as a request.
            work.requests = work.requests.max(before + 1);
            // After the work: a guest that notifies without end costs one look at a time.
            events.unmask(port);
        }
        std::mem::take(&mut work).charge(account, end);
        if !again.is_empty() {
            // Only look at what came meanwhile: no stream waits until another's ring is empty.
            events.wake();
        }
        if let Err(error) = events.wait(&mut ports) {
            error!("a guest's requests can't be waited for, its sound ends: {error}");
            return Served::Failed;
        }
        ports
            .extend(channels.iter().filter(|channel| channel.held.is_some()).map(|channel| channel.requests));
        ports.append(&mut again);
        // One look each: what is notified while it waits for its turn would have ever more.
        ports.sort_unstable();
        ports.dedup();
    }
    Served::ToTheEnd
}
