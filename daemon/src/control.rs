//! All guests and their streams as the user sees them, and what the user may change.
//!
//! Everything here answers from memory and at once. Whoever shows it waits for [`Control::changes`] and takes a
//! [`Control::snapshot`]; both cost the sound nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tracing::info;
use vsnd_dbus::{BridgeState, Capture, Command, DomainId, DomainState, NodeName, Refusal, StreamId};
use vsnd_pw_module::{Nanos, ServerEvent, SoundServer, monotonic_now};

use crate::guest::DeviceId;
use crate::guest::names::{Domain, Place};
use crate::mixer::{Change, Identity, Memory, Settings};
use crate::state::StateFile;
use crate::stream::{StreamSetup, Strip, lock};
use crate::targets::Targets;
use crate::xen::DomId;

/// How often a domain may ask for the microphone: a guest must not be able to flood the desktop with questions.
const ASK_AGAIN: Nanos = Nanos::from_millis(10_000);

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
    /// Held from a look at the memory until that is written: what was saved last is what was true last.
    file: Option<Mutex<StateFile>>,
}

#[derive(Default)]
struct State {
    /// The sound server that answers, by name and version; `None` while none does.
    server: Option<String>,
    /// What it has.
    targets: Targets,
    memory: Memory,
    domains: BTreeMap<DomId, Entry>,
    /// Domains that the user is to be asked about, and was not yet.
    asking: BTreeSet<DomId>,
}

