//! The thread that owns everything of PipeWire's: connections, nodes and their loop.
//!
//! PipeWire's callbacks only queue what happened. It is dealt with between two turns of the loop, where no callback is
//! on the stack, so that anything may be destroyed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use pipewire as pw;
use pw::loop_::Timeout;
use pw::main_loop::MainLoopRc;
use pw::stream::StreamState;

use super::connection::{Connection, ConnectionKey};
use super::node::{Node, NodeKey, NodeName};
use super::process::Shared;
use super::properties;
use super::remote::{ConnectError, Remote};
use crate::backoff::Backoff;
use crate::units::{Nanos, monotonic_now};
use crate::{Client, NodeEvent, NodeSpec, NodeState, PcmRing, ServerEvent, ServerInfo};

/// How long a domain's connection stays after its last node: a guest that opens and closes in quick succession keeps it.
const LINGER: Nanos = Nanos::from_millis(3_000);
/// How often a server that isn't there is looked for: it is to be found within a second of its return.
const RECONNECT: Backoff = Backoff::new(Nanos::from_millis(100), Nanos::from_millis(800));
/// How long the last tails may take once the server object is dropped.
const FAREWELL: Nanos = Nanos::from_millis(3_500);

/// What handles ask of the thread.
pub(super) enum Command {
    Open(NodeKey, Box<NodeSpec>, Arc<PcmRing>, Arc<Shared>),
    Start(NodeKey),
    Stop(NodeKey),
    Release(NodeKey),
    /// Plays the tails, drops everything and ends the thread.
    Quit,
}

/// What PipeWire's callbacks saw.
pub(super) enum Happening {
    Command(Command),
    /// The server of a connection told its version, and the shortest cycle of its graph.
    Server(ConnectionKey, String, Nanos),
    /// A connection failed, with a negative errno and a text.
    CoreError(ConnectionKey, i32, String),
    /// A stream changed its state.
    Stream(NodeName, StreamState),
}

type Events = Box<dyn Fn(ServerEvent)>;

/// A domain's connection.
struct ClientConnection {
    client: Client,
    connection: Connection,
    /// Since when it has had no nodes.
    idle_since: Option<Nanos>,
}

