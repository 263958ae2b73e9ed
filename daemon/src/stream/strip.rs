//! A stream's channel strip: its volumes, whether it may be heard, and the node it has on the desktop while it may.
//!
//! The card's thread opens, starts and sets it for the guest; the main loop sets it for the user, and the server's thread
//! tells it of the node. Each holds the lock for a few instructions and waits for nobody meanwhile.

use std::sync::{Arc, Mutex};

use vsnd_dbus::{Capture, NodeName, OpenStream, Reading, Run, StreamState};
use vsnd_pw_module::{
    Client, Direction, Frames, Nanos, Node, NodeSpec, NodeState, PcmRing, Role, SoundServer, Timing,
    UserVolume, monotonic_now,
};

use super::pacer::{SharedVoice, lock};
use super::pcm::StreamSetup;
use super::voice::{Gauges, Voice};
use crate::guest::names::{NodeNames, Place};
use crate::mixer::{self, DomainVolume, GuestChannel, Settings};
use crate::sndif::PcmFormat;

/// Told whenever something changed that others may show.
pub type Changed = Arc<dyn Fn() + Send + Sync>;

/// A strip. It outlives the connections of its card: what guest and user set is handed on to the next one.
pub struct Strip {
    place: Place,
    direction: Direction,
    client: Client,
    names: NodeNames,
    role: Role,
    server: Arc<dyn SoundServer>,
    changed: Changed,
    state: Mutex<State>,
}

struct State {
    domain: DomainVolume,
    /// Whether it may have a node.
    allowed: bool,
    /// What the guest set; it outlives the stream's OPENs, also those of fewer channels.
    guest: Vec<GuestChannel>,
    /// The user's slider, as the server told it last.
    user: Option<UserVolume>,
    target: Option<NodeName>,
    open: Option<Open>,
}

struct Open {
    ring: Arc<PcmRing>,
    gauges: Arc<Gauges>,
    /// Zero: the guest asked for no events.
    period: Frames,
    run: Run,
    /// `None` where the stream has no node: no server, or a microphone that the user has not allowed.
    node: Option<Box<dyn Node>>,
    node_state: Option<NodeState>,
}

/// What changes with every cycle of an open stream: read at any time, also after the stream was closed, and without a lock.
struct Meters {
    ring: Arc<PcmRing>,
    gauges: Arc<Gauges>,
}

impl Meters {
    fn read(&self, now: Nanos) -> Reading {
        let Self { ring, gauges } = self;
        let rate = ring.format().rate();
        let way = |timing: Timing| timing.heard.abs_diff(i64::try_from(timing.given.0).unwrap_or(i64::MAX));
        Reading {
            position: ring.told().0,
            position_error_usec: gauges.ahead() * 1_000_000 / i64::from(rate),
            latency: Frames(ring.timing().map_or(0, way)).duration(rate).into(),
            underruns: ring.underruns() + ring.missed_cycles(),
            overruns: gauges.overruns(),
            levels: ring.levels(now).into_iter().map(f64::from).collect(),
        }
    }
}

/// Whether a stream may have a node.
fn allows(direction: Direction, capture: Capture) -> bool {
    direction == Direction::Playback || capture == Capture::Allow
}

impl Strip {
    /// The strip of a closed stream. What guest and user set before is taken over from the strip `before` it.
    pub fn new(
        setup: &StreamSetup,
        settings: Settings,
        server: Arc<dyn SoundServer>,
        changed: Changed,
        before: Option<&Self>,
    ) -> Self {
        let StreamSetup { domain, place, pcm_name, direction, policy, .. } = setup;
        let (guest, user, target) = before.map_or_else(Default::default, |before| {
            let state = lock(&before.state);
            (state.guest.clone(), state.user.clone(), state.target.clone())
        });
        let state = State {
            domain: settings.volume.of(*direction),
            allowed: allows(*direction, settings.capture),
            guest,
            user,
            target,
            open: None,
        };
        Self {
            place: *place,
            direction: *direction,
            client: domain.client(),
            names: domain.node(*place, *direction, pcm_name.as_deref()),
            role: policy.role,
            server,
            changed,
            state: Mutex::new(state),
        }
    }

