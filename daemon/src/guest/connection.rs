//! A connected card: its rings mapped, its channels bound, its requests answered by a thread of its own, so that one
//! guest's flood delays no other's answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tracing::{debug, error};
use vsnd_pw_module::{Access, OutOfRange};

use super::device::{DeviceContext, DeviceId};
use super::names::{Domain, Place};
use crate::config::DomainPolicy;
use crate::sndif::{
    BackRing, CardConfig, ConfigError, EventPage, Request, Response, RingError, Transport, check_version,
    keys,
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

/// How a card's thread is told to end.
#[derive(Default)]
struct End {
    due: AtomicBool,
    released: AtomicBool,
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

impl Connection {
    /// Maps and binds what the frontend published and begins to answer.
    ///
    /// # Errors
    /// Any [`ConnectError`]; nothing stays mapped or bound then.
    pub fn open(
        context: &DeviceContext,
        id: DeviceId,
        domain: &Domain,
        policy: DomainPolicy,
        config: &CardConfig,
        frontend: &str,
        start: Start,
    ) -> Result<Self, ConnectError> {
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
                };
                let channel = Channel::open(context, &events, setup, transport, record, start);
                channels.push(channel.map_err(|error| error.of(place))?);
            }
        }
        let end = Arc::<End>::default();
        let thread = {
            let (events, end) = (Arc::clone(&events), Arc::clone(&end));
            std::thread::Builder::new()
                .name(format!("guest {id}"))
                .spawn(move || serve(&*events, &mut channels, &end))
                .map_err(|error| ConnectError::Thread(error.to_string()))?
        };
        Ok(Self { events, end, thread: Some(thread) })
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
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("a guest's thread ended by a fault of the bridge; please report it");
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
    fn answer(&mut self, events: &dyn Events) -> bool {
        if self.broken {
            return false;
        }
        let answered = self.answer_some(events);
        answered.unwrap_or_else(|error| {
            self.stream.complain(&error);
            self.stream.close();
            self.broken = true;
            false
        })
    }

    fn answer_some(&mut self, events: &dyn Events) -> Result<bool, RingError> {
        for _ in 0..REQUESTS_A_TURN {
            if let Some(response) = self.held {
                if self.stream.holds_answer() {
                    return Ok(false);
                }
                self.held = None;
                self.respond(events, &response)?;
            }
            let Some(packet) = self.ring.take()? else { return self.ring.final_check() };
            let response = match Request::parse(&packet) {
                Ok(request) => self.stream.answer(&request),
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

/// The card's thread.
fn serve(events: &dyn Events, channels: &mut [Channel], end: &End) {
    let mut ports = Vec::new();
    let mut again = Vec::new();
    // What came before the ports were bound was notified to nobody, and a bridge before may have died between an answer and
    // its notification.
    for channel in channels.iter_mut() {
        events.notify(channel.requests);
        if channel.answer(events) {
            again.push(channel.requests);
        }
        channel.stream.run_on();
    }
    while !end.due.load(Ordering::Acquire) {
        for port in ports.drain(..) {
            for channel in channels.iter_mut() {
                if channel.requests == port && channel.answer(events) {
                    again.push(port);
                }
                if channel.positions == port {
                    channel.stream.room_for_events();
                }
            }
            // After the work: a guest that notifies without end costs one look at a time.
            events.unmask(port);
        }
        if !again.is_empty() {
            // Only look at what came meanwhile: no stream waits until another's ring is empty.
            events.wake();
        }
        if let Err(error) = events.wait(&mut ports) {
            error!("a guest's requests can't be waited for, its sound ends: {error}");
            break;
        }
        ports
            .extend(channels.iter().filter(|channel| channel.held.is_some()).map(|channel| channel.requests));
        ports.append(&mut again);
        // One look each: what is notified while it waits for its turn would have ever more.
        ports.sort_unstable();
        ports.dedup();
    }
    for channel in channels.iter_mut() {
        if end.released.load(Ordering::Relaxed) {
            channel.stream.release();
        } else {
            channel.stream.leave();
        }
        events.unbind(channel.requests);
        events.unbind(channel.positions);
    }
    debug!("card released");
}
