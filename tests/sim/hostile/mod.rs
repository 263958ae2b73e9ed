//! Guests that keep to no rule, against the whole daemon. The rules are numbered in docs/security.md.

mod bounds;
mod events;
mod isolation;
mod requests;
mod xenstore;

use std::time::Duration;

use vsnd_bridge::sim::{Attached, Card, Guest, Holdings};
use vsnd_bridge::sndif::{Operation, Status};
use vsnd_bridge::xen::Nodes;
use vsnd_fuzz::memory::Memory;
use vsnd_fuzz::raw::{HonestStream, RawStream};
use vsnd_pw_module::Octets;

use super::machine::{DOM0, Machine, SOON};

/// An answer comes from memory; a busy machine may take this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a connected card of two streams holds: a ring and an event page each, and their ports.
const CONNECTED: Holdings = Holdings { pages: 4, ports: 4 };

const PAGE: u64 = 4096;

/// A guest that is connected and has no driver.
struct Hostile {
    domain: Guest,
    card: Attached,
    playback: HonestStream,
    capture: HonestStream,
    memory: Memory,
}

impl Hostile {
    fn connected(machine: &Machine, name: &str) -> Self {
        Self::with_card(machine, name, &Card::simple())
    }

    /// With this card, of which the first PCM's two streams are used.
    fn with_card(machine: &Machine, name: &str, card: &Card) -> Self {
        let domain = machine.xen.create_domain(name, &format!("uuid-of-{name}")).unwrap();
        let card = machine.xen.attach(&domain, DOM0, card).unwrap();
        let [playback, capture] = [0, 1].map(|index| {
            let stream = RawStream::of(&domain);
            stream.publish(&domain, &card, index);
            stream.honest()
        });
        let mut memory = Memory::new(&domain);
        memory.reset();
        let hostile = Self { domain, card, playback, capture, memory };
        hostile.set_state("3");
        assert!(machine.xen.wait_backend(&hostile.card, "4", SOON), "not connected: {}", machine.xen.dump());
        assert_eq!(machine.xen.holdings(hostile.domain.id()), CONNECTED);
        hostile
    }

    /// Writes a node of its own card.
    fn write(&self, node: &str, value: &[u8]) {
        self.domain.store().write(&format!("{}/{node}", self.card.frontend()), value).unwrap();
    }

    fn set_state(&self, state: &str) {
        self.write("state", state.as_bytes());
    }

    /// Asks on the playback stream.
    fn ask(&mut self, operation: Operation) -> Status {
        self.playback.ask(operation, PATIENCE).expect("no answer")
    }

    /// Opens the playback stream with this many pages.
    fn open(&mut self, pages: u64) -> Status {
        let open = self.memory.open(Octets(pages * PAGE), Octets(1024));
        self.ask(open)
    }
}