    /// Where the stream is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Playback or capture, as the guest sees it.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    // ---- for the guest --------------------------------------------------------------------------------------------

    /// OPEN: `ring` has its volume before the first sample, and a node where there is a server and the user allows it. `begin`
    /// opens the voice, which is told whether there is one.
    pub fn open<T>(
        &self,
        ring: &Arc<PcmRing>,
        period: Frames,
        voice: &SharedVoice,
        begin: impl FnOnce(&mut Voice, bool) -> T,
    ) -> T {
        let mut state = lock(&self.state);
        let channels = usize::from(ring.format().channels());
        if state.guest.len() < channels {
            state.guest.resize(channels, GuestChannel::default());
        }
        ring.set_gain(&mixer::factors(state.domain, &state.guest[..channels]));
        let node = self.show(&state, ring, period);
        let (begun, gauges) = {
            let mut voice = lock(voice);
            (begin(&mut voice, node.is_some()), voice.gauges())
        };
        let ring = Arc::clone(ring);
        state.open = Some(Open { ring, gauges, period, run: Run::Stopped, node, node_state: None });
        drop(state);
        (self.changed)();
        begun
    }

    /// START, STOP, PAUSE and RESUME. Returns whether the guest records without being allowed to.
    pub fn run(&self, run: Run) -> bool {
        let mut state = lock(&self.state);
        if let Some(open) = &mut state.open {
            open.run = run;
            let starts = run == Run::Running;
            open.node.iter().for_each(|node| if starts { node.start() } else { node.stop() });
        }
        let unheard = !state.allowed;
        drop(state);
        (self.changed)();
        run == Run::Running && unheard
    }

    /// CLOSE: the node goes once its tail is heard.
    pub fn close(&self) {
        if lock(&self.state).open.take().is_some() {
            (self.changed)();
        }
    }

    /// Changes what the guest says of the open stream's channels. Returns what it says of these and all others now.
    pub fn set_guest(&self, change: impl FnOnce(&mut [GuestChannel])) -> Vec<GuestChannel> {
        let mut state = lock(&self.state);
        let channels = state.channels();
        change(&mut state.guest[..channels]);
        state.apply();
        let guest = state.guest.clone();
        drop(state);
        (self.changed)();
        guest
    }

    /// What the guest says of its channels: here, or where it said nothing to this process, what it said to the one `before`.
    pub fn guest(&self, before: impl FnOnce() -> Vec<GuestChannel>) -> Vec<GuestChannel> {
        let mut state = lock(&self.state);
        if state.guest.is_empty() {
            state.guest = before();
        }
        state.guest.clone()
    }

    /// The volume of each channel as the guest is told it, in 0.001 dB.
    pub fn effective(&self) -> Vec<i32> {
        let state = lock(&self.state);
        mixer::effective(state.domain, &state.guest[..state.channels()], state.user.as_ref())
    }

    // ---- for the user ---------------------------------------------------------------------------------------------

    /// What the user says of the domain.
    pub fn set_domain(&self, settings: Settings) {
        let mut state = lock(&self.state);
        state.domain = settings.volume.of(self.direction);
        state.apply();
        self.permit(&mut state, allows(self.direction, settings.capture));
    }

    /// The user sees the stream no more: it records no more, whatever its guest still asks for.
    pub fn withdraw(&self) {
        self.permit(&mut lock(&self.state), allows(self.direction, Capture::Deny));
    }

    /// Gives an open stream its node, or takes it away: the ring runs on meanwhile, by the clock.
    fn permit(&self, state: &mut State, allowed: bool) {
        if std::mem::replace(&mut state.allowed, allowed) == allowed {
            return;
        }
        let node = state.open.as_ref().filter(|_| state.allowed);
        let node = node.and_then(|open| self.show(state, &open.ring, open.period));
        let Some(open) = &mut state.open else { return };
        node.iter().filter(|_| open.run == Run::Running).for_each(|node| node.start());
        open.node = node;
        open.node_state = None;
    }

