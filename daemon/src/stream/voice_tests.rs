//! A voice between a guest's driver and a server's cycles, in virtual time.

use super::*;
use crate::sndif::testing::shared_pages;
use crate::sndif::{EventPage, FrontEventPage};
use vsnd_pw_module::{Attachment, Direction, Marks, Pages, SampleFormat, StreamFormat, Timing};

const RATE: u32 = 48_000;

/// A guest's driver and a sound server whose every cycle is on time, in virtual time.
struct Bench {
    voice: Voice,
    ring: Arc<PcmRing>,
    node: Option<Attachment>,
    page: FrontEventPage,
    /// The event page, the buffer and the marks, for the next bridge.
    kept: [Pages; 3],
    opened_at: u32,
    now: Nanos,
    period: u64,
    /// The driver's own count towards the next period, and the periods that it took for elapsed.
    towards_period: u64,
    elapsed: u64,
    /// What ALSA makes of the driver's pointer, which is a place in the ring: it looks at it as a period elapses.
    seen: u64,
    last: u64,
    events: u64,
    /// When the pacer wants to be called, and when it was called last.
    due: Nanos,
    called: Nanos,
    /// When `last` was told.
    told_at: Nanos,
}

impl Bench {
    fn new(direction: Direction, period: u64, buffer: u64) -> Self {
        let [ours, theirs, again] = shared_pages();
        let page = FrontEventPage::init(theirs).unwrap();
        let writer = EventWriter::new(EventPage::attach(ours).unwrap());
        let format = StreamFormat::new(SampleFormat::S16Le, 2, RATE).unwrap();
        let pages = Pages::anonymous((buffer as usize * 4).next_multiple_of(4096)).unwrap();
        let marks = Pages::anonymous(4096).unwrap();
        let kept = [again, pages.share(), marks.share()];
        let marks = Marks::of(&marks, 0).unwrap();
        let ring = Arc::new(PcmRing::with_marks(direction, format, Frames(buffer), pages, marks));
        let mut voice = Voice::new(writer, signals(), Cadence::default());
        let opened_at = voice.open(Arc::clone(&ring), Frames(period), Nanos(0));
        let (now, node) = (Nanos(0), Some(ring.attach()));
        let (towards_period, elapsed, seen, last, events) = (0, 0, 0, 0, 0);
        let (due, called, told_at) = (now, now, now);
        Self {
            voice,
            ring,
            node,
            page,
            kept,
            opened_at,
            now,
            period,
            towards_period,
            elapsed,
            seen,
            last,
            events,
            due,
            called,
            told_at,
        }
    }

    /// The bridge is another from now on, which begins at `now`.
    fn take_over(&mut self, period: u64, now: Nanos) {
        let [events, pages, marks] = self.kept.each_ref().map(Pages::share);
        let ring = &self.ring;
        let marks = Marks::of(&marks, 0).unwrap();
        let ring = PcmRing::with_marks(ring.direction(), ring.format(), ring.buffer(), pages, marks);
        self.ring = Arc::new(ring);
        self.node = Some(self.ring.attach());
        self.voice =
            Voice::new(EventWriter::new(EventPage::attach(events).unwrap()), signals(), Cadence::default());
        self.voice.take_over(Arc::clone(&self.ring), Frames(period), true, self.opened_at, now);
        (self.now, self.due, self.called) = (now, now, now);
    }

    fn take_events(&mut self) {
        while let Some(event) = self.page.take().unwrap() {
            let position = event.position.0 / 4;
            assert!(position >= self.last, "the position went back");
            assert!(position <= self.ring.cursor().position.0, "ahead of what the server was given");
            self.towards_period += position - self.last;
            self.last = position;
            self.told_at = self.called;
            self.events += 1;
            if self.towards_period > self.period {
                self.towards_period %= self.period;
                self.elapsed += 1;
                let buffer = self.ring.buffer().0;
                self.seen += (position + buffer - self.seen % buffer) % buffer;
            }
        }
        self.page.confirm().unwrap();
    }

