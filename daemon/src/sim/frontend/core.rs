//! The rules of Linux's sound core for one substream: states, pointers, thresholds, under- and overruns.
//!
//! Pure: time and the hardware's pointer come in from outside. Names follow ALSA's documentation: `avail` is what an
//! application may transfer now, `appl` its own pointer, `hw` the hardware's.

use vsnd_pw_module::{Direction, Frames, Nanos};

use super::position::Word;
use crate::sndif::{Errno, Trigger};

/// A substream's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Open, nothing set.
    Open,
    /// Parameters set, or stopped.
    Setup,
    /// Ready to start.
    Prepared,
    /// Between START and STOP.
    Running,
    /// The application was too slow.
    Xrun,
    /// Plays (or delivers) the rest.
    Draining,
    /// The guest slept.
    Suspended,
    /// The card is gone.
    Disconnected,
}

/// What a system call on a PCM says instead of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PcmError {
    /// EPIPE.
    #[error("the ring ran empty or over")]
    Xrun,
    /// EBADFD.
    #[error("not in this state")]
    BadState,
    /// ESTRPIPE.
    #[error("the guest was suspended")]
    Suspended,
    /// EBUSY.
    #[error("busy")]
    Busy,
    /// EINVAL: no such configuration.
    #[error("these parameters can't be had")]
    Invalid,
    /// EIO: nothing moved for as long as the ring lasts.
    #[error("the hardware stands still")]
    NoProgress,
    /// ENODEV.
    #[error("the card is gone")]
    Gone,
    /// ETIMEDOUT: the backend didn't answer within 3 s.
    #[error("the backend doesn't answer")]
    NoAnswer,
    /// ENOMEM.
    #[error("no memory")]
    NoMemory,
    /// The backend's own words.
    #[error("the backend refuses: {0}")]
    Refused(#[from] Errno),
}

/// What the core asks of the driver while it holds the stream.
pub trait Hardware {
    /// Where the hardware is in the ring.
    fn pointer(&self) -> Frames;

    /// Starts or stops.
    ///
    /// # Errors
    /// What the backend says, or doesn't.
    fn trigger(&self, trigger: Trigger) -> Result<(), PcmError>;
}

/// What the core measures by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Frames a second.
    pub rate: u32,
    /// The period.
    pub period: Frames,
    /// The whole ring.
    pub buffer: Frames,
}

impl Geometry {
    /// How long a write, a read or a drain waits for anything to move: 1.1 times the ring, 100 ms at least.
    pub fn patience(self) -> Nanos {
        let ring = self.buffer.duration(self.rate);
        Nanos((ring.0 / 10 * 11).max(100_000_000))
    }
}

/// What applications set beside the hardware's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwParams {
    /// Frames written (or asked for) that start the stream.
    pub start_threshold: Frames,
    /// Frames of `avail` that stop it: the whole ring unless an application wants no xruns.
    pub stop_threshold: Frames,
    /// Frames of `avail` that wake an application.
    pub avail_min: Frames,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreCounts {
    /// Elapsed periods that the core was told of while it ran.
    pub periods: u64,
    /// Under- and overruns.
    pub xruns: u64,
    /// Pointers that the core refused as impossible ("Unexpected hw_ptr").
    pub unexpected: u64,
    /// Steps of more than one and a half periods ("Lost interrupts?").
    pub lost_interrupts: u64,
}

/// One substream.
#[derive(Clone, Debug)]
pub struct Core {
    direction: Direction,
    word: Word,
    state: State,
    geometry: Option<Geometry>,
    sw: SwParams,
    /// Pointers count up to this and begin again: the greatest power of two times the ring that a long holds.
    boundary: u64,
    hw: u64,
    appl: u64,
    /// The start of the ring's present round.
    hw_base: u64,
    /// The hardware pointer at the last elapsed period, in whole periods.
    hw_interrupt: u64,
    hw_moved: Nanos,
    /// Frames that a waiting transfer needs; 0: none waits.
    wake_at: u64,
    /// Counts whatever wakes sleepers.
    wakes: u64,
    counts: CoreCounts,
}

