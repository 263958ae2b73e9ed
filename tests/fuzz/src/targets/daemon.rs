//! The whole daemon: its main loop, devices, connections and pacer, driven through XenStore, rings and the guest's death.
//!
//! The main loop runs between two steps only, until it rests, so that an input means the same each time. A connected card's
//! thread runs when it likes. An input is the life of one guest, or of several that follow each other.

use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};

use arbitrary::{Arbitrary, Unstructured};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use vsnd_bridge::bridge::Bridge;
use vsnd_bridge::config::Config;
use vsnd_bridge::control::Control;
use vsnd_bridge::sim::{Attached, Card, Guest, Hypervisor};
use vsnd_bridge::sndif::{Operation, Request, keys};
use vsnd_bridge::xen::{Nodes, Store, StoreError};
use vsnd_pw_module::Octets;

use super::card::{self, Hands, STREAMS};
use super::nodes::Edit;
use super::request::Ask;
use crate::log;
use crate::memory::Memory;
use crate::raw::{HonestStream, PATIENCE, RawStream};
use crate::xen::{DOM0, Desk, assert_let_go, context};

/// Cards and deaths of one input: to make a guest and its cards costs the simulator more than it costs the bridge.
const MOST_CARDS: u64 = 3;

/// Steps of one input. Each may put a ring full of OPENs before a card's thread; with more than 600 of them the guest would be
/// slowed, and its answers come late.
const MOST_STEPS: usize = 14;

/// Nodes that one step changes, of which the simulator has the cost, too; the target "config" makes more of them.
const MOST_NODES: usize = 8;

/// Few enough changes of state that an input can have too many.
const POLICY: &str = "[default]\ncapture = \"allow\"\n[[domain]]\nmatch = \"hostile\"\n\
                      limits = { state-changes-per-minute = 8 }\n";

/// What the log gets of a guest's faults in a minute; the honest guest asks for what is refused, too.
const MOST_FAULTS: u64 = 10;
/// What it gets of one card: faults, odd configuration, why that isn't used, and four bounds that the guest was over.
const MOST_LINES: u64 = MOST_FAULTS + 20 + 1 + 4;

#[derive(Debug, Arbitrary)]
struct Step {
    /// The bridge is too busy to look before the next one.
    unseen: bool,
    deed: Deed,
}

#[derive(Debug, Arbitrary)]
enum Deed {
    /// The toolstack takes the card away, without asking anybody, and makes another.
    Attach(Left),
    /// The guest changes its nodes.
    Edit(Edit),
    /// Its state, which may be none.
    State(u8),
    /// It removes all its nodes.
    Vanish,
    /// It asks and waits for the answer, if there has to be one.
    Ask { stream: bool, ask: Ask },
    /// What it can do to a connected card besides.
    Card(card::Step),
    /// The toolstack wants the card to go.
    AskToClose,
    /// The guest ends, in a crash or by the toolstack, and another comes.
    Die { crash: bool },
}

/// How the bridge finds a new card.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Left {
    /// As the toolstack makes it.
    New,
    /// As a bridge left it that ended before it saw that the guest's rings are published: it is to be connected at once.
    Offered,
    /// As a bridge left it that ended while it was connected: it is to be taken over.
    Connected,
}

impl Left {
    /// Of the backend and of the frontend.
    fn states(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Self::New => (b"1", b"1"),
            Self::Offered => (b"2", b"3"),
            Self::Connected => (b"4", b"4"),
        }
    }
}

/// A machine with a bridge and the honest guest on it.
struct Bench {
    xen: Hypervisor,
    desk: Desk,
    control: Control,
    runtime: Runtime,
    bridge: JoinHandle<Result<(), StoreError>>,
    /// The bridge's own connection.
    store: Arc<dyn Store>,
    neighbour: HonestStream,
    _silent: HonestStream,
    of_neighbour: Attached,
    /// Watches of a bridge that serves only the honest guest.
    watches: usize,
}

/// The hostile guest of the moment.
struct Life {
    guest: Guest,
    memory: Memory,
    card: Option<HostileCard>,
}