struct Entry {
    domain: Domain,
    identity: Option<Identity>,
    settings: Settings,
    asked: Option<Nanos>,
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
        Self { shared: Arc::new(Shared { state, changed, unsaved, file: file.map(Mutex::new) }) }
    }

    // ---- for the user ---------------------------------------------------------------------------------------------

    /// Carries a command out; when this returns it holds, and the next snapshot shows it.
    ///
    /// # Errors
    /// [`Refusal::Gone`]: there is no such domain or stream. [`Refusal::Invalid`]: the sound server has no such sink or source; while
    /// none answers, any name is taken, and tried when one does.
    pub fn obey(&self, command: Command) -> Result<(), Refusal> {
        match command {
            Command::SetVolume { domain, volume } => self.change(domain, Change::Volume(volume)),
            Command::SetMuted { domain, muted } => self.change(domain, Change::Muted(muted)),
            Command::SetCapture { domain, capture } => self.change(domain, Change::Capture(capture)),
            Command::SetTarget { domain, stream, target } => self.route(domain, stream, target),
        }
    }

    fn change(&self, id: DomainId, change: Change) -> Result<(), Refusal> {
        let mut state = lock(&self.shared.state);
        let State { domains, memory, .. } = &mut *state;
        let entry = known(id).and_then(|id| domains.get_mut(&id)).ok_or_else(|| no_domain(id))?;
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

    fn route(&self, id: DomainId, stream: StreamId, target: Option<NodeName>) -> Result<(), Refusal> {
        let state = lock(&self.shared.state);
        let entry = known(id).and_then(|id| state.domains.get(&id)).ok_or_else(|| no_domain(id))?;
        let no_stream = || Refusal::Gone(format!("domain {id} has no stream {stream}"));
        let strip = entry.strips.get(&Place::from(stream)).ok_or_else(no_stream)?;
        if let Some(target) = target.as_ref().filter(|_| state.server.is_some()) {
            let checked = state.targets.check(strip.direction(), target);
            checked.map_err(|unknown| Refusal::Invalid(unknown.to_string()))?;
        }
        strip.set_target(target);
        drop(state);
        self.shared.changed();
        Ok(())
    }

    /// Marked as changed whenever something a snapshot shows may have become another.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// All that there is to show now.
    pub fn snapshot(&self) -> BridgeState {
        let state = lock(&self.shared.state);
        let domains = state.domains.iter().map(|(id, entry)| (DomainId::from(*id), entry.snapshot()));
        BridgeState {
            server: state.server.clone().unwrap_or_else(|| "null".to_owned()),
            sinks: state.targets.sinks.clone(),
            sources: state.targets.sources.clone(),
            domains: domains.collect(),
        }
    }

    /// Domains that began to record without being allowed to, and that the user is to be asked about. Each is returned once.
    pub fn take_capture_requests(&self) -> Vec<DomainId> {
        let asking = std::mem::take(&mut lock(&self.shared.state).asking);
        asking.into_iter().map(DomainId::from).collect()
    }

    // ---- for the main loop ----------------------------------------------------------------------------------------

    /// A guest has a card. What is remembered of it, and else the policy, holds from now on.
    pub fn domain_came(&self, domain: &Domain, policy: Capture) {
        let mut state = lock(&self.shared.state);
        // Numbers are given out anew, and what another domain may do is not this one's.
        if state.domains.get(&domain.id).is_some_and(|entry| entry.domain.key() != domain.key()) {
            state.forget(domain.id);
        }
        let State { domains, memory, .. } = &mut *state;
        domains.entry(domain.id).or_insert_with(|| {
            let identity = Identity::of(domain);
            let settings = memory.settings(identity.as_ref(), policy);
            let strips = BTreeMap::new();
            Entry { domain: domain.clone(), identity, settings, asked: None, strips }
        });
        drop(state);
        self.shared.changed();
    }

    /// A card was removed, and its streams with it. What it recorded ends now: its guest's last requests are still answered, but
    /// nobody could see that it records, nor forbid it.
    pub fn card_went(&self, card: DeviceId) {
        let mut state = lock(&self.shared.state);
        if let Some(entry) = state.domains.get_mut(&card.frontend) {
            entry.forget(|place| place.card == card.device);
        }
        drop(state);
        self.shared.changed();
    }

    /// A guest has no card any more.
    pub fn domain_went(&self, id: DomId) {
        lock(&self.shared.state).forget(id);
        self.shared.changed();
    }

    /// Becomes true when there is something to save.
    pub fn unsaved(&self) -> watch::Receiver<bool> {
        self.shared.unsaved.subscribe()
    }

    /// Saves what the user changed, if anything. Waits for the disk, but lets nobody else wait.
    pub fn save(&self) {
        let file = self.shared.file.as_ref().map(lock);
        if !self.shared.unsaved.send_replace(false) {
            return;
        }
        let memory = lock(&self.shared.state).memory.clone();
        if let Some(file) = file {
            file.save(&memory);
        }
    }

    // ---- for streams and servers ----------------------------------------------------------------------------------

    /// The strip of a stream whose card was connected.
    pub fn strip(&self, setup: &StreamSetup, server: Arc<dyn SoundServer>) -> Arc<Strip> {
        let mut state = lock(&self.shared.state);
        // Of a domain that went meanwhile nobody sees it.
        let unseen = state.memory.settings(None, setup.policy.capture);
        let entry = state.domains.get_mut(&setup.domain.id);
        // The strips are a part of what is shared.
        let shared = Arc::downgrade(&self.shared);
        let changed = Arc::new(move || {
            if let Some(shared) = shared.upgrade() {
                shared.changed();
            }
        });
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
        let domain = entry.domain.shown();
        state.asking.insert(id);
        // Not under the lock: whoever reads the log may be slow.
        drop(state);
        info!(%domain, "the guest wants to record and hears silence until you allow it");
        self.shared.changed();
    }

    /// Takes in what the sound server tells.
    pub fn server_event(&self, event: &ServerEvent) {
        let mut state = lock(&self.shared.state);
        match event {
            ServerEvent::Connected(info) => state.server = Some(info.to_string()),
            ServerEvent::Lost(_) => (state.server, state.targets) = Default::default(),
            ServerEvent::Targets(targets) => state.targets = targets.into(),
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

impl Entry {
    /// Takes streams out of the user's sight, and the microphone from them.
    fn forget(&mut self, which: impl Fn(&Place) -> bool) {
        self.strips.retain(|place, strip| {
            let went = which(place);
            if went {
                strip.withdraw();
            }
            !went
        });
    }

    fn snapshot(&self) -> DomainState {
        let streams = self.strips.iter().map(|(place, strip)| (StreamId::from(*place), strip.snapshot()));
        DomainState {
            name: self.domain.shown(),
            uuid: self.domain.clean_uuid(),
            volume: self.settings.volume.volume,
            muted: self.settings.volume.muted,
            capture: self.settings.capture,
            capture_active: self.strips.values().any(|strip| strip.records()),
            streams: streams.collect(),
        }
    }
}

/// The domain that a number on the bus can mean.
fn known(id: DomainId) -> Option<DomId> {
    id.0.try_into().ok().map(DomId)
}

fn no_domain(id: DomainId) -> Refusal {
    Refusal::Gone(format!("domain {id} has no sound card"))
}

impl State {
    fn forget(&mut self, id: DomId) {
        if let Some(mut entry) = self.domains.remove(&id) {
            entry.forget(|_| true);
        }
        self.asking.remove(&id);
    }

    fn of_node(&self, client: &str, node: &str, tell: impl Fn(&Strip)) {
        let strips = self.domains.values().flat_map(|entry| entry.strips.values());
        strips.filter(|strip| strip.has_node(client, node)).for_each(|strip| tell(strip));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> Domain {
        Domain { id: DomId(7), name: Some(name.to_owned()), uuid: None }
    }

    #[test]
    fn a_domain_inherits_nothing_from_another_that_had_its_number() {
        let control = Control::default();
        let capture = || control.snapshot().domains[&DomainId(7)].capture;
        control.domain_came(&domain("work"), Capture::Ask);
        control.obey(Command::SetCapture { domain: DomainId(7), capture: Capture::Allow }).unwrap();
        control.domain_came(&domain("work"), Capture::Ask);
        assert_eq!(capture(), Capture::Allow, "another card of the same one");
        control.domain_came(&domain("other"), Capture::Ask);
        assert_eq!(capture(), Capture::Ask);
        assert_eq!(control.snapshot().domains[&DomainId(7)].name, "other");
    }

    #[test]
    fn of_two_that_save_at_once_the_later_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("domains.toml");
        let (file, memory) = StateFile::open(path.clone());
        let control = Control::new(Some(file), memory);
        control.domain_came(&domain("work"), Capture::Ask);
        let mute = |muted| control.obey(Command::SetMuted { domain: DomainId(7), muted }).unwrap();
        for muted in [true, false].repeat(20) {
            mute(!muted);
            std::thread::scope(|scope| {
                scope.spawn(|| control.save());
                while *control.unsaved().borrow() {
                    std::thread::yield_now();
                }
                mute(muted);
                control.save();
            });
            let settings = StateFile::open(path.clone())
                .1
                .settings(Identity::of(&domain("work")).as_ref(), Capture::Ask);
            assert_eq!(settings.volume.muted, muted);
        }
    }
}
