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

/// The newest [`Timing`], readable at any time without a lock: a seqlock with two slots. The next snapshot is written beside the newest, so
/// a writer that is interrupted holds up no reader, whatever the priority of either. A writer that finds another at work gives up.
#[derive(Default)]
pub(crate) struct Snapshot {
    /// Twice the number of snapshots written, and one more while the next is: number `n` lies in slot `n % 2`. Counts on through
    /// every run: a number that came again would let a reader take parts of two snapshots for one.
    sequence: AtomicU32,
    slots: [Slot; 2],
}

#[derive(Default)]
struct Slot {
    /// Whether there is a snapshot of this run.
    published: AtomicBool,
    at: AtomicI64,
    heard: AtomicI64,
    given: AtomicU64,
    cycle: AtomicU64,
}

impl Slot {
    fn fill(&self, timing: Option<Timing>) {
        self.published.store(timing.is_some(), Ordering::Relaxed);
        if let Some(timing) = timing {
            self.at.store(timing.at.0, Ordering::Relaxed);
            self.heard.store(timing.heard, Ordering::Relaxed);
            self.given.store(timing.given.0, Ordering::Relaxed);
            self.cycle.store(timing.cycle.0, Ordering::Relaxed);
        }
    }

    fn read(&self) -> Option<Timing> {
        let timing = Timing {
            at: Nanos(self.at.load(Ordering::Relaxed)),
            heard: self.heard.load(Ordering::Relaxed),
            given: Frames(self.given.load(Ordering::Relaxed)),
            cycle: Frames(self.cycle.load(Ordering::Relaxed)),
        };
        self.published.load(Ordering::Relaxed).then_some(timing)
    }
}

impl Snapshot {
    fn slot(&self, sequence: u32) -> &Slot {
        let [even, odd] = &self.slots;
        if (sequence / 2).is_multiple_of(2) { even } else { odd }
    }

    /// The sequence at which nobody wrote, and now this writer alone does; `None` when another is at work.
    fn claim(&self) -> Option<u32> {
        let sequence = self.sequence.load(Ordering::Relaxed);
        let claimed = sequence.is_multiple_of(2)
            && self
                .sequence
                .compare_exchange(sequence, sequence + 1, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        claimed.then_some(sequence)
    }

    /// Returns whether nobody else was writing.
    fn write(&self, timing: Option<Timing>) -> bool {
        let Some(sequence) = self.claim() else { return false };
        let next = sequence.wrapping_add(2);
        // Who sees any of the stores that follow sees the claim.
        fence(Ordering::Release);
        self.slot(next).fill(timing);
        self.sequence.store(next, Ordering::Release);
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

    /// For a callback: it looks again only when a whole snapshot and a part of the one after it were written meanwhile.
    pub(crate) fn load(&self) -> Option<Timing> {
        loop {
            let newest = self.sequence.load(Ordering::Acquire) & !1;
            let timing = self.slot(newest).read();
            fence(Ordering::Acquire);
            if self.sequence.load(Ordering::Relaxed).wrapping_sub(newest) <= 2 {
                return timing;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_is_interrupted_holds_up_no_reader() {
        let newest = Snapshot::default();
        assert_eq!(newest.load(), None);
        newest.claim().unwrap();
        assert_eq!(newest.load(), None);

        let newest = Snapshot::default();
        let timing = Timing { at: Nanos(7), heard: 7, given: Frames(7), cycle: Frames(7) };
        newest.store(timing);
        let next = newest.claim().unwrap() + 2;
        newest.slot(next).fill(None);
        assert_eq!(newest.load(), Some(timing));
        newest.store(Timing::default());
        assert_eq!(newest.load(), Some(timing), "there is one writer");
    }

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
