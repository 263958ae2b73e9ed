//! What the desktop sees of nodes, and what it does with them.

use std::sync::Arc;

use vsnd_pw_module::{Direction, NodeState, PcmRing};
use vsnd_tests::pulse::{PrivatePulse, SECOND_SINK, SINK};
use vsnd_tests::rings::Feeder;

use crate::desk::{Desk, Private, eventually, passed, simple_ring, sleep, spec};

/// The part of `pactl list` that has `mark` in it.
fn part<'t>(listing: &'t str, mark: &str) -> &'t str {
    listing
        .split("\n\n")
        .find(|part| part.contains(mark))
        .unwrap_or_else(|| panic!("nothing with {mark} in:\n{listing}"))
}

#[test]
fn mixers_show_the_name_of_each_domain() {
    for desk in Desk::both() {
        let mut nodes = Vec::new();
        for domain in ["alpha", "beta"] {
            for direction in [Direction::Playback, Direction::Capture] {
                let (format, ring) = simple_ring(direction, 9_600);
                let spec = spec(domain, direction, format);
                let node = desk.open(&spec, &ring);
                desk.running(&spec.name);
                ring.start();
                node.start();
                passed(&ring, 1);
                nodes.push((node, ring));
            }
        }
        let clients = desk.tool("pactl", &["list", "clients"]);
        for domain in ["alpha", "beta"] {
            let client = part(&clients, &format!("application.name = \"{domain}\""));
            assert!(client.contains(&format!("application.id = \"id-of-{domain}\"")), "{client}");
            assert!(client.contains("application.icon_name = \"computer\""), "{client}");
            assert!(client.contains("xen.domid = \"7\""), "{client}");
            let number =
                client.trim_start().trim_start_matches("Client #").lines().next().unwrap_or_default();
            let count = clients.matches(&format!("application.name = \"{domain}\"")).count();
            assert_eq!(count, 1, "connections of {domain}");
            for (kind, way, media_name) in
                [("sink-inputs", "play", "Speakers"), ("source-outputs", "rec", "Headset microphone")]
            {
                let streams = desk.tool("pactl", &["list", kind]);
                let stream = part(&streams, &format!("node.name = \"vsnd.{domain}.0.0.{way}\""));
                // Where PipeWire stands in, its session manager remembers by the application's id.
                let restore = if desk.is_pulse() { "module-stream-restore.id" } else { "application.id" };
                for wanted in [
                    format!("Client: {number}\n"),
                    format!("media.name = \"{media_name}\""),
                    format!("{restore} = \"key-of-{domain}-{way}\""),
                    "Sample Specification: s16le 2ch 48000Hz".to_owned(),
                ] {
                    assert!(stream.contains(&wanted), "no {wanted} in {stream}");
                }
                assert!(!stream.contains("media.role"), "{stream}");
            }
        }
    }
}

/// What the user set goes with the key of the stream, whatever its domain is called by now.
#[test]
fn a_volume_is_remembered_for_the_stream() {
    let desk = Desk::pulse();
    for (domain, key, remembered) in
        [("alpha", "main-out", "100%"), ("renamed", "main-out", "50%"), ("alpha", "another", "100%")]
    {
        let (format, ring) = simple_ring(Direction::Playback, 9_600);
        let mut spec = spec(domain, Direction::Playback, format);
        spec.restore_key = key.to_owned();
        let node = desk.open(&spec, &ring);
        let id = desk.running(&spec.name).to_string();
        let streams = desk.tool("pactl", &["list", "sink-inputs"]);
        assert!(part(&streams, &format!("Sink Input #{id}")).contains(remembered), "{domain}: {streams}");
        desk.tool("pactl", &["set-sink-input-volume", &id, "50%"]);
        drop(node);
        eventually("gone", || desk.tool("pactl", &["list", "sink-inputs"]).is_empty().then_some(()));
    }
}

/// The user moves a stream to another sink; the guest's position runs on.
#[test]
fn a_stream_is_moved_while_it_plays() {
    let desk = Desk::pulse();
    let (first, second) = (desk.ear(), desk.record(SECOND_SINK, 2));
    let (format, ring) = simple_ring(Direction::Playback, 19_200);
    let spec = spec("alpha", Direction::Playback, format);
    let node = desk.open(&spec, &ring);
    let id = desk.running(&spec.name);
    let _feeder = Feeder::new(&ring);
    ring.start();
    node.start();
    first.wait("sound", |heard| heard.sounding().then_some(()));
    let mut last = ring.cursor().position;
    desk.tool("pactl", &["move-sink-input", &id.to_string(), SECOND_SINK]);
    eventually("sound from the second sink", || {
        let now = ring.cursor().position;
        assert!(now >= last, "{now} after {last}");
        last = now;
        second.wait("a recording", |heard| Some(heard.sounding())).then_some(())
    });
    first.wait("silence", |heard| (!heard.sounding()).then_some(()));
    passed(&ring, last.0 + 9_600);
    let timing = ring.timing().unwrap();
    assert!(timing.given >= last && timing.heard <= timing.given.0 as i64, "{timing:?}");
}

