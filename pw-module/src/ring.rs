//! The joint between a stream and a server: a ring of shared memory that a converter reads (playback) or fills (capture).
//!
//! A ring has hardware semantics. Position `p` of a run lies at ring offset `p mod buffer`, always: a stop rounds the
//! position up to a whole buffer, so that every start begins at offset 0 (sndif and ALSA expect it) and the position
//! never goes back. What the guest writes late for a passed position is never played, so latency can't grow; where it
//! wrote nothing, silence is played and the position runs on.
#![allow(unsafe_code)] // the pages are taken out of a cell that real-time readers share

use std::sync::Arc;

use crate::gain::{Gains, Meter};
use crate::sync::{AtomicU32, AtomicU64, Ordering, UnsafeCell, yield_now};
use crate::timing::Snapshot;
use crate::units::{Frames, Nanos, Octets};
use crate::write::resolve_write;
use crate::{Cursor, Marks, Pages, StreamFormat, Timing};

/// Which way the frames go, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The guest writes, the desktop hears.
    Playback,
    /// The desktop's sound is written into the guest's ring.
    Capture,
}

/// How many frames the first cycle of a run moves. A guest takes a period for elapsed when the position is *beyond* its
/// end. If cycles and periods have the same length, or one divides the other, a run that moved whole cycles from the
/// start would come to stand on the ends themselves, and every period would elapse a cycle late, or two at once.
const LEAD_IN: u64 = 16;

/// The frames that a cycle of `frames` moves.
fn moved(cursor: Cursor, frames: Frames) -> Frames {
    if cursor.fresh { Frames(LEAD_IN.min(frames.0.div_ceil(2))) } else { frames }
}

/// The ring was closed: its memory is the guest's again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring is closed")]
pub struct RingClosed;

/// A ring shared by one stream, which starts, stops and closes it, and its reader of the moment.
///
/// The methods named for a callback ([`play`](Self::play), [`capture`](Self::capture), [`publish`](Self::publish))
/// neither allocate, lock, log, call the system, loop without bound nor panic.
pub struct PcmRing {
    direction: Direction,
    format: StreamFormat,
    buffer: Frames,
    /// [`CLOSED`] and the number of accesses under way.
    gate: AtomicU32,
    /// `None` once closed. Reached only inside the gate, or after it is closed and empty.
    pages: UnsafeCell<Option<Pages>>,
    marks: Marks,
    /// How many nodes have a stream on a server, or are about to.
    attached: AtomicU32,
    starved: AtomicU64,
    underruns: AtomicU64,
    missed_cycles: AtomicU64,
    timing: Snapshot,
    gains: Gains,
    meter: Meter,
}

const CLOSED: u32 = 1 << 31;

/// Octets that the longest frame has at most: 255 channels of 8.
const LONGEST_FRAME: usize = 2048;

// SAFETY: `pages` is the only part that isn't Sync by itself. It is read only by accesses counted in `gate`, and taken
// out only by `close`, which first turns new accesses away and then waits until none is under way.
unsafe impl Sync for PcmRing {}

impl PcmRing {
    /// A ring of `buffer` frames at the beginning of `pages`, at rest at position 0.
    pub fn new(direction: Direction, format: StreamFormat, buffer: Frames, pages: Pages) -> Self {
        Self::with_marks(direction, format, buffer, pages, Marks::default())
    }

    /// A ring of `buffer` frames at the beginning of `pages`, as far as its marks say.
    pub fn with_marks(
        direction: Direction,
        format: StreamFormat,
        buffer: Frames,
        pages: Pages,
        marks: Marks,
    ) -> Self {
        debug_assert!(format.octets(buffer).0 <= pages.len() as u64);
        Self {
            direction,
            format,
            buffer: Frames(buffer.0.max(1)),
            gate: AtomicU32::new(0),
            pages: UnsafeCell::new(Some(pages)),
            marks,
            attached: AtomicU32::new(0),
            starved: AtomicU64::new(0),
            underruns: AtomicU64::new(0),
            missed_cycles: AtomicU64::new(0),
            timing: Snapshot::default(),
            gains: Gains::new(format.channels()),
            meter: Meter::new(format.channels()),
        }
    }

    /// Playback or capture.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The shape of the frames.
    pub fn format(&self) -> StreamFormat {
        self.format
    }

    /// The ring's length.
    pub fn buffer(&self) -> Frames {
        self.buffer
    }

