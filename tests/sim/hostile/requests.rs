//! Requests, and the pages that they name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vsnd_bridge::sndif::{Errno, FormatCode, Open, Operation, Request, Response, Span, Trigger};
use vsnd_bridge::xen::{GrantError, GrantRef};
use vsnd_fuzz::raw::{REQ_PROD, RSP_PROD};
use vsnd_pw_module::{NullServer, Octets};

use super::{CONNECTED, Hostile, PAGE, PATIENCE};
use crate::machine::{Machine, Tape, wait_until};

const OK: Result<(), Errno> = Ok(());
const IO: Result<(), Errno> = Err(Errno::Io);
const INVALID: Result<(), Errno> = Err(Errno::Invalid);
const UNSUPPORTED: Result<(), Errno> = Err(Errno::NotSupported);

/// Ends a thread that looks at it, also when a test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn span(offset: u64, length: u64) -> Span {
    Span { offset: Octets(offset), length: Octets(length) }
}

#[test]
fn rule_1_a_request_that_changes_while_it_is_read_is_taken_as_it_was_copied() {
    let machine = Machine::start(Arc::new(NullServer));
    let guest = Hostile::connected(&machine, "hostile");
    let packet = |id, buffer| {
        let operation = guest.memory.open(Octets(buffer), Octets(0));
        Request { id, operation }.encode()
    };
    // Two pages may be had, a thousand may not: whichever was copied is what is answered and mapped.
    let [small, huge] = [packet(1, 2 * PAGE), packet(2, 1000 * PAGE)];
    guest.memory.repeat();
    let flipper = guest.playback.raw.ring.view().unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                for slot in (64..64 + 32 * 64).step_by(64) {
                    flipper.write(slot, &huge).unwrap();
                    flipper.write(slot, &small).unwrap();
                }
            }
        });
        let _end = End(&ended);
        for _ in 0..500 {
            guest.playback.raw.push(&small);
            guest.playback.raw.requests.notify();
            guest.playback.raw.requests.wait(PATIENCE);
            // The directory's page may be mapped just now.
            let more = machine.xen.holdings(guest.domain.id()).pages - CONNECTED.pages;
            assert!(matches!(more, 0..=3), "{more} pages of a buffer of two");
        }
    });
}

#[test]
fn rule_2_a_guest_that_claims_more_than_a_ring_loses_that_stream_and_no_other() {
    let machine = Machine::start(Arc::new(NullServer));
    let mut guest = Hostile::connected(&machine, "hostile");
    assert_eq!(guest.open(8), OK);
    assert_eq!(machine.xen.holdings(guest.domain.id()).pages, CONNECTED.pages + 8);
    let ring = guest.playback.raw.pages();
    ring.store(REQ_PROD, ring.load(REQ_PROD).unwrap().wrapping_add(33)).unwrap();
    guest.playback.raw.requests.notify();
    assert_eq!(guest.capture.ask(Operation::Close, PATIENCE), Some(OK), "the other stream is served");
    machine.wait_holdings(guest.domain.id(), |holdings| holdings == CONNECTED);
    let close = Operation::Close;
    assert_eq!(guest.playback.ask(close, Duration::from_millis(100)), None, "the ring is left for good");
}

#[test]
fn rule_4_an_open_that_can_not_be_maps_nothing() {
    let machine = Machine::start(Arc::new(NullServer));
    let mut guest = Hostile::connected(&machine, "hostile");
    // The configuration allows 64 pages, however many the directory names.
    guest.memory.repeat();
    for (buffer, period) in [
        (0, 0),
        (65 * PAGE, 0),
        (u64::from(u32::MAX), 0),
        (PAGE + 2, 0),
        (PAGE, 2 * PAGE),
        (PAGE, 60),
        (PAGE, 66),
    ] {
        let open = guest.memory.open(Octets(buffer), Octets(period));
        assert_eq!(guest.ask(open), INVALID, "{buffer} {period}");
    }
    let Operation::Open(open) = guest.memory.open(Octets(PAGE), Octets(0)) else { unreachable!() };
    for wrong in [
        Open { rate: 48_001, ..open },
        Open { channels: 0, ..open },
        Open { channels: 255, ..open },
        Open { format: FormatCode(10), ..open },
        Open { format: FormatCode(255), ..open },
        Open { directory: GrantRef(0), ..open },
        Open { directory: GrantRef(u32::MAX), ..open },
    ] {
        assert_eq!(guest.ask(Operation::Open(wrong)), INVALID, "{wrong:?}");
    }
    assert_eq!(machine.xen.holdings(guest.domain.id()), CONNECTED);
}

