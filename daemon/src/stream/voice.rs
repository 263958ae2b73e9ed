//! An open stream's part that runs by itself: its ring, its position, and the events that tell the guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use vsnd_pw_module::{Direction, Frames, Nanos, NullClock, PcmRing, Stopped};

use super::clock::PositionClock;
use super::events::EventWriter;
use super::pacer::Cadence;
use crate::guest::Account;

/// A node that was called so lately will be called again: a START need not wait for it.
const CALLED_LATELY: Nanos = Nanos::from_millis(100);
/// How soon to look again when a position did not come when it was expected, or when the page is full.
const RETRY: Nanos = Nanos(1_000_000);
/// How long after its time a server's cycle has usually moved the ring.
const CYCLE_LATENESS: Nanos = Nanos(300_000);
/// How long ALSA waits for a period at least, whatever the ring, before a write or read fails: the greater of 100 ms and 1.1
/// times the ring.
const GUESTS_PATIENCE: Nanos = Nanos::from_millis(100);
/// The longest that an answer is held back: a guest gives up after 3 s.
pub(super) const LONGEST_WAIT: Nanos = Nanos::from_millis(2_500);

/// An OPEN stream's ring and position. Shared by the request thread, which starts and stops it, and the pacer.
pub struct Voice {
    events: EventWriter,
    signals: Signals,
    cadence: Cadence,
    /// Who is charged for it, if anyone.
    account: Option<Arc<Account>>,
    open: Option<Open>,
}

/// Whom a voice calls, from the pacer's thread.
pub struct Signals {
    /// The guest, when there are new positions in its event page.
    pub positions: Box<dyn Fn() + Send>,
    /// The request thread, when an answer need not be held back any more.
    pub answer: Box<dyn Fn() + Send>,
}

/// What the guest's last request has to wait for before it is answered.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// The first cycle of a converter that was started at this instant.
    Cycle(Nanos),
    /// A guest without events reckons by its answers: until the converter has come to this position, at the latest at this
    /// instant.
    Position(Frames, Nanos),
}

/// What others may read of an open stream at any time, without the voice's lock: whoever tells guests their positions waits for
/// nobody.
#[derive(Debug, Default)]
pub struct Gauges {
    ahead: AtomicI64,
    overruns: AtomicU64,
}

impl Gauges {
    /// Frames by which the position that the guest is told is ahead of the sound, in this run: see
    /// [`PositionClock::offset`].
    pub fn ahead(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// How often the guest came so late that frames it had not read were recorded over.
    pub fn overruns(&self) -> u64 {
        self.overruns.load(Ordering::Relaxed)
    }
}

struct Open {
    ring: Arc<PcmRing>,
    gauges: Arc<Gauges>,
    /// When it was opened or taken over.
    since: Nanos,
    clock: PositionClock,
    null: NullClock,
    awaited: Option<Awaited>,
    /// Zero: the guest asked for no events.
    period: Frames,
    /// The position up to which the guest has read (capture).
    read: Frames,
    paused: Option<Stopped>,
}

/// A READ of more than can be captured before the guest gives up waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than can be captured in {} ms", LONGEST_WAIT.0 / 1_000_000)]
pub struct TooLong;

impl Voice {
    /// A closed stream's voice, which tells the guest by `events` and `signals`, so often.
    pub fn new(events: EventWriter, signals: Signals, cadence: Cadence) -> Self {
        Self { events, signals, cadence, account: None, open: None }
    }

    /// The same, at the guest's charge.
    #[must_use]
    pub fn of(self, account: Arc<Account>) -> Self {
        Self { account: Some(account), ..self }
    }

