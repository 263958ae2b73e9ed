//! The ring's lock-free parts in every order in which threads can run and see each other's stores.
//!
//! `RUSTFLAGS='--cfg loom' cargo test -p vsnd-pw-module --no-default-features --lib loom_tests`, which `make test` does.

#![allow(clippy::unwrap_used)] // a test that can't go on ends

use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use crate::timing::Snapshot;
use crate::units::{Frames, Nanos, Octets};
use crate::{Direction, Pages, PcmRing, SampleFormat, StreamFormat, Timing};

/// Every order of events with at most so many interruptions of a thread: more have never shown more, and take hours.
const INTERRUPTIONS: usize = 3;

fn every_order(test: impl Fn() + Sync + Send + 'static) {
    let mut model = Builder::new();
    model.preemption_bound = Some(INTERRUPTIONS);
    model.check(test);
}

fn numbered(number: u64) -> Timing {
    let heard = number as i64;
    Timing { at: Nanos(heard), heard, given: Frames(number), cycle: Frames(number) }
}

fn assert_whole(seen: Timing) {
    assert_eq!(seen, numbered(seen.given.0), "parts of two snapshots");
}

#[test]
fn a_snapshot_is_seen_whole_while_the_next_is_written() {
    every_order(|| {
        let newest = Arc::new(Snapshot::default());
        newest.store(numbered(1));
        let writer = {
            let newest = Arc::clone(&newest);
            thread::spawn(move || newest.store(numbered(2)))
        };
        assert_whole(newest.load().unwrap());
        writer.join().unwrap();
        assert_eq!(newest.load(), Some(numbered(2)));
    });
}

#[test]
fn a_snapshot_is_seen_whole_while_the_stream_starts_anew() {
    every_order(|| {
        let newest = Arc::new(Snapshot::default());
        newest.store(numbered(1));
        let starter = {
            let newest = Arc::clone(&newest);
            thread::spawn(move || {
                newest.clear();
                newest.store(numbered(2));
            })
        };
        if let Some(seen) = newest.load() {
            assert_whole(seen);
        }
        starter.join().unwrap();
        assert_eq!(newest.load(), Some(numbered(2)));
    });
}

#[test]
fn two_writers_leave_one_whole_snapshot() {
    every_order(|| {
        let newest = Arc::new(Snapshot::default());
        let writer = {
            let newest = Arc::clone(&newest);
            thread::spawn(move || newest.store(numbered(1)))
        };
        newest.store(numbered(2));
        writer.join().unwrap();
        assert_whole(newest.load().unwrap());
    });
}

const BUFFER: u64 = 8;

fn ring() -> Arc<PcmRing> {
    let format = StreamFormat::new(SampleFormat::U8, 1, 48_000).unwrap();
    let pages = Pages::anonymous(4096).unwrap();
    pages.write(0, &[1; BUFFER as usize]).unwrap();
    let ring = PcmRing::new(Direction::Playback, format, Frames(BUFFER), pages);
    ring.wrote(Frames(0), Frames(BUFFER), Frames(0));
    ring.start();
    Arc::new(ring)
}

fn cycle(ring: &Arc<PcmRing>) -> thread::JoinHandle<[u8; 2]> {
    let ring = Arc::clone(ring);
    thread::spawn(move || {
        let mut heard = [0; 2];
        ring.play(Nanos(1), &mut heard);
        heard
    })
}

#[test]
fn a_stop_during_a_cycle_comes_to_rest_on_a_whole_buffer() {
    every_order(|| {
        let ring = ring();
        let cycle = cycle(&ring);
        let stopped = ring.stop();
        cycle.join().unwrap();
        let cursor = ring.cursor();
        assert!(!cursor.running);
        assert_eq!(cursor.position, stopped.position.round_up_to(ring.buffer()), "the cycle moved it again");
        assert_eq!(ring.written(), cursor.position, "what was written is forgotten");
    });
}

#[test]
fn two_readers_of_one_cycle_count_it_once() {
    every_order(|| {
        let ring = ring();
        let other = cycle(&ring);
        ring.play(Nanos(2), &mut [0; 2]);
        other.join().unwrap();
        let position = ring.cursor().position;
        // One after the other: the first cycle of a run moves one frame of two, the next both.
        assert!(position == Frames(1) || position == Frames(3), "{position:?}");
    });
}

#[test]
fn memory_is_not_taken_away_under_a_copy() {
    every_order(|| {
        let ring = ring();
        let cycle = cycle(&ring);
        ring.close();
        let heard = cycle.join().unwrap();
        assert!(heard == [0x80, 0x80] || heard == [0x80, 1], "{heard:?}");
        assert!(ring.read(Octets(0), &mut [0]).is_err());
    });
}

#[test]
fn a_closed_ring_leaves_its_marks_alone() {
    every_order(|| {
        let ring = ring();
        let cycle = cycle(&ring);
        ring.close();
        let marks = || (ring.cursor(), ring.written(), ring.last_cycle());
        let closed = marks();
        cycle.join().unwrap();
        assert_eq!(marks(), closed, "another ring may have them by now");
    });
}

#[test]
fn a_write_during_a_cycle_loses_no_frame() {
    every_order(|| {
        let ring = ring();
        let cycle = cycle(&ring);
        ring.wrote(Frames(0), Frames(1), Frames(1));
        cycle.join().unwrap();
        assert_eq!(ring.written(), Frames(BUFFER + 1));
        assert_eq!(ring.starved(), Frames(0));
    });
}
