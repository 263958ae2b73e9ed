//! The callback that PipeWire's data thread makes at every cycle.
//!
//! Nothing here allocates, locks, logs, calls the system, loops without bound or panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use pipewire::stream::{Stream, Time};

use super::buffer::Buffer;
use super::version;
use crate::convert::{Carrier, Converter};
use crate::handle::Lease;
use crate::units::{Frames, Nanos, monotonic_now};
use crate::{Direction, PcmRing, Timing};

/// A stream never has more buffers than this, so no callback can be asked to empty more.
const MOST_BUFFERS: usize = 64;
/// Cycles of silence after a stream began to run and before it consumes the ring: should its links come to life one by
/// one, a frame that is handed over meanwhile is heard by nobody.
const WARM_UP: u32 = 1;
/// Cycles until a resampler is full and what it takes or gives agrees with the driver's clock.
const SETTLED: u32 = 8;
/// The longest buffer whose format has to be converted: PipeWire's longest cycle at four times its rate.
const LONGEST: Frames = Frames(4 * 8192);

/// What the callback and the thread that owns the stream share.
#[derive(Default)]
pub(super) struct Shared {
    /// Counts the times that the stream stopped running.
    interruptions: AtomicU32,
    /// How long a frame handed over now takes until it is heard, including the rest of its cycle, in nanoseconds.
    tail: AtomicI64,
}

impl Shared {
    /// The stream doesn't run any more; what it is given next has to wait for its links again.
    pub(super) fn interrupt(&self) {
        self.interruptions.fetch_add(1, Ordering::Release);
        self.tail.store(0, Ordering::Relaxed);
    }

    /// How long it takes until everything is heard that was handed over so far.
    pub(super) fn tail(&self) -> Nanos {
        Nanos(self.tail.load(Ordering::Relaxed))
    }
}

/// The callback's own state.
pub(super) struct Process {
    ring: Arc<PcmRing>,
    /// Once it has ended the callback plays silence.
    lease: Arc<Lease>,
    shared: Arc<Shared>,
    clock: CycleClock,
    interruptions: u32,
    /// Cycles since the stream began to run, the present one included.
    cycles: u32,
    converter: Converter,
}

impl Process {
    pub(super) fn new(ring: Arc<PcmRing>, lease: Arc<Lease>, shared: Arc<Shared>, carrier: Carrier) -> Self {
        let interruptions = shared.interruptions.load(Ordering::Acquire);
        let clock = CycleClock::new(ring.direction(), ring.format().rate());
        let converter = Converter::new(ring.format(), carrier, LONGEST);
        Self { ring, lease, shared, clock, interruptions, cycles: 0, converter }
    }

    /// One call of the data thread.
    pub(super) fn run(&mut self, stream: &Stream) {
        let Ok(time) = stream.time() else { return };
        let begun = self.clock.begin(Report::from(&time));
        let interruptions = self.shared.interruptions.load(Ordering::Acquire);
        if interruptions != self.interruptions {
            self.interruptions = interruptions;
            self.cycles = 1;
        } else if let Begun::Cycle { missed } = begun {
            self.cycles = self.cycles.saturating_add(1);
            if missed && self.cycles > SETTLED && self.ring.cursor().running {
                self.ring.missed_cycle();
            }
        }
        let quiet = self.cycles <= WARM_UP || self.lease.has_ended() || self.is_over();
        match self.ring.direction() {
            Direction::Playback => self.play(stream, quiet),
            Direction::Capture => self.capture(stream, quiet),
        }
    }

    /// Whether the cycle belongs to a time that is over: a graph that stood still makes up for its cycles, while the clock that
    /// stood in for it has moved the ring on through just that time.
    fn is_over(&self) -> bool {
        self.ring.timing().is_some_and(|timing| Nanos(self.clock.report.now) < timing.at)
    }

    fn play(&mut self, stream: &Stream, quiet: bool) {
        let Some(buffer) = Buffer::dequeue(stream) else { return };
        let format = self.converter.format();
        let size = format.frame_octets();
        buffer.fill(size, |out| {
            let frames = Frames((out.len() / size as usize) as u64);
            if quiet {
                format.fill_silence(out);
                self.clock.moved(frames);
            } else {
                let first = self.converter.play(out, |out| self.ring.play(monotonic_now(), out));
                self.account(first, frames);
            }
        });
    }

    fn capture(&mut self, stream: &Stream, quiet: bool) {
        let size = self.converter.format().frame_octets();
        for _ in 0..MOST_BUFFERS {
            let Some(buffer) = Buffer::dequeue(stream) else { return };
            buffer.take(size, |input| {
                let frames = Frames((input.len() / size as usize) as u64);
                if quiet {
                    self.clock.moved(frames);
                } else {
                    let first = self.ring.capture(monotonic_now(), self.converter.captured(input));
                    self.account(first, frames);
                }
            });
        }
    }

