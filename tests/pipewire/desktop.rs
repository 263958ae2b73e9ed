//! What the desktop sees of nodes, and what it does with them.

use std::process::{Command, Stdio};
use std::time::Instant;

use vsnd_pw_module::pipewire::private::{Options, SECOND_SINK, SINK};
use vsnd_pw_module::{Bounds, Direction, Nanos, NodeState, SampleFormat, ServerEvent, SoundServer};
use vsnd_tests::pipewire::Endpoint;

use crate::guest::{Desk, Feeder, PATIENCE, eventually, passed, ring, spec, stereo};

/// The part of `pactl list` from the line that starts with `head` and has `mark` in its part.
fn part<'t>(listing: &'t str, mark: &str) -> &'t str {
    listing
        .split("\n\n")
        .find(|part| part.contains(mark))
        .unwrap_or_else(|| panic!("nothing with {mark} in:\n{listing}"))
}

#[test]
fn mixers_show_the_name_of_each_domain() {
    let desk = Desk::with(Options { pulse: true, ..Options::default() });
    let format = stereo(SampleFormat::S16Le);
    let mut nodes = Vec::new();
    for domain in ["alpha", "beta"] {
        for direction in [Direction::Playback, Direction::Capture] {
            let ring = ring(direction, format, 4_800);
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
        let number = client.trim_start().trim_start_matches("Client #").lines().next().unwrap_or_default();
        let count = clients.matches(&format!("application.name = \"{domain}\"")).count();
        assert_eq!(count, 1, "connections of {domain}");
        for (kind, way, media_name) in
            [("sink-inputs", "play", "Speakers"), ("source-outputs", "rec", "Headset microphone")]
        {
            let streams = desk.tool("pactl", &["list", kind]);
            let stream = part(&streams, &format!("node.name = \"vsnd.{domain}.0.0.{way}\""));
            for wanted in [
                format!("Client: {number}\n"),
                format!("media.name = \"{media_name}\""),
                // What the node calls node.description.
                format!("device.description = \"{domain}: card 0\""),
                format!("application.id = \"key-of-{domain}-{way}\""),
                "node.latency = \"480/48000\"".to_owned(),
                "Sample Specification: s16le 2ch 48000Hz".to_owned(),
            ] {
                assert!(stream.contains(&wanted), "no {wanted} in {stream}");
            }
            for unwanted in ["media.role", "node.virtual", "target.object"] {
                assert!(!stream.contains(unwanted), "{unwanted} in {stream}");
            }
        }
    }
}

/// The user moves a stream to another sink; the guest's position runs on.
#[test]
fn a_node_is_moved_while_it_plays() {
    let desk = Desk::new();
    let remote = desk.private.remote();
    let format = stereo(SampleFormat::S16Le);
    let first = Endpoint::record_sink(&remote, SINK, 2, 48_000).unwrap();
    let second = Endpoint::record_sink(&remote, SECOND_SINK, 2, 48_000).unwrap();
    let ring = ring(Direction::Playback, format, 9_600);
    let spec = spec("alpha", Direction::Playback, format);
    let node = desk.open(&spec, &ring);
    let id = desk.running(&spec.name);
    let _feeder = Feeder::new(&ring);
    ring.start();
    node.start();
    first.wait(PATIENCE, "sound", |heard| heard.sounding().then_some(())).unwrap();
    let elsewhere = second.wait(PATIENCE, "a recording", |heard| Some(heard.ended)).unwrap();
    assert_eq!(elsewhere, 0, "sounds from the second sink");

    let before = ring.cursor().position;
    desk.tool("pw-metadata", &[&id.to_string(), "target.object", SECOND_SINK]);
    let mut last = before;
    eventually("sound from the second sink", || {
        let now = ring.cursor().position;
        assert!(now >= last, "{now} after {last}");
        last = now;
        second.wait(PATIENCE, "a recording", |heard| Some(heard.sounding())).unwrap().then_some(())
    });
    first.wait(PATIENCE, "silence", |heard| (!heard.sounding()).then_some(())).unwrap();
    passed(&ring, last.0 + 4_800);
    let timing = ring.timing().unwrap();
    assert!(timing.given >= last && timing.heard <= timing.given.0 as i64, "{timing:?}");
    assert_eq!(
        desk.in_graph("the node", |objects| {
            objects.iter().find(|object| object.get("node.name") == Some(&spec.name)).map(|node| node.id)
        }),
        id,
        "still the same node"
    );
}

/// What a session manager knows of routes goes with it. The next one is told, of a route that was set meanwhile, too.
#[test]
fn a_session_manager_that_is_started_again_is_told_of_routes() {
    let desk = Desk::new();
    let format = stereo(SampleFormat::S16Le);
    let open = |domain: &str| {
        let spec = spec(domain, Direction::Playback, format);
        let node = desk.open(&spec, &ring(Direction::Playback, format, 9_600));
        (node, desk.running(&spec.name).to_string())
    };
    let ((before, id_before), (meanwhile, id_meanwhile)) = (open("alpha"), open("beta"));
    // It waits where there is no metadata.
    let is_noted = |id: &str| desk.tool("pw-metadata", &[id, "target.object"]).contains(SECOND_SINK);
    let has_metadata = || {
        desk.graph()
            .iter()
            .any(|object| object.kind == "Metadata" && object.get("metadata.name") == Some("default"))
    };
    before.set_target(Some(SECOND_SINK.to_owned()));
    eventually("noted", || is_noted(&id_before).then_some(()));

    let [_, session_manager] = desk.private.processes()[..] else { panic!("two programs") };
    let killed = Command::new("kill").args(["-KILL", &session_manager.to_string()]).status().unwrap();
    assert!(killed.success());
    eventually("gone", || (!has_metadata()).then_some(()));
    meanwhile.set_target(Some(SECOND_SINK.to_owned()));
    let mut again = desk.private.command("wireplumber");
    // It ends with its server, at the latest.
    let mut again = again.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("back", || has_metadata().then_some(()));
    for id in [&id_before, &id_meanwhile] {
        eventually("noted again", || is_noted(id).then_some(()));
    }
    again.kill().unwrap();
    again.wait().unwrap();
}

#[test]
fn after_a_crash_of_the_server_the_node_is_back_under_its_name() {
    let mut desk = Desk::new();
    let format = stereo(SampleFormat::S16Le);
    let ring = ring(Direction::Playback, format, 9_600);
    let spec = spec("alpha", Direction::Playback, format);
    let node = desk.open(&spec, &ring);
    desk.running(&spec.name);
    let _feeder = Feeder::new(&ring);
    ring.start();
    node.start();
    passed(&ring, 4_800);
    for _ in 0..2 {
        desk.private.crash();
        desk.event("end of the connection", |event| matches!(event, ServerEvent::Lost(_)).then_some(()));
        desk.node(&spec.name, |state| (*state == NodeState::Connecting).then_some(()));
        let lost = ring.cursor().position.0;
        desk.private.resume().unwrap();
        let resumed = Instant::now();
        assert!(!desk.connected().version.is_empty());
        desk.running(&spec.name);
        println!("the node runs {:?} after the server takes streams again", resumed.elapsed());
        let recorder = Endpoint::record_sink(&desk.private.remote(), SINK, 2, 48_000).unwrap();
        recorder.wait(PATIENCE, "sound", |heard| heard.sounding().then_some(())).unwrap();
        passed(&ring, lost + 4_800);
        let names = desk.graph();
        let names = names.iter().filter(|object| object.get("node.name") == Some(&spec.name));
        assert_eq!(names.count(), 1);
    }
}

/// A server that starts after the bridge.
#[test]
fn a_server_that_is_not_there_is_waited_for() {
    let mut desk = Desk::new();
    desk.private.crash();
    desk.event("end of the connection", |event| matches!(event, ServerEvent::Lost(_)).then_some(()));
    let format = stereo(SampleFormat::S16Le);
    let ring = ring(Direction::Playback, format, 9_600);
    let spec = spec("alpha", Direction::Playback, format);
    let node = desk.open(&spec, &ring);
    ring.start();
    node.start();
    desk.private.resume().unwrap();
    desk.running(&spec.name);
    passed(&ring, 4_800);
}

/// What the bridge holds of the machine.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    nodes: usize,
    clients: usize,
}

