//! One guest's doings against another's.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vsnd_bridge::sim::Card;
use vsnd_bridge::sndif::{Operation, Trigger};
use vsnd_bridge::xen::{Nodes, Permission, Store, StoreError, Watch, WatchSink, Xen};
use vsnd_pw_module::{Bounds, Node, NodeSpec, NullServer, PcmRing, SampleFormat, SoundServer};

use super::{CONNECTED, Hostile};
use crate::machine::{DOM0, Machine, SOON, wait_until};

/// A server that breaks down in the guest's own thread, where nothing else should.
struct Broken(Mutex<Vec<Arc<PcmRing>>>);

struct Bomb;

impl SoundServer for Broken {
    fn open(&self, spec: NodeSpec, ring: Arc<PcmRing>) -> Option<Box<dyn Node>> {
        // A server keeps a ring for as long as its tail is heard.
        self.0.lock().unwrap().push(ring);
        (spec.client.name == "hostile").then(|| Box::new(Bomb) as Box<dyn Node>)
    }

    fn carries(&self, _: SampleFormat) -> bool {
        true
    }

    fn bounds(&self) -> Bounds {
        Bounds::NONE
    }
}

impl Node for Bomb {
    fn start(&self) {
        panic!("a fault of the bridge, as a hostile guest would find it");
    }

    fn stop(&self) {}

    fn set_target(&self, _: Option<String>) {}
}

#[test]
fn rule_14_a_fault_in_one_guests_thread_ends_that_card_and_no_other() {
    let machine = Machine::start(Arc::new(Broken(Mutex::default())));
    let mut hostile = Hostile::connected(&machine, "hostile");
    let mut honest = Hostile::connected(&machine, "honest");
    assert_eq!((honest.open(8), honest.ask(Operation::Trigger(Trigger::Start))), (Ok(()), Ok(())));
    assert_eq!(hostile.open(8), Ok(()));
    let start = Operation::Trigger(Trigger::Start);
    assert_eq!(hostile.playback.ask(start, Duration::from_millis(300)), None, "its thread is gone");
    machine.wait_let_go(hostile.domain.id());
    assert!(machine.xen.wait_backend(&hostile.card, "6", SOON), "its guest is told");
    assert_eq!(honest.ask(Operation::Trigger(Trigger::Stop)), Ok(()));
    assert_eq!(machine.xen.holdings(honest.domain.id()).pages, CONNECTED.pages + 8);
    let _third = Hostile::connected(&machine, "third");
    machine.xen.destroy(&hostile.domain).unwrap();
    machine.wait_let_go(hostile.domain.id());
}

#[test]
fn rule_9_a_guest_that_dies_while_it_plays_leaves_its_neighbour_playing() {
    let machine = Machine::start(Arc::new(NullServer));
    let mut hostile = Hostile::connected(&machine, "hostile");
    let mut honest = Hostile::connected(&machine, "honest");
    for guest in [&mut hostile, &mut honest] {
        assert_eq!((guest.open(8), guest.ask(Operation::Trigger(Trigger::Start))), (Ok(()), Ok(())));
    }
    let (began, watches) = (Instant::now(), machine.xen.watches(DOM0));
    machine.xen.destroy(&hostile.domain).unwrap();
    machine.wait_let_go(hostile.domain.id());
    // Its streams go before its card is found to be gone, which must not take the neighbour's along either.
    wait_until("its card is forgotten", || machine.xen.watches(DOM0) < watches);
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(honest.ask(Operation::Close), Ok(()));
}

/// A store that breaks down where the main loop reads what one guest wrote.
struct Trapped {
    store: Arc<dyn Store>,
    /// The path at which it does.
    trap: Arc<Mutex<Option<String>>>,
}

impl Trapped {
    fn spring(&self, path: &str) {
        let sprung = self.trap.lock().unwrap().as_deref() == Some(path);
        assert!(!sprung, "a fault of the bridge, as a hostile guest would find it");
    }
}

impl Nodes for Trapped {
    fn read(&self, path: &str) -> Result<Vec<u8>, StoreError> {
        self.spring(path);
        self.store.read(path)
    }

    fn write(&self, path: &str, value: &[u8]) -> Result<(), StoreError> {
        self.store.write(path, value)
    }

    fn directory(&self, path: &str) -> Result<Vec<String>, StoreError> {
        self.store.directory(path)
    }

    fn remove(&self, path: &str) -> Result<(), StoreError> {
        self.store.remove(path)
    }

    fn permissions(&self, path: &str) -> Result<Vec<Permission>, StoreError> {
        self.store.permissions(path)
    }

    fn set_permissions(&self, path: &str, permissions: &[Permission]) -> Result<(), StoreError> {
        self.store.set_permissions(path, permissions)
    }
}

impl Store for Trapped {
    fn watch(&self, path: &str, sink: WatchSink) -> Result<Box<dyn Watch>, StoreError> {
        self.store.watch(path, sink)
    }

    fn transaction(
        &self,
        body: &mut dyn FnMut(&dyn Nodes) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.store.transaction(body)
    }
}

#[test]
fn rule_14_a_fault_at_one_card_of_the_main_loop_closes_it_until_it_is_attached_anew() {
    let trap = Arc::<Mutex<Option<String>>>::default();
    let trapped = Arc::clone(&trap);
    let machine = Machine::with_view(Arc::new(NullServer), "", move |xen| {
        let store = Trapped { store: Arc::clone(&xen.store), trap: trapped };
        Xen { store: Arc::new(store), ..xen }
    });
    let hostile = Hostile::connected(&machine, "hostile");
    let mut honest = Hostile::connected(&machine, "honest");
    *trap.lock().unwrap() = Some(format!("{}/state", hostile.card.frontend()));
    hostile.set_state("5");
    machine.wait_let_go(hostile.domain.id());
    assert!(machine.xen.wait_backend(&hostile.card, "6", SOON));
    *trap.lock().unwrap() = None;
    for state in ["6", "1", "3"] {
        hostile.set_state(state);
    }
    assert_eq!(honest.open(8), Ok(()));
    let _third = Hostile::connected(&machine, "third");
    let state = machine.xen.store().read(&format!("{}/state", hostile.card.backend()));
    assert_eq!(state.as_deref(), Ok(&b"6"[..]), "it stays closed");
    assert!(machine.xen.detach(&hostile.card).unwrap());
    let again = machine.xen.attach(&hostile.domain, DOM0, &Card::simple());
    assert!(again.is_ok(), "attached anew it is served: {again:?}");
}
