//! The user's volume, the bridge's own, and where a stream goes: set by one party, read back and heard by the other.

use std::time::{Duration, Instant};

use vsnd_pw_module::pipewire::Object;
use vsnd_pw_module::pipewire::private::{Options, SECOND_SINK, SINK};
use vsnd_pw_module::{Direction, SampleFormat};
use vsnd_tests::pipewire::Endpoint;
use vsnd_tests::rings::{LEVEL, levels};

use crate::guest::{Desk, Feeder, PATIENCE, eventually, ring, spec, stereo};

/// Waits until the sink hears the guest's level times these factors.
fn hears(ear: &Endpoint, factors: [f32; 2]) {
    let wanted = levels(factors);
    let what = format!("at {wanted:?}");
    ear.wait(PATIENCE, &what, |sound| sound.is_at(wanted).then_some(())).unwrap();
}

#[test]
fn a_mixers_slider_and_mute_are_told_and_multiply_with_the_bridges_gain() {
    let desk = Desk::with(Options { min_quantum: 1024, pulse: true, ..Options::default() });
    let format = stereo(SampleFormat::S16Le);
    let ring = ring(Direction::Playback, format, 48_000);
    let spec = spec("alpha", Direction::Playback, format);
    ring.set_gain(&[0.5, 0.5]);
    let node = desk.open(&spec, &ring);
    let _feeder = Feeder::steady(&ring, LEVEL);
    ring.start();
    node.start();
    let id = desk.running(&spec.name).to_string();
    let ear = Endpoint::record_sink(&desk.private.remote(), SINK, 2, 48_000).unwrap();
    hears(&ear, [0.5, 0.5]);

    desk.tool("wpctl", &["set-volume", &id, "0.5"]);
    desk.volume(&spec.name, &[0.125, 0.125], false);
    hears(&ear, [0.0625, 0.0625]);
    assert!(desk.tool("wpctl", &["get-volume", &id]).contains("0.50"), "the slider is the user's");
    desk.tool("wpctl", &["set-mute", &id, "1"]);
    desk.volume(&spec.name, &[0.125, 0.125], true);
    hears(&ear, [0.0, 0.0]);
    desk.tool("wpctl", &["set-mute", &id, "0"]);
    desk.volume(&spec.name, &[0.125, 0.125], false);

    // By PulseAudio's protocol, as pavucontrol does.
    let inputs = desk.tool("pactl", &["list", "short", "sink-inputs"]);
    let index = inputs.split_whitespace().next().unwrap().to_owned();
    desk.tool("pactl", &["set-sink-input-volume", &index, "100%", "50%"]);
    desk.volume(&spec.name, &[1.0, 0.125], false);
    hears(&ear, [0.5, 0.0625]);
    assert!(desk.tool("pactl", &["list", "sink-inputs"]).contains("front-right: 32768 /  50%"));

    ring.set_gain(&[1.0, 1.0]);
    hears(&ear, [1.0, 0.125]);
    ring.set_gain(&[0.0, 0.0]);
    hears(&ear, [0.0, 0.0]);
    let inputs = desk.tool("pactl", &["list", "sink-inputs"]);
    assert!(inputs.contains("front-left: 65536 / 100%") && inputs.contains("Mute: no"), "{inputs}");
}

#[test]
fn what_the_user_set_is_told_again_when_a_stream_is_opened_again() {
    let desk = Desk::new();
    let format = stereo(SampleFormat::S16Le);
    let spec = spec("alpha", Direction::Playback, format);
    for round in 0..2 {
        let ring = ring(Direction::Playback, format, 4_800);
        let node = desk.open(&spec, &ring);
        let _feeder = Feeder::steady(&ring, LEVEL);
        ring.start();
        node.start();
        if round == 0 {
            let id = desk.running(&spec.name).to_string();
            desk.tool("wpctl", &["set-volume", &id, "0.5"]);
        }
        desk.volume(&spec.name, &[0.125, 0.125], false);
        // The session manager remembers what it has seen, which the bridge may see before it.
        let remembered = desk.private.root().join("state/wireplumber/restore-stream");
        eventually("remembered", || {
            let state = std::fs::read_to_string(&remembered).unwrap_or_default();
            (state.contains(&spec.restore_key) && state.contains("0.125")).then_some(())
        });
        drop(node);
        desk.in_graph("gone", |objects| {
            objects.iter().all(|object| object.get("node.name") != Some(&spec.name)).then_some(())
        });
    }
}

#[test]
fn a_stream_is_routed_while_it_plays_and_back_again() {
    let desk = Desk::new();
    let format = stereo(SampleFormat::S16Le);
    let spec = spec("alpha", Direction::Playback, format);
    let first = Endpoint::record_sink(&desk.private.remote(), SINK, 2, 48_000).unwrap();
    let second = Endpoint::record_sink(&desk.private.remote(), SECOND_SINK, 2, 48_000).unwrap();
    let ring = ring(Direction::Playback, format, 48_000);
    let node = desk.open(&spec, &ring);
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

/// A node that is routed before it is in the graph.
#[test]
fn a_route_waits_for_the_node() {
    let desk = Desk::new();
    let format = stereo(SampleFormat::S16Le);
    let second = Endpoint::record_sink(&desk.private.remote(), SECOND_SINK, 2, 48_000).unwrap();
    let ring = ring(Direction::Playback, format, 48_000);
    let node = desk.open(&spec("alpha", Direction::Playback, format), &ring);
    node.set_target(Some(SECOND_SINK.to_owned()));
    let _feeder = Feeder::steady(&ring, LEVEL);
    ring.start();
    node.start();
    hears(&second, [1.0, 1.0]);
}

/// The best of a few: a busy machine may take longer, but nothing in here does.
#[test]
fn a_microphone_appears_and_goes_within_a_tenth_of_a_second() {
    let desk = Desk::new();
    let format = stereo(SampleFormat::S16Le);
    let (mut came, mut went) = (Duration::MAX, Duration::MAX);
    for round in 0..5 {
        let spec = spec(&format!("domain{round}"), Direction::Capture, format);
        let ring = ring(Direction::Capture, format, 9_600);
        ring.start();
        let allowed = Instant::now();
        let node = desk.open(&spec, &ring);
        node.start();
        let shown =
            |objects: &[Object]| objects.iter().any(|object| object.get("node.name") == Some(&spec.name));
        desk.in_graph("a microphone", |objects| shown(objects).then_some(()));
        came = came.min(allowed.elapsed());
        eventually("recording", || (ring.cursor().position.0 > 0).then_some(()));
        let withdrawn = Instant::now();
        drop(node);
        desk.in_graph("no microphone", |objects| (!shown(objects)).then_some(()));
        went = went.min(withdrawn.elapsed());
    }
    println!("a microphone came in {came:?} and went in {went:?}");
    let limit = Duration::from_millis(100);
    assert!(came < limit && went < limit, "came in {came:?}, went in {went:?}");
}
