//! What a sound server is to the bridge: a place where rings become nodes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::units::{Frames, Nanos};
use crate::{Direction, PcmRing, StreamFormat};

/// The application that a node belongs to in a mixer: one per domain, and one connection to the server each, because
/// mixers print the name of the connection and not of the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// The name that mixers show in bold: the domain's.
    pub name: String,
    /// Unique per domain and stable over its restarts (never made of the domid): the key of the connection.
    pub id: String,
    /// The domain's present number, shown as `xen.domid`.
    pub domid: u16,
}

/// How a ring shows itself on the desktop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// An application's stream: guest playback plays to a sink, guest capture records from a source.
    #[default]
    Stream,
    /// A device: guest playback is a virtual source that applications record from, guest capture a virtual sink.
    Device,
}

/// Everything that a server has to know to show a ring as a node. All texts are clean (no control characters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// The application that the node belongs to.
    pub client: Client,
    /// `node.name`: `vsnd.<domain>.<card>.<pcm>.<stream>`.
    pub name: String,
    /// `node.description`, for graph tools: domain and PCM.
    pub description: String,
    /// `media.name`, which mixers print beside the application's name.
    pub media_name: String,
    /// The key under which volume and routing are remembered: unique per stream, free of the domid.
    pub restore_key: String,
    /// Stream of an application, or a device of its own.
    pub role: Role,
    /// The shape of the frames in the ring.
    pub format: StreamFormat,
    /// Playback or capture, as the guest sees it.
    pub direction: Direction,
    /// The guest's period: the server is asked for cycles no longer than this.
    pub period: Frames,
    /// The name of the sink or source that the node is routed to from its first moment; `None` leaves it to the server.
    pub target: Option<String>,
}

/// A node's life as the server reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Asked for, not yet in the server's graph.
    Connecting,
    /// In the graph under the server's number for it, at rest.
    Idle {
        /// The server's number for the node.
        id: u32,
    },
    /// In the graph and called at every cycle.
    Running {
        /// The server's number for the node.
        id: u32,
    },
    /// Not in the graph; the text says why.
    Failed(String),
}

/// A change of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    /// [`NodeSpec::name`] of the node.
    pub node: String,
    /// The application that the node belongs to: [`Client::id`].
    pub client: String,
    /// What became of it.
    pub state: NodeState,
}

/// What the user set for a node in a mixer: the server applies it, remembers it, and it is nobody else's.
#[derive(Clone, Debug, PartialEq)]
pub struct UserVolume {
    /// The factor of each channel, as an amplitude; mixers show its cube root.
    pub channels: Vec<f32>,
    /// Whether the node is silent.
    pub muted: bool,
}

impl UserVolume {
    /// The volume of each channel as mixers show it.
    pub fn cubic(&self) -> Vec<f64> {
        self.channels.iter().map(|factor| f64::from(*factor).cbrt()).collect()
    }

    /// The factor of one channel. A node that has fewer than its stream has one for all.
    pub fn channel(&self, index: usize) -> f32 {
        self.channels.get(index).or(self.channels.first()).copied().unwrap_or(1.0)
    }
}

/// The user moved a node's slider, or its mute, or the server told of them for the first time.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeEvent {
    /// [`NodeSpec::name`] of the node.
    pub node: String,
    /// The application that the node belongs to: [`Client::id`].
    pub client: String,
    /// What holds now.
    pub volume: UserVolume,
}

/// The name and version of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// As the server calls itself: "PipeWire", "PulseAudio", or "null".
    pub name: String,
    /// The server's own version text; empty for the null server.
    pub version: String,
    /// Whether another server stands in for it, as PipeWire does for PulseAudio.
    pub is_stand_in: bool,
}

impl fmt::Display for ServerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = if self.version.is_empty() { "" } else { " " };
        write!(f, "{}{space}{}", self.name, self.version)
    }
}

/// What nodes can be routed to, by the names that the server gives it. Devices that rings are shown as are left out: a guest isn't
/// heard on itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Where playback can go.
    pub sinks: BTreeSet<String>,
    /// Where capture can come from; among them PulseAudio counts the monitors of sinks.
    pub sources: BTreeSet<String>,
}

/// What a server tells the bridge, from its own thread.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerEvent {
    /// What the server has to play on and to record from. Told before [`Connected`](Self::Connected), and when it changes.
    Targets(Targets),
    /// The server answered.
    Connected(ServerInfo),
    /// The server went away; the text says what was seen.
    Lost(String),
    /// One node changed.
    Node(NodeEvent),
    /// The user changed the volume of one node.
    Volume(VolumeEvent),
}

/// A text without whatever a C string or a terminal can't hold: texts come from a guest's configuration.
#[cfg(any(feature = "pipewire", feature = "pulseaudio"))]
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// What streams a server can carry, whatever their sample format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The most channels of a stream.
    pub channels: u8,
    /// The most frames a second.
    pub rate: u32,
    /// The shortest ring that does not run dry between two of the server's cycles.
    pub buffer: Nanos,
}

impl Bounds {
    /// Of a server that carries whatever a guest can ask for.
    pub const NONE: Self = Self { channels: u8::MAX, rate: u32::MAX, buffer: Nanos(0) };
}

/// A sound server. Its methods never wait for the server: they post a command to the server's thread and return.
pub trait SoundServer: Send + Sync {
    /// Shows `ring` as a node until the returned handle is dropped. Failures arrive as [`NodeState::Failed`].
    /// `None`: this server has no nodes, and the ring is left to the [`NullClock`](crate::NullClock).
    fn open(&self, spec: NodeSpec, ring: Arc<PcmRing>) -> Option<Box<dyn Node>>;

    /// Sample formats that the server carries, as they are or as others.
    fn carries(&self, format: crate::SampleFormat) -> bool;

    /// What streams the server can carry as far as is known now, from memory.
    fn bounds(&self) -> Bounds;

    /// Whether the server is to be looked for. One that nobody needs is not: where sockets start services, looking starts it.
    fn seek(&self, _wanted: bool) {}
}

/// A node's handle. Dropping it plays the tail to its last frame and takes the node away; it never waits.
pub trait Node: Send {
    /// The stream starts: the node is to be called at every cycle. Never waits.
    fn start(&self);

    /// The stream stopped: once the tail is heard the node may rest, so that silence costs nothing. Never waits.
    fn stop(&self);

    /// Routes the node to the sink or source of this name, now and whenever the server is back; `None` leaves it to the
    /// server. Never waits; a name that the server doesn't know changes nothing.
    fn set_target(&self, target: Option<String>);
}
