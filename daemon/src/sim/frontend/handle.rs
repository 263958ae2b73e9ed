//! What an application in a guest has: a PCM that blocks, in real time.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vsnd_pw_module::{Direction, Frames, Octets, StreamFormat, monotonic_now};

use super::card::{CardState, Seen, Stream};
use super::core::{CoreCounts, PcmError, State, SwParams};
use super::driver::{GuestDriver, RequestCounts};
use super::inbox::EventCounts;
use super::lock;
use super::params::HwParams;
use super::pcm::{Driver, Pcm, Step, Transfer};
use crate::sndif::{HwParams as Ranges, Operation, Span};

/// What happened to a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Periods and xruns, since open.
    pub core: CoreCounts,
    /// Events taken and ignored, since the card came.
    pub events: EventCounts,
    /// Requests and how long their answers took, since the card came.
    pub requests: RequestCounts,
}

type Held<'a> = MutexGuard<'a, Pcm<Arc<GuestDriver>>>;

/// An open PCM. Dropping it closes it.
pub struct PcmHandle {
    card: Arc<CardState>,
    stream: Arc<Stream>,
}

impl PcmHandle {
    pub(super) fn new(card: Arc<CardState>, stream: Arc<Stream>) -> Self {
        Self { card, stream }
    }

    fn pcm(&self) -> Held<'_> {
        lock(&self.stream.pcm)
    }

    /// Everything that the stream could have, the backend asked.
    ///
    /// # Errors
    /// [`PcmError::Invalid`] when there is nothing.
    pub fn ranges(&self) -> Result<Ranges, PcmError> {
        self.pcm().ranges()
    }

    /// Sets parameters as aplay and arecord do, and prepares: playback starts with a full ring, capture with the first
    /// read; an xrun stops.
    ///
    /// # Errors
    /// The backend refuses, or not in this state.
    pub fn hw_params(&self, params: HwParams) -> Result<(), PcmError> {
        let mut pcm = self.pcm();
        pcm.hw_params(params)?;
        if self.stream.config.direction == Direction::Playback {
            let full = Frames(params.buffer.0 / params.period.0 * params.period.0);
            let sw = SwParams { start_threshold: full, ..pcm.present_sw_params() };
            pcm.sw_params(sw);
        }
        pcm.prepare()
    }

    /// Sets when to start, stop and wake.
    pub fn sw_params(&self, change: impl FnOnce(&mut SwParams)) {
        let mut pcm = self.pcm();
        let mut sw = pcm.present_sw_params();
        change(&mut sw);
        pcm.sw_params(sw);
    }

    /// Makes ready to start again, after an xrun or a drain.
    ///
    /// # Errors
    /// Not in this state, or the backend refuses.
    pub fn prepare(&self) -> Result<(), PcmError> {
        self.pcm().prepare()
    }

    /// Starts at once.
    ///
    /// # Errors
    /// Not prepared, nothing written, or the backend refuses.
    pub fn start(&self) -> Result<(), PcmError> {
        self.pcm().start(monotonic_now())
    }

    fn format(&self) -> Result<StreamFormat, PcmError> {
        self.pcm().format().ok_or(PcmError::BadState)
    }

    /// Writes whole frames, waiting for room as snd_pcm_writei does; fewer than given when the stream stops meanwhile.
    ///
    /// # Errors
    /// [`PcmError::Xrun`] and others when nothing was written.
    pub fn write(&self, data: &[u8]) -> Result<Frames, PcmError> {
        let size = self.format()?.frame_octets() as usize;
        let mut data = data;
        self.transfer(data.len() / size, |driver, span| {
            let (now, rest) = data.split_at(span.length.0 as usize);
            data = rest;
            driver.put(span.offset, now)?;
            tell(driver, &Operation::Write(span))
        })
    }

    /// Reads whole frames, waiting for them as snd_pcm_readi does; fewer than asked when the stream stops meanwhile.
    ///
    /// # Errors
    /// [`PcmError::Xrun`] and others when nothing was read.
    pub fn read(&self, out: &mut [u8]) -> Result<Frames, PcmError> {
        let size = self.format()?.frame_octets() as usize;
        let mut filled = 0;
        self.transfer(out.len() / size, |driver, span| {
            tell(driver, &Operation::Read(span))?;
            let end = filled + span.length.0 as usize;
            driver.get(span.offset, &mut out[filled..end])?;
            filled = end;
            Ok(())
        })
    }

    fn transfer(
        &self,
        frames: usize,
        mut copy: impl FnMut(&GuestDriver, Span) -> Result<(), PcmError>,
    ) -> Result<Frames, PcmError> {
        let mut pcm = self.pcm();
        let mut transfer = pcm.begin(Frames(frames as u64), monotonic_now())?;
        let ended = loop {
            match pcm.next(&mut transfer) {
                Ok(Step::Done) => break Ok(()),
                Ok(Step::Wait) => {
                    let (held, waited) = self.wait(pcm);
                    pcm = held;
                    if let Err(error) = waited {
                        break Err(error);
                    }
                }
                Ok(Step::Copy(span)) => {
                    // The stream isn't held while frames are copied and the backend told: positions go on meanwhile.
                    drop(pcm);
                    let copied = copy(&self.stream.driver, span);
                    pcm = self.pcm();
                    if let Err(error) = copied.and_then(|()| self.copied(&mut pcm, &mut transfer, span)) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        pcm.end(transfer, ended)
    }

    fn copied(&self, pcm: &mut Held<'_>, transfer: &mut Transfer, span: Span) -> Result<(), PcmError> {
        pcm.copied(transfer, span, monotonic_now())
    }

    /// Sleeps until something wakes the application, or nothing did for too long.
    fn wait<'a>(&'a self, pcm: Held<'a>) -> (Held<'a>, Result<(), PcmError>) {
        let patience = pcm.core().geometry().map_or(0, |geometry| geometry.patience().0).unsigned_abs();
        let deadline = Instant::now() + Duration::from_nanos(patience);
        let wakes = pcm.core().wakes();
        let mut pcm = pcm;
        while pcm.core().wakes() == wakes {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return (pcm, Err(PcmError::NoProgress));
            };
            pcm = self.stream.changed.wait_timeout(pcm, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        (pcm, Ok(()))
    }

    /// Plays the rest and waits for its end.
    ///
    /// # Errors
    /// [`PcmError::NoProgress`] when no period elapses for longer than the ring lasts; others as for a write.
    pub fn drain(&self) -> Result<(), PcmError> {
        let mut pcm = self.pcm();
        let mut draining = pcm.begin_drain(monotonic_now())?;
        while draining {
            let (held, waited) = self.wait(pcm);
            pcm = held;
            if waited.is_err() {
                pcm.drop_frames();
                return waited;
            }
            match pcm.core().state() {
                State::Draining => (),
                State::Suspended => return Err(PcmError::Suspended),
                State::Disconnected => return Err(PcmError::Gone),
                _ => draining = false,
            }
        }
        Ok(())
    }

    /// snd_pcm_drop: stops at once.
    pub fn stop(&self) {
        self.pcm().drop_frames();
        self.stream.changed.notify_all();
    }

    /// The guest goes to sleep.
    pub fn suspend(&self) {
        self.pcm().suspend();
        self.stream.changed.notify_all();
    }

    /// Gives the ring up: CLOSE.
    ///
    /// # Errors
    /// Not in this state, or what the backend says.
    pub fn hw_free(&self) -> Result<(), PcmError> {
        self.pcm().hw_free()
    }

    /// Keeps every position that the driver takes from now on, with the instant; what was kept since the last call.
    pub fn watch_positions(&self) -> Vec<Seen> {
        self.stream.watch_positions()
    }

    /// The hardware's pointer as the application sees it: frames since prepare.
    pub fn pointer(&self) -> Frames {
        let mut pcm = self.pcm();
        // An xrun shows in the state.
        let _ = pcm.avail(monotonic_now());
        pcm.core().hw()
    }

    /// Frames that can be written or read without waiting.
    ///
    /// # Errors
    /// An xrun, or not in this state.
    pub fn avail(&self) -> Result<Frames, PcmError> {
        self.pcm().avail(monotonic_now())
    }

    /// Frames written and not yet played.
    pub fn delay(&self) -> Frames {
        let mut pcm = self.pcm();
        let _ = pcm.avail(monotonic_now());
        pcm.core().queued()
    }

    /// Takes back frames written ahead; returns how many.
    ///
    /// # Errors
    /// An xrun, or not in this state.
    pub fn rewind(&self, frames: Frames) -> Result<Frames, PcmError> {
        self.pcm().rewind(frames, monotonic_now())
    }

    /// Skips frames; returns how many.
    ///
    /// # Errors
    /// An xrun, or not in this state.
    pub fn forward(&self, frames: Frames) -> Result<Frames, PcmError> {
        self.pcm().forward(frames, monotonic_now())
    }

    /// The state.
    pub fn state(&self) -> State {
        self.pcm().core().state()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        Counters {
            core: self.pcm().counts(),
            events: lock(&self.stream.inbox).counts(),
            requests: self.stream.driver.counts(),
        }
    }

    /// The stream's driver, for what Linux's applications never do.
    pub fn driver(&self) -> &GuestDriver {
        &self.stream.driver
    }

    /// What Linux's driver never asks: an operation on volumes, whose `array` is put at `offset` of the shared buffer. Returns
    /// the array as it lies there afterwards.
    ///
    /// # Errors
    /// The stream has no buffer, or the backend refuses.
    pub fn exchange(
        &self,
        operation: impl FnOnce(Span) -> Operation,
        offset: Octets,
        array: &[u8],
    ) -> Result<Vec<u8>, PcmError> {
        let driver = &self.stream.driver;
        driver.put(offset, array)?;
        tell(driver, &operation(Span { offset, length: Octets(array.len() as u64) }))?;
        let mut answer = vec![0; array.len()];
        driver.get(offset, &mut answer)?;
        Ok(answer)
    }

    /// Closes: stops, frees, closes.
    pub fn close(self) {}
}

impl Drop for PcmHandle {
    fn drop(&mut self) {
        self.pcm().close();
        self.card.release(&self.stream);
    }
}

fn tell(driver: &GuestDriver, operation: &Operation) -> Result<(), PcmError> {
    driver.request(operation)?.status.map_err(PcmError::Refused)
}
