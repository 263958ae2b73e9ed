//! A connected card with its thread, as the daemon makes it, and an honest guest beside it that has to be served meanwhile.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use vsnd_bridge::guest::{CardSetup, Connection, DeviceId, Start};
use vsnd_bridge::sim::{Attached, Card, Guest};
use vsnd_bridge::sndif::{CardConfig, Errno, Operation, PACKET, Span};
use vsnd_pw_module::Octets;

use super::request::Ask;
use crate::raw::{HonestStream, RawStream};
use crate::xen::{DOM0, Machine, account, domain, policy};

const STREAMS: [u8; 2] = [0, 1];

/// How long an honest guest waits for an answer before this is a stall, on a machine however busy.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Arbitrary)]
enum Step {
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
        let mut id = 0;
        for step in crate::steps(input) {
            let stream = |which| &streams[usize::from(which)];
            let mut ask = |which, ask: &Ask| {
                id += 1;
                stream(which).push(&ask.packet(id, memory));
            };
            match step {
                Step::Ask { stream: which, ask: what } => {
                    ask(which, &what);
                    stream(which).requests.notify();
                }
                Step::Flood { stream: which, ask: what, times } => {
                    (0..times % 33).for_each(|_| ask(which, &what));
                    stream(which).requests.notify();
                }
                Step::Counter { stream: which, which: counter, value } => {
                    stream(which).pages().store(usize::from(counter % 4) * 4, value).unwrap();
                }
                Step::Slot { stream: which, slot, packet } => {
                    stream(which).fill_slot(slot.into(), &packet);
                }
                Step::Events { stream: which, counter, value } => {
                    stream(which).events.pages().store(usize::from(counter % 2) * 4, value).unwrap();
                }
                Step::Notify { stream: which, positions, times } => {
                    let port = if positions { &stream(which).positions } else { &stream(which).requests };
                    (0..times).for_each(|_| port.notify());
                }
                Step::Cycle { frames } => machine.desk.cycle(frames % 600),
                Step::Scribble { place, value } => memory.scribble(place, value),
                Step::Redirect { entry, which } => memory.redirect(entry, which),
                Step::Loosen { entry } => memory.loosen(entry),
                Step::Revoke => memory.revoke(),
                Step::Neighbour => asks(&mut bench.neighbour.lock().unwrap()),
            }
        }
        asks(&mut bench.neighbour.lock().unwrap());
    });
    Ok(())
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

/// Two requests that are answered from memory.
fn asks(neighbour: &mut HonestStream) {
    let span = Span { offset: Octets(0), length: Octets(4) };
    for (operation, answer) in [(Operation::Close, Ok(())), (Operation::Read(span), Err(Errno::Io))] {
        assert_eq!(neighbour.ask(operation, PATIENCE), Some(answer), "an honest guest must be served");
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