    /// Counts the frames of one buffer and publishes what they say of the clock, if the ring took part.
    fn account(&mut self, first: Option<i64>, frames: Frames) {
        let timing = first.and_then(|first| self.clock.timing(first, frames));
        self.clock.moved(frames);
        self.shared.tail.store(self.clock.tail().0, Ordering::Relaxed);
        if let Some(timing) = timing {
            self.ring.publish(timing);
        }
    }
}

/// The part of `pw_time` that matters.
#[derive(Clone, Copy, Debug, Default)]
struct Report {
    /// When the graph's driver woke up for this cycle, in nanoseconds of CLOCK_MONOTONIC.
    now: i64,
    /// What waits in the stream or is held by the resampler, in frames.
    held: i64,
    /// The way to the device (playback) or from it (capture), in ticks.
    delay: i64,
    /// Seconds per tick, as a fraction.
    tick: (i64, i64),
    /// The driver's position at `now`, in ticks.
    ticks: u64,
}

impl From<&Time> for Report {
    fn from(time: &Time) -> Self {
        let raw = time.as_raw();
        let held = raw.queued.saturating_add(raw.buffered);
        Self {
            now: raw.now,
            // A count that doesn't fit, or a wrapped difference, is no count.
            held: i64::try_from(held).ok().filter(|held| *held < 1 << 32).unwrap_or(0),
            delay: raw.delay,
            tick: (i64::from(raw.rate.num), i64::from(raw.rate.denom)),
            ticks: raw.ticks,
        }
    }
}

/// What a call of the data thread is to its cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    /// The first of a cycle; `missed`: the driver's clock went further meanwhile than the cycle before lasted.
    Cycle {
        /// The graph ran without the node, or the node was too late for it.
        missed: bool,
    },
    /// Another one of the same cycle.
    Again,
}

/// Turns PipeWire's reports into positions of the ring.
///
/// The header of `pw_stream` says of `delay` that it is the time until the next output sample of the stream is
/// presented by the device, and captured at `now`, the wake-up of the driver. The first frame of a cycle is that next
/// sample, with the frames still queued or held by the resampler before it: it sounds at
/// `now + held/rate + delay * tick`. So at `now` the device presents the frame that lies as far before it.
///
/// For capture `delay` is the time that a sample travelled from the device. The first frame of the cycle was captured at
/// `now - held/rate - delay * tick`, so at `now` the device captures the frame that lies as far behind it.
///
/// PipeWire may call more than once in a cycle, when the resampler wants more; all frames of a cycle belong to the same
/// `now`, and only the report of its first call stands at its beginning.
struct CycleClock {
    direction: Direction,
    rate: i64,
    report: Report,
    /// Frames moved in this cycle before the present buffer.
    moved: i64,
    /// Frames moved in the cycle before.
    previous: i64,
    /// Whether the resampler counts what it holds in ticks and not in frames.
    held_in_ticks: bool,
}

/// The first version whose resampler counts in frames of the stream on the way from the graph, too.
const HELD_IN_FRAMES: (u32, u32, u32) = (1, 3, 82);

impl CycleClock {
    fn new(direction: Direction, rate: u32) -> Self {
        Self {
            direction,
            rate: i64::from(rate),
            report: Report::default(),
            moved: 0,
            previous: 0,
            held_in_ticks: direction == Direction::Capture && version::library() < HELD_IN_FRAMES,
        }
    }

    /// A call with this report.
    fn begin(&mut self, report: Report) -> Begun {
        if report.now == self.report.now {
            return Begun::Again;
        }
        let passed = report.ticks.wrapping_sub(self.report.ticks);
        let missed = self.report.now != 0 && !self.moved_about(passed);
        self.report = report;
        self.previous = self.moved;
        self.moved = 0;
        Begun::Cycle { missed }
    }

    /// Whether the frames of the present cycle are those of so many ticks, give or take what a resampler borrows.
    fn moved_about(&self, ticks: u64) -> bool {
        let frames = i64::try_from(ticks).ok().and_then(|ticks| self.frames(ticks));
        frames.is_some_and(|frames| (frames - self.moved).abs() <= self.moved / 2)
    }

    fn moved(&mut self, frames: Frames) {
        self.moved = self.moved.saturating_add(i64::try_from(frames.0).unwrap_or(0));
    }

    /// The way between stream and device in frames of the stream; `None` before the graph has told its rate.
    fn latency(&self) -> Option<i64> {
        let Report { held, delay, .. } = self.report;
        if self.held_in_ticks {
            self.frames(held.checked_add(delay)?)
        } else {
            self.frames(delay)?.checked_add(held)
        }
    }

