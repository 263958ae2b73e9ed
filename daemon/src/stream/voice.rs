//! An open stream's part that runs by itself: its ring, its position, and the events that tell the guest.

use std::sync::Arc;

use vsnd_pw_module::{Frames, Nanos, NullClock, PcmRing, Stopped};

use super::clock::PositionClock;
use super::events::EventWriter;

/// How often a guest is told at most, however short its periods: a limit on its own interrupts and on our wake-ups.
const CLOSEST_EVENTS: Nanos = Nanos(500_000);
/// Between two events of one long period: a guest's pointer is only as fresh as the last event.
const FRESH_POINTER: Nanos = Nanos::from_millis(10);
/// A node that was called so lately will be called again: a START need not wait for it.
const CALLED_LATELY: Nanos = Nanos::from_millis(100);
/// How soon to look again when a position did not come when it was expected, or when the page is full.
const RETRY: Nanos = Nanos(1_000_000);

/// An OPEN stream's ring and position. Shared by the request thread, which starts and stops it, and the pacer.
pub struct Voice {
    events: EventWriter,
    signals: Signals,
    open: Option<Open>,
}

/// Whom a voice calls, from the pacer's thread.
pub struct Signals {
    /// The guest, when there are new positions in its event page.
    pub positions: Box<dyn Fn() + Send>,
    /// The request thread, when a started converter has begun to run.
    pub settled: Box<dyn Fn() + Send>,
}

struct Open {
    ring: Arc<PcmRing>,
    clock: PositionClock,
    null: NullClock,
    has_node: bool,
    /// Started at this instant, and not yet called by the node since.
    settling: Option<Nanos>,
    /// Zero: the guest asked for no events.
    period: Frames,
    /// The position that the guest was last told.
    told: Frames,
    paused: Option<Stopped>,
}

impl Voice {
    /// A closed stream's voice, which tells the guest by `events` and `signals`.
    pub fn new(events: EventWriter, signals: Signals) -> Self {
        Self { events, signals, open: None }
    }

    /// OPEN: `ring` at rest at position 0. Without a node the null clock drives it.
    pub fn open(&mut self, ring: Arc<PcmRing>, period: Frames, has_node: bool, now: Nanos) {
        self.events.opened();
        let clock = PositionClock::new(ring.direction(), ring.format().rate(), ring.buffer(), period);
        let null = NullClock::new(now, has_node);
        self.open =
            Some(Open { ring, clock, null, has_node, settling: None, period, told: Frames(0), paused: None });
    }

    /// CLOSE: the ring's memory is unmapped when this returns.
    pub fn close(&mut self) {
        self.events.closed();
        if let Some(open) = self.open.take() {
            open.ring.close();
        }
    }

    /// START. Repeats the stop's position, in case the guest has not seen it: to one who has it is a step of 0.
    pub fn start(&mut self, now: Nanos) {
        let Some(open) = &mut self.open else { return };
        if open.ring.cursor().running {
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
            return;
        }
        let stopped = open.ring.stop();
        open.paused = may_resume.then_some(stopped);
        open.settling = None;
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

    /// Whether it was started and its node was not called since.
    pub fn is_settling(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.settling.is_some())
    }

    /// WRITE: the guest has put `length` frames at ring offset `offset`.
    pub fn wrote(&mut self, offset: Frames, length: Frames) {
        if let Some(open) = &self.open {
            // A frontend that asked for no events reckons by the answers to its requests: it knows what was consumed.
            let known = if open.period > Frames(0) { open.told } else { open.ring.cursor().position };
            open.ring.wrote(offset, length, known);
        }
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

    /// Tells the guest what is due at `now`. Returns when to be called next; `None` once the stream is at rest.
    pub fn step(&mut self, now: Nanos) -> Option<Nanos> {
        let open = self.open.as_mut()?;
        if !open.ring.cursor().running {
            return None;
        }
        let null_drives = open.null.drive(&open.ring, now);
        if open.settling.is_some_and(|started| null_drives || open.ring.last_cycle() >= started) {
            open.settling = None;
            (self.signals.settled)();
        }
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
            (self.signals.positions)();
        }
    }
}