    /// Routes the stream's node, the present one and those to come.
    pub fn set_target(&self, target: Option<NodeName>) {
        let mut state = lock(&self.state);
        state.target.clone_from(&target);
        if let Some(node) = state.open.as_ref().and_then(|open| open.node.as_ref()) {
            node.set_target(target.map(String::from));
        }
    }

    /// Shows the ring on the desktop, where there is a server and the user allows it. No node: no desktop shows a microphone in
    /// use, and the guest hears silence.
    fn show(&self, state: &State, ring: &Arc<PcmRing>, period: Frames) -> Option<Box<dyn Node>> {
        if !state.allowed {
            return None;
        }
        let names = self.names.clone();
        let spec = NodeSpec {
            client: self.client.clone(),
            name: names.name,
            description: names.description,
            media_name: names.media_name,
            restore_key: names.restore_key,
            role: self.role,
            format: ring.format(),
            direction: self.direction,
            period: if period > Frames(0) { period } else { ring.buffer() },
            target: state.target.clone().map(String::from),
        };
        self.server.open(spec, Arc::clone(ring))
    }

    // ---- for the server -------------------------------------------------------------------------------------------

    /// Whether the node of this application and name is the stream's.
    pub fn has_node(&self, client: &str, node: &str) -> bool {
        self.client.id == client && self.names.name == node
    }

    /// What became of the node.
    pub fn set_node_state(&self, node_state: NodeState) {
        if let Some(open) = lock(&self.state).open.as_mut().filter(|open| open.node.is_some()) {
            open.node_state = Some(node_state);
        }
    }

    /// The user moved the node's slider.
    pub fn set_user(&self, volume: UserVolume) {
        lock(&self.state).user = Some(volume);
    }

    // ---- for everybody --------------------------------------------------------------------------------------------

    /// Whether sound is recorded for the guest at the moment.
    pub fn records(&self) -> bool {
        let state = lock(&self.state);
        self.direction == Direction::Capture
            && state.open.as_ref().is_some_and(|open| open.run == Run::Running && open.node.is_some())
    }

    /// The stream as others may show it.
    pub fn snapshot(&self) -> StreamState {
        let state = lock(&self.state);
        let user = state.user.as_ref();
        StreamState {
            direction: match self.direction {
                Direction::Playback => vsnd_dbus::Direction::Playback,
                Direction::Capture => vsnd_dbus::Direction::Capture,
            },
            open: state.open.as_ref().map(Open::snapshot),
            volume: user.map_or_else(Vec::new, UserVolume::cubic),
            muted: user.is_some_and(|user| user.muted),
            node_name: self.names.name.clone(),
            node_id: state.open.as_ref().and_then(Open::node_id),
            target: state.target.clone(),
            probe: match &state.open {
                None => Arc::new(Reading::default),
                Some(Open { ring, gauges, .. }) => {
                    let meters = Meters { ring: Arc::clone(ring), gauges: Arc::clone(gauges) };
                    Arc::new(move || meters.read(monotonic_now()))
                }
            },
        }
    }
}

impl Open {
    fn snapshot(&self) -> OpenStream {
        let format = self.ring.format();
        OpenStream {
            run: self.run,
            format: PcmFormat::of_sample(format.sample()).map_or("", PcmFormat::name).to_owned(),
            rate: format.rate(),
            channels: format.channels().into(),
            period_frames: self.period.0.try_into().unwrap_or(u32::MAX),
            buffer_frames: self.ring.buffer().0.try_into().unwrap_or(u32::MAX),
        }
    }

    /// The server's number for the node.
    fn node_id(&self) -> Option<u32> {
        match self.node_state {
            Some(NodeState::Idle { id } | NodeState::Running { id }) => Some(id),
            _ => None,
        }
    }
}

impl State {
    /// Channels of the open stream.
    fn channels(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.ring.format().channels().into())
    }

    /// Lets the ring have what was set.
    fn apply(&self) {
        if let Some(open) = &self.open {
            open.ring.set_gain(&mixer::factors(self.domain, &self.guest[..self.channels()]));
        }
    }
}
