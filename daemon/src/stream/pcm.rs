//! One PCM stream as the guest drives it: requests in, answers from memory out.

use std::fmt::Display;
use std::sync::{Arc, Mutex};

use tracing::{debug, info, warn};
use vsnd_dbus::Run;
use vsnd_pw_module::{
    Access, Direction, Frames, Octets, Pages, PcmRing, SoundServer, StreamFormat, monotonic_now,
};

use super::events::EventWriter;
use super::pacer::{Pacer, SharedVoice, lock};
use super::record::{Disbelief, Left, Record};
use super::strip::Strip;
use super::voice::{Signals, TooLong, Voice};
use crate::config::DomainPolicy;
use crate::control::Control;
use crate::guest::names::{Domain, Place};
use crate::guest::{Account, DeviceContext};
use crate::mixer::{GuestChannel, Millibels};
use crate::sndif::volume::{self, BadLength};
use crate::sndif::{
    self, DirectoryError, Errno, HwParams, Limits, Open, Operation, PcmFormat, Request, Response, Span,
    Trigger,
};
use crate::xen::{GrantError, GrantRef, Grants};

/// Octets of a page that guests grant.
const PAGE: u64 = 4096;
/// The greatest buffer of a stream, whatever its configuration says: the host maps no more for one. More than two
/// seconds of the widest stream that Linux knows.
const MOST_BUFFER: Octets = Octets(16 << 20);

/// What a stream is made of.
#[derive(Clone, Debug)]
pub struct StreamSetup {
    /// The guest.
    pub domain: Domain,
    /// Where the stream is in the guest.
    pub place: Place,
    /// The PCM's name as the guest's configuration has it: untrusted.
    pub pcm_name: Option<String>,
    /// Playback or capture.
    pub direction: Direction,
    /// What the configuration allows.
    pub limits: Limits,
    /// What the user allows.
    pub policy: DomainPolicy,
    /// What the guest has had of it.
    pub account: Arc<Account>,
}

/// A stream, closed or open. Lives in its card's thread.
pub struct PcmStream {
    setup: StreamSetup,
    grants: Arc<dyn Grants>,
    control: Control,
    strip: Arc<Strip>,
    server: Arc<dyn SoundServer>,
    pacer: Pacer,
    voice: SharedVoice,
    record: Record,
    open: Option<OpenStream>,
}

/// Between OPEN and CLOSE.
struct OpenStream {
    format: StreamFormat,
    buffer: Octets,
    ring: Arc<PcmRing>,
}

