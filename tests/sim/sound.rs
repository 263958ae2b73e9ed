//! Sound through the whole daemon.

use std::sync::Arc;
use std::time::Duration;

use vsnd_bridge::sim::frontend::{HwParams, Kernel, PcmError, State};
use vsnd_bridge::sndif::Errno;
use vsnd_pw_module::{Bounds, Direction, Frames, Nanos, NullServer};

use super::machine::{DOM0, Machine, Tape, in_real_time};
use super::play::{check_clean, counting, numbers, open, write_all};

#[test]
fn a_second_is_played_and_drained_five_times_over_in_both_kernels() {
    in_real_time(|| {
        for kernel in Kernel::ALL {
            let machine = Machine::start(Arc::new(NullServer));
            let guest = machine.guest("work", kernel);
            for _ in 0..5 {
                let pcm = open(&guest, Direction::Playback, 1024, 24_576);
                write_all(&pcm, &counting(0..48_000));
                pcm.drain().unwrap();
                let counters = pcm.counters();
                assert_eq!((counters.core.xruns, counters.core.unexpected), (0, 0));
                assert!((10..=48).contains(&counters.core.periods), "{counters:?}");
                assert_eq!(counters.requests.unanswered, 0);
                pcm.close();
            }
            check_clean(&guest, &machine);
        }
    });
}

#[test]
fn every_frame_is_heard_once_and_in_order() {
    for (period, buffer) in [(240, 2400), (480, 4800), (1024, 4096), (1200, 9600), (6000, 24_000)] {
        in_real_time(|| {
            let tape = Tape::new(256);
            let machine = Machine::start(Arc::new(tape.clone()));
            let guest = machine.guest("work", Kernel::Since2026);
            let pcm = open(&guest, Direction::Playback, period, buffer);
            write_all(&pcm, &counting(0..36_000));
            pcm.drain().unwrap();
            let counters = pcm.counters();
            pcm.close();
            let mut heard = numbers(&tape.heard());
            heard.retain(|number| *number != 0);
            assert_eq!(counters.core.xruns, 0, "{period}/{buffer}");
            let whole = heard == (1..=36_000).collect::<Vec<_>>();
            assert!(whole, "{period}/{buffer}: {} frames heard", heard.len());
            check_clean(&guest, &machine);
        });
    }
}

#[test]
fn what_the_microphone_hears_arrives_whole() {
    in_real_time(|| {
        for kernel in Kernel::ALL {
            let tape = Tape::new(256);
            let machine = Machine::start(Arc::new(tape));
            let guest = machine.guest("work", kernel);
            for _ in 0..2 {
                let pcm = open(&guest, Direction::Capture, 480, 24_000);
                let mut data = vec![0; 480 * 4 * 50];
                for part in data.chunks_mut(480 * 4) {
                    assert_eq!(pcm.read(part).unwrap(), Frames(480));
                }
                let numbers = numbers(&data);
                assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "frames are missing");
                pcm.stop();
                pcm.close();
            }
            check_clean(&guest, &machine);
        }
    });
}

#[test]
fn a_guest_that_was_stopped_underruns_and_plays_on_with_the_next_frame() {
    in_real_time(|| {
        for kernel in Kernel::ALL {
            for (period, buffer) in [(480, 14_400), (1024, 16_384), (4800, 14_400)] {
                let tape = Tape::new(256);
                let machine = Machine::start(Arc::new(tape.clone()));
                let guest = machine.guest("work", kernel);
                let pcm = open(&guest, Direction::Playback, period, buffer);
                write_all(&pcm, &counting(0..19_200));
                std::thread::sleep(Duration::from_millis(600));
                assert_eq!(pcm.write(&[0; 4]), Err(PcmError::Xrun));
                assert_eq!(pcm.state(), State::Xrun);
                pcm.prepare().unwrap();
                write_all(&pcm, &counting(19_200..38_400));
                pcm.drain().unwrap();
                assert_eq!(pcm.counters().core.xruns, 1);
                pcm.close();
                let mut heard = numbers(&tape.heard());
                heard.retain(|number| *number != 0);
                let whole = heard == (1..=38_400).collect::<Vec<_>>();
                assert!(whole, "{period}/{buffer}: {} frames heard", heard.len());
                check_clean(&guest, &machine);
            }
        }
    });
}

#[test]
fn playback_and_capture_of_two_guests_at_once() {
    in_real_time(|| {
        let tape = Tape::new(256);
        let machine = Machine::start(Arc::new(tape.clone()));
        let guests = [machine.guest("work", Kernel::Until2026), machine.guest("play", Kernel::Since2026)];
        std::thread::scope(|scope| {
            for guest in &guests {
                scope.spawn(|| {
                    let pcm = open(guest, Direction::Playback, 480, 24_000);
                    write_all(&pcm, &counting(0..36_000));
                    pcm.drain().unwrap();
                    assert_eq!(pcm.counters().core.xruns, 0);
                });
                scope.spawn(|| {
                    let pcm = open(guest, Direction::Capture, 480, 24_000);
                    let mut data = vec![0; 36_000 * 4];
                    assert_eq!(pcm.read(&mut data), Ok(Frames(36_000)));
                });
            }
        });
        let clients: std::collections::BTreeSet<_> =
            tape.recordings().iter().map(|recording| recording.spec.client.name.clone()).collect();
        assert_eq!(clients.into_iter().collect::<Vec<_>>(), ["play", "work"]);
        guests.iter().for_each(|guest| check_clean(guest, &machine));
    });
}

/// The guest's driver asks before an application may choose: it never comes to an OPEN that is refused.
#[test]
fn a_guest_is_offered_what_the_sound_server_carries() {
    let bounds = Bounds { channels: 1, rate: 44_100, buffer: Nanos::from_millis(100) };
    let machine = Machine::start(Arc::new(Tape::within(bounds)));
    let guest = machine.guest("work", Kernel::Since2026);
    let pcm = guest.card.open(0, Direction::Playback).unwrap();
    let ranges = pcm.ranges().unwrap();
    assert_eq!((ranges.channels.max, ranges.rates.max), (1, 44_100));
    assert_eq!(ranges.buffer.min, Frames(4_410));
    let mono = HwParams { channels: 1, rate: 44_100, ..HwParams::cd(1_102, 4_410) };
    let invalid = Err(PcmError::Refused(Errno::Invalid));
    assert_eq!(pcm.hw_params(HwParams { channels: 2, ..mono }), invalid);
    assert_eq!(pcm.hw_params(HwParams { buffer: Frames(4_409), ..mono }), invalid);
    pcm.hw_params(mono).unwrap();
}

#[test]
fn a_rewound_and_rewritten_sound_is_heard_as_rewritten() {
    in_real_time(|| {
        let tape = Tape::new(256);
        let machine = Machine::start(Arc::new(tape.clone()));
        let guest = machine.guest("work", Kernel::Since2026);
        let pcm = open(&guest, Direction::Playback, 480, 9600);
        write_all(&pcm, &counting(0..9600));
        std::thread::sleep(Duration::from_millis(50));
        let back = pcm.rewind(Frames(4000)).unwrap().0 as u32;
        assert!(back > 3000, "{back}");
        let end = 9600 - back;
        write_all(&pcm, &counting(100_000..100_000 + back));
        pcm.drain().unwrap();
        pcm.close();
        let mut heard = numbers(&tape.heard());
        heard.retain(|number| *number != 0);
        let expected: Vec<u32> = (1..=end).chain(100_001..=100_000 + back).collect();
        assert!(heard == expected, "{} frames", heard.len());
        assert_eq!(guest.attached.backend_domain, DOM0);
    });
}
