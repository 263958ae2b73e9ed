//! One PCM stream: states, position clock, event writer.

mod clock;
mod events;
mod pacer;
mod pcm;
mod strip;
mod voice;

pub use clock::PositionClock;
pub use events::EventWriter;
pub use pacer::{Cadence, Pacer, lock};
pub use pcm::{PcmStream, StreamSetup};
pub use strip::{OpenSnapshot, Reading, StreamSnapshot, Strip};
pub use voice::Signals;