impl Open {
    /// A run begins at `now`.
    fn begin(&mut self, now: Nanos) {
        self.null = NullClock::new(now, self.has_node);
        let is_called = self.ring.last_cycle() > now - CALLED_LATELY;
        self.settling = (self.has_node && !is_called).then_some(now);
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sndif::testing::shared_pages;
    use crate::sndif::{EventPage, FrontEventPage};
    use vsnd_pw_module::{Direction, Pages, SampleFormat, StreamFormat, Timing};

    const RATE: u32 = 48_000;

    /// A guest's driver and a sound server whose every cycle is on time, in virtual time.
    struct Bench {
        voice: Voice,
        ring: Arc<PcmRing>,
        page: FrontEventPage,
        now: Nanos,
        period: u64,
        /// The driver's own count towards the next period, and the periods that it took for elapsed.
        towards_period: u64,
        elapsed: u64,
        last: u64,
        events: u64,
    }

    impl Bench {
        fn new(direction: Direction, period: u64, buffer: u64) -> Self {
            let [ours, theirs] = shared_pages();
            let page = FrontEventPage::init(theirs).unwrap();
            let writer = EventWriter::new(EventPage::attach(ours).unwrap());
            let format = StreamFormat::new(SampleFormat::S16Le, 2, RATE).unwrap();
            let pages = Pages::anonymous((buffer as usize * 4).next_multiple_of(4096)).unwrap();
            let ring = Arc::new(PcmRing::new(direction, format, Frames(buffer), pages));
            let signals = Signals { positions: Box::new(|| ()), settled: Box::new(|| ()) };
            let mut voice = Voice::new(writer, signals);
            voice.open(Arc::clone(&ring), Frames(period), true, Nanos(0));
            let now = Nanos(0);
            Self { voice, ring, page, now, period, towards_period: 0, elapsed: 0, last: 0, events: 0 }
        }

        fn take_events(&mut self) {
            while let Some(event) = self.page.take().unwrap() {
                let position = event.position.0 / 4;
                assert!(position >= self.last, "the position went back");
                assert!(position <= self.ring.cursor().position.0, "ahead of what the server was given");
                self.towards_period += position - self.last;
                self.last = position;
                self.events += 1;
                if self.towards_period > self.period {
                    self.towards_period %= self.period;
                    self.elapsed += 1;
                }
            }
            self.page.confirm().unwrap();
        }

        /// Runs cycles of `quantum` frames, the pacer called whenever it asked to be.
        fn run(&mut self, cycles: u64, quantum: u64) {
            let mut buffer = vec![0; quantum as usize * 4];
            let mut due = self.now;
            for _ in 0..cycles {
                let first = match self.ring.direction() {
                    Direction::Playback => self.ring.play(self.now, &mut buffer),
                    Direction::Capture => self.ring.capture(self.now, &buffer),
                };
                let heard = first.unwrap();
                let given = self.ring.cursor().position;
                self.ring.publish(Timing { at: self.now, heard, given, cycle: Frames(quantum) });
                let next_cycle = self.now + Frames(quantum).duration(RATE);
                while due < next_cycle {
                    let next = self.voice.step(due).unwrap();
                    assert!(next > due);
                    due = next;
                    self.take_events();
                }
                self.now = next_cycle;
            }
        }
    }

    #[test]
    fn every_period_elapses_once_whatever_the_cycle() {
        for direction in [Direction::Playback, Direction::Capture] {
            for (period, buffer) in
                [(240, 2_400), (480, 4_800), (1_024, 4_096), (1_200, 9_600), (6_000, 24_000)]
            {
                for quantum in [64, 128, 256, 1_024] {
                    let mut bench = Bench::new(direction, period, buffer);
                    bench.voice.start(Nanos(0));
                    let cycles = 48_000 / quantum;
                    bench.run(cycles, quantum);
                    let periods = bench.ring.cursor().position.0 / period;
                    // Captured frames come a whole cycle at a time, which may end several periods at once.
                    let steps = if direction == Direction::Capture { periods.min(cycles) } else { periods };
                    let told = bench.elapsed;
                    let what = format!("{direction:?} {period}/{buffer} at {quantum}: {told} of {steps}");
                    assert!(told + 2 >= steps && told <= periods, "{what}");
                    assert!(bench.events <= 48_000 / period + 110, "{} events in a second", bench.events);
                }
            }
        }
    }

    #[test]
    fn a_stop_reports_a_whole_buffer_and_a_start_repeats_it() {
        let mut bench = Bench::new(Direction::Playback, 480, 3_000);
        bench.voice.start(Nanos(0));
        bench.run(10, 256);
        bench.voice.stop(false);
        bench.take_events();
        assert_eq!(bench.last, 3_000);
        assert_eq!(bench.voice.step(bench.now), None, "at rest");
        let before = bench.events;
        bench.voice.start(bench.now);
        bench.take_events();
        assert_eq!((bench.last, bench.events), (3_000, before + 1));
        bench.run(6, 256);
        assert!(bench.last > 3_000 + 480);
    }

    #[test]
    fn nothing_is_told_before_start_nor_after_close() {
        let mut bench = Bench::new(Direction::Playback, 480, 4_800);
        assert_eq!(bench.voice.step(Nanos(1)), None);
        bench.voice.stop(false);
        bench.take_events();
        assert_eq!(bench.events, 0);
        bench.voice.start(Nanos(0));
        bench.run(10, 256);
        bench.voice.close();
        let before = bench.events;
        assert_eq!(bench.voice.step(bench.now), None);
        bench.take_events();
        assert_eq!(bench.events, before);
    }

    #[test]
    fn a_start_settles_with_the_first_cycle_or_with_the_clock() {
        let mut bench = Bench::new(Direction::Playback, 480, 4_800);
        bench.voice.start(Nanos(0));
        bench.voice.step(Nanos::from_millis(400)).unwrap();
        assert!(bench.voice.is_settling(), "no cycle yet");
        bench.now = Nanos::from_millis(401);
        bench.run(2, 256);
        assert!(!bench.voice.is_settling());
        bench.voice.stop(false);
        bench.voice.start(bench.now);
        assert!(!bench.voice.is_settling(), "its node is called all the time");
        bench.voice.stop(false);
        let later = bench.now + Nanos::from_millis(5_000);
        bench.voice.start(later);
        assert!(bench.voice.is_settling());
        bench.voice.step(later + Nanos::from_millis(1_600)).unwrap();
        assert!(!bench.voice.is_settling(), "the clock took over");
    }

    #[test]
    fn a_frontend_that_asks_for_no_events_gets_none() {
        let mut bench = Bench::new(Direction::Playback, 480, 4_800);
        bench.voice.open(Arc::clone(&bench.ring), Frames(0), true, Nanos(0));
        bench.voice.start(Nanos(0));
        bench.run(20, 256);
        assert_eq!(bench.events, 0);
    }

    #[test]
    fn without_a_node_the_position_follows_the_clock() {
        let mut bench = Bench::new(Direction::Playback, 480, 4_800);
        bench.voice.open(Arc::clone(&bench.ring), Frames(480), false, Nanos(0));
        bench.voice.start(Nanos(0));
        let mut due = Nanos(0);
        while due < Nanos::from_millis(1_000) {
            due = bench.voice.step(due).unwrap();
            bench.take_events();
        }
        assert_eq!(bench.elapsed, 99, "the hundredth ends a frame after the second");
        assert!(bench.last.abs_diff(48_000) <= 480);
    }
}