#[test]
fn fifty_nodes_later_nothing_is_left() {
    let desk = Desk::new();
    let format = stereo(SampleFormat::S16Le);
    let held = || {
        let graph = desk.graph();
        let ours = |object: &&vsnd_pw_module::pipewire::Object| {
            object.get("node.name").is_some_and(|name| name.starts_with("vsnd."))
                || object.get("application.name").is_some_and(|name| name.starts_with("domain"))
        };
        Held {
            nodes: graph.iter().filter(|object| object.kind == "Node").filter(ours).count(),
            clients: graph.iter().filter(|object| object.kind == "Client").filter(ours).count(),
        }
    };
    for round in 0..50 {
        let ring = ring(Direction::Playback, format, 2_400);
        let node = desk.open(&spec(&format!("domain{}", round % 3), Direction::Playback, format), &ring);
        if round % 2 == 0 {
            ring.start();
            node.start();
            passed(&ring, 1);
        }
        ring.close();
    }
    let nothing = Held { nodes: 0, clients: 0 };
    eventually("an empty graph", || (held() == nothing).then_some(()));
}

#[test]
fn a_node_that_somebody_destroys_comes_back() {
    let desk = Desk::new();
    let format = stereo(SampleFormat::S16Le);
    let ring = ring(Direction::Playback, format, 9_600);
    let spec = spec("alpha", Direction::Playback, format);
    let node = desk.open(&spec, &ring);
    let id = desk.running(&spec.name);
    ring.start();
    node.start();
    passed(&ring, 1);
    desk.tool("pw-cli", &["destroy", &id.to_string()]);
    desk.node(&spec.name, |state| {
        assert_ne!(*state, NodeState::Idle { id: u32::MAX }, "a number that no node has");
        matches!(state, NodeState::Failed(_)).then_some(())
    });
    desk.running(&spec.name);
    let position = ring.cursor().position.0;
    passed(&ring, position + 4_800);
}

