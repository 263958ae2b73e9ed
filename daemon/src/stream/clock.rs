//! The position clock: what the guest is told of where its stream is.
//!
//! Pure arithmetic on the snapshots that a node publishes. The position
//! - never goes back,
//! - is never ahead of what the server was given (playback) or of what a READ can deliver (capture),
//! - runs on between the server's cycles, and through underruns, as hardware's does,
//! - keeps a constant distance from what is heard or captured at the same instant, so that a guest's playback and capture
//!   refer to one clock.
//!
//! No filter smooths the snapshots. They carry the instant that they belong to, so a late callback does not disturb
//! them, and what jitter they have is of the order of a frame (docs/timing.md); a filter would only answer later.

use vsnd_pw_module::{Cursor, Direction, Frames, Nanos, Timing};

/// Turns timing snapshots into the position at an instant. One per OPEN.
#[derive(Clone, Debug)]
pub struct PositionClock {
    direction: Direction,
    rate: u32,
    /// How far the reported position may lag behind the consumed or captured one before the guest's ring runs dry or
    /// over.
    slack: Frames,
    distance: Option<Distance>,
    last: Frames,
}

/// How far this run's reported positions are from the sound.
#[derive(Clone, Copy, Debug)]
struct Distance {
    /// Frames by which the reported position is ahead of the heard (playback) or captured (capture) one.
    offset: i64,
    /// When the run's first snapshot was taken.
    since: Nanos,
}

impl PositionClock {
    /// The clock of a stream opened with a ring of `buffer` frames and periods of `period` frames.
    ///
    /// Playback reports what is *heard*, so that the guest knows the whole latency. But what is heard and not yet reported
    /// can't be refilled by the guest: it needs one period to be woken in and one to write in. Where the server's latency
    /// leaves less room than that, the report stays a fixed distance ahead of what is heard instead.
    pub fn new(direction: Direction, rate: u32, buffer: Frames, period: Frames) -> Self {
        let slack = Frames(buffer.0.saturating_sub(2 * period.0));
        Self { direction, rate, slack, distance: None, last: Frames(0) }
    }

    /// The position at `now`.
    pub fn position(&mut self, cursor: Cursor, timing: Option<Timing>, now: Nanos) -> Frames {
        let reached = match (cursor.running, timing) {
            // At rest the position is the stop's own: rounded up to a whole buffer.
            (false, _) => {
                self.distance = None;
                cursor.position
            }
            (true, None) => self.last,
            (true, Some(timing)) => {
                let offset = self.needed_offset(timing);
                self.distance = Some(Distance { offset, since: self.since(timing) });
                let since = signed((now - timing.at).frames(self.rate));
                let told = timing.heard.saturating_add(offset).saturating_add(since);
                Frames(told.max(0).unsigned_abs()).min(timing.given)
            }
        };
        self.last = self.last.max(reached);
        self.last
    }

    /// Frames by which the position that the guest is told is ahead of the sound, in this run: what an honest report of
    /// the stream's latency has to add. Playback: heard so much later than told, because the ring is too short to tell the
    /// whole latency. Capture: negative; captured so much earlier than told, because a READ can't deliver it sooner.
    pub fn offset(&self) -> i64 {
        self.distance.map_or(0, |distance| distance.offset)
    }

    fn since(&self, timing: Timing) -> Nanos {
        self.distance.map_or(timing.at, |distance| distance.since)
    }

    /// The offset that `timing` asks for. Once it has settled it only changes where it must, so that the distance to the sound
    /// stays the same for the run.
    fn needed_offset(&self, timing: Timing) -> i64 {
        let ahead = signed(timing.given).saturating_sub(timing.heard);
        let least = ahead.saturating_sub(signed(self.slack));
        let settled = timing.at - self.since(timing) >= SETTLING;
        let kept = if settled { self.offset() } else { 0 };
        match self.direction {
            Direction::Playback => kept.max(least),
            Direction::Capture => {
                // Up to the end of the cycle the clock must not pass what the ring holds, or it would have to wait.
                let most = ahead.saturating_sub(signed(timing.cycle));
                kept.min(most).max(least)
            }
        }
    }

    /// When the position is expected to reach `target`: by the clock's own extrapolation while the server was given
    /// enough, at the server's next cycle otherwise.
    pub fn when(&self, target: Frames, timing: Option<Timing>, now: Nanos) -> Nanos {
        let Some(timing) = timing else { return now + FIRST_CYCLE_POLL };
        let left = signed(target).saturating_sub(timing.heard).saturating_sub(self.needed_offset(timing));
        // A frame is reached at its end, and durations are cut to whole nanoseconds.
        let extrapolated = timing.at + Frames(left.max(0).unsigned_abs()).duration(self.rate) + Nanos(1);
        if target <= timing.given {
            return extrapolated;
        }
        extrapolated.max(timing.at + timing.cycle.duration(self.rate) + CYCLE_LATENESS)
    }
}

fn signed(frames: Frames) -> i64 {
    i64::try_from(frames.0).unwrap_or(i64::MAX)
}

/// For how long at the beginning of a run the offset follows the newest snapshot. The first ones are the worst: a server that
/// has much to do as streams begin makes its first report, or delivers its first frames, later than all others. What they
/// ask for must not be the run's.
const SETTLING: Nanos = Nanos::from_millis(200);
/// How soon to look again while a node has not had its first cycle.
const FIRST_CYCLE_POLL: Nanos = Nanos::from_millis(2);
/// How long after its time a cycle's snapshot is usually there.
const CYCLE_LATENESS: Nanos = Nanos(300_000);

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
