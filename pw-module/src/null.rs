//! No sound server, or none that serves a ring just now: CLOCK_MONOTONIC takes the converter's place.

use std::sync::Arc;

use crate::server::{Bounds, Node, NodeSpec, SoundServer};
use crate::units::{Frames, Nanos};
use crate::{PcmRing, SampleFormat, Timing};

/// How long a node may take to its first cycle after START before the clock takes the ring over: links and permissions
/// take the session manager some time, and a sound that waits is better than one whose beginning is lost. A guest waits
/// for the answer to its START meanwhile, and gives up after 3 s.
const FIRST_CYCLE: Nanos = Nanos::from_millis(1_500);
/// How long a running node may miss its cycles. PipeWire's longest cycle is 8192/48000 s, which twice its length covers.
const MISSED_CYCLES: Nanos = Nanos::from_millis(100);
/// A clock that nobody called for so long was not running.
const STOOD_STILL: Nanos = Nanos::from_millis(200);

/// The reader of a ring that no node serves: playback is consumed unheard, capture is silence, the position runs on.
#[derive(Debug)]
pub struct NullClock {
    started: Nanos,
    patience: Nanos,
    driving: Option<Driving>,
}

#[derive(Clone, Copy, Debug)]
struct Driving {
    /// Since when, and from which position, this clock drives the ring.
    since: Nanos,
    from: Frames,
    /// When it was last called.
    called: Nanos,
}

impl NullClock {
    /// The clock of a run that starts at `now`; with a node it stands by, without one it drives from the first frame.
    pub fn new(now: Nanos, has_node: bool) -> Self {
        Self::waiting(now, if has_node { FIRST_CYCLE } else { Nanos(0) })
    }

    /// The clock of a run that goes on at `now`, and waits for a node no longer than `patience`, nor than at a start.
    pub fn waiting(now: Nanos, patience: Nanos) -> Self {
        Self { started: now, patience: patience.clamp(Nanos(0), FIRST_CYCLE), driving: None }
    }

    /// Moves the ring to where it should be at `now` if no node does. Called for every running stream at least as often
    /// as its events are due. Returns whether this clock drives the ring.
    pub fn drive(&mut self, ring: &PcmRing, now: Nanos) -> bool {
        let served = ring.last_cycle();
        let cycle = ring.timing().map_or(Frames(0), |timing| timing.cycle);
        let missed = MISSED_CYCLES.max(Nanos(2 * cycle.duration(ring.format().rate()).0));
        let deadline = if served < self.started { self.started + self.patience } else { served + missed };
        if now < deadline {
            self.driving = None;
            return false;
        }
        let cursor = ring.cursor();
        if !cursor.running {
            return false;
        }
        // A machine that stood still, or slept, plays nothing meanwhile: a guest can't follow a jump of a whole ring.
        let driving = self.driving.filter(|driving| now - driving.called < STOOD_STILL);
        let driving = driving.unwrap_or(Driving { since: now, from: cursor.position, called: now });
        self.driving = Some(Driving { called: now, ..driving });
        let target = driving.from + (now - driving.since).frames(ring.format().rate());
        if target > cursor.position {
            ring.pass_unheard(target - cursor.position);
        }
        let position = i64::try_from(target.0).unwrap_or(i64::MAX);
        ring.publish(Timing { at: now, heard: position, given: target, cycle: Frames(0) });
        true
    }
}

/// A server without nodes: every stream runs on its [`NullClock`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NullServer;

impl SoundServer for NullServer {
    fn open(&self, _spec: NodeSpec, _ring: Arc<PcmRing>) -> Option<Box<dyn Node>> {
        None
    }

    fn carries(&self, _format: SampleFormat) -> bool {
        true
    }

    fn bounds(&self) -> Bounds {
        Bounds::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Direction, Pages, StreamFormat};

    fn ring() -> PcmRing {
        let format = StreamFormat::new(SampleFormat::S16Le, 2, 48_000).unwrap();
        PcmRing::new(Direction::Playback, format, Frames(2400), Pages::anonymous(12_288).unwrap())
    }

    #[test]
    fn without_a_node_the_clock_drives_from_the_first_frame() {
        let ring = ring();
        ring.start();
        let mut clock = NullClock::new(Nanos(0), false);
        assert!(clock.drive(&ring, Nanos(0)));
        assert!(clock.drive(&ring, Nanos::from_millis(10)));
        assert_eq!(ring.cursor().position, Frames(480));
    }

    #[test]
    fn a_node_is_waited_for_and_replaced_when_it_falls_silent() {
        let ring = ring();
        ring.start();
        let mut clock = NullClock::new(Nanos(0), true);
        assert!(!clock.drive(&ring, Nanos::from_millis(1_499)));
        ring.play(Nanos::from_millis(1_499), &mut [0; 400]);
        assert!(!clock.drive(&ring, Nanos::from_millis(1_598)));
        assert!(clock.drive(&ring, Nanos::from_millis(1_600)));
        assert!(clock.drive(&ring, Nanos::from_millis(1_610)));
        assert_eq!(ring.cursor().position, Frames(16 + 480), "a run's first cycle moves 16 frames");
        ring.play(Nanos::from_millis(1_620), &mut [0; 400]);
        assert!(!clock.drive(&ring, Nanos::from_millis(1_621)), "the node is back");
        assert_eq!(ring.cursor().position, Frames(16 + 480 + 100));
    }

    #[test]
    fn a_machine_that_slept_plays_nothing_meanwhile() {
        let ring = ring();
        ring.start();
        let mut clock = NullClock::new(Nanos(0), false);
        for millis in [0, 10, 10_000, 10_010] {
            assert!(clock.drive(&ring, Nanos::from_millis(millis)));
        }
        assert_eq!(ring.cursor().position, Frames(960));
        assert_eq!(ring.timing().map(|timing| timing.given), Some(Frames(960)));
    }

    #[test]
    fn a_stopped_ring_stays_where_it_is() {
        let ring = ring();
        let mut clock = NullClock::new(Nanos(0), false);
        assert!(!clock.drive(&ring, Nanos::from_millis(50)));
        assert_eq!(ring.cursor().position, Frames(0));
    }
}
