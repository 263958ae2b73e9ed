//! The clock against single snapshots, and against a simulated converter.

use super::*;
use proptest::prelude::*;

const RATE: u32 = 48_000;

fn running(position: u64) -> Cursor {
    Cursor { running: true, fresh: false, position: Frames(position) }
}

fn snapshot(at: i64, heard: i64, given: u64, cycle: u64) -> Option<Timing> {
    Some(Timing { at: Nanos(at), heard, given: Frames(given), cycle: Frames(cycle) })
}

fn playback(buffer: u64, period: u64) -> PositionClock {
    PositionClock::new(Direction::Playback, RATE, Frames(buffer), Frames(period))
}

fn capture(buffer: u64, period: u64) -> PositionClock {
    PositionClock::new(Direction::Capture, RATE, Frames(buffer), Frames(period))
}

#[test]
fn playback_runs_between_cycles_and_stops_at_what_was_given() {
    let mut clock = playback(24_000, 6_000);
    let timing = snapshot(1_000_000_000, 0, 480, 480);
    assert_eq!(clock.position(running(480), timing, Nanos(1_005_000_000)), Frames(240));
    assert_eq!(clock.position(running(480), timing, Nanos(1_050_000_000)), Frames(480));
    assert_eq!(clock.position(running(480), timing, Nanos(1_001_000_000)), Frames(480), "never back");
}

#[test]
fn a_short_ring_is_told_what_was_consumed() {
    let mut clock = playback(480, 240);
    let timing = snapshot(0, -9_600, 480, 480);
    assert_eq!(clock.position(running(480), timing, Nanos(0)), Frames(480));
    assert_eq!(clock.offset(), 10_080, "which the guest is not told");
}

#[test]
fn latency_beyond_the_ring_leaves_the_guest_two_periods_and_runs_evenly() {
    let mut clock = playback(4_800, 480);
    let timing = snapshot(0, 0, 9_600, 480);
    assert_eq!(clock.position(running(9_600), timing, Nanos(0)), Frames(9_600 - 3_840));
    assert_eq!(clock.position(running(9_600), timing, Nanos::from_millis(5)), Frames(9_600 - 3_840 + 240));
    // A shorter latency later in the run does not change the distance: the position would have to wait.
    let timing = snapshot(200_000_000, 10_000, 19_200, 480);
    assert_eq!(clock.position(running(19_200), timing, Nanos::from_millis(200)), Frames(10_000 + 5_760));
    assert_eq!(clock.offset(), 5_760);
}

#[test]
fn a_first_report_that_is_late_does_not_set_the_distance_of_the_run() {
    // A microphone's first cycle comes two milliseconds late, a sink's first report is as old.
    let mut microphone = capture(4_800, 480);
    let mut sink = playback(4_800, 480);
    for cycle in 0..100 {
        let late = if cycle == 0 { 96 } else { 0 };
        let (now, given) = (Nanos::from_millis(10 * cycle), 480 * (cycle as u64 + 1));
        let recorded = snapshot(now.0, given as i64 + late, given, 480);
        let position = microphone.position(running(given), recorded, now);
        assert_eq!(position.0 as i64, given as i64 - 480, "cycle {cycle}");
        assert_eq!(microphone.offset(), -480 - late);
        let played = snapshot(now.0, given as i64 - 4_800 - late, given, 480);
        sink.position(running(given), played, now);
        assert_eq!(sink.offset(), 960 + late, "cycle {cycle}");
    }
}

#[test]
fn a_microphone_is_told_a_cycle_late_and_evenly() {
    let mut clock = capture(4_800, 480);
    // What entered the microphone at the wake-up is 100 frames beyond what has come through.
    let timing = snapshot(0, 356, 256, 128);
    assert_eq!(clock.position(running(256), timing, Nanos(0)), Frames(128));
    assert_eq!(clock.position(running(256), timing, Nanos::from_millis(1)), Frames(128 + 48));
    assert_eq!(
        clock.position(running(256), timing, Nanos::from_millis(1_000)),
        Frames(256),
        "a READ's limit"
    );
    assert_eq!(clock.offset(), -228);
}

