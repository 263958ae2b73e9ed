//! What a guest may cost: who wants more is slowed or refused, and its neighbours play on. docs/limits.md has the bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vsnd_bridge::sim::frontend::Kernel;
use vsnd_bridge::sim::{Card, Settings};
use vsnd_bridge::sndif::{Errno, Operation, Request, Trigger};
use vsnd_bridge::xen::Nodes;
use vsnd_fuzz::raw::{REQ_PROD, RSP_PROD, RawStream};
use vsnd_pw_module::{Direction, NullServer, Octets};

use super::events::Observed;
use super::{Hostile, PAGE, PATIENCE};
use crate::machine::{DOM0, Machine, SOON, Tape, in_real_time, wait_until};
use crate::play::{assert_unnoticed, check_clean, counting, open, write_all};

fn limited(limits: &str) -> Machine {
    let config = format!("[[domain]]\nmatch = \"hostile\"\nlimits = {{ {limits} }}\n");
    Machine::with_config(Arc::new(NullServer), &config)
}

/// How long it takes to ask so often.
fn time_of(times: u32, mut ask: impl FnMut()) -> Duration {
    let began = Instant::now();
    (0..times).for_each(|_| ask());
    began.elapsed()
}

#[test]
fn requests_beyond_the_bound_are_answered_at_its_pace_and_a_neighbours_at_once() {
    let machine = limited("requests-per-second = 50");
    let mut guest = Hostile::connected(&machine, "hostile");
    let mut honest = Hostile::connected(&machine, "honest");
    let took = time_of(200, || assert_eq!(guest.ask(Operation::Close), Ok(())));
    // It is charged for a turn after the turn, which may have been of a ring's length.
    assert!(took >= Duration::from_millis(1_500), "50 at once and 150 at 50 a second in {took:?}");
    let took = time_of(400, || assert_eq!(honest.ask(Operation::Close), Ok(())));
    assert!(took < Duration::from_millis(3_500), "a neighbour's, 7 s at that pace, in {took:?}");
}

#[test]
fn notifications_beyond_the_bound_wake_the_bridge_at_its_pace() {
    let observed = Observed::default();
    let config = "[default.limits]\nrequests-per-second = 500\n";
    let machine = observed.machine(config);
    let guest = Hostile::connected(&machine, "hostile");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        guest.playback.raw.requests.notify();
        guest.capture.raw.positions.notify();
    }
    let [turns, most] = [observed.unmasked(), 500 + (began.elapsed().as_millis() / 2) as usize + 64];
    assert!((200..=most).contains(&turns), "{turns} looks at a storm of notifications, {most} allowed");
}

