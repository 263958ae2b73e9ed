//! A stream of PulseAudio's for one ring, from its creation to its end.
//!
//! No callback of libpulse's is used: after each turn of the loop, which has read whatever the server sent, a stream is
//! asked for its state, its report and the room it has. So nothing is ever reached from two places at once, and a failed
//! assertion can't be swallowed on the way through C.
//!
//! What libpulse itself does below `begin_write`, `write`, `peek` and `discard`: it takes blocks from a pool that it
//! mapped with the connection, shared with a local PulseAudio, and queues packets, for which it allocates while more are
//! on their way than before. The loop sends them at its next turn.

use std::sync::Arc;

use libpulse_binding::context::Context;
use libpulse_binding::error::PAErr;
use libpulse_binding::operation::{Operation, State as OperationState};
use libpulse_binding::stream::{FlagSet, PeekResult, SeekMode, State, Stream as PulseStream};
use libpulse_binding::time::UnixTs;

use super::process::{Process, Report};
use super::{format, properties};
use crate::handle::Lease;
use crate::server::clean;
use crate::units::{Nanos, monotonic_now};
use crate::{Direction, NodeSpec, PcmRing, Role};

/// Blocks that one turn moves at most; the next one goes on.
const MOST_BLOCKS: usize = 64;
/// Older reports than this were stamped before somebody set the clock.
const OLDEST_REPORT: Nanos = Nanos::from_millis(1_000);
/// Octets in which holes in a recording are filled.
const HOLE: usize = 4096;

/// Why a node can't have a stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("PulseAudio doesn't carry this format")]
    Format,
    #[error(
        "PulseAudio gives clients no sinks or sources of their own, so the role \"device\" needs PipeWire; \
         set role = \"stream\" in the policy file"
    )]
    Device,
    #[error("libpulse is out of memory")]
    Memory,
    #[error("can't connect the stream")]
    Connect(#[source] PAErr),
}

impl StreamError {
    /// Whether another try would end alike.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Format | Self::Device)
    }
}

/// How far a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The server hasn't answered yet.
    Waiting,
    /// On the server under this number.
    Ready(u32),
    /// It is over.
    Failed,
}

/// A stream.
pub(super) struct Stream {
    stream: PulseStream,
    process: Process,
    corked: bool,
    /// The request for the next report.
    asked: Option<Operation<dyn FnMut(bool)>>,
    /// The stamp of the newest report.
    reported: Option<UnixTs>,
    /// Where the server ran out of frames last, in octets.
    ran_dry: Option<u64>,
}

impl Stream {
    /// Makes a stream on `context`, which has to be ready; corked unless it is `active`.
    pub(super) fn new(
        context: &mut Context,
        spec: &NodeSpec,
        ring: &Arc<PcmRing>,
        lease: &Arc<Lease>,
        active: bool,
    ) -> Result<Self, StreamError> {
        if spec.role == Role::Device {
            return Err(StreamError::Device);
        }
        let carrier = format::carrier(spec.format).ok_or(StreamError::Format)?;
        let sample_spec = format::spec(carrier.format()).ok_or(StreamError::Format)?;
        let map = format::channel_map(spec.format.channels()).ok_or(StreamError::Format)?;
        let mut properties = properties::node(spec).ok_or(StreamError::Memory)?;
        let name = clean(&spec.media_name);
        let stream =
            PulseStream::new_with_proplist(context, &name, &sample_spec, Some(&map), &mut properties);
        let mut stream = stream.ok_or(StreamError::Memory)?;
        let attributes = format::buffers(carrier.format(), spec.period, spec.direction);
        let mut flags = FlagSet::ADJUST_LATENCY;
        if !active {
            flags |= FlagSet::START_CORKED;
        }
        // Neither device nor volume: both are what the desktop remembers of this stream.
        match spec.direction {
            Direction::Playback => stream.connect_playback(None, Some(&attributes), flags, None, None),
            Direction::Capture => stream.connect_record(None, Some(&attributes), flags),
        }
        .map_err(StreamError::Connect)?;
        let process = Process::new(Arc::clone(ring), Arc::clone(lease), carrier);
        Ok(Self { stream, process, corked: !active, asked: None, reported: None, ran_dry: None })
    }

    pub(super) fn progress(&self) -> Progress {
        match self.stream.get_state() {
            State::Unconnected | State::Creating => Progress::Waiting,
            State::Ready => self.stream.get_index().map_or(Progress::Waiting, Progress::Ready),
            State::Failed | State::Terminated => Progress::Failed,
        }
    }

    /// Whether operations may be asked of it: libpulse-binding panics otherwise.
    fn is_ready(&self) -> bool {
        self.stream.get_state() == State::Ready
    }

    /// Whether the stream is at rest: the server neither asks for frames nor delivers any.
    pub(super) fn is_corked(&self) -> bool {
        self.corked
    }

    /// Lets the stream run or rest, once it is on the server.
    pub(super) fn set_active(&mut self, active: bool) {
        if !self.is_ready() || self.corked != active {
            return;
        }
        self.corked = !active;
        self.process.interrupt();
        drop(if active { self.stream.uncork(None) } else { self.stream.cork(None) });
    }

