//! The thread that owns everything of PulseAudio's: connections, streams and their loop.
//!
//! A turn of the loop reads and sends whatever libpulse has to; everything else is done between two turns.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use libpulse_binding::mainloop::standard::Mainloop;
use libpulse_binding::time::MicroSeconds;

use super::connection::{Connection, Progress};
use super::inbox::Inbox;
use super::node::{Node, NodeKey};
use super::process::Shared;
use super::properties;
use crate::backoff::Backoff;
use crate::units::{Nanos, monotonic_now};
use crate::{Client, NodeEvent, NodeSpec, NodeState, PcmRing, ServerEvent};

/// How long a domain's connection stays after its last node: a guest that opens and closes in quick succession keeps it.
const LINGER: Nanos = Nanos::from_millis(3_000);
/// How often a server that isn't there is looked for: it is to be found within a second of its return.
const RECONNECT: Backoff = Backoff::new(Nanos::from_millis(100), Nanos::from_millis(800));
/// How long after a failure of its own a domain's connection is made anew.
const CLIENT_RETRY: Nanos = Nanos::from_millis(200);
/// How long the last tails may take once the server object is dropped.
const FAREWELL: Nanos = Nanos::from_millis(3_500);
/// How long the loop sleeps at most.
const LONGEST_SLEEP: Nanos = Nanos::from_millis(60_000);

/// What handles ask of the thread.
pub(super) enum Command {
    Open(NodeKey, Box<NodeSpec>, Arc<PcmRing>, Arc<Shared>),
    Start(NodeKey),
    Stop(NodeKey),
    Release(NodeKey),
    /// Plays the tails, drops everything and ends the thread.
    Quit,
}

type Events = Box<dyn Fn(ServerEvent)>;

/// A domain's connection.
struct ClientConnection {
    client: Client,
    /// `None` from a failure to the next try.
    connection: Option<Connection>,
    retry_at: Nanos,
    /// Since when it has had no nodes.
    idle_since: Option<Nanos>,
}

/// The fields drop in this order: streams before their connections, connections before the loop.
struct Thread {
    nodes: BTreeMap<NodeKey, Node>,
    clients: HashMap<String, ClientConnection>,
    /// The connection that watches the server while no guest plays.
    watch: Option<Connection>,
    inbox: Inbox,
    mainloop: Mainloop,
    events: Events,
    server: Option<String>,
    /// Whether the server answered on the watching connection.
    up: bool,
    backoff: Backoff,
    reconnect_at: Nanos,
    /// Streams have more frames to move at once.
    more: bool,
    quit_at: Option<Nanos>,
}

/// Runs until a [`Command::Quit`] arrives.
pub(super) fn run(mainloop: Mainloop, inbox: Inbox, events: Events, server: Option<String>) {
    let mut thread = Thread {
        nodes: BTreeMap::new(),
        clients: HashMap::new(),
        watch: None,
        inbox,
        mainloop,
        events,
        server,
        up: false,
        backoff: RECONNECT,
        reconnect_at: Nanos::default(),
        more: false,
        quit_at: None,
    };
    loop {
        let now = monotonic_now();
        thread.tick(now);
        if thread.quit_at.is_some_and(|at| thread.nodes.is_empty() || at <= now) {
            break;
        }
        thread.sleep(now);
        // Frames first: nothing else is in a hurry.
        thread.turn_nodes();
        while let Some(command) = thread.inbox.next() {
            thread.obey(command, monotonic_now());
        }
    }
}

