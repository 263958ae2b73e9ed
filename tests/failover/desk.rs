//! A machine whose guests are shown on the best of two private servers.

use std::sync::Arc;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use vsnd_bridge::sim::frontend::Kernel;
use vsnd_pw_module::pipewire::PipeWireServer;
use vsnd_pw_module::pipewire::private::{Options, PrivateServer};
use vsnd_pw_module::pulse::PulseServer;
use vsnd_pw_module::{Nanos, NodeState, ServerEvent, Switch};
use vsnd_tests::pipewire::Endpoint;
use vsnd_tests::pulse::PrivatePulse;
use vsnd_tests::rings::{Events, PATIENCE};

use super::machine::{Machine, Running};

/// The guest's node for playback.
pub const NODE: &str = "vsnd.work.0.0.0";

/// How long after a server's return everything is to be as it was.
pub const RETURN: Nanos = Nanos::from_millis(1_000);

/// Both servers, neither of them running at first.
pub struct Desk {
    /// Before the servers: what it plays still is heard.
    _machine: Machine,
    pub guest: Running,
    pub pipewire: PrivateServer,
    pub pulse: PrivatePulse,
    events: Events,
}

impl Desk {
    pub fn new() -> Self {
        Self::with(|pipewire, pulse| (pipewire.remote(), pulse.server()))
    }

    /// With PipeWire at work.
    pub fn on_pipewire() -> Self {
        let mut desk = Self::new();
        desk.pipewire_returns();
        desk
    }

    /// With PulseAudio at work.
    pub fn on_pulse() -> Self {
        let mut desk = Self::new();
        desk.pulse_returns();
        desk
    }

    /// With PipeWire's own protocol server where PulseAudio would be.
    pub fn with_pulse_of_pipewire() -> Self {
        Self::with(|pipewire, _| (pipewire.remote(), pipewire.pulse_server()))
    }

    /// With that, and no PipeWire that the bridge could find.
    pub fn with_nothing_but_pulse_of_pipewire() -> Self {
        Self::with(|pipewire, _| ("/nobody/listens/here".to_owned(), pipewire.pulse_server()))
    }

    fn with(remotes: impl FnOnce(&PrivateServer, &PrivatePulse) -> (String, String)) -> Self {
        let options = Options { min_quantum: 256, quantum: 1024, pulse: true, ..Options::default() };
        let mut pipewire = PrivateServer::start(options).unwrap();
        let mut pulse = PrivatePulse::start().unwrap();
        pipewire.crash();
        pulse.crash();
        let (first, second) = remotes(&pipewire, &pulse);
        let (send, events) = Events::new();
        let switch = Switch::new(send);
        switch.add(|events| PipeWireServer::start(events, Some(first))).unwrap();
        switch.add(|events| PulseServer::start(events, Some(second))).unwrap();
        let machine = Machine::start(Arc::new(switch));
        let guest = machine.guest("work", Kernel::Since2026);
        Self { _machine: machine, guest, pipewire, pulse, events }
    }

    /// Starts PipeWire, and waits until guests are shown there. Since when it is back.
    pub fn pipewire_returns(&mut self) -> Instant {
        self.pipewire.resume().unwrap();
        let returned = Instant::now();
        self.on("PipeWire");
        returned
    }

    /// Starts PulseAudio, and waits until guests are shown there. Since when it is back.
    pub fn pulse_returns(&mut self) -> Instant {
        self.pulse.resume().unwrap();
        let returned = Instant::now();
        self.on("PulseAudio");
        returned
    }

    /// An ear on a sink of PipeWire's that hears the guest.
    pub fn hears(&self, sink: &str) -> Endpoint {
        hears(&self.pipewire, sink)
    }

    /// Waits until guests are shown on the server of this name.
    pub fn on(&self, server: &str) {
        self.events.event(server, |event| match event {
            ServerEvent::Connected(info) if info.name == server => Some(()),
            _ => None,
        });
    }

    /// Waits until the guest's node was told to be muted by the user.
    pub fn told_muted(&self) {
        self.events.event("mute", |event| match event {
            ServerEvent::Volume(event) => event.volume.muted.then_some(()),
            _ => None,
        });
    }

    pub fn lost(&self) {
        self.events.lost();
    }

    /// Waits until the guest's node runs; its number.
    pub fn running(&self) -> u32 {
        self.events.node(NODE, |state| match state {
            NodeState::Running { id } => Some(*id),
            _ => None,
        })
    }

    /// Waits until the server has no sink, or has one.
    pub fn plays(&self, wanted: bool) {
        self.events.event("change of its sinks", |event| match event {
            ServerEvent::Targets(targets) => (targets.sinks.is_empty() != wanted).then_some(()),
            _ => None,
        });
    }

    /// What was told and nobody waited for.
    pub fn rest(&self) -> Vec<ServerEvent> {
        self.events.rest()
    }

    /// What a tool prints about the PipeWire server.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = self.pipewire.command(program);
        command.env("PULSE_SERVER", self.pipewire.pulse_server()).env("LC_ALL", "C");
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// An ear on a sink of PipeWire's that hears something.
pub fn hears(pipewire: &PrivateServer, sink: &str) -> Endpoint {
    let ear = Endpoint::record_sink(&pipewire.remote(), sink, 2, 48_000).unwrap();
    ear.wait(PATIENCE, "sound", |heard| heard.sounding().then_some(())).unwrap();
    ear
}

/// Sends a signal to processes.
pub fn signal(processes: &[u32], signal: Signal) {
    for process in processes {
        kill_process(Pid::from_raw(*process as i32).unwrap(), signal).unwrap();
    }
}

/// Fails if more than [`RETURN`] has passed since `returned`.
pub fn in_time(returned: Instant, what: &str) {
    let passed = returned.elapsed();
    println!("{what}: {passed:?} after the return");
    assert!(passed.as_nanos() <= RETURN.0 as u128, "{what}: {passed:?} after the return");
}