/// Why an OPEN is refused.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("{0}")]
    Limits(#[from] sndif::Refusal),
    #[error("the page directory: {0}")]
    Directory(#[from] DirectoryError<GrantError>),
    #[error("the buffer: {0}")]
    Grants(#[from] GrantError),
}

/// Why a request on a stream is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("OPEN: {0}")]
    Open(#[from] OpenError),
    #[error("{0} on a stream that is not open")]
    NotOpen(&'static str),
    #[error("{0} goes the other way")]
    Direction(&'static str),
    #[error("{0} of {1} from {2} is not a whole number of frames inside the buffer")]
    Span(&'static str, Octets, Octets),
    #[error("READ of {0}")]
    TooLong(#[from] TooLong),
    #[error("RESUME without PAUSE")]
    NotPaused,
    #[error("{0} of {1}")]
    BadLength(&'static str, BadLength),
    #[error("{0} of {1} from {2} is not inside the buffer")]
    Outside(&'static str, Octets, Octets),
}

impl Refusal {
    fn errno(&self) -> Errno {
        match self {
            Self::NotOpen(_) => Errno::Io,
            Self::TooLong(_) => Errno::TimedOut,
            Self::Open(OpenError::Limits(refusal)) => refusal.errno(),
            _ => Errno::Invalid,
        }
    }
}

impl PcmStream {
    /// A closed stream that tells the guest its position by `events` and `signals`, and the next process by `record`.
    pub fn new(
        context: &DeviceContext,
        mut setup: StreamSetup,
        events: EventWriter,
        signals: Signals,
        record: Record,
    ) -> Self {
        let server = Arc::clone(&context.server);
        let carried =
            |format: &PcmFormat| format.sample_format().is_some_and(|sample| server.carries(sample));
        setup.limits.buffer = setup.limits.buffer.min(MOST_BUFFER);
        setup.limits.formats = setup.limits.formats.iter().filter(carried).collect();
        let voice = Voice::new(events, signals, context.pacer.cadence()).of(Arc::clone(&setup.account));
        let strip = context.control.strip(&setup, Arc::clone(&server));
        record.set_guest(&strip.guest(|| record.guest()));
        Self {
            control: context.control.clone(),
            strip,
            setup,
            grants: Arc::clone(&context.xen.grants),
            server,
            pacer: context.pacer.clone(),
            voice: Arc::new(Mutex::new(voice)),
            record,
            open: None,
        }
    }

    /// Whether the answer to the last request is to be held back.
    ///
    /// START: until the converter runs. The guest's kernel gives a stream as little as 100 ms from the answer to its first
    /// period before it fails the application's write. A node that was just made may need longer until it is linked, so
    /// START is answered when its first cycle has come, as it would be by hardware that takes time to start; after 1.5 s at
    /// the latest, when the clock takes over.
    ///
    /// READ and WRITE of a guest that asked for no events: until the converter has come so far, as nothing else paces it;
    /// for 2.5 s at the latest.
    pub fn holds_answer(&self) -> bool {
        lock(&self.voice).holds_answer()
    }

    /// Answers one request, from memory: nothing here waits for a sound server.
    pub fn answer(&mut self, request: &Request) -> Response {
        let name = name(&request.operation);
        debug!(domain = %self.setup.domain.shown(), place = ?self.setup.place, ?request);
        let done = match &request.operation {
            Operation::Open(open) => self.open(open).map_err(Refusal::from),
            Operation::Close => {
                // Linux sends CLOSE for a stream that it never opened, too.
                self.close();
                Ok(())
            }
            Operation::Write(span) => self.wrote(name, *span),
            Operation::Read(span) => self.read(name, *span),
            Operation::Trigger(trigger) => self.trigger(name, *trigger),
            Operation::HwParamQuery(asked) => return self.query(request, asked),
            Operation::SetVolume(span) => self.set_volume(name, *span),
            Operation::GetVolume(span) => self.get_volume(name, *span),
            Operation::Mute(span) => self.mute(name, *span, true),
            Operation::Unmute(span) => self.mute(name, *span, false),
        };
        match done {
            Ok(()) => request.response(Ok(())),
            Err(refusal) => {
                self.complain(&refusal);
                request.response(Err(refusal.errno()))
            }
        }
    }

    /// Says what the guest did wrong, unless it has been said too often.
    pub fn complain(&self, fault: &dyn Display) {
        let Some(more) = self.setup.account.may_tell() else { return };
        let Place { card, pcm, stream } = self.setup.place;
        warn!(domain = %self.setup.domain.shown(), card, pcm, stream, "the guest's request is refused: {fault}{more}");
    }

    /// The guest has taken events: there is room for a position that waits.
    pub fn room_for_events(&self) {
        lock(&self.voice).flush();
    }

    /// What the configuration allows, as far as the sound server carries it now.
    fn limits(&self) -> Limits {
        self.setup.limits.within(self.server.bounds())
    }

    fn query(&mut self, request: &Request, asked: &HwParams) -> Response {
        match self.limits().narrow(asked) {
            Some(params) => Response { hw_params: Some(params), ..request.response(Ok(())) },
            None => request.response(Err(Errno::Invalid)),
        }
    }

    fn open(&mut self, asked: &Open) -> Result<(), OpenError> {
        // ALSA's hw_params of an open stream frees the old buffer without a CLOSE.
        self.close();
        self.record.marks().reset();
        let (ring, period) = self.map(asked)?;
        let opened_at = self.strip.open(&ring, period, &self.voice, |voice, _| {
            voice.open(Arc::clone(&ring), period, monotonic_now())
        });
        self.open = Some(OpenStream { format: ring.format(), buffer: asked.buffer, ring });
        self.record.opened(asked, opened_at);
        Ok(())
    }

    /// Goes on with what a bridge before left open, if it did and that can be believed. It stands still until
    /// [`run_on`](Self::run_on).
    pub fn take_over(&mut self, left: Result<Option<Left>, Disbelief>) {
        let domain = self.setup.domain.shown();
        let Place { card, pcm, stream } = self.setup.place;
        match left {
            Ok(None) => (),
            Ok(Some(left)) => match self.reopen(&left) {
                Ok(()) => info!(%domain, card, pcm, stream, "an open stream is taken over"),
                Err(error) => {
                    warn!(%domain, card, pcm, stream, "the stream can't be taken over, its application has to open it again: {error}");
                }
            },
            Err(why) => info!(%domain, card, pcm, stream, "nothing is taken over: {why}"),
        }
    }

    /// As an OPEN, and checked as such; the stream is closed if it fails.
    fn reopen(&mut self, left: &Left) -> Result<(), OpenError> {
        let (ring, period) = self.map(&left.open).inspect_err(|_| self.record.closed())?;
        self.strip.open(&ring, period, &self.voice, |voice, has_node| {
            voice.take_over(Arc::clone(&ring), period, has_node, left.opened_at, monotonic_now());
        });
        self.open = Some(OpenStream { format: ring.format(), buffer: left.open.buffer, ring });
        Ok(())
    }

    /// Starts what was taken over, if the guest has not stopped it: after all requests that waited for an answer, because a
    /// position must not be told to a guest that has closed the stream.
    pub fn run_on(&self) {
        if lock(&self.voice).is_running() {
            self.run();
        }
    }

    /// Maps the guest's buffer: the ring, and its period.
    fn map(&self, asked: &Open) -> Result<(Arc<PcmRing>, Frames), OpenError> {
        let format = self.limits().admit(asked)?;
        // Whole frames, or they would not have been admitted.
        let frames = |octets: Octets| format.frames(octets).unwrap_or_default();
        let (buffer, period) = (frames(asked.buffer), frames(asked.period));
        let references = self.references(asked)?;
        let pages = self.grants.map(self.setup.domain.id, &references, Access::ReadWrite)?;
        let (direction, marks) = (self.setup.direction, self.record.marks());
        let ring = Arc::new(PcmRing::with_marks(direction, format, buffer, pages, marks));
        Ok((ring, period))
    }

    /// The grants of the buffer's pages, from the guest's page directory: each directory page is copied once.
    fn references(&self, asked: &Open) -> Result<Vec<GrantRef>, DirectoryError<GrantError>> {
        let pages = asked.buffer.0.div_ceil(PAGE) as usize;
        sndif::directory::walk(asked.directory, pages, |reference| {
            let page: Pages = self.grants.map(self.setup.domain.id, &[reference], Access::ReadOnly)?;
            let mut copy = [0; PAGE as usize];
            page.read(0, &mut copy).map_err(|error| GrantError::Device(error.to_string()))?;
            Ok(copy)
        })
    }

    /// CLOSE: the guest's memory is unmapped when this returns, and the node goes once its tail is heard.
    pub fn close(&mut self) {
        self.record.closed();
        self.leave();
    }

    /// The end of the bridge: as [`close`](Self::close), but what was open stays so for the next one.
    pub fn leave(&mut self) {
        let ring = lock(&self.voice).close();
        if let Some(ring) = ring {
            ring.close();
        }
        self.strip.close();
        self.open = None;
    }

    /// The end of the card: there is nothing to take over any more.
    pub fn release(&mut self) {
        self.close();
        self.record.forget();
    }

    fn span(&self, name: &'static str, span: Span) -> Result<(Frames, Frames), Refusal> {
        let open = self.open.as_ref().ok_or(Refusal::NotOpen(name))?;
        let outside = || Refusal::Span(name, span.length, span.offset);
        if span.length == Octets(0) || span.offset + span.length > open.buffer {
            return Err(outside());
        }
        let offset = open.format.frames(span.offset).ok_or_else(outside)?;
        let length = open.format.frames(span.length).ok_or_else(outside)?;
        Ok((offset, length))
    }

    fn wrote(&mut self, name: &'static str, span: Span) -> Result<(), Refusal> {
        let (offset, length) = self.span(name, span)?;
        if self.setup.direction != Direction::Playback {
            return Err(Refusal::Direction(name));
        }
        lock(&self.voice).wrote(offset, length, monotonic_now());
        self.pace_answer();
        Ok(())
    }

    /// The captured frames lie in the ring before the guest is told of them: READ only confirms.
    fn read(&mut self, name: &'static str, span: Span) -> Result<(), Refusal> {
        let (offset, length) = self.span(name, span)?;
        if self.setup.direction != Direction::Capture {
            return Err(Refusal::Direction(name));
        }
        lock(&self.voice).read(offset, length, monotonic_now())?;
        self.pace_answer();
        Ok(())
    }

    /// The pacer is to know of an answer that waits: it may be due before the next thing it knew of.
    fn pace_answer(&self) {
        if self.holds_answer() {
            self.pacer.add(&self.voice);
        }
    }

    /// The stream has begun to run.
    fn run(&self) {
        self.pacer.add(&self.voice);
        if self.strip.run(Run::Running) {
            self.control.capture_requested(self.setup.domain.id);
        }
    }

    fn trigger(&mut self, name: &'static str, trigger: Trigger) -> Result<(), Refusal> {
        self.open.as_ref().ok_or(Refusal::NotOpen(name))?;
        let mut voice = lock(&self.voice);
        match trigger {
            Trigger::Start => voice.start(monotonic_now()),
            Trigger::Resume if voice.resume(monotonic_now()) => (),
            Trigger::Resume => return Err(Refusal::NotPaused),
            Trigger::Stop => voice.stop(false),
            Trigger::Pause => voice.stop(true),
        }
        drop(voice);
        match trigger {
            Trigger::Start | Trigger::Resume => self.run(),
            Trigger::Stop => drop(self.strip.run(Run::Stopped)),
            Trigger::Pause => drop(self.strip.run(Run::Paused)),
        }
        Ok(())
    }

    /// The array in the shared buffer that an operation on volumes names, copied once.
    fn array(
        &self,
        name: &'static str,
        span: Span,
        check: fn(Span, u8) -> Result<usize, BadLength>,
    ) -> Result<Vec<u8>, Refusal> {
        let open = self.open.as_ref().ok_or(Refusal::NotOpen(name))?;
        let length = check(span, open.format.channels()).map_err(|error| Refusal::BadLength(name, error))?;
        let outside = || Refusal::Outside(name, span.length, span.offset);
        if span.offset + span.length > open.buffer {
            return Err(outside());
        }
        let mut array = vec![0; length];
        open.ring.read(span.offset, &mut array).map_err(|_| outside())?;
        Ok(array)
    }

    fn set_volume(&self, name: &'static str, span: Span) -> Result<(), Refusal> {
        let array = self.array(name, span, volume::check_volumes)?;
        let guest = self.strip.set_guest(|channels: &mut [GuestChannel]| {
            for (channel, value) in channels.iter_mut().zip(volume::volumes(&array)) {
                channel.volume = Millibels::nearest(value);
            }
        });
        self.record.set_guest(&guest);
        Ok(())
    }

    fn get_volume(&self, name: &'static str, span: Span) -> Result<(), Refusal> {
        self.array(name, span, volume::check_volumes)?;
        let open = self.open.as_ref().ok_or(Refusal::NotOpen(name))?;
        let array = volume::encode_volumes(self.strip.effective().into_iter());
        open.ring.write(span.offset, &array).map_err(|_| Refusal::Outside(name, span.length, span.offset))
    }

    /// "Channels to be muted/unmuted": the others stay as they are.
    fn mute(&self, name: &'static str, span: Span, muted: bool) -> Result<(), Refusal> {
        let array = self.array(name, span, volume::check_marks)?;
        let guest = self.strip.set_guest(|channels: &mut [GuestChannel]| {
            let count = channels.len() as u8;
            for (channel, _) in
                channels.iter_mut().zip(volume::marks(&array, count)).filter(|(_, marked)| *marked)
            {
                channel.muted = muted;
            }
        });
        self.record.set_guest(&guest);
        Ok(())
    }
}

impl Drop for PcmStream {
    /// However a stream ends, its guest's memory is unmapped: the node may still hold the ring then. What its record says
    /// is said by whoever ended it.
    fn drop(&mut self) {
        self.leave();
    }
}

/// An operation as the log names it.
fn name(operation: &Operation) -> &'static str {
    match operation {
        Operation::Open(_) => "OPEN",
        Operation::Close => "CLOSE",
        Operation::Read(_) => "READ",
        Operation::Write(_) => "WRITE",
        Operation::SetVolume(_) => "SET_VOLUME",
        Operation::GetVolume(_) => "GET_VOLUME",
        Operation::Mute(_) => "MUTE",
        Operation::Unmute(_) => "UNMUTE",
        Operation::Trigger(_) => "TRIGGER",
        Operation::HwParamQuery(_) => "HW_PARAM_QUERY",
    }
}
