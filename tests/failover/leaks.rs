//! What a hundred restarts of the server leave behind.

use std::time::Instant;

use vsnd_bridge::sim::frontend::PcmError;
use vsnd_pw_module::pipewire::survey;
use vsnd_tests::rings::PATIENCE;

use super::by_itself;
use super::desk::{Desk, NODE};
use super::player::Player;

const RESTARTS: usize = 100;
/// Restarts after which everything has been made once that is made only once.
const SETTLED: usize = 10;

/// What this process holds of the machine.
#[derive(Clone, Copy, Debug)]
struct Held {
    files: usize,
    threads: usize,
    mappings: usize,
}

fn held() -> Held {
    let count = |of: &str| std::fs::read_dir(format!("/proc/self/{of}")).unwrap().count();
    let mappings = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    Held { files: count("fd"), threads: count("task"), mappings }
}

#[test]
fn a_hundred_restarts_of_the_server_leave_nothing_behind() {
    let _alone = by_itself();
    let mut desk = Desk::new();
    let began = Instant::now();
    // A machine that is busy with a hundred servers may well starve it.
    let _player = Player::forgiving(&desk.guest, Some(PcmError::Xrun));
    let mut settled = None;
    for restart in 0..RESTARTS {
        desk.pipewire_returns();
        desk.running();
        if restart == SETTLED {
            settled = Some(held());
        }
        if restart + 1 < RESTARTS {
            desk.pipewire.crash();
            desk.lost();
        }
    }
    println!("{RESTARTS} restarts in {:?}", began.elapsed());
    let settled = settled.unwrap();
    // How many links and buffers there are differs from moment to moment; whatever a restart left behind would be there ninety
    // times.
    let more = |now: usize, then: usize| now > then + RESTARTS / 10;
    let now = held();
    let grown = more(now.files, settled.files) || more(now.mappings, settled.mappings);
    println!("after {SETTLED}: {settled:?}, now: {now:?}");
    assert!(!grown && now.threads <= settled.threads + 2, "after {SETTLED}: {settled:?}, now: {now:?}");
    let graph = survey(Some(&desk.pipewire.remote()), PATIENCE).unwrap();
    let nodes = graph.iter().filter(|object| object.get("node.name") == Some(NODE));
    assert_eq!(nodes.count(), 1);
}
