//! Names of XenStore nodes: XENSND_FIELD_* and those of every XenBus device.

/// XENSND_DRIVER_NAME: the directory of all sound cards, below `backend` and below `device`.
pub const DRIVER: &str = "vsnd";
/// XENSND_LIST_SEPARATOR.
pub const LIST_SEPARATOR: char = ',';

/// Either end's [`BusState`](super::BusState).
pub const STATE: &str = "state";
/// In the frontend's directory: the backend's.
pub const BACKEND: &str = "backend";
/// In the backend's directory, by the toolstack: "0" when the device is to go.
pub const ONLINE: &str = "online";

/// In the backend's directory: the protocol versions that it speaks.
pub const VERSIONS: &str = "versions";
/// In the frontend's directory: the one it chose. Linux doesn't write it.
pub const VERSION: &str = "version";

/// A PCM's name.
pub const NAME: &str = "name";
/// A stream's direction.
pub const TYPE: &str = "type";
/// [`TYPE`] of a playback stream.
pub const TYPE_PLAYBACK: &str = "p";
/// [`TYPE`] of a capture stream.
pub const TYPE_CAPTURE: &str = "c";

/// The least count of channels; of a card, a PCM or a stream, like all that follow.
pub const CHANNELS_MIN: &str = "channels-min";
/// The greatest count of channels.
pub const CHANNELS_MAX: &str = "channels-max";
/// Rates in frames a second.
pub const SAMPLE_RATES: &str = "sample-rates";
/// Names of formats.
pub const SAMPLE_FORMATS: &str = "sample-formats";
/// The greatest buffer in octets.
pub const BUFFER_SIZE: &str = "buffer-size";

/// A stream's request ring: its grant reference.
pub const RING_REF: &str = "ring-ref";
/// A stream's request ring: its event channel.
pub const EVENT_CHANNEL: &str = "event-channel";
/// A stream's event page: its grant reference.
pub const EVT_RING_REF: &str = "evt-ring-ref";
/// A stream's event page: its event channel.
pub const EVT_EVENT_CHANNEL: &str = "evt-event-channel";

/// The directory of one stream below its frontend's.
pub fn stream_directory(frontend: &str, pcm: u8, stream: u8) -> String {
    format!("{frontend}/{pcm}/{stream}")
}