/// A guest that closes and opens: the tail of the node before ends while its successor of the same name plays.
#[test]
fn a_node_that_is_opened_anew_at_once_is_told_under_its_own_number() {
    let desk = Desk::new();
    let format = stereo(SampleFormat::S16Le);
    let spec = spec("alpha", Direction::Playback, format);
    let play = || {
        let ring = ring(Direction::Playback, format, 9_600);
        let node = desk.open(&spec, &ring);
        let feeder = Feeder::new(&ring);
        ring.start();
        node.start();
        (node, ring, feeder)
    };
    let (node, before, feeder) = play();
    let old = desk.running(&spec.name);
    passed(&before, 9_600);
    before.stop();
    drop((node, feeder));
    let (_node, ring, _feeder) = play();
    let id = desk.in_graph("the new node alone", |objects| {
        let named = objects.iter().filter(|object| object.get("node.name") == Some(&spec.name));
        match named.map(|node| node.id).collect::<Vec<_>>()[..] {
            [id] if id != old => Some(id),
            _ => None,
        }
    });
    desk.node(&spec.name, |state| {
        assert_ne!(*state, NodeState::Idle { id: u32::MAX }, "the node before, which has no number any more");
        (*state == NodeState::Running { id }).then_some(())
    });
    passed(&ring, ring.cursor().position.0 + 4_800);
    let rest = desk.rest();
    assert!(!rest.iter().any(|event| matches!(event, ServerEvent::Node(_))), "{rest:?}");
}

/// A ring has to hold what the graph takes at once: two of the shortest cycles that the server is configured for.
#[test]
fn the_shortest_ring_is_that_of_the_servers_shortest_cycle() {
    let desk = Desk::with(Options { min_quantum: 960, quantum: 960, ..Options::default() });
    assert_eq!(desk.server.bounds(), Bounds { channels: 64, rate: u32::MAX, buffer: Nanos::from_millis(40) });
}