#[test]
fn rule_5_a_directory_is_let_go_at_once_and_leads_to_the_guests_own_pages_only() {
    let machine = Machine::start(Arc::new(NullServer));
    let mut guest = Hostile::connected(&machine, "hostile");
    assert_eq!(guest.open(8), OK);
    assert_eq!(machine.xen.holdings(guest.domain.id()).pages, CONNECTED.pages + 8, "and not the directory");
    // A page that was given up, a page of nobody, and the reference that is none.
    guest.memory.loosen(4);
    guest.memory.revoke();
    assert_eq!(guest.open(8), INVALID);
    guest.memory.reset();
    guest.memory.redirect(2, 255);
    assert_eq!(guest.open(8), INVALID);
    guest.memory.redirect(2, 192);
    assert_eq!(guest.open(8), INVALID);
    assert_eq!(machine.xen.holdings(guest.domain.id()), CONNECTED);
    guest.memory.reset();
    assert_eq!(guest.open(8), OK, "an honest one may follow");
}

#[test]
fn rule_6_a_span_outside_the_buffer_or_inside_a_frame_is_refused() {
    let machine = Machine::start(Arc::new(NullServer));
    let mut guest = Hostile::connected(&machine, "hostile");
    assert_eq!(guest.open(2), OK);
    let most = u64::from(u32::MAX);
    for (offset, length) in
        [(0, 0), (0, 2 * PAGE + 4), (2 * PAGE, 4), (4, 2 * PAGE), (most, most), (2, 4), (4, 2), (most - 3, 4)]
    {
        assert_eq!(guest.ask(Operation::Write(span(offset, length))), INVALID, "{offset} {length}");
    }
    for (offset, length) in [(0, 4), (2 * PAGE - 4, 4), (0, 2 * PAGE)] {
        assert_eq!(guest.ask(Operation::Write(span(offset, length))), OK, "{offset} {length}");
    }
    assert_eq!(guest.ask(Operation::Read(span(0, 4))), INVALID, "the stream goes the other way");
}

#[test]
fn rule_7_every_operation_in_every_state_gets_one_answer() {
    let machine = Machine::start(Arc::new(NullServer));
    let mut guest = Hostile::connected(&machine, "hostile");
    let write = Operation::Write(span(0, 4));
    let triggers = [Trigger::Start, Trigger::Pause, Trigger::Resume, Trigger::Stop].map(Operation::Trigger);
    let volumes = [Operation::SetVolume, Operation::GetVolume, Operation::Mute, Operation::Unmute];
    // Closed, open, running (RESUME follows PAUSE), stopped, closed again.
    assert_eq!(triggers.map(|trigger| guest.ask(trigger)), [IO; 4]);
    assert_eq!((guest.ask(write), guest.ask(Operation::Close)), (IO, OK));
    assert_eq!((guest.open(2), guest.open(4)), (OK, OK), "an OPEN while open is a CLOSE, too");
    assert_eq!(machine.xen.holdings(guest.domain.id()).pages, CONNECTED.pages + 4);
    assert_eq!(guest.ask(triggers[2]), INVALID, "RESUME without PAUSE");
    assert_eq!(triggers.map(|trigger| guest.ask(trigger)), [OK; 4]);
    assert_eq!((guest.ask(write), guest.ask(triggers[3]), guest.ask(triggers[0])), (OK, OK, OK));
    assert_eq!(volumes.map(|volume| guest.ask(volume(span(0, 8)))), [OK; 4]);
    assert_eq!(volumes.map(|volume| guest.ask(volume(span(4 * PAGE - 4, 8)))), [INVALID; 4]);
    assert_eq!(volumes.map(|volume| guest.ask(volume(span(0, 9)))), [INVALID; 4]);
    assert_eq!((guest.ask(Operation::Close), guest.ask(Operation::Close), guest.ask(write)), (OK, OK, IO));
    // What means nothing is answered, too, with what it said.
    let mut unknown = [0xee; 64];
    unknown[..2].copy_from_slice(&7u16.to_le_bytes());
    let refused = Response { id: 7, operation: 0xee, status: UNSUPPORTED, hw_params: None };
    assert_eq!(guest.playback.ask_packet(&unknown, PATIENCE), Some(refused));
    let ring = guest.playback.raw.ring.view().unwrap();
    // A notification may still be that of the card's first look.
    let answered = ring.load(RSP_PROD).unwrap();
    guest.playback.raw.requests.wait(Duration::from_millis(20));
    assert_eq!(ring.load(RSP_PROD).unwrap(), answered, "and nothing more came");
}

