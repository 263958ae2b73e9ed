//! Frontends that ask for no events: nothing but the answers to their requests paces them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vsnd_bridge::sim::frontend::{Driver, EventCounts, Kernel, PcmHandle};
use vsnd_bridge::sndif::{Open, Operation, PcmFormat, Span, Trigger};
use vsnd_pw_module::{Direction, Frames, Octets};

use super::machine::{Machine, Running, SOON, Tape, in_real_time};
use super::play::{check_clean, counting, numbers, open, write_all};

const FRAME: u64 = 4;
/// A tenth of a second, the whole of it in one WRITE or READ.
const PART: u64 = 4_800;
const RING: u64 = 2 * PART;
const PARTS: u64 = 10;
/// What an answer takes that nothing holds back, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(50);

/// A frontend that is not Linux's: what it sends is what a test says.
struct Bare {
    pcm: PcmHandle,
}

impl Bare {
    fn open(guest: &Running, direction: Direction) -> Self {
        let pcm = guest.card.open(0, direction).unwrap();
        let directory = pcm.driver().allocate(Octets(RING * FRAME)).unwrap();
        let bare = Self { pcm };
        bare.request(&Operation::Open(Open {
            rate: 48_000,
            format: PcmFormat::S16Le.into(),
            channels: 2,
            buffer: Octets(RING * FRAME),
            directory,
            period: Octets(0),
        }));
        bare
    }

    /// Sends a request; how long the answer took.
    fn request(&self, operation: &Operation) -> Duration {
        let began = Instant::now();
        self.pcm.driver().request(operation).unwrap().status.unwrap();
        began.elapsed()
    }

    fn close(self) {
        self.request(&Operation::Trigger(Trigger::Stop));
        self.request(&Operation::Close);
        self.pcm.driver().release();
        assert_eq!(self.pcm.counters().events, EventCounts::default());
    }
}

fn span(part: u64) -> Span {
    Span { offset: Octets(part * PART % RING * FRAME), length: Octets(PART * FRAME) }
}

/// The other stream of the card was answered at once, whatever waited on the first.
fn check_undelayed(pcm: &PcmHandle) {
    let counters = pcm.counters();
    assert_eq!((counters.core.xruns, counters.requests.unanswered), (0, 0));
    let longest = Duration::from_nanos(counters.requests.longest.0.unsigned_abs());
    assert!(longest < AT_ONCE, "an answer took {longest:?}");
}

#[test]
fn writes_without_events_are_answered_at_the_pace_of_the_sound() {
    in_real_time(|| {
        let tape = Tape::new(256);
        let machine = Machine::start(Arc::new(tape.clone()));
        let guest = machine.guest("bare", Kernel::Since2026);
        let microphone = open(&guest, Direction::Capture, 480, 24_000);
        std::thread::scope(|scope| {
            let recording = scope.spawn(|| {
                let mut data = vec![0; 48_000 * FRAME as usize];
                for period in data.chunks_mut(480 * FRAME as usize) {
                    assert_eq!(microphone.read(period), Ok(Frames(480)));
                }
                data
            });
            let bare = Bare::open(&guest, Direction::Playback);
            let mut began = Instant::now();
            for part in 0..PARTS {
                let frames = part * PART..(part + 1) * PART;
                let data = counting(frames.start as u32..frames.end as u32);
                bare.pcm.driver().put(span(part).offset, &data).unwrap();
                bare.request(&Operation::Write(span(part)));
                if part == 0 {
                    began = Instant::now();
                    bare.request(&Operation::Trigger(Trigger::Start));
                }
            }
            // The last WRITE was answered when the one before it had been played.
            let (took, sound) = (began.elapsed(), Frames((PARTS - 1) * PART).duration(48_000));
            let late = took.as_nanos() as i64 - sound.0;
            assert!((-20_000_000..150_000_000).contains(&late), "{late} ns after the time of the sound");
            let heard = || {
                let playback =
                    |recording: &super::machine::Recording| recording.spec.direction == Direction::Playback;
                let recording = tape.recordings().into_iter().find(playback).unwrap();
                let mut heard = numbers(&recording.heard.lock().unwrap());
                heard.retain(|number| *number != 0);
                heard
            };
            while heard().len() < (PARTS * PART) as usize {
                assert!(began.elapsed() < SOON, "{} frames heard", heard().len());
                std::thread::sleep(Duration::from_millis(5));
            }
            bare.close();
            assert!(
                heard() == (1..=(PARTS * PART) as u32).collect::<Vec<_>>(),
                "not every frame once and in order"
            );
            let recorded = numbers(&recording.join().unwrap());
            assert!(recorded.windows(2).all(|pair| pair[1] == pair[0] + 1), "the recording has holes");
        });
        check_undelayed(&microphone);
        microphone.close();
        check_clean(&guest, &machine);
    });
}

#[test]
fn reads_without_events_are_answered_when_their_frames_are_there() {
    in_real_time(|| {
        let tape = Tape::new(256);
        let machine = Machine::start(Arc::new(tape));
        let guest = machine.guest("bare", Kernel::Until2026);
        let loudspeaker = open(&guest, Direction::Playback, 480, 24_000);
        std::thread::scope(|scope| {
            let playing = scope.spawn(|| {
                write_all(&loudspeaker, &counting(0..48_000));
                loudspeaker.drain().unwrap();
            });
            let bare = Bare::open(&guest, Direction::Capture);
            bare.request(&Operation::Trigger(Trigger::Start));
            let began = Instant::now();
            let mut data = vec![0; (PARTS * PART * FRAME) as usize];
            for (part, data) in (0..).zip(data.chunks_mut((PART * FRAME) as usize)) {
                bare.request(&Operation::Read(span(part)));
                bare.pcm.driver().get(span(part).offset, data).unwrap();
            }
            let (took, sound) = (began.elapsed(), Frames(PARTS * PART).duration(48_000));
            let late = took.as_nanos() as i64 - sound.0;
            assert!((-20_000_000..150_000_000).contains(&late), "{late} ns after the time of the sound");
            bare.close();
            let recorded = numbers(&data);
            assert!(recorded.windows(2).all(|pair| pair[1] == pair[0] + 1), "the recording has holes");
            playing.join().unwrap();
        });
        check_undelayed(&loudspeaker);
        loudspeaker.close();
        check_clean(&guest, &machine);
    });
}
