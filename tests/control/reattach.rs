//! Bridges that are killed and started again under a guest, as a real sink hears it.

use std::time::Duration;

use vsnd_bridge::sim::frontend::Kernel;
use vsnd_bridge::sim::signal::{Frame, PlayReport, TestSignal, compare};
use vsnd_pw_module::Direction;
use vsnd_tests::pipewire::Sound;
use vsnd_tests::pulse::SINK;
use vsnd_tests::rings::{Busy, PATIENCE, eventually, keeping_pace};

use super::desk::Private;
use super::machine::{Machine, POLICY};
use super::play::{assert_unnoticed, check_clean, open, write_all};

const KILLS: u64 = 3;
const PERIOD: u64 = 1_200;

/// What a node that is killed may have taken and never given to be played.
fn on_the_way(private: &Private) -> u64 {
    match private {
        // A cycle of the private server.
        Private::PipeWire(_) => 1_024,
        // What a stream of this period keeps in the server.
        Private::Pulse(_) => 2 * PERIOD,
    }
}

/// What the recorder heard, as frames of 16 bits.
fn frames(recording: &Sound) -> Vec<Frame> {
    let sample = |sample: f32| (sample * 32_768.0).round() as i16;
    recording.samples.chunks_exact(2).map(|frame| [sample(frame[0]), sample(frame[1])]).collect()
}

/// Everything but for the gaps, in each of which the server lost `most` frames: the guest's ring waits for the next bridge.
fn is_whole(report: &PlayReport, most: u64) -> bool {
    report.corrupt == 0
        && (report.head_cut, report.tail_cut) == (0, 0)
        && report.gaps == KILLS
        && report.lost + report.repeated <= KILLS * most
}

#[test]
fn a_guest_is_heard_but_for_the_gap_when_its_bridge_is_killed_and_started_at_once() {
    let signal = TestSignal::new(1).frames(4 * 48_000);
    let octets: Vec<u8> = signal.iter().flatten().flat_map(|sample| sample.to_le_bytes()).collect();
    for start in [Private::pipewire as fn() -> Private, Private::pulse] {
        keeping_pace(|| {
            let private = start();
            let recorder = private.recorder(SINK);
            let mut machine = Machine::start(private.server(|_| ()));
            let guest = machine.guest("work", Kernel::Since2026);
            let pcm = open(&guest, Direction::Playback, PERIOD, 24_000);
            std::thread::scope(|scope| {
                let player = scope.spawn(|| {
                    write_all(&pcm, &octets);
                    pcm.drain().unwrap();
                });
                for _ in 0..KILLS {
                    std::thread::sleep(Duration::from_millis(700));
                    machine.kill_bridge();
                    machine.start_bridge(private.server(|_| ()), POLICY);
                }
                player.join().unwrap();
            });
            assert_unnoticed(&pcm);
            pcm.close();
            let is_silent = |sample: &f32| *sample == 0.0;
            let ended = |heard: &Sound| heard.samples.iter().rev().take(9_600).all(is_silent).then_some(());
            recorder.wait(PATIENCE, "the end of the sound", ended).unwrap();
            let report = compare(&frames(&recorder.finish()), std::slice::from_ref(&signal)).remove(0);
            println!("{report}");
            if report.gaps > KILLS {
                return Err(Busy(format!("the machine was away, too: {report}")));
            }
            assert!(is_whole(&report, on_the_way(&private)), "{report}");
            check_clean(&guest, &machine);
            machine.end_bridge();
            eventually("no stream and no client is left", || {
                let left = private.command("pactl").args(["list", "clients"]).output().unwrap();
                (!String::from_utf8_lossy(&left.stdout).contains("work")).then_some(())
            });
            Ok(())
        });
    }
}