    /// OPEN: `ring` at rest at position 0. As long as no node is attached to it the null clock drives it. Returns what
    /// [`take_over`](Self::take_over) asks for.
    pub fn open(&mut self, ring: Arc<PcmRing>, period: Frames, now: Nanos) -> u32 {
        let clock = PositionClock::new(ring.direction(), ring.format().rate(), ring.buffer(), period);
        let stride = ring.format().octets(stride(ring.buffer(), period));
        self.open = Some(Open {
            ring,
            gauges: Arc::default(),
            since: now,
            clock,
            null: NullClock::default(),
            awaited: None,
            period,
            read: Frames(0),
            paused: None,
        });
        self.events.opened(stride)
    }

    /// Goes on at `now` with a stream that a bridge before had open since its channel's count of events was at `opened_at`;
    /// `ring` stands where that one left it.
    ///
    /// The position has stood still since its last cycle, so that nothing is skipped that the guest has written, and no ring
    /// ran empty or over. A node goes on from there; the clock does, if none comes within three quarters of the guest's
    /// patience.
    pub fn take_over(
        &mut self,
        ring: Arc<PcmRing>,
        period: Frames,
        has_node: bool,
        opened_at: u32,
        now: Nanos,
    ) {
        self.open(Arc::clone(&ring), period, now);
        self.events.take_over(opened_at, ring.format().octets(ring.told()));
        let Some(open) = &mut self.open else { return };
        let lasts = ring.buffer().duration(ring.format().rate());
        let patience = Nanos(lasts.0 / 10 * 11).max(GUESTS_PATIENCE);
        let until = Nanos(ring.last_cycle().0.saturating_add(patience.0 / 4 * 3));
        open.null.go_on(now, if has_node { until.max(now) - now } else { Nanos(0) });
        // Up to where it has read is not known, but that it is less than a ring behind.
        open.read = Frames((ring.cursor().position.0 + 1).saturating_sub(ring.buffer().0));
    }

    /// Whether the converter runs.
    pub fn is_running(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.ring.cursor().running)
    }

    /// CLOSE. The ring's memory is still mapped: to unmap a guest's pages takes so long that it is no work for who holds the
    /// voice.
    #[must_use = "the memory is the guest's again only when the ring is closed"]
    pub fn close(&mut self) -> Option<Arc<PcmRing>> {
        self.events.closed();
        self.open.take().map(|open| open.ring)
    }