#[test]
fn a_sinks_monitor_is_told_as_it_is_heard() {
    // Its frames come before they are heard.
    let mut clock = capture(4_800, 480);
    let timing = snapshot(0, 128, 256, 128);
    assert_eq!(clock.position(running(256), timing, Nanos(0)), Frames(128));
    assert_eq!(clock.position(running(256), timing, Nanos::from_millis(2)), Frames(128 + 96));
    assert_eq!(clock.offset(), 0);
}

#[test]
fn a_short_ring_of_a_microphone_is_told_what_was_captured() {
    let mut clock = capture(480, 240);
    let timing = snapshot(0, 256, 256, 256);
    assert_eq!(clock.position(running(256), timing, Nanos(0)), Frames(256));
}

#[test]
fn a_stop_moves_to_the_whole_buffer_and_a_new_run_finds_its_own_distance() {
    let mut clock = playback(4_800, 480);
    clock.position(running(480), snapshot(0, -9_600, 480, 480), Nanos(5_000_000));
    assert_eq!(clock.offset(), 10_080 - 3_840);
    let stopped = Cursor { running: false, fresh: false, position: Frames(4_800) };
    assert_eq!(clock.position(stopped, None, Nanos(6_000_000)), Frames(4_800));
    assert_eq!(clock.offset(), 0);
    assert_eq!(
        clock.position(running(4_800), None, Nanos(7_000_000)),
        Frames(4_800),
        "before the first cycle"
    );
}

#[test]
fn a_host_that_was_suspended_finds_the_position_where_the_server_left_it() {
    let mut clock = playback(48_000, 480);
    let timing = snapshot(0, 0, 480, 480);
    clock.position(running(480), timing, Nanos::from_millis(1));
    assert_eq!(clock.position(running(480), timing, Nanos::from_millis(3_600_000)), Frames(480));
    let timing = snapshot(3_600_000_000_000, 480, 960, 480);
    assert_eq!(clock.position(running(960), timing, Nanos::from_millis(3_600_001)), Frames(528));
}

proptest! {
    /// Cycles of any length, late and with any latency: monotonic, and never beyond what was given.
    #[test]
    fn the_position_is_monotonic_and_never_ahead(
        buffer in 2u64..20_000, period in 1u64..5_000, is_capture: bool,
        cycles in proptest::collection::vec((1u64..4_096, 0i64..20_000_000, -4_800i64..9_600), 1..100),
    ) {
        let mut clock = if is_capture { capture(buffer, period) } else { playback(buffer, period) };
        let (mut at, mut given, mut last) = (Nanos(0), 0u64, Frames(0));
        for (cycle, late, latency) in cycles {
            let latency = if is_capture { latency } else { latency.abs() };
            let heard = given as i64 - latency;
            given += cycle;
            let timing = snapshot(at.0, heard, given, cycle);
            for step in 0..4 {
                let position = clock.position(running(given), timing, at + Nanos(late + step * 1_000_000));
                prop_assert!(position >= last && position <= Frames(given));
                prop_assert!(given - position.0 <= buffer.saturating_sub(2 * period));
                last = position;
            }
            at += Frames(cycle).duration(RATE);
        }
    }
}

/// What a simulated converter does in one cycle.
#[derive(Clone, Debug)]
struct Cycle {
    frames: u64,
    /// How late the driver wakes up, in nanoseconds. It says so: the snapshot belongs to the wake-up.
    wake: i64,
    /// How long after the wake-up the snapshot is published, in nanoseconds.
    publish: i64,
    /// What the server is wrong by about what is heard, in frames.
    jitter: i64,
    /// The node is moved to a sink with this latency, in frames.
    moved: Option<i64>,
}

