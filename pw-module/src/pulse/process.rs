//! What one turn of the loop does with a stream's frames: between the ring and the server's memory, and into timing.
//!
//! Nothing here allocates, locks, logs, calls the system, loops without bound or panics.

use std::sync::Arc;

use super::timing::Line;
use crate::convert::{Carrier, Converter};
use crate::handle::Lease;
use crate::units::{Frames, Nanos};
use crate::{Direction, PcmRing, Timing};

/// Blocks of silence after which a server that still doesn't tell that it plays gets the ring's frames all the same.
const LONGEST_PRELUDE: u32 = 16;

/// The frames that are moved at a time at most; formats are converted in memory for as many.
const LONGEST: Frames = Frames(8192);

/// What the server told of a playback or capture stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// When, on CLOCK_MONOTONIC.
    pub(super) at: Nanos,
    /// Octets that went into the server's queue since the stream was made.
    pub(super) write_index: i64,
    /// Octets that left it.
    pub(super) read_index: i64,
    /// How long a frame takes from the queue to the loudspeaker (playback), or from the microphone to the queue
    /// (capture; negative where the source is a sink's monitor, which is ahead of the loudspeaker), in microseconds.
    pub(super) latency: i64,
    /// Whether the server had frames when it needed them last (playback).
    pub(super) playing: bool,
}

/// What one report said by itself.
#[derive(Clone, Copy, Debug)]
struct Told {
    at: Nanos,
    /// The stream position that was heard then (playback).
    position: i64,
}

/// A stream's account of its frames. Stream positions count from the stream's creation; those of the ring differ from
/// them by what the ring did before and between.
pub(super) struct Process {
    ring: Arc<PcmRing>,
    /// Once it has ended the stream plays silence.
    lease: Arc<Lease>,
    /// Frames that were moved, silence included.
    moved: i64,
    /// The ring's position less the stream's, while the ring takes part.
    offset: Option<i64>,
    /// The ring's position after the newest block.
    given: Frames,
    /// The length of the newest block.
    cycle: Frames,
    /// The stream position behind the last frame that came from the ring.
    sounded: i64,
    /// Blocks of silence that the server was given before it told that it plays; `None` from then on. What it is given before may
    /// wait for long: a START is answered, and a guest awaits its first period, when the ring's first frames are taken.
    prelude: Option<u32>,
    /// The stream position where the server ran out of frames last: it stood still there until it was given more.
    ran_dry_at: i64,
    line: Line,
    /// The newest report.
    told: Option<Told>,
    converter: Converter,
}

impl Process {
    pub(super) fn new(ring: Arc<PcmRing>, lease: Arc<Lease>, carrier: Carrier) -> Self {
        let line = Line::new(ring.format().rate());
        let converter = Converter::new(ring.format(), carrier, LONGEST);
        Self {
            ring,
            lease,
            moved: 0,
            offset: None,
            given: Frames(0),
            cycle: Frames(0),
            sounded: 0,
            prelude: Some(0),
            ran_dry_at: 0,
            line,
            told: None,
            converter,
        }
    }

    pub(super) fn direction(&self) -> Direction {
        self.ring.direction()
    }

    /// Octets of a frame as the server has it.
    pub(super) fn frame(&self) -> usize {
        self.converter.format().frame_octets() as usize
    }

    /// Octets, whole frames of the server's, that may be moved at a time.
    pub(super) fn longest(&self) -> usize {
        LONGEST.0 as usize * self.frame()
    }

    /// Fills `out`, whole frames, with what is played next.
    pub(super) fn play(&mut self, now: Nanos, out: &mut [u8]) {
        self.prelude = self.prelude.map(|blocks| blocks + 1).filter(|blocks| *blocks <= LONGEST_PRELUDE);
        let first = if self.prelude.is_some() || self.lease.has_ended() {
            self.converter.format().fill_silence(out);
            None
        } else {
            self.converter.play(out, |out| self.ring.play(now, out))
        };
        self.account(first, out.len());
    }

    /// Puts `input`, whole frames, into the ring.
    pub(super) fn capture(&mut self, now: Nanos, input: &[u8]) {
        let first = match self.lease.has_ended() {
            true => None,
            false => self.ring.capture(now, self.converter.captured(input)),
        };
        self.line.came(now, self.moved.saturating_add(self.frames(input.len())));
        self.account(first, input.len());
    }

    /// Puts as many frames of silence into the ring as `room`, whole frames, has room for.
    pub(super) fn capture_silence(&mut self, now: Nanos, room: &mut [u8]) {
        self.converter.format().fill_silence(room);
        self.capture(now, room);
    }

    /// `octets` were recorded too long ago to be put into the ring.
    pub(super) fn capture_late(&mut self, octets: usize) {
        self.moved = self.moved.saturating_add(self.frames(octets));
    }