    /// So many ticks in frames of the stream.
    fn frames(&self, ticks: i64) -> Option<i64> {
        let (num, denom) = self.report.tick;
        ticks.checked_mul(num)?.checked_mul(self.rate)?.checked_div(denom)
    }

    /// What a buffer of `frames` frames from position `first` says; `None` before the graph's clock is known.
    fn timing(&self, first: i64, frames: Frames) -> Option<Timing> {
        if self.report.now <= 0 {
            return None;
        }
        let cycle_began = first.checked_sub(self.moved)?;
        let given = u64::try_from(first.checked_add_unsigned(frames.0)?).ok().map(Frames)?;
        let heard = match self.direction {
            Direction::Playback => cycle_began.checked_sub(self.latency()?)?,
            Direction::Capture => cycle_began.checked_add(self.latency()?)?,
        };
        let cycle = u64::try_from(self.moved).unwrap_or(0) + frames.0;
        Some(Timing { at: Nanos(self.report.now), heard, given, cycle: Frames(cycle) })
    }

    /// How long from now until everything handed over has been heard, with a whole cycle to spare.
    fn tail(&self) -> Nanos {
        let cycle = self.moved.max(self.previous).max(0);
        let frames = self.latency().unwrap_or(0).max(0).saturating_add(cycle.saturating_mul(2));
        Frames(u64::try_from(frames).unwrap_or(0)).duration(u32::try_from(self.rate).unwrap_or(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STARTED: Report = Report { now: 5_000, held: 0, delay: 0, tick: (1, 48_000), ticks: 0 };

    fn clock(direction: Direction, rate: u32, report: Report) -> CycleClock {
        let mut clock = CycleClock::new(direction, rate);
        assert_eq!(clock.begin(report), Begun::Cycle { missed: false });
        clock
    }

    #[test]
    fn a_frame_handed_over_is_heard_after_delay_and_held_frames() {
        let report = Report { delay: 480, held: 32, ..STARTED };
        let clock = clock(Direction::Playback, 24_000, report);
        let timing = clock.timing(1000, Frames(256)).unwrap();
        assert_eq!(timing.heard, 1000 - 240 - 32, "480 ticks of 1/48000 s are 240 frames");
        assert_eq!((timing.at, timing.given, timing.cycle), (Nanos(5_000), Frames(1256), Frames(256)));
    }

    #[test]
    fn the_second_call_of_a_cycle_tells_the_same_of_its_beginning() {
        let mut clock = clock(Direction::Playback, 44_100, STARTED);
        let first = clock.timing(0, Frames(100)).unwrap();
        clock.moved(Frames(100));
        assert_eq!(clock.begin(Report { held: 7, ..STARTED }), Begun::Again);
        let second = clock.timing(100, Frames(50)).unwrap();
        assert_eq!((first.heard, second.heard), (0, 0));
        assert_eq!((second.given, second.cycle), (Frames(150), Frames(150)));
    }

    #[test]
    fn a_missed_cycle_shows_in_the_ticks() {
        let mut clock = clock(Direction::Playback, 44_100, STARTED);
        let mut cycle = |now, ticks, frames| {
            let begun = clock.begin(Report { now, ticks, ..STARTED });
            clock.moved(Frames(frames));
            begun == Begun::Cycle { missed: true }
        };
        assert!(!cycle(5_000, 0, 984), "the first cycle fills the resampler");
        assert!(!cycle(26_333, 1024, 941));
        assert!(!cycle(47_666, 2048, 235), "a shorter cycle");
        assert!(!cycle(52_999, 2304, 941));
        assert!(cycle(95_666, 4352, 941));
        assert!(!cycle(116_999, 5376, 941));
    }

    #[test]
    fn captured_frames_lie_behind_the_device() {
        let report = Report { delay: 256, ..STARTED };
        let clock = clock(Direction::Capture, 48_000, report);
        assert_eq!(clock.timing(512, Frames(256)).unwrap().heard, 768);
    }

    #[test]
    fn before_the_first_cycle_nothing_is_known() {
        let clock = clock(Direction::Playback, 48_000, Report { now: 1, ..Report::default() });
        assert_eq!(clock.timing(0, Frames(1)), None, "a rate of 0/0");
        let clock = CycleClock::new(Direction::Playback, 48_000);
        assert_eq!(clock.timing(0, Frames(1)), None);
    }

    #[test]
    fn the_tail_lasts_until_all_is_heard() {
        let mut clock = clock(Direction::Playback, 48_000, Report { delay: 4800, ..STARTED });
        clock.moved(Frames(240));
        assert_eq!(clock.tail(), Nanos::from_millis(110));
    }
}
