//! Several servers as one: nodes are on the best that there is, and follow when that changes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::server::{Bounds, Node, NodeSpec, ServerEvent, ServerInfo, SoundServer, Targets};
use crate::{PcmRing, SampleFormat};

/// What is known of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presence {
    /// What it said of itself; `None` while it doesn't answer.
    pub info: Option<ServerInfo>,
    /// It has no sink: on some desktops PipeWire runs for pictures only.
    pub is_silent: bool,
}

impl Presence {
    fn note(&mut self, event: &ServerEvent) {
        match event {
            ServerEvent::Targets(targets) => self.is_silent = targets.sinks.is_empty(),
            ServerEvent::Connected(info) => self.info = Some(info.clone()),
            ServerEvent::Lost(_) => *self = Self::default(),
            ServerEvent::Node(_) | ServerEvent::Volume(_) => (),
        }
    }
}

/// Which of several servers guests are best shown on, given in order of preference: the first that plays, else the first
/// that answers. A stand-in counts only at the first place: elsewhere it is a server before it that answers through it.
pub fn prefer<'a>(servers: impl IntoIterator<Item = &'a Presence>) -> Option<usize> {
    let answers = servers
        .into_iter()
        .enumerate()
        .filter(|(place, server)| server.info.as_ref().is_some_and(|info| *place == 0 || !info.is_stand_in));
    answers.map(|(place, server)| (server.is_silent, place)).min().map(|(_, place)| place)
}

/// Servers in order of preference, of which one has the nodes: the best that answers, and when none does, the last that did.
///
/// A node is handed over by dropping it here and opening it there for the same ring: its name, volume and routing come with
/// its keys, and what its handle was told last is told again. The ring and its stream don't notice. A server that nobody
/// needs because a better one plays isn't looked for.
pub struct Switch {
    board: Arc<Board>,
}

/// What the switch, its servers and its handles share.
struct Board {
    state: Mutex<State>,
    /// Called without the state's lock: a log that blocks holds up no guest.
    events: Mutex<Box<dyn Fn(ServerEvent) + Send>>,
}

#[derive(Default)]
struct State {
    servers: Vec<Slot>,
    /// The place of the server that has the nodes.
    chosen: usize,
    /// The place of the server that was told to answer.
    told: Option<usize>,
    nodes: BTreeMap<u64, Shown>,
    opened: u64,
    /// What is to be told, in order.
    news: VecDeque<ServerEvent>,
}

struct Slot {
    /// `None` until it has started.
    server: Option<Box<dyn SoundServer>>,
    presence: Presence,
    /// What it told last of what it has.
    targets: Option<Targets>,
    is_sought: bool,
}

impl Slot {
    fn note(&mut self, event: &ServerEvent) {
        self.presence.note(event);
        match event {
            ServerEvent::Targets(targets) => self.targets = Some(targets.clone()),
            ServerEvent::Lost(_) => self.targets = None,
            _ => (),
        }
    }
}

/// A node that has a handle.
struct Shown {
    spec: NodeSpec,
    ring: Arc<PcmRing>,
    is_running: bool,
    /// Anybody said where it is to be routed, which its specification knows.
    is_routed: bool,
    node: Option<Box<dyn Node>>,
}

impl Switch {
    /// A switch without servers. `events` is told what becomes of the server that has the nodes.
    pub fn new(events: impl Fn(ServerEvent) + Send + 'static) -> Self {
        Self { board: Arc::new(Board { state: Mutex::default(), events: Mutex::new(Box::new(events)) }) }
    }

    /// Adds a server, less preferred than those before it; `start` starts it with what it is to tell its events.
    ///
    /// # Errors
    /// Those of `start`.
    pub fn add<S: SoundServer + 'static, E>(
        &self,
        start: impl FnOnce(Box<dyn Fn(ServerEvent) + Send>) -> Result<S, E>,
    ) -> Result<(), E> {
        let place = lock(&self.board.state).reserve();
        let board = Arc::clone(&self.board);
        let server = start(Box::new(move |event| board.take_in(place, event)))?;
        self.board.change(|state| {
            if let Some(slot) = state.servers.get_mut(place) {
                slot.server = Some(Box::new(server));
            }
            state.choose();
        });
        Ok(())
    }
}

impl SoundServer for Switch {
    fn open(&self, spec: NodeSpec, ring: Arc<PcmRing>) -> Option<Box<dyn Node>> {
        let mut state = lock(&self.board.state);
        let is_routed = spec.target.is_some();
        let mut shown = Shown { spec, ring, is_running: false, is_routed, node: None };
        shown.move_to(state.server()?);
        state.opened += 1;
        let key = state.opened;
        state.nodes.insert(key, shown);
        Some(Box::new(Handle { key, board: Arc::clone(&self.board) }))
    }

    /// Those of the server that has the nodes.
    fn bounds(&self) -> Bounds {
        lock(&self.board.state).server().map_or(Bounds::NONE, SoundServer::bounds)
    }

