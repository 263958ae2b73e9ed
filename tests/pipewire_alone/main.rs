//! What a node of PipeWire's takes from the process, which no other test may use at the same time.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test from head to foot

mod allocations;
#[path = "../pipewire/guest.rs"]
#[allow(dead_code)]
mod guest;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::thread::gettid;
use vsnd_pw_module::{Direction, Frames, Nanos, PcmRing, SampleFormat, Timing};

use allocations::{Counting, of_thread};
use guest::{Desk, eventually, passed, put, ring, spec, stereo};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Held by each test: they count what the whole process holds.
static ALONE: Mutex<()> = Mutex::new(());

fn entries(directory: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn threads() -> BTreeSet<i32> {
    entries("/proc/self/task").iter().map(|thread| thread.parse().unwrap()).collect()
}

/// The ring's part of a callback, on this thread.
#[test]
fn the_rings_side_of_a_callback_allocates_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let format = stereo(SampleFormat::S16Le);
    let (play, record) = (ring(Direction::Playback, format, 4_096), ring(Direction::Capture, format, 4_096));
    put(&play, 0, 0, 4_096);
    play.start();
    record.start();
    let mut buffer = vec![0; 4 * 1_000];
    let before = of_thread(gettid());
    for cycle in 0..10_000 {
        let now = Nanos(cycle);
        play.play(now, &mut buffer);
        record.capture(now, &buffer);
        play.publish(Timing { at: now, heard: cycle, given: Frames(0), cycle: Frames(1_000) });
        record.missed_cycle();
    }
    assert_eq!(of_thread(gettid()), before, "allocations in 10,000 cycles");
    drop(std::hint::black_box(Box::new(buffer)));
    assert_eq!(of_thread(gettid()), before + 1, "the count itself");
}

/// Runs `rings` on a server; the threads that PipeWire started for them.
fn data_threads(desk: &Desk, rings: &[Arc<PcmRing>]) -> (BTreeSet<i32>, Vec<u64>) {
    let before = threads();
    let nodes: Vec<_> =
        rings.iter().map(|ring| desk.open(&spec("alpha", ring.direction(), ring.format()), ring)).collect();
    for (ring, node) in rings.iter().zip(&nodes) {
        ring.start();
        node.start();
    }
    for ring in rings {
        passed(ring, 48_000);
    }
    let own: BTreeSet<i32> = threads().difference(&before).copied().collect();
    let allocations =
        own.iter().filter_map(|thread| rustix::thread::Pid::from_raw(*thread)).map(of_thread).collect();
    (own, allocations)
}

/// The whole callback, on PipeWire's data thread, while it plays, records and resamples.
#[test]
fn the_data_thread_allocates_nothing() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let desk = Desk::new();
    let slow = vsnd_pw_module::StreamFormat::new(SampleFormat::S16Le, 2, 44_100).unwrap();
    let rings = [
        ring(Direction::Playback, stereo(SampleFormat::S16Le), 9_600),
        ring(Direction::Capture, stereo(SampleFormat::S32Le), 9_600),
        ring(Direction::Playback, slow, 9_600),
    ];
    let (threads, allocations) = data_threads(&desk, &rings);
    assert!(!threads.is_empty(), "no thread of PipeWire's own");
    assert!(allocations.iter().all(|count| *count == 0), "allocations by thread: {allocations:?}");
    assert!(rings.iter().all(|ring| ring.timing().is_some()));
}

#[test]
fn file_descriptors_and_threads_come_back() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let desk = Desk::new();
    let format = stereo(SampleFormat::S16Le);
    let held = || (entries("/proc/self/fd").len(), threads().len());
    let round = |domain: usize| {
        let ring = ring(Direction::Playback, format, 2_400);
        let node = desk.open(&spec(&format!("domain{domain}"), Direction::Playback, format), &ring);
        ring.start();
        node.start();
        passed(&ring, 1);
        ring.close();
        drop(node);
    };
    let before = held();
    for number in 0..50 {
        round(number % 3);
    }
    assert_ne!(held(), before, "connections linger");
    eventually("the first state", || {
        std::thread::sleep(Duration::from_millis(20));
        (held() == before).then_some(())
    });
}
