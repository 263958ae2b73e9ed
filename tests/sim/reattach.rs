//! Bridges that are killed, stopped and started again while guests play and record.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use vsnd_bridge::sim::Holdings;
use vsnd_bridge::sim::frontend::{HwParams, Kernel, State};
use vsnd_bridge::xen::{Nodes, StoreError};
use vsnd_pw_module::{Direction, Frames, NullServer};

use super::machine::{Machine, POLICY, Tape, in_real_time, restart, wait_until};
use super::play::{assert_unnoticed, check_clean, counting, heard, numbers, open, write_all};

#[test]
fn a_bridge_is_killed_while_a_guest_plays_and_every_frame_is_heard_once() {
    for kernel in Kernel::ALL {
        for (period, buffer) in [(480, 4800), (1024, 16_384), (6000, 24_000)] {
            in_real_time(|| {
                let mut tape = Tape::new(256);
                let mut machine = Machine::start(Arc::new(tape.clone()));
                let guest = machine.guest("work", kernel);
                // After an OPEN that was told positions, events have two numbers.
                let before = open(&guest, Direction::Playback, period, buffer);
                write_all(&before, &vec![0; 9_600 * 4]);
                before.drain().unwrap();
                before.close();
                let pcm = open(&guest, Direction::Playback, period, buffer);
                std::thread::scope(|scope| {
                    let player = scope.spawn(|| {
                        write_all(&pcm, &counting(0..72_000));
                        pcm.drain().unwrap();
                    });
                    for _ in 0..3 {
                        sleep(Duration::from_millis(300));
                        restart(&mut machine, &mut tape);
                    }
                    player.join().unwrap();
                });
                assert_unnoticed(&pcm);
                pcm.close();
                let heard = heard(&tape);
                let whole = heard == (1..=72_000).collect::<Vec<_>>();
                assert!(whole, "{kernel:?} {period}/{buffer}: {} frames heard", heard.len());
                wait_until("a node is left", || tape.nodes() == 0);
                check_clean(&guest, &machine);
            });
        }
    }
}

#[test]
fn a_bridge_is_killed_while_a_guest_records_and_the_recording_has_one_seam() {
    in_real_time(|| {
        for kernel in Kernel::ALL {
            let mut tape = Tape::new(256);
            let mut machine = Machine::start(Arc::new(tape.clone()));
            let guest = machine.guest("work", kernel);
            let pcm = open(&guest, Direction::Capture, 480, 9_600);
            let mut data = vec![0; 48_000 * 4];
            std::thread::scope(|scope| {
                let recorder = scope.spawn(|| pcm.read(&mut data).unwrap());
                sleep(Duration::from_millis(400));
                restart(&mut machine, &mut tape);
                assert_eq!(recorder.join().unwrap(), Frames(48_000));
            });
            assert_unnoticed(&pcm);
            // Each node counts its own frames, from where it began.
            let numbers = numbers(&data);
            let seams = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
            assert_eq!(seams, 1, "{kernel:?}");
            pcm.close();
            check_clean(&guest, &machine);
        }
    });
}

#[test]
fn a_guest_that_plays_on_the_clock_goes_on_with_the_next_bridge() {
    in_real_time(|| {
        let mut machine = Machine::start(Arc::new(NullServer));
        let guest = machine.guest("work", Kernel::Since2026);
        let pcm = open(&guest, Direction::Playback, 480, 4_800);
        std::thread::scope(|scope| {
            let player = scope.spawn(|| {
                write_all(&pcm, &counting(0..48_000));
                pcm.drain().unwrap();
            });
            sleep(Duration::from_millis(400));
            machine.kill_bridge();
            machine.start_bridge(Arc::new(NullServer), POLICY);
            player.join().unwrap();
        });
        assert_unnoticed(&pcm);
        assert!(pcm.counters().core.periods >= 90, "{:?}", pcm.counters());
    });
}

#[test]
fn a_start_that_was_not_answered_yet_is_answered_once_by_the_next_bridge() {
    in_real_time(|| {
        let mut tape = Tape::new(256);
        // Nobody calls the node: START waits for a first cycle.
        tape.hush(true);
        let mut machine = Machine::start(Arc::new(tape.clone()));
        let guest = machine.guest("work", Kernel::Since2026);
        let pcm = open(&guest, Direction::Playback, 480, 4_800);
        std::thread::scope(|scope| {
            let player = scope.spawn(|| {
                write_all(&pcm, &counting(0..24_000));
                pcm.drain().unwrap();
            });
            sleep(Duration::from_millis(300));
            assert_eq!(pcm.counters().core.periods, 0, "started");
            tape.hush(false);
            restart(&mut machine, &mut tape);
            player.join().unwrap();
        });
        assert_unnoticed(&pcm);
        assert_eq!(pcm.counters().requests.ignored, 0, "answered twice");
        pcm.close();
        assert!(heard(&tape) == (1..=24_000).collect::<Vec<_>>());
        check_clean(&guest, &machine);
    });
}

#[test]
fn a_stream_at_rest_starts_under_the_next_bridge() {
    in_real_time(|| {
        let mut tape = Tape::new(256);
        let mut machine = Machine::start(Arc::new(tape.clone()));
        let guest = machine.guest("work", Kernel::Until2026);
        let pcm = open(&guest, Direction::Playback, 480, 4_800);
        // Stopped once, so that it rests at a position of its own; prepared, but not written to.
        write_all(&pcm, &counting(0..4_800));
        pcm.drain().unwrap();
        pcm.prepare().unwrap();
        restart(&mut machine, &mut tape);
        write_all(&pcm, &counting(4_800..24_000));
        pcm.drain().unwrap();
        assert_unnoticed(&pcm);
        pcm.close();
        assert!(heard(&tape) == (1..=24_000).collect::<Vec<_>>());
        check_clean(&guest, &machine);
    });
}