#[test]
fn rule_8_memory_is_unmapped_before_close_is_answered() {
    // A node may outlive its stream by its tail: it must not keep the memory.
    let machine = Machine::start(Arc::new(Tape::new(256)));
    let mut guest = Hostile::connected(&machine, "hostile");
    for _ in 0..20 {
        assert_eq!((guest.open(8), guest.ask(Operation::Trigger(Trigger::Start))), (OK, OK));
        assert_eq!(guest.ask(Operation::Close), OK);
        assert_eq!(machine.xen.holdings(guest.domain.id()), CONNECTED);
    }
    assert_eq!((guest.open(8), guest.ask(Operation::Trigger(Trigger::Start))), (OK, OK));
    guest.set_state("6");
    machine.wait_let_go(guest.domain.id());
    assert_eq!(machine.xen.deferred_grants(guest.domain.id()), 0);
}

#[test]
fn rule_8_what_can_not_be_mapped_leaves_nothing_mapped() {
    let machine = Machine::start(Arc::new(NullServer));
    let mut guest = Hostile::connected(&machine, "hostile");
    machine.xen.faults().fail_maps(GrantError::Device("no memory".into()), 1);
    assert_eq!(guest.open(8), INVALID, "the directory");
    guest.memory.loosen(8);
    guest.memory.revoke();
    assert_eq!(guest.open(8), INVALID, "the last of eight pages");
    assert_eq!(machine.xen.holdings(guest.domain.id()), CONNECTED);
}

#[test]
fn rule_13_a_microphone_that_is_not_allowed_is_silence_and_no_node() {
    for policy in ["", "[default]\ncapture = \"deny\"\n"] {
        let tape = Tape::new(256);
        let machine = Machine::with_config(Arc::new(tape.clone()), policy);
        let mut guest = Hostile::connected(&machine, "hostile");
        // No events: READ is answered when its frames are there.
        let open = guest.memory.open(Octets(PAGE), Octets(0));
        guest.memory.fill(0xa5);
        let read = Operation::Read(span(0, PAGE));
        for operation in [open, Operation::Trigger(Trigger::Start), read] {
            assert_eq!(guest.capture.ask(operation, PATIENCE), Some(Ok(())));
        }
        assert_eq!(guest.memory.first_page(), vec![0; 4096], "silence, and not what was there");
        assert_eq!(tape.recordings().len(), 0, "no desktop shows a microphone in use");
        let allowed = Machine::start(Arc::new(tape.clone()));
        let mut guest = Hostile::connected(&allowed, "hostile");
        let open = guest.memory.open(Octets(PAGE), Octets(0));
        assert_eq!(guest.capture.ask(open, PATIENCE), Some(Ok(())));
        assert_eq!(tape.recordings().len(), 1, "and it shows one that is allowed");
    }
}

#[test]
fn rule_13_a_guest_whose_card_is_removed_records_no_more() {
    let tape = Tape::new(256);
    let machine = Machine::start(Arc::new(tape.clone()));
    let mut guest = Hostile::connected(&machine, "hostile");
    let open = guest.memory.open(Octets(PAGE), Octets(0));
    let (start, read) = (Operation::Trigger(Trigger::Start), Operation::Read(span(0, PAGE)));
    for operation in [open, start, read] {
        assert_eq!(guest.capture.ask(operation, PATIENCE), Some(Ok(())));
    }
    guest.set_state("4");
    assert!(machine.xen.detach(&guest.card).unwrap());
    wait_until("it is still shown", || machine.control.snapshot().domains.is_empty());
    let node = &tape.recordings()[0];
    assert!(node.ended.load(Ordering::Acquire), "it records, and the user could not forbid it");
    // Its last requests are answered.
    guest.memory.fill(0xa5);
    for _ in 0..2 {
        assert_eq!(guest.capture.ask(read, PATIENCE), Some(Ok(())));
    }
    assert_eq!(guest.memory.first_page(), vec![0; 4096], "with silence");
    for operation in [Operation::Close, open, start, read] {
        assert_eq!(guest.capture.ask(operation, PATIENCE), Some(Ok(())));
    }
    assert_eq!(tape.recordings().len(), 1, "nor does it record again");
}
