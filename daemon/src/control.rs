//! All guests and their streams as the user sees them, and what the user may change.
//!
//! Everything here answers from memory and at once. Whoever shows it waits for [`Control::changes`] and takes a
//! [`Snapshot`]; both cost the sound nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tracing::info;
use vsnd_pw_module::{Nanos, ServerEvent, ServerInfo, SoundServer, monotonic_now};

use crate::config::Capture;
use crate::guest::names::{Domain, Place};
use crate::mixer::{Change, DomainVolume, Identity, Memory, Settings, Volume};
use crate::state::StateFile;
use crate::stream::{StreamSetup, StreamSnapshot, Strip, lock};
use crate::xen::DomId;

/// How often a domain may ask for the microphone: a guest must not be able to flood the desktop with questions.
const ASK_AGAIN: Nanos = Nanos::from_millis(10_000);

/// A change that the user wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// How loud a domain is.
    SetVolume {
        /// Which.
        domain: DomId,
        /// How loud.
        volume: Volume,
    },
    /// Whether a domain is silent.
    SetMuted {
        /// Which.
        domain: DomId,
        /// Whether.
        muted: bool,
    },
    /// Whether a domain may record.
    SetCapture {
        /// Which.
        domain: DomId,
        /// Whether.
        capture: Capture,
    },
    /// Where a stream goes to, or comes from.
    SetTarget {
        /// Whose.
        domain: DomId,
        /// Which.
        stream: Place,
        /// The name of a sink or source; `None` leaves it to the server.
        target: Option<String>,
    },
}

/// A command about something that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// No such domain has a sound card.
    #[error("domain {0} has no sound card")]
    Domain(DomId),
    /// The domain has no such stream.
    #[error("domain {0} has no stream {card}/{pcm}/{stream}", card = .1.card, pcm = .1.pcm, stream = .1.stream)]
    Stream(DomId, Place),
}

/// All that there is to show.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// The sound server that answers; `None` while none does.
    pub server: Option<ServerInfo>,
    /// The guests that have sound cards, by number.
    pub domains: Vec<DomainSnapshot>,
}

/// A guest as others may show it.
#[derive(Clone)]
pub struct DomainSnapshot {
    /// Who it is.
    pub domain: Domain,
    /// How loud it is.
    pub volume: DomainVolume,
    /// Whether it may record.
    pub capture: Capture,
    /// Whether it records, and hears more than silence.
    pub capture_active: bool,
    /// How often it asked to record and the user is to be asked: whoever shows it asks when this grows.
    pub capture_requests: u64,
    /// The streams of its connected cards.
    pub streams: Vec<StreamSnapshot>,
}

/// The controls. Clones share them.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// Whether the memory has changed since it was saved.
    unsaved: watch::Sender<bool>,
    file: Option<StateFile>,
}

#[derive(Default)]
struct State {
    server: Option<ServerInfo>,
    memory: Memory,
    domains: BTreeMap<DomId, Entry>,
}

struct Entry {
    domain: Domain,
    identity: Option<Identity>,
    settings: Settings,
    asked: Option<Nanos>,
    requests: u64,
    strips: BTreeMap<Place, Arc<Strip>>,
}

impl Default for Control {
    fn default() -> Self {
        Self::new(None, Memory::default())
    }
}

impl Control {
    /// The controls of no guest yet, which remember in `file`, where there is one, what the user changes.
    pub fn new(file: Option<StateFile>, memory: Memory) -> Self {
        let state = Mutex::new(State { memory, ..State::default() });
        let (changed, unsaved) = (watch::Sender::new(()), watch::Sender::new(false));
        Self { shared: Arc::new(Shared { state, changed, unsaved, file }) }
    }

    // ---- for the user ---------------------------------------------------------------------------------------------

