use std::sync::Arc;

use super::*;
use crate::{Direction, Pages, StreamFormat};

fn ms(millis: i64) -> Nanos {
    Nanos::from_millis(millis)
}

fn ring() -> Arc<PcmRing> {
    ring_of(Direction::Playback)
}

fn ring_of(direction: Direction) -> Arc<PcmRing> {
    let format = StreamFormat::new(SampleFormat::S16Le, 2, 48_000).unwrap();
    Arc::new(PcmRing::new(direction, format, Frames(2400), Pages::anonymous(12_288).unwrap()))
}

/// A clock whose run starts at 0.
fn started(ring: &PcmRing) -> (NullClock, bool) {
    let mut clock = NullClock::default();
    let waits = clock.start(ring, Nanos(0));
    ring.start();
    (clock, waits)
}

/// Calls the clock as often as a running stream does, up to `end`; whether it drives then.
fn driven_until(clock: &mut NullClock, ring: &PcmRing, end: Nanos) -> bool {
    while clock.called + ms(10) < end {
        clock.drive(ring, clock.called + ms(10));
    }
    clock.drive(ring, end)
}

#[test]
fn without_a_node_the_clock_drives_from_the_first_frame() {
    let ring = ring();
    let (mut clock, waits) = started(&ring);
    assert!(!waits && clock.drive(&ring, Nanos(0)));
    assert!(clock.drive(&ring, ms(10)));
    assert_eq!(ring.cursor().position, Frames(480));
}

#[test]
fn a_node_is_waited_for_and_replaced_when_it_falls_silent() {
    let ring = ring();
    let _node = ring.attach();
    let (mut clock, waits) = started(&ring);
    assert!(waits && !clock.drive(&ring, ms(1_499)));
    ring.play(ms(1_499), &mut [0; 400]);
    assert!(!driven_until(&mut clock, &ring, ms(1_558)));
    assert_eq!(ring.missed_cycles(), 0);
    assert!(clock.drive(&ring, ms(1_560)));
    assert!(clock.drive(&ring, ms(1_570)));
    assert_eq!(ring.missed_cycles(), 1);
    assert_eq!(ring.cursor().position, Frames(16 + 480), "a run's first cycle moves 16 frames");
    ring.play(ms(1_580), &mut [0; 400]);
    assert!(!clock.drive(&ring, ms(1_581)), "the node is back");
    assert_eq!(ring.cursor().position, Frames(16 + 480 + 100));
}

#[test]
fn a_node_that_loses_its_server_is_replaced_at_once() {
    let ring = ring();
    let node = ring.attach();
    let (mut clock, _) = started(&ring);
    ring.play(ms(1), &mut [0; 400]);
    assert!(!clock.drive(&ring, ms(2)));
    drop(node);
    assert!(clock.drive(&ring, ms(3)));
    let _back = ring.attach();
    assert!(clock.drive(&ring, ms(400)), "until the first cycle");
    ring.play(ms(401), &mut [0; 400]);
    assert!(!clock.drive(&ring, ms(402)));
}

#[test]
fn a_node_that_comes_to_a_run_without_one_takes_over_with_its_first_cycle() {
    let ring = ring();
    let (mut clock, _) = started(&ring);
    assert!(clock.drive(&ring, ms(0)));
    let _node = ring.attach();
    assert!(clock.drive(&ring, ms(10)), "nobody has to wait for it");
    ring.play(ms(11), &mut [0; 400]);
    assert!(!clock.drive(&ring, ms(12)));
}

#[test]
fn who_waited_in_vain_does_not_wait_again_until_a_cycle_has_come() {
    let ring = ring();
    let _node = ring.attach();
    let (mut clock, waits) = started(&ring);
    assert!(waits && clock.drive(&ring, ms(1_500)));
    ring.stop();
    assert!(!clock.start(&ring, ms(2_000)));
    ring.start();
    assert!(clock.drive(&ring, ms(2_000)));
    ring.play(ms(2_010), &mut [0; 400]);
    assert!(!clock.drive(&ring, ms(2_011)));
    ring.stop();
    assert!(clock.start(&ring, ms(9_000)));
}

/// What is told at `at` by the newest timing.
fn heard(ring: &PcmRing, at: Nanos) -> i64 {
    let timing = ring.timing().unwrap();
    timing.heard + signed((at - timing.at).frames(48_000))
}

#[test]
fn the_distance_to_the_sound_stays_when_the_clock_takes_over() {
    for (direction, latency) in [(Direction::Playback, 1_024), (Direction::Capture, -512)] {
        let ring = ring_of(direction);
        let node = ring.attach();
        let (mut clock, _) = started(&ring);
        match direction {
            Direction::Playback => drop(ring.play(ms(1), &mut [0; 4 * 960])),
            Direction::Capture => drop(ring.capture(ms(1), &[0; 4 * 960])),
        }
        let given = ring.cursor().position;
        let timing = Timing { at: ms(1), heard: signed(given) - latency, given, cycle: Frames(960) };
        ring.publish(timing);
        drop(node);
        let before = heard(&ring, ms(11));
        assert!(clock.drive(&ring, ms(11)));
        assert_eq!(heard(&ring, ms(11)), before, "{direction:?}");
        assert!(clock.drive(&ring, ms(21)));
        assert_eq!(heard(&ring, ms(31)), before + 960, "{direction:?}");
    }
}

#[test]
fn what_was_given_is_heard_by_the_time_the_clock_takes_over() {
    let ring = ring();
    let _node = ring.attach();
    let (mut clock, _) = started(&ring);
    ring.play(ms(1), &mut [0; 4 * 960]);
    ring.publish(Timing { at: ms(1), heard: 0, given: Frames(16), cycle: Frames(960) });
    assert!(driven_until(&mut clock, &ring, ms(61)));
    let timing = ring.timing().unwrap();
    assert_eq!((timing.heard, timing.given), (16, Frames(16)));
}

/// Who was held up itself has not seen a node fall silent: the cycles that it missed come after it, all at once, and find the
/// ring where they left it.
#[test]
fn a_node_that_stood_still_with_the_machine_is_not_replaced() {
    let ring = ring();
    let _node = ring.attach();
    let (mut clock, _) = started(&ring);
    ring.play(ms(1), &mut [0; 400]);
    assert!(!clock.drive(&ring, ms(10)));
    assert!(!clock.drive(&ring, ms(110)), "a stall of 100 ms");
    assert!(!driven_until(&mut clock, &ring, ms(169)), "it has as long as ever to go on");
    assert_eq!((ring.cursor().position, ring.missed_cycles()), (Frames(16), 0));
    assert!(clock.drive(&ring, ms(170)), "it does not");
}

#[test]
fn a_machine_that_slept_plays_nothing_meanwhile() {
    let ring = ring();
    let (mut clock, _) = started(&ring);
    for millis in [0, 10, 10_000, 10_010] {
        assert!(clock.drive(&ring, ms(millis)));
    }
    assert_eq!(ring.cursor().position, Frames(960));
    assert_eq!(ring.timing().map(|timing| timing.given), Some(Frames(960)));
}

#[test]
fn a_stopped_ring_stays_where_it_is() {
    let ring = ring();
    let mut clock = NullClock::default();
    clock.start(&ring, Nanos(0));
    assert!(!clock.drive(&ring, ms(50)));
    assert_eq!(ring.cursor().position, Frames(0));
}
