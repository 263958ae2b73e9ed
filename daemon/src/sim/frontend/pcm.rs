//! One PCM substream of a guest: the sound core and the driver together, still without threads.
//!
//! Drive it with a [`Driver`] of your own and virtual time in tests; [`PcmHandle`](super::PcmHandle) drives it in real
//! time with a guest's memory, rings and interrupts.

use std::sync::{Arc, Mutex};

use vsnd_pw_module::{Direction, Frames, Nanos, Octets, StreamFormat};

use super::core::{Core, CoreCounts, Geometry, Hardware, PcmError, State, SwParams};
use super::inbox::Inbox;
use super::lock;
use super::params::{Capabilities, HwParams};
use super::position::{Measure, Word};
use crate::sndif::{FormatCode, HwParams as Ranges, Open, Operation, Response, Span, Trigger};
use crate::xen::GrantRef;

/// What the driver does with Xen.
pub trait Driver {
    /// An application opens the stream.
    fn open(&self) {}

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`PcmError::NoAnswer`] after 3 s.
    fn request(&self, operation: &Operation) -> Result<Response, PcmError>;

    /// Request ids begin anew.
    fn reset_ids(&self);

    /// Takes and grants memory for a ring of `octets`; returns the page directory's first page.
    ///
    /// # Errors
    /// [`PcmError::NoMemory`]
    fn allocate(&self, octets: Octets) -> Result<GrantRef, PcmError>;

    /// Gives the ring's memory up.
    fn release(&self);
}

/// Sends a request and takes a failure in its answer for one.
fn ask(driver: &impl Driver, operation: &Operation) -> Result<Response, PcmError> {
    let response = driver.request(operation)?;
    response.status.map_err(PcmError::Refused)?;
    Ok(response)
}

/// What is chosen between hw_params and hw_free.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    params: HwParams,
    format: StreamFormat,
    directory: GrantRef,
}

/// The stream's driver as the core sees it.
struct Held<'a, D> {
    driver: &'a D,
    inbox: &'a Mutex<Inbox>,
}

impl<D: Driver> Hardware for Held<'_, D> {
    fn pointer(&self) -> Frames {
        lock(self.inbox).pointer()
    }

    fn trigger(&self, trigger: Trigger) -> Result<(), PcmError> {
        ask(self.driver, &Operation::Trigger(trigger)).map(drop)
    }
}

/// A transfer under way.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Frames still to transfer.
    left: u64,
    /// Frames that may be transferred before pointers are looked at again.
    avail: u64,
    /// Frames transferred.
    done: u64,
}

/// What a transfer needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// These frames of the ring are to be copied, and the backend told.
    Copy(Span),
    /// Nothing before the hardware moves.
    Wait,
    /// All is done.
    Done,
}

/// A PCM substream. Calls return as the system calls of the guest's kernel do.
pub struct Pcm<D> {
    capabilities: Capabilities,
    word: Word,
    core: Core,
    inbox: Arc<Mutex<Inbox>>,
    driver: D,
    /// Whether the backend has been sent an OPEN that it took.
    is_open: bool,
    chosen: Option<Chosen>,
}

impl<D: Driver> Pcm<D> {
    /// A substream that no application has open.
    pub fn new(
        direction: Direction,
        word: Word,
        capabilities: Capabilities,
        inbox: Arc<Mutex<Inbox>>,
        driver: D,
    ) -> Self {
        let core = Core::new(direction, word);
        Self { capabilities, word, core, inbox, driver, is_open: false, chosen: None }
    }

    /// The sound core's part, to look at.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The driver.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// The shape of the frames, once set.
    pub fn format(&self) -> Option<StreamFormat> {
        self.chosen.map(|chosen| chosen.format)
    }

    /// What happened since open.
    pub fn counts(&self) -> CoreCounts {
        self.core.counts()
    }

