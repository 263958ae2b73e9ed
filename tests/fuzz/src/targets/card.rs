//! A connected card with its thread, as the daemon makes it, and an honest guest beside it that has to be served meanwhile.

use std::sync::{Mutex, OnceLock};

use arbitrary::{Arbitrary, Unstructured};
use vsnd_bridge::guest::{CardSetup, Connection, DeviceId, Start};
use vsnd_bridge::sim::{Attached, Card, Guest};
use vsnd_bridge::sndif::{CardConfig, PACKET};

use super::request::Ask;
use crate::memory::Memory;
use crate::raw::{HonestStream, RawStream};
use crate::xen::{DOM0, Desk, Machine, account, domain, policy};

/// Streams of the card.
pub const STREAMS: [u8; 2] = [0, 1];

/// What a guest does to its connected card.
#[derive(Debug, Arbitrary)]
pub enum Step {
    Ask {
        stream: bool,
        ask: Ask,
    },
    /// The same request, as often as the ring takes it.
    Flood {
        stream: bool,
        ask: Ask,
        times: u8,
    },
    Counter {
        stream: bool,
        which: u8,
        value: u32,
    },
    Slot {
        stream: bool,
        slot: u8,
        packet: [u8; PACKET],
    },
    Events {
        stream: bool,
        counter: u8,
        value: u32,
    },
    Notify {
        stream: bool,
        positions: bool,
        times: u8,
    },
    Cycle {
        frames: u16,
    },
    Scribble {
        place: u16,
        value: u32,
    },
    Redirect {
        entry: u8,
        which: u8,
    },
    Loosen {
        entry: u8,
    },
    Revoke,
    /// The honest guest asks something, and so gives the card's thread its time.
    Neighbour,
}

/// A machine with the honest guest on it.
struct Bench {
    machine: Machine,
    card: Attached,
    config: CardConfig,
    neighbour: Mutex<HonestStream>,
    _connection: Connection,
}

pub fn run(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    let bench = BENCH.get_or_init(Bench::start);
    let machine = &bench.machine;
    machine.run(|memory| {
        let streams = STREAMS.map(|index| {
            let stream = RawStream::of(&machine.guest);
            stream.publish(&machine.guest, &bench.card, index);
            stream
        });
        let _connection = connect(machine, &machine.guest, &bench.card, &bench.config);
        let mut hands = Hands {
            streams: streams.each_ref(),
            memory,
            desk: &machine.desk,
            neighbour: &mut bench.neighbour.lock().unwrap(),
        };
        for (id, step) in crate::steps::<Step>(input).enumerate() {
            step.play(id as u16, &mut hands);
        }
        hands.neighbour.must_be_served();
    });
    Ok(())
}

/// What a guest has at hand.
pub struct Hands<'a> {
    /// Its streams.
    pub streams: [&'a RawStream; STREAMS.len()],
    /// Its other pages.
    pub memory: &'a mut Memory,
    /// The server's cycles are part of what happens meanwhile.
    pub desk: &'a Desk,
    /// So is what the honest guest asks.
    pub neighbour: &'a mut HonestStream,
}

impl Step {
    /// The stream whose request ring it writes to.
    pub fn ring(&self) -> Option<bool> {
        match *self {
            Self::Ask { stream, .. }
            | Self::Flood { stream, .. }
            | Self::Counter { stream, .. }
            | Self::Slot { stream, .. } => Some(stream),
            _ => None,
        }
    }

    /// Does it; requests have the number `id`.
    pub fn play(&self, id: u16, hands: &mut Hands<'_>) {
        let stream = |which| hands.streams[usize::from(which)];
        let ask = |which, ask: &Ask| stream(which).push(&ask.packet(id, hands.memory));
        match *self {
            Self::Ask { stream: which, ask: ref what } => {
                ask(which, what);
                stream(which).requests.notify();
            }
            Self::Flood { stream: which, ask: ref what, times } => {
                (0..times % 33).for_each(|_| ask(which, what));
                stream(which).requests.notify();
            }
            Self::Counter { stream: which, which: counter, value } => {
                stream(which).pages().store(usize::from(counter % 4) * 4, value).unwrap();
            }
            Self::Slot { stream: which, slot, ref packet } => stream(which).fill_slot(slot.into(), packet),
            Self::Events { stream: which, counter, value } => {
                stream(which).events.pages().store(usize::from(counter % 2) * 4, value).unwrap();
            }
            Self::Notify { stream: which, positions, times } => {
                let port = if positions { &stream(which).positions } else { &stream(which).requests };
                (0..times).for_each(|_| port.notify());
            }
            Self::Cycle { frames } => hands.desk.cycle(frames % 600),
            Self::Scribble { place, value } => hands.memory.scribble(place, value),
            Self::Redirect { entry, which } => hands.memory.redirect(entry, which),
            Self::Loosen { entry } => hands.memory.loosen(entry),
            Self::Revoke => hands.memory.revoke(),
            Self::Neighbour => hands.neighbour.must_be_served(),
        }
    }
}

impl Bench {
    fn start() -> Self {
        let machine = Machine::start();
        let card = Card::simple();
        let attach = |guest: &Guest| machine.xen.announce_card(guest, DOM0, &card).unwrap();
        let honest = machine.xen.create_domain("honest", "6e1c5f3a-0000-4000-8000-000000000002").unwrap();
        let (attached, of_honest) = (attach(&machine.guest), attach(&honest));
        let (config, _) = CardConfig::read(&*machine.context.xen.store, &attached.frontend()).unwrap();
        let stream = |index| {
            let stream = RawStream::of(&honest);
            stream.publish(&honest, &of_honest, index);
            stream.honest()
        };
        let [neighbour, _silent] = STREAMS.map(stream);
        let _connection = connect(&machine, &honest, &of_honest, &config);
        Self { machine, card: attached, config, neighbour: Mutex::new(neighbour), _connection }
    }
}

fn connect(machine: &Machine, guest: &Guest, card: &Attached, config: &CardConfig) -> Connection {
    let id = DeviceId { frontend: guest.id(), device: card.device };
    let card = CardSetup {
        id,
        domain: &domain(guest),
        policy: policy(),
        account: &account(guest),
        config,
        frontend: &card.frontend(),
    };
    Connection::open(&machine.context, &card, Start::Anew, || ()).unwrap()
}
