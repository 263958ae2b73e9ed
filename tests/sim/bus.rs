//! A card's life: attached, reloaded, detached, destroyed, and the bridge's own restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vsnd_bridge::sim::frontend::{HwParams, Kernel, PcmError, SimGuest};
use vsnd_bridge::sim::{Card, Holdings};
use vsnd_bridge::xen::StoreError;
use vsnd_pw_module::{Direction, NullServer};

use super::machine::{DOM0, Machine, SOON};

fn play_some(guest: &super::machine::Running) {
    let pcm = guest.card.open(0, Direction::Playback).unwrap();
    pcm.hw_params(HwParams::cd(480, 4800)).unwrap();
    pcm.write(&vec![0; 9600 * 4]).unwrap();
    pcm.drain().unwrap();
}

#[test]
fn a_card_comes_and_goes_while_the_guest_runs() {
    let machine = Machine::start(Arc::new(NullServer));
    let domain = machine.xen.create_domain("work", "u").unwrap();
    let linux = SimGuest::boot(&domain, Kernel::Since2026).unwrap();
    for _ in 0..3 {
        // A running guest answers at once: InitWait must still be there when the toolstack looks.
        let attached = machine.xen.attach(&domain, DOM0, &Card::simple()).unwrap();
        let card = linux.card(attached.device, SOON).unwrap();
        assert_eq!(machine.xen.holdings(domain.id()).ports, 4);
        assert!(machine.xen.detach(&attached).unwrap(), "the bridge didn't close");
        machine.wait_let_go(domain.id());
        assert!(card.wait_gone(SOON));
        assert!(matches!(card.open(0, Direction::Playback), Err(PcmError::Gone)));
    }
    let dump = machine.xen.dump();
    assert!(!dump.contains("vsnd"), "{dump}");
}

#[test]
fn a_card_is_detached_while_it_plays() {
    let machine = Machine::start(Arc::new(NullServer));
    let guest = machine.guest("work", Kernel::Until2026);
    let pcm = guest.card.open(0, Direction::Playback).unwrap();
    pcm.hw_params(HwParams::cd(480, 4800)).unwrap();
    std::thread::scope(|scope| {
        let player = scope.spawn(move || {
            while pcm.write(&[0; 480 * 4]).is_ok() {}
            let began = Instant::now();
            let counters = pcm.counters();
            drop(pcm);
            (began.elapsed(), counters)
        });
        std::thread::sleep(Duration::from_millis(200));
        let began = Instant::now();
        assert!(machine.xen.detach(&guest.attached).unwrap());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        let (closing, _) = player.join().unwrap();
        assert!(closing < Duration::from_secs(1), "the player hung for {closing:?}");
    });
    machine.wait_let_go(guest.domain.id());
}

#[test]
fn the_guests_driver_is_reloaded() {
    let machine = Machine::start(Arc::new(NullServer));
    let mut guest = machine.guest("work", Kernel::Since2026);
    for _ in 0..2 {
        play_some(&guest);
        guest.linux.reload_driver();
        assert!(guest.card.wait_gone(SOON));
        guest.card = guest.linux.card(guest.attached.device, SOON).expect("the card didn't come back");
    }
    play_some(&guest);
    assert_eq!(machine.xen.deferred_grants(guest.domain.id()), 0);
}

#[test]
fn a_guest_is_destroyed_while_it_plays_and_comes_again() {
    let machine = Machine::start(Arc::new(NullServer));
    for kernel in Kernel::ALL {
        let guest = machine.guest("work", kernel);
        let pcm = guest.card.open(0, Direction::Playback).unwrap();
        pcm.hw_params(HwParams::cd(480, 4800)).unwrap();
        pcm.write(&[0; 9600 * 4]).unwrap();
        let took = machine.xen.destroy(&guest.domain).unwrap();
        assert!(took < Duration::from_secs(2), "destroying took {took:?}");
        machine.wait_let_go(guest.domain.id());
        drop(pcm);
    }
    let dump = machine.xen.dump();
    assert!(!dump.contains("vsnd"), "{dump}");
    assert!(machine.xen.watches(DOM0) <= 2, "{} watches are left", machine.xen.watches(DOM0));
    play_some(&machine.guest("work", Kernel::Since2026));
}

#[test]
fn what_xenstore_refuses_for_one_card_is_tried_again_and_costs_no_other_its_sound() {
    let machine = Machine::start(Arc::new(NullServer));
    let playing = machine.guest("work", Kernel::Since2026);
    let refuse = |part: &str| {
        machine.xen.faults().fail_store(part, StoreError::Other("EIO".to_owned()), 2);
    };
    let id = machine.xen.create_domain("play", "u").unwrap();
    // Its offer, then its states when it connects.
    refuse(&format!("vsnd/{}/0/versions", id.id()));
    let attached = machine.xen.attach(&id, DOM0, &Card::simple()).unwrap();
    for end in [attached.backend(), attached.frontend()] {
        refuse(&format!("{end}/state"));
    }
    let linux = SimGuest::boot(&id, Kernel::Since2026).unwrap();
    let card = linux.card(attached.device, SOON).expect("no card in the guest");
    play_some(&playing);
    play_some(&super::machine::Running { domain: id, attached, linux, card });
}

#[test]
fn a_guest_that_crashes_leaves_nothing_mapped() {
    let machine = Machine::start(Arc::new(NullServer));
    let guest = machine.guest("work", Kernel::Since2026);
    let pcm = guest.card.open(0, Direction::Playback).unwrap();
    pcm.hw_params(HwParams::cd(480, 4800)).unwrap();
    pcm.write(&[0; 9600 * 4]).unwrap();
    machine.xen.crash(&guest.domain);
    let began = Instant::now();
    drop(pcm);
    assert!(began.elapsed() < Duration::from_secs(1));
    machine.xen.destroy(&guest.domain).unwrap();
    machine.wait_let_go(guest.domain.id());
}

#[test]
fn a_bridge_that_starts_again_serves_guests_that_were_there() {
    let mut machine = Machine::start(Arc::new(NullServer));
    let guest = machine.guest("work", Kernel::Since2026);
    play_some(&guest);
    machine.end_bridge();
    assert_eq!(machine.xen.holdings(guest.domain.id()), Holdings::default());
    machine.start_bridge(Arc::new(NullServer), "");
    let card = guest.linux.card(0, SOON).unwrap();
    let deadline = Instant::now() + SOON;
    while machine.xen.holdings(guest.domain.id()).ports < 4 {
        assert!(Instant::now() < deadline, "not connected again");
        std::thread::sleep(Duration::from_millis(5));
    }
    let guest = super::machine::Running { card, ..guest };
    play_some(&guest);
}
