//! What a hundred restarts of the server leave behind.

use std::time::Instant;

use vsnd_bridge::sim::frontend::PcmError;
use vsnd_pw_module::pipewire::survey;
use vsnd_tests::rings::{PATIENCE, eventually};

use super::by_itself;
use super::desk::{Desk, NODE};
use super::player::Player;

const RESTARTS: usize = 100;
/// Restarts after which everything has been made once that is made only once.
const SETTLED: usize = 10;

/// What this process holds of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        desk.pipewire.resume().unwrap();
        desk.on("PipeWire");
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
    let same = |now: Held| {
        // The allocator keeps some memory that threads had, and gives back some.
        let mappings = now.mappings.abs_diff(settled.mappings) <= RESTARTS / 10;
        (now.files, now.threads) == (settled.files, settled.threads) && mappings
    };
    eventually("as after the first restarts", || {
        let now = held();
        println!("{settled:?}, now {now:?}");
        same(now).then_some(())
    });
    let graph = survey(Some(&desk.pipewire.remote()), PATIENCE).unwrap();
    let nodes = graph.iter().filter(|object| object.get("node.name") == Some(NODE));
    assert_eq!(nodes.count(), 1);
}
