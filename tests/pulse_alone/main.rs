//! What streams on a real PulseAudio leave behind in this process, which runs nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test from head to foot

#[path = "../pulse/desk.rs"]
#[allow(dead_code, unused_imports)] // most of it is for the other tests
mod desk;

use vsnd_pw_module::Direction;

use desk::{Desk, eventually, passed, simple_ring, spec};

/// What this process holds of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    files: usize,
    threads: usize,
}

fn held() -> Held {
    let count = |of: &str| std::fs::read_dir(format!("/proc/self/{of}")).unwrap().count();
    Held { files: count("fd"), threads: count("task") }
}

#[test]
fn fifty_streams_later_nothing_is_left() {
    let desk = Desk::pulse();
    let streams = || desk.tool("pactl", &["list", "short", "sink-inputs"]).lines().count();
    let clients = || desk.tool("pactl", &["list", "clients"]).matches("application.name = \"alpha").count();
    let before = held();
    for round in 0..50 {
        let (format, ring) = simple_ring(Direction::Playback, 9_600);
        let spec = spec(&format!("alpha{}", round % 3), Direction::Playback, format);
        let node = desk.open(&spec, &ring);
        ring.start();
        node.start();
        if round % 2 == 0 {
            desk.running(&spec.name);
            passed(&ring, 1);
        }
        ring.close();
        drop(node);
    }
    assert!(clients() <= 3, "one connection for each domain");
    eventually("no stream", || (streams() == 0).then_some(()));
    eventually("no client", || (clients() == 0).then_some(()));
    eventually("nothing held", || (held() == before).then_some(()));
}