impl Thread {
    /// One turn of libpulse's loop.
    fn sleep(&mut self, now: Nanos) {
        let wait = match self.deadline() {
            _ if self.more => Nanos(0),
            Some(at) => (at - now).max(Nanos(0)).min(LONGEST_SLEEP),
            None => LONGEST_SLEEP,
        };
        // Rounded up, or the loop would turn idly through the last microsecond.
        let wait = MicroSeconds(wait.0.unsigned_abs().div_ceil(1_000));
        // Each of the three fails only with a loop that is broken or told to quit, which nobody does.
        let turned = self.mainloop.prepare(Some(wait)).and_then(|()| self.mainloop.poll());
        if turned.and_then(|_| self.mainloop.dispatch()).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn deadline(&self) -> Option<Nanos> {
        let reconnect = self.watch.is_none().then_some(self.reconnect_at);
        let idle = self.clients.values().filter_map(|client| Some(client.idle_since? + LINGER));
        let clients = self.clients.values().filter(|client| client.connection.is_none());
        let clients = clients.filter(|_| self.up).map(|client| client.retry_at);
        let nodes = self.nodes.values().filter_map(Node::deadline);
        reconnect.into_iter().chain(self.quit_at).chain(idle).chain(clients).chain(nodes).min()
    }

    /// Does what is due at `now`.
    fn tick(&mut self, now: Nanos) {
        if self.watch.is_none() && self.reconnect_at <= now && self.quit_at.is_none() {
            self.connect(now);
        }
        self.look_at_server(now);
        self.look_at_clients(now);
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

    fn turn_nodes(&mut self) {
        let now = monotonic_now();
        let mut told = Vec::new();
        self.more = false;
        let Self { nodes, clients, .. } = self;
        for (key, node) in nodes {
            let client = clients.get(&node.spec.client.id);
            let why = || match client.and_then(|client| client.connection.as_ref()).map(Connection::progress)
            {
                Some(Progress::Ready) => {
                    "the server refused or removed the stream; has it a sink and a source?".to_owned()
                }
                Some(Progress::Failed(why)) => why,
                Some(Progress::Waiting) | None => "the connection failed".to_owned(),
            };
            let (state, more) = node.turn(now, &why);
            self.more |= more;
            told.extend(state.map(|state| (*key, state)));
        }
        for (key, state) in told {
            self.tell(key, state);
        }
    }

    fn obey(&mut self, command: Command, now: Nanos) {
        match command {
            Command::Open(key, spec, ring, shared) => {
                self.nodes.insert(key, Node::new(*spec, ring, shared));
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

    /// Looks for the server; that it answers shows later.
    fn connect(&mut self, now: Nanos) {
        match Connection::new(&self.mainloop, properties::watch(), self.server.as_deref()) {
            Ok(watch) => self.watch = Some(watch),
            Err(_) => self.reconnect_at = self.backoff.failed(now),
        }
    }

    fn look_at_server(&mut self, now: Nanos) {
        let Some(watch) = &mut self.watch else { return };
        match watch.progress() {
            Progress::Waiting => (),
            Progress::Ready if self.up => (),
            Progress::Ready => {
                let Some(info) = watch.server_info() else { return };
                self.up = true;
                self.backoff.succeeded();
                tracing::info!(version = info.version, "connected to PulseAudio");
                (self.events)(ServerEvent::Connected(info));
            }
            Progress::Failed(why) => self.lost(&why, now),
        }
    }

    fn lost(&mut self, why: &str, now: Nanos) {
        for node in self.nodes.values_mut() {
            node.disconnect();
        }
        self.clients.clear();
        self.watch = None;
        self.reconnect_at = self.backoff.failed(now);
        if !std::mem::take(&mut self.up) {
            return;
        }
        tracing::warn!(reason = why, "lost PulseAudio");
        (self.events)(ServerEvent::Lost(why.to_owned()));
        self.tell_connecting();
    }

    /// A domain's connection may fail alone. Mostly it is the server that went, which the watching connection tells next, so
    /// nothing is told of nodes here: they get a new stream and tell of that.
    fn look_at_clients(&mut self, now: Nanos) {
        let Self { clients, nodes, .. } = self;
        for (id, client) in clients {
            let progress = client.connection.as_ref().map(Connection::progress);
            let Some(Progress::Failed(why)) = progress else { continue };
            tracing::debug!(client = client.client.name, reason = why, "connection to PulseAudio failed");
            client.connection = None;
            client.retry_at = now + CLIENT_RETRY;
            nodes.values_mut().filter(|node| node.spec.client.id == *id).for_each(Node::disconnect);
        }
    }

    fn tell_connecting(&mut self) {
        let keys: Vec<NodeKey> = self.nodes.keys().copied().collect();
        for key in keys {
            if let Some(state) = self.nodes.get_mut(&key).and_then(|node| node.tell(NodeState::Connecting)) {
                self.tell(key, state);
            }
        }
    }

    /// Gives a node a stream, or its domain a connection on which it gets one later.
    fn connect_node(&mut self, key: NodeKey, now: Nanos) {
        let Some(client) = self.nodes.get(&key).map(|node| node.spec.client.clone()) else { return };
        self.connect_client(&client, now);
        let connection = self.clients.get_mut(&client.id).and_then(|client| client.connection.as_mut());
        let Some(context) = connection.and_then(Connection::ready) else { return };
        let Some(node) = self.nodes.get_mut(&key) else { return };
        if let Some(state) = node.connect(context, now) {
            self.tell(key, state);
        }
    }

    /// Makes the domain's connection when there is none.
    fn connect_client(&mut self, client: &Client, now: Nanos) {
        if let Some(known) = self.clients.get_mut(&client.id) {
            // A domain that was restarted meanwhile has a new number, and mixers should show it.
            if known.client == *client || known.idle_since.is_none() {
                known.idle_since = None;
                if known.connection.is_some() || now < known.retry_at {
                    return;
                }
            }
        }
        let connection = Connection::new(&self.mainloop, properties::client(client), self.server.as_deref());
        let connection = connection
            .inspect_err(|error| tracing::debug!(client = client.name, %error, "no connection"))
            .ok();
        let client = client.clone();
        let retry_at = now + CLIENT_RETRY;
        let id = client.id.clone();
        self.clients.insert(id, ClientConnection { client, connection, retry_at, idle_since: None });
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
