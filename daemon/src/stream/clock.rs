//! The position clock: what the guest is told of where its stream is.
//!
//! Pure arithmetic on the snapshots that a node publishes. The position
//! - never goes back,
//! - is never ahead of what the server was given (playback) or of what a READ can deliver (capture),
//! - runs on between the server's cycles, and through underruns, as hardware's does.

use vsnd_pw_module::{Cursor, Direction, Frames, Nanos, Timing};

/// Turns timing snapshots into the position at an instant. One per OPEN.
#[derive(Clone, Debug)]
pub struct PositionClock {
    direction: Direction,
    rate: u32,
    /// How far the reported position may lag behind the consumed one before the guest's ring could run dry.
    lag: Frames,
    last: Frames,
}

impl PositionClock {
    /// The clock of a stream opened with a ring of `buffer` frames and periods of `period` frames.
    ///
    /// Playback reports what is *heard*, so that the guest knows the whole latency. But what is heard and not yet reported
    /// can't be refilled by the guest: it needs one period to be woken in and one to write in. Where the server's latency
    /// leaves less room than that, the report stays a fixed lag behind what is *consumed* instead.
    pub fn new(direction: Direction, rate: u32, buffer: Frames, period: Frames) -> Self {
        let lag = Frames(buffer.0.saturating_sub(2 * period.0));
        Self { direction, rate, lag, last: Frames(0) }
    }

    /// The position at `now`.
    pub fn position(&mut self, cursor: Cursor, timing: Option<Timing>, now: Nanos) -> Frames {
        let reached = match (cursor.running, timing, self.direction) {
            // At rest the position is the stop's own: rounded up to a whole buffer.
            (false, _, _) => cursor.position,
            (true, None, _) => self.last,
            (true, Some(timing), Direction::Playback) => {
                let since = i64::try_from((now - timing.at).frames(self.rate).0).unwrap_or(i64::MAX);
                let heard = Frames(timing.heard.saturating_add(since).max(0).unsigned_abs());
                let floor = Frames(timing.given.0.saturating_sub(self.lag.0));
                heard.max(floor).min(timing.given)
            }
            (true, Some(timing), Direction::Capture) => timing.given,
        };
        self.last = self.last.max(reached);
        self.last
    }

    /// When the position is expected to reach `target`: by the clock's own extrapolation while the server was given
    /// enough, at the server's next cycle otherwise.
    pub fn when(&self, target: Frames, timing: Option<Timing>, now: Nanos) -> Nanos {
        let Some(timing) = timing else { return now + FIRST_CYCLE_POLL };
        let heard = i64::try_from(target.0).unwrap_or(i64::MAX).saturating_sub(timing.heard).max(0);
        let extrapolated = timing.at + Frames(heard.unsigned_abs()).duration(self.rate);
        if target <= timing.given && self.direction == Direction::Playback {
            return extrapolated;
        }
        let next_cycle = timing.at + timing.cycle.duration(self.rate) + CYCLE_LATENESS;
        if self.direction == Direction::Playback { next_cycle.max(extrapolated) } else { next_cycle }
    }
}

/// How soon to look again while a node has not had its first cycle.
const FIRST_CYCLE_POLL: Nanos = Nanos::from_millis(2);
/// How long after its time a cycle's snapshot is usually there.
const CYCLE_LATENESS: Nanos = Nanos(300_000);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: u32 = 48_000;

    fn running(position: u64) -> Cursor {
        Cursor { running: true, fresh: false, position: Frames(position) }
    }

    fn snapshot(at: i64, heard: i64, given: u64, cycle: u64) -> Option<Timing> {
        Some(Timing { at: Nanos(at), heard, given: Frames(given), cycle: Frames(cycle) })
    }

    #[test]
    fn playback_runs_between_cycles_and_stops_at_what_was_given() {
        let mut clock = PositionClock::new(Direction::Playback, RATE, Frames(24_000), Frames(6_000));
        let timing = snapshot(1_000_000_000, 0, 480, 480);
        assert_eq!(clock.position(running(480), timing, Nanos(1_005_000_000)), Frames(240));
        assert_eq!(clock.position(running(480), timing, Nanos(1_050_000_000)), Frames(480));
        assert_eq!(clock.position(running(480), timing, Nanos(1_001_000_000)), Frames(480), "never back");
    }

    #[test]
    fn a_short_ring_is_told_what_was_consumed() {
        let mut clock = PositionClock::new(Direction::Playback, RATE, Frames(480), Frames(240));
        let timing = snapshot(0, -9_600, 480, 480);
        assert_eq!(clock.position(running(480), timing, Nanos(0)), Frames(480));
    }

    #[test]
    fn latency_beyond_the_ring_leaves_the_guest_two_periods() {
        let mut clock = PositionClock::new(Direction::Playback, RATE, Frames(4_800), Frames(480));
        let timing = snapshot(0, 0, 9_600, 480);
        assert_eq!(clock.position(running(9_600), timing, Nanos(0)), Frames(9_600 - 3_840));
    }

    #[test]
    fn capture_reports_what_a_read_can_deliver() {
        let mut clock = PositionClock::new(Direction::Capture, RATE, Frames(4_800), Frames(480));
        let timing = snapshot(0, 128, 256, 128);
        assert_eq!(clock.position(running(256), timing, Nanos(1_000_000_000)), Frames(256));
    }

    #[test]
    fn a_stop_moves_to_the_whole_buffer() {
        let mut clock = PositionClock::new(Direction::Playback, RATE, Frames(4_800), Frames(480));
        clock.position(running(480), snapshot(0, 0, 480, 480), Nanos(5_000_000));
        let stopped = Cursor { running: false, fresh: false, position: Frames(4_800) };
        assert_eq!(clock.position(stopped, None, Nanos(6_000_000)), Frames(4_800));
        assert_eq!(
            clock.position(running(4_800), None, Nanos(7_000_000)),
            Frames(4_800),
            "before the first cycle"
        );
    }

    proptest! {
        /// Cycles of any length, late and with any latency: monotonic, and never beyond what was given.
        #[test]
        fn the_position_is_monotonic_and_never_ahead(
            buffer in 2u64..20_000, period in 1u64..5_000,
            cycles in proptest::collection::vec((1u64..4_096, 0i64..20_000_000, 0i64..9_600), 1..100),
        ) {
            let mut clock = PositionClock::new(Direction::Playback, RATE, Frames(buffer), Frames(period));
            let (mut at, mut given, mut last) = (Nanos(0), 0u64, Frames(0));
            for (cycle, late, latency) in cycles {
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
}