struct HostileCard {
    place: Attached,
    streams: [HonestStream; STREAMS.len()],
    /// Whether a stream's ring and nodes are still as they were made: what it asks has to be answered.
    whole: [bool; STREAMS.len()],
}

pub fn run(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    let mut bench = BENCH.get_or_init(|| Mutex::new(Bench::start())).lock().unwrap();
    let (told, mut cards) = (log::lines(), 0);
    let mut life = Life::begin(&bench.xen);
    for (id, Step { unseen, deed }) in crate::steps(input).take(MOST_STEPS).enumerate() {
        match deed {
            Deed::Die { .. } | Deed::Attach(_) if cards == MOST_CARDS => continue,
            Deed::Die { crash } => {
                cards += 1;
                bench.end(life, crash);
                life = Life::begin(&bench.xen);
            }
            Deed::Attach(left) => {
                cards += 1;
                bench.attach(&mut life, left);
            }
            other => bench.play(&mut life, other, id as u16),
        }
        if !unseen {
            bench.look();
        }
    }
    bench.end(life, false);
    let told = log::lines() - told;
    assert!(told <= MOST_FAULTS + cards * MOST_LINES, "{told} lines of {cards} cards and deaths");
    Ok(())
}

impl Bench {
    fn start() -> Self {
        let (xen, desk) = (Hypervisor::new(), Desk::default());
        let context = context(&xen, &desk);
        let (control, store) = (context.control.clone(), context.xen.store.clone());
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let bridge = Bridge::new(context, Config::parse(POLICY, Path::new("fuzz")).unwrap()).unwrap();
        let bridge = runtime.spawn(bridge.run(std::future::pending()));
        let honest = xen.create_domain("honest", "6e1c5f3a-0000-4000-8000-000000000002").unwrap();
        let (of_neighbour, [neighbour, _silent]) = announce(&xen, &honest, Left::Offered);
        let mut bench =
            Self { xen, desk, control, runtime, bridge, store, neighbour, _silent, of_neighbour, watches: 0 };
        bench.look();
        bench.neighbour.must_be_served();
        bench.watches = bench.xen.watches(DOM0);
        bench
    }

    /// Lets the main loop see all that has happened, and do what is due.
    fn look(&self) {
        // A watch fires when it is set, after all that its connection is told of what was before.
        let (mark, marked) = channel();
        let _mark = self.store.watch("/tool", Box::new(move |_| _ = mark.send(()))).unwrap();
        marked.recv_timeout(PATIENCE).expect("XenStore tells the bridge nothing");
        self.runtime.block_on(async {
            // The loop itself, and what it woke.
            for _ in 0..2 {
                tokio::task::yield_now().await;
            }
        });
        assert!(!self.bridge.is_finished(), "the bridge has ended");
    }

    fn attach(&self, life: &mut Life, left: Left) {
        if let Some(HostileCard { place, .. }) = life.card.take() {
            self.xen.remove_card(&place).unwrap();
        }
        if !matches!(left, Left::New) {
            // A bridge that ended left a card that this one has never seen.
            self.look();
        }
        let (place, streams) = announce(&self.xen, &life.guest, left);
        if !matches!(left, Left::New) {
            self.look();
            assert_eq!(self.backend_state(&place), b"4", "an honest card must be connected");
        }
        life.card = Some(HostileCard { place, streams, whole: [true; STREAMS.len()] });
    }

    fn backend_state(&self, card: &Attached) -> Vec<u8> {
        self.xen.store().read(&format!("{}/{}", card.backend(), keys::STATE)).unwrap_or_default()
    }

