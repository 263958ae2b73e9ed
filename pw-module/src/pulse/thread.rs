//! The thread that owns everything of PulseAudio's: connections, streams and their loop.
//!
//! A turn of the loop reads and sends whatever libpulse has to; everything else is done between two turns.

use std::collections::BTreeMap;

use libpulse_binding::mainloop::standard::Mainloop;
use libpulse_binding::time::MicroSeconds;

use super::connection::{Connection, Progress};
use super::inbox::Inbox;
use super::node::Node;
use super::properties;
use super::watch::Watch;
use crate::clients::Clients;
use crate::handle::{Command, NodeKey, Order};
use crate::search::Search;
use crate::told::Events;
use crate::units::{Nanos, monotonic_now};
use crate::{NodeState, ServerEvent};

/// How nice the thread is to others.
const NICE: i32 = -11;
/// Turns of libpulse's loop before streams are looked at: more than the packets that a stream can have on their way.
const MOST_TURNS: usize = 64;
/// How long the loop sleeps at most.
const LONGEST_SLEEP: Nanos = Nanos::from_millis(60_000);

/// The fields drop in this order: streams before their connections, connections before the loop.
struct Thread {
    nodes: BTreeMap<NodeKey, Node>,
    clients: Clients<Connection>,
    watch: Option<Watch>,
    inbox: Inbox,
    mainloop: Mainloop,
    events: Events,
    server: Option<String>,
    /// Whether the server answered on the watching connection.
    up: bool,
    search: Search,
    /// Streams have more frames to move at once, or a route to be told of.
    more: bool,
}

/// Runs until a [`Command::Quit`] arrives.
pub(super) fn run(mainloop: Mainloop, inbox: Inbox, events: Events, server: Option<String>) {
    // As PulseAudio's own, where the desktop allows it: half of a stream's latency is there to be late in, and no more.
    if let Err(errno) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%errno, "the thread for PulseAudio keeps its priority");
    }
    let mut thread = Thread {
        nodes: BTreeMap::new(),
        clients: Clients::default(),
        watch: None,
        inbox,
        mainloop,
        events,
        server,
        up: false,
        search: Search::new(),
        more: false,
    };
    loop {
        let now = monotonic_now();
        thread.tick(now);
        if thread.search.has_ended(now, thread.nodes.is_empty()) {
            break;
        }
        thread.wait(now);
        // Frames first: nothing else is in a hurry.
        thread.turn_nodes();
        while let Some(command) = thread.inbox.next() {
            thread.obey(command, monotonic_now());
        }
    }
}

impl Thread {
    /// Waits until something is due or the server sent something, and reads all of it: requests for frames come in many
    /// pieces, and only their sum tells how far the server is.
    fn wait(&mut self, now: Nanos) {
        let wait = match self.deadline() {
            _ if self.more => Nanos(0),
            Some(at) => (at - now).max(Nanos(0)).min(LONGEST_SLEEP),
            None => LONGEST_SLEEP,
        };
        // Rounded up, or the loop would turn idly through the last microsecond.
        let mut wait = MicroSeconds(wait.0.unsigned_abs().div_ceil(1_000));
        for _ in 0..MOST_TURNS {
            // Each of the three fails only with a loop that is broken or told to quit, which nobody does.
            let turned = self.mainloop.prepare(Some(wait)).and_then(|()| self.mainloop.poll());
            match turned.and_then(|_| self.mainloop.dispatch()) {
                Ok(0) => return,
                Ok(_) => wait = MicroSeconds(0),
                Err(_) => return std::thread::sleep(std::time::Duration::from_millis(10)),
            }
        }
    }

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
        let Self { clients, nodes, .. } = self;
        clients.drop_idle(now, |id| nodes.values().any(|node| node.spec.client.id == id));
    }

    fn turn_nodes(&mut self) {
        let now = monotonic_now();
        self.more = false;
        let Self { nodes, clients, .. } = self;
        for (client, connection) in clients.iter_mut() {
            let changed = connection.changed();
            let own = nodes.values_mut().filter(|node| node.spec.client.id == client.id);
            own.for_each(|node| node.look_at(&changed));
        }
        for node in nodes.values_mut() {
            let connection = clients.iter().find(|(client, _)| client.id == node.spec.client.id);
            let why = || match connection.map(|(_, connection)| connection.progress()) {
                Some(Progress::Ready) => {
                    "the server refused or removed the stream; has it a sink and a source?".to_owned()
                }
                Some(Progress::Failed(why)) => why,
                Some(Progress::Waiting) | None => "the connection failed".to_owned(),
            };
            self.more |= node.turn(now, &why);
            node.turn_user(|| connection.and_then(|(_, connection)| connection.introspector()));
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
                // Carried out at the nodes' turn, which nothing else may bring about where none of them plays.
                self.more |= matches!(order, Order::Target(_));
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

    /// Looks for the server; that it answers shows later.
    fn connect(&mut self, now: Nanos) {
        match Watch::new(&self.mainloop, self.server.as_deref()) {
            Ok(watch) => self.watch = Some(watch),
            Err(_) => self.search.failed(now),
        }
    }

    fn look_at_server(&mut self, now: Nanos) {
        let Some(watch) = &mut self.watch else { return };
        match watch.progress() {
            Progress::Waiting => (),
            Progress::Ready => {
                let changed = watch.turn();
                if self.up && !changed {
                    return;
                }
                let Some((info, targets)) = watch.answer() else { return };
                let targets = ServerEvent::Targets(targets.clone());
                let came = !std::mem::replace(&mut self.up, true);
                self.tell(targets);
                if came {
                    self.search.found();
                    self.tell(ServerEvent::Connected(info));
                }
            }
            Progress::Failed(why) => self.lost(&why, now),
        }
    }

    fn tell(&self, event: ServerEvent) {
        tracing::debug!(?event, "PulseAudio");
        (self.events)(event);
    }

    /// Watches the server no longer; tails are played on.
    fn forget(&mut self, why: &str) {
        self.watch = None;
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

    /// A domain's connection may fail alone. Mostly it is the server that went, which the watching connection tells next, so
    /// nothing is told of nodes here: they get a new stream and tell of that.
    fn look_at_clients(&mut self, now: Nanos) {
        let Self { clients, nodes, .. } = self;
        clients.retain(|client, connection| {
            let Progress::Failed(why) = connection.progress() else { return true };
            tracing::debug!(client = client.name, reason = why, "connection to PulseAudio failed");
            nodes
                .values_mut()
                .filter(|node| node.spec.client.id == client.id)
                .for_each(|node| node.postpone(now));
            false
        });
    }

    /// Gives a node a stream, or its domain a connection on which it gets one later.
    fn connect_node(&mut self, key: NodeKey, now: Nanos) {
        let Self { nodes, clients, mainloop, server, .. } = self;
        let Some(node) = nodes.get_mut(&key) else { return };
        let client = &node.spec.client;
        let connect = || Connection::new(mainloop, properties::client(client), server.as_deref());
        match clients.connection(client, connect) {
            Ok(connection) => {
                if let Some(context) = connection.ready() {
                    node.connect(context, now);
                }
            }
            Err(error) => {
                tracing::debug!(client = client.name, %error, "no connection to PulseAudio");
                node.postpone(now);
            }
        }
    }
}
