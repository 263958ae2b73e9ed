//! How far a ring has come.

use crate::sync::{AtomicU64, Ordering};
use crate::units::{Frames, Nanos};
#[cfg(not(loom))]
use crate::{Counters, OutOfRange, Pages};

/// Whether the converter runs, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Between START and STOP.
    pub running: bool,
    /// Running, and not moved since START.
    pub fresh: bool,
    /// Frames consumed (playback) or captured since OPEN, counting whole buffers for the rest after a stop.
    pub position: Frames,
}

const RUNNING: u64 = 1 << 63;
const FRESH: u64 = 1 << 62;

impl Cursor {
    fn pack(self) -> u64 {
        let flags = if self.running { RUNNING } else { 0 } | if self.fresh { FRESH } else { 0 };
        (self.position.0 & !(RUNNING | FRESH)) | flags
    }

    fn unpack(word: u64) -> Self {
        let position = Frames(word & !(RUNNING | FRESH));
        Self { running: word & RUNNING != 0, fresh: word & FRESH != 0, position }
    }
}

/// A ring's marks, each a word of its own: in memory of the ring's own (the default), or in pages that outlive the process,
/// so that the next one takes the ring over where it stood. At rest at position 0 as long as all words are zero.
#[derive(Default)]
pub struct Marks(Words);

const WORDS: usize = 4;
#[cfg(not(loom))]
type Words = Counters<WORDS>;
/// The model knows its own atomics only.
#[cfg(loom)]
type Words = [AtomicU64; WORDS];

impl Marks {
    /// What marks need of a page.
    pub const OCTETS: usize = 8 * WORDS;

    /// The marks at `offset` of `pages`, as they stand there.
    ///
    /// # Errors
    /// [`OutOfRange`], also when `offset` isn't a multiple of eight.
    #[cfg(not(loom))]
    pub fn of(pages: &Pages, offset: usize) -> Result<Self, OutOfRange> {
        Ok(Self(Counters::of(pages, offset)?))
    }

    /// At rest at position 0, nothing written nor told.
    pub fn reset(&self) {
        for word in self.0.iter() {
            word.store(0, Ordering::Release);
        }
    }

    /// A packed [`Cursor`]: one word, so that a stop and a cycle at the same time agree on the order.
    fn cursor_word(&self) -> &AtomicU64 {
        &self.0[0]
    }

    /// Whether the converter runs, and where it is.
    pub fn cursor(&self) -> Cursor {
        Cursor::unpack(self.cursor_word().load(Ordering::Acquire))
    }

    /// Changes the cursor. Returns it as it was before.
    pub(crate) fn move_cursor(&self, change: impl Fn(Cursor) -> Cursor) -> Cursor {
        let word = self.cursor_word();
        let mut seen = word.load(Ordering::Acquire);
        loop {
            let next = change(Cursor::unpack(seen));
            match word.compare_exchange_weak(seen, next.pack(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Cursor::unpack(seen),
                Err(newer) => seen = newer,
            }
        }
    }

    /// Moves the cursor unless somebody else was faster; whether it did.
    pub(crate) fn advance(&self, from: Cursor, to: Cursor) -> bool {
        let word = self.cursor_word();
        word.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The position up to which the guest has written (playback).
    pub fn written(&self) -> Frames {
        Frames(self.0[1].load(Ordering::Acquire))
    }

    pub(crate) fn set_written(&self, position: Frames) {
        self.0[1].store(position.0, Ordering::Release);
    }

    /// The position that the guest was last told.
    pub fn told(&self) -> Frames {
        Frames(self.0[2].load(Ordering::Acquire))
    }

    pub(crate) fn set_told(&self, position: Frames) {
        self.0[2].store(position.0, Ordering::Release);
    }

    /// When a node last served the ring, by CLOCK_MONOTONIC; the lowest value before the first time.
    pub fn last_cycle(&self) -> Nanos {
        Nanos(self.0[3].load(Ordering::Acquire).cast_signed() ^ i64::MIN)
    }

    pub(crate) fn set_last_cycle(&self, now: Nanos) {
        // So that the lowest value is the word of a ring that begins.
        self.0[3].store((now.0 ^ i64::MIN).cast_unsigned(), Ordering::Release);
    }
}
