//! What guests may cost, each of them and all together. A guest over a bound is slowed or refused, and named in the log with
//! the key that raises it. No desktop comes near the defaults.

use std::num::NonZeroU32;

use serde::Deserialize;

/// What one guest may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestLimits {
    /// Cards.
    pub cards: NonZeroU32,
    /// Streams of all its cards together.
    pub streams: NonZeroU32,
    /// MiB of its memory that are mapped at a time.
    pub memory: NonZeroU32,
    /// Requests, and notifications that bring none.
    pub requests_per_second: NonZeroU32,
    /// Looks at its running streams, each of which may tell it a position.
    pub events_per_second: NonZeroU32,
    /// Times that a stream is opened.
    pub opens_per_minute: NonZeroU32,
    /// Looks at its cards' states.
    pub state_changes_per_minute: NonZeroU32,
    /// Lines in the log about what it does wrong.
    pub log_lines_per_minute: NonZeroU32,
}

const fn count(count: u32) -> NonZeroU32 {
    match NonZeroU32::new(count) {
        Some(count) => count,
        None => NonZeroU32::MIN,
    }
}

impl GuestLimits {
    /// Measured by the largest desktop that we can think of: four cards of eight streams, all of them running with periods of
    /// 1 ms, under a PulseAudio that tries every way to open them. docs/limits.md has the reckoning.
    pub const DEFAULT: Self = Self {
        cards: count(8),
        streams: count(64),
        memory: count(64),
        requests_per_second: count(50_000),
        events_per_second: count(50_000),
        opens_per_minute: count(600),
        state_changes_per_minute: count(600),
        log_lines_per_minute: count(10),
    };
}

impl Default for GuestLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What all guests together may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TotalLimits {
    /// MiB of guests' memory that are mapped at a time.
    pub memory: NonZeroU32,
}

impl Default for TotalLimits {
    fn default() -> Self {
        Self { memory: count(512) }
    }
}

/// [`GuestLimits`] as a rule may set them.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct LimitKeys {
    cards: Option<NonZeroU32>,
    streams: Option<NonZeroU32>,
    memory: Option<NonZeroU32>,
    requests_per_second: Option<NonZeroU32>,
    events_per_second: Option<NonZeroU32>,
    opens_per_minute: Option<NonZeroU32>,
    state_changes_per_minute: Option<NonZeroU32>,
    log_lines_per_minute: Option<NonZeroU32>,
}

impl LimitKeys {
    pub(super) fn over(self, limits: GuestLimits) -> GuestLimits {
        GuestLimits {
            cards: self.cards.unwrap_or(limits.cards),
            streams: self.streams.unwrap_or(limits.streams),
            memory: self.memory.unwrap_or(limits.memory),
            requests_per_second: self.requests_per_second.unwrap_or(limits.requests_per_second),
            events_per_second: self.events_per_second.unwrap_or(limits.events_per_second),
            opens_per_minute: self.opens_per_minute.unwrap_or(limits.opens_per_minute),
            state_changes_per_minute: self
                .state_changes_per_minute
                .unwrap_or(limits.state_changes_per_minute),
            log_lines_per_minute: self.log_lines_per_minute.unwrap_or(limits.log_lines_per_minute),
        }
    }
}
