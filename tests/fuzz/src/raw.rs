//! A guest without a driver: pages and ports to do anything with.

use std::time::Duration;

use vsnd_bridge::sim::{Attached, GrantedPages, Guest, GuestPort};
use vsnd_bridge::sndif::{
    Errno, FrontRing, Operation, PACKET, Packet, Request, Response, Span, Status, keys,
};
use vsnd_bridge::xen::Store;
use vsnd_pw_module::{Access, Octets, Pages};

use crate::xen::DOM0;

/// Where the guest counts its requests in the ring's page.
pub const REQ_PROD: usize = 0;
/// Where the bridge counts its answers.
pub const RSP_PROD: usize = 8;

/// How long an honest guest waits for an answer before this is a stall, on a machine however busy.
pub const PATIENCE: Duration = Duration::from_secs(3);

const FIRST_SLOT: usize = 64;
const SLOTS: u32 = 32;

/// One stream's pages and ports.
pub struct RawStream {
    /// The page of the request ring.
    pub ring: GrantedPages,
    /// The event page.
    pub events: GrantedPages,
    /// The ring's event channel.
    pub requests: GuestPort,
    /// The event page's event channel.
    pub positions: GuestPort,
}

impl RawStream {
    /// New pages and ports of `guest`.
    pub fn of(guest: &Guest) -> Self {
        let page = || guest.share(1, DOM0, Access::ReadWrite).unwrap();
        let port = || guest.offer_port(DOM0);
        Self { ring: page(), events: page(), requests: port(), positions: port() }
    }

    /// Publishes this as stream `index` of the card's first PCM.
    pub fn publish(&self, guest: &Guest, card: &Attached, index: u8) {
        let directory = keys::stream_directory(&card.frontend(), 0, index);
        let nodes_of_stream = [
            (keys::RING_REF, self.ring.references()[0].0),
            (keys::EVENT_CHANNEL, self.requests.number()),
            (keys::EVT_RING_REF, self.events.references()[0].0),
            (keys::EVT_EVENT_CHANNEL, self.positions.number()),
        ];
        let published = guest.store().transaction(&mut |nodes| {
            let mut all = nodes_of_stream.iter();
            all.try_for_each(|(key, value)| {
                nodes.write(&format!("{directory}/{key}"), value.to_string().as_bytes())
            })
        });
        published.unwrap();
    }

    /// Writes a slot of the request ring.
    pub fn fill_slot(&self, number: u32, packet: &Packet) {
        let at = FIRST_SLOT + (number % SLOTS) as usize * PACKET;
        self.pages().write(at, packet).unwrap();
    }

    /// A request, whether or not there is room for it.
    pub fn push(&self, packet: &Packet) {
        let produced = self.pages().load(REQ_PROD).unwrap();
        self.fill_slot(produced, packet);
        self.pages().store(REQ_PROD, produced.wrapping_add(1)).unwrap();
    }

    /// The request ring's page.
    pub fn pages(&self) -> &Pages {
        self.ring.pages()
    }

    /// This stream with an honest ring.
    pub fn honest(self) -> HonestStream {
        let ring = FrontRing::init(self.ring.view().unwrap()).unwrap();
        HonestStream { ring, raw: self, id: 0 }
    }
}

/// A stream whose requests keep the ring's rules, whatever they ask.
pub struct HonestStream {
    ring: FrontRing,
    /// Its pages and ports.
    pub raw: RawStream,
    id: u16,
}

impl HonestStream {
    /// Asks and waits for the answer; `None` if none came in time.
    pub fn ask(&mut self, operation: Operation, patience: Duration) -> Option<Status> {
        self.id = self.id.wrapping_add(1);
        let request = Request { id: self.id, operation };
        self.ask_packet(&request.encode(), patience).map(|response| {
            assert_eq!((response.id, response.operation), (self.id, operation.code()));
            response.status
        })
    }

    /// The same with any octets.
    pub fn ask_packet(&mut self, packet: &Packet, patience: Duration) -> Option<Response> {
        self.ring.push(packet).unwrap();
        self.raw.requests.notify();
        loop {
            if let Some(response) = self.ring.take_response().unwrap() {
                return Some(Response::parse(&response).unwrap());
            }
            if !self.raw.requests.wait(patience) {
                return None;
            }
        }
    }

    /// Asks two things that are answered from memory; the stream is not open.
    ///
    /// # Panics
    /// If it is not answered, or not so.
    pub fn must_be_served(&mut self) {
        let span = Span { offset: Octets(0), length: Octets(4) };
        for (operation, answer) in [(Operation::Close, Ok(())), (Operation::Read(span), Err(Errno::Io))] {
            assert_eq!(self.ask(operation, PATIENCE), Some(answer), "an honest guest must be served");
        }
    }
}
