//! The thread that owns everything of PipeWire's: connections, nodes and their loop.
//!
//! PipeWire's callbacks only queue what happened. It is dealt with between two turns of the loop, where no callback is
//! on the stack, so that anything may be destroyed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use pipewire as pw;
use pw::loop_::Timeout;
use pw::main_loop::MainLoopRc;
use pw::stream::StreamState;

use super::connection::{Connection, ConnectionKey, Connector};
use super::control::Control;
use super::node::{Node, NodeName};
use super::properties;
use super::remote::Remote;
use super::router::{Global, Router};
use super::watch::{Seen, Watch};
use crate::clients::Clients;
use crate::handle::{Command, NodeKey};
use crate::search::Search;
use crate::told::{Events, describe};
use crate::units::{Nanos, monotonic_now};
use crate::{Direction, NodeState, ServerEvent, ServerInfo, Targets};

/// What PipeWire's callbacks saw.
pub(super) enum Happening {
    Command(Command),
    /// The server of a connection told its version, and the shortest cycle of its graph.
    Server(ConnectionKey, String, Nanos),
    /// A connection failed, with a negative errno and a text.
    CoreError(ConnectionKey, i32, String),
    /// The watching connection of this number saw something.
    Seen(ConnectionKey, Seen),
    /// A stream changed its state.
    Stream(NodeName, StreamState),
    /// The user's mixer changed a stream's volume.
    Control(NodeName, Control),
    /// The session manager's metadata, on the connection that watches the server.
    Metadata(ConnectionKey, Global),
}

struct Thread {
    main_loop: MainLoopRc,
    connector: Connector,
    queue: Sender<Happening>,
    events: Events,
    /// On the connection below.
    router: Option<Router>,
    /// For the server object, in nanoseconds.
    shortest_cycle: Arc<AtomicI64>,
    watch: Option<Watch>,
    /// The version that the server told on the watching connection.
    version: Option<String>,
    /// Its sinks and sources by its numbers, those left out that are nodes of ours: which streams each is for, and its name.
    targets: BTreeMap<u32, (Direction, String)>,
    /// Whether nodes can be made.
    up: bool,
    search: Search,
    clients: Clients<Connection>,
    nodes: BTreeMap<NodeKey, Node>,
}

/// Runs until a [`Command::Quit`] arrives.
pub(super) fn run(
    main_loop: MainLoopRc,
    commands: pw::channel::Receiver<Command>,
    events: Events,
    remote: Remote,
    shortest_cycle: Arc<AtomicI64>,
) {
    let (queue, happenings) = mpsc::channel();
    let forward = queue.clone();
    let attached = main_loop.clone();
    let _commands = commands.attach(attached.loop_(), move |command| {
        let _ = forward.send(Happening::Command(command));
    });
    let mut thread = Thread {
        connector: Connector::new(main_loop.clone(), remote, queue.clone()),
        main_loop,
        queue,
        events,
        router: None,
        shortest_cycle,
        watch: None,
        version: None,
        targets: BTreeMap::new(),
        up: false,
        search: Search::new(),
        clients: Clients::default(),
        nodes: BTreeMap::new(),
    };
    loop {
        let now = monotonic_now();
        thread.tick(now);
        if thread.search.has_ended(now, thread.nodes.is_empty()) {
            break;
        }
        let timeout = match thread.deadline() {
            // Rounded up, or the loop would turn idly through the last millisecond.
            Some(at) => Timeout::Finite(Duration::from_millis(millis_until(now, at))),
            None => Timeout::Infinite,
        };
        // Failures are interruptions by signals; the loop's state says what to do next.
        thread.main_loop.loop_().iterate(timeout);
        while let Ok(happening) = happenings.try_recv() {
            thread.handle(happening);
        }
    }
    thread.nodes.clear();
    thread.clients.clear();
}

fn millis_until(now: Nanos, at: Nanos) -> u64 {
    u64::try_from((at - now).0).map_or(0, |nanos| nanos.div_ceil(1_000_000)).min(60_000)
}

impl Thread {
    fn deadline(&self) -> Option<Nanos> {
        let search = self.search.deadline(self.watch.is_some());
        let nodes = self.nodes.values().filter_map(Node::deadline);
        search.into_iter().chain(self.clients.deadline()).chain(nodes).min()
    }

    /// Does what is due at `now`.
    fn tick(&mut self, now: Nanos) {
        if self.watch.is_none() && self.search.is_due(now) {
            self.connect(now);
        }
        self.nodes.retain(|_, node| !node.tick(now));
        if self.up {
            let wanting: Vec<NodeKey> =
                self.nodes.iter().filter(|(_, node)| node.wants_stream(now)).map(|(key, _)| *key).collect();
            for key in wanting {
                self.connect_node(key, now);
            }
        }
        let Self { clients, nodes, router, .. } = self;
        if let Some(router) = router.as_ref().filter(|router| router.is_ready()) {
            nodes.values_mut().for_each(|node| node.route(router));
        }
        clients.drop_idle(now, |id| nodes.values().any(|node| node.spec.client.id == id));
    }