    fn play(&mut self, life: &mut Life, deed: Deed, id: u16) {
        let Some(card) = &mut life.card else { return };
        let frontend = card.place.frontend();
        // What XenStore refuses is not done.
        let change = |body: &mut dyn FnMut(&dyn Nodes) -> Result<(), StoreError>| {
            let _ = life.guest.store().transaction(body);
        };
        match deed {
            Deed::Edit(edit) => {
                card.whole = [false; STREAMS.len()];
                let edits = edit.nodes(&frontend);
                change(&mut |nodes| {
                    edits.iter().take(MOST_NODES).try_for_each(|(node, value)| match value {
                        Some(value) => nodes.write(node, value),
                        None => nodes.remove(node),
                    })
                });
            }
            Deed::State(value) => {
                // The last two are none.
                let value = (value % 10).to_string();
                change(&mut |nodes| nodes.write(&format!("{frontend}/{}", keys::STATE), value.as_bytes()));
            }
            Deed::Vanish => {
                card.whole = [false; STREAMS.len()];
                change(&mut |nodes| nodes.remove(&frontend));
            }
            Deed::Ask { stream, ask } => {
                let packet = ask.packet(id, &life.memory);
                // Without periods the guest is told by answers how far its sound has come, and they wait for the server.
                let waits = |request: &Request| matches!(request.operation, Operation::Open(open) if open.period == Octets(0));
                let which = usize::from(stream);
                if Request::parse(&packet).as_ref().is_ok_and(waits) {
                    card.whole[which] = false;
                }
                let is_connected = self.backend_state(&card.place) == b"4";
                if !card.whole[which] {
                    card.streams[which].raw.push(&packet);
                    card.streams[which].raw.requests.notify();
                } else if is_connected {
                    let answer = card.streams[which].ask_packet(&packet, PATIENCE);
                    assert!(answer.is_some(), "a request that keeps the ring's rules must be answered");
                }
            }
            Deed::Card(step) => {
                if let Some(stream) = step.ring() {
                    card.whole[usize::from(stream)] = false;
                }
                let streams = card.streams.each_ref().map(|stream| &stream.raw);
                let neighbour = &mut self.neighbour;
                step.play(id, &mut Hands { streams, memory: &mut life.memory, desk: &self.desk, neighbour });
            }
            Deed::AskToClose => self.xen.ask_to_close(&card.place).unwrap(),
            // They begin and end what is played here; see `run`.
            Deed::Attach(_) | Deed::Die { .. } => (),
        }
    }

    /// The guest's end, after which nothing of it is left.
    fn end(&mut self, life: Life, crash: bool) {
        let Life { guest, card, .. } = &life;
        if crash {
            self.xen.crash(guest);
            self.look();
        }
        if let Some(HostileCard { place, .. }) = card {
            // As `xl destroy` does it.
            self.xen.store().remove(&place.frontend()).unwrap();
            self.xen.ask_to_close(place).unwrap();
            self.look();
            assert_eq!(self.backend_state(place), b"6", "the toolstack waits for Closed");
            self.xen.remove_card(place).unwrap();
            self.look();
        }
        self.xen.destroy(guest).unwrap();
        // Cards that were taken away with no word are answered until the bridge is woken after their guest's end.
        self.xen.store().write(&format!("{}/online", self.of_neighbour.backend()), b"1").unwrap();
        self.look();
        assert_let_go(&self.xen, guest, &self.desk);
        assert_eq!(self.xen.watches(DOM0), self.watches, "watches are left");
        assert_eq!(self.control.snapshot().domains.len(), 1, "the user is shown a guest that is gone");
        self.neighbour.must_be_served();
    }
}

impl Life {
    fn begin(xen: &Hypervisor) -> Self {
        let guest = xen.create_domain("hostile", "6e1c5f3a-0000-4000-8000-000000000001").unwrap();
        let mut memory = Memory::new(&guest);
        memory.reset();
        Self { guest, memory, card: None }
    }
}

/// A new card in this state, its rings published.
fn announce(xen: &Hypervisor, guest: &Guest, left: Left) -> (Attached, [HonestStream; STREAMS.len()]) {
    let place = xen.announce_card(guest, DOM0, &Card::simple()).unwrap();
    let streams = STREAMS.map(|index| {
        let stream = RawStream::of(guest);
        stream.publish(guest, &place, index);
        stream.honest()
    });
    let (backend, frontend) = left.states();
    xen.store().write(&format!("{}/{}", place.backend(), keys::STATE), backend).unwrap();
    guest.store().write(&format!("{}/{}", place.frontend(), keys::STATE), frontend).unwrap();
    (place, streams)
}