#[test]
fn a_bridge_that_is_stopped_and_started_again_is_not_noticed_either() {
    in_real_time(|| {
        let mut tape = Tape::new(256);
        let mut machine = Machine::start(Arc::new(tape.clone()));
        let guest = machine.guest("work", Kernel::Since2026);
        let pcm = open(&guest, Direction::Playback, 1_024, 16_384);
        std::thread::scope(|scope| {
            let player = scope.spawn(|| {
                write_all(&pcm, &counting(0..48_000));
                pcm.drain().unwrap();
            });
            sleep(Duration::from_millis(300));
            tape.cut();
            machine.end_bridge();
            assert_eq!(machine.xen.holdings(guest.domain.id()), Holdings::default());
            machine.start_bridge(Arc::new(tape.clone()), POLICY);
            player.join().unwrap();
        });
        assert_unnoticed(&pcm);
        pcm.close();
        assert!(heard(&tape) == (1..=48_000).collect::<Vec<_>>());
        check_clean(&guest, &machine);
    });
}

#[test]
fn a_guest_that_played_at_a_stop_plays_again_after_a_later_start_without_being_touched() {
    for kernel in Kernel::ALL {
        in_real_time(|| {
            let mut tape = Tape::new(256);
            let mut machine = Machine::start(Arc::new(tape.clone()));
            let guest = machine.guest("work", kernel);
            let pcm = open(&guest, Direction::Playback, 480, 4_800);
            std::thread::scope(|scope| {
                let player = scope.spawn(move || {
                    while pcm.write(&[0; 480 * 4]).is_ok() {}
                    // STOP and CLOSE, which nobody answers.
                    pcm.close();
                });
                sleep(Duration::from_millis(300));
                tape.cut();
                machine.end_bridge();
                player.join().unwrap();
            });
            // An application that tries meanwhile is told so, and leaves another request behind.
            let pcm = guest.card.open(0, Direction::Playback).unwrap();
            assert!(pcm.hw_params(HwParams::cd(480, 4_800)).is_err());
            pcm.close();
            machine.start_bridge(Arc::new(tape.clone()), POLICY);
            wait_until("not connected", || machine.xen.holdings(guest.domain.id()).ports == 4);
            let pcm = open(&guest, Direction::Playback, 480, 4_800);
            write_all(&pcm, &counting(0..24_000));
            pcm.drain().unwrap();
            assert_eq!(pcm.state(), State::Setup);
            assert_eq!(pcm.counters().core.xruns, 0);
            pcm.close();
            assert!(heard(&tape) == (1..=24_000).collect::<Vec<_>>());
            check_clean(&guest, &machine);
        });
    }
}

#[test]
fn a_record_of_another_life_of_the_domain_opens_nothing() {
    let mut machine = Machine::start(Arc::new(NullServer));
    let guest = machine.guest("work", Kernel::Since2026);
    let pcm = open(&guest, Direction::Playback, 480, 4_800);
    write_all(&pcm, &counting(0..4_800));
    machine.end_bridge();
    // As if another guest had the domain's number, or the same one after a reboot.
    let vm = format!("/local/domain/{}/vm", guest.domain.id());
    machine.xen.store().write(&vm, b"/vm/ab8a8e6e-3d4c-4d6f-9f6e-2f9c8b1d7a55").unwrap();
    machine.start_bridge(Arc::new(NullServer), POLICY);
    let pages = |machine: &Machine| machine.xen.holdings(guest.domain.id()).pages;
    wait_until("not connected", || pages(&machine) >= 4);
    // Rings and event pages of two streams, and no buffer.
    assert_eq!(pages(&machine), 4);
    // The application is told at once, and one that opens anew plays.
    let began = Instant::now();
    while pcm.write(&[0; 480 * 4]).is_ok() {}
    pcm.close();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    let pcm = open(&guest, Direction::Playback, 480, 4_800);
    write_all(&pcm, &counting(0..9_600));
    pcm.drain().unwrap();
}

#[test]
fn records_stay_while_xenstore_lists_no_cards() {
    let machine = Machine::start(Arc::new(NullServer));
    let records = || machine.records().read_dir().unwrap().count() - 1;
    let _playing = machine.guest("work", Kernel::Since2026);
    for part in ["/backend/vsnd", "/backend/vsnd/1", "/backend/vsnd/1/0/state"] {
        let before = records();
        machine.xen.faults().fail_store(part, StoreError::Other("EIO".to_owned()), 4);
        // Has the cards listed, more often than once, and is found by a later list.
        let _other = machine.guest("play", Kernel::Since2026);
        assert_eq!(records(), before + 2, "{part}: two streams each");
    }
}

#[test]
fn records_go_with_their_guest_also_while_no_bridge_runs() {
    let mut machine = Machine::start(Arc::new(NullServer));
    let records = |machine: &Machine| machine.records().read_dir().unwrap().count() - 1;
    let guests = [machine.guest("work", Kernel::Since2026), machine.guest("play", Kernel::Since2026)];
    assert_eq!(records(&machine), 4, "two streams each, beside the lock");
    machine.xen.destroy(&guests[0].domain).unwrap();
    wait_until("they stay", || records(&machine) == 2);
    machine.end_bridge();
    machine.xen.destroy(&guests[1].domain).unwrap();
    machine.start_bridge(Arc::new(NullServer), POLICY);
    wait_until("they stay", || records(&machine) == 0);
}
