//! The driver's part that touches Xen: rings, granted memory, requests that wait for their answer.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vsnd_pw_module::{Access, Nanos, Octets, Pages};

use super::core::PcmError;
use super::inbox::Harm;
use super::lock;
use super::pcm::Driver;
use crate::sim::{GrantedPages, Guest, GuestPort};
use crate::sndif::{FrontRing, Operation, PAGE, Request, Response, directory};
use crate::xen::{DomId, GrantRef};

/// How long the driver waits for an answer: VSND_WAIT_BACK_MS.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(3000);

/// What became of a stream's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Requests sent.
    pub sent: u64,
    /// Answers that said no.
    pub refused: u64,
    /// Requests that got no answer in time.
    pub unanswered: u64,
    /// Answers to no request.
    pub ignored: u64,
    /// The longest wait for an answer.
    pub longest: Nanos,
    /// All waits for answers together.
    pub waited: Nanos,
}

/// One stream's request channel. One request is under way at a time.
struct Channel {
    ring: FrontRing,
    next_id: u16,
    counts: RequestCounts,
    harm: Vec<Harm>,
}

/// A ring of sound that the guest shares.
struct Buffer {
    pages: GrantedPages,
    _directory: GrantedPages,
}

/// One stream's driver in a guest.
pub struct GuestDriver {
    guest: Guest,
    backend: DomId,
    channel: Mutex<Channel>,
    port: GuestPort,
    /// Kept as long as the ring, whose own view of it is separate.
    page: GrantedPages,
    buffer: Mutex<Option<Buffer>>,
}

/// A page that the guest shares with the backend, and a view of it for a ring.
pub(super) fn shared_page(guest: &Guest, backend: DomId) -> io::Result<(GrantedPages, Pages)> {
    let page = guest.share(1, backend, Access::ReadWrite)?;
    let view = page.view()?;
    Ok((page, view))
}

impl GuestDriver {
    pub(super) fn new(guest: &Guest, backend: DomId) -> io::Result<Self> {
        let (page, view) = shared_page(guest, backend)?;
        let ring = FrontRing::init(view).map_err(io::Error::other)?;
        Ok(Self {
            guest: guest.clone(),
            backend,
            channel: Mutex::new(Channel {
                ring,
                next_id: 0,
                counts: RequestCounts::default(),
                harm: Vec::new(),
            }),
            port: guest.offer_port(backend),
            page,
            buffer: Mutex::new(None),
        })
    }

    /// What the guest publishes: the ring's page and its event channel.
    pub(super) fn published(&self) -> (GrantRef, u32) {
        (self.page.references()[0], self.port.number())
    }

    /// What became of the requests so far.
    pub fn counts(&self) -> RequestCounts {
        lock(&self.channel).counts
    }

    /// What the backend did to the ring that harms the guest.
    pub(super) fn harm(&self) -> Vec<Harm> {
        lock(&self.channel).harm.clone()
    }

    /// Copies into the ring of sound.
    ///
    /// # Errors
    /// No ring, or not inside it.
    pub fn put(&self, offset: Octets, from: &[u8]) -> Result<(), PcmError> {
        let buffer = lock(&self.buffer);
        let buffer = buffer.as_ref().ok_or(PcmError::BadState)?;
        buffer.pages.pages().write(offset.0 as usize, from).map_err(|_| PcmError::Invalid)
    }

    /// Copies out of the ring of sound.
    ///
    /// # Errors
    /// No ring, or not inside it.
    pub fn get(&self, offset: Octets, out: &mut [u8]) -> Result<(), PcmError> {
        let buffer = lock(&self.buffer);
        let buffer = buffer.as_ref().ok_or(PcmError::BadState)?;
        buffer.pages.pages().read(offset.0 as usize, out).map_err(|_| PcmError::Invalid)
    }

    /// Revokes the grant of one page of the ring of sound under the backend's hands; whether it wasn't mapped.
    pub fn revoke(&self, page: usize) -> bool {
        lock(&self.buffer).as_ref().is_some_and(|buffer| buffer.pages.revoke(page))
    }
}

