//! Servers that hang, and go on.

use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vsnd_bridge::sim::frontend::{Kernel, PcmError};
use vsnd_pw_module::pipewire::PipeWireServer;
use vsnd_pw_module::pipewire::private::{Options, PrivateServer, SINK};
use vsnd_pw_module::{Nanos, monotonic_now};
use vsnd_tests::pulse::{self, Recorder};
use vsnd_tests::rings::PATIENCE;

use super::alone;
use super::desk::{Desk, hears, in_time, signal};
use super::machine::Machine;
use super::player::{A_WHILE, Player};

const PAUSE: Nanos = Nanos::from_millis(2_500);

#[test]
fn a_stopped_pipewire_is_replaced_by_the_clock_until_it_goes_on() {
    alone(|| {
        let desk = Desk::on_pipewire();
        let player = Player::start(&desk.guest);
        desk.running();
        let ear = desk.hears(SINK);
        let stopped = monotonic_now();
        let processes = desk.pipewire.processes();
        signal(&processes, Signal::STOP);
        player.plays_for(PAUSE);
        let before = ear.wait(PATIENCE, "a recording", |heard| Some(heard.samples.len())).unwrap();
        signal(&processes, Signal::CONT);
        let returned = Instant::now();
        ear.wait(PATIENCE, "sound", |heard| {
            (heard.samples.len() > before + 9_600 && heard.sounding()).then_some(())
        })
        .unwrap();
        in_time(returned, "the guest is heard");
        player.was_never_silent(stopped);
        player.finish();
    });
}

#[test]
fn a_stopped_pulseaudio_is_replaced_by_the_clock_until_it_goes_on() {
    alone(|| {
        let desk = Desk::on_pulse();
        let player = Player::start(&desk.guest);
        desk.running();
        player.plays_for(A_WHILE);
        let stopped = monotonic_now();
        let processes = [desk.pulse.process().unwrap()];
        signal(&processes, Signal::STOP);
        player.plays_for(PAUSE);
        signal(&processes, Signal::CONT);
        let returned = Instant::now();
        let ear = Recorder::start(desk.pulse.command("parec"), pulse::SINK, 2).unwrap();
        // More than it had in its queue when it was stopped.
        let enough = 48_000 / 5 * 2;
        ear.wait(PATIENCE, "sound", |heard| {
            heard.sounds().iter().any(|sound| sound.len() > enough).then_some(())
        })
        .unwrap();
        in_time(returned, "the guest is heard");
        player.was_never_silent(stopped);
        player.finish();
    });
}

#[test]
fn a_server_that_takes_connections_and_does_not_answer_holds_nobody_up() {
    alone(|| {
        let mut desk = Desk::on_pipewire();
        desk.pipewire.crash();
        desk.lost();
        // In its place the kernel takes connections, and nobody reads from them.
        let socket = desk.pipewire.remote();
        std::fs::remove_file(&socket).unwrap();
        let silent = UnixListener::bind(&socket).unwrap();
        let player = Player::start(&desk.guest);
        player.plays_for(PAUSE);
        player.finish();
        // By now the bridge is connected, and hopes for an answer.
        let player = Player::start(&desk.guest);
        player.plays_for(A_WHILE);
        let answer = player.longest_answer();
        let is_due = Nanos::from_millis(1_000)..Nanos::from_millis(2_000);
        assert!(is_due.contains(&answer), "a START waits for 1.5 s: {answer}");
        let returned = desk.pulse_returns();
        desk.running();
        in_time(returned, "the node runs on PulseAudio");
        drop(silent);
        let returned = desk.pipewire_returns();
        desk.running();
        in_time(returned, "the node runs");
        player.finish();
    });
}

/// Where the server of a stopped machine listens; set for the process that is the machine.
const REMOTE: &str = "VSND_TEST_REMOTE";

/// Bridge, hypervisor and guest as a process of their own, until its input ends.
#[test]
#[ignore = "a part of the next test"]
fn a_machine() {
    let Ok(remote) = std::env::var(REMOTE) else { return };
    let server = PipeWireServer::start(|_| (), Some(remote)).unwrap();
    let machine = Machine::start(Arc::new(server));
    let guest = machine.guest("work", Kernel::Since2026);
    // Its kernel's patience runs out while it stands still itself, which a real one's does not.
    let player = Player::forgiving(&guest, Some(PcmError::NoProgress));
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    player.finish();
}

/// The bridge can't be stopped without its simulated hypervisor and guest: they all stand still, as a suspended host does.
#[test]
fn a_stopped_machine_goes_on_where_it_was() {
    alone(|| {
        let private = PrivateServer::start(Options { min_quantum: 256, ..Options::default() }).unwrap();
        let mut machine = Command::new(std::env::current_exe().unwrap())
            .args(["stopped::a_machine", "--exact", "--ignored", "--nocapture"])
            .env(REMOTE, private.remote())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ear = hears(&private, SINK);
        for _ in 0..2 {
            signal(&[machine.id()], Signal::STOP);
            ear.wait(PATIENCE, "silence", |heard| (!heard.sounding()).then_some(())).unwrap();
            std::thread::sleep(Duration::from_nanos(PAUSE.0.unsigned_abs()));
            signal(&[machine.id()], Signal::CONT);
            let returned = Instant::now();
            ear.wait(PATIENCE, "sound", |heard| heard.sounding().then_some(())).unwrap();
            in_time(returned, "the guest is heard");
        }
        drop(machine.stdin.take());
        assert!(machine.wait().unwrap().success(), "the guest noticed");
    });
}
