//! Where each end of a device stands on the XenBus, and which protocol is spoken.

use std::fmt;

/// What the backend publishes under [`VERSIONS`](super::keys::VERSIONS): the one version it speaks. Version 1 had packets
/// of 32 octets.
pub const SUPPORTED_VERSIONS: &str = "2";

/// enum xenbus_state: the node `state` of either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BusState {
    /// Nothing is known; what Linux takes a missing or meaningless node for.
    Unknown = 0,
    /// As the toolstack creates both ends.
    Initialising = 1,
    /// Ready for what the other end publishes.
    InitWait = 2,
    /// Published, waiting to be connected.
    Initialised = 3,
    /// In use.
    Connected = 4,
    /// On the way to closed: the other end has an error or is asked to go.
    Closing = 5,
    /// Nothing is shared any more.
    Closed = 6,
    /// The frontend waits for users of a broken device to leave.
    Reconfiguring = 7,
    /// After [`Reconfiguring`](Self::Reconfiguring).
    Reconfigured = 8,
}

impl BusState {
    /// All of them, by number.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// The node's value: one digit.
    pub const fn value(self) -> &'static str {
        match self {
            Self::Unknown => "0",
            Self::Initialising => "1",
            Self::InitWait => "2",
            Self::Initialised => "3",
            Self::Connected => "4",
            Self::Closing => "5",
            Self::Closed => "6",
            Self::Reconfiguring => "7",
            Self::Reconfigured => "8",
        }
    }

    /// The state that a node's value means; `None` when it means none.
    pub fn from_value(value: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.value().as_bytes() == value)
    }
}

impl fmt::Display for BusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?} ({})", self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_single_digits_and_nothing_else() {
        for (number, state) in BusState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(state.value(), number.to_string());
            assert_eq!(BusState::from_value(state.value().as_bytes()), Some(state));
        }
        for value in ["", "9", "-1", "04", "4 ", "4\0", "x"] {
            assert_eq!(BusState::from_value(value.as_bytes()), None, "{value:?}");
        }
        assert_eq!(BusState::InitWait.to_string(), "InitWait (2)");
    }
}
