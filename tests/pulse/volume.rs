//! The user's volume, the bridge's own, and where a stream goes: set by one party, read back and heard by the other.
//!
//! What tests/control shows on PulseAudio, through the whole daemon, is shown on pipewire-pulse alone here.

use vsnd_pw_module::Direction;
use vsnd_tests::pulse::{MICROPHONE, SECOND_SINK, SINK};
use vsnd_tests::rings::{Feeder, LEVEL, levels};

use crate::desk::{Desk, Ear, eventually, passed, simple_ring, spec};

/// Waits until the sink hears the guest's level times these factors.
fn hears(ear: &Ear, factors: [f32; 2]) {
    let wanted = levels(factors);
    ear.wait(&format!("at {wanted:?}"), |sound| sound.is_at(wanted).then_some(()));
}

#[test]
fn a_mixers_slider_and_mute_are_told_and_multiply_with_the_bridges_gain() {
    let desk = Desk::pipewire();
    let (format, ring) = simple_ring(Direction::Playback, 48_000);
    let spec = spec("alpha", Direction::Playback, format);
    ring.set_gain(&[0.5, 0.5]);
    let node = desk.open(&spec, &ring);
    let _feeder = Feeder::steady(&ring, LEVEL);
    ring.start();
    node.start();
    let id = desk.running(&spec.name).to_string();
    desk.volume(&spec.name, &[1.0, 1.0], false);
    let ear = desk.ear();
    hears(&ear, [0.5, 0.5]);
    desk.tool("pactl", &["set-sink-input-volume", &id, "50%"]);
    desk.volume(&spec.name, &[0.125, 0.125], false);
    hears(&ear, [0.0625, 0.0625]);
    desk.tool("pactl", &["set-sink-input-mute", &id, "1"]);
    desk.volume(&spec.name, &[0.125, 0.125], true);
    hears(&ear, [0.0, 0.0]);
    desk.tool("pactl", &["set-sink-input-mute", &id, "0"]);
    desk.volume(&spec.name, &[0.125, 0.125], false);
    desk.tool("pactl", &["set-sink-input-volume", &id, "100%", "50%"]);
    desk.volume(&spec.name, &[1.0, 0.125], false);
    ring.set_gain(&[1.0, 1.0]);
    hears(&ear, [1.0, 0.125]);
    ring.set_gain(&[0.0, 0.0]);
    hears(&ear, [0.0, 0.0]);
    let inputs = desk.tool("pactl", &["list", "sink-inputs"]);
    assert!(inputs.contains("front-left: 65536 / 100%") && inputs.contains("Mute: no"), "{inputs}");
}

#[test]
fn a_recorders_slider_is_told() {
    let desk = Desk::pulse();
    let (format, ring) = simple_ring(Direction::Capture, 9_600);
    let spec = spec("alpha", Direction::Capture, format);
    let node = desk.open(&spec, &ring);
    ring.start();
    node.start();
    let id = desk.running(&spec.name).to_string();
    passed(&ring, 1);
    desk.tool("pactl", &["set-source-output-volume", &id, "50%"]);
    desk.volume(&spec.name, &[0.125, 0.125], false);
    desk.tool("pactl", &["set-source-output-mute", &id, "1"]);
    desk.volume(&spec.name, &[0.125, 0.125], true);
    let monitor = format!("{SINK}.monitor");
    let source = || desk.tool("pactl", &["list", "source-outputs"]);
    let number = |name: &str| {
        let sources = desk.tool("pactl", &["list", "short", "sources"]);
        let line = sources.lines().find(|line| line.contains(name)).unwrap().to_owned();
        format!("Source: {}\n", line.split_whitespace().next().unwrap())
    };
    node.set_target(Some(monitor.clone()));
    eventually("moved", || source().contains(&number(&monitor)).then_some(()));
    node.set_target(None);
    eventually("back", || source().contains(&number(MICROPHONE)).then_some(()));
}

#[test]
fn a_stream_is_routed_while_it_plays() {
    let desk = Desk::pipewire();
    let (first, second) = (desk.ear(), desk.record(SECOND_SINK, 2));
    let (format, ring) = simple_ring(Direction::Playback, 48_000);
    let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
    let _feeder = Feeder::steady(&ring, LEVEL);
    ring.start();
    node.start();
    hears(&first, [1.0, 1.0]);
    node.set_target(Some(SECOND_SINK.to_owned()));
    hears(&second, [1.0, 1.0]);
    hears(&first, [0.0, 0.0]);
    node.set_target(None);
    hears(&first, [1.0, 1.0]);
    hears(&second, [0.0, 0.0]);
}

#[test]
fn a_route_holds_whenever_the_server_is_back() {
    let mut desk = Desk::pulse();
    let (format, ring) = simple_ring(Direction::Playback, 48_000);
    let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
    let _feeder = Feeder::steady(&ring, LEVEL);
    ring.start();
    node.start();
    node.set_target(Some(SECOND_SINK.to_owned()));
    hears(&desk.record(SECOND_SINK, 2), [1.0, 1.0]);
    if let crate::desk::Private::Pulse(pulse) = &mut desk.private {
        pulse.crash();
        pulse.resume().unwrap();
    }
    hears(&desk.record(SECOND_SINK, 2), [1.0, 1.0]);
}