    /// The machine was too slow for the server: a hole in the recording.
    pub(super) fn missed(&mut self) {
        if self.offset.is_some() && self.ring.cursor().running {
            self.ring.missed_cycle();
        }
    }

    /// The server ran out of frames when it had read `octets` of them, and waits for more.
    pub(super) fn ran_dry(&mut self, octets: u64) {
        self.ran_dry_at = i64::try_from(octets).unwrap_or(0) / self.frame() as i64;
        // Behind the last frame so far the silence is only heard if the ring goes on.
        if self.ran_dry_at < self.sounded || (self.offset.is_some() && self.ring.cursor().running) {
            self.ring.missed_cycle();
        }
        self.line.reset();
    }

    fn frames(&self, octets: usize) -> i64 {
        i64::try_from(octets / self.frame()).unwrap_or(0)
    }

    /// Counts a block, of which the ring's part begins at position `first`, and publishes what it says.
    fn account(&mut self, first: Option<i64>, octets: usize) {
        let frames = self.frames(octets);
        self.offset = first.map(|first| first.saturating_sub(self.moved));
        self.moved = self.moved.saturating_add(frames);
        let Some(first) = first else { return };
        self.given = Frames(u64::try_from(first.saturating_add(frames)).unwrap_or(0));
        self.cycle = Frames(frames.unsigned_abs());
        self.sounded = self.moved;
        self.publish();
    }

    /// Takes in what the server told, before anything is moved after it.
    pub(super) fn report(&mut self, report: Report) {
        let size = self.frame() as i64;
        let latency = Nanos(report.latency.saturating_mul(1_000));
        // Times are added to times: in frames a latency would be cut to whole ones, and of several reports the one that was
        // cut most would be believed.
        match self.direction() {
            Direction::Playback => {
                let read = report.read_index / size;
                // It stood still, or is about to.
                if !report.playing || read <= self.ran_dry_at {
                    return;
                }
                self.prelude = None;
                self.line.report(report.at + latency, read);
                let left = latency.frames(self.ring.format().rate());
                self.told = Some(Told { at: report.at, position: read.saturating_sub_unsigned(left.0) });
            }
            // Counted from what was taken over here, because frames that the server lost are in its indices only.
            Direction::Capture => {
                let waiting = report.write_index.saturating_sub(report.read_index) / size;
                self.line.report(report.at - latency, self.moved.saturating_add(waiting));
            }
        }
        // Between a block and the report after it the ring may have been stopped, or taken over.
        let cursor = self.ring.cursor();
        if self.offset.is_some() && cursor.running && cursor.position == self.given {
            self.publish();
        }
    }

    fn publish(&self) {
        // Playback: what is heard is known best at the newest report. Capture: a snapshot belongs to the beginning of its
        // cycle, when the block came, and one that came late tells nothing of the distance to the microphone.
        let at = match self.direction() {
            Direction::Playback => self.told.map(|told| told.at),
            Direction::Capture => self.line.soonest(self.moved),
        };
        let (Some(offset), Some(at)) = (self.offset, at) else { return };
        let Some((position, at)) = self.line.reached(at) else { return };
        let heard = position.saturating_add(offset);
        self.ring.publish(Timing { at, heard, given: self.given, cycle: self.cycle });
    }

    /// The stream stood still, or is to: earlier reports say nothing of what comes.
    pub(super) fn interrupt(&mut self) {
        self.line.reset();
        self.told = None;
        self.offset = None;
    }

    /// Frames to spare behind the last one, for what devices and graphs hold without a word.
    fn margin(&self) -> Frames {
        self.cycle + self.cycle
    }

    /// How long from `now` until everything from the ring has been heard.
    pub(super) fn tail(&self, now: Nanos) -> Nanos {
        let margin = self.margin().duration(self.ring.format().rate());
        let end = self.line.when(self.sounded).unwrap_or(now) + margin;
        if self.direction() == Direction::Capture { Nanos(0) } else { (end - now).max(Nanos(0)) }
    }