    /// START. Repeats the stop's position, in case the guest has not seen it: to one who has it is a step of 0.
    pub fn start(&mut self, now: Nanos) {
        let Some(open) = &mut self.open else { return };
        if open.ring.cursor().running {
            // One that a bridge before took and did not live to answer.
            open.wait_for_cycle(open.null.waits_for_node(&open.ring), now);
            return;
        }
        open.begin(now);
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
            if !may_resume {
                open.paused = None;
            }
            return;
        }
        open.note_unread();
        let stopped = open.ring.stop();
        open.paused = may_resume.then_some(stopped);
        open.awaited = None;
        let rest = open.rest();
        self.tell(rest);
    }

    /// RESUME after a PAUSE. Returns whether there was one.
    pub fn resume(&mut self, now: Nanos) -> bool {
        let Some(open) = &mut self.open else { return false };
        let Some(paused) = open.paused.take() else { return false };
        open.begin(now);
        open.ring.resume(paused);
        true
    }

    /// Whether the answer to the last request has to wait.
    pub fn holds_answer(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.awaited.is_some())
    }

    /// What others may read of the open stream; of a closed one nothing.
    pub fn gauges(&self) -> Arc<Gauges> {
        self.open.as_ref().map(|open| Arc::clone(&open.gauges)).unwrap_or_default()
    }

    /// WRITE: the guest has put `length` frames at ring offset `offset`. One without events is answered when there is room
    /// for another such WRITE.
    pub fn wrote(&mut self, offset: Frames, length: Frames, now: Nanos) {
        let Some(open) = &mut self.open else { return };
        if open.period > Frames(0) {
            open.ring.wrote(offset, length, open.ring.told());
            return;
        }
        // It knows what was consumed: its requests are answered by that.
        open.ring.wrote(offset, length, open.ring.cursor().position);
        let end = open.ring.written() + length;
        open.wait_for(Frames(end.0.saturating_sub(open.ring.buffer().0)), now);
    }

    /// READ: the guest wants the `length` frames at ring offset `offset`. One without events is answered when they are there.
    ///
    /// # Errors
    /// [`TooLong`]: they can't come before the guest gives up.
    pub fn read(&mut self, offset: Frames, length: Frames, now: Nanos) -> Result<(), TooLong> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if !open.ring.cursor().running {
            return Ok(());
        }
        let (ring, position) = (open.ring.buffer().0, open.ring.cursor().position.0);
        let skipped = (offset.0 + ring - open.read.0 % ring) % ring;
        let mut end = open.read.0 + skipped + length.0;
        if open.period > Frames(0) && end > position {
            // It knows what was captured, and reads again what it has read before.
            end = end.saturating_sub(ring);
        }
        if Frames(end.saturating_sub(position)).duration(open.ring.format().rate()) > LONGEST_WAIT {
            return Err(TooLong);
        }
        if position > end.saturating_sub(length.0) + ring {
            open.gauges.overruns.fetch_add(1, Ordering::Relaxed);
        }
        // A guest that was away for longer than the ring has lost what it did not read.
        open.read = Frames(end + position.saturating_sub(end) / ring * ring);
        if open.period == Frames(0) {
            open.wait_for(open.read, now);
        }
        Ok(())
    }

    /// The open ring.
    pub fn ring(&self) -> Option<&Arc<PcmRing>> {
        self.open.as_ref().map(|open| &open.ring)
    }

    /// The guest took events: room for what waits.
    pub fn flush(&mut self) {
        if self.events.flush() {
            (self.signals.positions)();
        }
    }

    /// Tells the guest what is due at `now`. Returns when to be called next, which is later for a guest that has more looked
    /// at than it may; `None` once the stream is at rest.
    pub fn step(&mut self, now: Nanos) -> Option<Nanos> {
        let due = self.tell_due(now)?;
        let Some(account) = &self.account else { return Some(due) };
        let Some(delay) = account.events.take(now, 1) else { return Some(due) };
        if delay.is_news {
            // The request thread writes the log.
            account.note();
            (self.signals.answer)();
        }
        Some(due.max(delay.until))
    }

    fn tell_due(&mut self, now: Nanos) -> Option<Nanos> {
        let open = self.open.as_mut()?;
        if !open.ring.cursor().running {
            return None;
        }
        let null_drives = open.null.drive(&open.ring, now);
        if open.awaited.is_some_and(|awaited| open.has_come(awaited, null_drives, now)) {
            open.awaited = None;
            (self.signals.answer)();
        }
        let timing = open.ring.timing();
        let position = open.clock.position(open.ring.cursor(), timing, now);
        open.gauges.ahead.store(open.clock.offset(), Ordering::Relaxed);
        let rate = open.ring.format().rate();
        if open.period == Frames(0) {
            let due = open.when_answered(null_drives, now).unwrap_or(now + self.cadence.fresh);
            return Some(due.clamp(now + self.cadence.closest, now + self.cadence.fresh.max(RETRY)));
        }
        let fresh = self.cadence.fresh.frames(rate);
        if position >= open.next_event(fresh) {
            self.tell(position);
        }
        let open = self.open.as_mut()?;
        let target = open.next_event(fresh);
        let due = if null_drives {
            now + (target - position).duration(rate)
        } else {
            open.clock.when(target, timing, now)
        };
        let soonest = now + if self.events.is_waiting() { RETRY } else { self.cadence.closest };
        // A late cycle, or a node that fell silent, is noticed by looking again.
        Some(if due <= now { now + RETRY } else { due.clamp(soonest, now + self.cadence.fresh.max(RETRY)) })
    }

    fn tell(&mut self, position: Frames) {
        let Some(open) = &mut self.open else { return };
        // First, so that a bridge that takes over never goes back behind what the guest was told.
        open.ring.tell(position);
        if open.period == Frames(0) {
            return;
        }
        let octets = open.ring.format().octets(position);
        let is_news =
            if open.ring.cursor().running { self.events.send(octets) } else { self.events.rest(octets) };
        if is_news {
            (self.signals.positions)();
        }
    }
}

