//! One ring as a stream of PulseAudio's, through every life that the server gives it.

use std::sync::Arc;

use libpulse_binding::context::Context;
use libpulse_binding::context::introspect::Introspector;

use super::connection::Streams;
use super::stream::{Progress, Stream};
use super::volume::Volume;
use crate::activity::{Activity, Due};
use crate::backoff::Backoff;
use crate::handle::{Lease, Opened, Order};
use crate::server::clean;
use crate::told::{Events, Told, describe};
use crate::units::{Nanos, monotonic_now};
use crate::{Attachment, Direction, NodeSpec, NodeState, PcmRing, UserVolume};

/// How often a stream that the server refuses is offered again; it refuses them while it has no sink.
const RETRY: Backoff = Backoff::new(Nanos::from_millis(500), Nanos::from_millis(5_000));

/// A node that has a handle, or plays its tail.
pub(super) struct Node {
    pub(super) spec: NodeSpec,
    ring: Arc<PcmRing>,
    lease: Arc<Lease>,
    /// While there is a stream, or there may be one at once.
    attachment: Option<Attachment>,
    activity: Activity,
    stream: Option<Stream>,
    told: Told,
    backoff: Backoff,
    /// The server's number of the stream whose volume and route were taken care of.
    seen: Option<u32>,
    volume: Volume,
    told_volume: Option<UserVolume>,
    /// Anybody said where it is to be routed, which its specification knows.
    is_routed: bool,
    /// The server will never take it.
    refused_for_good: bool,
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
            activity: Activity::opened(monotonic_now()),
            stream: None,
            told: Told::new(events),
            backoff: RETRY,
            seen: None,
            volume: Volume::default(),
            told_volume: None,
            is_routed,
            refused_for_good: false,
        }
    }

    /// Whether the node wants a stream and has none at `now`.
    pub(super) fn wants_stream(&self, now: Nanos) -> bool {
        let allowed = !self.refused_for_good && !self.activity.released();
        allowed && self.stream.is_none() && self.backoff.is_over(now)
    }

    /// Gives the node a stream on `context`, which has to be ready.
    pub(super) fn connect(&mut self, context: &mut Context, now: Nanos) {
        match Stream::new(context, &self.spec, &self.ring, &self.lease, self.activity.active()) {
            Ok(stream) => {
                self.stream = Some(stream);
                // A server that was started again counts from the beginning.
                self.seen = None;
                self.attachment.get_or_insert_with(|| self.ring.attach());
                self.told.tell_try(&self.spec);
            }
            Err(error) => {
                self.refused_for_good = error.is_final();
                self.refused(now, describe(&error));
            }
        }
    }

    /// There is no stream, and for a while no other is tried.
    fn refused(&mut self, now: Nanos, why: String) {
        self.postpone(now);
        self.tell(NodeState::Failed(why));
    }

    /// The stream is gone with its connection, and for a while no other is tried.
    pub(super) fn postpone(&mut self, now: Nanos) {
        self.drop_stream();
        self.backoff.failed(now);
    }

    /// The server is gone, and with it the stream.
    pub(super) fn disconnect(&mut self) {
        self.drop_stream();
        self.backoff.reset();
    }

    fn drop_stream(&mut self) {
        self.attachment = None;
        self.stream = None;
    }

    /// Carries out what the handle asks for.
    pub(super) fn obey(&mut self, order: Order, now: Nanos) {
        match order {
            Order::Start => {
                self.activity.start();
                self.apply_activity();
            }
            Order::Stop => {
                let tail = self.stream.as_ref().map_or(Nanos(0), |stream| stream.tail(now));
                self.activity.stop(now, tail);
            }
            Order::Target(target) => {
                (self.spec.target, self.is_routed) = (target, true);
                self.seen = None;
            }
            Order::Release => self.release(now),
        }
    }

    /// The node goes once its tail is heard.
    pub(super) fn release(&mut self, now: Nanos) {
        self.lease.end();
        self.told.end();
        self.attachment = None;
        // Bounded there; `tick` ends it as soon as the server has told that the last frame was heard.
        self.activity.release(now, Nanos(i64::MAX));
    }

    /// When something is due next.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        let waits = self.stream.is_none() && !self.activity.released() && !self.refused_for_good;
        let retry = self.backoff.at().filter(|_| waits);
        [self.activity.deadline(), retry].into_iter().flatten().min()
    }

    /// Does what is due at `now`; whether the node is to be removed.
    pub(super) fn tick(&mut self, now: Nanos) -> bool {
        if self.activity.released() {
            let playing =
                self.stream.as_ref().is_some_and(|stream| !stream.is_corked() && !stream.all_heard());
            if !playing {
                return true;
            }
        }
        match self.activity.due(now) {
            Some(Due::Go) => return true,
            Some(Due::Rest) => self.apply_activity(),
            None => (),
        }
        false
    }

    fn apply_activity(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.set_active(self.activity.active());
        }
    }

    /// Sees what became of the stream and moves its frames: whether there are more frames to move. `why` is what the server
    /// said last on this connection.
    pub(super) fn turn(&mut self, now: Nanos, why: &dyn Fn() -> String) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        match stream.progress() {
            Progress::Waiting => {
                self.told.tell_try(&self.spec);
                false
            }
            Progress::Failed => {
                self.refused(now, why());
                false
            }
            Progress::Ready(id) => {
                let more = stream.turn();
                // A start that came before the stream was ready.
                stream.set_active(self.activity.active());
                let resting = stream.is_corked();
                self.backoff.reset();
                self.tell(if resting { NodeState::Idle { id } } else { NodeState::Running { id } });
                more
            }
        }
    }

    /// The server told that the streams in `changed` changed.
    pub(super) fn look_at(&mut self, changed: &Streams) {
        if self.seen.is_some_and(|id| changed.contains(&(self.spec.direction, id))) {
            self.volume.changed();
        }
    }

    /// Looks after what the user sets: the volume is asked for where it may have changed, and told on; a stream that is new on
    /// the server is routed.
    pub(super) fn turn_user(&mut self, server: impl Fn() -> Option<Introspector>) {
        let Some(Progress::Ready(id)) = self.stream.as_ref().map(Stream::progress) else { return };
        if self.seen != Some(id)
            && let Some(server) = server()
        {
            self.seen = Some(id);
            self.volume.changed();
            if self.is_routed {
                route(server, id, self.spec.direction, self.spec.target.as_deref());
            }
        }
        if let Some(volume) = self.volume.turn(id, self.spec.direction, server)
            && self.told_volume.as_ref() != Some(&volume)
        {
            self.told_volume = Some(volume.clone());
            self.told.tell_volume(&self.spec, volume);
        }
    }

    /// Tells the state, unless it was told already.
    pub(super) fn tell(&mut self, state: NodeState) {
        self.told.tell(&self.spec, state);
    }
}

/// Routes stream `id` to the sink or source of a name, or to the default one.
fn route(mut server: Introspector, id: u32, direction: Direction, target: Option<&str>) {
    // A text with a zero in it would be the end of the program.
    let target = target.map(clean);
    match direction {
        Direction::Playback => {
            let sink = target.as_deref().unwrap_or("@DEFAULT_SINK@");
            drop(server.move_sink_input_by_name(id, sink, None));
        }
        Direction::Capture => {
            let source = target.as_deref().unwrap_or("@DEFAULT_SOURCE@");
            drop(server.move_source_output_by_name(id, source, None));
        }
    }
}
