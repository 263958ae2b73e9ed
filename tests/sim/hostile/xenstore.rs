//! XenStore: what a guest writes into its own directory, and how often.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vsnd_bridge::sim::{Card, Hypervisor, Limits};
use vsnd_bridge::sndif::{CardConfig, Operation, Problem};
use vsnd_bridge::xen::{Nodes, Store};
use vsnd_fuzz::raw::RawStream;
use vsnd_pw_module::NullServer;

use super::{CONNECTED, Hostile};
use crate::machine::{DOM0, Machine, SOON};

#[test]
fn rule_11_paths_are_the_bridges_own_whatever_a_guest_writes() {
    let machine = Machine::start(Arc::new(NullServer));
    let victim = machine.xen.create_domain("victim", "u").unwrap();
    let of_victim = machine.xen.announce_card(&victim, DOM0, &Card::simple()).unwrap();
    let mut guest = Hostile::connected(&machine, "hostile");
    guest.write("backend", of_victim.backend().as_bytes());
    guest.write("backend-id", b"7");
    guest.write("frontend", of_victim.frontend().as_bytes());
    guest.set_state("6");
    machine.wait_let_go(guest.domain.id());
    assert!(machine.xen.wait_backend(&guest.card, "2", SOON), "its own card, as before");
    let state = machine.xen.store().read(&format!("{}/state", of_victim.backend()));
    assert_eq!(state.as_deref(), Ok(&b"2"[..]), "the other's card is as it was");
    guest.set_state("3");
    machine.wait_holdings(guest.domain.id(), |holdings| holdings == CONNECTED);
    assert_eq!(guest.open(1), Ok(()));
}

#[test]
fn rule_11_nodes_that_can_not_be_close_the_card_and_no_other() {
    let machine = Machine::start(Arc::new(NullServer));
    let mut honest = Hostile::connected(&machine, "honest");
    let domain = machine.xen.create_domain("hostile", "u").unwrap();
    let attached = machine.xen.attach(&domain, DOM0, &Card::simple()).unwrap();
    let publish = |value: &[u8]| {
        let streams = [0, 1].map(|index| {
            let stream = RawStream::of(&domain);
            stream.publish(&domain, &attached, index);
            stream
        });
        domain.store().write(&format!("{}/0/1/ring-ref", attached.frontend()), value).unwrap();
        domain.store().write(&format!("{}/state", attached.frontend()), b"3").unwrap();
        streams
    };
    for value in [&[b'9'; 2048][..], b"\xff\xfe", b"4294967296"] {
        let _streams = publish(value);
        assert!(machine.xen.wait_backend(&attached, "6", SOON), "{}", value.escape_ascii());
        machine.wait_let_go(domain.id());
        // The driver sees that it was refused, and begins anew.
        domain.store().write(&format!("{}/state", attached.frontend()), b"1").unwrap();
        assert!(machine.xen.wait_backend(&attached, "2", 4 * SOON), "{}", machine.xen.dump());
        assert_eq!(honest.ask(Operation::Close), Ok(()));
    }
}

#[test]
fn rule_11_a_directory_that_vanishes_releases_the_card() {
    let machine = Machine::start(Arc::new(NullServer));
    let mut honest = Hostile::connected(&machine, "honest");
    let mut guest = Hostile::connected(&machine, "hostile");
    assert_eq!(guest.open(8), Ok(()));
    guest.domain.store().remove(&guest.card.frontend()).unwrap();
    machine.wait_let_go(guest.domain.id());
    assert_eq!(honest.open(8), Ok(()));
    assert!(machine.xen.detach(&guest.card).unwrap(), "the toolstack may still take it away");
}

#[test]
fn rule_11_ten_thousand_directories_are_counted_and_not_read() {
    const MANY: u32 = 10_000;
    // More than xenstored grants a guest.
    let xen = Hypervisor::with_limits(Limits { nodes: usize::MAX, ..Limits::default() });
    let guest = xen.create_domain("hostile", "u").unwrap();
    let card = xen.announce_card(&guest, DOM0, &Card::simple()).unwrap();
    let frontend = card.frontend();
    // By the toolstack, whose nodes are not counted each time.
    let made = xen.store().transaction(&mut |nodes| {
        (0..MANY).try_for_each(|directory| nodes.write(&format!("{frontend}/{directory}"), b""))
    });
    made.unwrap();
    // Anything that is read now fails, but for the one list.
    let store = xen.dom0().store;
    let refused = vsnd_bridge::xen::StoreError::Other("one read too many".into());
    xen.faults().fail_store(&format!("{frontend}/"), refused, u32::MAX);
    let error = CardConfig::read(&*store, &frontend).unwrap_err();
    assert!(matches!(error.problem, Problem::TooMany { found: 10_000, .. }), "{error}");
}

#[test]
fn rule_11_a_storm_of_states_ends_with_the_last_and_holds_up_nobody() {
    let machine = Machine::start(Arc::new(NullServer));
    let mut honest = Hostile::connected(&machine, "honest");
    let mut guest = Hostile::connected(&machine, "hostile");
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            for round in 0..5_000 {
                guest.set_state(["1", "3", "4", "5", "6", "x", "99"][round % 7]);
            }
            guest.set_state("6");
        });
        while !storm.is_finished() {
            assert_eq!(honest.ask(Operation::Close), Ok(()));
        }
        let began = Instant::now();
        let third = Hostile::connected(&machine, "third");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        drop(third);
    });
    machine.wait_let_go(guest.domain.id());
    assert!(machine.xen.wait_backend(&guest.card, "2", 4 * SOON));
    guest.set_state("3");
    machine.wait_holdings(guest.domain.id(), |holdings| holdings == CONNECTED);
    assert_eq!(guest.open(1), Ok(()));
}