    /// Whether the converter runs, and where it is. That of a closed ring doesn't run.
    pub fn cursor(&self) -> Cursor {
        let cursor = self.marks.cursor();
        let closed = self.gate.load(Ordering::Acquire) & CLOSED != 0;
        Cursor { running: cursor.running && !closed, ..cursor }
    }

    /// The position up to which the guest has written (playback).
    pub fn written(&self) -> Frames {
        self.marks.written()
    }

    /// The position that the guest was last told.
    pub fn told(&self) -> Frames {
        self.marks.told()
    }

    /// The guest is about to be told `position`.
    pub fn tell(&self, position: Frames) {
        self.marks.set_told(position);
    }

    /// Frames of silence that were played because the guest had not written them.
    pub fn starved(&self) -> Frames {
        Frames(self.starved.load(Ordering::Relaxed))
    }

    /// How often playback ran out of written frames.
    pub fn underruns(&self) -> u64 {
        self.underruns.load(Ordering::Relaxed)
    }

    /// How often the server's graph ran without the node, or too late for it: an interruption that was heard (playback),
    /// or a hole in the recording (capture).
    pub fn missed_cycles(&self) -> u64 {
        self.missed_cycles.load(Ordering::Relaxed)
    }

    /// Whether a node serves the ring, or is about to, as far as its server knows: without one nobody need be waited for.
    pub fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire) > 0
    }

    /// When a node last served the ring; the lowest value before the first time.
    pub fn last_cycle(&self) -> Nanos {
        self.marks.last_cycle()
    }

    /// The newest snapshot, if any was published in this run.
    pub fn timing(&self) -> Option<Timing> {
        self.timing.load()
    }

    /// Each channel's greatest sample of the last 100 to 200 ms before `now`, of a full scale of 1: with the gain of this
    /// ring, and without the user's slider at the server.
    pub fn levels(&self, now: Nanos) -> Vec<f32> {
        self.meter.levels(now)
    }

    // ---- the stream's side ----------------------------------------------------------------------------------------

    /// START: the converter runs from the present position, which lies at ring offset 0.
    pub fn start(&self) {
        self.timing.clear();
        self.marks.move_cursor(|cursor| Cursor { running: true, fresh: true, ..cursor });
    }

    /// STOP: the position is rounded up to a whole buffer and what was written is forgotten. Returns the cursor as it
    /// was before, from which [`resume`](Self::resume) can go on.
    pub fn stop(&self) -> Stopped {
        let buffer = self.buffer;
        let was = self.marks.move_cursor(|cursor| Cursor {
            running: false,
            fresh: false,
            position: cursor.position.round_up_to(buffer),
        });
        let written = self.written().max(was.position);
        self.marks.set_written(self.cursor().position);
        self.timing.clear();
        Stopped { position: was.position, ahead: written - was.position }
    }

    /// RESUME after a pause: goes on at the ring offset where `stopped` left, with the frames written ahead of it.
    pub fn resume(&self, stopped: Stopped) {
        let offset = Frames(stopped.position.0 % self.buffer.0);
        let base = self.cursor().position;
        self.marks.set_written(base + offset + stopped.ahead);
        self.timing.clear();
        self.marks.move_cursor(|_| Cursor { running: true, fresh: true, position: base + offset });
    }

    /// WRITE: the guest has put `length` frames at ring offset `offset`, believing the converter to be at `known` (the
    /// last position it was told).
    ///
    /// The offset is absolute in the ring: it may append, skip ahead, or rewind and rewrite what isn't played yet. The
    /// guest keeps its own end within one buffer after `known`, which tells a skip from a rewind.
    pub fn wrote(&self, offset: Frames, length: Frames, known: Frames) {
        let written = self.written();
        let end = resolve_write(self.buffer, written, known, offset, length);
        self.marks.set_written(end.max(written));
    }

    /// Sets the factor by which each channel is multiplied, as an amplitude. A change is a slope of 10 ms or of the cycle if
    /// that is shorter; a run begins with the factors as they are.
    pub fn set_gain(&self, factors: &[f32]) {
        self.gains.set(factors);
    }

    /// CLOSE: takes the memory away from readers, waiting for a copy under way (microseconds), and unmaps it. A reader
    /// finds silence from now on, and leaves the marks as they are: they may be another ring's by then.
    pub fn close(&self) {
        let before = self.gate.fetch_or(CLOSED, Ordering::AcqRel);
        if before & CLOSED != 0 {
            return;
        }
        while self.gate.load(Ordering::Acquire) != CLOSED {
            yield_now();
        }
        // SAFETY: the gate is closed and empty: no access to the cell is under way and none can begin.
        let pages = self.pages.with_mut(|pages| unsafe { (*pages).take() });
        drop(pages);
    }

    /// Copies octets of the ring, such as a volume array that lies in it.
    ///
    /// # Errors
    /// [`RingClosed`]; also for a range outside the ring.
    pub fn read(&self, offset: Octets, out: &mut [u8]) -> Result<(), RingClosed> {
        self.with_pages(|pages| pages.read(offset.0 as usize, out).map_err(|_| RingClosed))
            .ok_or(RingClosed)?
    }

    /// Copies octets into the ring.
    ///
    /// # Errors
    /// [`RingClosed`]; also for a range outside the ring.
    pub fn write(&self, offset: Octets, from: &[u8]) -> Result<(), RingClosed> {
        self.with_pages(|pages| pages.write(offset.0 as usize, from).map_err(|_| RingClosed))
            .ok_or(RingClosed)?
    }

    // ---- the reader's side ----------------------------------------------------------------------------------------

    /// A node has a stream on a server that answers, or is about to, until the result is dropped.
    pub fn attach(self: &Arc<Self>) -> Attachment {
        self.attached.fetch_add(1, Ordering::AcqRel);
        Attachment(Arc::clone(self))
    }

    fn with_pages<T>(&self, access: impl FnOnce(&Pages) -> T) -> Option<T> {
        let before = self.gate.fetch_add(1, Ordering::AcqRel);
        let result = if before & CLOSED == 0 {
            // SAFETY: this access is counted in the gate, so `close` won't take the pages out until it has ended.
            self.pages.with(|pages| unsafe { (*pages).as_ref() }.map(access))
        } else {
            None
        };
        self.gate.fetch_sub(1, Ordering::AcqRel);
        result
    }

    /// A playback cycle at `now`: fills `out` (whole frames) with the next frames, silence where there are none, and
    /// moves on. Returns the position of the first frame in `out`, which in a run's first cycle lies before the run, or
    /// `None` when the ring is at rest or closed.
    ///
    /// For a callback.
    pub fn play(&self, now: Nanos, out: &mut [u8]) -> Option<i64> {
        let first = self.with_pages(|pages| self.play_from(pages, now, out)).flatten();
        if first.is_none() {
            self.format.fill_silence(out);
        }
        first
    }

    fn play_from(&self, pages: &Pages, now: Nanos, out: &mut [u8]) -> Option<i64> {
        let size = self.format.frame_octets() as usize;
        let frames = Frames((out.len() / size) as u64);
        self.marks.set_last_cycle(now);
        let cursor = self.cursor();
        if !cursor.running {
            return None;
        }
        let moved = moved(cursor, frames);
        let (before, out) = out.split_at_mut((frames - moved).0 as usize * size);
        self.format.fill_silence(before);
        let written = self.written();
        let ready = Frames(written.0.saturating_sub(cursor.position.0)).min(moved).min(self.buffer);
        let (sound, silence) = out.split_at_mut(ready.0 as usize * size);
        for (ring_offset, part) in segments(self.buffer, size, cursor.position, sound.len()) {
            if let Some(part) = sound.get_mut(part) {
                let _ = pages.read(ring_offset, part);
            }
        }
        if cursor.fresh {
            self.gains.settle();
        }
        self.meter.turn(now);
        self.gains.apply_to_guest(self.format, sound, &self.meter);
        self.format.fill_silence(silence);
        self.advance(cursor, moved, moved - ready);
        Some(first_of(cursor, moved, frames))
    }

    /// A capture cycle at `now`: puts the frames of `input` into the ring and moves on. Returns the position of the
    /// first of them, which in a run's first cycle lies before the run, or `None` when the ring is at rest or closed.
    ///
    /// For a callback.
    pub fn capture(&self, now: Nanos, input: &[u8]) -> Option<i64> {
        self.with_pages(|pages| self.capture_into(pages, now, input)).flatten()
    }

    fn capture_into(&self, pages: &Pages, now: Nanos, input: &[u8]) -> Option<i64> {
        let size = self.format.frame_octets() as usize;
        let frames = Frames((input.len() / size) as u64);
        self.marks.set_last_cycle(now);
        let cursor = self.cursor();
        if !cursor.running {
            return None;
        }
        let moved = moved(cursor, frames);
        // More than a whole ring in one cycle: only the newest frames find room, as in hardware.
        let lost = Frames(moved.0.saturating_sub(self.buffer.0));
        let kept = input.get((frames - moved + lost).0 as usize * size..frames.0 as usize * size)?;
        if cursor.fresh {
            self.gains.settle();
        }
        self.meter.turn(now);
        for (ring_offset, part) in segments(self.buffer, size, cursor.position + lost, kept.len()) {
            if let Some(part) = kept.get(part) {
                self.record(pages, ring_offset, part);
            }
        }
        self.advance(cursor, moved, Frames(0));
        Some(first_of(cursor, moved, frames))
    }

    /// Puts recorded frames into the ring, with their gain: in pieces, as the server's memory is not ours to write.
    fn record(&self, pages: &Pages, mut ring_offset: usize, frames: &[u8]) {
        if self.gains.is_unity() {
            self.gains.look(self.format, frames, &self.meter);
            let _ = pages.write(ring_offset, frames);
            return;
        }
        let size = self.format.frame_octets() as usize;
        let mut piece = [0; LONGEST_FRAME];
        for frames in frames.chunks(LONGEST_FRAME - LONGEST_FRAME % size) {
            let Some(piece) = piece.get_mut(..frames.len()) else { continue };
            piece.copy_from_slice(frames);
            self.gains.apply(self.format, piece, &self.meter);
            let _ = pages.write(ring_offset, piece);
            ring_offset += piece.len();
        }
    }

    /// Moves on by `frames` without a server: playback is consumed unheard, capture is silence.
    pub(crate) fn pass_unheard(&self, frames: Frames) {
        let cursor = self.cursor();
        if !cursor.running {
            return;
        }
        match self.direction {
            Direction::Playback => {
                let ready = Frames(self.written().0.saturating_sub(cursor.position.0)).min(frames);
                self.advance(cursor, frames, frames - ready);
            }
            Direction::Capture => {
                let size = self.format.frame_octets() as usize;
                let kept = frames.min(self.buffer);
                let mut silence = vec![0; kept.0 as usize * size];
                self.format.fill_silence(&mut silence);
                self.with_pages(|pages| {
                    for (offset, part) in
                        segments(self.buffer, size, cursor.position + frames - kept, silence.len())
                    {
                        let _ = pages.write(offset, &silence[part]);
                    }
                });
                self.advance(cursor, frames, Frames(0));
            }
        }
    }

    /// Moves the cursor unless a stop or another reader was faster, and counts what was missing.
    fn advance(&self, from: Cursor, frames: Frames, missing: Frames) {
        let next = Cursor { running: true, fresh: false, position: from.position + frames };
        let moved = self.marks.advance(from, next);
        if moved && missing > Frames(0) {
            if missing < frames || from.position == self.written() {
                self.underruns.fetch_add(1, Ordering::Relaxed);
            }
            self.starved.fetch_add(missing.0, Ordering::Relaxed);
        }
    }

    /// The server's graph ran without the node.
    ///
    /// For a callback.
    pub fn missed_cycle(&self) {
        self.missed_cycles.fetch_add(1, Ordering::Relaxed);
    }

    /// Publishes what the cycle says of the server's clock.
    ///
    /// For a callback.
    pub fn publish(&self, timing: Timing) {
        self.timing.store(timing);
    }
}

/// That a node serves a ring, or is about to.
pub struct Attachment(Arc<PcmRing>);

impl Drop for Attachment {
    fn drop(&mut self) {
        self.0.attached.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The position of a cycle's first frame, of which the last `moved` count.
fn first_of(cursor: Cursor, moved: Frames, frames: Frames) -> i64 {
    let signed = |frames: Frames| i64::try_from(frames.0).unwrap_or(i64::MAX);
    signed(cursor.position) - signed(frames - moved)
}

/// What a stop left: where the converter was, and how many frames were written ahead of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// The position at the moment of the stop.
    pub position: Frames,
    /// Frames written and not yet consumed.
    pub ahead: Frames,
}

/// The parts of `len` octets from `position`, cut where the ring wraps: (octet offset in the ring, range in the copy).
/// There are at most two, as nobody moves more than one ring at a time.
fn segments(
    buffer: Frames,
    size: usize,
    position: Frames,
    len: usize,
) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
    let start = (position.0 % buffer.0) as usize * size;
    let first = len.min(buffer.0 as usize * size - start);
    [(start, 0..first), (0, first..len)].into_iter().filter(|(_, part)| !part.is_empty())
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
