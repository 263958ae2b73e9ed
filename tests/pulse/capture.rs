//! What a ring records of a source.

use std::io::Write;
use std::process::Stdio;

use vsnd_pw_module::pipewire::private::SOURCE;
use vsnd_pw_module::{Direction, SampleFormat};
use vsnd_tests::pipewire::{Endpoint, PLAYER, Sound};
use vsnd_tests::pulse::MICROPHONE;
use vsnd_tests::rings::Busy;

use crate::desk::{
    CARRIED, Desk, PATIENCE, Private, contents, eventually, expected, judge, keeping_pace, octets, passed,
    ring, simple_ring, sleep, spec, stereo,
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
            judge(&desk, &recorded[first..=last], &sound, "the recording")?;
            Ok(())
        });
    }
}

/// A tenth of a second in each format: the ring holds what an encoder of the guest's own would make of it.
#[test]
fn every_format_is_recorded_to_the_last_bit() {
    const FRAMES: u64 = 4_800;
    let desk = Desk::pulse();
    for sample in CARRIED {
        keeping_pace(|| {
            let format = stereo(sample);
            let ring = ring(Direction::Capture, format, 480_000);
            let node = desk.open(&spec("alpha", Direction::Capture, format), &ring);
            ring.start();
            node.start();
            passed(&ring, 1);
            say(&desk, &expected(format, 0, FRAMES))?;
            let now = ring.cursor().position.0;
            passed(&ring, now + 9_600);
            let recorded = contents(&ring);
            ring.close();
            drop(node);
            if ring.missed_cycles() > 0 {
                return Err(Busy(format!("the bridge was late {} times", ring.missed_cycles())));
            }
            let said = octets(format, 0, FRAMES);
            let size = format.frame_octets() as usize;
            let mut silence = vec![0; size];
            format.fill_silence(&mut silence);
            let first = recorded.chunks(size).position(|frame| frame != silence);
            let recorded = &recorded[first.expect("something recorded") * size..];
            // PulseAudio's way from floats to eight bits is not its way back, and what lies beyond 24 bits means nothing.
            let step = if matches!(sample, SampleFormat::U8 | SampleFormat::S8) { 1 } else { 0 };
            let padding = match sample {
                SampleFormat::S24In32Le | SampleFormat::U24In32Le => Some(3),
                SampleFormat::S24In32Be | SampleFormat::U24In32Be => Some(0),
                _ => None,
            };
            let pairs = recorded.iter().zip(&said).enumerate();
            let mut pairs = pairs.filter(|(at, _)| padding != Some(at % 4));
            let wrong = pairs.find(|(_, (recorded, said))| recorded.abs_diff(**said) > step);
            assert_eq!(wrong, None, "{sample:?}: an octet that is not what was said");
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