impl Open {
    /// A run begins at `now`.
    fn begin(&mut self, now: Nanos) {
        let waits = self.null.start(&self.ring, now);
        self.wait_for_cycle(waits, now);
        self.read = self.ring.cursor().position;
    }

    /// The answer to START waits until the converter runs, if a node is waited for.
    fn wait_for_cycle(&mut self, waits: bool, now: Nanos) {
        let is_called = self.ring.last_cycle() > self.since.max(now - CALLED_LATELY);
        self.awaited = (waits && !is_called).then_some(Awaited::Cycle(now));
    }

    /// The answer to the present request waits until the converter has come to `position`.
    fn wait_for(&mut self, position: Frames, now: Nanos) {
        let cursor = self.ring.cursor();
        if cursor.running && cursor.position < position && self.awaited.is_none() {
            self.awaited = Some(Awaited::Position(position, now + LONGEST_WAIT));
        }
    }

    fn has_come(&self, awaited: Awaited, null_drives: bool, now: Nanos) -> bool {
        match awaited {
            Awaited::Cycle(started) => null_drives || self.ring.last_cycle() >= started,
            Awaited::Position(position, until) => self.ring.cursor().position >= position || now >= until,
        }
    }

    /// When the position that an answer waits for is expected: with a server's cycle, as it moves the ring by whole ones.
    fn when_answered(&self, null_drives: bool, now: Nanos) -> Option<Nanos> {
        let Some(Awaited::Position(position, _)) = self.awaited else { return None };
        let rate = self.ring.format().rate();
        let missing = Frames(position.0.saturating_sub(self.ring.cursor().position.0));
        let timing = self.ring.timing().filter(|timing| !null_drives && timing.cycle > Frames(0));
        let Some(timing) = timing else { return Some(now + missing.duration(rate)) };
        let cycles = missing.0.div_ceil(timing.cycle.0).max(1);
        let due = timing.at + Frames(cycles * timing.cycle.0).duration(rate) + CYCLE_LATENESS;
        Some(due)
    }

    /// A guest with events that is told of a whole ring of frames which it has not read stops: it, too, calls that an overrun.
    fn note_unread(&self) {
        let unread = self.ring.told().0.saturating_sub(self.read.0);
        if self.ring.direction() == Direction::Capture
            && self.period > Frames(0)
            && unread >= self.ring.buffer().0
        {
            self.gauges.overruns.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The position of a ring at rest: a whole number of buffers.
    fn rest(&mut self) -> Frames {
        self.clock.position(self.ring.cursor(), None, Nanos(0))
    }

    /// The position that the guest is to be told next: just past the end of a period, because the driver takes a period
    /// for elapsed only when the position is beyond its end; or sooner, to keep its pointer fresh.
    fn next_event(&self, fresh: Frames) -> Frames {
        let told = self.ring.told();
        let periods_done = told.0.saturating_sub(1) / self.period.0;
        let boundary = Frames((periods_done + 1) * self.period.0 + 1);
        boundary.min(told + fresh.max(Frames(1)))
    }
}

/// How far positions may be from each other that a guest is told one after the other. It has ALSA look at its pointer when more
/// than a period has come together: from one look to the next less than the ring.
fn stride(buffer: Frames, period: Frames) -> Frames {
    Frames(buffer.0.saturating_sub(period.0 + 1).max(period.0 / 2).max(1))
}

#[cfg(test)]
#[path = "voice_tests.rs"]
mod tests;