    /// Runs `action` on the core with the hardware at hand.
    fn with_core<T>(&mut self, action: impl FnOnce(&mut Core, &dyn Hardware) -> T) -> T {
        action(&mut self.core, &Held { driver: &self.driver, inbox: &self.inbox })
    }

    /// The driver's stream_clear.
    fn clear(&mut self) {
        self.is_open = false;
        self.driver.reset_ids();
        lock(&self.inbox).clear();
    }

    /// open(2): sends nothing.
    pub fn open(&mut self) {
        self.core = Core::new(self.core.direction(), self.word);
        self.driver.open();
        self.clear();
        lock(&self.inbox).open();
    }

    fn query(&self, ranges: Ranges) -> Result<Ranges, PcmError> {
        let response = ask(&self.driver, &Operation::HwParamQuery(ranges))?;
        response.hw_params.ok_or(PcmError::Invalid)
    }

    /// Everything that the stream could have, the backend asked.
    ///
    /// # Errors
    /// [`PcmError::Invalid`] when there is nothing.
    pub fn ranges(&self) -> Result<Ranges, PcmError> {
        let mut ranges = self.capabilities.ranges();
        self.capabilities.refine(&mut ranges, &|ranges| self.query(ranges))?;
        Ok(ranges)
    }

    /// Sets the hardware's parameters. A ring that was open is given up without a CLOSE, as the driver does.
    ///
    /// # Errors
    /// [`PcmError::Invalid`], [`PcmError::NoMemory`], or not in this state.
    pub fn hw_params(&mut self, params: HwParams) -> Result<(), PcmError> {
        self.core.may_set_geometry()?;
        self.capabilities.check(&params, &|ranges| self.query(ranges))?;
        let format = params.stream_format().ok_or(PcmError::Invalid)?;
        self.driver.release();
        self.chosen = None;
        self.clear();
        let directory = self.driver.allocate(format.octets(params.buffer))?;
        self.chosen = Some(Chosen { params, format, directory });
        let HwParams { rate, period, buffer, .. } = params;
        lock(&self.inbox).set_measure(Measure { period, buffer, frame_octets: format.frame_octets() });
        self.core.set_geometry(Geometry { rate, period, buffer });
        Ok(())
    }

    /// Sets when to start, stop and wake.
    pub fn sw_params(&mut self, sw: SwParams) {
        self.core.sw_params(sw);
    }

    /// When the stream starts, stops and wakes.
    pub fn present_sw_params(&self) -> SwParams {
        self.core.sw()
    }

    /// Makes ready to start: OPEN, but only if the stream isn't open; after an xrun or a drain it is.
    ///
    /// # Errors
    /// Not in this state, or the backend refuses.
    pub fn prepare(&mut self) -> Result<(), PcmError> {
        self.core.may_prepare()?;
        let Chosen { params, format, directory } = self.chosen.ok_or(PcmError::BadState)?;
        if !self.is_open {
            let open = Open {
                rate: params.rate,
                format: FormatCode::from(params.format),
                channels: params.channels,
                buffer: format.octets(params.buffer),
                directory,
                period: format.octets(params.period),
            };
            ask(&self.driver, &Operation::Open(open))?;
            self.is_open = true;
            lock(&self.inbox).prepared();
        }
        self.core.prepared();
        Ok(())
    }

    /// Starts without waiting for the threshold.
    ///
    /// # Errors
    /// Not prepared, nothing written, or the backend refuses.
    pub fn start(&mut self, now: Nanos) -> Result<(), PcmError> {
        self.with_core(|core, hardware| core.start(hardware, now, State::Running))
    }

    /// Stops at once.
    pub fn drop_frames(&mut self) {
        if self.core.state() != State::Open && self.core.state() != State::Disconnected {
            self.with_core(|core, hardware| core.stop(hardware, State::Setup));
        }
    }

    /// The guest goes to sleep: PAUSE, the only one that Linux sends.
    pub fn suspend(&mut self) {
        if self.core.is_running() {
            self.with_core(|core, hardware| core.stop(hardware, State::Suspended));
        }
    }

