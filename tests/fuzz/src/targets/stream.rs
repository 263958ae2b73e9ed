//! One stream: any requests in any order, on memory that changes and goes away, while a server plays and records.

use std::sync::OnceLock;

use arbitrary::{Arbitrary, Unstructured};
use vsnd_bridge::guest::names::Place;
use vsnd_bridge::sndif::{EventPage, FormatSet, Interval, Limits, PAGE, Rates, Request, Response};
use vsnd_bridge::stream::{EventWriter, PcmStream, Record, Signals, StreamSetup};
use vsnd_pw_module::{Direction, Nanos, Octets};

use super::request::Ask;
use crate::log;
use crate::memory::BUFFER_PAGES;
use crate::xen::{Machine, account, domain, policy, shared_page};

/// What the log gets of one guest in a minute.
const MOST_LINES: u64 = 10;

#[derive(Debug, Arbitrary)]
enum Step {
    Ask(Ask),
    /// The server's cycle.
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
    Events {
        counter: u8,
        value: u32,
    },
    RoomForEvents,
}

pub fn run(input: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    let machine = MACHINE.get_or_init(Machine::start);
    let told = log::lines();
    let (page, back) = shared_page();
    let setup = setup(machine, input.arbitrary()?);
    machine.run(|memory| {
        let mut stream = PcmStream::new(
            &machine.context,
            setup,
            EventWriter::new(EventPage::attach(back).unwrap()),
            Signals { positions: Box::new(|| ()), answer: Box::new(|| ()) },
            Record::default(),
        );
        let mut id = 0;
        for step in crate::steps(input) {
            match step {
                Step::Ask(ask) => {
                    id += 1;
                    let packet = ask.packet(id, memory);
                    // What means nothing never reaches the stream: see the target "ring".
                    let Ok(request) = Request::parse(&packet) else { continue };
                    let response = stream.answer(&request);
                    assert_eq!((response.id, response.operation), (request.id, request.operation.code()));
                    assert_eq!(Response::parse(&response.encode()), Ok(response));
                    assert!(machine.mapped() <= BUFFER_PAGES, "{} pages mapped", machine.mapped());
                }
                Step::Cycle { frames } => machine.desk.cycle(frames % 600),
                Step::Scribble { place, value } => memory.scribble(place, value),
                Step::Redirect { entry, which } => memory.redirect(entry, which),
                Step::Loosen { entry } => memory.loosen(entry),
                Step::Revoke => memory.revoke(),
                Step::Events { counter, value } => page.store(usize::from(counter % 2) * 4, value).unwrap(),
                Step::RoomForEvents => stream.room_for_events(),
            }
        }
    });
    let told = log::lines() - told;
    assert!(told <= MOST_LINES, "{told} lines of one stream");
    Ok(())
}

fn setup(machine: &Machine, captures: bool) -> StreamSetup {
    StreamSetup {
        domain: domain(&machine.guest),
        place: Place { card: 0, pcm: 0, stream: 0 },
        pcm_name: Some("\u{1b}[31mwork: Main".into()),
        direction: if captures { Direction::Capture } else { Direction::Playback },
        limits: Limits {
            channels: Interval::new(1, 16),
            rates: Rates::Any(Interval::new(8_000, 192_000)),
            formats: FormatSet::plain_samples(),
            buffer: Octets((BUFFER_PAGES * PAGE) as u64),
            shortest_buffer: Nanos(0),
        },
        policy: policy(),
        account: account(&machine.guest),
    }
}
