//! Position events that every Linux frontend accepts.
//!
//! Kernels until 2026 number events on for the life of the channel, one number per consumed slot, match or not; later
//! ones start at 0 with every OPEN. A frontend doesn't say which it is, and ignores events with any other number. Up to
//! the second OPEN both agree. From then on each position is put in twice, in neighbouring slots: first under the
//! channel's number, then under the OPEN's. Each kernel takes the one that it expects and skips the other.

use vsnd_pw_module::Octets;

use crate::sndif::{Event, EventPage};

/// Writes positions into a stream's event page. Numbers are given at the moment of writing, so none is ever lost.
#[derive(Debug)]
pub struct EventWriter {
    page: EventPage,
    /// Slots filled since the last OPEN; the channel's own count is the page's.
    since_open: u32,
    /// The newest position that found no room.
    pending: Option<Octets>,
}

impl EventWriter {
    /// A writer that goes on where the page stands (an untouched page: at 0).
    pub fn new(page: EventPage) -> Self {
        Self { page, since_open: 0, pending: None }
    }

    /// OPEN: positions count from 0 again, and what waited is of the past.
    pub fn opened(&mut self) {
        self.since_open = 0;
        self.pending = None;
    }

    /// CLOSE: nothing may follow, as old kernels would take a left-over position for one of the next OPEN.
    pub fn closed(&mut self) {
        self.pending = None;
    }

    /// Puts `position` in, or keeps it until there is room, in place of an older one that waits. Returns whether the guest
    /// is to be notified.
    pub fn send(&mut self, position: Octets) -> bool {
        self.pending = Some(position);
        self.flush()
    }

    /// Puts in what waits, if there is room now. Returns whether the guest is to be notified.
    pub fn flush(&mut self) -> bool {
        let Some(position) = self.pending else { return false };
        let numbered_alike = self.page.produced() as u16 == self.since_open as u16;
        if self.page.free() < if numbered_alike { 1 } else { 2 } {
            return false;
        }
        self.pending = None;
        self.put(self.page.produced() as u16, position);
        if !numbered_alike {
            self.put(self.since_open as u16, position);
        }
        true
    }

    /// Whether a position waits for room.
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    fn put(&mut self, id: u16, position: Octets) {
        // Room was checked, and only this writer fills slots.
        if self.page.push(&Event { id, position }) {
            self.since_open = self.since_open.wrapping_add(1);
        }
    }
}