    /// Begins to play the rest; whether there is a rest to wait for, until the state is no longer draining.
    ///
    /// # Errors
    /// Not in this state, or the backend refuses to start.
    pub fn begin_drain(&mut self, now: Nanos) -> Result<bool, PcmError> {
        self.with_core(|core, hardware| core.begin_drain(hardware, now))
    }

    /// CLOSE, even if it never was open, and the ring is given up.
    ///
    /// # Errors
    /// Not in this state, or what the backend says; given up it is all the same.
    pub fn hw_free(&mut self) -> Result<(), PcmError> {
        match self.core.state() {
            State::Setup | State::Prepared | State::Disconnected => (),
            _ => return Err(PcmError::BadState),
        }
        lock(&self.inbox).freeing();
        let closed = ask(&self.driver, &Operation::Close);
        self.clear();
        self.driver.release();
        self.chosen = None;
        if self.core.state() != State::Disconnected {
            self.core.forget_geometry();
        }
        closed.map(drop)
    }

    /// close(2): stops, frees, closes.
    pub fn close(&mut self) {
        self.drop_frames();
        if self.chosen.is_some() {
            // Nobody hears an error of close.
            let _ = self.hw_free();
        }
        lock(&self.inbox).close();
    }

    /// The card goes away under the application.
    pub fn disconnect(&mut self) {
        self.with_core(Core::disconnect);
    }

    /// The driver reports an elapsed period: [`Inbox::take`] said so.
    pub fn period_elapsed(&mut self, now: Nanos) {
        self.with_core(|core, hardware| core.period_elapsed(hardware, now));
    }

    /// Takes whatever events have come, as the interrupt handler does.
    pub fn interrupt(&mut self, now: Nanos) {
        loop {
            let taken = lock(&self.inbox).take();
            match taken {
                Some(taken) if taken.elapsed => self.period_elapsed(now),
                Some(_) => (),
                None => return,
            }
        }
    }

    /// Looks at the hardware's pointer: what snd_pcm_avail and snd_pcm_delay do. Frames that may be transferred.
    ///
    /// # Errors
    /// An xrun, or not in this state.
    pub fn avail(&mut self, now: Nanos) -> Result<Frames, PcmError> {
        if self.core.is_running() {
            self.with_core(|core, hardware| core.update(hardware, now, false))?;
        }
        if self.core.state() != State::Draining {
            self.core.accessible()?;
        }
        Ok(self.core.avail())
    }

    /// Takes back up to `frames` written ahead (or read); returns how many.
    ///
    /// # Errors
    /// An xrun, or not in this state.
    pub fn rewind(&mut self, frames: Frames, now: Nanos) -> Result<Frames, PcmError> {
        self.avail(now)?;
        Ok(Frames(self.core.rewind(frames.0)))
    }

    /// Skips up to `frames`; returns how many.
    ///
    /// # Errors
    /// An xrun, or not in this state.
    pub fn forward(&mut self, frames: Frames, now: Nanos) -> Result<Frames, PcmError> {
        self.avail(now)?;
        Ok(Frames(self.core.forward(frames.0)))
    }

    /// Begins to write (or read) so many frames.
    ///
    /// # Errors
    /// Not in this state, or the start of a capture fails.
    pub fn begin(&mut self, frames: Frames, now: Nanos) -> Result<Transfer, PcmError> {
        self.core.accessible()?;
        if self.core.state() == State::Running {
            // An xrun found here shows in the first step.
            let _ = self.with_core(|core, hardware| core.update(hardware, now, false));
        }
        let capture = self.core.direction() == Direction::Capture;
        if capture && self.core.state() == State::Prepared && frames >= self.core.sw().start_threshold {
            self.start(now)?;
        }
        Ok(Transfer { left: frames.0, avail: self.core.avail().0, done: 0 })
    }