    /// Whether any of the servers does: a guest is told its formats once, whichever server is there at that time.
    fn carries(&self, format: SampleFormat) -> bool {
        let state = lock(&self.board.state);
        state.servers.iter().filter_map(|slot| slot.server.as_ref()).any(|server| server.carries(format))
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // Without the lock, for which a server that has something to tell before it ends would wait.
        let State { servers, nodes, .. } = std::mem::take(&mut *lock(&self.board.state));
        drop(nodes);
        drop(servers);
    }
}

impl Board {
    /// The server at `place` tells something.
    fn take_in(&self, place: usize, event: ServerEvent) {
        self.change(|state| state.take_in(place, event));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        let events = lock(&self.events);
        while let Some(event) = { lock(&self.state).news.pop_front() } {
            events(event);
        }
    }
}

impl State {
    /// The place of a server that is about to start.
    fn reserve(&mut self) -> usize {
        let presence = Presence::default();
        self.servers.push(Slot { server: None, presence, targets: None, is_sought: true });
        self.servers.len() - 1
    }

    fn server(&self) -> Option<&dyn SoundServer> {
        self.servers.get(self.chosen)?.server.as_deref()
    }

    fn take_in(&mut self, place: usize, event: ServerEvent) {
        let Some(slot) = self.servers.get_mut(place) else { return };
        slot.note(&event);
        let is_told = match event {
            // Also of nodes on a server that went, and is waited for.
            ServerEvent::Node(_) | ServerEvent::Volume(_) => self.chosen == place,
            // That one answers is told when it is chosen for that.
            _ => self.told == Some(place),
        };
        if is_told {
            if matches!(event, ServerEvent::Lost(_)) {
                self.told = None;
            }
            self.news.push_back(event);
        }
        self.choose();
    }

    /// Gives the nodes to the best server.
    fn choose(&mut self) {
        let started = self.servers.iter().take_while(|slot| slot.server.is_some());
        let best = prefer(started.map(|slot| &slot.presence));
        self.seek_all_better_than(best);
        let Some(best) = best else { return };
        if self.chosen != best {
            self.chosen = best;
            let Self { servers, nodes, .. } = self;
            if let Some(server) = servers.get(best).and_then(|slot| slot.server.as_deref()) {
                nodes.values_mut().for_each(|shown| shown.move_to(server));
            }
        }
        if self.told != Some(best) {
            self.told = Some(best);
            let Some(Slot { presence, targets, .. }) = self.servers.get(best) else { return };
            self.news.extend(targets.clone().map(ServerEvent::Targets));
            self.news.extend(presence.info.clone().map(ServerEvent::Connected));
        }
    }

    /// Looks for servers as long as there is none that plays and is preferred to them.
    fn seek_all_better_than(&mut self, best: Option<usize>) {
        let plays = best.filter(|best| self.servers.get(*best).is_some_and(|slot| !slot.presence.is_silent));
        for (place, slot) in self.servers.iter_mut().enumerate() {
            let wanted = plays.is_none_or(|best| place <= best);
            if let Some(server) = slot.server.as_ref().filter(|_| slot.is_sought != wanted) {
                slot.is_sought = wanted;
                server.seek(wanted);
            }
        }
    }
}

impl Shown {
    fn run(&mut self, is_running: bool) {
        self.is_running = is_running;
        self.node.iter().for_each(|node| if is_running { node.start() } else { node.stop() });
    }

    fn route(&mut self, target: Option<String>) {
        (self.spec.target, self.is_routed) = (target.clone(), true);
        self.node.iter().for_each(|node| node.set_target(target.clone()));
    }

    /// Opens the node on `server`, as its handle wants it.
    fn move_to(&mut self, server: &dyn SoundServer) {
        // First: a ring has one reader.
        self.node = None;
        self.node = server.open(self.spec.clone(), Arc::clone(&self.ring));
        let Some(node) = &self.node else { return };
        // The next server may remember a route that nobody wants any more.
        if self.is_routed && self.spec.target.is_none() {
            node.set_target(None);
        }
        if self.is_running {
            node.start();
        }
    }
}

/// The handle of one node, wherever that is.
struct Handle {
    key: u64,
    board: Arc<Board>,
}

impl Handle {
    fn with(&self, change: impl FnOnce(&mut Shown)) {
        if let Some(shown) = lock(&self.board.state).nodes.get_mut(&self.key) {
            change(shown);
        }
    }
}

impl Node for Handle {
    fn start(&self) {
        self.with(|shown| shown.run(true));
    }

    fn stop(&self) {
        self.with(|shown| shown.run(false));
    }

    fn set_target(&self, target: Option<String>) {
        self.with(|shown| shown.route(target));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        lock(&self.board.state).nodes.remove(&self.key);
    }
}

/// Locks, also after a panic elsewhere: it must not silence the guests.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "switch_tests.rs"]
mod tests;
