//! An open stream's part that runs by itself: its ring, its position, and the events that tell the guest.

use std::sync::Arc;

use vsnd_pw_module::{Frames, Nanos, NullClock, PcmRing, Stopped, monotonic_now};

use super::clock::PositionClock;
use super::events::EventWriter;

/// How often a guest is told at most, however short its periods: a limit on its own interrupts and on our wake-ups.
const CLOSEST_EVENTS: Nanos = Nanos(500_000);
/// Between two events of one long period: a guest's pointer is only as fresh as the last event.
const FRESH_POINTER: Nanos = Nanos::from_millis(10);
/// How soon to look again when a position did not come when it was expected, or when the page is full.
const RETRY: Nanos = Nanos(1_000_000);

/// An OPEN stream's ring and position. Shared by the request thread, which starts and stops it, and the pacer.
pub struct Voice {
    events: EventWriter,
    notify: Box<dyn Fn() + Send>,
    open: Option<Open>,
}

struct Open {
    ring: Arc<PcmRing>,
    clock: PositionClock,
    null: NullClock,
    has_node: bool,
    /// Zero: the guest asked for no events.
    period: Frames,
    /// The position that the guest was last told.
    told: Frames,
    paused: Option<Stopped>,
}

impl Voice {
    /// A closed stream's voice, which tells the guest by `events` and `notify`.
    pub fn new(events: EventWriter, notify: Box<dyn Fn() + Send>) -> Self {
        Self { events, notify, open: None }
    }

    /// OPEN: `ring` at rest at position 0. Without a node the null clock drives it.
    pub fn open(&mut self, ring: Arc<PcmRing>, period: Frames, has_node: bool) {
        self.events.opened();
        let clock = PositionClock::new(ring.direction(), ring.format().rate(), ring.buffer(), period);
        let null = NullClock::new(monotonic_now(), has_node);
        self.open = Some(Open { ring, clock, null, has_node, period, told: Frames(0), paused: None });
    }

    /// CLOSE: the ring's memory is unmapped when this returns.
    pub fn close(&mut self) {
        self.events.closed();
        if let Some(open) = self.open.take() {
            open.ring.close();
        }
    }

    /// START. Repeats the stop's position, in case the guest has not seen it: to one who has it is a step of 0.
    pub fn start(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.ring.cursor().running {
            return;
        }
        open.null = NullClock::new(monotonic_now(), open.has_node);
        open.paused = None;
        let rest = open.rest();
        if rest > Frames(0) {
            self.tell(rest);
        }
        if let Some(open) = &self.open {
            open.ring.start();
        }
    }

    /// STOP, and PAUSE. The driver does not zero its own pointer when ALSA prepares the stream anew, so it is moved to a
    /// whole buffer, which is the same.
    pub fn stop(&mut self, may_resume: bool) {
        let Some(open) = &mut self.open else { return };
        if !open.ring.cursor().running {
            return;
        }
        let stopped = open.ring.stop();
        open.paused = may_resume.then_some(stopped);
        let rest = open.rest();
        self.tell(rest);
    }

    /// RESUME after a PAUSE. Returns whether there was one.
    pub fn resume(&mut self) -> bool {
        let Some(open) = &mut self.open else { return false };
        let Some(paused) = open.paused.take() else { return false };
        open.null = NullClock::new(monotonic_now(), open.has_node);
        open.ring.resume(paused);
        true
    }

    /// WRITE: the guest has put `length` frames at ring offset `offset`.
    pub fn wrote(&mut self, offset: Frames, length: Frames) {
        if let Some(open) = &self.open {
            open.ring.wrote(offset, length, open.told);
        }
    }

    /// The open ring.
    pub fn ring(&self) -> Option<&Arc<PcmRing>> {
        self.open.as_ref().map(|open| &open.ring)
    }

    /// The guest took events: room for what waits.
    pub fn flush(&mut self) {
        if self.events.flush() {
            (self.notify)();
        }
    }

    /// Tells the guest what is due at `now`. Returns when to be called next; `None` once the stream is at rest.
    pub fn step(&mut self, now: Nanos) -> Option<Nanos> {
        let open = self.open.as_mut()?;
        if !open.ring.cursor().running {
            return None;
        }
        let null_drives = open.null.drive(&open.ring, now);
        let timing = open.ring.timing();
        let position = open.clock.position(open.ring.cursor(), timing, now);
        let rate = open.ring.format().rate();
        if open.period == Frames(0) {
            return Some(now + FRESH_POINTER);
        }
        if position >= open.next_event(rate) {
            self.tell(position);
        }
        let open = self.open.as_mut()?;
        let target = open.next_event(rate);
        let due = if null_drives {
            now + (target - position).duration(rate)
        } else {
            open.clock.when(target, timing, now)
        };
        let soonest = now + if self.events.is_waiting() { RETRY } else { CLOSEST_EVENTS };
        // A late cycle, or a node that fell silent, is noticed by looking again.
        Some(if due <= now { now + RETRY } else { due.clamp(soonest, now + FRESH_POINTER.max(RETRY)) })
    }

    fn tell(&mut self, position: Frames) {
        let Some(open) = &mut self.open else { return };
        open.told = position;
        if open.period > Frames(0) && self.events.send(open.ring.format().octets(position)) {
            (self.notify)();
        }
    }
}

impl Open {
    /// The position of a ring at rest: a whole number of buffers.
    fn rest(&mut self) -> Frames {
        self.clock.position(self.ring.cursor(), None, Nanos(0))
    }

    /// The position that the guest is to be told next: just past the end of a period, because the driver takes a period
    /// for elapsed only when the position is beyond its end; or sooner, to keep its pointer fresh.
    fn next_event(&self, rate: u32) -> Frames {
        let periods_done = self.told.0.saturating_sub(1) / self.period.0;
        let boundary = Frames((periods_done + 1) * self.period.0 + 1);
        boundary.min(self.told + FRESH_POINTER.frames(rate).max(Frames(1)))
    }
}
