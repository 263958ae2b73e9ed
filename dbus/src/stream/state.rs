use std::sync::Arc;
use std::time::Duration;

use crate::{Direction, NodeName};

/// What a bridge publishes of a stream.
#[derive(Clone)]
pub struct StreamState {
    /// Playback or capture, as the guest sees it.
    pub direction: Direction,
    /// What is known while the guest has it open.
    pub open: Option<OpenStream>,
    /// The node's volume of each channel as a mixer shows it, on the cubic scale. Mixers go above 1.5.
    pub volume: Vec<f64>,
    /// Whether a mixer shows the node muted.
    pub muted: bool,
    /// The name of its node on the sound server.
    pub node_name: String,
    /// The server's number for its node; `None` while there is none.
    pub node_id: Option<u32>,
    /// The sink or source that it is routed to; `None` leaves it to the session manager.
    pub target: Option<NodeName>,
    /// Reads what changes with every cycle.
    pub probe: Probe,
}

/// What a guest has opened a stream with, and whether it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenStream {
    /// Whether it runs.
    pub run: Run,
    /// The sample format as sndif names it, such as "s16_le".
    pub format: String,
    /// Frames a second.
    pub rate: u32,
    /// Channels.
    pub channels: u32,
    /// Frames of a period; 0 where the guest asked for no events.
    pub period_frames: u32,
    /// Frames of the guest's buffer.
    pub buffer_frames: u32,
}

/// Whether an open stream runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Not started, or stopped.
    Stopped,
    /// Between START and STOP.
    Running,
    /// Between PAUSE and RESUME.
    Paused,
}

/// Reads a running stream: from memory, at any time, from any thread, and without disturbing who plays.
pub type Probe = Arc<dyn Fn() -> Reading + Send + Sync>;

/// What changes while a stream runs. All counts are since the stream was last opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Frames that the guest was told to be played or captured.
    pub position: u64,
    /// By how much the told position is ahead of the sound (negative: behind), in microseconds.
    pub position_error_usec: i64,
    /// From the guest's buffer to the ear, or from the microphone into the guest's buffer.
    pub latency: Duration,
    /// How often the guest had nothing to play, or the server came too late.
    pub underruns: u64,
    /// How often the guest did not fetch what was recorded.
    pub overruns: u64,
    /// The peak of each channel in the last moments: 0.0 is silence, 1.0 full scale, linear.
    pub levels: Vec<f64>,
}

impl StreamState {
    pub(crate) fn word(&self) -> &'static str {
        match self.open.as_ref().map(|open| open.run) {
            None => "closed",
            Some(Run::Stopped) => "stopped",
            Some(Run::Running) => "running",
            Some(Run::Paused) => "paused",
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.run == Run::Running)
    }
}
