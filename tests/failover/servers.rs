//! Servers that die, return, and are replaced.

use std::time::Instant;

use vsnd_pw_module::Nanos;
use vsnd_pw_module::monotonic_now;

use super::desk::{Desk, in_time};
use super::player::{LONGEST_GAP, Player};

const A_WHILE: Nanos = Nanos::from_millis(500);

#[test]
fn a_killed_pipewire_is_replaced_by_the_clock_and_comes_back_with_its_nodes() {
    let mut desk = Desk::new();
    desk.pipewire.resume().unwrap();
    desk.on("PipeWire");
    let player = Player::start(&desk.guest);
    desk.running();
    player.plays_for(A_WHILE);
    for _ in 0..3 {
        println!("kill at {}", monotonic_now());
        let (killed, answer) = (monotonic_now(), player.longest_answer());
        desk.pipewire.crash();
        player.plays_for(A_WHILE);
        let gap = player.longest_gap(killed);
        println!("no position for {gap}");
        assert!(gap <= LONGEST_GAP, "no position for {gap}");
        desk.lost();
        desk.pipewire.resume().unwrap();
        let returned = Instant::now();
        desk.running();
        in_time(returned, "the node runs");
        player.plays_for(A_WHILE);
        let gap = player.longest_gap(killed);
        assert!(gap <= LONGEST_GAP, "no position for {gap}");
        player.answered_at_once(answer);
    }
    for pair in player.seen().windows(2) { let gap = pair[1].at - pair[0].at; if gap > Nanos::from_millis(30) { println!("gap {gap} to {} moved {}", pair[1].at, (pair[1].position.0-pair[0].position.0)/4); } }
    println!("lost {}", player.lost());
    player.finish();
}