    /// Runs cycles of `quantum` frames, the pacer called whenever it asked to be.
    fn run(&mut self, cycles: u64, quantum: u64) {
        let mut buffer = vec![0; quantum as usize * 4];
        self.due = self.now;
        for _ in 0..cycles {
            let first = match self.ring.direction() {
                Direction::Playback => self.ring.play(self.now, &mut buffer),
                Direction::Capture => self.ring.capture(self.now, &buffer),
            };
            let heard = first.unwrap();
            let given = self.ring.cursor().position;
            self.ring.publish(Timing { at: self.now, heard, given, cycle: Frames(quantum) });
            let next_cycle = self.now + Frames(quantum).duration(RATE);
            self.pace(next_cycle);
        }
    }

    /// Calls the pacer's thread as it asked for until `until`.
    fn pace(&mut self, until: Nanos) {
        while self.due < until {
            self.called = self.due;
            let next = self.voice.step(self.due).unwrap();
            assert!(next > self.due);
            self.due = next;
            self.take_events();
        }
        self.now = until;
    }
}

fn signals() -> Signals {
    Signals { positions: Box::new(|| ()), answer: Box::new(|| ()) }
}

#[test]
fn every_period_elapses_once_whatever_the_cycle() {
    for direction in [Direction::Playback, Direction::Capture] {
        for (period, buffer) in [(240, 2_400), (480, 4_800), (1_024, 4_096), (1_200, 9_600), (6_000, 24_000)]
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
fn positions_that_come_late_add_up_to_what_the_guest_can_see() {
    for (period, buffer) in [(240, 2_400), (1_024, 4_096), (1_200, 9_600), (6_000, 24_000), (480, 960)] {
        let mut bench = Bench::new(Direction::Playback, period, buffer);
        bench.voice.start(Nanos(0));
        bench.run(20, 256);
        // The pacer is held up for three rings and a half.
        let mut cycle = vec![0; 256 * 4];
        for _ in 0..buffer * 7 / 2 / 256 {
            let heard = bench.ring.play(bench.now, &mut cycle).unwrap();
            let given = bench.ring.cursor().position;
            bench.ring.publish(Timing { at: bench.now, heard, given, cycle: Frames(256) });
            bench.now += Frames(256).duration(RATE);
        }
        bench.run(20, 256);
        let missing = bench.ring.cursor().position.0 - bench.seen;
        assert!(missing <= 2 * period + 512, "{period}/{buffer}: {missing} frames were not seen");
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
    let ring = bench.voice.close();
    assert!(ring.is_some_and(|ring| Arc::ptr_eq(&ring, &bench.ring)));
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
    assert!(bench.voice.holds_answer(), "no cycle yet");
    bench.now = Nanos::from_millis(401);
    bench.run(2, 256);
    assert!(!bench.voice.holds_answer());
    bench.voice.stop(false);
    bench.voice.start(bench.now);
    assert!(!bench.voice.holds_answer(), "its node is called all the time");
    bench.voice.stop(false);
    let later = bench.now + Nanos::from_millis(5_000);
    bench.voice.start(later);
    assert!(bench.voice.holds_answer());
    bench.voice.step(later + Nanos::from_millis(1_600)).unwrap();
    assert!(!bench.voice.holds_answer(), "the clock took over");
}

#[test]
fn a_frontend_that_asks_for_no_events_gets_none() {
    let mut bench = Bench::new(Direction::Playback, 480, 4_800);
    bench.voice.open(Arc::clone(&bench.ring), Frames(0), Nanos(0));
    bench.voice.start(Nanos(0));
    bench.run(20, 256);
    assert_eq!(bench.events, 0);
}

#[test]
fn a_write_without_events_is_answered_when_there_is_room_for_another() {
    let mut bench = Bench::new(Direction::Playback, 480, 4_800);
    bench.voice.open(Arc::clone(&bench.ring), Frames(0), Nanos(0));
    for period in 0..10 {
        bench.voice.wrote(Frames(period * 480), Frames(480), bench.now);
        assert!(!bench.voice.holds_answer(), "a stream at rest takes all that it has room for");
    }
    bench.voice.start(bench.now);
    bench.run(2, 240);
    assert_eq!(bench.ring.cursor().position, Frames(16 + 240));
    bench.voice.wrote(Frames(0), Frames(240), bench.now);
    assert!(bench.voice.holds_answer(), "another 240 would overwrite what is not played yet");
    bench.run(1, 240);
    assert!(bench.voice.holds_answer() || bench.ring.cursor().position >= Frames(480));
    bench.run(1, 240);
    assert!(!bench.voice.holds_answer());
    assert_eq!(bench.ring.starved(), Frames(0));
    // Even if nothing moves any more: the guest gives up after 3 s.
    bench.voice.wrote(Frames(240), Frames(4_800), bench.now);
    assert!(bench.voice.holds_answer());
    bench.voice.step(bench.now + LONGEST_WAIT);
    assert!(!bench.voice.holds_answer());
}

#[test]
fn a_read_without_events_is_answered_when_its_frames_are_there() {
    let mut bench = Bench::new(Direction::Capture, 480, 4_800);
    bench.voice.open(Arc::clone(&bench.ring), Frames(0), Nanos(0));
    bench.voice.start(bench.now);
    bench.run(1, 240);
    for end in [480, 960, 1_440] {
        assert_eq!(bench.voice.read(Frames(end - 480), Frames(480), bench.now), Ok(()));
        let mut cycles = 0;
        while bench.voice.holds_answer() {
            bench.run(1, 240);
            cycles += 1;
        }
        assert!((1..=3).contains(&cycles), "{cycles}");
        assert!((end..end + 480).contains(&bench.ring.cursor().position.0));
    }
    bench.run(40, 240);
    assert_eq!(bench.voice.read(Frames(1_440), Frames(480), bench.now), Ok(()));
    assert!(!bench.voice.holds_answer(), "it came late, and the frames are there");
    let second = Frames(48_000);
    bench.voice.open(Arc::clone(&bench.ring), Frames(0), Nanos(0));
    bench.voice.start(bench.now);
    assert_eq!(bench.voice.read(Frames(0), Frames(3 * second.0), bench.now), Err(TooLong));
}

#[test]
fn a_guest_that_fetches_too_late_is_an_overrun() {
    const QUANTUM: u64 = 480;
    let mut bench = Bench::new(Direction::Capture, 480, 4_800);
    let overruns = bench.voice.gauges();
    bench.voice.start(bench.now);
    bench.run(9, QUANTUM);
    for read in 0..8 {
        bench.voice.read(Frames(read * QUANTUM), Frames(QUANTUM), bench.now).unwrap();
    }
    bench.run(9, QUANTUM);
    bench.voice.read(Frames(8 * QUANTUM), Frames(QUANTUM), bench.now).unwrap();
    assert_eq!(overruns.overruns(), 0, "less than a ring behind");
    bench.run(12, QUANTUM);
    bench.voice.read(Frames(9 * QUANTUM), Frames(QUANTUM), bench.now).unwrap();
    assert_eq!(overruns.overruns(), 1, "the frames were recorded over");
    bench.voice.read(Frames(0), Frames(QUANTUM), bench.now).unwrap();
    assert_eq!(overruns.overruns(), 1, "it goes on behind them");
    // One that stops, as an application is made to, when the ring is full.
    bench.run(12, QUANTUM);
    bench.voice.stop(false);
    assert_eq!(overruns.overruns(), 2);
}

#[test]
fn without_a_node_the_position_follows_the_clock() {
    let mut bench = Bench::new(Direction::Playback, 480, 4_800);
    bench.node = None;
    bench.voice.open(Arc::clone(&bench.ring), Frames(480), Nanos(0));
    bench.voice.start(Nanos(0));
    let mut due = Nanos(0);
    while due < Nanos::from_millis(1_000) {
        due = bench.voice.step(due).unwrap();
        bench.take_events();
    }
    assert_eq!(bench.elapsed, 99, "the hundredth ends a frame after the second");
    assert!(bench.last.abs_diff(48_000) <= 480);
}

#[test]
fn a_guest_that_has_more_looked_at_than_it_may_is_looked_at_at_its_bounds_pace() {
    use crate::config::{GuestLimits, TotalLimits};
    use crate::guest::Total;
    let events_per_second = std::num::NonZeroU32::new(50).unwrap();
    let limits = GuestLimits { events_per_second, ..GuestLimits::DEFAULT };
    let account = Account::new("work", limits, &Total::new(TotalLimits::default()));
    // Two streams with 2 ms periods on the clock: a thousand looks a second are due.
    let [mut one, mut other] = [(); 2].map(|()| {
        let Bench { mut voice, ring, .. } = Bench::new(Direction::Playback, 96, 4_800);
        voice = voice.of(Arc::clone(&account));
        voice.open(ring, Frames(96), Nanos(0));
        voice.start(Nanos(0));
        (voice, Nanos(0), 0)
    });
    for now in (0..2_000).map(Nanos::from_millis) {
        for (voice, due, looks) in [&mut one, &mut other] {
            if now >= *due {
                *due = voice.step(now).unwrap();
                *looks += 1;
            }
        }
    }
    let looks = [one.2, other.2];
    // One second's worth at once, and two seconds' at its pace.
    assert!((140..=152).contains(&(looks[0] + looks[1])), "{looks:?}");
    assert!(looks.iter().all(|looks| *looks > 50), "neither starves: {looks:?}");
}

/// A host that was suspended: CLOCK_MONOTONIC stood still, or the machine had no time for us; either way no cycle came, and
/// then they come again.
#[test]
fn a_jump_of_time_is_over_with_the_next_cycle() {
    for direction in [Direction::Playback, Direction::Capture] {
        let mut bench = Bench::new(direction, 480, 4_800);
        bench.voice.start(Nanos(0));
        bench.run(100, 256);
        for jump in [Nanos::from_millis(50), Nanos::from_millis(3_000), Nanos::from_millis(3_600_000)] {
            let before = bench.last;
            bench.now += jump;
            // The pacer is first.
            bench.voice.step(bench.now);
            bench.take_events();
            assert!(
                bench.last - before < 4_800,
                "{direction:?}: nothing is skipped: {before}, {}",
                bench.last
            );
            let (elapsed, resumed) = (bench.elapsed, bench.last);
            bench.run(188, 256);
            let told = bench.last - resumed;
            assert!(told.abs_diff(188 * 256) < 1_024, "{direction:?}: {told} frames told in a second");
            assert!(bench.elapsed - elapsed >= 98, "{direction:?}: {} periods", bench.elapsed - elapsed);
        }
    }
}

#[test]
fn a_stream_that_is_taken_over_stands_still_until_its_node_comes() {
    for direction in [Direction::Playback, Direction::Capture] {
        let mut bench = Bench::new(direction, 480, 4_800);
        bench.voice.start(Nanos(0));
        bench.run(20, 256);
        let (position, elapsed, begins) =
            (bench.ring.cursor().position, bench.elapsed, bench.now + Nanos::from_millis(20));
        bench.take_over(480, begins);
        for millis in 0..50 {
            bench.voice.step(begins + Nanos::from_millis(millis)).unwrap();
        }
        assert_eq!(bench.ring.cursor().position, position, "{direction:?}");
        bench.now = begins + Nanos::from_millis(50);
        // Positions that go back, or are of frames that nobody has, are seen by the bench.
        bench.run(100, 256);
        let passed = (bench.ring.cursor().position - position).0 / 480;
        let told = bench.elapsed - elapsed;
        assert!(told + 2 >= passed && told <= passed + 1, "{direction:?}: {told} of {passed} periods");
    }
}

#[test]
fn a_longer_latency_under_the_next_bridge_takes_no_position_back() {
    let mut bench = Bench::new(Direction::Playback, 480, 9_600);
    bench.voice.start(Nanos(0));
    bench.run(20, 256);
    let (told, begins) = (bench.last, bench.now);
    bench.take_over(480, begins);
    let first = bench.ring.play(begins, &mut [0; 1_024 * 4]).unwrap();
    let given = bench.ring.cursor().position;
    bench.ring.publish(Timing { at: begins, heard: first - 2_000, given, cycle: Frames(1_024) });
    for millis in 1..60 {
        bench.voice.step(begins + Nanos::from_millis(millis)).unwrap();
        bench.take_events();
    }
    assert!(bench.last > told);
}

#[test]
fn a_stream_whose_node_does_not_come_is_moved_on_before_the_guest_loses_patience() {
    for (buffer, patience) in [(2_400, 100), (48_000, 1_100)] {
        let mut bench = Bench::new(Direction::Playback, 480, buffer);
        bench.voice.start(Nanos(0));
        bench.run(20, 256);
        let (position, died) = (bench.ring.cursor().position, bench.ring.last_cycle());
        bench.take_over(480, died + Nanos::from_millis(10));
        let moved = |bench: &mut Bench, millis| {
            bench.voice.step(died + Nanos::from_millis(millis)).unwrap();
            bench.ring.cursor().position > position
        };
        assert!(!moved(&mut bench, patience * 3 / 4 - 1), "{buffer}");
        moved(&mut bench, patience * 3 / 4);
        assert!(moved(&mut bench, patience * 3 / 4 + 11), "{buffer}");
        bench.take_events();
    }
}

#[test]
fn a_start_that_nobody_answered_settles_under_the_next_bridge() {
    let mut bench = Bench::new(Direction::Playback, 480, 4_800);
    bench.voice.start(Nanos(0));
    // The node of the bridge that died was called; that of the next is not yet.
    bench.run(1, 256);
    bench.take_over(480, bench.now);
    bench.voice.start(bench.now);
    assert!(bench.voice.holds_answer());
    bench.run(1, 256);
    assert!(!bench.voice.holds_answer());
}

#[test]
fn a_frontend_without_events_reads_on_where_it_was() {
    // How far it was behind the microphone, and whether its next 480 frames are there.
    for (behind, held) in [(4_799, false), (480, false), (479, true), (0, true)] {
        let mut bench = Bench::new(Direction::Capture, 480, 4_800);
        bench.voice.open(Arc::clone(&bench.ring), Frames(0), Nanos(0));
        bench.voice.start(bench.now);
        bench.run(60, 240);
        let offset = (bench.ring.cursor().position.0 - behind) % 4_800;
        bench.take_over(0, bench.now);
        assert_eq!(bench.voice.read(Frames(offset), Frames(480), bench.now), Ok(()));
        assert_eq!(bench.voice.holds_answer(), held, "{behind}");
        bench.run(3, 240);
        assert!(!bench.voice.holds_answer(), "{behind}");
    }
}

#[test]
fn a_pause_lasts_over_another_one_and_ends_with_a_stop() {
    let mut bench = Bench::new(Direction::Playback, 480, 4_800);
    bench.voice.start(Nanos(0));
    bench.run(10, 256);
    bench.voice.stop(true);
    bench.voice.stop(true);
    assert!(bench.voice.resume(bench.now));
    bench.voice.stop(true);
    bench.voice.stop(false);
    assert!(!bench.voice.resume(bench.now), "it plays on");
    assert!(!bench.voice.is_running());
}

#[path = "weather_tests.rs"]
mod weather;