    /// Carries a command out; when this returns it holds, and the next snapshot shows it.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn obey(&self, command: Command) -> Result<(), Gone> {
        match command {
            Command::SetVolume { domain, volume } => self.change(domain, Change::Volume(volume)),
            Command::SetMuted { domain, muted } => self.change(domain, Change::Muted(muted)),
            Command::SetCapture { domain, capture } => self.change(domain, Change::Capture(capture)),
            Command::SetTarget { domain, stream, target } => self.route(domain, stream, target),
        }
    }

    fn change(&self, id: DomId, change: Change) -> Result<(), Gone> {
        let mut state = lock(&self.shared.state);
        let State { domains, memory, .. } = &mut *state;
        let entry = domains.get_mut(&id).ok_or(Gone::Domain(id))?;
        entry.settings = entry.settings.with(change);
        entry.strips.values().for_each(|strip| strip.set_domain(entry.settings));
        let domain = entry.domain.shown();
        if let Some(identity) = &entry.identity {
            memory.remember(identity, change);
            self.shared.unsaved.send_replace(true);
        }
        drop(state);
        info!(%domain, ?change, "changed by the user");
        self.shared.changed();
        Ok(())
    }

    fn route(&self, id: DomId, place: Place, target: Option<String>) -> Result<(), Gone> {
        let state = lock(&self.shared.state);
        let entry = state.domains.get(&id).ok_or(Gone::Domain(id))?;
        entry.strips.get(&place).ok_or(Gone::Stream(id, place))?.set_target(target);
        drop(state);
        self.shared.changed();
        Ok(())
    }

    /// Marked as changed whenever something a snapshot shows may have become another.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// All that there is to show now.
    pub fn snapshot(&self) -> Snapshot {
        let state = lock(&self.shared.state);
        let domains = state.domains.values().map(|entry| DomainSnapshot {
            domain: entry.domain.clone(),
            volume: entry.settings.volume,
            capture: entry.settings.capture,
            capture_active: entry.strips.values().any(|strip| strip.records()),
            capture_requests: entry.requests,
            streams: entry.strips.values().map(|strip| strip.snapshot()).collect(),
        });
        Snapshot { server: state.server.clone(), domains: domains.collect() }
    }

    // ---- for the main loop ----------------------------------------------------------------------------------------

    /// A guest has a card. What is remembered of it, and else the policy, holds from now on.
    pub fn domain_came(&self, domain: &Domain, policy: Capture) {
        let mut state = lock(&self.shared.state);
        let State { domains, memory, .. } = &mut *state;
        domains.entry(domain.id).or_insert_with(|| {
            let identity = Identity::of(domain);
            let settings = memory.settings(identity.as_ref(), policy);
            let strips = BTreeMap::new();
            Entry { domain: domain.clone(), identity, settings, asked: None, requests: 0, strips }
        });
        drop(state);
        self.shared.changed();
    }

    /// A guest has no card any more.
    pub fn domain_went(&self, id: DomId) {
        lock(&self.shared.state).domains.remove(&id);
        self.shared.changed();
    }

    /// Becomes true when there is something to save.
    pub fn unsaved(&self) -> watch::Receiver<bool> {
        self.shared.unsaved.subscribe()
    }

    /// Saves what the user changed, if anything. Waits for the disk, but lets nobody else wait.
    pub fn save(&self) {
        if !self.shared.unsaved.send_replace(false) {
            return;
        }
        let memory = lock(&self.shared.state).memory.clone();
        if let Some(file) = &self.shared.file {
            file.save(&memory);
        }
    }

    // ---- for streams and servers ----------------------------------------------------------------------------------

    /// The strip of a stream whose card was connected.
    pub fn strip(&self, setup: &StreamSetup, server: Arc<dyn SoundServer>) -> Arc<Strip> {
        let mut state = lock(&self.shared.state);
        let entry = state.domains.get_mut(&setup.domain.id);
        let shared = Arc::clone(&self.shared);
        let changed = Arc::new(move || shared.changed());
        // Of a domain that went meanwhile nobody sees it.
        let unseen = Memory::default().settings(None, setup.policy.capture);
        let settings = entry.as_ref().map_or(unseen, |entry| entry.settings);
        let before = entry.as_ref().and_then(|entry| entry.strips.get(&setup.place));
        let strip = Arc::new(Strip::new(setup, settings, server, changed, before.map(|strip| &**strip)));
        if let Some(entry) = entry {
            entry.strips.insert(setup.place, Arc::clone(&strip));
        }
        drop(state);
        self.shared.changed();
        strip
    }

    /// A guest began to record without being allowed to: the user is asked, unless that was a moment ago, or the answer is no.
    pub fn capture_requested(&self, id: DomId) {
        let mut state = lock(&self.shared.state);
        let Some(entry) = state.domains.get_mut(&id) else { return };
        let now = monotonic_now();
        if entry.settings.capture != Capture::Ask || entry.asked.is_some_and(|asked| now - asked < ASK_AGAIN)
        {
            return;
        }
        entry.asked = Some(now);
        entry.requests += 1;
        let domain = entry.domain.shown();
        // Not under the lock: whoever reads the log may be slow.
        drop(state);
        info!(%domain, "the guest wants to record and hears silence until you allow it");
        self.shared.changed();
    }

    /// Takes in what the sound server tells.
    pub fn server_event(&self, event: &ServerEvent) {
        let mut state = lock(&self.shared.state);
        match event {
            ServerEvent::Connected(info) => state.server = Some(info.clone()),
            ServerEvent::Lost(_) => state.server = None,
            // Streams are the same on a server without a sink.
            ServerEvent::Plays(_) => return,
            ServerEvent::Node(event) => {
                state.of_node(&event.client, &event.node, |strip| strip.set_node_state(event.state.clone()));
            }
            ServerEvent::Volume(event) => {
                state.of_node(&event.client, &event.node, |strip| strip.set_user(event.volume.clone()));
            }
        }
        drop(state);
        self.shared.changed();
    }
}

impl Shared {
    fn changed(&self) {
        self.changed.send_replace(());
    }
}

impl State {
    fn of_node(&self, client: &str, node: &str, tell: impl Fn(&Strip)) {
        let strips = self.domains.values().flat_map(|entry| entry.strips.values());
        strips.filter(|strip| strip.has_node(client, node)).for_each(|strip| tell(strip));
    }
}
