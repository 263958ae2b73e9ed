//! What the user set is told again, a route waits for its node, and a microphone comes and goes at once.
//!
//! Sliders, mutes and routes of a stream that plays are in tests/control, through the whole daemon.

use std::time::{Duration, Instant};

use vsnd_pw_module::pipewire::Object;
use vsnd_pw_module::pipewire::private::{SECOND_SINK, SINK};
use vsnd_pw_module::{Direction, NodeSpec, SampleFormat};
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

#[test]
fn a_node_that_was_opened_with_a_route_is_given_back_to_the_session_manager() {
    let desk = Desk::new();
    let format = stereo(SampleFormat::S16Le);
    let [first, second] = [SINK, SECOND_SINK]
        .map(|sink| Endpoint::record_sink(&desk.private.remote(), sink, 2, 48_000).unwrap());
    let ring = ring(Direction::Playback, format, 48_000);
    let target = Some(SECOND_SINK.to_owned());
    let node = desk.open(&NodeSpec { target, ..spec("alpha", Direction::Playback, format) }, &ring);
    let _feeder = Feeder::steady(&ring, LEVEL);
    ring.start();
    node.start();
    hears(&second, [1.0, 1.0]);
    node.set_target(None);
    hears(&first, [1.0, 1.0]);
    hears(&second, [0.0, 0.0]);
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
