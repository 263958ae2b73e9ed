//! What a node says of its clock after each cycle.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

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
    /// Even: at rest. Zero: nothing published yet.
    sequence: AtomicU32,
    at: AtomicI64,
    heard: AtomicI64,
    given: AtomicU64,
    cycle: AtomicU64,
}

impl Snapshot {
    fn begin(&self) -> Option<u32> {
        let sequence = self.sequence.load(Ordering::Relaxed);
        if sequence % 2 == 1 {
            return None;
        }
        let claimed = self
            .sequence
            .compare_exchange(sequence, sequence + 1, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        std::sync::atomic::fence(Ordering::Release);
        claimed.then_some(sequence)
    }

    pub(crate) fn store(&self, timing: Timing) {
        let Some(sequence) = self.begin() else { return };
        self.at.store(timing.at.0, Ordering::Relaxed);
        self.heard.store(timing.heard, Ordering::Relaxed);
        self.given.store(timing.given.0, Ordering::Relaxed);
        self.cycle.store(timing.cycle.0, Ordering::Relaxed);
        // 0 means "nothing yet", so the count skips it when it wraps.
        let next = sequence.wrapping_add(2);
        self.sequence.store(if next == 0 { 2 } else { next }, Ordering::Release);
    }

    pub(crate) fn clear(&self) {
        while self.begin().is_none() {
            std::hint::spin_loop();
        }
        self.sequence.store(0, Ordering::Release);
    }

    pub(crate) fn load(&self) -> Option<Timing> {
        loop {
            let before = self.sequence.load(Ordering::Acquire);
            if before == 0 {
                return None;
            }
            let timing = Timing {
                at: Nanos(self.at.load(Ordering::Relaxed)),
                heard: self.heard.load(Ordering::Relaxed),
                given: Frames(self.given.load(Ordering::Relaxed)),
                cycle: Frames(self.cycle.load(Ordering::Relaxed)),
            };
            std::sync::atomic::fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                return Some(timing);
            }
            std::hint::spin_loop();
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
