//! A desktop: a sound server, a session bus, and the whole daemon, which shows a guest named "work" on both.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::runtime::Runtime;
use vsnd_bridge::session_bus;
use vsnd_bridge::sim::frontend::{HwParams, Kernel, PcmError, PcmHandle};
use vsnd_dbus::client::{Client, Domain, DomainProxy, StreamProxy, StreamView};
use vsnd_dbus::{DomainId, StreamId};
use vsnd_pw_module::pipewire::PipeWireServer;
use vsnd_pw_module::pipewire::private::{Options, PrivateServer};
use vsnd_pw_module::pulse::PulseServer;
use vsnd_pw_module::{Direction, Frames, ServerEvent, SoundServer};
use vsnd_tests::bus::PrivateBus;
use vsnd_tests::pulse::{PrivatePulse, Recorder};
use vsnd_tests::rings::{LEVEL, PATIENCE, eventually, levels};
use zbus::Connection;
use zbus::connection::Builder;

use super::machine::{Machine, Running};

pub const PLAYBACK: StreamId = StreamId { card: 0, pcm: 0, stream: 0 };
pub const CAPTURE: StreamId = StreamId { card: 0, pcm: 0, stream: 1 };

/// The server on which guests are shown.
pub enum Private {
    PipeWire(Box<PrivateServer>),
    Pulse(PrivatePulse),
}

impl Private {
    /// PipeWire with WirePlumber and pipewire-pulse, and PulseAudio.
    pub fn both() -> impl Iterator<Item = Self> {
        [Self::pipewire as fn() -> Self, Self::pulse].into_iter().map(|start| start())
    }

    pub fn pipewire() -> Self {
        // Cycles long enough for a busy machine to keep pace.
        let options = Options { min_quantum: 1024, pulse: true, ..Options::default() };
        Self::PipeWire(Box::new(PrivateServer::start(options).unwrap()))
    }

    pub fn pulse() -> Self {
        Self::Pulse(PrivatePulse::start().unwrap())
    }

    /// The bridge's side of it.
    pub fn server(&self, tell: impl Fn(ServerEvent) + Send + 'static) -> Arc<dyn SoundServer> {
        match self {
            Self::PipeWire(pipewire) => {
                Arc::new(PipeWireServer::start(tell, Some(pipewire.remote())).unwrap())
            }
            Self::Pulse(pulse) => Arc::new(PulseServer::start(tell, Some(pulse.server())).unwrap()),
        }
    }

    /// A command that finds this server by either protocol.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match self {
            Self::PipeWire(pipewire) => {
                let mut command = pipewire.command(program);
                command.env("PULSE_SERVER", pipewire.pulse_server());
                command
            }
            Self::Pulse(pulse) => pulse.command(program),
        };
        command.env("LC_ALL", "C");
        command
    }

    /// Records what a sink plays.
    pub fn recorder(&self, sink: &str) -> Recorder {
        Recorder::start(self.command("parec"), sink, 2).unwrap()
    }
}

pub struct Desk {
    /// Before the server: what it plays still is heard.
    pub guest: Running,
    _machine: Machine,
    pub private: Private,
    pub bus: PrivateBus,
    client: Client,
    runtime: Runtime,
}

impl Desk {
    /// One with PipeWire, and one with PulseAudio.
    pub fn both(policy: &str) -> impl Iterator<Item = Self> {
        Private::both().map(move |private| Self::start(private, policy))
    }

    pub fn start(private: Private, policy: &str) -> Self {
        let bus = PrivateBus::start().unwrap();
        let mut machine = Machine::without_bridge();
        let (told, address) = (machine.control.clone(), bus.address().to_owned());
        session_bus::serve(machine.control.clone(), move || connect(address.clone())).unwrap();
        machine.start_bridge(private.server(move |event| told.server_event(&event)), policy);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(connect(bus.address().to_owned())).unwrap();
        let guest = machine.guest("work", Kernel::Since2026);
        let desk = Self { guest, _machine: machine, private, bus, client: Client::on(connection), runtime };
        eventually("connected", || (desk.bridge().server != "null").then_some(()));
        desk
    }

    /// Waits for what somebody on the bus does.
    pub fn on_bus<T>(&self, what: impl Future<Output = T>) -> T {
        let what = async { tokio::time::timeout(PATIENCE, what).await };
        self.runtime.block_on(what).unwrap_or_else(|_| panic!("nothing on the bus within {PATIENCE:?}"))
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// All that is published.
    pub fn bridge(&self) -> vsnd_dbus::client::Bridge {
        self.on_bus(self.client.snapshot()).unwrap()
    }

    pub fn id(&self) -> DomainId {
        self.guest.domain.id().into()
    }

    /// What is published of the guest.
    pub fn domain(&self) -> Domain {
        let id = self.id();
        eventually("published", || self.bridge().domains.into_iter().find(|domain| domain.id == id))
    }

    /// What is published of one of its streams.
    pub fn stream(&self, id: StreamId) -> StreamView {
        self.domain().streams.into_iter().find(|stream| stream.id == id).unwrap()
    }

    pub fn domain_proxy(&self) -> DomainProxy<'static> {
        self.on_bus(self.client.domain(self.id())).unwrap()
    }

    pub fn stream_proxy(&self, id: StreamId) -> StreamProxy<'static> {
        self.on_bus(self.client.stream(self.id(), id)).unwrap()
    }

    /// What a tool that any desktop has prints.
    pub fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = self.private.command(program);
        command.args(arguments).env("DBUS_SESSION_BUS_ADDRESS", self.bus.address());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Listens to a sink.
    pub fn ear(&self, sink: &str) -> Ear {
        Ear(self.private.recorder(sink))
    }

    /// An application in the guest that plays [`LEVEL`] without end.
    pub fn player(&self) -> Application {
        let sound = LEVEL.to_le_bytes().repeat(2 * 4_096);
        Application::start(self.open(Direction::Playback), move |pcm| pcm.write(&sound))
    }

    pub fn open(&self, direction: Direction) -> PcmHandle {
        let pcm = self.guest.card.open(0, direction).unwrap();
        pcm.hw_params(HwParams::cd(1_024, 16_384)).unwrap();
        pcm
    }
}

/// A connection to the bus at an address.
pub async fn connect(address: String) -> zbus::Result<Connection> {
    Builder::address(address.as_str()).build().await
}

/// Somebody who listens to a sink.
pub struct Ear(Recorder);

impl Ear {
    /// Waits until what the guest plays is heard times these factors.
    pub fn hears(&self, factors: [f32; 2]) {
        let wanted = levels(factors);
        let what = format!("at {wanted:?}");
        self.0.wait(PATIENCE, &what, |sound| sound.is_at(wanted).then_some(())).unwrap();
    }
}

/// An application in the guest that plays or records without end; dropping it ends it.
pub struct Application {
    pub pcm: Arc<PcmHandle>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Application {
    /// One that does `turn` over and over.
    pub fn start(
        pcm: PcmHandle,
        mut turn: impl FnMut(&PcmHandle) -> Result<Frames, PcmError> + Send + 'static,
    ) -> Self {
        let (pcm, ended) = (Arc::new(pcm), Arc::<AtomicBool>::default());
        let (used, ending) = (Arc::clone(&pcm), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            while !ending.load(Ordering::Acquire) {
                if turn(&used).is_err() {
                    // The machine was too busy.
                    let _ = used.prepare();
                }
            }
        });
        Self { pcm, ended, thread: Some(thread) }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // What it died of is in its own message.
            let _ = thread.join();
        }
    }
}
