//! An application in the guest that plays without end, and what its kernel was told meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use vsnd_bridge::sim::frontend::{HwParams, PcmError, PcmHandle, Seen};
use vsnd_pw_module::{Direction, Nanos, monotonic_now};
use vsnd_tests::rings::eventually;

use super::machine::Running;

const PERIOD: u64 = 480;
const BUFFER: u64 = 9_600;
const RATE: i64 = 48_000;

/// How long the guest may go without a new position.
const LONGEST_GAP: Nanos = Nanos::from_millis(100);
/// How long it has to go on well, to be called well.
pub const A_WHILE: Nanos = Nanos::from_millis(500);
/// How long a request that isn't a START may wait for its answer on a busy machine. It is a hundred microseconds on an idle one.
const ANSWER: Nanos = Nanos::from_millis(50);

/// aplay.
pub struct Player {
    pcm: Arc<PcmHandle>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), PcmError>>>,
    seen: Mutex<Vec<Seen>>,
}

impl Player {
    /// Plays a tone.
    pub fn start(guest: &Running) -> Self {
        Self::forgiving(guest, None)
    }

    /// Plays a tone, and writes again after this error.
    pub fn forgiving(guest: &Running, forgiven: Option<PcmError>) -> Self {
        let pcm = Arc::new(guest.card.open(0, Direction::Playback).unwrap());
        pcm.hw_params(HwParams::cd(PERIOD, BUFFER)).unwrap();
        pcm.watch_positions();
        let stop = Arc::new(AtomicBool::new(false));
        let (playing, stopping) = (Arc::clone(&pcm), Arc::clone(&stop));
        // Never so quiet that silence could be taken for it.
        let period: Vec<u8> =
            (0..PERIOD).flat_map(|n| [10_000_i16 + n as i16; 2]).flat_map(i16::to_le_bytes).collect();
        let thread = std::thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                match playing.write(&period) {
                    Err(error) if Some(error) != forgiven => return Err(error),
                    Err(PcmError::Xrun) => playing.prepare()?,
                    _ => (),
                }
            }
            Ok(())
        });
        Self { pcm, stop, thread: Some(thread), seen: Mutex::default() }
    }

    /// Every position that the guest was told so far.
    pub fn seen(&self) -> Vec<Seen> {
        let mut seen = self.seen.lock().unwrap();
        seen.extend(self.pcm.watch_positions());
        seen.clone()
    }

    /// Waits until the guest was told positions for `span` more.
    pub fn plays_for(&self, span: Nanos) {
        let end = monotonic_now() + span;
        eventually("at work", || self.seen().last().is_some_and(|seen| seen.at >= end).then_some(()));
    }

    /// The longest time without a new position from `since` on.
    fn longest_gap(&self, since: Nanos) -> Nanos {
        let seen = self.seen();
        let after: Vec<&[Seen]> = seen.windows(2).filter(|pair| pair[1].at >= since).collect();
        after.iter().map(|pair| pair[1].at - pair[0].at).max().unwrap_or_default()
    }

    /// Fails if the guest went without a position for too long since `since`, from then until a while from now.
    pub fn was_never_silent(&self, since: Nanos) {
        self.plays_for(A_WHILE);
        let gap = self.longest_gap(since);
        assert!(gap <= LONGEST_GAP, "the guest was told no position for {gap}");
    }

    /// How long the guest's sound has stood still in all, by its clock against ours.
    pub fn lost(&self) -> Nanos {
        let seen = self.seen();
        let ([first, ..], [.., last]) = (&seen[..], &seen[..]) else { return Nanos::default() };
        let played = (last.position.0 - first.position.0) as i64 / 4 * 1_000_000_000 / RATE;
        (last.at - first.at) - Nanos(played)
    }

    /// Ends the application, which must have noticed nothing: no underrun, no late answer, positions that went steadily on.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        assert_eq!(self.thread.take().unwrap().join().unwrap(), Ok(()), "the application's write");
        let seen = self.seen();
        for pair in seen.windows(2) {
            assert!(pair[1].position >= pair[0].position, "back: {pair:?}");
            let moved = (pair[1].position.0 - pair[0].position.0) as i64 / 4;
            let passed = (pair[1].at - pair[0].at).0 * RATE / 1_000_000_000;
            // Told by a machine that has other things to do, too.
            assert!(moved < passed + RATE / 20, "a jump of {moved} frames in the time of {passed}: {pair:?}");
        }
        let counters = self.pcm.counters();
        assert_eq!((counters.core.xruns, counters.core.unexpected), (0, 0), "{counters:?}");
        assert_eq!((counters.requests.unanswered, counters.requests.refused), (0, 0), "{counters:?}");
        self.pcm.stop();
    }

    /// The longest that a request has waited so far.
    pub fn longest_answer(&self) -> Nanos {
        self.pcm.counters().requests.longest
    }

    /// Fails if a request had to wait since the longest wait was `before`.
    pub fn answered_at_once(&self, before: Nanos) {
        let longest = self.longest_answer();
        assert!(longest <= before.max(ANSWER), "an answer took {longest}");
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
