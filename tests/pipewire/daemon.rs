//! The whole daemon between a simulated guest and a real PipeWire: what any of the three says of a volume or a permission,
//! the others see and hear.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vsnd_bridge::config::Capture;
use vsnd_bridge::control::{Command, DomainSnapshot};
use vsnd_bridge::mixer::Volume;
use vsnd_bridge::sim::frontend::{HwParams, Kernel, PcmHandle};
use vsnd_bridge::sndif::Operation;
use vsnd_pw_module::pipewire::private::{Options, PrivateServer, SINK};
use vsnd_pw_module::pipewire::{PipeWireServer, survey};
use vsnd_pw_module::{Direction, NodeState, Octets};
use vsnd_tests::pipewire::Endpoint;
use vsnd_tests::rings::{PATIENCE, eventually};

use crate::machine::{Machine, Running};
use crate::volume::{LEVEL, hears};

/// Where the arrays of volumes lie in the guest's buffer.
const ARRAY: Octets = Octets(0);

/// A machine with one guest, whose bridge shows it on a private PipeWire.
struct Shown {
    guest: Running,
    machine: Machine,
    desk: PrivateServer,
}

impl Shown {
    fn start() -> Self {
        let desk = PrivateServer::start(Options { min_quantum: 1024, ..Options::default() }).unwrap();
        let mut machine = Machine::without_bridge();
        let told = machine.control.clone();
        let server = PipeWireServer::start(move |event| told.server_event(&event), Some(desk.remote()));
        machine.start_bridge(Arc::new(server.unwrap()), "");
        let guest = machine.guest("work", Kernel::Since2026);
        eventually("connected", || machine.control.snapshot().server);
        Self { guest, machine, desk }
    }

    fn open(&self, direction: Direction) -> PcmHandle {
        let pcm = self.guest.card.open(0, direction).unwrap();
        pcm.hw_params(HwParams::cd(1_024, 16_384)).unwrap();
        pcm
    }

    fn seen(&self) -> DomainSnapshot {
        self.machine.control.snapshot().domains.into_iter().next().unwrap()
    }

    fn volume(&self, volume: f64) {
        let volume = Volume::try_from(volume).unwrap();
        self.machine.control.obey(Command::SetVolume { domain: self.guest.domain.id(), volume }).unwrap();
    }

    fn muted(&self, muted: bool) {
        self.machine.control.obey(Command::SetMuted { domain: self.guest.domain.id(), muted }).unwrap();
    }

    fn capture(&self, capture: Capture) {
        self.machine.control.obey(Command::SetCapture { domain: self.guest.domain.id(), capture }).unwrap();
    }

    /// The server's number for the guest's running node.
    fn node(&self) -> String {
        eventually("a running node", || match self.seen().streams.first()?.open.as_ref()?.node {
            Some(NodeState::Running { id }) => Some(id.to_string()),
            _ => None,
        })
    }

    fn wpctl(&self, arguments: &[&str]) -> String {
        let output = self.desk.command("wpctl").args(arguments).output().unwrap();
        assert!(output.status.success(), "wpctl {arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn get(pcm: &PcmHandle) -> [i32; 2] {
    let array = pcm.exchange(Operation::GetVolume, ARRAY, &[0; 8]).unwrap();
    [0, 4].map(|at| i32::from_le_bytes(array[at..at + 4].try_into().unwrap()))
}

#[test]
fn every_volume_is_heard_and_seen_by_the_others() {
    let machine = Shown::start();
    let (pcm, ended) = (&machine.open(Direction::Playback), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let sound = LEVEL.to_le_bytes().repeat(2 * 4_096);
            while !ended.load(Ordering::Acquire) {
                if pcm.write(&sound).is_err() {
                    // The machine was too busy.
                    let _ = pcm.prepare();
                }
            }
        });
        let _end = End(ended);
        let id = machine.node();
        let ear = Endpoint::record_sink(&machine.desk.remote(), SINK, 2, 48_000).unwrap();
        hears(&ear, [1.0, 1.0]);
        assert_eq!(get(pcm), [0, 0]);

        machine.volume(0.5);
        hears(&ear, [0.125, 0.125]);
        assert_eq!(get(pcm), [-18_062, -18_062]);
        assert!(machine.wpctl(&["get-volume", &id]).contains("1.00"), "the slider is the user's");

        machine.wpctl(&["set-volume", &id, "0.5"]);
        hears(&ear, [0.015_625, 0.015_625]);
        eventually("the slider", || {
            let user = machine.seen().streams.first()?.user.clone()?;
            (user.channels == [0.125, 0.125]).then_some(())
        });
        assert_eq!(get(pcm), [-36_124, -36_124]);
        machine.wpctl(&["set-mute", &id, "1"]);
        eventually("the mute", || machine.seen().streams.first()?.user.clone()?.muted.then_some(()));
        machine.wpctl(&["set-mute", &id, "0"]);

        machine.volume(1.0);
        pcm.exchange(Operation::SetVolume, ARRAY, &[-6_021i32, 0].map(i32::to_le_bytes).concat()).unwrap();
        hears(&ear, [0.0625, 0.125]);
        assert_eq!(get(pcm), [-24_083, -18_062]);
        assert_eq!(machine.seen().streams[0].guest[0].volume.get(), -6_021);
        assert!(machine.wpctl(&["get-volume", &id]).contains("0.50"), "the slider is the user's");

        machine.muted(true);
        hears(&ear, [0.0, 0.0]);
        assert_eq!(get(pcm), [-24_083, -18_062]);
        machine.muted(false);
        hears(&ear, [0.0625, 0.125]);
    });
}

/// Ends the guest's application, also when the test fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The best of three, as a busy machine may take longer, but nothing in here does.
#[test]
fn a_permitted_microphone_appears_while_the_guest_records_and_a_withdrawn_one_goes() {
    let machine = Shown::start();
    let pcm = machine.open(Direction::Capture);
    let remote = machine.desk.remote();
    let shown = || {
        let graph = survey(Some(&remote), PATIENCE).unwrap();
        graph.iter().any(|object| object.get("node.name").is_some_and(|name| name.starts_with("vsnd.work")))
    };
    let mut read = vec![0; 1_024 * 4];
    let (mut came, mut went) = (Duration::MAX, Duration::MAX);
    pcm.read(&mut read).unwrap();
    assert_eq!(machine.seen().capture_requests, 1);
    for _ in 0..3 {
        pcm.read(&mut read).unwrap();
        assert!(!shown());
        let allowed = Instant::now();
        machine.capture(Capture::Allow);
        eventually("a microphone", || shown().then_some(()));
        came = came.min(allowed.elapsed());
        assert!(machine.seen().capture_active);
        for _ in 0..20 {
            pcm.read(&mut read).unwrap();
        }
        let withdrawn = Instant::now();
        machine.capture(Capture::Deny);
        eventually("no microphone", || (!shown()).then_some(()));
        went = went.min(withdrawn.elapsed());
        assert!(!machine.seen().capture_active);
        for _ in 0..20 {
            pcm.read(&mut read).unwrap();
        }
    }
    println!("a microphone came in {came:?} and went in {went:?}");
    let limit = Duration::from_millis(100);
    assert!(came < limit && went < limit, "came in {came:?}, went in {went:?}");
    assert_eq!(pcm.counters().core.unexpected, 0);
    assert_eq!(machine.guest.card.harm(), []);
}