    /// What the transfer needs next.
    ///
    /// # Errors
    /// What ended it.
    pub fn next(&mut self, transfer: &mut Transfer) -> Result<Step, PcmError> {
        let chosen = self.chosen.ok_or(PcmError::BadState)?;
        if transfer.left == 0 {
            return Ok(Step::Done);
        }
        self.core.accessible().map_err(|error| match self.core.state() {
            State::Draining => PcmError::Xrun,
            _ => error,
        })?;
        if transfer.avail == 0 {
            let wanted = transfer.left.min(self.core.sw().avail_min.0.max(1));
            transfer.avail = self.core.avail().0;
            if transfer.avail < wanted {
                transfer.avail = 0;
                self.core.set_wake_at(wanted);
                return Ok(Step::Wait);
            }
        }
        let buffer = chosen.params.buffer.0;
        let offset = self.core.appl().0 % buffer;
        let frames = transfer.left.min(transfer.avail).min(buffer - offset);
        let octets = |frames| chosen.format.octets(Frames(frames));
        Ok(Step::Copy(Span { offset: octets(offset), length: octets(frames) }))
    }

    /// The frames of `span` were copied and the backend was told.
    ///
    /// # Errors
    /// The state has changed meanwhile, or the start fails.
    pub fn copied(&mut self, transfer: &mut Transfer, span: Span, now: Nanos) -> Result<(), PcmError> {
        self.core.accessible()?;
        let format = self.format().ok_or(PcmError::BadState)?;
        let frames = format.frames(span.length).ok_or(PcmError::BadState)?.0;
        self.core.advance(frames);
        transfer.left -= frames;
        transfer.avail = transfer.avail.saturating_sub(frames);
        transfer.done += frames;
        let playback = self.core.direction() == Direction::Playback;
        let full = self.core.queued() >= self.core.sw().start_threshold;
        if playback && self.core.state() == State::Prepared && full {
            self.start(now)?;
        }
        Ok(())
    }

    /// The transfer ends: the frames transferred, or why there are none.
    ///
    /// # Errors
    /// What `ended` says, if nothing was transferred.
    pub fn end(&mut self, transfer: Transfer, ended: Result<(), PcmError>) -> Result<Frames, PcmError> {
        self.core.set_wake_at(0);
        if transfer.done == 0 {
            return ended.map(|()| Frames(0));
        }
        if ended.is_ok() && self.core.is_running() {
            // An xrun found here is the next call's.
            let _ = self.with_core(Core::judge);
        }
        Ok(Frames(transfer.done))
    }

    /// What a transfer tells the backend of a span.
    pub fn told(&self, span: Span) -> Operation {
        match self.core.direction() {
            Direction::Playback => Operation::Write(span),
            Direction::Capture => Operation::Read(span),
        }
    }

    /// Writes or reads what goes without waiting; `copy` is called with each span, before a WRITE and after a READ.
    /// Returns the frames transferred, maybe none.
    ///
    /// # Errors
    /// Why nothing was.
    pub fn transfer(
        &mut self,
        frames: Frames,
        now: Nanos,
        copy: &mut dyn FnMut(Span),
    ) -> Result<Frames, PcmError> {
        let mut transfer = self.begin(frames, now)?;
        let ended = loop {
            match self.next(&mut transfer) {
                Ok(Step::Copy(span)) => {
                    if self.core.direction() == Direction::Playback {
                        copy(span);
                    }
                    let told = ask(&self.driver, &self.told(span));
                    if self.core.direction() == Direction::Capture && told.is_ok() {
                        copy(span);
                    }
                    if let Err(error) = told.and_then(|_| self.copied(&mut transfer, span, now)) {
                        break Err(error);
                    }
                }
                Ok(Step::Wait | Step::Done) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.end(transfer, ended)
    }
}

#[cfg(test)]
#[path = "pcm_tests.rs"]
mod tests;
