//! What a ring records of a source.

use std::io::Write;
use std::process::Stdio;

use vsnd_pw_module::Direction;
use vsnd_pw_module::pipewire::private::SOURCE;
use vsnd_tests::pipewire::{Endpoint, PLAYER, Sound};
use vsnd_tests::pulse::MICROPHONE;
use vsnd_tests::rings::Busy;

use crate::desk::{
    Desk, PATIENCE, Private, assert_heard, contents, eventually, expected, keeping_pace, passed, simple_ring,
    sleep, spec,
};

const FRAMES: u64 = 24_000;

/// The samples in the ring, of 16 bits.
fn samples(octets: &[u8]) -> Vec<f32> {
    let (samples, _) = octets.as_chunks::<2>();
    samples.iter().map(|sample| f32::from(i16::from_le_bytes(*sample)) / 32_768.0).collect()
}

/// Says `sound` into the default source; returns when everything was said.
fn say(desk: &Desk, sound: &[f32]) -> Result<(), Busy> {
    match &desk.private {
        Private::Pulse(_) => {
            // More latency than there is sound: the player has given everything before the first frame is played.
            let mut player = desk.command("pacat");
            player.args(["--playback", "--raw", "--format=float32le", "--rate=48000", "--channels=2"]);
            player.args(["--latency-msec=2000", &format!("--device={MICROPHONE}")]);
            let mut player = player.stdin(Stdio::piped()).spawn().unwrap();
            let octets: Vec<u8> = sound.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            player.stdin.take().unwrap().write_all(&octets).unwrap();
            assert!(player.wait().unwrap().success());
            Ok(())
        }
        Private::PipeWire(pipewire) => {
            let player = Endpoint::play_unlinked(&pipewire.remote(), 2, 48_000).unwrap();
            for channel in ["FL", "FR"] {
                let (from, to) = (format!("{PLAYER}:output_{channel}"), format!("{SOURCE}:input_{channel}"));
                eventually("a link to the source", || {
                    let linked = pipewire.command("pw-link").args([&from, &to]).output().unwrap();
                    linked.status.success().then_some(())
                });
            }
            player.runs().unwrap();
            player.play(sound.to_vec());
            let all = |said: &Sound| (said.played == sound.len()).then_some(());
            player.wait(PATIENCE, "the end of the sound", all).unwrap();
            // What was said last is on its way for a cycle.
            sleep(100);
            let said = player.finish();
            if said.gaps.is_empty() { Ok(()) } else { Err(Busy(format!("{:?}", said.gaps))) }
        }
    }
}

#[test]
fn every_frame_of_a_source_is_recorded() {
    for desk in Desk::both() {
        keeping_pace(|| {
            let (format, ring) = simple_ring(Direction::Capture, 480_000);
            let node = desk.open(&spec("alpha", Direction::Capture, format), &ring);
            ring.start();
            node.start();
            passed(&ring, 1);
            let sound = expected(format, 0, FRAMES);
            let said = say(&desk, &sound);
            let now = ring.cursor().position.0;
            passed(&ring, now + 9_600);
            let recorded = samples(&contents(&ring));
            let timing = ring.timing().expect("a timing");
            assert!(timing.heard > 0 && timing.given.0 >= FRAMES, "{timing:?}");
            ring.close();
            drop(node);
            said?;
            if ring.missed_cycles() > 0 {
                return Err(Busy(format!("the bridge was late {} times", ring.missed_cycles())));
            }
            let first = recorded.iter().position(|sample| *sample != 0.0).expect("something recorded");
            let last = recorded.iter().rposition(|sample| *sample != 0.0).unwrap();
            assert_heard(&recorded[first..=last], &sound, "the recording");
            Ok(())
        });
    }
}

/// A recording that rests costs the server nothing.
#[test]
fn a_stopped_recording_rests() {
    let desk = Desk::pulse();
    let (format, ring) = simple_ring(Direction::Capture, 48_000);
    let spec = spec("alpha", Direction::Capture, format);
    let node = desk.open(&spec, &ring);
    ring.start();
    node.start();
    passed(&ring, 4_800);
    ring.stop();
    node.stop();
    eventually("at rest", || {
        desk.tool("pactl", &["list", "source-outputs"]).contains("Corked: yes").then_some(())
    });
    let base = ring.cursor().position.0;
    ring.start();
    node.start();
    passed(&ring, base + 4_800);
}
