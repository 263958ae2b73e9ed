//! The card of the guest's own, as far as it is the guest's: its nodes in XenStore, and the pages and ports of its streams.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use vsnd_bridge::sndif::{
    FormatCode, Open, Operation, PACKET, PAGE, Packet, RING_SLOTS, Request, Span, Trigger, directory, keys,
};
use vsnd_bridge::xen::real::{Route, XenStore, open_store};
use vsnd_bridge::xen::{GrantRef, Nodes};
use vsnd_pw_module::Octets;

use crate::xen::{Granted, Grants, Port, Ports};

/// Pages of a stream's buffer.
const BUFFER: usize = 16;

/// The card's streams, by PCM and index, as the case configures them.
const STREAMS: [(u8, u8); 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

/// Places in the page of the request ring, and where its slots begin.
const REQ_PROD: usize = 0;
const RSP_PROD: usize = 8;
const FIRST_SLOT: usize = 64;

/// One stream's pages and ports.
pub struct Stream {
    pub ring: Granted,
    pub events: Granted,
    pub requests: Port,
    pub positions: Port,
    pub directory: Granted,
    pub buffer: Vec<Granted>,
}

impl Stream {
    fn new(grants: &Grants, ports: &Ports) -> Result<Self> {
        Ok(Self {
            ring: grants.page()?,
            events: grants.page()?,
            requests: ports.offer()?,
            positions: ports.offer()?,
            directory: grants.page()?,
            buffer: (0..BUFFER).map(|_| grants.page()).collect::<Result<_>>()?,
        })
    }

    /// Everything as an honest driver has it before it connects.
    fn lay_out(&self) -> Result<()> {
        for page in [&self.ring, &self.events] {
            page.pages.write(0, &[0; PAGE])?;
        }
        let references: Vec<GrantRef> = self.buffer.iter().map(|page| page.reference).collect();
        let layout =
            directory::build(&[self.directory.reference], &references).context("one page holds it")?;
        self.directory.pages.write(0, &layout[0])?;
        Ok(())
    }

    /// Fills the ring with as many requests as it has room for; how many were answered since `before`, the answers counted then.
    pub fn ask(&self, before: &mut u32, request: impl Fn(&Self) -> Packet) -> Result<u32> {
        let answered = self.ring.pages.load(RSP_PROD)?;
        let produced = self.ring.pages.load(REQ_PROD)?;
        let full = answered.wrapping_add(RING_SLOTS);
        // What the scribbler wrote into a counter is not the ring's state.
        if full.wrapping_sub(produced) <= RING_SLOTS {
            let mut next = produced;
            while next != full {
                self.ring.pages.write(FIRST_SLOT + (next % RING_SLOTS) as usize * PACKET, &request(self))?;
                next = next.wrapping_add(1);
            }
            self.ring.pages.store(REQ_PROD, full)?;
        }
        Ok(answered.wrapping_sub(std::mem::replace(before, answered)))
    }

    /// Claims any number of requests.
    pub fn lie(&self) -> Result<()> {
        Ok(self.ring.pages.store(REQ_PROD, fastrand::u32(..))?)
    }

    /// A request that an honest driver could send, or any octets.
    pub fn any_request(&self) -> Packet {
        let span =
            Span { offset: octets(fastrand::u32(..0x1_2000)), length: octets(fastrand::u32(..0x1000)) };
        let operation = match fastrand::u8(..16) {
            0 => Operation::Open(Open {
                rate: 48_000,
                format: FormatCode(2),
                channels: 2,
                buffer: octets(fastrand::u32(1..=BUFFER as u32) * PAGE as u32),
                directory: self.directory.reference,
                period: octets(fastrand::u32(..16) * 256),
            }),
            1 => Operation::Close,
            2..5 => Operation::Trigger([Trigger::Start, Trigger::Pause, Trigger::Stop][fastrand::usize(..3)]),
            5 => Operation::SetVolume(span),
            6 => Operation::Mute(span),
            7 => Operation::Read(span),
            8..14 => Operation::Write(Span {
                offset: Octets(span.offset.0 & !3),
                length: Octets(span.length.0 & !3),
            }),
            _ => {
                let mut packet = [0; PACKET];
                packet.fill_with(|| fastrand::u8(..));
                return packet;
            }
        };
        Request { id: fastrand::u16(..), operation }.encode()
    }
}

fn octets(count: u32) -> Octets {
    Octets(count.into())
}

/// The card.
pub struct Card {
    store: XenStore,
    frontend: String,
    backend: String,
    pub streams: Vec<Stream>,
}

impl Card {
    /// The guest's first card, which no driver serves, with pages and ports for all its streams.
    pub fn open(grants: &Grants, ports: &Ports) -> Result<Self> {
        let store = open_store(&[Route::Device("/dev/xen/xenbus".into())])?;
        // Relative paths start at the guest's own directory.
        let frontend = "device/vsnd/0".to_owned();
        let backend = String::from_utf8(store.read(&format!("{frontend}/{}", keys::BACKEND))?)?;
        let streams = (0..STREAMS.len()).map(|_| Stream::new(grants, ports)).collect::<Result<_>>()?;
        Ok(Self { store, frontend, backend, streams })
    }

    /// Writes a node of the card; whether XenStore took it.
    pub fn write(&self, node: &str, value: &[u8]) -> bool {
        self.store.write(&format!("{}/{node}", self.frontend), value).is_ok()
    }

    /// Removes a node of the card, and all below it.
    pub fn remove(&self, node: &str) -> bool {
        self.store.remove(&format!("{}/{node}", self.frontend)).is_ok()
    }

    /// As a driver does it: comes, publishes, waits until it is connected. Whether it is within `patience`.
    pub fn connect(&self, patience: Duration) -> Result<bool> {
        let deadline = Instant::now() + patience;
        self.write(keys::STATE, b"6");
        self.write(keys::STATE, b"1");
        if !self.awaits("2", deadline) {
            return Ok(false);
        }
        for (stream, (pcm, index)) in self.streams.iter().zip(STREAMS) {
            stream.lay_out()?;
            let directory = keys::stream_directory(&self.frontend, pcm, index);
            for (key, value) in [
                (keys::RING_REF, stream.ring.reference.0),
                (keys::EVENT_CHANNEL, stream.requests.0),
                (keys::EVT_RING_REF, stream.events.reference.0),
                (keys::EVT_EVENT_CHANNEL, stream.positions.0),
            ] {
                self.store.write(&format!("{directory}/{key}"), value.to_string().as_bytes())?;
            }
        }
        self.write(keys::STATE, b"3");
        let connected = self.awaits("4", deadline);
        self.write(keys::STATE, b"4");
        Ok(connected)
    }

    fn awaits(&self, state: &str, deadline: Instant) -> bool {
        let path = format!("{}/{}", self.backend, keys::STATE);
        while self.store.read(&path).is_ok_and(|found| found != state.as_bytes()) {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}
