//! `vsnd-bridge demo` as a process of its own, and what it leaves behind.
#![allow(clippy::unwrap_used)] // a test from head to foot
#![cfg(feature = "pipewire")]

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long the private desktop may take to start, and the demo to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A demo whose private desktop lies in `home`, as a shell starts it: with a process group of its own.
fn start(home: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_vsnd-bridge"))
        .args(["demo", "--private", "--seconds", "60"])
        .env("TMPDIR", home)
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap()
}

/// The programs that run in `home`, all of which is theirs.
fn programs(home: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let here = processes.filter(|process| {
        process.path().join("cwd").read_link().is_ok_and(|directory| directory.starts_with(home))
    });
    here.filter_map(|process| std::fs::read_to_string(process.path().join("comm")).ok()).collect()
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal as a terminal does, and sees that nothing is left.
fn is_ended_by(signal: Signal, status: i32, mut demo: Child, home: &Path) {
    kill_process_group(Pid::from_child(&demo), signal).unwrap();
    let ended = wait_for("the demo doesn't end", || demo.try_wait().unwrap());
    assert_eq!(ended.code(), Some(status), "{ended:?}");
    assert_eq!(programs(home), [""; 0]);
    let left: Vec<_> = home.read_dir().unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_demo_that_is_told_to_end_takes_its_desktop_with_it() {
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let home = tempfile::tempdir().unwrap();
        let mut demo = start(home.path());
        let said = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
        // Kept until the end, so that the demo can go on to speak.
        let mut said = said.skip_while(|line| !line.starts_with("node "));
        assert!(said.next().is_some(), "it plays");
        is_ended_by(signal, status, demo, home.path());
    }
}

#[test]
fn so_does_one_whose_desktop_is_about_to_start() {
    let home = tempfile::tempdir().unwrap();
    let demo = start(home.path());
    wait_for("no desktop starts", || (!programs(home.path()).is_empty()).then_some(()));
    is_ended_by(Signal::INT, 130, demo, home.path());
}