impl Channel {
    /// The interrupt handler: takes whatever lies in the ring; the answer to `id` if it is there.
    fn collect(&mut self, id: Option<u16>) -> Option<Response> {
        let mut found = None;
        loop {
            match self.ring.take_response() {
                Ok(Some(packet)) => match Response::parse(&packet) {
                    Ok(response) if Some(response.id) == id => found = Some(response),
                    Ok(_) => self.counts.ignored += 1,
                    Err(error) => self.harm.push(Harm::Ring(error.to_string())),
                },
                Ok(None) => return found,
                Err(error) => {
                    self.harm.push(Harm::Ring(error.to_string()));
                    return found;
                }
            }
        }
    }
}

impl Driver for GuestDriver {
    fn open(&self) {
        // While nobody had the stream open, the handler came and went without a look at the ring: what lies there stays
        // until the next notification, and the wish for that one may be behind.
        self.port.wait(Duration::ZERO);
    }

    fn request(&self, operation: &Operation) -> Result<Response, PcmError> {
        let mut channel = lock(&self.channel);
        if self.port.wait(Duration::ZERO) {
            // Answers that came too late, dropped by the interrupt handler when they came.
            channel.collect(None);
        }
        let id = channel.next_id;
        channel.next_id = id.wrapping_add(1);
        channel.counts.sent += 1;
        let began = Instant::now();
        let packet = Request { id, operation: *operation }.encode();
        match channel.ring.push(&packet) {
            Ok(true) => self.port.notify(),
            Ok(false) => (),
            Err(error) => {
                channel.harm.push(Harm::Ring(error.to_string()));
                return Err(PcmError::NoAnswer);
            }
        }
        // Answers are looked for only when notified, as by an interrupt handler.
        let answer = loop {
            let left = ANSWER_TIMEOUT.saturating_sub(began.elapsed());
            if left.is_zero() || !self.guest.is_alive() {
                break None;
            }
            if self.port.wait(left)
                && let Some(answer) = channel.collect(Some(id))
            {
                break Some(answer);
            }
        };
        let waited = Nanos(i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX));
        channel.counts.waited += waited;
        channel.counts.longest = channel.counts.longest.max(waited);
        match answer {
            Some(response) => {
                channel.counts.refused += u64::from(response.status.is_err());
                Ok(response)
            }
            None => {
                channel.counts.unanswered += 1;
                Err(PcmError::NoAnswer)
            }
        }
    }

    fn reset_ids(&self) {
        lock(&self.channel).next_id = 0;
    }

    fn allocate(&self, octets: Octets) -> Result<GrantRef, PcmError> {
        let count = (octets.0 as usize).div_ceil(PAGE);
        let share =
            |count| self.guest.share(count, self.backend, Access::ReadWrite).map_err(|_| PcmError::NoMemory);
        let pages = share(count)?;
        let directory = share(directory::directory_pages(count))?;
        let contents =
            directory::build(directory.references(), pages.references()).ok_or(PcmError::NoMemory)?;
        for (page, content) in contents.iter().enumerate() {
            directory.pages().write(page * PAGE, content).map_err(|_| PcmError::NoMemory)?;
        }
        let first = *directory.references().first().ok_or(PcmError::Invalid)?;
        *lock(&self.buffer) = Some(Buffer { pages, _directory: directory });
        Ok(first)
    }

    fn release(&self) {
        *lock(&self.buffer) = None;
    }
}

impl<D: Driver> Driver for Arc<D> {
    fn open(&self) {
        (**self).open();
    }

    fn request(&self, operation: &Operation) -> Result<Response, PcmError> {
        (**self).request(operation)
    }

    fn reset_ids(&self) {
        (**self).reset_ids();
    }

    fn allocate(&self, octets: Octets) -> Result<GrantRef, PcmError> {
        (**self).allocate(octets)
    }

    fn release(&self) {
        (**self).release();
    }
}
