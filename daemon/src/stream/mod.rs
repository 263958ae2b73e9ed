//! One PCM stream: states, position clock, event writer, record.

mod clock;
mod events;
mod pacer;
mod pcm;
mod record;
mod strip;
mod voice;

pub use clock::PositionClock;
pub use events::EventWriter;
pub use pacer::{Cadence, Pacer, lock};
pub use pcm::{PcmStream, StreamSetup};
pub use record::{Disbelief, Incarnation, Left, Record};
pub use strip::Strip;
pub use voice::Signals;