/// Nothing but the order wakes the thread: the stream is corked, and no other plays.
#[test]
fn a_stream_at_rest_is_routed_at_once() {
    let desk = Desk::pulse();
    let (format, ring) = simple_ring(Direction::Playback, 9_600);
    let spec = spec("alpha", Direction::Playback, format);
    let node = desk.open(&spec, &ring);
    desk.node(&spec.name, |state| matches!(state, NodeState::Idle { .. }).then_some(()));
    let sink = || {
        let sinks = desk.tool("pactl", &["list", "short", "sinks"]);
        let inputs = desk.tool("pactl", &["list", "short", "sink-inputs"]);
        let number = inputs.split_whitespace().nth(1)?.to_owned();
        let name = sinks
            .lines()
            .map(|line| line.split_whitespace())
            .find_map(|mut words| (words.next() == Some(&*number)).then(|| words.next().map(str::to_owned)));
        name.flatten()
    };
    assert_eq!(sink().as_deref(), Some(SINK));
    // What the server tells of the stream that went to rest has been read.
    sleep(500);
    node.set_target(Some(SECOND_SINK.to_owned()));
    eventually("the stream on the second sink", || (sink().as_deref() == Some(SECOND_SINK)).then_some(()));
}

fn playing(desk: &Desk, domain: &str) -> (Box<dyn vsnd_pw_module::Node>, Arc<PcmRing>, String) {
    let (format, ring) = simple_ring(Direction::Playback, 19_200);
    let spec = spec(domain, Direction::Playback, format);
    let node = desk.open(&spec, &ring);
    ring.start();
    node.start();
    (node, ring, spec.name)
}

fn pulse(desk: &mut Desk) -> &mut PrivatePulse {
    match &mut desk.private {
        Private::Pulse(pulse) => pulse,
        Private::PipeWire(_) => panic!("no PulseAudio"),
    }
}

#[test]
fn after_a_crash_of_the_server_the_stream_is_back_under_its_name() {
    let mut desk = Desk::pulse();
    let (_node, ring, name) = playing(&desk, "alpha");
    let _feeder = Feeder::new(&ring);
    desk.running(&name);
    passed(&ring, 9_600);
    for _ in 0..3 {
        pulse(&mut desk).crash();
        desk.lost();
        desk.node(&name, |state| (*state == NodeState::Connecting).then_some(()));
        let lost = ring.cursor().position.0;
        pulse(&mut desk).resume().unwrap();
        assert!(!desk.connected().version.is_empty());
        desk.running(&name);
        let ear = desk.ear();
        ear.wait("sound", |heard| heard.sounding().then_some(()));
        passed(&ring, lost + 9_600);
        let streams = desk.tool("pactl", &["list", "sink-inputs"]);
        assert_eq!(streams.matches(&format!("node.name = \"{name}\"")).count(), 1, "{streams}");
    }
}

/// A server that starts after the bridge.
#[test]
fn a_server_that_is_not_there_is_waited_for() {
    let mut desk = Desk::pulse();
    pulse(&mut desk).crash();
    desk.lost();
    let (_node, ring, name) = playing(&desk, "alpha");
    pulse(&mut desk).resume().unwrap();
    desk.running(&name);
    passed(&ring, 9_600);
}

/// A server without a sink refuses streams; when it has one again, the guest is heard.
#[test]
fn a_sink_that_goes_and_comes_takes_the_stream_along() {
    let desk = Desk::pulse();
    let (_node, ring, name) = playing(&desk, "alpha");
    let id = desk.running(&name);
    passed(&ring, 9_600);
    for module in desk.tool("pactl", &["list", "short", "modules"]).lines() {
        if module.contains("module-null-sink") {
            desk.tool("pactl", &["unload-module", module.split_whitespace().next().unwrap()]);
        }
    }
    let why = desk.node(&name, |state| match state {
        NodeState::Failed(why) => Some(why.clone()),
        _ => None,
    });
    assert!(why.contains("sink"), "{why}");
    desk.tool("pactl", &["load-module", "module-null-sink", "sink_name=another", "norewinds=1"]);
    assert_ne!(desk.running(&name), id, "a new stream");
    let position = ring.cursor().position.0;
    passed(&ring, position + 9_600);
}
