//! What a bridge publishes, read at once. Texts are as they came: a terminal must be guarded from them.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use zbus::{OwnedVariant, fdo};

use super::ClientError;
use crate::{Capture, Direction, DomainId, Object, StreamId};

/// A bridge and its domains.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bridge {
    /// The bridge's version.
    pub version: String,
    /// The sound server's name and version, or "null".
    pub server: String,
    /// What playback streams can be routed to.
    pub sinks: Vec<String>,
    /// What capture streams can be routed to.
    pub sources: Vec<String>,
    /// The domains that have a sound card, by their numbers.
    pub domains: Vec<Domain>,
}

/// A domain and its streams.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Domain {
    /// Its present number.
    pub id: DomainId,
    /// Its name.
    pub name: String,
    /// Its UUID; empty where it has none.
    pub uuid: String,
    /// The volume of all that it plays, cubic.
    pub volume: f64,
    /// Whether all that it plays is silent.
    pub muted: bool,
    /// Whether it may record.
    pub capture: Capture,
    /// Whether it records sound now.
    pub capture_active: bool,
    /// Its streams.
    pub streams: Vec<Stream>,
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stream {
    /// Where it is on its domain's cards.
    pub id: StreamId,
    /// Playback or capture, as the guest sees it.
    pub direction: Direction,
    /// "closed", "stopped", "running" or "paused".
    pub state: String,
    /// The sample format; empty while closed.
    pub format: String,
    /// Frames a second; 0 while closed.
    pub rate: u32,
    /// Channels; 0 while closed.
    pub channels: u32,
    /// Frames of a period; 0 while closed.
    pub period_frames: u32,
    /// Frames of the guest's buffer; 0 while closed.
    pub buffer_frames: u32,
    /// The node's volume of each channel, cubic.
    pub volume: Vec<f64>,
    /// Whether the node is muted.
    pub muted: bool,
    /// The node's name on the sound server.
    pub node_name: String,
    /// The server's number for the node; 4294967295 while there is none.
    pub node_id: u32,
    /// The sink or source that it is routed to; empty leaves it to the session manager.
    pub target: String,
    /// From the guest's buffer to the ear, or from the microphone into the guest's buffer.
    pub latency_usec: u64,
    /// How often the guest had nothing to play, or the server came too late.
    pub underruns: u64,
    /// How often the guest did not fetch what was recorded.
    pub overruns: u64,
    /// Frames that the guest was told to be played or captured.
    pub position: u64,
    /// By how much the told position is ahead of the sound.
    pub position_error_usec: i64,
    /// The peak of each channel in the last moments, linear.
    pub levels: Vec<f64>,
}

impl Bridge {
    pub(super) fn new(
        properties: HashMap<String, OwnedVariant>,
        objects: fdo::ManagedObjects,
    ) -> Result<Self, ClientError> {
        let mut found = BTreeMap::new();
        for (path, mut interfaces) in objects {
            // Paths between two objects are listed, too, without an interface.
            let Some(object) = Object::at(&path) else { continue };
            if let Some(properties) = interfaces.remove(object.interface()) {
                found.insert(object, Properties { object, properties });
            }
        }
        let mut domains = BTreeMap::new();
        for (object, properties) in found {
            match object {
                Object::Bridge => (),
                Object::Domain(id) => {
                    domains.insert(id, Domain::new(id, properties)?);
                }
                // Its domain came before it.
                Object::Stream(domain, id) => {
                    let stream = Stream::new(id, properties)?;
                    if let Some(domain) = domains.get_mut(&domain) {
                        domain.streams.push(stream);
                    }
                }
            }
        }
        let mut bridge = Properties { object: Object::Bridge, properties };
        Ok(Self {
            version: bridge.take("Version")?,
            server: bridge.take("Server")?,
            sinks: bridge.take("Sinks")?,
            sources: bridge.take("Sources")?,
            domains: domains.into_values().collect(),
        })
    }
}

impl Domain {
    fn new(id: DomainId, mut from: Properties) -> Result<Self, ClientError> {
        Ok(Self {
            id,
            name: from.take("Name")?,
            uuid: from.take("Uuid")?,
            volume: from.take("Volume")?,
            muted: from.take("Muted")?,
            capture: from.word("Capture")?,
            capture_active: from.take("CaptureActive")?,
            streams: Vec::new(),
        })
    }
}

impl Stream {
    fn new(id: StreamId, mut from: Properties) -> Result<Self, ClientError> {
        Ok(Self {
            id,
            direction: from.word("Direction")?,
            state: from.take("State")?,
            format: from.take("Format")?,
            rate: from.take("Rate")?,
            channels: from.take("Channels")?,
            period_frames: from.take("PeriodFrames")?,
            buffer_frames: from.take("BufferFrames")?,
            volume: from.take("Volume")?,
            muted: from.take("Muted")?,
            node_name: from.take("NodeName")?,
            node_id: from.take("NodeId")?,
            target: from.take("Target")?,
            latency_usec: from.take("LatencyUsec")?,
            underruns: from.take("Underruns")?,
            overruns: from.take("Overruns")?,
            position: from.take("Position")?,
            position_error_usec: from.take("PositionErrorUsec")?,
            levels: from.take("Levels")?,
        })
    }
}

/// The properties of an object, to be taken one by one.
struct Properties {
    object: Object,
    properties: HashMap<String, OwnedVariant>,
}

impl Properties {
    fn take<T: TryFrom<OwnedVariant>>(&mut self, name: &str) -> Result<T, ClientError> {
        let value = self.properties.remove(name);
        let said =
            value.as_ref().map_or_else(|| format!("no {name}"), |value| format!("{name} = {:?}", **value));
        let value = value.and_then(|value| T::try_from(value).ok());
        value.ok_or(ClientError::Protocol { object: self.object, found: said })
    }

    fn word<T: std::str::FromStr>(&mut self, name: &str) -> Result<T, ClientError> {
        let word: String = self.take(name)?;
        let unknown = || ClientError::Protocol { object: self.object, found: format!("{name} = {word:?}") };
        word.parse().map_err(|_| unknown())
    }
}