    fn handle(&mut self, happening: Happening) {
        let now = monotonic_now();
        match happening {
            Happening::Command(command) => self.obey(command, now),
            Happening::Server(key, version, cycle) => {
                if self.is_watch(key) {
                    self.shortest_cycle.store(cycle.0, Ordering::Relaxed);
                    self.version = Some(version);
                }
            }
            Happening::Seen(key, seen) => {
                if self.is_watch(key) {
                    self.saw(seen);
                }
            }
            Happening::CoreError(key, result, message) => self.core_failed(key, result, &message, now),
            Happening::Stream(name, state) => {
                if let Some(node) = self.nodes.get_mut(&name.key) {
                    node.stream_changed(name.life, state, now);
                }
            }
            Happening::Control(name, control) => {
                if let Some(node) = self.nodes.get_mut(&name.key) {
                    node.volume_changed(name.life, control);
                }
            }
            Happening::Metadata(key, metadata) => {
                if self.is_watch(key)
                    && let Some(router) = &mut self.router
                {
                    router.found(&metadata);
                    self.nodes.values_mut().for_each(Node::route_anew);
                }
            }
        }
    }

    fn obey(&mut self, command: Command, now: Nanos) {
        match command {
            Command::Open(key, opened) => {
                let mut node = Node::new(*opened, &self.events);
                // Nobody is there; one who hasn't answered yet may do so at once.
                if self.watch.is_none() {
                    node.disconnect();
                }
                self.nodes.insert(key, node);
            }
            Command::Node(key, order) => {
                if let Some(node) = self.nodes.get_mut(&key) {
                    node.obey(order, now);
                }
            }
            Command::Seek(wanted) => {
                self.search.seek(wanted);
                if !wanted {
                    self.forget("it is not looked for any more");
                }
            }
            Command::Quit => {
                self.search.quit(now);
                for node in self.nodes.values_mut() {
                    node.release(now);
                }
            }
        }
    }

    /// Looks for the server; that it answers arrives later.
    fn connect(&mut self, now: Nanos) {
        if self.connector.listens()
            && let Ok(watch) = Watch::start(&mut self.connector, &self.queue)
        {
            self.router = Some(Router::new(watch.registry(), watch.key(), &self.queue));
            self.watch = Some(watch);
        } else {
            self.search.failed(now);
        }
    }

    fn is_watch(&self, key: ConnectionKey) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.key() == key)
    }

    fn saw(&mut self, seen: Seen) {
        let before = self.targets();
        match seen {
            Seen::Target(id, direction, name) => {
                if self.nodes.values().all(|node| node.spec.name != name) {
                    self.targets.insert(id, (direction, name));
                }
            }
            Seen::Gone(id) => {
                self.targets.remove(&id);
                if let Some(router) = &mut self.router {
                    router.gone(id);
                }
            }
            Seen::All => return self.answered(),
        }
        let now = self.targets();
        if self.up && now != before {
            if before.sinks.is_empty() && !now.sinks.is_empty() {
                self.nodes.values_mut().for_each(Node::retry);
            }
            self.tell(ServerEvent::Targets(now));
        }
    }

    fn targets(&self) -> Targets {
        let of = |wanted| {
            let targets = self.targets.values().filter(|(direction, _)| *direction == wanted);
            targets.map(|(_, name)| name.clone()).collect()
        };
        Targets { sinks: of(Direction::Playback), sources: of(Direction::Capture) }
    }

    fn answered(&mut self) {
        self.up = true;
        self.search.found();
        let version = self.version.take().unwrap_or_default();
        self.tell(ServerEvent::Targets(self.targets()));
        self.tell(ServerEvent::Connected(ServerInfo {
            name: "PipeWire".to_owned(),
            version,
            is_stand_in: false,
        }));
    }

    fn tell(&self, event: ServerEvent) {
        tracing::debug!(?event, "PipeWire");
        (self.events)(event);
    }

    fn core_failed(&mut self, key: ConnectionKey, result: i32, message: &str, now: Nanos) {
        let client = self.clients.iter().find(|(_, connection)| connection.key == key);
        if let Some((client, _)) = client {
            tracing::debug!(client = client.name, message, "connection to PipeWire failed");
        }
        // Only a broken connection is the end; other errors are about one request.
        if (client.is_some() || self.is_watch(key)) && result == -rustix::io::Errno::PIPE.raw_os_error() {
            self.lost(message, now);
        }
    }

    /// Watches the server no longer; tails are played on.
    fn forget(&mut self, why: &str) {
        self.router = None;
        self.watch = None;
        self.targets.clear();
        if std::mem::take(&mut self.up) {
            self.tell(ServerEvent::Lost(why.to_owned()));
        }
    }

    /// The server went away.
    fn lost(&mut self, why: &str, now: Nanos) {
        for node in self.nodes.values_mut() {
            node.disconnect();
        }
        self.clients.clear();
        self.forget(why);
        self.search.failed(now);
        for node in self.nodes.values_mut() {
            node.tell(NodeState::Connecting);
        }
    }

    /// Gives a node a stream, on its domain's connection.
    fn connect_node(&mut self, key: NodeKey, now: Nanos) {
        let Self { nodes, clients, connector, queue, .. } = self;
        let Some(node) = nodes.get_mut(&key) else { return };
        let client = &node.spec.client;
        let connection = clients.connection(client, || connector.connect(properties::client(client)));
        let connected = match connection {
            Ok(connection) => node.connect(key, connection, queue).map_err(|error| describe(&error)),
            Err(error) => Err(describe(&error)),
        };
        if let Err(why) = connected {
            node.refused(now, why);
        }
    }
}
