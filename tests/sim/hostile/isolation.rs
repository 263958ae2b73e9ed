//! One guest's doings against another's.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vsnd_bridge::sndif::{Operation, Trigger};
use vsnd_pw_module::{Bounds, Node, NodeSpec, NullServer, PcmRing, SampleFormat, SoundServer};

use super::{CONNECTED, Hostile};
use crate::machine::Machine;

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
    machine.wait_holdings(hostile.domain.id(), |holdings| holdings.pages == 0);
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
    let began = Instant::now();
    machine.xen.destroy(&hostile.domain).unwrap();
    machine.wait_let_go(hostile.domain.id());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(honest.ask(Operation::Close), Ok(()));
}