#[test]
fn a_card_is_let_go_at_once_while_its_guest_is_slowed() {
    let machine = limited("requests-per-second = 1");
    let guest = Hostile::connected(&machine, "hostile");
    let close = Request { id: 0, operation: Operation::Close }.encode();
    (0..30).for_each(|_| guest.playback.raw.push(&close));
    guest.playback.raw.requests.notify();
    wait_until("answered", || guest.playback.raw.pages().load(RSP_PROD).unwrap() == 30);
    let began = Instant::now();
    assert!(machine.xen.detach(&guest.card).unwrap());
    machine.xen.destroy(&guest.domain).unwrap();
    machine.wait_let_go(guest.domain.id());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn openings_beyond_the_bound_come_at_its_pace() {
    let machine = limited("opens-per-minute = 60");
    let mut guest = Hostile::connected(&machine, "hostile");
    let took = time_of(63, || assert_eq!(guest.open(1), Ok(())));
    assert!(took >= Duration::from_millis(1_900), "60 at once and three at one a second in {took:?}");
}

#[test]
fn memory_beyond_the_bound_is_not_mapped() {
    let machine = limited("memory = 1");
    let settings = Settings { buffer_size: Some(8 << 20), ..Card::simple().settings };
    let mut guest = Hostile::with_card(&machine, "hostile", &Card { settings, ..Card::simple() });
    guest.memory.repeat();
    // A ring and an event page for each of two streams, and the page of the directory.
    assert_eq!(guest.open(256 - 3), Err(Errno::Invalid));
    assert_eq!(guest.open(256 - 4), Ok(()));
    let more = guest.memory.open(Octets(PAGE), Octets(0));
    assert_eq!(guest.capture.ask(more, PATIENCE), Some(Err(Errno::Invalid)), "of all its streams");
    assert_eq!(guest.ask(Operation::Close), Ok(()));
    assert_eq!(guest.capture.ask(more, PATIENCE), Some(Ok(())), "what was given back may be had again");
}

#[test]
fn streams_and_cards_beyond_the_bound_are_closed_and_those_before_play_on() {
    for limits in ["streams = 3", "cards = 1"] {
        let machine = limited(limits);
        let mut guest = Hostile::connected(&machine, "hostile");
        // The toolstack sees an offer all the same: the domain must start.
        let second = machine.xen.attach(&guest.domain, DOM0, &Card::simple()).unwrap();
        let _streams = [0, 1].map(|index| {
            let stream = RawStream::of(&guest.domain);
            stream.publish(&guest.domain, &second, index);
            stream
        });
        let state = format!("{}/state", second.frontend());
        guest.domain.store().write(&state, b"3").unwrap();
        assert!(machine.xen.wait_backend(&second, "6", SOON), "{limits}: {}", machine.xen.dump());
        assert_eq!(guest.open(1), Ok(()), "{limits}");
    }
}

#[test]
fn a_guest_that_changes_its_states_too_often_is_not_listened_to_for_a_while() {
    let machine = limited("state-changes-per-minute = 60");
    let guest = Hostile::connected(&machine, "hostile");
    let listened = machine.xen.watches(DOM0);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Acquire) {
                guest.set_state("3");
            }
        });
        wait_until("it is not listened to", || machine.xen.watches(DOM0) < listened);
        let _others = Hostile::connected(&machine, "honest");
        ended.store(true, Ordering::Release);
    });
    guest.set_state("6");
    machine.wait_let_go(guest.domain.id());
}

/// Everything at once, for as long as the neighbour plays.
fn storm(guest: &Hostile, ended: &AtomicBool) {
    for round in 0.. {
        if ended.load(Ordering::Acquire) {
            return;
        }
        let ring = guest.playback.raw.pages();
        for _ in 0..200 {
            guest.playback.raw.requests.notify();
            guest.capture.raw.positions.notify();
        }
        // A ring that is always full of requests, most of them nonsense.
        let answered = ring.load(RSP_PROD).unwrap();
        ring.store(REQ_PROD, answered.wrapping_add(32)).unwrap();
        let open = guest.memory.open(Octets(8 * PAGE), Octets(64));
        for operation in [open, Operation::Trigger(Trigger::Start), Operation::Close] {
            guest.capture.raw.push(&Request { id: 0, operation }.encode());
            guest.capture.raw.requests.notify();
        }
        guest.set_state(["3", "4", "5", "6", "1", "x"][round % 6]);
        guest.write(&format!("state/{}", round % 100), b"");
    }
}

#[test]
fn a_storm_of_everything_costs_a_neighbour_not_one_frame() {
    in_real_time(|| {
        let tape = Tape::new(256);
        let machine = Machine::start(Arc::new(tape.clone()));
        let hostile = Hostile::connected(&machine, "hostile");
        let honest = machine.guest("work", Kernel::Since2026);
        let pcm = open(&honest, Direction::Playback, 1_024, 16_384);
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stormy = scope.spawn(|| storm(&hostile, &ended));
            write_all(&pcm, &counting(0..96_000));
            pcm.drain().unwrap();
            ended.store(true, Ordering::Release);
            stormy.join().unwrap();
        });
        assert_unnoticed(&pcm);
        pcm.close();
        let of_honest = tape.recordings().into_iter().filter(|tape| tape.spec.client.name == "work");
        let octets: Vec<u8> = of_honest.flat_map(|tape| tape.heard.lock().unwrap().clone()).collect();
        let mut numbers = crate::play::numbers(&octets);
        numbers.retain(|number| *number != 0);
        assert!(numbers == (1..=96_000).collect::<Vec<_>>(), "{} frames heard", numbers.len());
        check_clean(&honest, &machine);
    });
}
