//! What a node says of its clock after each cycle.

use crate::sync::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering, fence, spin_loop};
use crate::units::{Frames, Nanos};

/// One snapshot of a ring's progress, published by the reader at the end of a cycle.
///
/// Positions are frames of the stream's own rate, on the ring's monotonic scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// The instant of CLOCK_MONOTONIC that `heard` belongs to; the cycle's wake-up, as the server stamps it.
    pub at: Nanos,
    /// The position that left the loudspeaker (playback), or entered the microphone (capture), at `at`.
    /// Before the first frame is heard this lies below the run's first position and is clamped by the clock.
    pub heard: i64,
    /// The position up to which frames are with the server (playback) or in the ring (capture).
    pub given: Frames,
    /// The length of this cycle: how far `given` moves at a time.
    pub cycle: Frames,
}

/// The newest [`Timing`], readable at any time without a lock (a seqlock). A writer that finds another at work gives up.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// Even: at rest. Counts on through every run: a number that came again would let a reader take parts of two
    /// snapshots for one.
    sequence: AtomicU32,
    /// Whether there is a snapshot of this run.
    published: AtomicBool,
    at: AtomicI64,
    heard: AtomicI64,
    given: AtomicU64,
    cycle: AtomicU64,
}

impl Snapshot {
    /// Returns whether nobody else was writing.
    fn write(&self, timing: Option<Timing>) -> bool {
        let sequence = self.sequence.load(Ordering::Relaxed);
        let at_rest = sequence.is_multiple_of(2);
        let claim = |from| {
            self.sequence.compare_exchange(from, from + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        if !at_rest || !claim(sequence) {
            return false;
        }
        fence(Ordering::Release);
        self.published.store(timing.is_some(), Ordering::Relaxed);
        if let Some(timing) = timing {
            self.at.store(timing.at.0, Ordering::Relaxed);
            self.heard.store(timing.heard, Ordering::Relaxed);
            self.given.store(timing.given.0, Ordering::Relaxed);
            self.cycle.store(timing.cycle.0, Ordering::Relaxed);
        }
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
        true
    }

    pub(crate) fn store(&self, timing: Timing) {
        self.write(Some(timing));
    }

    pub(crate) fn clear(&self) {
        while !self.write(None) {
            spin_loop();
        }
    }

    pub(crate) fn load(&self) -> Option<Timing> {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            let published = self.published.load(Ordering::Relaxed);
            let timing = Timing {
                at: Nanos(self.at.load(Ordering::Relaxed)),
                heard: self.heard.load(Ordering::Relaxed),
                given: Frames(self.given.load(Ordering::Relaxed)),
                cycle: Frames(self.cycle.load(Ordering::Relaxed)),
            };
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                return published.then_some(timing);
            }
            spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_whole_while_they_are_written() {
        let newest = Snapshot::default();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 1..200_000_u64 {
                    let heard = n as i64;
                    newest.store(Timing { at: Nanos(heard), heard, given: Frames(n), cycle: Frames(n) });
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                if let Some(seen) = newest.load() {
                    let n = seen.heard as u64;
                    assert_eq!((seen.at.0, seen.given.0, seen.cycle.0), (seen.heard, n, n));
                }
            }
        });
    }
}