impl Core {
    /// A substream that an application has just opened.
    pub fn new(direction: Direction, word: Word) -> Self {
        let none = Frames(0);
        Self {
            direction,
            word,
            state: State::Open,
            geometry: None,
            sw: SwParams { start_threshold: none, stop_threshold: none, avail_min: none },
            boundary: 0,
            hw: 0,
            appl: 0,
            hw_base: 0,
            hw_interrupt: 0,
            hw_moved: Nanos(0),
            wake_at: 0,
            wakes: 0,
            counts: CoreCounts::default(),
        }
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Playback or capture.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The geometry, once set.
    pub fn geometry(&self) -> Option<Geometry> {
        self.geometry
    }

    /// What happened so far.
    pub fn counts(&self) -> CoreCounts {
        self.counts
    }

    /// Changes whenever a sleeping application is woken.
    pub fn wakes(&self) -> u64 {
        self.wakes
    }

    /// The hardware's pointer, in frames since prepare.
    pub fn hw(&self) -> Frames {
        Frames(self.hw)
    }

    /// The application's pointer, in frames since prepare.
    pub fn appl(&self) -> Frames {
        Frames(self.appl)
    }

    pub(super) fn sw_params(&mut self, sw: SwParams) {
        self.sw = sw;
    }

    pub(super) fn sw(&self) -> SwParams {
        self.sw
    }

    pub(super) fn set_geometry(&mut self, geometry: Geometry) {
        self.geometry = Some(geometry);
        let Geometry { period, buffer, .. } = geometry;
        self.sw = SwParams { start_threshold: Frames(1), stop_threshold: buffer, avail_min: period };
        self.boundary = buffer.0;
        while self.boundary <= (self.word.signed_max() - buffer.0) / 2 {
            self.boundary *= 2;
        }
        self.state = State::Setup;
    }

    pub(super) fn forget_geometry(&mut self) {
        self.state = State::Open;
    }

    pub(super) fn may_set_geometry(&self) -> Result<(), PcmError> {
        match self.state {
            State::Open | State::Setup | State::Prepared => Ok(()),
            State::Disconnected => Err(PcmError::Gone),
            _ => Err(PcmError::BadState),
        }
    }

    /// Whether the hardware moves and the core listens to it.
    pub fn is_running(&self) -> bool {
        self.state == State::Running || self.state == State::Draining && self.direction == Direction::Playback
    }

    fn buffer(&self) -> u64 {
        self.geometry.map_or(0, |geometry| geometry.buffer.0)
    }

    fn wrap(&self, pointer: u64) -> u64 {
        if self.boundary > 0 && pointer >= self.boundary { pointer - self.boundary } else { pointer }
    }

    fn distance(&self, from: u64, to: u64) -> u64 {
        if to >= from { to - from } else { to.wrapping_add(self.boundary).wrapping_sub(from) }
    }

    /// Frames that may be transferred now.
    pub fn avail(&self) -> Frames {
        match self.direction {
            Direction::Capture => Frames(self.distance(self.appl, self.hw)),
            Direction::Playback => {
                // Beyond the boundary's half the difference is one of an application that was overtaken.
                let ahead = self.distance(self.hw, self.appl);
                let buffer = self.buffer();
                if ahead <= buffer {
                    Frames(buffer - ahead)
                } else {
                    Frames(buffer + self.distance(self.appl, self.hw))
                }
            }
        }
    }

    /// Frames written and not played, as the core counts; 0 when the hardware has overtaken.
    pub fn queued(&self) -> Frames {
        Frames(self.buffer().saturating_sub(self.avail().0))
    }

    /// Whether an application may transfer frames.
    pub(super) fn accessible(&self) -> Result<(), PcmError> {
        match self.state {
            State::Prepared | State::Running => Ok(()),
            State::Xrun => Err(PcmError::Xrun),
            State::Suspended => Err(PcmError::Suspended),
            State::Disconnected => Err(PcmError::Gone),
            State::Draining | State::Open | State::Setup => Err(PcmError::BadState),
        }
    }

    fn wake(&mut self) {
        self.wakes += 1;
    }

    /// The driver's pointer is looked at; `interrupt`: because a period elapsed.
    ///
    /// # Errors
    /// [`PcmError::Xrun`] when that stopped the stream: too slow, or drained.
    pub(super) fn update(
        &mut self,
        hardware: &dyn Hardware,
        now: Nanos,
        interrupt: bool,
    ) -> Result<(), PcmError> {
        let Some(Geometry { rate, period, buffer }) = self.geometry else { return Ok(()) };
        let (period, buffer) = (period.0, buffer.0);
        let place = hardware.pointer().0;
        let place = if place >= buffer { 0 } else { place };
        let mut base = self.hw_base;
        let next_round = |base: u64| if base + buffer >= self.boundary { 0 } else { base + buffer };
        // A period elapsed, yet the place is before the expected one: a whole round has gone by, if the time is right.
        let early = interrupt && self.hw_interrupt + period > base + place;
        let half_a_ring = Nanos(Frames(buffer).duration(rate).0 / 2);
        if early && now - self.hw_moved > half_a_ring || base + place < self.hw {
            base = next_round(base);
        }
        let hw = base + place;
        let moved = self.distance(self.hw, hw);
        if moved >= buffer + period {
            self.counts.unexpected += 1;
            return Ok(());
        }
        if moved > period + period / 2 {
            self.counts.lost_interrupts += 1;
        }
        if moved > 0 {
            if interrupt {
                let since = self.distance(self.hw_interrupt, hw);
                self.hw_interrupt = self.wrap(self.hw_interrupt + (since - since % period));
            }
            self.hw_base = base;
            self.hw = hw;
        }
        self.hw_moved = now;
        if moved > 0 { self.judge(hardware) } else { Ok(()) }
    }

    /// Stops what ran empty or over, and wakes who waits.
    pub(super) fn judge(&mut self, hardware: &dyn Hardware) -> Result<(), PcmError> {
        let avail = self.avail();
        if self.state == State::Draining {
            if avail.0 >= self.buffer() {
                self.stop(hardware, State::Setup);
                return Err(PcmError::Xrun);
            }
        } else if avail >= self.sw.stop_threshold {
            self.counts.xruns += 1;
            self.stop(hardware, State::Xrun);
            return Err(PcmError::Xrun);
        }
        let enough = if self.wake_at > 0 { self.wake_at } else { self.sw.avail_min.0 };
        if avail.0 >= enough {
            self.wake();
        }
        Ok(())
    }

    /// The driver reports an elapsed period.
    pub(super) fn period_elapsed(&mut self, hardware: &dyn Hardware, now: Nanos) {
        if self.is_running() {
            self.counts.periods += 1;
            // An xrun has done all that is due.
            let _ = self.update(hardware, now, true);
        }
    }

    /// STOP if it runs; the state becomes `next` in any case.
    pub(super) fn stop(&mut self, hardware: &dyn Hardware, next: State) {
        if self.is_running() {
            // The core stops whatever the driver answers.
            let _ = hardware.trigger(if next == State::Suspended { Trigger::Pause } else { Trigger::Stop });
        }
        self.state = next;
        self.wake();
    }

    /// # Errors
    /// Not prepared, nothing to play, or the backend refuses.
    pub(super) fn start(&mut self, hardware: &dyn Hardware, now: Nanos, next: State) -> Result<(), PcmError> {
        if self.state != State::Prepared {
            return Err(PcmError::BadState);
        }
        if self.direction == Direction::Playback && self.queued().0 == 0 {
            return Err(PcmError::Xrun);
        }
        if let Err(error) = hardware.trigger(Trigger::Start) {
            // What may have started is stopped again.
            let _ = hardware.trigger(Trigger::Stop);
            return Err(error);
        }
        self.hw_moved = now;
        self.state = next;
        Ok(())
    }

    pub(super) fn may_prepare(&self) -> Result<(), PcmError> {
        match self.state {
            State::Open => Err(PcmError::BadState),
            State::Disconnected => Err(PcmError::Gone),
            _ if self.is_running() => Err(PcmError::Busy),
            _ => Ok(()),
        }
    }

    /// After the driver's prepare: all pointers begin again, whatever the driver's own says.
    pub(super) fn prepared(&mut self) {
        (self.hw, self.appl, self.hw_base, self.hw_interrupt) = (0, 0, 0, 0);
        self.state = State::Prepared;
    }

    pub(super) fn set_wake_at(&mut self, frames: u64) {
        self.wake_at = frames;
    }

    /// The application has transferred `frames`.
    pub(super) fn advance(&mut self, frames: u64) {
        self.appl = self.wrap(self.appl + frames);
    }

    /// The application takes back up to `frames` that weren't played, or gives back what it read.
    pub(super) fn rewind(&mut self, frames: u64) -> u64 {
        let most = match self.direction {
            Direction::Playback => self.queued().0,
            Direction::Capture => self.buffer().saturating_sub(self.avail().0),
        };
        let frames = frames.min(most);
        let back = if self.appl >= frames { self.appl } else { self.appl + self.boundary };
        self.appl = back - frames;
        frames
    }

    /// The application skips up to `frames`.
    pub(super) fn forward(&mut self, frames: u64) -> u64 {
        let frames = frames.min(self.avail().0);
        self.advance(frames);
        frames
    }

    /// The card goes away.
    pub(super) fn disconnect(&mut self, hardware: &dyn Hardware) {
        self.stop(hardware, State::Disconnected);
    }

    /// The first half of a drain: starts what was never started. Whether there is anything to wait for.
    pub(super) fn begin_drain(&mut self, hardware: &dyn Hardware, now: Nanos) -> Result<bool, PcmError> {
        match (self.state, self.direction) {
            (State::Open, _) => return Err(PcmError::BadState),
            (State::Disconnected, _) => return Err(PcmError::Gone),
            (State::Suspended, _) => return Err(PcmError::Suspended),
            (State::Prepared, Direction::Playback) if self.queued().0 > 0 => {
                self.start(hardware, now, State::Draining)?;
            }
            (State::Running, Direction::Playback) => self.state = State::Draining,
            (State::Draining, _) => (),
            (State::Running, Direction::Capture) => {
                let next = if self.avail().0 > 0 { State::Draining } else { State::Setup };
                self.stop(hardware, next);
            }
            _ => self.state = State::Setup,
        }
        Ok(self.state == State::Draining && self.direction == Direction::Playback)
    }
}
