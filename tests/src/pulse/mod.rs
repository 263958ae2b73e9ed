//! A private PulseAudio, and independent clients of it: what a sink hears, and what a source says.

mod private;
mod program;
mod recorder;

pub use private::{MICROPHONE, PrivatePulse, SECOND_SINK, SINK};
pub use recorder::Recorder;