struct Thread {
    main_loop: MainLoopRc,
    queue: Sender<Happening>,
    events: Events,
    remote: Remote,
    /// For the server object, in nanoseconds.
    shortest_cycle: Arc<AtomicI64>,
    /// The connection that watches the server while no guest plays.
    watch: Option<Connection>,
    /// Whether the server answered on it.
    up: bool,
    backoff: Backoff,
    reconnect_at: Nanos,
    clients: HashMap<String, ClientConnection>,
    nodes: BTreeMap<NodeKey, Node>,
    connections: u64,
    quit_at: Option<Nanos>,
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
        main_loop,
        queue,
        events,
        remote,
        shortest_cycle,
        watch: None,
        up: false,
        backoff: RECONNECT,
        reconnect_at: Nanos::default(),
        clients: HashMap::new(),
        nodes: BTreeMap::new(),
        connections: 0,
        quit_at: None,
    };
    loop {
        let now = monotonic_now();
        thread.tick(now);
        if thread.quit_at.is_some_and(|at| thread.nodes.is_empty() || at <= now) {
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
        let reconnect = self.watch.is_none().then_some(self.reconnect_at);
        let idle = self.clients.values().filter_map(|client| Some(client.idle_since? + LINGER));
        let nodes = self.nodes.values().filter_map(Node::deadline);
        reconnect.into_iter().chain(self.quit_at).chain(idle).chain(nodes).min()
    }

    /// Does what is due at `now`.
    fn tick(&mut self, now: Nanos) {
        if self.watch.is_none() && self.reconnect_at <= now && self.quit_at.is_none() {
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
        self.drop_idle_connections(now);
    }

    fn handle(&mut self, happening: Happening) {
        let now = monotonic_now();
        match happening {
            Happening::Command(command) => self.obey(command, now),
            Happening::Server(key, version, cycle) => {
                if self.watch.as_ref().is_some_and(|watch| watch.key == key) && !self.up {
                    self.shortest_cycle.store(cycle.0, Ordering::Relaxed);
                    self.up = true;
                    self.backoff.succeeded();
                    tracing::info!(version, "connected to PipeWire");
                    (self.events)(ServerEvent::Connected(ServerInfo {
                        name: "PipeWire".to_owned(),
                        version,
                    }));
                }
            }
            Happening::CoreError(key, result, message) => self.core_failed(key, result, &message, now),
            Happening::Stream(name, state) => {
                let told =
                    self.nodes.get_mut(&name.key).and_then(|node| node.stream_changed(name.life, state, now));
                if let Some(state) = told {
                    self.tell(name.key, state);
                }
            }
        }
    }

    fn obey(&mut self, command: Command, now: Nanos) {
        match command {
            Command::Open(key, spec, ring, shared) => {
                self.nodes.insert(key, Node::new(*spec, ring, shared));
                if self.up {
                    self.connect_node(key, now);
                }
            }
            Command::Start(key) => {
                if let Some(node) = self.nodes.get_mut(&key) {
                    node.start();
                }
            }
            Command::Stop(key) => {
                if let Some(node) = self.nodes.get_mut(&key) {
                    node.stop(now);
                }
            }
            Command::Release(key) => {
                if let Some(node) = self.nodes.get_mut(&key) {
                    node.release(now);
                }
            }
            Command::Quit => {
                self.quit_at = Some(now + FAREWELL);
                for node in self.nodes.values_mut() {
                    node.release(now);
                }
            }
        }
    }

    fn new_connection(
        &mut self,
        properties: pw::properties::PropertiesBox,
    ) -> Result<Connection, ConnectError> {
        self.connections += 1;
        let key = ConnectionKey(self.connections);
        Connection::new(&self.main_loop, key, properties, &self.remote, &self.queue)
    }

    /// Looks for the server; that it answers arrives later.
    fn connect(&mut self, now: Nanos) {
        if self.remote.listens()
            && let Ok(watch) = self.new_connection(properties::watch())
        {
            self.watch = Some(watch);
        } else {
            self.reconnect_at = self.backoff.failed(now);
        }
    }

    fn core_failed(&mut self, key: ConnectionKey, result: i32, message: &str, now: Nanos) {
        let watching = self.watch.as_ref().is_some_and(|watch| watch.key == key);
        let client = self.clients.values().find(|client| client.connection.key == key);
        if let Some(client) = client.filter(|_| !watching) {
            tracing::debug!(client = client.client.name, message, "connection to PipeWire failed");
        }
        // Only a broken connection is the end; other errors are about one request.
        if (!watching && client.is_none()) || result != -rustix::io::Errno::PIPE.raw_os_error() {
            return;
        }
        for node in self.nodes.values_mut() {
            node.disconnect();
        }
        self.clients.clear();
        self.watch = None;
        self.reconnect_at = self.backoff.failed(now);
        if std::mem::take(&mut self.up) {
            tracing::warn!(message, "lost PipeWire");
            (self.events)(ServerEvent::Lost(message.to_owned()));
        }
        let keys: Vec<NodeKey> = self.nodes.keys().copied().collect();
        for key in keys {
            if let Some(state) = self.nodes.get_mut(&key).and_then(|node| node.tell(NodeState::Connecting)) {
                self.tell(key, state);
            }
        }
    }

    fn connect_node(&mut self, key: NodeKey, now: Nanos) {
        let Some(client) = self.nodes.get(&key).map(|node| node.spec.client.clone()) else { return };
        let connected = match self.client_core(&client) {
            Ok(core) => match self.nodes.get_mut(&key) {
                Some(node) => node.connect(key, &core, &self.queue).map_err(|error| describe(&error)),
                None => return,
            },
            Err(error) => Err(describe(&error)),
        };
        if let Err(text) = connected
            && let Some(node) = self.nodes.get_mut(&key)
        {
            node.refused(now);
            if let Some(state) = node.tell(NodeState::Failed(text)) {
                self.tell(key, state);
            }
        }
    }

    /// The core of the domain's connection, which is made when there is none.
    fn client_core(&mut self, client: &Client) -> Result<pw::core::CoreRc, ConnectError> {
        if let Some(known) = self.clients.get_mut(&client.id) {
            // A domain that was restarted meanwhile has a new number, and mixers should show it.
            if known.client == *client || known.idle_since.is_none() {
                known.idle_since = None;
                return Ok(known.connection.core().clone());
            }
        }
        let connection = self.new_connection(properties::client(client))?;
        let core = connection.core().clone();
        let client = client.clone();
        self.clients.insert(client.id.clone(), ClientConnection { client, connection, idle_since: None });
        Ok(core)
    }

    fn drop_idle_connections(&mut self, now: Nanos) {
        let Self { clients, nodes, .. } = self;
        clients.retain(|id, client| {
            if nodes.values().any(|node| node.spec.client.id == *id) {
                client.idle_since = None;
                return true;
            }
            now < *client.idle_since.get_or_insert(now) + LINGER
        });
    }

    fn tell(&self, key: NodeKey, state: NodeState) {
        let Some(node) = self.nodes.get(&key) else { return };
        let (name, client) = (node.spec.name.clone(), node.spec.client.id.clone());
        match &state {
            NodeState::Failed(text) => {
                tracing::warn!(node = name, domain = node.spec.client.name, reason = text, "node failed");
            }
            state => tracing::debug!(node = name, ?state, "node changed"),
        }
        (self.events)(ServerEvent::Node(NodeEvent { node: name, client, state }));
    }
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
