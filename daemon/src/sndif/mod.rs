//! The wire: sndif version 2, as `xen/io/sndif.h` lays it down. Pure, no I/O, no unsafe.
//!
//! Whatever comes from a guest is copied once and checked here; types that leave this module hold only what the
//! protocol can mean. Both ends of each ring are here, the guest's for the simulator.
//!
//! Packets are little-endian, as every guest is that Xen's sound card exists for; the counters of the shared pages are
//! in native order, as Xen's ring macros have them.

mod bus;
mod card;
pub mod directory;
mod event_page;
mod format;
mod interval;
pub mod keys;
mod limits;
mod node;
mod packet;
mod ring;
mod settings;
mod status;
#[cfg(test)]
pub(crate) mod testing;
mod transport;
pub mod volume;

pub use bus::{BusState, SUPPORTED_VERSIONS};
pub use card::{CardConfig, MOST_PCMS, MOST_STREAMS, Pcm, Stream};
pub use directory::DirectoryError;
pub use event_page::{EVENT_SLOTS, EventPage, EventPageError, FrontEventPage};
pub use format::{FormatCode, FormatSet, PcmFormat};
pub use interval::Interval;
pub use limits::{Limits, Rates, Refusal, SHORTEST_PERIOD};
pub use node::{ConfigError, Problem, Quote};
pub use packet::{
    Event, HwParams, Malformed, MalformedReason, Open, Operation, PACKET, Packet, Request, Response, Span,
    Trigger, UnknownEvent, UnknownStatus,
};
pub use ring::{BackRing, FrontRing, RING_SLOTS, RingError};
pub use settings::{Oddity, Warning};
pub use status::{Errno, Status};
pub use transport::{Transport, check_version};

/// The size of a page that a guest grants, in octets: XEN_PAGE_SIZE. The protocol knows no other.
pub const PAGE: usize = 4096;
