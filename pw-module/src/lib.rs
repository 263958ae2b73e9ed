//! Sinks and sources on a sound server, played and recorded straight from rings of shared memory.
//!
//! The joint between a stream and a server is [`PcmRing`]: shared memory with hardware semantics and monotonic
//! counters. A [`SoundServer`] shows each ring as a node that the desktop user routes; nodes are replaceable readers
//! of a ring, and [`NullClock`] takes a ring over whenever no node serves it.
//!
//! This crate knows nothing of Xen.

#[cfg(any(feature = "pipewire", feature = "pulseaudio"))]
mod activity;
#[cfg(any(feature = "pipewire", feature = "pulseaudio"))]
mod backoff;
#[cfg(any(feature = "pipewire", feature = "pulseaudio"))]
mod clients;
mod codec;
#[cfg(any(feature = "pipewire", feature = "pulseaudio"))]
mod convert;
mod format;
mod gain;
#[cfg(any(feature = "pipewire", feature = "pulseaudio"))]
mod handle;
#[cfg(all(test, loom))]
mod loom_tests;
mod marks;
mod null;
mod pages;
mod ring;
#[cfg(any(feature = "pipewire", feature = "pulseaudio"))]
mod search;
mod server;
mod switch;
mod sync;
mod timing;
#[cfg(any(feature = "pipewire", feature = "pulseaudio"))]
mod told;
mod units;
mod write;

#[cfg(feature = "pipewire")]
pub mod pipewire;
#[cfg(feature = "pulseaudio")]
pub mod pulse;

pub use format::{SampleFormat, StreamFormat};
pub use marks::{Cursor, Marks};
pub use null::{NullClock, NullServer};
pub use pages::{Access, Counters, OutOfRange, Pages};
pub use ring::{Attachment, Direction, PcmRing, RingClosed, Stopped};
pub use server::{
    Bounds, Client, Node, NodeEvent, NodeSpec, NodeState, Role, ServerEvent, ServerInfo, SoundServer,
    Targets, UserVolume, VolumeEvent,
};
pub use switch::{Presence, Switch, prefer};
pub use timing::Timing;
pub use units::{Frames, Nanos, Octets, monotonic_now};
