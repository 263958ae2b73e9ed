//! What a ring's snapshots say of the graph's clock.

use std::time::{Duration, Instant};

use vsnd_pw_module::pipewire::private::Options;
use vsnd_pw_module::{Direction, NodeState, PcmRing, SampleFormat, StreamFormat, Timing, monotonic_now};

use crate::guest::{Busy, Desk, PATIENCE, eventually, keeping_pace, passed, ring, spec};

/// Snapshots of a running ring, each once, over `span`.
fn snapshots(ring: &PcmRing, span: Duration) -> Vec<Timing> {
    let end = Instant::now() + span;
    let mut all: Vec<Timing> = Vec::new();
    while Instant::now() < end {
        if let Some(timing) = ring.timing().filter(|timing| all.last() != Some(timing)) {
            let late = monotonic_now() - timing.at;
            assert!(late.0 >= 0 && late.0 < 1_000_000_000, "a wake-up {late} ago");
            all.push(timing);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    all
}

/// The straight line through positions over time: frames a second, and the largest distance from it in frames.
fn line(snapshots: &[Timing]) -> (f64, f64) {
    let first = snapshots[0];
    let points: Vec<(f64, f64)> = snapshots
        .iter()
        .map(|t| ((t.at - first.at).0 as f64 / 1e9, (t.heard - first.heard) as f64))
        .collect();
    let n = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let (xy, xx) = points
        .iter()
        .fold((0.0, 0.0), |(xy, xx), p| (xy + (p.0 - x) * (p.1 - y), xx + (p.0 - x) * (p.0 - x)));
    let rate = xy / xx;
    let distance = points.iter().map(|p| (p.1 - y - rate * (p.0 - x)).abs()).fold(0.0, f64::max);
    (rate, distance)
}

/// Positions lie on a straight line over CLOCK_MONOTONIC, at the graph's own rate and at one that is resampled.
#[test]
fn positions_follow_the_clock() {
    let desk = Desk::with(Options { quantum: 256, min_quantum: 256, ..Options::default() });
    for direction in [Direction::Playback, Direction::Capture] {
        for rate in [48_000, 44_100, 8_000] {
            keeping_pace(|| {
                let format = StreamFormat::new(SampleFormat::S16Le, 2, rate).unwrap();
                let ring = ring(direction, format, u64::from(rate));
                let node = desk.open(&spec("alpha", direction, format), &ring);
                ring.start();
                node.start();
                // The lead-in and the filling of the resampler are over.
                passed(&ring, u64::from(rate) / 20);
                let snapshots = snapshots(&ring, Duration::from_millis(600));
                if ring.missed_cycles() > 0 {
                    return Err(Busy(format!("the bridge missed {} cycles", ring.missed_cycles())));
                }
                for pair in snapshots.windows(2) {
                    assert!(pair[1].at > pair[0].at && pair[1].given > pair[0].given, "{pair:?}");
                    assert!(pair[1].heard >= pair[0].heard, "{pair:?}");
                }
                for timing in &snapshots {
                    let ahead = timing.given.0 as i64 - timing.heard;
                    // What is played is heard later; what is captured was, but for the microphone's own way.
                    let least = if direction == Direction::Playback { 0 } else { -100 };
                    assert!((least..4 * timing.cycle.0 as i64 + 64).contains(&ahead), "{timing:?}");
                }
                let (measured, distance) = line(&snapshots);
                println!(
                    "{direction:?} at {rate}: {measured:.2} frames/s, at most {distance:.2} frames off, {} snapshots",
                    snapshots.len()
                );
                if (measured / f64::from(rate) - 1.0).abs() > 5e-4 || distance > 3.0 {
                    return Err(Busy(format!("{measured} frames/s, {distance} frames off at {rate}")));
                }
                Ok(())
            });
        }
    }
}

/// How long a start takes to its first cycle: from a fresh node, a waiting one, and a resting one.
#[test]
fn a_start_finds_its_links_ready() {
    let desk = Desk::new();
    let format = StreamFormat::new(SampleFormat::S16Le, 2, 48_000).unwrap();
    let ring = ring(Direction::Playback, format, 48_000);
    let spec = spec("alpha", Direction::Playback, format);
    let timed = |what: &str, begin: &dyn Fn()| {
        let position = ring.cursor().position.0;
        ring.start();
        let begun = Instant::now();
        begin();
        passed(&ring, position + 1);
        let took = begun.elapsed();
        println!("{what}: {took:?} to the first cycle");
        // Far more than it takes, and less than the bridge waits before it goes on without the server.
        assert!(took < Duration::from_secs(2), "{what}: {took:?}");
        ring.stop();
    };
    let node = desk.open(&spec, &ring);
    timed("a node opened just now", &|| node.start());
    timed("a node that runs", &|| node.start());
    node.stop();
    desk.node(&spec.name, |state| matches!(state, NodeState::Running { .. }).then_some(()));
    desk.node(&spec.name, |state| matches!(state, NodeState::Idle { .. }).then_some(()));
    timed("a node that rests", &|| node.start());
    drop(node);
    let asked = Instant::now();
    eventually("an empty graph", || {
        let there = desk.graph().iter().any(|object| object.get("node.name") == Some(&spec.name));
        (!there).then_some(())
    });
    assert!(asked.elapsed() < PATIENCE);
}