fn cycle() -> impl Strategy<Value = Cycle> {
    let frames = prop::sample::select(vec![64u64, 256, 480, 1_024, 2_048]);
    let moved = prop::option::weighted(0.02, 0i64..4_800);
    (frames, 0i64..300_000, 0i64..2_000_000, -JITTER..=JITTER, moved)
        .prop_map(|(frames, wake, publish, jitter, moved)| Cycle { frames, wake, publish, jitter, moved })
}

/// Frames that a snapshot may be wrong by.
const JITTER: i64 = 2;

/// A converter whose crystal is `ppm` off, and its node: what is played at each instant of CLOCK_MONOTONIC is known.
struct Dac {
    rate: f64,
    /// The time at which the next cycle's first frame is handed over, in nanoseconds.
    next: f64,
    given: u64,
    latency: i64,
}

impl Dac {
    /// The frame that is heard at `at`, of what has been handed over until now.
    fn heard(&self, at: f64) -> f64 {
        self.given as f64 + (at - self.next) * self.rate / 1e9 - self.latency as f64
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Against the truth: with a wrong crystal, late wake-ups, later snapshots, changing cycles and moves the position is
    /// never ahead of the sound by more than the snapshot was wrong by, and behind it by no more than that and the time
    /// for which the newest snapshot was missing.
    #[test]
    fn the_position_is_what_a_converter_plays(
        ppm in -500.0f64..500.0, rate in prop::sample::select(vec![44_100u32, 48_000, 96_000]),
        cycles in prop::collection::vec(cycle(), 50..200),
        looks in prop::collection::vec(0.0f64..1.0, 8),
    ) {
        let mut clock = PositionClock::new(Direction::Playback, rate, Frames(1 << 20), Frames(480));
        let mut dac = Dac { rate: f64::from(rate) * (1.0 + ppm / 1e6), next: 1e9, given: 0, latency: 0 };
        let (mut timing, mut last) = (None, 0u64);
        for cycle in cycles {
            let wakes = dac.next + cycle.wake as f64;
            if let Some(latency) = cycle.moved {
                dac.latency = latency;
            }
            let heard = dac.heard(wakes);
            let before = timing;
            dac.given += cycle.frames;
            let ends = dac.next + cycle.frames as f64 * 1e9 / dac.rate;
            dac.next = ends;
            let newest = Timing {
                at: Nanos(wakes as i64),
                heard: heard.round() as i64 + cycle.jitter,
                given: Frames(dac.given),
                cycle: Frames(cycle.frames),
            };
            let published = wakes + cycle.publish as f64;
            let begins = ends - cycle.frames as f64 * 1e9 / dac.rate;
            let mut looks: Vec<f64> = looks.iter().map(|part| begins + part * (ends - begins)).collect();
            looks.sort_by(f64::total_cmp);
            for look in looks {
                // The newest snapshot may come after its own cycle's end, when it is no use.
                timing = if look >= published { Some(newest) } else { before };
                let position = clock.position(running(dac.given), timing, Nanos(look as i64)).0;
                prop_assert!(position >= last, "back from {} to {}", last, position);
                let Some(timing) = timing else { last = position; continue };
                prop_assert!(position <= timing.given.0);
                let truth = dac.heard(look);
                let error = position as f64 - truth.max(0.0);
                // What a wrong crystal adds until the next snapshot, and the rounding of three conversions.
                let drift = (look - timing.at.0 as f64) * dac.rate / 1e9 * ppm.abs() / 1e6 + 2.0;
                let bound = JITTER as f64 + drift;
                // A move shows with the next snapshot, and what was told before one to a longer latency stays told.
                let moved = cycle.moved.is_some() && timing != newest;
                let ahead = error > bound && position != last && !moved;
                prop_assert!(!ahead, "{} frames ahead of {}", error, truth);
                let missing = if timing == newest { 0.0 } else { (look - begins).max(0.0) * dac.rate / 1e9 };
                prop_assert!(error >= -bound - missing || moved, "{} frames behind {}", -error, truth);
                last = position;
            }
            timing = Some(newest);
        }
    }
}
