//! What a ring's snapshots say of the server's clock.

use std::time::{Duration, Instant};

use vsnd_pw_module::{Direction, Frames, PcmRing, SampleFormat, StreamFormat, Timing, monotonic_now};
use vsnd_tests::rings::Busy;

use crate::desk::{Desk, keeping_pace, passed, ring, spec};

/// Snapshots of a running ring, each once, over `span`.
fn snapshots(ring: &PcmRing, span: Duration) -> Vec<Timing> {
    let end = Instant::now() + span;
    let mut all: Vec<Timing> = Vec::new();
    while Instant::now() < end {
        if let Some(timing) = ring.timing().filter(|timing| all.last() != Some(timing)) {
            let late = monotonic_now() - timing.at;
            assert!(late.0 >= 0 && late.0 < 1_000_000_000, "a report from {late} ago");
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
    (rate, points.iter().map(|p| (p.1 - y - rate * (p.0 - x)).abs()).fold(0.0, f64::max))
}

#[test]
fn positions_follow_the_clock() {
    for desk in Desk::both() {
        for (direction, rate) in
            [(Direction::Playback, 48_000), (Direction::Playback, 44_100), (Direction::Capture, 48_000)]
        {
            keeping_pace(|| {
                let format = StreamFormat::new(SampleFormat::S16Le, 2, rate).unwrap();
                let ring = ring(direction, format, u64::from(rate));
                let node = desk.open(&spec("alpha", direction, format), &ring);
                ring.start();
                node.start();
                passed(&ring, u64::from(rate) / 2);
                let snapshots = snapshots(&ring, Duration::from_millis(1_500));
                if ring.missed_cycles() > 0 {
                    return Err(Busy(format!("the bridge was late {} times", ring.missed_cycles())));
                }
                for pair in snapshots.windows(2) {
                    assert!(pair[1].given >= pair[0].given, "{pair:?}");
                    // A report makes the snapshot before it more exact, within the frame that it was in.
                    let same = (pair[1].at - pair[0].at).0.abs() <= Frames(1).duration(rate).0;
                    if same && pair[1].heard.abs_diff(pair[0].heard) < 48 {
                        continue;
                    }
                    assert!(pair[1].at >= pair[0].at, "{pair:?}");
                    // pipewire-pulse moves its indices once a cycle, and not when it missed one.
                    if !desk.is_pulse() && pair[1].heard < pair[0].heard {
                        return Err(Busy(format!("{pair:?}")));
                    }
                    assert!(pair[1].heard >= pair[0].heard, "{pair:?}");
                }
                let (measured, distance) = line(&snapshots);
                let ahead = |timing: &Timing| timing.given.0 as f64 - timing.heard as f64;
                let latency = snapshots.iter().map(ahead).sum::<f64>() / snapshots.len() as f64;
                println!(
                    "{direction:?} at {rate}, PulseAudio {}: {measured:.2} frames/s, at most {distance:.2} frames off, \
                     {:.1} ms between heard and given, {} snapshots",
                    desk.is_pulse(),
                    latency * 1000.0 / f64::from(rate),
                    snapshots.len()
                );
                let millis = latency * 1000.0 / f64::from(rate);
                // What the guest asked for, and the device's own. A monitor gives its frames before they are heard, by
                // up to its sink's latency; of a microphone they were heard before.
                let range = if direction == Direction::Playback { 20.0..160.0 } else { -160.0..60.0 };
                assert!(range.contains(&millis), "{millis} ms");
                let tolerance = if desk.is_pulse() { 48.0 } else { 480.0 };
                if (measured / f64::from(rate) - 1.0).abs() > 3e-3 || distance > tolerance {
                    return Err(Busy(format!("{measured} frames/s, {distance} frames off at {rate}")));
                }
                Ok(())
            });
        }
    }
}
