//! A hundred bridges one after the other, counted: no other test may run in this process.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that can't go on ends

#[path = "../sim/machine.rs"]
#[allow(dead_code)]
mod machine;
#[path = "../sim/play.rs"]
#[allow(dead_code)]
mod play;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use vsnd_bridge::sim::Holdings;
use vsnd_bridge::sim::frontend::Kernel;
use vsnd_pw_module::Direction;

use machine::{DOM0, Machine, Running, SOON, Tape, in_real_time, restart, wait_until};
use play::{assert_unnoticed, check_clean, counting, heard, open, write_all};

fn entries(directory: &str) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

/// The length of a mapping, by its line of /proc/self/maps.
fn octets(line: &str) -> usize {
    let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
    usize::from_str_radix(to, 16).unwrap() - usize::from_str_radix(from, 16).unwrap()
}

/// What a test's process and the bridge in it have, for comparison.
fn have(machine: &Machine, guest: &Running, tape: &Tape) -> [(&'static str, usize); 8] {
    let Holdings { pages, ports } = machine.xen.holdings(guest.domain.id());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let shared =
        maps.lines().filter(|line| line.contains("memfd:sim-guest") || line.contains("vsnd-bridge/"));
    [
        ("files", entries("/proc/self/fd")),
        ("threads", entries("/proc/self/task")),
        ("octets mapped", shared.map(octets).sum()),
        ("pages", pages),
        ("ports", ports),
        ("watches", machine.xen.watches(DOM0)),
        ("nodes", tape.nodes()),
        ("records", entries(&machine.records().to_string_lossy())),
    ]
}

#[test]
fn a_hundred_bridges_in_a_row_leave_nothing_behind() {
    in_real_time(|| {
        let mut tape = Tape::new(256);
        let mut machine = Machine::start(Arc::new(tape.clone()));
        let guest = machine.guest("work", Kernel::Since2026);
        let pcm = open(&guest, Direction::Playback, 1_024, 16_384);
        let ended = AtomicBool::new(false);
        let played = std::thread::scope(|scope| {
            let player = scope.spawn(|| {
                let mut frame = 0;
                while !ended.load(Ordering::Acquire) {
                    write_all(&pcm, &counting(frame..frame + 4_800));
                    frame += 4_800;
                }
                pcm.drain().unwrap();
                frame
            });
            let end = EndOnDrop(&ended);
            let mut first = None;
            for _ in 0..100 {
                restart(&mut machine, &mut tape);
                let at = pcm.pointer();
                wait_until("it plays on", || pcm.pointer() > at && tape.nodes() == 1);
                let first = first.get_or_insert_with(|| {
                    // Threads of the one before, which nobody waits for.
                    sleep(Duration::from_millis(300));
                    have(&machine, &guest, &tape)
                });
                let deadline = Instant::now() + SOON;
                let mut now = have(&machine, &guest, &tape);
                while now != *first && Instant::now() < deadline {
                    sleep(Duration::from_millis(2));
                    now = have(&machine, &guest, &tape);
                }
                assert_eq!(now, *first);
            }
            drop(end);
            player.join().unwrap()
        });
        assert_unnoticed(&pcm);
        pcm.close();
        assert!(heard(&tape) == (1..=played).collect::<Vec<_>>());
        check_clean(&guest, &machine);
    });
}

/// Lets the player come to an end, also when the test fails.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
