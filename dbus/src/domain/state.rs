use std::collections::BTreeMap;

use crate::{Capture, CubicVolume, StreamId, StreamState};

/// What a bridge publishes of a domain.
#[derive(Clone)]
pub struct DomainState {
    /// The name that people see.
    pub name: String,
    /// Its UUID, if it has one.
    pub uuid: Option<String>,
    /// The volume of all that it plays.
    pub volume: CubicVolume,
    /// Whether all that it plays is silent.
    pub muted: bool,
    /// Whether it may record.
    pub capture: Capture,
    /// Whether it records sound, and not silence, now.
    pub capture_active: bool,
    /// The streams of its cards.
    pub streams: BTreeMap<StreamId, StreamState>,
}