    /// How long from `now` until everything from the ring has been heard.
    pub(super) fn tail(&self, now: Nanos) -> Nanos {
        self.process.tail(now)
    }

    /// Whether everything from the ring has been heard, as far as the server reported.
    pub(super) fn all_heard(&self) -> bool {
        self.process.all_heard()
    }

    /// Takes the server's report and moves what there is to move. Whether there is more.
    pub(super) fn turn(&mut self) -> bool {
        if self.corked || !self.is_ready() {
            return false;
        }
        self.take_interruption();
        self.take_report();
        let more = match self.process.direction() {
            Direction::Playback => self.write(),
            Direction::Capture => self.read(),
        };
        match more {
            Some(more) => {
                self.ask_for_report();
                more
            }
            None => false,
        }
    }

    /// The reports that libpulse asks for by itself come ever more rarely, and its own clock counts time that a stream
    /// spent at rest. So one report is asked for with every block, and only raw numbers of it are used.
    fn ask_for_report(&mut self) {
        let waiting = self.asked.as_ref().is_some_and(|asked| asked.get_state() == OperationState::Running);
        // A write may have failed the connection.
        if !waiting && self.is_ready() {
            self.asked = Some(self.stream.update_timing_info(None));
        }
    }

    fn take_interruption(&mut self) {
        let ran_dry = self.stream.get_underflow_index();
        if ran_dry != self.ran_dry {
            self.ran_dry = ran_dry;
            self.process.ran_dry(ran_dry.unwrap_or(0));
        }
    }

    fn take_report(&mut self) {
        let Some(info) = self.stream.get_timing_info() else { return };
        if self.reported == Some(info.timestamp) {
            return;
        }
        self.reported = Some(info.timestamp);
        let age = i64::try_from(info.timestamp.age().0).unwrap_or(i64::MAX).saturating_mul(1_000);
        let age = if age < OLDEST_REPORT.0 { Nanos(age) } else { Nanos(0) };
        let micros = |micros: u64| i64::try_from(micros).unwrap_or(0);
        let latency = match self.process.direction() {
            Direction::Playback => micros(info.sink_usec.0),
            Direction::Capture => micros(info.source_usec.0).saturating_sub(micros(info.sink_usec.0)),
        };
        self.process.report(Report {
            at: monotonic_now() - age,
            write_index: info.write_index,
            read_index: info.read_index,
            latency,
            playing: info.playing != 0,
        });
    }

    /// Writes what the server has room for; `None` if nothing was moved.
    fn write(&mut self) -> Option<bool> {
        let frame = self.process.frame();
        let writable = self.stream.writable_size()?;
        let mut left = writable - writable % frame;
        if left == 0 {
            return None;
        }
        for _ in 0..MOST_BLOCKS {
            let Ok(Some(memory)) = self.stream.begin_write(Some(left)) else { return Some(false) };
            let len = memory.len().min(left);
            let len = len.min(self.process.longest());
            let Some(block) = memory.get_mut(..len - len % frame).filter(|block| !block.is_empty()) else {
                let _ = self.stream.cancel_write();
                return Some(false);
            };
            self.process.play(monotonic_now(), block);
            left -= block.len();
            // The memory is the library's own, which it sends without another copy.
            if self.stream.write(block, None, 0, SeekMode::Relative).is_err() || left == 0 {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Takes what was recorded; `None` if there was nothing.
    fn read(&mut self) -> Option<bool> {
        let (frame, longest) = (self.process.frame(), self.process.longest());
        let readable = self.stream.readable_size().filter(|readable| *readable > 0)?;
        let mut stale = readable.saturating_sub(self.longest_backlog());
        if stale > 0 {
            self.process.missed();
        }
        for _ in 0..MOST_BLOCKS {
            let now = monotonic_now();
            match self.stream.peek() {
                Ok(PeekResult::Data(data)) => {
                    let data = data.get(..data.len() - data.len() % frame).unwrap_or_default();
                    if stale > 0 {
                        self.process.capture_late(data.len());
                    } else {
                        data.chunks(longest).for_each(|data| self.process.capture(now, data));
                    }
                    stale = stale.saturating_sub(data.len());
                }
                Ok(PeekResult::Hole(mut len)) => {
                    let mut room = [0; HOLE];
                    while len >= frame {
                        let piece = len.min(HOLE);
                        let silence = room.get_mut(..piece - piece % frame).unwrap_or_default();
                        self.process.capture_silence(now, silence);
                        len -= silence.len();
                    }
                }
                Ok(PeekResult::Empty) | Err(_) => return Some(false),
            }
            if self.stream.discard().is_err() {
                return Some(false);
            }
        }
        Some(true)
    }

    /// Octets that wait at most while this side keeps pace. What waited longer was recorded while the ring had another
    /// clock, which has passed that time already.
    fn longest_backlog(&mut self) -> usize {
        let fragment = self.stream.get_buffer_attr().map_or(0, |granted| granted.fragsize as usize);
        let tenth = self.stream.get_sample_spec().map_or(0, |spec| spec.bytes_per_second() / 10);
        (4 * fragment).max(tenth)
    }
}
