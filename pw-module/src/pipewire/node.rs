//! One ring as a stream of PipeWire's, through every life that the server gives it.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use pipewire as pw;
use pw::registry::RegistryRc;
use pw::spa::pod::Pod;
use pw::spa::utils::Direction as PortDirection;
use pw::stream::{StreamFlags, StreamListener, StreamRc, StreamState};

use super::connection::Connection;
use super::control::Control;
use super::process::{Process, Shared};
use super::router::Router;
use super::thread::Happening;
use super::{format, properties};
use crate::activity::{Activity, Due};
use crate::backoff::Backoff;
use crate::handle::{Lease, NodeKey, Opened, Order};
use crate::server::clean;
use crate::told::{Events, Told};
use crate::units::{Nanos, monotonic_now};
use crate::{Attachment, Direction, NodeSpec, NodeState, PcmRing, Role, UserVolume};

/// Why a node can't be in the graph.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeError {
    #[error("PipeWire doesn't carry this format")]
    Format,
    #[error("can't create the stream")]
    Create(#[source] pw::Error),
    #[error("can't connect the stream")]
    Connect(#[source] pw::Error),
}

/// The number of a node that is not in the graph.
const ID_ANY: u32 = u32::MAX;
/// How often a node that the server refuses is offered again.
const RETRY: Backoff = Backoff::new(Nanos::from_millis(1_000), Nanos::from_millis(30_000));
/// How long a server may take to remove a node; one that hangs gets no more.
const REMOVAL: Nanos = Nanos::from_millis(2_000);

/// A node whose tail is heard goes by the server's hand, and its stream after it. Were the stream to go first, libpipewire
/// before 0.3.72 would keep the descriptors of messages under way to it, two for each: a guest that opens and closes in quick
/// succession would have the process run out of them.
#[derive(Clone, Copy, Debug)]
struct Removal {
    /// Whether the server was asked; before it has named the node it can't be.
    asked: bool,
    /// The stream goes then, whatever the server does.
    until: Nanos,
}

/// A node that has a handle, or plays its tail.
pub(super) struct Node {
    pub(super) spec: NodeSpec,
    ring: Arc<PcmRing>,
    lease: Arc<Lease>,
    /// While there is a stream, or there may be one at once.
    attachment: Option<Attachment>,
    shared: Arc<Shared>,
    activity: Activity,
    live: Option<Live>,
    removal: Option<Removal>,
    /// How many streams this node has had: what an earlier one still says isn't about the present one.
    life: u64,
    told: Told,
    backoff: Backoff,
    volume: UserVolume,
    /// Anybody said where it is to be routed, which its specification knows.
    is_routed: bool,
    /// The session manager is to be told of it.
    route_due: bool,
    /// The present stream has been in the graph.
    settled: bool,
}

impl Node {
    pub(super) fn new(opened: Opened, events: &Events) -> Self {
        let Opened { spec, ring, lease, attachment } = opened;
        let is_routed = spec.target.is_some();
        Self {
            spec,
            ring,
            lease,
            attachment: Some(attachment),
            shared: Arc::default(),
            activity: Activity::opened(monotonic_now()),
            live: None,
            removal: None,
            life: 0,
            told: Told::new(events),
            backoff: RETRY,
            volume: UserVolume { channels: Vec::new(), muted: false },
            is_routed,
            route_due: false,
            settled: false,
        }
    }

    /// Whether the node wants a stream and has none at `now`.
    pub(super) fn wants_stream(&self, now: Nanos) -> bool {
        self.live.is_none() && !self.activity.released() && self.backoff.is_over(now)
    }

    /// Gives the node a stream on `connection`.
    pub(super) fn connect(
        &mut self,
        key: NodeKey,
        connection: &Connection,
        queue: &Sender<Happening>,
    ) -> Result<(), NodeError> {
        self.life += 1;
        let name = NodeName { key, life: self.life };
        (self.route_due, self.settled) = (self.is_routed, false);
        self.live = Some(Live::new(self, name, connection, queue)?);
        self.attachment.get_or_insert_with(|| self.ring.attach());
        Ok(())
    }

    /// There is no stream, and for a while no other is tried.
    pub(super) fn refused(&mut self, now: Nanos, why: String) {
        self.drop_stream();
        self.backoff.failed(now);
        self.tell(NodeState::Failed(why));
    }

    /// The server is gone, and with it the stream.
    pub(super) fn disconnect(&mut self) {
        self.drop_stream();
        self.backoff.reset();
    }

    fn drop_stream(&mut self) {
        self.attachment = None;
        self.shared.interrupt();
        self.live = None;
    }

    /// What made tries fail may be over.
    pub(super) fn retry(&mut self) {
        self.backoff.reset();
    }

    /// Carries out what the handle asks for.
    pub(super) fn obey(&mut self, order: Order, now: Nanos) {
        match order {
            Order::Start => {
                self.activity.start();
                self.apply_activity();
            }
            Order::Stop => self.activity.stop(now, self.shared.tail()),
            Order::Target(target) => {
                self.spec.target = target;
                (self.is_routed, self.route_due) = (true, true);
            }
            Order::Release => self.release(now),
        }
    }

    /// The node goes: one that plays once its tail is heard, a microphone at once.
    pub(super) fn release(&mut self, now: Nanos) {
        self.lease.end();
        self.told.end();
        self.attachment = None;
        let tail = if self.spec.direction == Direction::Playback { self.shared.tail() } else { Nanos(0) };
        self.activity.release(now, tail);
    }

    /// When something is due next.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        let activity = self.removal.map(|removal| removal.until).or(self.activity.deadline());
        let retry = self.backoff.at().filter(|_| self.live.is_none() && !self.activity.released());
        [activity, retry].into_iter().flatten().min()
    }

    /// Does what is due at `now`; whether nothing is left of the node.
    pub(super) fn tick(&mut self, now: Nanos) -> bool {
        if self.activity.released() && self.live.is_none() {
            return true;
        }
        match self.activity.due(now) {
            Some(Due::Go) => return self.is_overdue(now),
            Some(Due::Rest) => self.apply_activity(),
            None => (),
        }
        false
    }

    /// Has the server remove the node; whether it has taken too long.
    fn is_overdue(&mut self, now: Nanos) -> bool {
        let removal = self.removal.get_or_insert(Removal { asked: false, until: now + REMOVAL });
        if let Some(live) = self.live.as_ref().filter(|_| !removal.asked) {
            removal.asked = live.remove();
        }
        now >= removal.until
    }

    fn apply_activity(&self) {
        let Some(live) = &self.live else { return };
        if let Err(error) = live.stream.set_active(self.activity.active()) {
            tracing::debug!(node = self.spec.name, %error, "can't change the node's activity");
        }
    }

    /// Takes in a change of the stream of life `life`.
    pub(super) fn stream_changed(&mut self, life: u64, state: StreamState, now: Nanos) {
        let Some(live) = self.live.as_ref().filter(|_| life == self.life) else { return };
        let id = live.stream.node_id();
        if matches!(state, StreamState::Paused | StreamState::Streaming)
            && !std::mem::replace(&mut self.settled, true)
        {
            // What was told as soon as the node had a number may have come before the session manager knew of the node.
            self.route_anew();
        }
        match state {
            StreamState::Connecting => self.told.tell_try(&self.spec),
            StreamState::Paused => {
                self.shared.interrupt();
                // A node that the server removes rests once more, without a number.
                if id != ID_ANY {
                    self.tell(NodeState::Idle { id });
                }
            }
            StreamState::Streaming => {
                self.backoff.reset();
                self.tell(NodeState::Running { id });
            }
            StreamState::Unconnected if self.activity.released() => self.drop_stream(),
            StreamState::Unconnected => self.refused(now, "the server removed the node".to_owned()),
            StreamState::Error(text) => self.refused(now, text),
        }
    }

    /// Takes in what a mixer did to the stream of life `life`.
    pub(super) fn volume_changed(&mut self, life: u64, control: Control) {
        // Before a stream has its format it has another number of channels.
        let foreign = matches!(&control, Control::Volumes(channels) if channels.len() != usize::from(self.spec.format.channels()));
        if life == self.life
            && !foreign
            && control.apply(&mut self.volume)
            && !self.volume.channels.is_empty()
        {
            self.told.tell_volume(&self.spec, self.volume.clone());
        }
    }

    /// The session manager may not know of the route, such as one that was started again.
    pub(super) fn route_anew(&mut self) {
        self.route_due = self.is_routed;
    }

    /// Routes the node as it was said, once it is in the graph.
    pub(super) fn route(&mut self, router: &Router) {
        let Some(live) = &self.live else { return };
        let id = live.stream.node_id();
        if id != ID_ANY && std::mem::take(&mut self.route_due) {
            router.route(id, self.spec.target.as_deref());
        }
    }

    /// Tells the state, unless it was told already.
    pub(super) fn tell(&mut self, state: NodeState) {
        self.told.tell(&self.spec, state);
    }
}