    /// Whether the server told that everything from the ring has been heard.
    pub(super) fn all_heard(&self) -> bool {
        if self.direction() == Direction::Capture || self.sounded == 0 {
            return true;
        }
        self.told.is_some_and(|told| told.position >= self.sounded.saturating_add_unsigned(self.margin().0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pulse::format::carrier;
    use crate::{Octets, Pages, SampleFormat, StreamFormat};
    use proptest::prelude::*;

    fn process(direction: Direction) -> (Process, Arc<PcmRing>) {
        process_at(direction, 48_000)
    }

    fn process_at(direction: Direction, rate: u32) -> (Process, Arc<PcmRing>) {
        let format = StreamFormat::new(SampleFormat::S16Le, 2, rate).unwrap();
        let pages = Pages::anonymous(9600 * 4).unwrap();
        let ring = Arc::new(PcmRing::new(direction, format, Frames(9600), pages));
        let mut process = Process::new(Arc::clone(&ring), Arc::default(), carrier(format).unwrap());
        process.prelude = None;
        (process, ring)
    }

    fn played(process: &mut Process, frames: usize) {
        process.play(Nanos(1), &mut vec![1; frames * 4]);
    }

    fn report(at: i64, write_index: i64, read_index: i64, latency: i64) -> Report {
        Report {
            at: Nanos::from_millis(at),
            write_index: write_index * 4,
            read_index: read_index * 4,
            latency,
            playing: true,
        }
    }

    #[test]
    fn what_was_played_before_the_start_is_not_of_the_ring() {
        let (mut process, ring) = process(Direction::Playback);
        played(&mut process, 1_000);
        process.report(report(10, 1_000, 500, 0));
        assert_eq!(ring.timing(), None);
        assert!(process.all_heard());
        ring.start();
        // The first block moves 16 frames: ring position 0 is stream position 1464.
        played(&mut process, 480);
        process.report(report(20, 1_480, 980, 1_000));
        let timing = ring.timing().unwrap();
        assert_eq!(
            (timing.at, timing.given, timing.cycle),
            (Nanos::from_millis(20), Frames(16), Frames(480))
        );
        assert_eq!(timing.heard, 980 - 48 - 1_464 + 48, "the report before was the better one");
        assert!(!process.all_heard());
    }

    #[test]
    fn captured_frames_lie_between_the_microphone_and_the_ring() {
        let (mut process, ring) = process(Direction::Capture);
        ring.start();
        process.capture(Nanos::from_millis(10), &[0; 4 * 16]);
        process.report(report(10, 120, 100, 2_000));
        let timing = ring.timing().unwrap();
        assert_eq!((timing.heard, timing.given), (8 + 20 + 96, Frames(8)));
        assert_eq!(process.tail(Nanos(0)), Nanos(0));
    }

    #[test]
    fn a_block_that_comes_late_does_not_change_the_distance_to_the_microphone() {
        let (mut process, ring) = process(Direction::Capture);
        ring.start();
        let mut distance = Vec::new();
        for (block, late) in (1i64..).zip([1, 0, 2, 30, 0, 9, 0]) {
            process.capture(Nanos::from_millis(10 * block + late), &[0; 4 * 480]);
            // Sooner or later after it; what the server says of its microphone is true when it says so.
            let told = 10 * block + late + block % 3;
            process.report(report(told, 480 * block + 48 * (late + block % 3), 480 * block, 5_000));
            let timing = ring.timing().unwrap();
            distance.push(timing.given.0 as i64 - timing.heard);
        }
        assert_eq!(distance[1..], [-240; 6]);
    }

    fn distance(ring: &PcmRing) -> i64 {
        let timing = ring.timing().unwrap();
        timing.given.0 as i64 - timing.heard
    }

    #[test]
    fn blocks_that_come_late_together_do_not_change_the_distance_to_the_microphone() {
        let (mut process, ring) = process(Direction::Capture);
        ring.start();
        for block in 1..10 {
            process.capture(Nanos::from_millis(10 * block), &[0; 4 * 480]);
            process.report(report(10 * block, 480 * block, 480 * block, 5_000));
        }
        assert_eq!(distance(&ring), -240);
        // More than the window holds reports, after the machine was away.
        for _ in 10..30 {
            process.capture(Nanos::from_millis(296), &[0; 4 * 480]);
            assert_eq!(distance(&ring), -240);
        }
        process.report(report(296, 480 * 29 + 288, 480 * 29, 5_000));
        assert_eq!(distance(&ring), -240);
    }

    #[test]
    fn a_move_does_not_change_the_distance_to_the_microphone() {
        let (mut process, ring) = process(Direction::Capture);
        ring.start();
        for block in 1..50 {
            // The other microphone is the same number of frames away, and its first block comes later than one of the old.
            let at = 10 * block + if block > 7 { 6 } else { 0 };
            // Blocks lie across two pieces of the server's memory now and then.
            for piece in [160, 320] {
                process.capture(Nanos::from_millis(at), &vec![0; 4 * piece]);
            }
            process.report(report(at, 480 * block, 480 * block, 5_000));
            assert_eq!(distance(&ring), -240, "block {block}");
        }
    }

    proptest! {
        /// Stamps and latencies come in whole microseconds. What is published is as exact, and nothing of it is cut to frames.
        #[test]
        fn what_is_published_is_as_exact_as_the_reports(
            is_capture: bool, rate in prop::sample::select(vec![44_100u32, 48_000, 96_000]),
            asked in prop::collection::vec(10i64..9_000, 1..40),
        ) {
            let direction = if is_capture { Direction::Capture } else { Direction::Playback };
            let (mut process, ring) = process_at(direction, rate);
            ring.start();
            let block = i64::from(rate) / 100;
            for (number, asked) in (1i64..).zip(asked) {
                // Each block is at the device 10 ms after the server rendered it, and came here at once.
                let began = 10_000 * number;
                if is_capture {
                    process.capture(Nanos(1_000 * began), &vec![0; 4 * block as usize]);
                } else {
                    played(&mut process, block as usize);
                }
                let latency = if is_capture { asked - 10_000 } else { 10_000 - asked };
                let at = Nanos(1_000 * (began + asked));
                let index = 4 * block * number;
                let indices = Report { write_index: index, read_index: index, ..report(0, 0, 0, 0) };
                process.report(Report { at, latency, ..indices });
                let timing = ring.timing().unwrap();
                let truth = (timing.at.0 - 10_000_000) as f64 * f64::from(rate) / 1e9;
                // Of the first block the ring has the last 16 frames.
                let error = (timing.heard + block - 16) as f64 - truth;
                prop_assert!(error.abs() < 0.01, "{} frames off", error);
            }
        }
    }

    #[test]
    fn a_stop_between_block_and_report_publishes_nothing() {
        let (mut process, ring) = process(Direction::Playback);
        ring.write(Octets(0), &[1; 64]).unwrap();
        ring.start();
        played(&mut process, 480);
        ring.stop();
        process.report(report(10, 480, 100, 0));
        assert_eq!(ring.timing(), None);
    }

    #[test]
    fn a_stream_is_heard_when_the_server_says_so() {
        let (mut process, ring) = process(Direction::Playback);
        ring.start();
        played(&mut process, 480);
        ring.stop();
        played(&mut process, 2_000);
        process.report(report(10, 2_480, 400, 0));
        assert!(!process.all_heard());
        let tail = process.tail(Nanos::from_millis(10));
        assert!(
            tail > Nanos::from_millis(21) && tail < Nanos::from_millis(22),
            "80 frames and two cycles: {tail}"
        );
        process.report(report(100, 2_480, 1_439, 0));
        assert!(!process.all_heard(), "not yet two cycles");
        process.report(report(110, 2_480, 1_440, 0));
        assert!(process.all_heard());
    }

    #[test]
    fn a_server_gets_silence_until_it_plays() {
        let (mut process, ring) = process(Direction::Playback);
        process.prelude = Some(0);
        ring.start();
        played(&mut process, 4_800);
        process.report(Report { playing: false, ..report(10, 4_800, 0, 0) });
        played(&mut process, 480);
        assert_eq!(ring.cursor().position, Frames(0));
        process.report(report(20, 5_280, 480, 0));
        played(&mut process, 480);
        assert_eq!(ring.cursor().position, Frames(16));
    }

    #[test]
    fn a_server_that_never_tells_that_it_plays_gets_the_ring_in_the_end() {
        let (mut process, ring) = process(Direction::Playback);
        process.prelude = Some(0);
        ring.start();
        for _ in 0..LONGEST_PRELUDE {
            played(&mut process, 480);
        }
        assert_eq!(ring.cursor().position, Frames(0));
        played(&mut process, 480);
        assert_eq!(ring.cursor().position, Frames(16));
    }

    /// It stands still until it is filled up, so nothing that it is given is lost, and nothing that it told before says
    /// where it is.
    #[test]
    fn a_server_that_ran_dry_goes_on_where_it_stopped() {
        let (mut process, ring) = process(Direction::Playback);
        process.ran_dry(0);
        assert_eq!(ring.missed_cycles(), 0, "a beginning");
        ring.start();
        played(&mut process, 480);
        process.report(report(10, 480, 240, 0));
        process.ran_dry(480 * 4);
        assert_eq!(ring.missed_cycles(), 1);
        process.report(report(15, 480, 480, 0));
        process.report(Report { playing: false, ..report(40, 480, 480, 0) });
        played(&mut process, 480);
        assert_eq!(ring.cursor().position, Frames(496), "given at once");
        process.report(report(60, 960, 720, 0));
        let timing = ring.timing().unwrap();
        assert_eq!((timing.at, timing.heard), (Nanos::from_millis(60), 496 - 240));
        ring.stop();
        process.ran_dry(4 * 950);
        assert_eq!(ring.missed_cycles(), 2, "told after the stop");
        played(&mut process, 480);
        process.ran_dry(4 * process.moved as u64);
        assert_eq!(ring.missed_cycles(), 2, "behind the sound");
    }

    #[test]
    fn a_released_stream_leaves_the_ring_alone() {
        let (mut process, ring) = process(Direction::Playback);
        ring.start();
        process.lease.end();
        let mut out = [1; 64];
        process.play(Nanos(1), &mut out);
        assert_eq!((out, ring.cursor().position), ([0; 64], Frames(0)));
    }
}