/// Which stream of which node a happening is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeName {
    pub(super) key: NodeKey,
    pub(super) life: u64,
}

/// A stream and its listeners. The fields drop in this order: a listener must not outlive its stream.
struct Live {
    /// Owns what the data thread touches, and nothing else does: a listener with callbacks of both threads would share
    /// its state between them without a lock.
    _process: StreamListener<Process>,
    _control: StreamListener<()>,
    stream: StreamRc,
    /// Of the stream's own connection.
    registry: RegistryRc,
}

impl Live {
    fn new(
        node: &Node,
        name: NodeName,
        connection: &Connection,
        queue: &Sender<Happening>,
    ) -> Result<Self, NodeError> {
        let carrier = format::carrier(node.spec.format).ok_or(NodeError::Format)?;
        let format = format::enum_format(carrier.format()).ok_or(NodeError::Format)?;
        let mut params = [Pod::from_bytes(&format).ok_or(NodeError::Format)?];
        let properties = properties::node(&node.spec);
        let media_name = clean(&node.spec.media_name);
        let stream =
            StreamRc::new(connection.core().clone(), &media_name, properties).map_err(NodeError::Create)?;
        // The first listener that has `process` is the one that PipeWire calls on its data thread.
        let process =
            Process::new(Arc::clone(&node.ring), Arc::clone(&node.lease), Arc::clone(&node.shared), carrier);
        let process = stream
            .add_local_listener_with_user_data(process)
            .process(|stream, process| process.run(stream))
            .register()
            .map_err(NodeError::Create)?;
        let (states, controls) = (queue.clone(), queue.clone());
        let control = stream
            .add_local_listener::<()>()
            // The receiver lives as long as the loop that makes these calls.
            .state_changed(move |_, (), _, state| {
                let _ = states.send(Happening::Stream(name, state));
            })
            .control_info(move |_, (), id, control| {
                if let Some(control) = Control::read(id, control) {
                    let _ = controls.send(Happening::Control(name, control));
                }
            })
            .register()
            .map_err(NodeError::Create)?;
        let direction = match node.spec.direction {
            Direction::Playback => PortDirection::Output,
            Direction::Capture => PortDirection::Input,
        };
        let mut flags = StreamFlags::MAP_BUFFERS | StreamFlags::RT_PROCESS;
        if node.spec.role == Role::Stream {
            flags |= StreamFlags::AUTOCONNECT;
        }
        if !node.activity.active() {
            flags |= StreamFlags::INACTIVE;
        }
        stream.connect(direction, None, flags, &mut params).map_err(NodeError::Connect)?;
        let registry = connection.registry().clone();
        Ok(Self { _process: process, _control: control, stream, registry })
    }

    /// Asks the server to remove the node; whether it could be asked, which takes that it has given the node a number.
    ///
    /// A number that was given out anew is never meant: the server refuses to destroy what it made after the last message
    /// that has been read on this connection, and by that message the stream would know that its node is gone.
    fn remove(&self) -> bool {
        let id = self.stream.node_id();
        if id == ID_ANY {
            return false;
        }
        if let Err(error) = self.registry.destroy_global(id).into_result() {
            tracing::debug!(id, %error, "can't have a node removed");
        }
        true
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Takes the node off the data thread before the listener goes that this thread calls.
        if let Err(error) = self.stream.disconnect() {
            tracing::debug!(%error, "can't disconnect a stream");
        }
    }
}
